"""The reference is complete and current: what is generated is as generated, what is written by hand leaves nothing out."""

import json
import re
import subprocess
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

import esexec
import projections
from docs import generate
from esexec.cloudevents import _Stored
from esexec.domain import aliases, commands
from esexec.domain.errors import EsexecError
from esexec.domain.objects import ObjectPart, ObjectRef
from esexec.domain.retry import FINAL_CODES
from esexec.domain.settings import PRESETS, ExecutionConfig
from esexec.failures.known import _BUILT_IN, _BY_ERRNO, _BY_NAME
from esexec.protocol import CHANNELS, schemas
from esexec.protocol import messages as messages_of
from esexec.views import Durations
from projections.asks import ExecutionsPage
from projections.role import BUILT_IN
from projections.service import Questions
from projections.statistics_asks import AskDurations, AskStatistics, ExecutionStatistics, TaskStatistics
from tests.docs.pages import ROOT, blocks
from tests.node import NODE, installed
from tests.schemas import problems

REFERENCE = ROOT / "docs/reference"
UNSHOWN = {name for name in messages_of() if name.startswith(("Ask", "List", "Count")) or name.endswith(("Page", "Projections"))}
"""Questions and answers whose fields stand in a table."""
PROTOCOL = [block for block in blocks(REFERENCE / "protocol.md") if block.language == "json"]
MESSAGES: dict[str, Any] = {name: one.kind for name, one in messages_of().items()} | {
    "CloudEvent": _Stored,
    "ObjectRef": ObjectRef,
    "ObjectPart": ObjectPart,
}
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


@pytest.mark.parametrize("block", [*PROTOCOL, *QUERIES], ids=lambda block: f"{block.title}:{block.line}")
def test_examples_are_valid_by_the_schemas(block: Any) -> None:
    """Every example of the protocol and of the queries is valid by the JSON Schema of its title, and has no field beyond it."""
    assert problems(block.title, json.loads(block.text)) == []


def test_the_schemas_are_schemas() -> None:
    """The published document and each of its schemas is one by JSON Schema 2020-12, with regular expressions of any language."""
    document = schemas()
    Draft202012Validator.check_schema(document)
    for schema in document["$defs"].values():
        Draft202012Validator.check_schema(schema)
    assert not [text for text in _patterns(document) if "\\Z" in text or "\\A" in text or "(?" in text]


def _patterns(part: Any) -> list[str]:
    if isinstance(part, list):
        return [text for one in part for text in _patterns(one)]
    if not isinstance(part, dict):
        return []
    own = [part["pattern"]] if isinstance(part.get("pattern"), str) else []
    return own + [text for one in part.values() for text in _patterns(one)]


@pytest.mark.timeout(300)  # it may be the first to install the validator
def test_another_language_reads_the_schemas_alike() -> None:
    """Every schema compiles, strictly, in JavaScript, and every example of the protocol is valid there as well."""
    directory = installed(ROOT / "tests/asyncapi")
    examples = [{"name": block.title, "data": json.loads(block.text)} for block in PROTOCOL]
    checked = subprocess.run(
        [NODE, "schemas.mjs", str(REFERENCE / "schemas/esexec.schema.json")],
        input="\n".join(map(json.dumps, examples)), cwd=directory, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(schemas()['$defs'])} schemas, {len(examples)} messages, 0 wrong" in checked.stdout


@pytest.mark.timeout(300)  # it installs the parser
def test_the_asyncapi_document_is_one() -> None:
    """The AsyncAPI document is valid by the parser of the AsyncAPI initiative, every reference and parameter included."""
    directory = installed(ROOT / "tests/asyncapi")
    checked = subprocess.run(
        [NODE, "check.mjs", str(REFERENCE / "schemas/asyncapi.json")], cwd=directory, capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    addresses = [one for one in CHANNELS if one.address is not None]
    assert f"{len(CHANNELS)} channels, {len(addresses)} operations" in checked.stdout


def test_every_channel_is_told() -> None:
    """The page of the protocol names every subject; every message of the catalogue has an example, there or with the queries."""
    told = _text("protocol.md") + _text("queries.md")
    headings = " ".join(re.findall("^### .*$", told, re.MULTILINE))
    assert [verb for verb in commands.VERBS if f"`{verb}`" not in headings] == []
    others = [one for one in CHANNELS if one.address is not None and not one.name.startswith("cmd.")]
    assert [one.name for one in others if not _is_told(one.address, told)] == []
    shown = {block.title for block in [*PROTOCOL, *QUERIES]}
    assert sorted(messages_of().keys() - shown - UNSHOWN - {"Withdrawn"}) == []


def test_every_field_is_told() -> None:
    """The page of the protocol has every field of every message: in an example, or in words."""
    page = _text("protocol.md")
    told = {*re.findall(r"`(\w+)[`: =]", page), *re.findall(r'"(\w+)":', page)}
    fields = {name: schema["properties"].keys() for name, schema in schemas()["$defs"].items() if "properties" in schema}
    travel = MESSAGES.keys() - UNSHOWN - {block.title for block in QUERIES}
    assert {name: missing for name in travel if (missing := fields[name] - told)} == {}


def _is_told(address: str | None, told: str) -> bool:
    """Whether this subject stands on the page, with whatever in place of the namespace and of the parameters."""
    tokens = str(address).replace("esexec.{namespace}.", "").split(".")
    pattern = r"\.".join(r"(<[^`.]+>|\*|[\w-]+)" if "{" in one else re.escape(one) for one in tokens)
    return re.search(rf"[`.…]{pattern}`", told) is not None


@pytest.mark.parametrize("block", QUERIES, ids=lambda block: f"{block.title}:{block.line}")
def test_query_examples_are_questions_and_answers(block: Any) -> None:
    """Every example of a query decodes as what it is titled, and nothing in it is ignored or left to a default."""
    message = msgspec.json.decode(block.text, type=ASKED[block.title])
    assert json.loads(msgspec.json.encode(message)) == json.loads(block.text)


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
