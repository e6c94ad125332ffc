"""A plan's identity and its stored form."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from esexec.domain.canonical import canonical_bytes, plan_id
from esexec.domain.errors import PlanInvalid
from esexec.domain.plan import Plan, Step
from esexec.domain.reading import decode_plan
from esexec.domain.settings import ExecutionConfig

HISTORIES = Path(__file__).parents[1] / "histories"


def plan(params: Any = None, **fields: Any) -> Plan:
    return Plan(name="p", steps=(Step(id="a", task="t", params=params or {}, metadata={}),), **fields)


def test_the_id_is_a_storage_format() -> None:
    """The id of a known plan never changes: SHA-256 over its RFC 8785 JSON."""
    golden = Plan(name="p", steps=(Step(id="a", task="t", params={"b": 2.0, "a": "é"}, timeout_ms=5),), parallel=True)
    text = '{"name":"p","parallel":true,"steps":[{"id":"a","params":{"a":"é","b":2},"task":"t","timeout_ms":5}]}'
    assert plan_id(golden) == hashlib.sha256(text.encode()).hexdigest()
    assert plan_id(golden) == "a7549c6f4a844cfcaf05d75c4285c24d6a41b42eb1250dd8b01a004e83709c82"


@pytest.mark.parametrize(
    "other",
    [
        plan({"x": 2, "y": [1]}, description="what it is for"),
        plan({"x": 2, "y": [1]}, metadata={"team": "blue"}),
        plan({"y": [1], "x": 2}),
        plan({"x": 2.0, "y": (1,)}),
        plan({"x": 2, "y": [1]}, config=ExecutionConfig()),
        Plan(name="p", steps=(Step(id="a", task="t", params={"x": 2, "y": [1]}, description="d", metadata={"m": 1}),)),
    ],
)
def test_what_does_not_count_leaves_the_id_alone(other: Plan) -> None:
    """Descriptions, metadata, the order of keys, 2 against 2.0 and settings that say nothing make no other plan."""
    assert plan_id(other) == plan_id(plan({"x": 2, "y": [1]}))


@pytest.mark.parametrize(
    "other",
    [
        plan({"x": "2"}),
        plan({"x": 2}, parallel=True),
        plan({"x": 2}, config=ExecutionConfig(max_retries=3)),
        Plan(name="q", steps=plan({"x": 2}).steps),
        Plan(name="p", steps=(Step(id="a", task="u", params={"x": 2}),)),
        Plan(name="p", steps=(Step(id="a", task="t", params={"x": 2}, queue="q"),)),
        Plan(name="p", steps=(Step(id="a", task="t", params={"x": 2}, fallback="u"),)),
        Plan(name="p", steps=(Step(id="a", task="t", params={"x": 2}, compensate="u"),)),
        Plan(name="p", steps=(Step(id="a", task="t", params={"x": 2}, timeout_growth=2.0),)),
        plan({"x": 2}, config=ExecutionConfig(checkpoint_every="task")),
    ],
)
def test_what_counts_makes_another_plan(other: Plan) -> None:
    """Name, tasks (also those that stand in or undo), params, settings and switches belong to a plan's identity."""
    assert plan_id(other) != plan_id(plan({"x": 2}))


@pytest.mark.parametrize("value", [2**53, -(2**53), 10**400, float("nan"), float("inf"), "\ud800"])
def test_values_that_rfc_8785_cannot_hold_are_refused(value: Any) -> None:
    """Integers beyond ±(2^53 - 1), NaN, infinities and lone surrogates are `not_canonical`, with their path."""
    with pytest.raises(PlanInvalid) as refused:
        plan_id(plan({"deep": [{"x": value}]}))
    assert refused.value.code == "not_canonical"
    assert refused.value.context["path"] == "steps[0].params"
    with pytest.raises(PlanInvalid) as refused:
        plan_id(plan(metadata={"x": value}))
    assert refused.value.context["path"] == "metadata"


def test_numbers_too_long_to_print_are_refused() -> None:
    """A number with more digits than Python prints is PlanInvalid too."""
    with pytest.raises(PlanInvalid) as refused:
        plan_id(plan({"x": 10**5_000}))
    assert refused.value.code in ("not_canonical", "not_json")


def test_objects_without_a_json_form_are_refused() -> None:
    """`not_json` from both functions."""
    for function in (plan_id, canonical_bytes):
        with pytest.raises(PlanInvalid) as refused:
            function(plan({"x": object()}))
        assert refused.value.code == "not_json"


def test_the_stored_form_is_compact_and_whole() -> None:
    """Defaults are left out; descriptions and metadata are kept."""
    stored = canonical_bytes(plan(description="d", metadata={"m": 1}))
    assert stored == b'{"name":"p","steps":[{"id":"a","task":"t"}],"description":"d","metadata":{"m":1}}'
    stored = canonical_bytes(Plan(name="p", steps=(Step(id="a", task="t", fallback="b", compensate="c"),)))
    assert stored == b'{"name":"p","steps":[{"id":"a","task":"t","compensate":"c","fallback":"b"}]}'


@pytest.mark.parametrize("history", sorted(HISTORIES.glob("*.jsonl")), ids=lambda path: path.stem)
def test_stored_plans_keep_their_bytes_and_ids(history: Path) -> None:
    """A plan of any golden history is read back to the very bytes and the id that stand there."""
    first = history.read_bytes().splitlines()[0]
    for event in msgspec.json.decode(first)["events"]:
        if event["type"] == "execution_created":
            graph = decode_plan(msgspec.json.encode(event["plan"]))
            assert graph.plan_id == event["plan_id"]
            assert graph.raw in first
            return
    pytest.skip("of no execution")
