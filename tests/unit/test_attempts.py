"""What becomes of an attempt: retries, timeouts, losses, late and doubled reports."""

import pytest

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from tests.given import (
    at,
    completed,
    due,
    failed,
    failure,
    fatal,
    given,
    lost,
    start,
    started,
    step,
    stopped,
    timed_out,
    withdrawn,
)

QUICK = {"initial_retry_delay_ms": 100, "jitter": 0.0}


def test_a_failed_attempt_is_retried_after_a_durable_delay() -> None:
    """A failure says `will_retry`, and a timer is set for the next attempt."""
    outcome = given(start("a")).when(failed("a"), at=10)
    outcome.then(
        e.TaskStarted(step="a", started_at=at(0), worker="w"),
        e.TaskFailed(step="a", error=failure(), ended_at=at(1), will_retry=True),
        e.TaskRetryScheduled(step="a", attempt=2, delay_ms=1000, due=at(11)),
    )
    assert outcome.state.steps[0].next_retry_at == at(11)
    assert list(outcome.state.timers) == [outcome.state.version]


def test_the_timer_of_a_retry_schedules_the_next_attempt() -> None:
    """A fired timer is believed by identity, not by the clock: the next attempt is scheduled, also long before it is due."""
    outcome = given(start("a"), failed("a")).when(due("a"), at=2.5).then(e.TaskScheduled(step="a", attempt=2))
    assert outcome.state.steps[0].next_retry_at is None
    assert not outcome.state.timers


def test_the_default_delays_double_and_the_fourth_failure_is_the_last() -> None:
    """Three retries after 1, 2 and 4 seconds; then the step has failed with `retries_exhausted`."""
    history = given(start("a"))
    delays = []
    for attempt in (1, 2, 3):
        outcome = history.when(failed("a", attempt)).then_types("task_started", "task_failed", "task_retry_scheduled")
        delays.append(outcome.events[-1].delay_ms)
        outcome.when(due("a")).then_types("task_scheduled a")
    assert delays == [1000, 2000, 4000]
    outcome = history.when(failed("a", 4)).then_types("task_started", "task_failed", "execution_failed")
    last = outcome.events[1]
    assert (last.will_retry, last.retries_exhausted) == (False, True)
    assert outcome.state.status == "failed"


def test_chance_makes_the_jitter() -> None:
    """The delay grows by up to a quarter with the chance that the decision was given."""
    assert given(start("a")).when(failed("a"), chance=0.5).events[-1].delay_ms == 1125


def test_an_error_that_is_final_is_not_retried_and_not_exhausted() -> None:
    """`retryable: false` ends the step at once; `retries_exhausted` stays false, for no retry was wanted."""
    last = given(start("a")).when(fatal("a")).events[1]
    assert (last.will_retry, last.retries_exhausted) == (False, False)


def test_the_errors_own_delay_comes_first() -> None:
    """`retry_after` of the error takes the place of the back-off."""
    assert given(start("a")).when(failed("a", retry_after_ms=2500)).events[-1].delay_ms == 2500


def test_no_retries_when_none_are_allowed() -> None:
    """`max_retries` 0 means one attempt."""
    given(start("a", config={"max_retries": 0})).when(failed("a")).then_types("task_started", "task_failed", "execution_failed")


def test_a_step_that_waits_for_its_retry_keeps_its_slot() -> None:
    """Waiting for a retry counts as in flight, so a failing step is not overtaken by unmarked ones."""
    given(start("a", "b"), failed("a")).when(due("a")).then_types("task_scheduled a")


def test_a_later_attempt_that_completes_clears_the_error() -> None:
    """A retried step that completes has an output and no error, and remembers its retries."""
    state = given(start("a"), failed("a"), due("a")).when(completed("a", 5, 2)).state
    assert (state.steps[0].status, state.steps[0].error, state.steps[0].output, state.steps[0].attempt) == (
        "completed",
        None,
        5,
        2,
    )


# Timeouts ---------------------------------------------------------------------------------------------------------------


def test_a_timeout_is_its_own_event_never_beside_a_failure() -> None:
    """A timed-out attempt gives `task_timed_out` and a retry by policy, and no `task_failed`."""
    outcome = given(start("a")).when(timed_out("a"))
    outcome.then_types("task_started", "task_timed_out", "task_retry_scheduled")
    event = outcome.events[1]
    assert isinstance(event, e.TaskTimedOut)
    assert (event.error.type, event.error.code, event.timeout_ms, event.ended) == (
        "timeout_error",
        "task_timeout",
        30_000,
        "cancelled",
    )
    assert (event.error.task_id, event.error.attempt) == ("a", 1)


def test_the_last_timeout_fails_the_step() -> None:
    """With no retries left a timeout is the step's and the execution's error."""
    outcome = given(start("a", config={"max_retries": 0})).when(timed_out("a"))
    outcome.then_types("task_started", "task_timed_out", "execution_failed")
    assert outcome.state.error is not None
    assert outcome.state.error.type == "timeout_error"


def test_who_takes_an_attempt_over_is_named_where_it_completes() -> None:
    """`task_completed` names its worker if another had begun the attempt, and only then."""
    history = given(start("a"))
    history.when((r.Started(worker="w-2", started_at=at(0)), "a", "1-1"))
    outcome = history.when(completed("a")).then_types("task_completed", "execution_completed")
    assert (outcome.events[0].worker, outcome.state.steps[0].worker) == ("w", "w")
    assert given(start("a"), started("a")).when(completed("a")).events[0].worker == ""


