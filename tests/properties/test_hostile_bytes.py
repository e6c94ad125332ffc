"""Everything that reads what others wrote takes anything: it is understood, or it is one typed error. Never another exception,
never an endless time.

By chance the inputs are bytes, text, and examples of the documents that were spoiled; the same every time. Many more of them with
`make chaos`.
"""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esexec import cloudevents
from esexec.cli import given as cli
from esexec.cli.lists import read_since
from esexec.domain import commands as c
from esexec.domain import reports as r
from esexec.domain.durations import milliseconds
from esexec.domain.errors import EsexecError
from esexec.domain.reading import decode_plan, read_change, read_plan
from esexec.domain.references import compile_params, resolve
from esexec.executor.intake import _UNREADABLE, Intake, _id_in, _read_report
from esexec.log import codec
from esexec.log.lines import histories_in
from esexec.log.verify import verify
from esexec.nats.dead import dead_letter, is_intake
from esexec.nats.lean import Message, read_headers
from esexec.nats.subjects import Subjects
from esexec.plan_files import load
from esexec.plans import Plan
from tests.given import T0
from tests.hostile import VALUES, examples, spoiled

PROTOCOL = examples("protocol.md")
EXAMPLES = [one for found in PROTOCOL.values() for one in found]
COMMANDS = [(verb, one) for verb, kind in c.VERBS.items() for one in PROTOCOL[kind.__name__]]
REPORTS = [one for kind in ("Started", "Completed", "Failed", "TimedOut", "Stopped", "Lost", "Before") for one in PROTOCOL[kind]]
PLAN = {
    "name": "p",
    "config": {
        "timeout": "30s",
        "rateLimit": {"maxExecutions": 2, "window": "1m"},
        "concurrency": {"key": "input.a", "limit": 2},
    },
    "steps": [
        {
            "id": "a",
            "task": "t",
            "params": {"x": "${input.a[0].b}", "y": "${context.u} and ${steps.b.output}"},
            "dependsOn": ["b"],
        },
        {"id": "b", "tool": "t", "fallback": "u", "compensate": "v", "resources": [{"type": "gpu", "amount": 1}]},
        {"task": "t", "depends_on": [0], "retry_delay": 2, "timeout_growth": 1.5, "metadata": {"k": [1, None]}},
    ],
}
FEW, MANY = 25, 600
SLOWEST_S = 2.0


async def _take(_: Any) -> None: ...


INTAKE = Intake(None, None, None, dict.fromkeys(("_settings", "_plans", "_pools", "_alerts"), _take), _take)  # type: ignore[arg-type]


def test_the_examples_are_right_before_they_are_spoiled() -> None:
    """Else all that is made of them is refused at the same place."""
    decode_plan(msgspec.json.encode(PLAN))
    assert read_plan(PLAN).steps[2].id == "t"


def of(*kept: Any) -> st.SearchStrategy[bytes]:
    """Bytes: spoiled examples, some as they are, some that are nothing."""
    whole = st.builds(lambda one, seed: spoiled(one, random.Random(seed)), st.sampled_from(kept), st.integers(0, 2**32))
    return whole | st.sampled_from(list(VALUES.values())) | st.binary(max_size=300)


EDGES = ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "00:00",
         "23:59:59.999999", "10000000000d", "9" * 400, "1e308", "-1", "∞", "٣s", "0x10", "1_000", "\0", "\ud800",
         "[" * 100_000, "${" * 5_000]  # fmt: skip
texts = st.sampled_from(EDGES) | st.text(max_size=60) | st.text("0123456789.:-+TZ hmsd${}[]'\"\\ea", max_size=40)


def a_command(data: bytes) -> None:
    for verb, _ in COMMANDS:
        for entity in ("e-1", "_settings", "_plans", "_pools", "_alerts"):
            with suppress(*_UNREADABLE):
                INTAKE._read_command(entity, verb, data)
    _id_in(data)


def a_report(data: bytes) -> None:
    assert isinstance(_read_report(data), r.AnyReport)


def a_plan(data: bytes) -> None:
    decode_plan(data)


def a_document(data: bytes) -> None:
    document = msgspec.json.decode(data)
    for read in (read_plan, Plan.from_dict, read_change, compile_params):
        with suppress(EsexecError):
            read(document)


def params(data: bytes) -> None:
    if (template := compile_params(msgspec.json.decode(data))) is not None:
        resolve(template, input={"a": [{"b": 1}]}, context={"u": "x"}, output_of=lambda step: [step])


def a_commit(data: bytes) -> None:
    codec.decode(data)


def a_file_of_histories(data: bytes) -> None:
    histories, _ = histories_in(data.split(b"\n"))
    for execution_id, history in histories.items():
        verify(execution_id, history)


def an_event(data: bytes) -> None:
    cloudevents.decode(data)


def headers(data: bytes) -> None:
    read_headers(data)
    message = Message(None, "s", "", b"", data)  # type: ignore[arg-type]
    assert message.number(b"Nats-Sequence") >= 0
    assert message.headers is not None


READERS: dict[str, tuple[Callable[[bytes], None], st.SearchStrategy[bytes]]] = {
    "command": (a_command, of(*(one for _, one in COMMANDS))),
    "report": (a_report, of(*REPORTS)),
    "plan": (a_plan, of(PLAN)),
    "document": (a_document, of(PLAN, *EXAMPLES)),
    "params": (params, of(PLAN["steps"][0]["params"])),  # type: ignore[index]
    "commit": (a_commit, of(*PROTOCOL["Commit"])),
    "histories": (a_file_of_histories, of({"execution_id": "e", "n": 1, "commit": PROTOCOL["Commit"][0]}, *PROTOCOL["Commit"])),
    "event": (an_event, of(*PROTOCOL["CloudEvent"])),
    "headers": (headers, st.binary(max_size=200).map(lambda data: b"NATS/1.0\r\nNats-Sequence: " + data)),
}


