"""When an execution begins, when it must have ended, how long an attempt may wait and run."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.decider import Surroundings
from esexec.domain.effects import dispatch_of
from esexec.domain.settings import TaskInfo
from esexec.domain.state import phase_of
from esexec.domain.strategies import Strategy
from tests.given import (
    History,
    advised,
    at,
    cancel,
    checkpoint,
    completed,
    due,
    failed,
    fatal,
    given,
    in_words,
    lost,
    pause,
    restore,
    retry,
    rollback,
    start,
    started,
    step,
    stopped,
    timed_out,
    timer_of,
    undone,
    withdrawn,
)

PARALLEL = {"parallel": True}
TEN_SECONDS = {"execution_timeout_ms": 10_000}
UNDOABLE = Surroundings(tasks={"a": TaskInfo(compensate="undo_a")})


# The beginning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "begins"),
    [
        ({"start_at": at(60)}, 60),
        ({"delay_ms": 30_000}, 31),
        ({"start_at": at(60), "delay_ms": 30_000}, 60),
        ({"start_at": at(10), "delay_ms": 30_000}, 31),
    ],
)
def test_a_start_may_be_for_later(fields: dict[str, Any], begins: float) -> None:
    """`start_at`, or a delay from when the command was stored; of both the later. Until then it is `pending`, and scheduled."""
    outcome = given().when(start("a", **fields)).then_types("execution_created")
    assert outcome.events[0].start_at == at(begins)
    assert (outcome.state.status, phase_of(outcome.state)) == ("pending", "scheduled")
    assert outcome.effects == [fx.SetTimer(1, at(begins), begins - 1)]
    outcome = outcome.when(due(kind="start"), at=begins).then_types("execution_started", "task_scheduled a")
    assert (outcome.state.created_at, outcome.state.started_at) == (at(1), at(begins))


@pytest.mark.parametrize("fields", [{"start_at": at(0)}, {"start_at": at(1)}, {"delay_ms": 0}])
def test_a_start_for_a_time_that_has_passed_begins_at_once(fields: dict[str, Any]) -> None:
    """There is nothing to wait for."""
    outcome = given().when(start("a", **fields)).then_types("execution_created", "execution_started", "task_scheduled")
    assert outcome.events[0].start_at is None


def test_the_start_comes_due_twice() -> None:
    """The second time it is stale, and names the commit that began the execution."""
    history = given(start("a", start_at=at(60)))
    history.happen(r.Due("1"))
    assert history.when(r.Due("1")).then_nothing("stale").verdict.n == 2


def test_the_settings_are_those_of_the_start() -> None:
    """What the namespace says when it begins changes nothing: commit 1 explains the execution."""
    history = given(start("a", start_at=at(60)), around=UNDOABLE)
    history.around = Surroundings(tasks={"a": TaskInfo(queue="other")})
    history.happen(due(kind="start"))
    assert history.state.policy_of(0).queue == "default"


def test_a_scheduled_execution_can_be_cancelled() -> None:
    """It ends at once, never having begun; its timer is cleared."""
    outcome = given(start("a", "b", start_at=at(60))).when(cancel())
    outcome.then_types("execution_cancel_requested", "task_cancelled a", "task_cancelled b", "execution_cancelled")
    assert in_words(outcome.effects) == ["clear 1", "clear 2"]
    assert outcome.state.started_at is None


def test_one_that_was_cancelled_before_it_began_can_be_retried() -> None:
    """The retry is its beginning."""
    outcome = given(start("a", start_at=at(60)), cancel()).when(retry()).then_types("execution_retried", "task_scheduled a")
    assert outcome.state.started_at == at(3)


# The deadline ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "deadline"),
    [
        ({"config": TEN_SECONDS}, 11),
        ({"deadline": at(5)}, 5),
        ({"deadline": at(5), "config": TEN_SECONDS}, 5),
        ({"deadline": at(50), "config": TEN_SECONDS}, 11),
    ],
)
def test_a_run_must_end_by_the_earlier_of_its_timeout_and_its_deadline(fields: dict[str, Any], deadline: float) -> None:
    """`execution_timeout_ms` counts from the first step; `deadline` is a time (a nested execution has its parent's, C41)."""
    outcome = given().when(start("a", **fields))
    outcome.then_types("execution_created", "execution_started", "execution_deadline_set", "task_scheduled")
    assert outcome.events[2] == e.DeadlineSet(deadline=at(deadline))
    assert fx.SetTimer(3, at(deadline), deadline - 1) in outcome.effects
    assert dispatch_of(outcome.state, 0).deadline == at(deadline)


def test_without_one_there_is_no_deadline() -> None:
    """0 and nothing mean no limit (C41)."""
    state = given(start("a", config={"execution_timeout_ms": 0})).state
    assert (state.deadline, state.timers, dispatch_of(state, 0).deadline) == (None, {}, None)


def test_the_time_before_a_scheduled_start_does_not_count() -> None:
    """The timeout is of a run; the deadline's budget stands still before it, a named deadline does not."""
    history = given(start("a", start_at=at(60), config=TEN_SECONDS))
    history.when(due(kind="start"), at=60)
    assert history.state.deadline == at(70)


def test_past_its_deadline_an_execution_is_stopped_and_fails() -> None:
    """What is queued is withdrawn, what runs is told, what waits is skipped; the error is `execution_timeout`."""
    history = given(start("a", "b", "c", "d", plan_fields=PARALLEL, config=TEN_SECONDS | {"parallel_execution_limit": 3}))
    history.happen(started("a"))
    history.happen(failed("c"))
    timer = timer_of(history.state, due("c"))
    outcome = history.when(due(kind="deadline"), at=11)
    outcome.then_types("execution_deadline_exceeded", "task_cancelled c", "task_skipped d")
    event = outcome.events[0]
    assert (event.error.type, event.error.code, event.grace_ms) == ("timeout_error", "execution_timeout", limits.cancel_grace_ms)
    assert in_words(outcome.effects) == [
        f"timer {outcome.decision.first_version} in 10 s",
        "stop a/1-1: the execution's deadline has passed",
        "stop b/1-1: the execution's deadline has passed",
        f"clear {timer}",
    ]
    history.when(withdrawn("b")).then_types("task_cancelled b")
    end = history.when(stopped("a")).then_types("task_cancelled a", "execution_failed").events[-1]
    assert isinstance(end, e.ExecutionFailed)
    assert (end.error.code, end.failed_steps) == ("execution_timeout", ())


def test_what_completes_all_the_same_is_recorded() -> None:
    """The deadline ends the execution, not what was true by then; it failed even if the last step made it."""
    history = given(start("a", config=TEN_SECONDS), due(kind="deadline"))
    history.when(completed("a", 1)).then_types("task_started a", "task_completed a", "execution_failed")
    assert history.state.output_of("a") == 1


def test_the_grace_ends_what_does_not_answer() -> None:
    """As after a cancel."""
    history = given(start("a", config=TEN_SECONDS), started("a"), due(kind="deadline"))
    history.when(due()).then_types("task_cancelled a", "execution_failed")
    assert history.state.error is not None
    assert history.state.error.code == "execution_timeout"


def test_past_its_deadline_an_execution_is_rolled_back() -> None:
    """It failed, so what was done is undone; the undoing has no deadline."""
    history = given(start("a", "b", config=TEN_SECONDS), completed("a"), due(kind="deadline"), around=UNDOABLE)
    outcome = history.when(withdrawn("b")).then_types("task_cancelled b", "rollback_started", "compensation_scheduled a")
    assert (outcome.state.deadline, dispatch_of(outcome.state, 0).deadline) == (None, None)
    end = history.when(undone("a")).then_types("compensation_started", "compensation_completed", "execution_rolled_back")
    assert end.events[-1].error.code == "execution_timeout"


def test_a_failure_that_came_first_stays_the_error() -> None:
    """The deadline only hurries the end."""
    history = given(start("a", "b", plan_fields=PARALLEL, config=TEN_SECONDS), fatal("a"), due(kind="deadline"))
    end = history.when(stopped("b")).events[-1]
    assert isinstance(end, e.ExecutionFailed)
    assert end.error.code == "FATAL"


def test_the_end_clears_the_timer_of_the_deadline() -> None:
    """Whoever ends in time is not woken; until when there was time can still be told."""
    outcome = given(start("a", config=TEN_SECONDS)).when(completed("a"))
    assert in_words(outcome.effects) == ["clear 3"]
    assert (outcome.state.deadline, outcome.state.timers) == (at(11), {})


def test_a_deadline_and_a_cancel() -> None:
    """Cancelling is under way: the deadline has nothing to add. The other way round the cancel decides the end."""
    history = given(start("a", config=TEN_SECONDS), cancel())
    history.when(due(kind="deadline")).then_nothing("ineffective")
    other = given(start("a", config=TEN_SECONDS), due(kind="deadline"))
    other.when(cancel()).then_types("execution_cancel_requested")
    other.when(stopped("a")).then_types("task_started a", "task_cancelled a", "execution_cancelled")


def test_a_strategy_is_not_asked_past_the_deadline() -> None:
    """Nothing new begins; one that is being asked is told to stop."""
    around = Surroundings(strategies=(Strategy(id="s"),))
    history = given(start("a", config=TEN_SECONDS), due(kind="deadline"), around=around)
    history.when(fatal("a")).then_types("task_started a", "task_failed a", "execution_failed")
    asked = given(start("a", config=TEN_SECONDS), fatal("a"), due(kind="deadline"), around=around)
    asked.when(advised("a", "retry")).then_types("recovery_started a", "recovery_completed a", "execution_failed")


def test_each_run_has_its_time() -> None:
    """A retry counts anew; so does a restore by hand. A strategy that goes back has what is left."""
    history = given(start("a", config=TEN_SECONDS), checkpoint(), fatal("a"))
    history.when(retry(), at=100).then_types("execution_retried", "execution_deadline_set", "task_scheduled")
    assert history.state.deadline == at(110)
    history.when(restore("e1.5"), at=105).then_types("checkpoint_restored", "execution_deadline_set", "task_scheduled")
    assert history.state.deadline == at(115)
    history.around = Surroundings(strategies=(Strategy(id="s"),))
    history.when(fatal("a", run=3), at=106)
    history.when(advised("a", "checkpoint_restore", run=3), at=107)
    assert (history.state.run, history.state.deadline) == (4, at(115))
    history.when(due(kind="deadline"), at=115).then_types("execution_deadline_exceeded")


def test_a_named_deadline_that_has_passed_does_not_bind_a_later_run() -> None:
    """Whoever retries knows about it; one that is still ahead does bind."""
    history = given(start("a", deadline=at(50)), fatal("a"))
    history.when(retry(id="early"), at=10).then_types("execution_retried", "execution_deadline_set", "task_scheduled")
    assert history.state.deadline == at(50)
    history.happen(fatal("a", run=2))
    history.when(retry(id="late"), at=60).then_types("execution_retried", "task_scheduled")
    assert (history.state.deadline, history.state.timers) == (None, {})


def test_a_restore_after_the_named_deadline_has_none() -> None:
    """Also where the deadline's timer has not fired yet: what is told to handlers is what will be kept to."""
    history = given(start("a", deadline=at(50)), checkpoint())
    history.when(restore("e1.5"), at=51).then_types("checkpoint_restored", "task_scheduled")
    assert (history.state.deadline, dispatch_of(history.state, 0).deadline, history.state.timers) == (None, None, {})


def test_a_start_whose_deadline_has_passed_schedules_nothing_and_fails() -> None:
    """There is no time for anything; the error is that of any deadline."""
    outcome = given().when(start("a", "b", deadline=at(1)))
    outcome.then_types(
        "execution_created",
        "execution_started",
        "execution_deadline_set",
        "execution_deadline_exceeded",
        "task_skipped",
        "task_skipped",
        "execution_failed",
    )
    assert (outcome.state.status, outcome.state.timers) == ("failed", {})
    end = outcome.events[-1]
    assert isinstance(end, e.ExecutionFailed)
    assert end.error.code == "execution_timeout"


def test_a_start_that_comes_due_after_its_deadline_fails_as_well() -> None:
    """The timer of its start may be late, as every timer."""
    history = given(start("a", start_at=at(60), deadline=at(90)))
    history.when(due(kind="start"), at=95).then_types(
        "execution_started", "execution_deadline_exceeded", "task_skipped a", "execution_failed"
    )


# Before the start ------------------------------------------------------------------------------------------------------


def test_a_named_deadline_acts_before_the_start_too() -> None:
    """Its timer is set with the creation; it ends a scheduled execution that never began, and clears its start."""
    outcome = given().when(start("a", "b", start_at=at(60), deadline=at(50)))
    outcome.then_types("execution_created", "execution_deadline_set")
    assert in_words(outcome.effects) == ["timer 1 in 59 s", "timer 2 in 49 s"]
    outcome = outcome.when(due(kind="deadline"), at=50)
    outcome.then_types("execution_deadline_exceeded", "task_skipped a", "task_skipped b", "execution_failed")
    assert in_words(outcome.effects) == ["clear 1", "clear 3"]
    assert (outcome.state.status, outcome.state.started_at) == ("failed", None)
    assert outcome.state.error is not None
    assert outcome.state.error.code == "execution_timeout"


def test_a_named_deadline_that_is_set_is_not_set_again_by_the_start() -> None:
    """The same time needs no second timer; an earlier one, of the run's own timeout, takes its place."""
    history = given(start("a", start_at=at(60), deadline=at(90)))
    history.when(due(kind="start"), at=60).then_types("execution_started", "task_scheduled a")
    assert in_words(fx.open_effects(history.state)) == ["dispatch a/1-1", "timer 2 in 30 s"]
    other = given(start("a", start_at=at(60), deadline=at(90), config=TEN_SECONDS))
    outcome = other.when(due(kind="start"), at=60).then_types("execution_started", "execution_deadline_set", "task_scheduled a")
    assert (outcome.state.deadline, len(outcome.state.timers)) == (at(70), 1)
    assert "clear 2" in in_words(outcome.effects)


def test_a_deadline_passes_before_the_start_also_during_a_pause() -> None:
    """A pause is no way around it."""
    history = given(start("a", start_at=at(60), deadline=at(50)), pause())
    history.when(due(kind="deadline"), at=50).then_types("execution_deadline_exceeded", "task_skipped a", "execution_failed")


def test_one_that_failed_before_it_began_can_be_retried() -> None:
    """Whoever retries it knows that the named deadline has passed."""
    history = given(start("a", start_at=at(60), deadline=at(50)))
    history.when(due(kind="deadline"), at=50)
    outcome = history.when(retry(), at=70).then_types("execution_retried", "task_scheduled a")
    assert (outcome.state.started_at, outcome.state.timers) == (at(70), {})


YEAR = limits.delay_ms / 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"start_at": at(YEAR + 2)},
        {"deadline": at(YEAR + 2)},
        {"start_at": at(YEAR + 2), "delay_ms": 1},
        {"start_at": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2)))},
    ],
)
def test_a_time_that_is_too_far_away_is_invalid(fields: dict[str, Any]) -> None:
    """At most a year (`limits.delay_ms`) from when the start was stored: no timer is set for longer."""
    error = given().when(start("a", **fields)).then_nothing("invalid").verdict.error
    assert error is not None
    assert (error.code, bool(error.hint)) == ("invalid_time", True)


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    """It is stored in UTC; a year is counted to the second."""
    there = at(YEAR + 1).astimezone(timezone(timedelta(hours=5)))
    created = given().when(start("a", start_at=there, deadline=there)).events[0]
    assert isinstance(created, e.ExecutionCreated)
    assert (created.start_at, created.deadline) == (at(YEAR + 1), at(YEAR + 1))


