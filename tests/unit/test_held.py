"""What was never handed out, or provably taken back, is with nobody: a stop settles it at once, and nothing of it is undone."""

import pytest

from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain import reports as r
from esexec.domain.decider import Surroundings
from esexec.domain.rollback import rollback_plan
from esexec.domain.settings import TaskInfo
from esexec.domain.strategies import Strategy
from tests.given import (
    History,
    Message,
    TimerOf,
    asked_about,
    cancel,
    checkpoint,
    completed,
    due,
    failed,
    fatal,
    given,
    on_attempts,
    pause,
    repeated,
    restore,
    resume,
    start,
    started,
    step,
    stopped,
    withdrawn,
)

PARALLEL = {"parallel": True}
AROUND = Surroundings(tasks={name: TaskInfo(compensate=f"undo_{name}") for name in ("a", "b", "plan_a")})
ASKING = AROUND._replace(strategies=(Strategy(id="s"),))
NO_ROLLBACK = {"enable_rollback": False}


def to_undo(history: History) -> list[tuple[str, bool]]:
    """What a rollback would undo, and whether that is certain to have been done."""
    return [(one.step, one.certain) for one in rollback_plan(history.state) if one.task is not None]


# Opened and stopped in one commit ----------------------------------------------------------------------------------------


def test_a_cancel_settles_what_its_own_commit_scheduled() -> None:
    """The dispatch of b was never sent: it is cancelled at once, not abandoned, and was not done."""
    outcome = given(start("a", "b"), around=AROUND).happen_together(completed("a"), cancel())
    outcome.then_types(
        "task_started a",
        "task_completed a",
        "task_scheduled b",
        "execution_cancel_requested",
        "task_cancelled b",
        "execution_cancelled",
    )
    assert outcome.events[-2:] == [e.TaskCancelled(step="b"), e.ExecutionCancelled()]
    assert on_attempts(outcome.effects) == []
    assert to_undo(outcome.history) == [("a", True)]


def test_a_cancel_waits_only_for_what_was_handed_out() -> None:
    """c was, b was not; whoever repeats the effects tells c alone."""
    outcome = given(start("a", step("b", "a"), "c", plan_fields=PARALLEL), around=AROUND).happen_together(
        completed("a"), cancel()
    )
    assert on_attempts(outcome.effects) == ["stop c/1-1"]
    assert outcome.state.steps[1].status == "cancelled"
    assert on_attempts(repeated(outcome.history, 2)) == ["stop c/1-1"]
    outcome.when(stopped("c")).then_types("task_started c", "task_cancelled c", "execution_cancelled")


def test_a_cancel_settles_a_retry_that_came_due_in_its_commit() -> None:
    """The second attempt was never handed out; the first failed."""
    history = given(start("a"), failed("a"), around=AROUND)
    outcome = history.happen_together(due("a"), cancel())
    outcome.then_types("task_scheduled a", "execution_cancel_requested", "task_cancelled a", "execution_cancelled")
    assert to_undo(history) == []


def test_a_cancel_settles_an_undoing_that_its_own_commit_scheduled() -> None:
    """What it was to undo stands, and nobody is waited for."""
    history = given(start("a", "b"), completed("a"), started("b"), around=AROUND)
    outcome = history.happen_together(fatal("b"), cancel())
    outcome.then_types(
        "task_failed b", "rollback_started", "compensation_scheduled a", "execution_cancel_requested", "execution_cancelled"
    )
    assert (outcome.state.rollback_status, on_attempts(outcome.effects)) == ("partial", [])
    assert to_undo(history) == [("a", True)]


def test_a_deadline_settles_what_its_own_commit_scheduled() -> None:
    """As a cancel does."""
    plan = start("a", "b", config=NO_ROLLBACK | {"execution_timeout_ms": 10_000})
    history = given(plan, around=AROUND)
    outcome = history.happen_together(completed("a"), due(kind="deadline"))
    outcome.then_types(
        "task_started a",
        "task_completed a",
        "task_scheduled b",
        "execution_deadline_exceeded",
        "task_cancelled b",
        "execution_failed",
    )
    assert (on_attempts(outcome.effects), outcome.state.abandoned) == ([], [])
    assert to_undo(history) == [("a", True)]


