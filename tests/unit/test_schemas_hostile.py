"""Schemas that somebody announced to do harm: executors judge by none that costs too much, and the worker judges alone then."""

import time
from typing import Any

import msgspec
import pytest

import esexec
from esexec.domain import commands as c
from esexec.domain.compiled import graph_of, graph_of_task
from esexec.domain.namespace import version_of
from esexec.executor.params import Checks
from esexec.executor.schemas import work_of


def doubled(times: int) -> dict[str, Any]:
    """Each definition asks for the next one twice."""
    defs: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(times)}
    return {"$defs": defs | {f"d{times}": {"type": "string"}}, "$ref": "#/$defs/d0"}


TWICE_DEEPER = {
    "$defs": {"n": {"allOf": [{"properties": {"x": {"$ref": "#/$defs/n"}}}] * 2}},
    "$ref": "#/$defs/n",
}
TREE = {"$defs": {"n": {"properties": {"left": {"$ref": "#/$defs/n"}, "right": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}


def judged(schema: dict[str, Any], given: Any) -> str | None:
    start = c.StartExecution(id="c", task="t", input=given)
    found = Checks({"t": (version_of(schema),)}).problem(graph_of_task("t"), start)
    return None if found is None else found.message


@pytest.mark.parametrize(
    "schema",
    [
        doubled(60),
        TWICE_DEEPER,
        {"$ref": "http://127.0.0.1:9/x.json"},
        {"$ref": "file:///etc/hostname"},
        {"$schema": "http://127.0.0.1:9/x.json", "type": "string"},
        {"properties": {"a": {"$id": "http://a/b", "$ref": "#/properties/a"}}},
        {"$ref": "#/nowhere"},
        {"unevaluatedProperties": {"type": "string"}},
        {"allOf": 7},
    ],
)
def test_what_could_take_for_ever_is_not_judged_by(schema: dict[str, Any]) -> None:
    """It is told from its text, so that nothing is fetched, and nothing begun; the params are the worker's to judge."""
    begun = time.process_time()
    assert work_of(schema) is None
    given: dict[str, Any] = {}
    for _ in range(60):
        given = {"x": given}
    assert judged(schema, given) is None
    assert time.process_time() - begun < 2


def test_what_refers_to_itself_once_for_each_value_is_judged_by() -> None:
    """Trees and lists of themselves, as types have them."""
    assert work_of(TREE) is not None
    assert judged(TREE, {"left": {"right": {"left": 1}}}) is None
    strict = {"$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}
    assert "not of type" in (judged(strict, {"next": {"next": 7}}) or "")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": 5, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": [[]], "additionalProperties": False},
        {"type": "object", "properties": {'a"\\': {"type": "string"}}, "additionalProperties": False},
    ],
)
def test_a_schema_that_is_none_harms_nobody(schema: dict[str, Any]) -> None:
    """Executors begin with it, and starts of its task are judged by nobody, or as it says; nothing is raised."""
    assert judged(schema, {}) is None


def test_what_is_given_is_never_a_reference() -> None:
    """An input that looks like one is a text, and refused where a number is wanted."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    assert "not of type" in (judged(schema, {"n": "${input.n}"}) or "")
    assert "unexpected parameter" in (judged(schema, {"...": "${input}"}) or "")


def test_however_much_is_wrong_it_is_told_soon() -> None:
    """Of a hundred thousand mistakes one is looked at; so much, with so costly a schema, is not looked at at all."""
    many, begun = [1] * 100_000, time.process_time()
    assert judged({"type": "object", "properties": {"a": {"items": {"type": "string"}}}}, {"a": many}) is not None
    costly = {"properties": {"a": {"items": {"allOf": [{"minimum": -number} for number in range(800)]}}}}
    assert judged(costly, {"a": many}) is None
    plan = {"name": "p", "steps": [{"id": f"s{i}", "task": "t", "params": {"a": many[:200]}} for i in range(5_000)]}
    graph = graph_of(msgspec.json.encode(plan))
    assert Checks({"t": (version_of(costly),)}).problem(graph, c.StartExecution(id="c")) is None
    assert time.process_time() - begun < 5


def test_patterns_take_linear_time() -> None:
    """One that would have to be tried again and again is done with at once, one that is huge is not used."""
    schema = {"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}}
    begun = time.process_time()
    assert "does not match" in (judged(schema, {"a": "a" * 50_000 + "b"}) or "")
    assert judged({"type": "object", "properties": {"a": {"pattern": "((a{99}){99}){99}"}}}, {"a": "b"}) is None
    assert time.process_time() - begun < 2


def test_the_schemas_of_handlers_are_judged_by() -> None:
    """Types as people write them are not taken for hostile."""

    class Node(msgspec.Struct):
        name: str
        children: list["Node"] = []

    globals()["Node"] = Node

    @esexec.task
    def walk(root: Node, limits: dict[str, float] | None = None, kinds: list[str | int] | None = None) -> None: ...

    assert walk.schema is not None
    assert work_of(walk.schema) is not None
    assert judged(walk.schema, {"root": {"name": "a", "children": [{"name": 7}]}}) is not None


def test_whatever_goes_wrong_where_params_are_judged_is_nobodys_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is accepted, and its worker judges: it would be buried as poison otherwise."""
    monkeypatch.setattr("esexec.executor.params._Accepts.problems", lambda *_, **__: 1 / 0)
    assert judged({"type": "object", "required": ["a"]}, {}) is None