# The end of a run ------------------------------------------------------------------------------------------------------


def test_a_rollback_by_hand_has_no_deadline() -> None:
    """The run is over."""
    history = given(start("a", config=TEN_SECONDS), completed("a"), rollback(), around=UNDOABLE)
    assert history.state.deadline is None
    assert [timer.kind for timer in history.state.timers.values()] == []


# Waiting for a worker --------------------------------------------------------------------------------------------------


def waiting(**fields: Any) -> History:
    return given(start(step("a", queue_timeout_ms=5_000, **fields)))


def test_an_attempt_may_wait_so_long_for_a_worker() -> None:
    """Its timer is named by its scheduling; when it is over the attempt is taken back, and times out if nobody had it."""
    history = waiting(max_retries=0)
    assert in_words(fx.open_effects(history.state)) == ["dispatch a/1-1", "timer 3 in 5 s"]
    outcome = history.when(due("a", "queue")).then(e.TaskOverdue(step="a"))
    assert in_words(outcome.effects) == ["withdraw a/1-1"]
    (effect,) = outcome.effects
    assert isinstance(effect, fx.TakeBack)
    assert effect.again is not None  # what is not there when it is to be taken back is put there: absence proves nothing
    assert effect.again.message == dispatch_of(outcome.state, 0)
    outcome = history.when(withdrawn("a")).then_types("task_timed_out a", "execution_failed")
    event = outcome.events[0]
    assert isinstance(event, e.TaskTimedOut)
    assert (event.error.type, event.error.code, event.timeout_ms) == ("timeout_error", "queue_timeout", 5_000)


