"""A wish that a later one has overtaken is out of date; only what set the execution's course overtakes anything."""

import pytest

from esexec.domain.commands import ControlCommand
from esexec.domain.decider import Surroundings, decide_message
from esexec.domain.decision import Decision
from esexec.domain.settings import TaskInfo
from esexec.domain.strategies import Strategy
from tests.given import (
    History,
    Message,
    advised,
    at,
    cancel,
    checkpoint,
    completed,
    due,
    fatal,
    given,
    pause,
    restore,
    resume,
    retry,
    rollback,
    start,
)

AROUND = Surroundings(tasks={"a": TaskInfo(compensate="undo_a")}, strategies=(Strategy(id="s", applicable_errors=("ASK",)),))
BEGUN: list[Message] = [start("a", "b", config={"enable_rollback": False}), checkpoint(), completed("a")]
FAILED: list[Message] = [*BEGUN, fatal("b")]


def after(messages: list[Message], control: ControlCommand) -> History:
    """An execution of which something is wished at 100 s."""
    history = given(*messages, around=AROUND)
    assert history.when(control, at=100).events
    return history


@pytest.mark.parametrize(
    ("messages", "control", "late"),
    [
        (BEGUN, pause("now"), cancel("late")),
        ([*BEGUN, pause("p")], resume("now"), pause("late")),
        ([*BEGUN, pause("p")], resume("now"), cancel("late")),
        (FAILED, retry(id="now"), cancel("late")),
        (FAILED, retry(id="now"), restore("e1.4", id="late")),
        (FAILED, rollback("now"), pause("late")),
        (BEGUN, restore("e1.4", id="now"), pause("late")),
    ],
)
def test_what_sets_the_course_overtakes_older_wishes(
    messages: list[Message], control: ControlCommand, late: ControlCommand
) -> None:
    """Redelivery can let a later command come first; the older one is then answered `superseded`, and changes nothing."""
    history = after(messages, control)
    history.when(late, at=99).then_nothing("superseded")
    assert after(messages, control).when(late, at=100).events


@pytest.mark.parametrize(
    ("messages", "control", "late"),
    [
        (BEGUN, checkpoint("now"), cancel("late")),
        (BEGUN, checkpoint("now"), pause("late")),
        (FAILED, retry(id="now", as_new=True, new_id="e2"), retry(id="late")),
        (FAILED, retry(id="now", as_new=True, new_id="e2"), rollback("late")),
        (FAILED, retry(id="now", as_new=True, new_id="e2"), restore("e1.4", id="late")),
    ],
)
def test_a_checkpoint_and_a_fork_overtake_nothing(messages: list[Message], control: ControlCommand, late: ControlCommand) -> None:
    """They leave everything as it is, so whatever was wished before them is as good as it was."""
    assert after(messages, control).when(late, at=99).events


def test_what_the_execution_decides_itself_overtakes_nothing() -> None:
    """A rollback after a failure, a restore by a strategy: nobody wished them, so a wish from before them still holds."""
    history = given(start("a", "b"), around=AROUND)
    history.when(completed("a"), at=50)
    assert history.when(fatal("b"), at=100).state.phase == "rolling_back"
    history.when(cancel(), at=99).then_types("execution_cancel_requested")
    asked = given(start("b"), checkpoint(), around=AROUND)
    asked.around = Surroundings(strategies=(Strategy(id="s"),))
    asked.happen(fatal("b"))
    assert asked.when(advised("b", "checkpoint_restore"), at=100).state.run == 2
    asked.when(pause(), at=99).then_types("execution_paused")


def test_a_start_that_comes_due_overtakes_nothing() -> None:
    """A timer is no wish."""
    history = given(start("a", delay_ms=60_000))
    history.when(due(kind="start"), at=100)
    history.when(cancel(), at=99).then_types("execution_cancel_requested")


def test_wishes_of_one_commit_are_read_as_they_were_decided() -> None:
    """Which of them set the course is not told by the commit: the latest counts, for who decides as for who reads it."""
    history = given(start("a"))
    decision = Decision(history.state, at(10))
    for message, time in ((checkpoint("first"), at(9)), (pause("then"), at(8))):
        assert decide_message(decision, message, time).kind == "applied"
    history.commit(decision.events, decision.time, tuple(decision.causes))
    assert decision.state.last_control == history.state.last_control == at(9)


def test_a_rollback_that_follows_in_the_commit_of_a_wish_is_no_wish() -> None:
    """Decided after it, by a failure that came with it: the wish did not set the course."""
    history = given(start("a", "b"), completed("a"), around=AROUND)
    decision = Decision(history.state, at(10), 0.0, AROUND)
    assert decide_message(decision, checkpoint(), at(9)).kind == "applied"
    assert decide_message(decision, fatal("b"), at(10)).kind == "applied"
    history.commit(decision.events, decision.time, tuple(decision.causes))
    assert decision.state.last_control == history.state.last_control == at(1)
