"""While an execution is paused nothing new is handed out; what runs ends and is recorded."""

import pytest

from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.decider import Surroundings
from esexec.domain.rollback import rollback_plan
from esexec.domain.settings import TaskInfo
from esexec.domain.strategies import Strategy
from tests.given import (
    History,
    Message,
    advised,
    asked_about,
    at,
    cancel,
    checkpoint,
    completed,
    due,
    failed,
    fatal,
    given,
    in_words,
    on_attempts,
    pause,
    repeated,
    restore,
    resume,
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
UNDOABLE = Surroundings(tasks={"a": TaskInfo(compensate="undo_a"), "b": TaskInfo(compensate="undo_b")})
ASKING = Surroundings(strategies=(Strategy(id="s"),))


def test_a_pause_is_recorded_with_its_reason() -> None:
    """The status is `paused`, the reason stands until the resume."""
    outcome = given(start("a")).when(pause(reason="lunch")).then(e.ExecutionPaused(reason="lunch"))
    assert (outcome.state.status, outcome.state.paused, outcome.state.pause_reason) == ("paused", True, "lunch")
    state = outcome.when(resume()).then(e.ExecutionResumed()).state
    assert (state.status, state.paused, state.pause_reason) == ("running", False, "")


def test_what_waits_for_a_worker_is_held_and_handed_out_again() -> None:
    """A queued attempt is taken back; a started one is left alone. The resume hands out the very same attempt.

    What the pause provably took back is with nobody; for all else that is open workers are asked.
    """
    history = given(start("a", "b", "c", plan_fields=PARALLEL), started("a"))
    assert in_words(history.when(pause()).effects) == ["hold b/1-1 for 7", "hold c/1-1 for 7"]
    history.when(withdrawn("b", pause=7)).then(e.TaskHeld(step="b"))
    effects = history.when(resume()).effects
    assert in_words(effects) == ["dispatch a/1-1", "dispatch b/1-1", "dispatch c/1-1"]
    assert asked_about(effects) == ["a/1-1", "c/1-1"]
    assert not history.state.steps[1].held


def test_what_runs_ends_and_is_recorded_and_nothing_follows_it() -> None:
    """A completion during the pause counts; the steps behind it wait for the resume."""
    history = given(start("a", "b"), started("a"), pause())
    history.when(completed("a", 1)).then_types("task_completed a")
    history.when(resume()).then_types("execution_resumed", "task_scheduled b")


def test_one_that_began_before_it_could_be_taken_back_counts() -> None:
    """A worker that had the attempt already is believed."""
    history = given(start("a", "b"), pause())
    history.when(started("a")).then_types("task_started a")
    history.when(completed("a")).then_types("task_completed a")


def test_a_pause_keeps_no_execution_from_completing() -> None:
    """When the last step completes there is nothing left to wait with."""
    outcome = given(start("a"), pause()).when(completed("a")).then_types("task_started", "task_completed", "execution_completed")
    assert (outcome.state.status, outcome.state.paused) == ("completed", False)


def test_a_pause_keeps_no_execution_from_failing() -> None:
    """A failure that nothing undoes ends it, paused or not."""
    given(start("a"), pause()).when(fatal("a")).then_types("task_started", "task_failed", "execution_failed")


# Timers ----------------------------------------------------------------------------------------------------------------


def test_a_due_retry_waits_for_the_resume() -> None:
    """Its timer has no effect during the pause, and is set again, under its name, by the resume."""
    history = given(start("a", config={"jitter": 0.0}), failed("a"))
    timer = timer_of(history.state, due("a"))
    history.when(pause(), at=2.5)
    history.when(due("a"), at=3).then_nothing("ineffective")
    assert in_words(history.when(resume(), at=10).effects) == [f"timer {timer} in -7 s"]
    history.when(due("a"), at=10).then_types("task_scheduled a")


def test_a_failure_during_the_pause_is_decided_and_tried_again_after_it() -> None:
    """What is to be retried is known at once; when it is due, it waits."""
    history = given(start("a"), started("a"), pause())
    history.when(failed("a")).then_types("task_failed a", "task_retry_scheduled a")
    history.when(due("a")).then_nothing("ineffective")
    history.when(resume())
    history.when(due("a")).then_types("task_scheduled a")


def test_a_start_that_comes_due_waits_for_the_resume() -> None:
    """A scheduled execution can be paused before it begins; then it begins after the resume, if it is due."""
    history = given(start("a", start_at=at(10)), pause())
    history.when(due(kind="start"), at=10).then_nothing("ineffective")
    outcome = history.when(resume(), at=20)
    assert outcome.state.status == "pending"
    assert in_words(outcome.effects) == ["timer 1 in -10 s"]
    history.when(due(kind="start"), at=21).then_types("execution_started", "task_scheduled a")


def test_a_pause_does_not_count_as_waiting_for_a_worker() -> None:
    """The queue timeout stands still while the attempt is taken back."""
    history = given(start(step("a", queue_timeout_ms=10_000)))
    history.when(pause(), at=5)
    history.when(due("a", "queue"), at=11).then_nothing("ineffective")
    outcome = history.when(resume(), at=100)
    assert in_words(outcome.effects) == ["dispatch a/1-1", "timer 3 in 6 s"]


def test_a_deadline_passes_during_a_pause() -> None:
    """A pause is no way around it; what was handed out is stopped, and the end comes although it is paused."""
    history = given(start("a", config={"execution_timeout_ms": 10_000}), started("a"), pause())
    history.when(due(kind="deadline"), at=11).then_types("execution_deadline_exceeded")
    history.when(fatal("a")).then_types("task_failed a", "execution_failed")


def test_a_waiting_that_begins_during_the_pause_is_counted_from_its_end() -> None:
    """An attempt that is scheduled meanwhile, here by advice, has its whole queue timeout when it is handed out."""
    history = given(start(step("a", queue_timeout_ms=10_000)), fatal("a"), started("a", 2), around=ASKING)
    history.when(pause(), at=10)
    outcome = history.when(advised("a", "retry"), at=20).then_types("recovery_completed a", "task_scheduled a")
    timer = timer_of(outcome.state, due("a", "queue"))
    assert in_words(outcome.effects)[0] == f"timer {timer} in 10 s"
    history.when(due("a", "queue"), at=30).then_nothing("ineffective")
    assert in_words(history.when(resume(), at=100).effects) == ["dispatch a/1-3", f"timer {timer} in 10 s"]


# What was taken back ---------------------------------------------------------------------------------------------------


def held(*more: Message) -> History:
    """Of two attempts, a is begun, and b was taken back by a pause, which is proven."""
    history = given(start("a", "b", plan_fields=PARALLEL), *more, started("a"), pause())
    history.happen(withdrawn("b", pause=history.state.pause))
    assert [one.held for one in history.state.steps] == [False, True]
    return history


def test_that_it_was_taken_back_is_recorded_once() -> None:
    """Whoever repeats the effects of the pause tells it again, and adds nothing."""
    history = held()
    history.when(withdrawn("b", pause=history.state.pause)).then_nothing("ineffective")


def test_only_the_pause_of_now_holds_anything() -> None:
    """What another pause took back was handed out again behind that one's resume, and may be with a worker by now.

    Or it was taken back behind that one's resume: so everything open is looked for.
    """
    history = given(start("a"), pause("p1"), resume("r1"))
    history.when(withdrawn("a", pause=4)).then_nothing("open")
    assert asked_about(fx.open_effects(history.state)) == ["a/1-1"]
    history.happen(pause("p2"))
    history.when(withdrawn("a", pause=4)).then_nothing("open")
    assert fx.open_effects(history.state) == []  # after the resume
    history.when(withdrawn("a", pause=6)).then(e.TaskHeld(step="a"))


def test_a_cancel_settles_what_is_held_at_once() -> None:
    """It is known that nobody has it: nothing is told, and nobody is waited for."""
    history = held()
    outcome = history.when(cancel()).then_types("execution_cancel_requested", "task_cancelled b")
    assert [one for one in in_words(outcome.effects) if "/" in one] == ["stop a/1-1"]
    history.when(stopped("a")).then_types("task_cancelled a", "execution_cancelled")
    assert [one.step for one in rollback_plan(history.state)] == ["a"]


def test_what_is_being_taken_back_when_a_cancel_comes_is_cancelled() -> None:
    """The cancel ended the pause and hands nothing out: that nobody had it still holds. An older pause says nothing."""
    history = given(start("a"), pause("p1"), resume("r1"), pause("p2"), cancel())
    history.when(withdrawn("a", pause=4)).then_nothing("open")
    history.when(withdrawn("a", pause=6)).then_types("task_cancelled a", "execution_cancelled")


def test_a_deadline_settles_what_is_held_at_once() -> None:
    """As a cancel does, though the execution is still paused."""
    history = given(start("a", config={"execution_timeout_ms": 10_000}), pause())
    history.happen(withdrawn("a", pause=history.state.pause))
    history.when(due(kind="deadline")).then_types("execution_deadline_exceeded", "task_cancelled a", "execution_failed")


def test_a_failure_settles_what_is_held_at_once() -> None:
    """Nothing new begins in an execution that fails, and what is held has not begun."""
    held().when(fatal("a")).then_types("task_failed a", "task_cancelled b", "execution_failed")


def test_a_cancel_settles_an_undoing_that_is_held() -> None:
    """It stands as it is, and the rollback is over."""
    history = given(start("a", "b"), completed("a"), fatal("b"), pause(), around=UNDOABLE)
    history.when(withdrawn("a", 2, pause=history.state.pause)).then(e.TaskHeld(step="a", attempt=2))
    end = history.when(cancel()).then_types("execution_cancel_requested", "execution_cancelled").events[-1]
    assert isinstance(end, e.ExecutionCancelled)
    assert (end.rollback_status, end.not_undone) == ("partial", ("a",))


def test_the_grace_does_not_abandon_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision that was cut may not have come to it when the grace is over; nobody was at work on it."""
    history = held()
    monkeypatch.setattr(limits, "events_per_commit", 1)
    history.when(cancel()).then_types("execution_cancel_requested")
    outcome = history.when(due())
    assert [event for event in outcome.events if isinstance(event, e.TaskCancelled)] == [
        e.TaskCancelled(step="a", ended="abandoned"),
        e.TaskCancelled(step="b"),
    ]
    assert [one.step for one in rollback_plan(history.state)] == ["a"]


def test_a_restore_takes_what_is_held_as_not_begun() -> None:
    """What was open and not held is of unknown outcome; this one was with nobody."""
    history = held(checkpoint())
    history.when(restore("e1.5")).then_types("checkpoint_restored")
    assert [one.step for one in rollback_plan(history.state)] == ["a"]
    history.when(resume()).then_types("execution_resumed", "task_scheduled a", "task_scheduled b")


def test_a_held_attempt_that_somebody_had_all_the_same_counts() -> None:
    """Whoever reports it is believed, and waited for."""
    held().when(completed("b")).then_types("task_started b", "task_completed b")
    history = held()
    history.when(started("b")).then_types("task_started b")
    outcome = history.when(cancel()).then_types("execution_cancel_requested")
    assert [one for one in in_words(outcome.effects) if "/" in one] == ["stop a/1-1", "stop b/1-1"]


def test_what_somebody_has_begun_is_not_held() -> None:
    """Whoever took it back took its lease: it is looked for, and goes on."""
    history = given(start("a"), pause(), started("a"))
    history.when(withdrawn("a", pause=history.state.pause)).then_nothing("open")
    assert not history.state.steps[0].held


# What else goes on -----------------------------------------------------------------------------------------------------


def test_a_strategy_is_asked_after_the_resume() -> None:
    """That it will be asked is decided during the pause; it is handed out afterwards."""
    history = given(start("a"), started("a"), pause(), around=ASKING)
    outcome = history.when(fatal("a")).then_types("task_failed a", "recovery_initiated a")
    assert in_words(outcome.effects) == [f"timer {outcome.state.version} in 300 s"]  # of its waiting, which has not begun
    assert in_words(history.when(resume()).effects)[0] == "dispatch a/1-2"


def test_advice_during_a_pause_is_carried_out_after_it() -> None:
    """A retry that a strategy asked for is scheduled, and held."""
    history = given(start("a"), fatal("a"), started("a", 2), pause(), around=ASKING)
    outcome = history.when(advised("a", "retry")).then_types("recovery_completed a", "task_scheduled a")
    assert not [one for one in in_words(outcome.effects) if one.startswith("dispatch")]
    assert in_words(history.when(resume()).effects) == ["dispatch a/1-3"]


def test_a_fallback_is_handed_out_after_the_resume() -> None:
    """As a strategy."""
    history = given(start(step("a", fallback="other")), started("a"), pause())
    outcome = history.when(fatal("a")).then_types("task_failed a", "task_fallback_started a", "task_scheduled a")
    assert outcome.effects == []
    assert in_words(history.when(resume()).effects) == ["dispatch a/1-2"]


def test_a_rollback_pauses_between_two_steps() -> None:
    """The undoing that runs ends; the next one waits."""
    history = given(start("a", "b", "c"), completed("a"), completed("b"), fatal("c"), started("b", 2), pause(), around=UNDOABLE)
    history.when(undone("b")).then_types("compensation_completed b")
    history.when(resume()).then_types("execution_resumed", "compensation_scheduled a")


def test_a_failure_while_paused_begins_its_rollback_and_waits() -> None:
    """That it is rolled back is decided; nothing is undone before the resume."""
    history = given(start("a", "b"), completed("a"), started("b"), pause(), around=UNDOABLE)
    outcome = history.when(fatal("b")).then_types("task_failed b", "rollback_started")
    assert (outcome.state.status, outcome.state.phase) == ("paused", "rolling_back")
    history.when(resume()).then_types("execution_resumed", "compensation_scheduled a")


def test_a_retry_of_an_undoing_waits_as_well() -> None:
    """A due retry is a due retry, whatever it is for."""
    history = given(start("a", "b"), completed("a"), fatal("b"), failed("a", 2), pause(), around=UNDOABLE)
    history.when(due("a")).then_nothing("ineffective")
    history.when(resume())
    history.when(due("a")).then_types("compensation_scheduled a")


def test_a_cancel_ends_a_pause() -> None:
    """What waits is cancelled, what runs is told, as without the pause; a held attempt is withdrawn."""
    history = given(start("a", "b", plan_fields=PARALLEL), started("a"), pause())
    outcome = history.when(cancel()).then_types("execution_cancel_requested")
    assert (outcome.state.status, outcome.state.paused) == ("running", False)
    assert [one for one in in_words(outcome.effects) if one.startswith("stop")] == ["stop a/1-1", "stop b/1-1"]
    history.when(withdrawn("b")).then_types("task_cancelled b")
    history.when(timed_out("a")).then_types("task_timed_out a", "execution_cancelled")


# Repetition ------------------------------------------------------------------------------------------------------------


def test_effects_of_before_the_pause_hand_out_nothing() -> None:
    """A start whose effects are repeated during a pause dispatches nothing, and neither does a nudge."""
    history = given(start("a", "b", plan_fields=PARALLEL), pause())
    created = history.commits[0]
    assert fx.effects_of(created.events, created.version, history.state, 1) == []
    assert fx.open_effects(history.state) == []


def test_effects_of_a_pause_that_is_over_hand_out_again() -> None:
    """Whoever repeats a pause behind a resume may have taken back what that handed out: all that is open is asked about."""
    history = given(start("a", "b", plan_fields=PARALLEL), pause(), resume(), started("a"))
    assert in_words(repeated(history, 2)) == ["dispatch a/1-1", "dispatch b/1-1"]
    assert asked_about(repeated(history, 2)) == ["a/1-1", "b/1-1"]


def test_what_is_overdue_is_handed_out_by_no_resume() -> None:
    """It is being taken back by who decided that, and whoever got it would run what is then closed: it is looked for later."""
    plan = start(step("a", queue_timeout_ms=5_000))
    history = given(plan, pause(), resume(), due("a", "queue"))
    for n in (2, 3):
        assert in_words(repeated(history, n)) == ["look later"]
    assert on_attempts(repeated(history, 4)) == ["withdraw a/1-1"]
    late = given(plan, due("a", "queue"), pause())
    assert in_words(late.when(resume()).effects) == ["look later"]
    late.when(withdrawn("a")).then_types("task_timed_out a", "task_retry_scheduled a")


def test_what_comes_overdue_in_the_commit_of_the_resume_is_taken_back_once() -> None:
    """Two at once would put it back for each other."""
    history = given(start(step("a", queue_timeout_ms=5_000)), pause())
    outcome = history.happen_together(resume(), due("a", "queue"))
    assert in_words(outcome.effects) == ["look later", "withdraw a/1-1"]


def test_what_is_overdue_is_not_put_back_during_a_pause() -> None:
    """Whoever found it gone and put it there once more would let somebody begin it."""
    history = given(start(step("a", queue_timeout_ms=5_000)), due("a", "queue"))
    (taken,) = (one for one in repeated(history, 2) if isinstance(one, fx.TakeBack))
    assert taken.again is not None
    history.when(pause())
    (taken,) = (one for one in repeated(history, 2) if isinstance(one, fx.TakeBack))
    assert taken.again is None


@pytest.mark.parametrize("pauses", [1, 2, 3])
def test_it_can_be_paused_again(pauses: int) -> None:
    """Each pause and each resume is an event of its own."""
    history = given(start("a"))
    for turn in range(pauses):
        history.when(pause(f"p{turn}")).then_types("execution_paused")
        history.when(pause(f"p{turn} again")).then_nothing("ineffective")
        history.when(resume(f"r{turn}")).then_types("execution_resumed")
        history.when(resume(f"r{turn} again")).then_nothing("ineffective")