def test_the_start_ends_the_waiting() -> None:
    """Its timer is cleared; one that fires all the same is stale."""
    history = waiting()
    timer = timer_of(history.state, due("a", "queue"))
    outcome = history.when(started("a"))
    assert in_words(outcome.effects) == [f"clear {timer}"]
    history.when(r.Due(str(timer))).then_nothing("stale")


def test_a_short_attempt_that_tells_its_start_with_its_end_clears_it_as_well() -> None:
    """Nothing is left behind."""
    outcome = waiting().when(completed("a"))
    assert in_words(outcome.effects) == ["clear 3"]
    assert outcome.state.timers == {}


def test_one_that_a_worker_had_begun_goes_on() -> None:
    """The start was merely not told yet: there is nothing to take back, and the outcome counts."""
    history = waiting()
    history.happen(due("a", "queue"))
    history.when(started("a")).then_types("task_started a")
    history.when(completed("a")).then_types("task_completed a", "execution_completed")


def test_waiting_is_over_again_and_again() -> None:
    """A queue timeout is retried as any timeout; each attempt waits anew."""
    history = waiting(max_retries=1)
    history.happen(due("a", "queue"))
    history.when(withdrawn("a")).then_types("task_timed_out a", "task_retry_scheduled a")
    outcome = history.when(due("a")).then_types("task_scheduled a")
    assert in_words(outcome.effects) == ["dispatch a/1-2", f"timer {outcome.state.version} in 5 s"]
    history.happen(due("a", "queue"))
    history.when(withdrawn("a", 2)).then_types("task_timed_out a", "execution_failed")