# Losses -----------------------------------------------------------------------------------------------------------------


def test_a_lost_worker_alone_changes_nothing() -> None:
    """The attempt was handed on; as long as it is neither too often nor too late, nothing is decided."""
    given(start("a")).when(lost("a", 1)).then_nothing("ineffective")


def test_what_was_handed_back_and_never_begun_is_not_lost() -> None:
    """However often an attempt was delivered, as long as nobody said that it began it is not failed, but looked for."""
    given(start("a")).when(lost("a", limits.losses_per_attempt)).then_nothing("open")
    given(start("a")).when(lost("a", 1_000_000)).then_nothing("open")


def test_too_many_losses_fail_the_attempt() -> None:
    """An attempt that was begun fails after `losses_per_attempt` with WORKER_LOST, which is retried."""
    history = given(start("a"), started("a"))
    history.when(lost("a", limits.losses_per_attempt - 1)).then_nothing()
    outcome = history.when(lost("a", limits.losses_per_attempt)).then_types("task_failed a", "task_retry_scheduled a")
    assert outcome.events[0].error.code == "WORKER_LOST"


def test_a_loss_long_after_the_start_is_a_timeout() -> None:
    """An attempt whose recorded start is longer ago than timeout and grace has timed out, by the log's clock."""
    late = 1 + 30 + limits.timeout_grace_ms / 1000
    history = given(start("a"))
    history.when(started("a", began=-500), at=1)
    history.when(lost("a", 1), at=late).then_nothing()
    history.when(lost("a", 1), at=late + 0.001).then_types("task_timed_out a", "task_retry_scheduled a")


def test_without_a_timeout_a_loss_is_never_one() -> None:
    """`timeout_ms` 0 means none."""
    history = given(start(step("a", timeout_ms=0)), started("a"))
    history.when(lost("a", 1), at=1_000_000).then_nothing()


def test_the_handler_that_was_stopped_without_a_cancel_is_retried() -> None:
    """A worker that ended a handler although nobody cancelled it reports a failure that is repeated."""
    outcome = given(start("a")).when(stopped("a")).then_types("task_started", "task_failed", "task_retry_scheduled")
    assert outcome.events[1].error.code == "stopped"


def test_a_withdrawal_without_a_cancel_changes_nothing() -> None:
    """Only a cancelled execution's attempts can be withdrawn."""
    given(start("a")).when(withdrawn("a")).then_nothing("ineffective")


# Late, doubled, unknown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "late", [started("a"), completed("a"), failed("a"), timed_out("a"), stopped("a"), lost("a", 10), withdrawn("a")]
)
def test_an_outcome_is_accepted_once(late: tuple[r.Report, str, str]) -> None:
    """After an attempt is closed no report of it changes anything; if it may be what closed it, the verdict names that commit."""
    history = given(start("a", "b"), completed("a"), completed("b"))
    outcome = history.when(late).then_nothing("stale")
    assert outcome.verdict.n == (0 if isinstance(late[0], r.Started) else 2)


def test_a_late_report_of_an_earlier_attempt_names_that_attempts_commit() -> None:
    """Each closed attempt is remembered with the commit that closed it, so that its very effects can be repeated."""
    history = given(start("a"), failed("a"), due("a"), failed("a", 2), due("a"))
    assert [history.when(failed("a", attempt)).verdict.n for attempt in (1, 2)] == [2, 4]
    history.when(completed("a", 1, 3)).then_types("task_started", "task_completed", "execution_completed")


def test_a_report_about_an_attempt_that_is_not_known_is_unknown() -> None:
    """A later attempt, a later run, a step or an execution that the history does not hold: nothing is decided on absence."""
    history = given(start("a"))
    for report in (completed("a", 1, 2), completed("nobody"), (r.Withdrawn(), "a", "2-1"), (r.Withdrawn(), "a", "nonsense")):
        history.when(report).then_nothing("unknown")
    given().when(completed("a")).then_nothing("unknown")


@pytest.mark.parametrize("attempt", ["", "1", "-", "1-", "-1", "a-1", "1-b", "1-1-1", "١-١", "1-²", "1" * 30 + "-1", "1.0-1"])
def test_nonsense_in_place_of_an_attempt_is_unknown(attempt: str) -> None:
    """Whatever stands where run and attempt should, it never touches an attempt."""
    given(start("a")).when((r.Withdrawn(), "a", attempt)).then_nothing("unknown")


def test_a_timer_fires_twice() -> None:
    """The second time it is stale, and the verdict names the commit that scheduled the retry."""
    history = given(start("a"), failed("a"))
    message = r.Due(str(history.state.steps[0].timer))
    history.when(message).then_types("task_scheduled a")
    assert history.when(message).then_nothing("stale").verdict.n == 3
    history.happen(failed("a", 2))
    assert history.when(message).then_nothing("stale").verdict.n == 3


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("99", "unknown"), ("0", "unknown"), ("x", "unknown"), ("-1", "unknown"), ("²", "unknown"), ("1", "stale")],
)
def test_a_timer_that_nobody_set(name: str, verdict: str) -> None:
    """A name beyond the history is unknown (a later commit may have set it), one within it has had its effect."""
    given(start("a")).when(r.Due(name)).then_nothing(verdict)


def test_a_decision_is_never_older_than_the_history() -> None:
    """A message whose server time is before the last commit's is decided at that commit's time."""
    history = given().when(start("a"), at=100).history
    history.when(completed("a"), at=1)
    assert [commit.time for commit in history.commits] == [at(100), at(100)]
