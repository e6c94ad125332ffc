"""The variables of an execution: what a handler sets is there for all that come after it."""

from esexec.domain import limits
from esexec.domain.effects import dispatch_of
from tests.given import cancel, checkpoint, completed, due, failed, fatal, given, restore, retry, start, timed_out

PARALLEL = {"parallel": True}


def test_what_a_handler_sets_is_handed_to_the_next() -> None:
    """Only what it changed travels; the rest stands."""
    history = given(start("a", "b"), completed("a", vars={"k": 1, "l": [2]}))
    assert dispatch_of(history.state, 1).vars == {"k": 1, "l": [2]}
    history.happen(completed("b", vars={"k": None}))
    assert history.state.variables == {"k": None, "l": [2]}


def test_what_a_failed_attempt_set_counts_too() -> None:
    """A handler can leave a note for its next attempt: how far it came."""
    history = given(start("a"), failed("a", vars={"row": 17}), due("a"))
    assert dispatch_of(history.state, 0).vars == {"row": 17}


def test_of_two_at_once_the_last_to_report_wins_key_by_key() -> None:
    """Each sends only what it changed, so that neither takes back what the other did."""
    history = given(start("a", "b", plan_fields=PARALLEL), completed("b", vars={"b": 1, "both": "b"}))
    history.happen(completed("a", vars={"a": 1, "both": "a"}))
    assert history.state.variables == {"a": 1, "b": 1, "both": "a"}


def test_late_reports_set_nothing() -> None:
    """Neither of a closed attempt nor of an older run."""
    history = given(start("a", "b"), timed_out("a"), due("a"))
    history.when(completed("a", vars={"late": 1})).then_nothing("stale")
    for message in (cancel(), due(), retry()):
        history.happen(message)
    history.when(completed("a", None, 2, vars={"late": 1})).then_nothing("stale")
    assert history.state.variables == {}


def test_an_attempt_whose_variables_are_too_large_fails() -> None:
    """`limits.vars_bytes`, all together; it would be too large again, so it is not retried, and nothing of it is kept."""
    history = given(start("a", "b"), completed("a", vars={"k": "x" * (limits.vars_bytes // 2)}))
    outcome = history.when(completed("b", 1, vars={"l": "x" * (limits.vars_bytes // 2)}))
    outcome.then_types("task_started b", "task_failed b", "execution_failed")
    error = outcome.events[1].error
    assert (error.code, error.retryable) == ("vars_too_large", False)
    assert "vars_bytes" in error.hint
    assert list(outcome.state.variables) == ["k"]


def test_a_failure_keeps_its_own_error_though_its_variables_are_too_large() -> None:
    """They are let go; why it failed matters more."""
    outcome = given(start("a")).when(failed("a", vars={"k": "x" * limits.vars_bytes}))
    assert (outcome.events[1].error.code, outcome.events[1].vars) == ("BROKEN", {})


def test_a_variable_can_take_the_place_of_a_large_one() -> None:
    """What counts is what they are together afterwards."""
    history = given(start("a", "b"), completed("a", vars={"k": "x" * (limits.vars_bytes - 100)}))
    history.when(completed("b", vars={"k": "y" * (limits.vars_bytes - 100)})).then_types(
        "task_started b", "task_completed b", "execution_completed"
    )


def test_a_restore_brings_back_the_variables_of_the_checkpoint_and_a_retry_keeps_them() -> None:
    """The one goes back in time, the other goes on."""
    history = given(start("a", "b"), completed("a", vars={"k": 1}), checkpoint(), failed("b", retryable=False, vars={"k": 2}))
    history.happen(retry())
    assert history.state.variables == {"k": 2}
    history.happen(fatal("b", run=2))
    history.happen(restore("e1.7"))
    assert history.state.variables == {"k": 1}