def test_a_lost_worker_does_not_make_an_attempt_wait_anew() -> None:
    """It was begun once: the lease and the timeout watch over it now."""
    history = waiting()
    history.happen(started("a"))
    history.when(lost("a", 1)).then_nothing("ineffective")
    assert history.state.timers == {}


def test_a_withdrawal_that_nobody_asked_for_changes_nothing() -> None:
    """Only an overdue attempt, or one of a stopped execution, is taken back for good."""
    waiting().when(withdrawn("a")).then_nothing("ineffective")


def test_a_cancel_while_it_is_taken_back() -> None:
    """The withdrawal then is the end of a cancelled attempt."""
    history = waiting()
    history.happen(due("a", "queue"))
    history.happen(cancel())
    overdue = history.commits[1]
    assert fx.effects_of(overdue.events, overdue.version, history.state, 2) == []  # it is taken back for the cancel now
    history.when(withdrawn("a")).then_types("task_cancelled a", "execution_cancelled")


def test_a_steps_queue_timeout_is_its_questions_but_not_its_undoings() -> None:
    """An undoing has the settings of the compensation, for there is no other way to go."""
    around = Surroundings(strategies=(Strategy(id="s"),), tasks=UNDOABLE.tasks)
    plan = start(step("a", queue_timeout_ms=5_000), step("b", queue_timeout_ms=5_000))
    history = given(plan, completed("a"), fatal("b"), around=around)
    assert [(timer.kind, timer.step) for timer in history.state.timers.values()] == [("queue", 1)]
    history.happen(advised("b", "abort"))
    assert history.state.phase == "rolling_back"
    assert history.state.timers == {}


