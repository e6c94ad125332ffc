"""One undoing: which task with which settings, its retries, how it fails, and what that means for the rollback."""

import pytest

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.effects import dispatch_of
from esexec.domain.settings import NamespaceConfig, TaskInfo
from esexec.domain.strategies import Strategy
from tests.given import (
    at,
    completed,
    due,
    failed,
    fatal,
    given,
    in_words,
    lost,
    start,
    started,
    step,
    timed_out,
    timer_of,
    undone,
    withdrawn,
)
from tests.unit.test_rollback import undoable


@pytest.mark.parametrize(
    ("own", "found"),
    [
        (TaskInfo(), ("q1", 9, 30_000, 5)),
        (TaskInfo(timeout_ms=5, max_retries=0), ("q1", 9, 5, 2)),
        (TaskInfo(queue="q2", priority=1), ("q2", 1, 30_000, 5)),
    ],
)
def test_the_settings_of_an_undoing_are_the_compensations_own(own: TaskInfo, found: tuple[str, int, int, int]) -> None:
    """In the queue and with the priority of what it undoes; how often a step may be tried says nothing of its undoing."""
    plan = start(step("a", queue="q1", priority=9, max_retries=0, timeout_ms=1), "b", config={"retry_unknown": False})
    dispatch = dispatch_of(given(plan, completed("a"), fatal("b"), around=undoable(undo_a=own)).state, 0)
    assert (dispatch.queue, dispatch.priority, dispatch.timeout_ms, dispatch.max_attempts) == found


def test_the_settings_of_the_namespace_are_an_undoings_as_well() -> None:
    """They are of all tasks."""
    around = undoable()._replace(namespace=NamespaceConfig(timeout_ms=77, queue="q0"))
    dispatch = dispatch_of(given(start("a", "b"), completed("a"), fatal("b"), around=around).state, 0)
    assert (dispatch.timeout_ms, dispatch.queue) == (77, "q0")


def test_what_a_compensation_sets_counts() -> None:
    """Its variables are there for the next undoing; too large ones are let go, for the step is undone all the same."""
    history = given(start("a", "b", "z"), completed("a"), completed("b", vars={"k": 1}), fatal("z"), around=undoable())
    outcome = history.when(completed("b", None, 2, vars={"k": 2, "l": 3}))
    assert outcome.events[1] == e.CompensationCompleted(step="b", attempt=2, ended_at=at(1), vars={"k": 2, "l": 3})
    assert dispatch_of(outcome.state, 0).vars == {"k": 2, "l": 3}
    outcome = history.when(completed("a", None, 2, vars={"k": "x" * limits.vars_bytes}))
    assert (outcome.state.status, outcome.state.variables) == ("rolled_back", {"k": 2, "l": 3})


def test_an_undoing_has_retries_of_its_own() -> None:
    """As many as the compensation says, with its delays, whatever the step itself needed."""
    around = undoable(undo_a=TaskInfo(max_retries=1))
    history = given(start(step("a"), "b"), failed("a"), due("a"), completed("a", None, 2), around=around)
    history.happen(fatal("b"))
    outcome = history.when(failed("a", 3)).then_types(
        "compensation_started a", "compensation_failed a", "compensation_retry_scheduled a"
    )
    assert outcome.events[-1].delay_ms == 1000
    history.when(due("a")).then(e.CompensationScheduled(step="a", attempt=4, task="undo_a"))
    last = history.when(failed("a", 4)).then_types("compensation_started", "compensation_failed", "execution_failed").events[1]
    assert (last.will_retry, last.retries_exhausted) == (False, True)
    assert history.state.steps[0].undo_error == last.error


def test_why_an_undoing_failed_is_known_until_it_succeeds() -> None:
    """Beside the step's own error; an undoing that worked in the end has none."""
    history = given(start("a", "b"), completed("a"), fatal("b"), failed("a", 2, code="BUSY"), around=undoable())
    error = history.state.steps[0].undo_error
    assert error is not None
    assert (error.code, history.state.steps[0].error) == ("BUSY", None)
    history.happen(due("a"))
    history.happen(undone("a", 3))
    assert history.state.steps[0].undo_error is None


