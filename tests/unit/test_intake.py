"""What comes in is read: a report that holds more than can be kept is its attempt's failure, with the limit's name."""

from functools import partial
from typing import Any

import msgspec
import pytest

from esexec.client.commands import encode_command, has_large_parts
from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.errors import ValidationError
from esexec.executor.intake import Intake, _read_report
from tests.given import T0

ROOM = 64 * 1024
"""What a report may have beside the output."""


def completed(**more: Any) -> bytes:
    return msgspec.json.encode(r.Completed(started_at=T0, ended_at=T0, **more))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (completed(vars={"v": "x" * limits.vars_bytes}), "vars_too_large"),
        (completed(vars={"v": "x" * limits.vars_bytes}, output="y" * limits.output_bytes), "vars_too_large"),
        (completed(vars={"v": [0.5]}).replace(b"0.5", b"1e15," * 8_000 + b"1"), "vars_too_large"),
        (completed(output="x" * (limits.output_bytes + ROOM)), "output_too_large"),
        (completed(output="x" * (limits.output_bytes + limits.vars_bytes + ROOM)), "output_too_large"),
        (msgspec.json.encode(r.Before(image="x" * limits.image_bytes)), "image_too_large"),
        (completed(vars={"v": 1}).replace(b"1", b"[" * 150 + b"]" * 150), "bad_report"),
        (msgspec.json.encode(r.Before(image=1)).replace(b"1", b"[" * 150 + b"]" * 150), "bad_report"),
    ],
)
def test_what_cannot_be_kept_fails_its_attempt(data: bytes, code: str) -> None:
    """Too large (as it would be stored) or too deep: not retried, for it would be no smaller next time."""
    report = _read_report(data)
    assert isinstance(report, r.Failed)
    assert (report.error.code, report.error.retryable, bool(report.error.hint)) == (code, False, True)


@pytest.mark.parametrize(
    "report",
    [
        r.Completed(
            started_at=T0, ended_at=T0, output="x" * (limits.output_bytes - 2), vars={"v": "x" * (limits.vars_bytes - 8)}
        ),
        r.Before(image="x" * (limits.image_bytes - 2)),
        r.Before(),
    ],
)
def test_what_is_as_large_as_it_may_be_is_taken(report: r.Report) -> None:
    """The limits are what may be reached, each for itself."""
    assert _read_report(msgspec.json.encode(report)) == report


HOMES = ("_settings", "_plans", "_pools", "_alerts")


def read(entity: str, verb: str, command: c.Command) -> Any:
    return read_bytes(entity, verb, msgspec.json.encode(command))


def read_bytes(entity: str, verb: str, data: bytes) -> Any:
    async def take(_: Any) -> None: ...

    intake = Intake(None, None, None, dict.fromkeys(HOMES, take), take)  # type: ignore[arg-type]
    return intake._read_command(entity, verb, data)


def test_a_fork_may_bring_its_outputs_along() -> None:
    """Beside a plan, input and context of the largest size; without them such a command is too large."""
    plan = msgspec.Raw(b'{"name":"' + b"p" * (limits.plan_bytes - 20) + b'"}')
    largest = c.StartExecution(id="c1", plan=plan, input="x" * (limits.input_bytes - 10))
    fork = msgspec.structs.replace(largest, kept={"s": "x" * (limits.fork_bytes - 10)})
    assert read("e1", "start", fork) == fork
    with pytest.raises(ValidationError) as raised:
        read("e1", "start", msgspec.structs.replace(largest, context={"s": "x" * (limits.fork_bytes - 10)}))
    assert raised.value.code == "too_large"


@pytest.mark.parametrize(
    ("largest", "over"),
    [
        ({"input": "x" * (limits.input_bytes - 2)}, {"input": "x" * (limits.input_bytes - 1)}),
        ({"context": {"s": "x" * (limits.input_bytes - 8)}}, {"context": {"s": "x" * (limits.input_bytes - 7)}}),
        ({"metadata": {"s": "x" * (limits.input_bytes - 8)}}, {"metadata": {"s": "x" * (limits.input_bytes - 7)}}),
    ],
    ids=["input", "context", "metadata"],
)
def test_what_a_start_brings_along_has_a_limit(largest: dict[str, Any], over: dict[str, Any]) -> None:
    """Input, context and metadata may have `input_bytes` each: one byte more is refused, by name, by executor and client; but a
    client stores a larger input as an object."""
    part = next(iter(over))
    command = c.StartExecution(id="c1", task="t", **largest)
    assert read("e1", "start", command) == command
    assert encode_command(command) == msgspec.json.encode(command)
    too_large = c.StartExecution(id="c1", task="t", **over)
    assert part != "input" or has_large_parts(encode_command(too_large), too_large)
    for refuse in (partial(read, "e1", "start"), *([encode_command] if part != "input" else [])):
        with pytest.raises(ValidationError, match=f"{part} of {limits.input_bytes + 1} bytes is too large") as raised:
            refuse(too_large)
        assert (raised.value.code, "limits.input_bytes" in (raised.value.hint or "")) == ("too_large", True)


def test_an_input_is_as_large_as_it_is_stored() -> None:
    """`1e15` is written with eighteen bytes: a small message can hold an input that is too large."""
    data = msgspec.json.encode(c.StartExecution(id="c1", task="t", input=[0.5])).replace(b"0.5", b"1e15," * 15_000 + b"1")
    assert len(data) < limits.input_bytes
    with pytest.raises(ValidationError, match="input of "):
        read_bytes("e1", "start", data)


@pytest.mark.parametrize("verb", c.VERBS)
def test_every_verb_has_one_home(verb: str) -> None:
    """An execution, or one of what executions share; anywhere else it is refused before its body is read."""
    homes = []
    for entity in ("e1", *HOMES):
        with pytest.raises((ValidationError, msgspec.ValidationError)) as raised:
            read(entity, verb, c.CancelExecution(id="no id"))
        if getattr(raised.value, "code", None) != "wrong_entity":
            homes.append(entity)
    assert len(homes) == 1