UNDERSTOOD = (EsexecError,)
NO_JSON = (*UNDERSTOOD, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _read(reader: str, data: bytes) -> None:
    begun = time.process_time()
    with suppress(*(NO_JSON if reader in ("document", "params") else UNDERSTOOD)):
        READERS[reader][0](data)
    assert time.process_time() - begun < SLOWEST_S


def bounded(count: int) -> Any:
    """So many examples, the same every time."""
    kinds = [
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
        HealthCheck.function_scoped_fixture,
    ]
    return settings(max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=kinds)


COUNTS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.chaos)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("reader", READERS)
def test_any_bytes_are_read_or_refused(reader: str, count: int) -> None:
    """Commands, reports, plans, params, commits, files of histories, events, headers."""

    @bounded(count)
    @given(READERS[reader][1])
    def reads(data: bytes) -> None:
        _read(reader, data)

    reads()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("data", VALUES.values(), ids=VALUES.keys())
def test_each_odd_value_alone(reader: str, data: bytes) -> None:
    """In place of the whole message."""
    _read(reader, data)


PARSERS: list[Callable[[str], Any]] = [
    lambda text: milliseconds(text, name="timeout"),
    lambda text: cli.read_time(text, "--at"),
    lambda text: cli.read_moment(text, datetime(2026, 1, 1, 9, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC), "--at"),
    lambda text: cli.read_deadline(text, "--deadline"),
    lambda text: cli.time_options(text, text, delay=text, execution_timeout=text, checkpoint_interval=text),
    lambda text: cli.read_metadata([text, f"a={text}"]),
    cli.read_input,
    lambda text: read_since(text, "--since"),
    lambda text: compile_params({"a": text, "b": f"${{input.{text}}}", "c": f"${{{text}"}),
]
_SUBJECTS = Subjects("ns")
SUBJECTS: list[Callable[[str], Any]] = [
    _SUBJECTS.parse_command, _SUBJECTS.parse_inbox, _SUBJECTS.parse_commit, _SUBJECTS.parse_task, _SUBJECTS.parse_due,
    _SUBJECTS.parse_lane, _SUBJECTS.parse_dead, lambda text: _SUBJECTS.parse_attempt(tuple(text.split("."))), Subjects,
    lambda text: is_intake(text, "ns"), lambda text: dead_letter("code", text, text, T0, text.encode("utf-8", "replace"), 10_000),
]  # fmt: skip


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("number", range(len(PARSERS)))
def test_any_text_of_the_command_line_is_read_or_refused(number: int, count: int) -> None:
    """Durations, times, input, metadata, references."""
    _texts(PARSERS[number], texts, count)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("number", range(len(SUBJECTS)))
def test_any_subject_is_read_or_refused(number: int, count: int) -> None:
    """Also those that begin as ours do."""
    words = st.sampled_from(
        ["log", "commit", "task", "due", "in", "inbox", "commands", "cmd", "dead", "5", "1-1", "e-1", "*", ">", ""]
    )
    ours = st.lists(words | texts, max_size=8).map(lambda tokens: ".".join(["esexec", "ns", *tokens]))
    _texts(SUBJECTS[number], ours | texts, count)


def _texts(parse: Callable[[str], Any], given_: st.SearchStrategy[str], count: int) -> None:
    @bounded(count)
    @given(given_)
    def reads(text: str) -> None:
        with suppress(EsexecError):
            parse(text)

    reads()


BOMBS = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefghi")),
    "merges": "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b} {{<<: [{','.join(['*' + a] * 9)}]}}\n" for a, b in pairwise("abcdefghi")),
    "itself": "name: p\nsteps: &s\n- *s\n",
    "itself in itself": "&a {name: *a, steps: [*a]}",
    "deep": "[" * 20_000,
    "deep objects": "{a: " * 20_000,
    "deep lines": "".join(" " * n + "a:\n" for n in range(600)),
    "tags": "!!python/object/apply:os.system ['true']",
    "number": "name: p\nsteps: " + "9" * 400_000,
    "sexagesimal": "name: p\nsteps: " + "1:" * 5_000 + "1",
    "date": "name: 2026-99-99\nsteps: 0000-00-00T99:99:99",
    "odd keys": "? [a, b]\n: 1\n? {c: d}\n: 2\n",
    "nul": "name: \x00",
    "nan": "name: p\nsteps: [.nan, .inf, -.inf]",
    "twice": "name: p\nname: q\nsteps: []",
    "two documents": "name: p\n---\nname: q\n",
    "bom": "\ufeffname: p\nsteps: []",
    "binary": "name: !!binary //\nsteps: []",
}  # fmt: skip


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
def test_a_plan_file_cannot_explode(tmp_path: Path, text: str) -> None:
    """Aliases, merges, recursion, tags, numbers: refused with a code and soon, or harmless."""
    file = tmp_path / "plan.yaml"
    file.write_text(text, encoding="utf-8")
    begun = time.process_time()
    with pytest.raises(EsexecError):
        Plan.from_file(file)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_any_plan_file_is_read_or_refused(tmp_path: Path, suffix: str, count: int) -> None:
    """Bytes, JSON that was spoiled, YAML that was spoiled."""
    file = tmp_path / f"plan{suffix}"

    @bounded(count // 2)
    @given(of(PLAN) | st.text("abc: -[]{}&*<>!|?'\"\n#%@,.0123", max_size=200).map(str.encode))
    def reads(data: bytes) -> None:
        file.write_bytes(data[:50_000])
        with suppress(EsexecError):
            load(file)
            Plan.from_file(file)

    reads()