def test_one_that_cannot_be_undone_keeps_the_others_from_nothing() -> None:
    """The rollback goes on, and is partial in the end: `failed`, with the steps that still stand."""
    history = given(start("a", "b", "c"), completed("a"), completed("b"), fatal("c"), around=undoable())
    history.when(fatal("b", 2)).then_types("compensation_started b", "compensation_failed b", "compensation_scheduled a")
    end = history.when(undone("a")).then_types("compensation_started", "compensation_completed", "execution_failed").events[-1]
    assert isinstance(end, e.ExecutionFailed)
    assert (end.rollback_status, end.not_undone, end.failed_steps, end.error.code) == ("partial", ("b",), ("c",), "FATAL")
    assert history.state.steps[1].compensation == "failed"


def test_an_undoing_that_times_out_is_tried_again_and_its_timeout_grows() -> None:
    """A timeout is a failure of the undoing like any other."""
    around = undoable(undo_a=TaskInfo(timeout_ms=1_000, timeout_growth=2.0))
    history = given(start("a", "b"), completed("a"), fatal("b"), around=around)
    outcome = history.when(timed_out("a", 2)).then_types(
        "compensation_started a", "compensation_failed a", "compensation_retry_scheduled a"
    )
    assert outcome.events[1].error.code == "task_timeout"
    assert dispatch_of(history.when(due("a")).state, 0).timeout_ms == 2_000


def test_an_undoing_whose_workers_are_lost_is_tried_again() -> None:
    """As work is."""
    history = given(start("a", "b"), completed("a"), fatal("b"), started("a", 2), around=undoable())
    history.when(lost("a", 10, 2)).then_types("compensation_failed a", "compensation_retry_scheduled a")


def test_an_undoing_that_no_worker_begins_fails_and_is_tried_again() -> None:
    """Its own task's queue timeout: it is taken back, and retried as any failure of an undoing, until that is exhausted."""
    around = undoable(undo_a=TaskInfo(queue_timeout_ms=5_000, max_retries=1))
    history = given(start("a", "b"), completed("a"), around=around)
    outcome = history.when(fatal("b"))
    timer = timer_of(outcome.state, due("a", "queue"))
    assert in_words(outcome.effects) == ["dispatch a/1-2", f"timer {timer} in 5 s"]
    outcome = history.when(due("a", "queue")).then(e.TaskOverdue(step="a", attempt=2))
    assert in_words(outcome.effects) == ["withdraw a/1-2"]
    outcome = history.when(withdrawn("a", 2)).then_types("compensation_failed a", "compensation_retry_scheduled a")
    assert outcome.events[0].error.code == "queue_timeout"
    history.when(due("a")).then_types("compensation_scheduled a")
    history.happen(due("a", "queue"))
    history.when(withdrawn("a", 3)).then_types("compensation_failed a", "execution_failed")


def test_the_start_of_an_undoing_ends_its_waiting() -> None:
    """As of any attempt."""
    history = given(start("a", "b"), completed("a"), fatal("b"), around=undoable(undo_a=TaskInfo(queue_timeout_ms=5_000)))
    timer = timer_of(history.state, due("a", "queue"))
    assert in_words(history.when(started("a", 2)).effects) == [f"clear {timer}"]


def test_no_strategy_and_no_fallback_concern_an_undoing() -> None:
    """Both belong to the step's own work."""
    around = undoable(undo_a=TaskInfo(max_retries=0))._replace(strategies=(Strategy(id="s", applicable_errors=("BROKEN",)),))
    history = given(start(step("a", fallback="other"), "b"), completed("a"), fatal("b"), around=around)
    history.when(failed("a", 2)).then_types("compensation_started", "compensation_failed", "execution_failed")