# Running ---------------------------------------------------------------------------------------------------------------


def test_a_timeout_grows_with_each_attempt_that_ran_past_it() -> None:
    """`timeout_growth` 2: 1 s, 2 s, 4 s; a failure of another kind leaves it as it is."""
    history = given(start(step("a", timeout_ms=1_000, timeout_growth=2.0, max_retries=9)))
    found = []
    for attempt, outcome in enumerate((timed_out, failed, timed_out, timed_out), 1):
        found.append(dispatch_of(history.state, 0).timeout_ms)
        history.happen(outcome("a", attempt))
        history.happen(due("a"))
    assert found == [1_000, 2_000, 2_000, 4_000]
    event = history.when(timed_out("a", 5)).events[1]
    assert event.timeout_ms == 8_000


def test_a_timeout_does_not_grow_for_ever() -> None:
    """`limits.timeout_ms`, however steep; and none stays none."""
    steep = given(start(step("a", timeout_ms=1_000, timeout_growth=1000.0, max_retries=400)))
    for attempt in range(1, 200):
        steep.commit(
            [
                e.TaskTimedOut(step="a", attempt=attempt, timeout_ms=1, error=_error(), will_retry=True),
                e.TaskRetryScheduled(step="a", attempt=attempt + 1, delay_ms=0, due=at(0)),
                e.TaskScheduled(step="a", attempt=attempt + 1),
            ]
        )
    assert steep.state.timeout_of(0) == limits.timeout_ms
    none = given(start(step("a", timeout_ms=0, timeout_growth=2.0)), timed_out("a"), due("a"))
    assert none.state.timeout_of(0) == 0


