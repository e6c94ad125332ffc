"""The harness itself: an execution that nobody goes on with is noticed."""

import pytest

from esexec.domain import effects as fx
from esexec.domain import limits
from tests.given import cancel, due, fatal, given, pause, resume, start, started, step, withdrawn
from tests.law import Handed, stuck


def handed(*effects: fx.Effect) -> Handed:
    """After these effects, and no others."""
    found = Handed()
    found.note(effects)
    return found


def test_that_an_attempt_is_open_wakes_nobody() -> None:
    """It has to be handed out; one that somebody is known to have begun was."""
    outcome = given().when(start("a"))
    assert stuck(outcome.state, Handed()) is not None
    assert stuck(outcome.state, handed(*outcome.effects)) is None
    assert stuck(given(start("a"), started("a")).state, Handed()) is None


def test_what_was_taken_back_is_with_nobody() -> None:
    """A pause that nobody resumed by handing out again, for example; during the pause that is as it should be."""
    history = given(start("a"))
    (dispatch,) = fx.open_effects(history.state)
    state = history.state
    (hold,) = history.when(pause()).effects
    assert stuck(state, handed(dispatch, hold)) is not None
    assert stuck(history.state, handed(dispatch, hold)) is None


def test_what_is_overdue_is_proven_or_begun() -> None:
    """That it is taken back puts it there if it was not, so somebody will tell."""
    outcome = given(start(step("a", queue_timeout_ms=5_000))).when(due("a", "queue"))
    assert stuck(outcome.state, handed(*outcome.effects)) is None


def test_a_stop_waits_only_for_what_somebody_may_have() -> None:
    """What was handed out is told, and answers or is abandoned; what was never sent would be waited for, and undone, in vain."""
    history = given(start("a"))
    sent = fx.open_effects(history.state)
    stopped = history.when(cancel())
    assert stuck(stopped.state, handed(*sent, *stopped.effects)) is None
    assert stuck(stopped.state, handed(*stopped.effects)) is not None
    assert stuck(stopped.state, handed(*sent)) is not None


def test_a_stop_does_not_wait_for_what_a_pause_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless there is more to decide than fits: then that comes first."""
    history = given(start("a", "b", plan_fields={"parallel": True}), pause())
    history.happen(withdrawn("a", pause=history.state.pause))
    monkeypatch.setattr(limits, "events_per_commit", 1)
    history.when(cancel()).then_types("execution_cancel_requested")
    state = history.state
    assert stuck(state, history.handed) is None
    state.cursor = 2  # as if the sweep had passed it by
    assert stuck(state, history.handed) == "the stop waits for ['a']"


def test_what_a_pause_held_has_to_be_sent_again_before_a_stop_can_hear_of_it() -> None:
    """It was with nobody, so a stop that waits for it waits in vain."""
    history = given(start("a"), pause())
    history.happen(withdrawn("a", pause=history.state.pause))
    history.happen(resume())
    sent, told = history.handed, fx.TakeBack("a", 1, 1, "default", 5, "stop")
    state = history.state
    state.cancel = state.version
    sent.note([told])
    assert stuck(state, sent) is None
    sent.prove(given(start("a"), pause(), withdrawn("a", pause=4)).state)
    assert stuck(state, sent) == "the stop waits for ['a']"


def test_a_deadline_that_passes_during_a_pause_is_no_pause_to_wait_for() -> None:
    """It stops what was handed out, paused or not."""
    history = given(start("a", config={"execution_timeout_ms": 10_000}), pause(), started("a"))
    stopped = history.when(due(kind="deadline"))
    assert stuck(stopped.state, handed(*stopped.effects)) is None
    assert stuck(stopped.state, Handed()) == "the stop waits for ['a']"


def test_an_end_needs_nobody() -> None:
    """Neither does what does not exist yet."""
    assert stuck(given(start("a"), fatal("a")).state, Handed()) is None
    assert stuck(given().state, Handed()) is None
