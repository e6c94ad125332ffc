"""Errors and hints name what they are about, in words that fit all readers: in Python, on the command line, on the wire."""

import pytest

from esexec.client.checkpoints import parts_of
from esexec.client.commands import encode_command
from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain.decider import Surroundings
from esexec.domain.errors import ErrorInfo, ValidationError
from esexec.domain.settings import TaskInfo
from esexec.domain.strategies import Strategy
from tests.given import (
    History,
    checkpoint,
    completed,
    due,
    fatal,
    given,
    pause,
    restore,
    retry,
    rollback,
    start,
    step,
    timed_out,
    undone,
    withdrawn,
)


def refused(history: History, command: c.ControlCommand) -> ErrorInfo:
    """What a command is refused with."""
    error = history.when(command).then_nothing("refused").verdict.error
    assert error is not None
    return error


def test_what_is_undone_already_is_not_called_impossible() -> None:
    """A second rollback is refused because there is nothing left; one of what nothing undoes tells how that is said."""
    history = given(start(step("a", compensate="undo"), "b"), completed("a"), fatal("b"), completed("a", None, 2))
    error = refused(history, rollback())
    assert (error.code, error.message) == ("nothing_to_compensate", "e1 is undone already: nothing is left that can be undone")
    assert error.hint == "retry runs it again"
    error = refused(given(start("a"), completed("a")), rollback())
    assert (error.code, error.message) == ("nothing_to_compensate", "e1 did nothing that can be undone")
    assert error.hint is not None
    assert "compensate" in error.hint


def test_what_still_stands_is_not_called_undone() -> None:
    """After a rollback that stopped half-way, or left what nothing undoes: those steps are named, and what a retry would do."""
    others = [f"b{number}" for number in range(7)]
    begun = start(step("a", compensate="undo"), *others, "c", config={"on_missing_compensation": "fail"})
    history = given(begun, completed("a"), *map(completed, others), fatal("c"))
    history.happen(undone("a"))
    assert (history.state.status, history.state.rollback_status) == ("failed", "partial")
    error = refused(history, rollback())
    said = "what can be undone of e1 is undone already; nothing undoes b6, b5, b4, b3, b2 and 2 more"
    assert (error.code, error.message) == ("nothing_to_compensate", said)
    assert error.hint == "retry runs again what was undone, or did not complete"


@pytest.mark.parametrize(
    ("history", "hint"),
    [
        (given(start("a"), completed("a")), "start it again instead"),
        (given(start(step("a", compensate="undo")), completed("a")), "start it again instead, rollback undoes it"),
        (given(start("a"), checkpoint(), fatal("a")), "retry runs it again, restore goes back to a checkpoint"),
        (
            given(start(step("a", compensate="undo"), "b"), completed("a"), checkpoint(), fatal("b"), undone("a")),
            "retry runs it again, restore goes back to a checkpoint",
        ),
    ],
    ids=["completed", "completed, can be undone", "failed, with a checkpoint", "rolled back"],
)
def test_who_comes_after_the_end_is_told_what_can_be_done_then(history: History, hint: str) -> None:
    """No retry of what completed, no restore without a checkpoint, no rollback where nothing can be undone."""
    error = refused(history, pause())
    assert (error.code, error.hint) == ("ended", hint)


@pytest.mark.parametrize("state", [given(start("a")), given(start("a"), fatal("a")), given(start("a"), completed("a"))])
def test_a_name_for_a_new_execution_that_is_not_asked_for(state: History) -> None:
    """`new_id` without `as_new` is refused whatever the history says: a retry in place is not what is meant."""
    error = state.when(retry(new_id="e2")).then_nothing("invalid").verdict.error
    assert error is not None
    assert (error.code, error.hint) == ("new_id_without_as_new", 'give "as_new": true beside it, or leave new_id out')


def test_what_was_done_again_can_be_undone_again() -> None:
    """After a retry there is something to undo once more, so it is not refused as undone already."""
    history = given(start(step("a", compensate="undo")), completed("a"), rollback(), completed("a", None, 2), retry())
    history.happen(completed("a", run=2))
    history.when(rollback("again")).then_types("rollback_started", "compensation_scheduled a")


def test_a_strategy_that_takes_too_long_is_named() -> None:
    """What timed out is the strategy, not the step that it was asked about; so it is when nobody began it."""
    around = Surroundings(strategies=(Strategy(id="patience", queue="q", timeout_ms=5_000),))
    ended = given(start("a"), fatal("a"), around=around).when(timed_out("a", 2)).events[1]
    assert isinstance(ended, e.RecoveryCompleted)
    assert "recovery strategy patience ran longer than its timeout of 5000 ms" in ended.message
    history = given(start("a"), fatal("a"), due("a", "queue"), around=around)
    ended = history.when(withdrawn("a", 2)).events[0]
    assert isinstance(ended, e.RecoveryCompleted)
    assert "no worker of queue q began recovery strategy patience" in ended.message


def test_an_undoing_that_takes_too_long_is_named() -> None:
    """Likewise the undoing of a step is not the step."""
    around = Surroundings(tasks={"undo": TaskInfo(max_retries=0)})
    history = given(start(step("a", compensate="undo"), "b"), completed("a"), fatal("b"), around=around)
    ended = history.when(timed_out("a", 2)).events[1]
    assert isinstance(ended, e.CompensationFailed)
    assert ended.error.message == "the undoing of a ran longer than its timeout of 30000 ms"


@pytest.mark.parametrize("checkpoint_id", ["e1", "e1.x", ""])
def test_hints_name_no_language(checkpoint_id: str) -> None:
    """Whoever mistypes a checkpoint's id is told where ids are found, in Python and on the command line alike."""
    with pytest.raises(ValidationError) as raised:
        parts_of(checkpoint_id)
    assert raised.value.hint is not None
    assert "list the checkpoints" in raised.value.hint
    assert "(" not in raised.value.hint


def test_an_unknown_checkpoint_has_a_hint_in_any_case() -> None:
    """With many checkpoints, none of them alike, it is said where they are found; without any, that there are none."""
    many = given(start("a"), *(checkpoint(f"k{number}") for number in range(20)))
    assert refused(many, restore("completely.different")).hint == "list its checkpoints to see their ids"
    assert refused(given(start("a")), restore("e1.5")).hint == "it has no checkpoints yet"


def test_what_cannot_be_sent_is_named() -> None:
    """Of a start it is the input; of a checkpoint there is none."""
    for command, named in (
        (c.StartExecution(id="1", task="a", input=object()), "the input"),
        (c.CreateCheckpoint(id="1", metadata={"k": object()}), "the command"),
    ):
        with pytest.raises(ValidationError) as raised:
            encode_command(command)
        assert raised.value.message.startswith(f"{named} cannot be sent as JSON")