def _error() -> Any:
    event = given(start("a")).when(timed_out("a")).events[1]
    assert isinstance(event, e.TaskTimedOut)
    return event.error


def test_waiting_for_a_worker_makes_no_timeout_grow() -> None:
    """Nobody ran out of time."""
    history = waiting(timeout_ms=1_000, timeout_growth=2.0)
    for message in (due("a", "queue"), withdrawn("a"), due("a")):
        history.happen(message)
    assert dispatch_of(history.state, 0).timeout_ms == 1_000


def test_a_fallback_and_a_new_run_begin_with_the_timeout_as_it_was_said() -> None:
    """It grew for another's sake."""
    plan = start(step("a", timeout_ms=1_000, timeout_growth=2.0, max_retries=0, fallback="plan_b"))
    history = given(plan, timed_out("a"))
    assert dispatch_of(history.state, 0).timeout_ms == 1_000
    history.happen(timed_out("a", 2))
    history.happen(retry())
    assert dispatch_of(history.state, 0).timeout_ms == 1_000


def test_what_is_overdue_is_not_held_by_a_pause_that_came_with_it() -> None:
    """Taken back, for whatever reason, it has timed out: a resume and a stop behind that wait for nobody."""
    history = given(start(step("a", queue_timeout_ms=5_000, max_retries=0)))
    history.commit([e.TaskOverdue(step="a"), e.ExecutionPaused()])
    history.happen(withdrawn("a", pause=history.state.pause))
    assert isinstance(history.events[-2], e.TaskTimedOut)
    assert history.state.error is not None
    assert history.state.error.code == "queue_timeout"
