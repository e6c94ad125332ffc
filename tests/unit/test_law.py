"""The harness itself: an execution that nobody goes on with is noticed."""

from esexec.domain import effects as fx
from tests.given import due, fatal, given, pause, start, started, step
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


def test_an_end_needs_nobody() -> None:
    """Neither does what does not exist yet."""
    assert stuck(given(start("a"), fatal("a")).state, Handed()) is None
    assert stuck(given().state, Handed()) is None