def test_a_pause_holds_what_its_own_commit_scheduled() -> None:
    """Nothing is handed out and nothing taken back; the resume hands it out, and need ask nobody."""
    history = given(start("a", "b"), around=AROUND)
    outcome = history.happen_together(completed("a"), pause())
    outcome.then_types("task_started a", "task_completed a", "task_scheduled b", "execution_paused")
    assert outcome.effects == []
    assert outcome.state.steps[1].held
    effects = history.when(resume()).effects
    assert (on_attempts(effects), asked_about(effects)) == (["dispatch b/1-1"], [])


def test_an_execution_can_be_paused_in_the_commit_that_starts_it() -> None:
    """Then nothing of it is handed out before the resume; a cancel ends it at once."""
    history = given()
    outcome = history.happen_together(start("a", "b"), pause())
    assert outcome.effects == []
    history.when(cancel()).then_types("execution_cancel_requested", "task_cancelled a", "task_cancelled b", "execution_cancelled")


def test_a_restore_leaves_nothing_of_what_its_own_commit_scheduled() -> None:
    """There is nobody to be told, and b was not done."""
    history = given(start("a", "b"), checkpoint(), around=AROUND)
    outcome = history.happen_together(completed("a"), restore("e1.4"))
    outcome.then_types("task_started a", "task_completed a", "task_scheduled b", "checkpoint_restored", "task_scheduled a")
    assert on_attempts(outcome.effects) == ["dispatch a/2-1"]
    assert to_undo(history) == [("a", True)]


# What a pause held, and another wish in the commit of the resume -------------------------------------------------------


def held() -> History:
    """Of two attempts, a is begun, and b was taken back by a pause, which is proven."""
    history = given(start("a", "b", plan_fields=PARALLEL), started("a"), pause(), around=AROUND)
    history.happen(withdrawn("b", pause=history.state.pause))
    return history


def test_what_is_held_stays_so_if_the_commit_of_the_resume_cancels() -> None:
    """Its dispatch was not sent again: it is cancelled at once, and nothing of it is undone."""
    history = held()
    outcome = history.happen_together(resume(), cancel())
    outcome.then_types("execution_resumed", "execution_cancel_requested", "task_cancelled b")
    assert on_attempts(outcome.effects) == ["stop a/1-1"]
    history.happen(stopped("a"))
    assert to_undo(history) == [("a", False)]


def test_what_is_held_stays_so_if_the_commit_of_the_resume_pauses_again() -> None:
    """It is not taken back a second time, and the next resume asks nobody for it."""
    history = held()
    outcome = history.happen_together(resume(), pause("once more"))
    assert on_attempts(outcome.effects) == []
    assert outcome.state.steps[1].held
    effects = history.when(resume("at last")).effects
    assert (on_attempts(effects), asked_about(effects)) == (["dispatch a/1-1", "dispatch b/1-1"], ["a/1-1"])


def test_what_is_held_stays_so_if_the_commit_of_the_resume_goes_back() -> None:
    """Of the run that is left, only a is told, and only a may have been done."""
    history = given(start("a", "b", plan_fields=PARALLEL), checkpoint(), started("a"), pause(), around=AROUND)
    history.happen(withdrawn("b", pause=history.state.pause))
    outcome = history.happen_together(resume(), restore("e1.5"))
    assert [one for one in on_attempts(outcome.effects) if "/1-" in one] == ["give up a/1-1: the execution went on without it"]
    assert to_undo(history) == [("a", False)]


def test_what_a_failing_execution_takes_back_is_settled_at_once() -> None:
    """The failure came first, while it was not known that nobody had b: the end does not wait for the resume."""
    history = given(start("a", "b", plan_fields=PARALLEL), started("a"), pause(), fatal("a"))
    assert not history.state.ended
    told = withdrawn("b", pause=history.state.pause)
    outcome = history.when(told).then_types("task_held b", "task_cancelled b", "execution_failed")
    assert history.when(told).then_nothing("stale").verdict.n == outcome.state.n


