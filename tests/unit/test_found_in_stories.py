"""What random stories of the simulation found wrong in the core, told as short as it can be."""

from esexec.domain import reports as r
from tests.given import cancel, completed, due, failed, fatal, given, start, step
from tests.simulation.story import small_decisions


def test_a_cancel_does_not_wait_for_the_retry_of_an_undoing() -> None:
    """A rollback that is cancelled while an undoing waits for its retry has nothing in flight, and ends."""
    plan = start(step("a", compensate="undo_a"), step("b", "a"))
    history = given(plan, completed("a"), fatal("b"), failed("a", 2))
    outcome = history.when(cancel())
    outcome.then_types("execution_cancel_requested", "execution_cancelled")
    assert outcome.state.timers == {}


def test_what_is_cancelled_before_its_start_does_not_start() -> None:
    """The start time comes while the cancel is still being decided: nothing begins any more."""
    with small_decisions(1):
        history = given(start("a", "b", delay_ms=5000), cancel())
        history.when(r.Due("1")).then_types("task_cancelled")
    history.when(r.Continue(2)).then_types("task_cancelled", "execution_cancelled")


def test_the_retry_of_an_undoing_is_due() -> None:
    """Its timer hands the undoing out again, and the rollback goes on from there."""
    plan = start(step("a", compensate="undo_a"), step("b", "a"))
    history = given(plan, completed("a"), fatal("b"), failed("a", 2))
    history.when(due("a")).then_types("compensation_scheduled")
