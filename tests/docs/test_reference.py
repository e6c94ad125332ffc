"""The reference is complete and current: what is generated is as generated, what is written by hand leaves nothing out."""

import json
import re
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import esexec
import projections
from docs import generate
from esexec.cloudevents import _Stored
from esexec.domain import aliases, commands, messages, reports
from esexec.domain.alerts import Alert
from esexec.domain.cached import CachedResult
from esexec.domain.commit import Commit
from esexec.domain.errors import EsexecError
from esexec.domain.retry import FINAL_CODES
from esexec.domain.settings import PRESETS, ExecutionConfig
from esexec.failures.known import _BUILT_IN, _BY_ERRNO, _BY_NAME
from esexec.views import Durations
from projections.asks import ExecutionsPage
from projections.role import BUILT_IN
from projections.service import Questions
from projections.statistics_asks import AskDurations, AskStatistics, ExecutionStatistics, TaskStatistics
from tests.docs.pages import ROOT, blocks

REFERENCE = ROOT / "docs/reference"
PROTOCOL = [block for block in blocks(REFERENCE / "protocol.md") if block.language == "json"]
MESSAGES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *commands.VERBS.values(),
        *(kind for kind in vars(reports).values() if isinstance(kind, type) and issubclass(kind, reports.AnyReport)),
        Commit,
        messages.Answer,
        messages.Dispatch,
        messages.CancelSignal,
        messages.ImageSignal,
        messages.WhoHas,
        messages.ProgressSignal,
        messages.LogSignal,
        messages.WorkerSample,
        messages.WorkerPresence,
        messages.Warned,
        Durations,
        CachedResult,
        Alert,
    )
} | {"CloudEvent": _Stored}
QUERIES = [block for block in blocks(REFERENCE / "queries.md") if block.language == "json"]
ASKED: dict[str, Any] = {
    kind.__name__: kind for kind in (AskStatistics, ExecutionStatistics, TaskStatistics, AskDurations, Durations)
} | {"ExecutionsPage": ExecutionsPage}
_CODE = re.compile(
    r"""(?:\bcode|\bdefault_code)\s*=\s*"([A-Za-z_]+)"|_wrong\([^\n]*"([a-z]+_[a-z0-9_]+)"|bury\(\w+, "(\w+)"|"""
    r"""\b(?:not_now|_timed_out)\(\s*"(\w+)\""""
)


def _text(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", generate.pages(), ids=lambda path: path.name)
def test_generated_pages_are_current(path: Any) -> None:
    """`python docs/generate.py` would change nothing."""
    assert path.read_text(encoding="utf-8") == generate.pages()[path], "run `python docs/generate.py`"


def test_every_public_name_has_its_place() -> None:
    """Every name of `esexec.__all__` has a heading in the Python reference; what read models are made with is told there too."""
    assert [name for name in esexec.__all__ if f"### `{name}`\n" not in _text("python.md")] == []
    assert [name for name in projections.__all__ if f"`{name}`" not in _text("python.md").partition("\n## Read models")[2]] == []


def test_every_question_is_told() -> None:
    """Every question that is answered has its heading."""
    runners: Any = {kind.name: SimpleNamespace(projection=kind) for kind in BUILT_IN}
    served = Questions(runners).endpoints()
    assert [name for name in served if f"### `{name}`\n" not in _text("queries.md")] == []


@pytest.mark.parametrize("block", PROTOCOL, ids=lambda block: f"{block.title}:{block.line}")
def test_protocol_examples_are_messages(block: Any) -> None:
    """Every example of the protocol decodes as what it is titled, and nothing in it is ignored or left to a default."""
    message = msgspec.json.decode(block.text, type=MESSAGES[block.title])
    assert json.loads(msgspec.json.encode(message)) == json.loads(block.text)


@pytest.mark.parametrize("block", QUERIES, ids=lambda block: f"{block.title}:{block.line}")
def test_query_examples_are_questions_and_answers(block: Any) -> None:
    """Every example of a query decodes as what it is titled, and nothing in it is ignored or left to a default."""
    message = msgspec.json.decode(block.text, type=ASKED[block.title])
    assert json.loads(msgspec.json.encode(message)) == json.loads(block.text)


def test_every_message_has_an_example() -> None:
    """Whatever a client or a worker sends or receives is shown in the protocol."""
    internal = {"AnyReport", "Withdrawn"}
    assert MESSAGES.keys() - internal - {block.title for block in PROTOCOL} == set()


def test_every_code_is_explained() -> None:
    """Every error code that stands in the source is in the reference of errors or of plans."""
    found = {kind.default_code for kind in _all_errors(EsexecError)}
    for path in [*(ROOT / "esexec").rglob("*.py"), *(ROOT / "projections").rglob("*.py")]:
        for groups in _CODE.findall(path.read_text(encoding="utf-8")):
            found |= {code for code in groups if code}
    told = _text("errors.md") + _text("plan.md")
    assert sorted(code for code in found if f"`{code}`" not in told) == []


def _all_errors(kind: type[EsexecError]) -> set[type[EsexecError]]:
    return {kind}.union(*(_all_errors(one) for one in kind.__subclasses__()))


def test_every_known_exception_is_explained() -> None:
    """Every code that the built-in lists give to an exception is in the reference of errors."""
    known = {*(found for _, found in _BUILT_IN), *_BY_ERRNO.values(), *_BY_NAME.values()}
    assert sorted(one.code for one in known if f"`{one.code}`" not in _text("errors.md")) == []
    assert all(one.retryable is not False or one.code.lower() in FINAL_CODES | {"invalid_data"} for one in known)


def test_the_tree_of_errors_is_the_code_s() -> None:
    """Every exception class of the tree is drawn in the reference."""
    drawn = set(re.findall(r"^    [│ ├└─]*(\w+)", _text("errors.md"), re.MULTILINE))
    public = {kind.__name__ for kind in _all_errors(EsexecError) if hasattr(esexec, kind.__name__)}
    assert drawn == public


def test_every_setting_and_key_is_explained() -> None:
    """Every setting, every key of a plan and of a step, and every other name for them is in the reference."""
    told = _text("configuration.md")
    assert [key for key in aliases.CONFIG if f"`{key}`" not in told] == []
    assert [name for name in ExecutionConfig.__struct_fields__ if f"| `{name}` |" not in told] == []
    assert "`queues`" in told
    flow = [*aliases.RATE_LIMIT, *aliases.KEY, *aliases.REQUIREMENT, *aliases.POOL]
    assert [key for key in flow if f"`{key}`" not in told] == []
    own = [key for key in {**aliases.STEP, **aliases.PLAN} if key not in aliases.CONFIG]
    assert [key for key in own if f"`{key}`" not in _text("plan.md")] == []


def test_the_presets_are_told() -> None:
    """The table of presets holds every setting of each, with its value."""
    rows = [[cell.strip("` ") for cell in line.split("|")[1:-1]] for line in _text("configuration.md").splitlines()]
    head = next(row for row in rows if row[:1] == ["preset"])
    told = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows if row and row[0] in PRESETS}
    said = {
        name: {field: json.dumps(value) for field, value in msgspec.structs.asdict(one).items() if value is not None}
        for name, one in PRESETS.items()
    }
    assert told == said
