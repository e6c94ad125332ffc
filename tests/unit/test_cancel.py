"""The early end that somebody wished for."""

import pytest

from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from tests.given import (
    cancel,
    completed,
    due,
    failed,
    fatal,
    given,
    in_words,
    on_attempts,
    repeated,
    start,
    started,
    step,
    stopped,
    timed_out,
    withdrawn,
)


def test_a_cancel_is_recorded_and_what_waits_is_cancelled() -> None:
    """Steps without an open attempt are cancelled at once; open ones are withdrawn or told, until the grace is over."""
    outcome = given(start("a", "b", step("c", "b"))).when(cancel(reason="enough"), at=7)
    outcome.then(
        e.ExecutionCancelRequested(grace_ms=limits.cancel_grace_ms, reason="enough"),
        e.TaskCancelled(step="b", attempt=0),
        e.TaskCancelled(step="c", attempt=0),
    )
    assert in_words(outcome.effects) == ["timer 4 in 10 s", "stop a/1-1: enough"]
    assert (outcome.state.status, outcome.state.phase) == ("running", "cancelling")


@pytest.mark.parametrize(
    ("report", "events"),
    [
        (withdrawn("a"), ["task_cancelled a"]),
        (stopped("a"), ["task_started a", "task_cancelled a"]),
        (completed("a"), ["task_started a", "task_completed a"]),
        (failed("a"), ["task_started a", "task_failed a"]),
        (timed_out("a"), ["task_started a", "task_timed_out a"]),
    ],
)
def test_the_last_report_ends_a_cancelled_execution(report: tuple[r.Report, str, str], events: list[str]) -> None:
    """Late outcomes are recorded, none is retried, and when nothing is open the execution is cancelled."""
    outcome = given(start("a"), cancel()).when(report).then_types(*events, "execution_cancelled")
    assert outcome.state.status == "cancelled"
    assert not outcome.state.timers


def test_the_grace_ends_what_does_not_answer() -> None:
    """When the grace is over, the attempts still open are cancelled as abandoned, and named."""
    history = given(start("a", "b", plan_fields={"parallel": True}), cancel(), completed("b"))
    outcome = history.when(due())
    outcome.then(
        e.TaskCancelled(step="a", attempt=1, ended="abandoned"),
        e.ExecutionCancelled(abandoned=("a",)),
    )
    assert fx.ClearTimer(history.state.cancel) in outcome.effects
    history.when(completed("a")).then_nothing("stale")


def test_what_the_grace_abandoned_is_given_up() -> None:
    """Its dispatch may still wait for a worker, who would begin it long after the end: it is taken back, and whoever has it told.

    That is owed to the commit that abandoned it, so whoever repeats that gives it up once more.
    """
    history = given(start("a", "b", plan_fields={"parallel": True}), cancel(), completed("b"))
    outcome = history.when(due())
    assert on_attempts(outcome.effects) == ["give up a/1-1: the execution went on without it"]
    assert outcome.effects[0] == fx.TakeBack("a", 1, 1, "default", 5, "over", "the execution went on without it")
    assert on_attempts(repeated(history, 4)) == ["give up a/1-1: the execution went on without it"]


def test_what_has_stopped_in_time_is_not_given_up() -> None:
    """It is over, and nobody has it."""
    history = given(start("a"), cancel(), stopped("a"))
    assert on_attempts(repeated(history, 3)) == []


def test_a_cancel_while_nothing_is_open_ends_at_once() -> None:
    """A step that only waits for its retry is cancelled with its timer."""
    outcome = given(start("a"), failed("a")).when(cancel())
    outcome.then_types("execution_cancel_requested", "task_cancelled a", "execution_cancelled")
    assert not outcome.state.timers


def test_a_cancel_of_an_ended_execution_changes_nothing() -> None:
    """It is answered as not effective: completed, failed and cancelled are final."""
    for history in (given(start("a"), completed("a")), given(start("a"), fatal("a")), given(start("a"), cancel(), due())):
        history.when(cancel("c9")).then_nothing("ineffective")


def test_a_cancel_of_an_unknown_execution_is_an_error() -> None:
    """Unknown id → `not_found`."""
    outcome = given().when(cancel()).then_nothing("refused")
    assert outcome.verdict.error is not None
    assert outcome.verdict.error.code == "not_found"


def test_the_same_cancel_again_is_recognised() -> None:
    """The same command is `repeated` and names its commit; another one while cancelling is a `duplicate`."""
    history = given(start("a"), cancel("c2"), started("a"))
    assert history.when(cancel("c2")).then_nothing("repeated").verdict.n == 2
    history.when(cancel("c3")).then_nothing("duplicate")


def test_a_cancel_older_than_the_last_control_is_superseded() -> None:
    """A control verb that was overtaken by a later one is answered `superseded`."""
    history = given()
    history.when(start("a"), at=10)
    history.when(cancel(), at=9).then_nothing("superseded")
    history.when(cancel(), at=10).then_types("execution_cancel_requested")


def test_a_cancel_wins_over_a_failure_under_way() -> None:
    """While a failed execution waits for its running attempts a cancel is still possible, and decides the end."""
    history = given(start("a", "b", plan_fields={"parallel": True}), fatal("a"))
    history.when(cancel()).then_types("execution_cancel_requested")
    history.when(completed("b")).then_types("task_started b", "task_completed b", "execution_cancelled")


def test_what_a_cancelled_execution_completes_starts_nothing() -> None:
    """Dependents of a step that completes during a cancel are not scheduled."""
    history = given(start("a", step("b", "a")), cancel())
    history.when(completed("a")).then_types("task_started a", "task_completed a", "execution_cancelled")


def test_a_retry_that_comes_due_while_the_end_is_being_decided_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a cancel and its `continue` (a large plan) a fired retry timer schedules no new attempt."""
    history = given(start(*"abcd", "z", plan_fields={"parallel": True}), failed("z"))
    monkeypatch.setattr(limits, "events_per_commit", 1)
    message = r.Due(str(history.state.steps[4].timer))
    history.when(cancel()).then_types("execution_cancel_requested")
    history.when(message).then_types("task_cancelled z")
    history.when(message).then_nothing("stale")


def test_a_dispatch_is_not_repeated_after_a_cancel() -> None:
    """A start whose effects are repeated after the execution was cancelled hands out nothing any more."""
    history = given(start("a"), cancel())
    created = history.commits[0]
    assert fx.effects_of(created.events, created.version, history.state, 1) == []
    assert in_words(fx.open_effects(history.state)) == ["stop a/1-1", "timer 4 in 10 s"]
