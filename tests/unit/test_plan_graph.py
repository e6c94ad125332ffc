"""What a plan must be to be carried out, and what it is compiled to."""

import gc
import time
from datetime import date
from typing import Any

import pytest

from esexec.domain import limits
from esexec.domain.errors import PlanInvalid
from esexec.domain.graph import Graph, compile_plan
from esexec.domain.plan import Plan, Step
from esexec.domain.settings import ExecutionConfig


def step(id: str, *depends_on: str, **fields: Any) -> Step:
    return Step(id=id, task=fields.pop("task", "t"), depends_on=depends_on, **fields)


def compiled(*steps: Step, **fields: Any) -> Graph:
    return compile_plan(Plan(name=fields.pop("name", "p"), steps=steps, **fields))


def refusal(*steps: Step, **fields: Any) -> PlanInvalid:
    with pytest.raises(PlanInvalid) as refused:
        compiled(*steps, **fields)
    return refused.value


def test_a_graph_knows_who_waits_for_whom() -> None:
    """Dependencies and dependents are positions in plan order; sinks are what nothing waits for."""
    graph = compiled(step("d", "c", "a"), step("a"), step("b", "a"), step("c", "a"))
    assert graph.index == {"d": 0, "a": 1, "b": 2, "c": 3}
    assert graph.dependencies == ((1, 3), (), (1,), (1,))
    assert graph.dependents == ((), (0, 2, 3), (), (0,))
    assert graph.sinks == (0, 2)
    assert graph.steps is graph.plan.steps


def test_a_reference_implies_the_dependency() -> None:
    """A reference to a step's output is a dependency, once, also where it is stated as well; constants have no template."""
    graph = compiled(
        step("a"),
        step("b", "a", params={"x": "${steps.a.output.x}", "y": ["${steps.a.output.y} ${steps.c.output}"]}),
        step("c", params={"x": "${input}"}),
    )
    assert graph.dependencies == ((), (0, 2), ())
    assert [template is None for template in graph.templates] == [True, False, False]


def test_parallel_is_the_steps_or_the_plans() -> None:
    """`Plan.parallel` turns every step's `parallel` on."""
    steps = (step("a", parallel=True), step("b"))
    assert compiled(*steps).parallel == (True, False)
    assert compiled(*steps, parallel=True).parallel == (True, True)


def test_the_graph_holds_the_plan_as_it_is_read_back() -> None:
    """`raw` decodes to `plan`, and compiling that again changes nothing."""
    graph = compiled(step("a", params={"x": (1, 2), "at": date(2026, 1, 2)}), config=ExecutionConfig())
    assert graph.plan.steps[0].params == {"x": [1, 2], "at": "2026-01-02"}
    again = compile_plan(graph.plan)
    assert (again.raw, again.plan_id, again.plan) == (graph.raw, graph.plan_id, graph.plan)
    assert b"config" not in graph.raw


