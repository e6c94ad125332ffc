"""What is executed in the stories: small plans that together use every setting of the lifecycle."""

from typing import Any

from esexec.domain.settings import TaskInfo
from esexec.domain.strategies import Strategy
from tests.given import step

QUICK = {"initial_retry_delay_ms": 100, "jitter": 0.0, "max_retries": 1}
_PARALLEL = {"parallel": True}
_A = "${steps.a.output}"
_DONE = "${steps.a.output.did}"
_NOT = f"not {_DONE}"


def _undone(id: str, *needs: str, **fields: Any) -> dict[str, Any]:
    """A step with a compensation."""
    return step(id, *needs, compensate=f"undo_{id}", **fields)


_CHANGES = [
    step("x", task="create_x"),
    step("y", "x", task="update_y"),
    step("z", "x", task="delete_z"),
    step("last", "y", "z", max_retries=0),
]

PLANS: list[tuple[list[Any], dict[str, Any], dict[str, Any]]] = [
    (["a"], {}, QUICK),
    (["a", step("b", "a", params={"x": _A})], {}, {"max_retries": 1}),
    (["a", "b", "c"], _PARALLEL, QUICK),
    (["a", step("b", "a"), step("c", "a"), step("d", "b", "c")], _PARALLEL, QUICK | {"continue_on_error": True}),
    (["a", "b", step("c", "a"), step("d", "c"), "e"], {}, QUICK | {"continue_on_error": True, "max_retries": 0}),
    ([f"s{n}" for n in range(8)], _PARALLEL, QUICK | {"parallel_execution_limit": 8}),
    (["a", step("b", "a", params={"x": "${steps.a.output.missing}"}), "c"], _PARALLEL, QUICK),
    ([_undone("a"), _undone("b", "a", params={"x": _A}), step("c", "b"), _undone("d", "c")], {}, QUICK),
    ([_undone("a"), _undone("b"), _undone("c"), step("d", "a", "b", "c", max_retries=0)], _PARALLEL, QUICK),
    (_CHANGES, _PARALLEL, QUICK),
    ([_undone("a", fallback="plan_b"), _undone("b", "a", fallback="plan_c")], {}, QUICK | {"max_retries": 0}),
    ([_undone("a"), "b", step("c", "a", "b")], _PARALLEL, QUICK | {"on_missing_compensation": "fail"}),
    ([_undone("a"), _undone("b", "a"), "c"], _PARALLEL, QUICK | {"continue_on_error": True, "enable_rollback": True}),
    ([_undone("a"), step("b", "a"), _undone("c", "b")], {}, QUICK | {"checkpoint_every": "task", "execution_timeout_ms": 9000}),
    ([_undone("a"), step("b", fallback="plan_b"), step("c", "a", "b")], _PARALLEL, QUICK | {"checkpoint_interval_ms": 500}),
    ([step("a", timeout_growth=2.0), step("b", "a")], {}, QUICK | {"queue_timeout_ms": 700, "timeout_ms": 1000}),
    ([_undone("a"), step("b", "a"), step("c", "b")], {}, QUICK | {"queue_timeout_ms": 700, "enable_rollback": False}),
    (
        [_undone("a"), step("b", "a", when=_DONE), _undone("c", "b", "a", when=_NOT), step("d", "c"), "e"],
        _PARALLEL,
        QUICK,
    ),
    (["a", step("b", "a", when="${steps.a.output.missing}"), step("c", "b"), "d"], {}, QUICK | {"continue_on_error": True}),
]
"""Steps, fields of the plan, settings of the call."""

TASKS = {
    "create_x": TaskInfo(),
    "delete_x": TaskInfo(priority=7),
    "update_y": TaskInfo(),
    "delete_z": TaskInfo(),
    "create_z": TaskInfo(),
    "plan_b": TaskInfo(compensate="undo_b"),
    "undo_a": TaskInfo(queue_timeout_ms=600),
}
"""What the workers have: some inverses by name, a fallback that is undone by another task."""

STRATEGIES = [
    Strategy(id="first-aid", applicable_errors=("broken",), timeout_ms=1000),
    Strategy(id="doctor", name="the doctor", applicable_errors=("FATAL", "task_*"), queue="clinic"),
    Strategy(id="hasty", applicable_errors=("*",), before_retries=True),
]
