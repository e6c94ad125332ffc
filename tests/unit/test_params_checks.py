"""What executors judge of params before anything runs: sound for whatever fits, and silent about references."""

from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import esexec
from esexec.domain import commands as c
from esexec.domain.compiled import graph_of, graph_of_task
from esexec.domain.namespace import TaskVersion, version_of
from esexec.executor.params import Checks, _Accepts, _Effort

PLAIN = {
    "type": "object",
    "properties": {"i": {"type": "integer"}, "s": {"type": "string"}, "n": {"type": "number"}, "b": {"type": "boolean"}, "x": {}},
    "required": ["i"],
    "additionalProperties": False,
}
VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=3) | st.just([1]) | st.just({})


@given(st.dictionaries(st.sampled_from(["i", "s", "n", "b", "x", "y"]), VALUES))
@settings(deadline=None)
def test_the_short_way_and_json_schema_agree(params: dict[str, Any]) -> None:
    """What is taken without the library being loaded is what JSON Schema takes, and nothing else."""
    accepts = _Accepts(PLAIN)
    assert accepts.plain is not None
    assert accepts.takes(params, _Effort()) == jsonschema_rs.Draft202012Validator(PLAIN).is_valid(params)


def checks(*schemas: dict[str, Any] | None) -> Checks:
    return Checks({"t": tuple(TaskVersion() if one is None else version_of(one) for one in schemas)})


def problem(checked: Checks, params: Any) -> str | None:
    plan = msgspec.json.encode({"name": "p", "steps": [{"id": "a", "task": "t", "params": params}]})
    found = checked.problem(graph_of(plan), c.StartExecution(id="c"))
    return None if found is None else found.message


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"i": 1}, None),
        ({"i": "${input.i}"}, None),
        ({"i": 1, "n": "${input.n}"}, None),
        ({"i": "1"}, 'steps[0].params.i: task `t`: "1" is not of type "integer"'),
        ({"s": "${input.s}"}, "steps[0].params: task `t`: missing parameter `i`"),
        ({"i": 1, "z": "${input.z}"}, "steps[0].params: task `t`: unexpected parameter `z`"),
        ("${input.all}", None),
    ],
)
def test_references_are_left_alone_and_all_else_is_not(params: Any, said: str | None) -> None:
    """A reference may give anything; that a parameter is missing, or is none, is so whatever it gives."""
    assert problem(checks(PLAIN), params) == said


def test_what_is_taken_over_may_have_what_is_missing() -> None:
    """The key `"..."` is no parameter, and what comes by it is not known; what is written beside it is judged as ever."""
    assert problem(checks(PLAIN), {"...": "${input}", "s": "x"}) is None
    said = problem(checks(PLAIN), {"...": "${input}", "s": 1, "what": 2})
    assert said is not None and "unexpected parameter `what`" in said and "..." not in said


def test_one_version_that_takes_it_is_enough() -> None:
    """And one without a schema takes everything."""
    other = {"type": "object", "properties": {"z": {}}, "required": ["z"], "additionalProperties": False}
    assert problem(checks(PLAIN, other), {"z": 1}) is None
    assert problem(checks(PLAIN, other), {"i": 1}) is None
    assert problem(checks(PLAIN, other), {"q": 1}) is not None
    assert problem(checks(PLAIN, None), {"q": 1}) is None


def test_what_is_forked_is_not_judged_again() -> None:
    """An execution that carries on from another was accepted once."""
    start = c.StartExecution(id="c", task="t", input={}, forked_from="e0")
    assert checks(PLAIN).problem(graph_of_task("t"), start) is None
    assert checks(PLAIN).problem(graph_of_task("t"), msgspec.structs.replace(start, forked_from=None)) is not None


def test_a_namespace_without_schemas_pays_nothing() -> None:
    """There is nothing to check then."""
    assert not Checks({})
    assert not checks(None)


def test_every_type_of_a_handler_has_a_schema_that_takes_what_it_takes() -> None:
    """A schema may take more than the handler, never less: a Decimal may come as a number, a type unknown to JSON as anything."""
    from datetime import date
    from decimal import Decimal
    from pathlib import Path

    import pydantic

    class Order(pydantic.BaseModel):
        id: int

    @esexec.task
    def all_kinds(d: Decimal, p: Path, o: Order, day: date, many: dict[str, list[float]], **rest: int) -> None: ...

    params = {"d": 1.5, "p": "/tmp", "o": {"id": "7"}, "day": "2026-01-01", "many": {"a": [1, 2.5]}, "more": 3}
    assert all_kinds.schema is not None
    assert _Accepts(all_kinds.schema).takes(params, _Effort())
    assert all_kinds.bind(params)["d"] == Decimal("1.5")
    assert not _Accepts(all_kinds.schema).takes(params | {"many": 1}, _Effort())