@pytest.mark.parametrize(
    ("steps", "code", "path"),
    [
        ((), "empty_plan", "steps"),
        ((step("a"), step("b"), step("a")), "duplicate_step", "steps[2].id"),
        ((step("a", "b"),), "unknown_dependency", "steps[0].depends_on[0]"),
        ((step("a", "a"),), "self_dependency", "steps[0].depends_on[0]"),
        ((step("a"), step("b", "a", "a")), "duplicate_dependency", "steps[1].depends_on[1]"),
        ((step("a", params={"x": "${steps.b.output}"}),), "unknown_reference", "steps[0].params"),
        ((step("a", params={"x": "${steps.a.output}"}),), "self_reference", "steps[0].params"),
        ((step("a", params={"x": "${steps.a}"}),), "bad_reference", "steps[0].params"),
        ((step("a", params="text"),), "bad_params", "steps[0].params"),
        ((step("a", params="x ${input}"),), "bad_params", "steps[0].params"),
        ((step("a", params="$${input}"),), "bad_params", "steps[0].params"),
        ((step(""),), "bad_step_id", "steps[0].id"),
        ((step("_a"),), "bad_step_id", "steps[0].id"),
        ((step("a.b"),), "bad_step_id", "steps[0].id"),
        ((step("a\n"),), "bad_step_id", "steps[0].id"),
        ((step("a" * (limits.id_chars + 1)),), "bad_step_id", "steps[0].id"),
        ((step("a", task=""),), "bad_task_name", "steps[0].task"),
        ((step("a", task="t t"),), "bad_task_name", "steps[0].task"),
        ((step("a", task="t" * (limits.task_name_chars + 1)),), "bad_task_name", "steps[0].task"),
        ((step("a"), step("b", fallback="")), "bad_task_name", "steps[1].fallback"),
        ((step("a", fallback="-t"),), "bad_task_name", "steps[0].fallback"),
        ((step("a", compensate="t t"),), "bad_task_name", "steps[0].compensate"),
        ((step("a", compensate="t" * (limits.task_name_chars + 1)),), "bad_task_name", "steps[0].compensate"),
        ((step("a", queue="a b"),), "bad_queue", "steps[0].queue"),
        ((step("a", queue="_a"),), "bad_queue", "steps[0].queue"),
        ((step("a", queue="a\n"),), "bad_queue", "steps[0].queue"),
        ((step("a", priority=11),), "invalid_value", "steps[0].priority"),
        ((step("a", timeout_ms=-1),), "invalid_value", "steps[0].timeout_ms"),
        ((step("a", queue_timeout_ms=limits.delay_ms + 1),), "invalid_value", "steps[0].queue_timeout_ms"),
        ((step("a", timeout_growth=0.9),), "invalid_value", "steps[0].timeout_growth"),
        ((step("a", description="x" * (limits.text_chars + 1)),), "text_too_long", "steps[0].description"),
        ((step("a", params={"x": 2**53}),), "not_canonical", "steps[0].params"),
        ((step("a", params={"x": [float("nan")]}),), "not_canonical", "steps[0].params"),
        ((step("a", params={"x": "\ud800"}),), "not_canonical", "steps[0].params"),
        ((step("a", metadata={"x": float("inf")}),), "not_canonical", "steps[0].metadata"),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused(steps: tuple[Step, ...], code: str, path: str) -> None:
    """Each rule has its own code; the error names the path and a way out."""
    error = refusal(*steps)
    assert error.code == code
    assert error.context["path"] == path
    assert error.message
    assert error.hint or code == "invalid_value" or code == "unknown_dependency"


def test_what_json_cannot_hold_is_refused() -> None:
    """Objects without a JSON form are `not_json`, never an exception of the encoder."""
    assert refusal(step("a", params={"x": object()})).code == "not_json"


def test_limits_of_the_plan_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, description, number of steps, bytes and depth are bounded, each with its own code."""
    assert refusal(step("a"), name="").code == "bad_name"
    assert refusal(step("a"), name="x" * (limits.name_chars + 1)).code == "bad_name"
    assert refusal(step("a"), description="x" * (limits.text_chars + 1)).code == "text_too_long"
    assert refusal(step("a"), config=ExecutionConfig(queue="a\n")).code == "bad_queue"
    assert refusal(step("a"), metadata={"x": float("nan")}).code == "not_canonical"
    assert refusal(step("a", params={"x": "y" * limits.large_plan_bytes})).code == "too_large"
    half = {"x": "y" * (limits.large_plan_bytes // 2)}
    assert refusal(step("a", params=half), step("b", params=half)).code == "plan_too_large"
    monkeypatch.setattr(limits, "steps_per_plan", 2)
    assert refusal(step("a"), step("b"), step("c")).code == "too_many_steps"


@pytest.mark.parametrize("field", ["params", "metadata"])
@pytest.mark.parametrize("depth", [limits.nesting_depth + 1, 100_000])
def test_depth_is_bounded_without_recursion(field: str, depth: int) -> None:
    """Anything nested deeper than `limits.nesting_depth` is `too_deep`, however deep it is."""
    value: Any = 1
    for _ in range(depth - 1):
        value = [value]
    assert refusal(step("a", **{field: {"x": value}})).code == "too_deep"


def test_a_value_that_contains_itself_is_refused() -> None:
    """A cycle of Python objects has no depth: `too_deep`."""
    params: dict[str, Any] = {}
    params["x"] = params
    assert refusal(step("a", params=params)).code == "too_deep"


def test_a_small_value_that_repeats_itself_is_refused() -> None:
    """Ten levels of ten times the same list (a YAML bomb) are `too_large`, at once."""
    value: Any = "x"
    for _ in range(10):
        value = [value] * 10
    started = time.perf_counter()
    assert refusal(step("a", params={"x": value})).code == "too_large"
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("steps", "cycle"),
    [
        ((step("a", "b"), step("b", "a")), ["a", "b"]),
        ((step("a", "c"), step("b", "a"), step("c", "b")), ["a", "c", "b"]),
        ((step("x"), step("a", "x", "c"), step("b", "a"), step("c", "b"), step("after", "c")), ["a", "c", "b"]),
        ((step("a", params={"x": "${steps.b.output}"}), step("b", params={"x": "${steps.a.output}"})), ["a", "b"]),
        ((step("waits", "a"), step("a", "b"), step("b", "a")), ["a", "b"]),
    ],
)
def test_a_cycle_is_named(steps: tuple[Step, ...], cycle: list[str]) -> None:
    """`cycle` names exactly the steps that wait for each other, each followed by what it depends on, earliest first."""
    error = refusal(*steps)
    assert error.code == "cycle"
    assert error.context["cycle"] == cycle
    assert " → ".join([*cycle, cycle[0]]) in error.message


def test_unknown_names_get_a_suggestion() -> None:
    """A misspelt dependency or reference is answered with the nearest step id."""
    assert refusal(step("facility"), step("b", "facilty")).hint == "did you mean `facility`?"
    assert refusal(step("facility"), step("b", params={"x": "${steps.facilty.output}"})).hint == "did you mean `facility`?"


# Size ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def large_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains of as many steps as the limit allows are longer than the bytes it allows; here the algorithm is meant."""
    monkeypatch.setattr(limits, "plan_bytes", 8 * limits.message_bytes)


def chain(count: int) -> Plan:
    return Plan(name="chain", steps=tuple(step(f"s{n}", *([f"s{n - 1}"] if n else [])) for n in range(count)))


def fan_out(count: int) -> Plan:
    return Plan(name="fan", steps=(step("root"), *(step(f"s{n}", "root") for n in range(count - 1))))


def fan_in_by_reference(count: int) -> Plan:
    references = {f"p{n}": f"${{steps.s{n}.output.x}}" for n in range(count - 1)}
    return Plan(name="fan", steps=(*(step(f"s{n}") for n in range(count - 1)), step("end", params=references)))


def backwards(count: int) -> Plan:
    return Plan(name="back", steps=tuple(reversed(chain(count).steps)))


@pytest.mark.parametrize("shape", [chain, fan_out, fan_in_by_reference, backwards])
@pytest.mark.usefixtures("large_plans")
def test_compiling_is_near_linear(shape: Any) -> None:
    """10,000 steps take nothing like the hundred times of a square (without the garbage collector, which walks all tests)."""

    def best(plan: Plan, rounds: int) -> float:
        times = []
        for _ in range(rounds):
            started = time.process_time()
            compile_plan(plan)
            times.append(time.process_time() - started)
        return min(times)

    small, large = shape(1_000), shape(10_000)
    gc.disable()
    try:
        assert best(large, 5) <= 30 * best(small, 10)
    finally:
        gc.enable()


@pytest.mark.usefixtures("large_plans")
def test_a_long_cycle_is_found_without_recursion() -> None:
    """A cycle of 10,000 steps is named in full in the context and shortened in the message."""
    steps = chain(10_000).steps
    error = refusal(step("s0", "s9999"), *steps[1:])
    assert error.code == "cycle"
    assert len(error.context["cycle"]) == 10_000
    assert len(error.message) < 500