def test_a_pause_of_a_failing_execution_settles_what_its_own_commit_scheduled() -> None:
    """Nothing that is held is begun in an execution that fails, whatever came first in the commit."""
    history = given(start("a", step("b", "a"), "c", plan_fields=PARALLEL))
    outcome = history.happen_together(completed("a"), fatal("c"), pause())
    assert outcome.state.steps[1].status == "cancelled"
    assert (outcome.state.status, on_attempts(outcome.effects)) == ("failed", [])


# Opened during a pause -------------------------------------------------------------------------------------------------


def test_a_fallback_that_a_pause_holds_is_settled_at_once() -> None:
    """A cancel waits for nobody, and the fallback did nothing that could be undone."""
    plan = start(step("a", fallback="plan_a", max_retries=0))
    history = given(plan, started("a"), pause(), failed("a"), around=AROUND)
    assert history.state.steps[0].held
    outcome = history.when(cancel()).then_types("execution_cancel_requested", "task_cancelled a", "execution_cancelled")
    assert (on_attempts(outcome.effects), to_undo(history)) == ([], [])


def test_a_fallback_that_a_pause_holds_did_nothing_when_an_execution_goes_back() -> None:
    """The new run waits for the resume; of the old one nothing is told, and nothing undone."""
    plan = start(step("a", fallback="plan_a", max_retries=0))
    history = given(plan, checkpoint(), started("a"), pause(), failed("a"), around=AROUND)
    outcome = history.when(restore("e1.4")).then_types("checkpoint_restored")
    assert (on_attempts(outcome.effects), to_undo(history)) == ([], [])


@pytest.mark.parametrize("stop", [cancel(), due(kind="deadline")])
def test_a_question_that_a_pause_holds_is_settled_at_once(stop: Message | TimerOf) -> None:
    """No strategy was asked, so no advice is waited for."""
    plan = start("a", config={"execution_timeout_ms": 60_000})
    history = given(plan, started("a"), pause(), fatal("a"), around=ASKING)
    assert (history.state.steps[0].purpose, history.state.steps[0].held) == ("recovery", True)
    outcome = history.when(stop)
    assert outcome.state.ended
    assert (on_attempts(outcome.effects), outcome.state.recovering) == ([], 0)


def test_what_a_pause_holds_can_be_handed_out_without_a_question() -> None:
    """Nobody ever had it: the resume asks only for what began before."""
    plan = start(step("a", fallback="plan_a", max_retries=0), "b", plan_fields=PARALLEL)
    history = given(plan, started("a"), started("b"), pause(), failed("a"), around=AROUND)
    effects = history.when(resume(), at=20).effects
    assert (on_attempts(effects), asked_about(effects)) == (["dispatch a/1-2", "dispatch b/1-1"], ["b/1-1"])


# Known to have begun ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [[], [cancel()]])
def test_what_has_begun_is_not_withdrawn(first: list[Message]) -> None:
    """Somebody has it: whoever took the dispatch back took its lease, so that it is looked for from now on."""
    history = given(start("a"), *first, started("a"), around=AROUND)
    history.when(withdrawn("a")).then_nothing("open")
    assert history.state.steps[0].status == "running"


def test_what_has_begun_is_not_overdue() -> None:
    """A start that comes while it is being taken back ends that. Whoever took it back may have died of it, and its lease is gone:
    so it is looked for when that is repeated, and when the withdrawal comes."""
    history = given(start(step("a", queue_timeout_ms=5_000)), due("a", "queue"), started("a"))
    assert not history.state.steps[0].overdue
    history.when(withdrawn("a")).then_nothing("open")
    assert on_attempts(repeated(history, 2)) == ["dispatch a/1-1"]
    assert asked_about(repeated(history, 2)) == ["a/1-1"]
    history.when(completed("a")).then_types("task_completed a", "execution_completed")


def test_a_look_asks_that_all_that_is_open_be_looked_for() -> None:
    """It changes nothing; of what does not exist, nothing is asked."""
    history = given(start("a", "b", plan_fields=PARALLEL), started("a"))
    history.when(r.Due(r.LOOK)).then_nothing("open")
    assert asked_about(fx.open_effects(history.state)) == ["a/1-1", "b/1-1"]
    given().when(r.Due(r.LOOK)).then_nothing("unknown")
