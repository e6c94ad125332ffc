"""What was done is kept with what it had: undone once, whatever ran since, with its own params, under its own key."""

from typing import Any

from esexec.domain import messages
from esexec.domain import reports as r
from esexec.domain.decider import Surroundings
from esexec.domain.effects import dispatch_of
from esexec.domain.rollback import rollback_plan
from esexec.domain.settings import TaskInfo
from esexec.tasks.context import Context
from tests.given import (
    History,
    cancel,
    checkpoint,
    completed,
    due,
    failed,
    fatal,
    given,
    restore,
    retry,
    rollback,
    start,
    started,
    step,
    timed_out,
    undone,
)

TASKS = {name: TaskInfo(compensate=f"undo_{name}") for name in ("a", "b", "plan_b")}
AROUND = Surroundings(tasks=TASKS)
NO_ROLLBACK = {"enable_rollback": False}


def undoings(history: History) -> list[messages.Dispatch]:
    """The first dispatch of each undoing of a rollback, which all succeed."""
    found = []
    while not history.state.ended:
        (index,) = history.state.in_flight
        found.append(dispatch_of(history.state, index))
        history.happen(undone(found[-1].step, found[-1].attempt, run=history.state.run))
    return found


def key_of(dispatch: messages.Dispatch) -> str:
    """What a handler that is handed this can give to systems that remove duplicates."""
    return Context(dispatch).idempotency_key


def planned(history: History) -> list[tuple[str, Any]]:
    """What a rollback would undo, in that order, with which params."""
    return [(one.step, one.params) for one in rollback_plan(history.state) if one.task is not None]


# Its own params --------------------------------------------------------------------------------------------------------


def test_references_of_an_undoing_are_those_of_the_time_when_it_was_done() -> None:
    """That the step it refers to ran again since, with another output, changes nothing of what was done."""
    plan = start("a", step("b", params={"n": "${steps.a.output.n}"}), "z", config=NO_ROLLBACK)
    history = given(plan, checkpoint(), completed("a", {"n": 1}), completed("b"), fatal("z"), restore("e1.4"), around=AROUND)
    history.happen(completed("a", {"n": 2}, run=2))
    assert planned(history) == [("b", {"n": 1}), ("a", {"n": 2})]
    history.happen(fatal("b", run=2))
    history.happen(rollback())
    assert [one.params for one in undoings(history)] == [{"n": 1}, {"n": 2}]


def test_an_attempt_of_unknown_outcome_has_the_params_that_it_was_handed_out_with() -> None:
    """Also after what it refers to has run again, or was undone and is empty."""
    plan = start("a", step("b", params={"n": "${steps.a.output}"}, max_retries=0), config=NO_ROLLBACK)
    history = given(plan, checkpoint(), completed("a", 1), timed_out("b"), around=AROUND)
    history.happen(restore("e1.4"))
    history.happen(completed("a", 2, run=2))
    assert planned(history) == [("b", {"n": 1}), ("a", {})]


# Once ------------------------------------------------------------------------------------------------------------------


def test_a_later_completion_takes_the_place_of_an_earlier_one() -> None:
    """The step is undone once, with what it did last, in the order of that."""
    plan = start("a", "z", config=NO_ROLLBACK)
    history = given(plan, checkpoint(), completed("a", {"n": 1}), fatal("z"), restore("e1.4"), around=AROUND)
    history.happen(completed("a", {"n": 2}, run=2))
    (deed,) = history.state.standing.values()
    assert (deed.run, deed.certain, deed.output) == (2, True, {"n": 2})


REDONE = step("b", params={"n": "${steps.a.output}"}, max_retries=0)


def test_an_uncertain_attempt_takes_nothing_of_what_is_certain() -> None:
    """What completed, and what a later run may have done once more with other inputs, are two deeds, each undone as it was."""
    plan = start("a", REDONE, "z", config=NO_ROLLBACK)
    history = given(plan, checkpoint(), completed("a", 1), completed("b", {"id": 7}), fatal("z"), restore("e1.4"), around=AROUND)
    history.happen(completed("a", 2, run=2))
    history.happen(timed_out("b", run=2))
    assert planned(history) == [("b", {"n": 2}), ("b", {"n": 1, "id": 7}), ("a", {})]
    assert [one.certain for one in rollback_plan(history.state)] == [False, True, True]
    history.happen(rollback())
    dispatched = undoings(history)
    assert [(one.params, key_of(one)) for one in dispatched[:2]] == [
        ({"n": 2}, "e1/b/2/undo"),
        ({"n": 1, "id": 7}, "e1/b/1/undo"),
    ]
    assert history.state.status == "rolled_back"
    assert not history.state.standing


def test_a_completion_takes_nothing_of_what_is_uncertain_in_another_run() -> None:
    """The attempt of run 1 may have done its work, with the inputs of run 1; that run 2 completed does not undo that."""
    plan = start("a", REDONE, "z", config=NO_ROLLBACK)
    history = given(plan, checkpoint(), completed("a", 1), timed_out("b"), restore("e1.4"), around=AROUND)
    for message in (completed("a", 2, run=2), completed("b", {"id": 8}, run=2)):
        history.happen(message)
    assert planned(history) == [("b", {"n": 2, "id": 8}), ("b", {"n": 1}), ("a", {})]
    assert [one.certain for one in rollback_plan(history.state)] == [True, False, True]


def test_a_retry_that_completes_makes_an_uncertain_attempt_certain() -> None:
    """Both are one deed: the step's compensation has to bear that the work was done twice, as its handler has."""
    history = given(start("a"), timed_out("a"), due("a"), around=AROUND)
    assert [one.certain for one in history.state.standing.values()] == [False]
    history.happen(completed("a", None, 2))
    assert [one.certain for one in history.state.standing.values()] == [True]


def test_a_restore_puts_back_what_it_goes_back_to_in_the_order_of_that_time() -> None:
    """b completed after a at the checkpoint; a's later completion is of a line that was left, where b was at work once more."""
    plan = start("a", "b", "z", plan_fields={"parallel": True}, config=NO_ROLLBACK)
    history = given(
        plan, checkpoint("early"), completed("a", {"n": 1}), completed("b"), checkpoint("done"), fatal("z"), around=AROUND
    )
    early, done = history.state.checkpoints
    history.happen(restore(early, id="r1"))
    history.happen(completed("a", {"n": 2}, run=2))
    assert planned(history) == [("a", {"n": 2}), ("b", {})]
    history.happen(restore(done, id="r2"))
    assert planned(history) == [("b", {}), ("b", {}), ("a", {"n": 1})]
    assert [(one.run, one.certain) for one in history.state.standing.values()][:2] == [(1, True), (1, True)]
    assert [one.output for one in history.state.steps] == [{"n": 1}, None, None]


def test_what_was_undone_is_undone_by_what_it_was_and_not_by_its_step() -> None:
    """The undoing of a second run's work leaves the first run's undone, and the checkpoint of neither brings it back."""
    history = given(start("a", "z"), completed("a"), checkpoint(), fatal("z"), undone("a"), retry(), around=AROUND)
    history.happen(completed("a", run=2))
    history.happen(checkpoint("second"))
    first, second = history.state.checkpoints
    history.when(restore(first, id="r1")).then_types("checkpoint_restored", "task_scheduled a")
    history.when(restore(second, id="r2")).then_types("checkpoint_restored", "task_scheduled z")
    assert history.state.steps[0].status == "completed"


# The step and its fallback ---------------------------------------------------------------------------------------------


def by_fallback() -> History:
    """a's own attempt timed out, its fallback completed, z failed, and the rollback undoes both."""
    plan = start(step("a", fallback="plan_b", max_retries=0), "z")
    return given(plan, timed_out("a"), completed("a", {"n": 1}, 2), fatal("z"), around=AROUND)


def test_undoing_what_may_have_been_done_leaves_what_the_fallback_did() -> None:
    """Of a cancelled rollback's two deeds one is undone: the retry keeps a step whose completion stands, and no other."""
    history = by_fallback()
    history.happen(fatal("a", 3))  # the fallback's work cannot be undone
    history.happen(undone("a", 4))  # the step's own can
    assert history.state.status == "failed"
    assert [(one.step, one.task) for one in rollback_plan(history.state)] == [("a", "undo_plan_b")]
    history.when(retry()).then_types("execution_retried", "task_scheduled z")
    assert history.state.steps[0].output == {"n": 1}


def test_undoing_what_the_fallback_did_makes_the_step_run_again() -> None:
    """Its completion was the fallback's; that its own attempt may still stand keeps nothing."""
    history = by_fallback()
    history.happen(undone("a", 3))
    history.happen(fatal("a", 4))
    assert [one.task for one in rollback_plan(history.state)] == ["undo_a"]
    history.when(retry()).then_types("execution_retried", "task_scheduled a")


def test_a_step_of_which_one_deed_could_not_be_undone_is_not_undone() -> None:
    """Its compensation has failed, with the error of that, whatever became of the other."""
    history = by_fallback()
    history.happen(fatal("a", 3))
    history.happen(undone("a", 4))
    one = history.state.steps[0]
    assert one.compensation == "failed"
    assert one.undo_error is not None
    assert one.undo_error.code == "FATAL"


# Under its own key -----------------------------------------------------------------------------------------------------


def test_an_undoing_has_one_key_over_all_its_attempts() -> None:
    """Of this rollback, of the next one by hand, and in a later run: what it undoes is the same."""
    history = given(start("a", "z"), completed("a"), fatal("z"), around=AROUND)
    keys = {key_of(dispatch_of(history.state, 0))}
    history.happen(failed("a", 2))
    history.happen(due("a"))
    keys.add(key_of(dispatch_of(history.state, 0)))
    history.happen(fatal("a", 3))
    history.happen(rollback("by hand"))
    keys.add(key_of(dispatch_of(history.state, 0)))
    history.happen(fatal("a", 4))
    for message in (retry(), fatal("z", run=2)):
        history.happen(message)
    assert (history.state.run, history.state.phase) == (2, "rolling_back")
    keys.add(key_of(dispatch_of(history.state, 0)))
    assert keys == {"e1/a/1/undo"}


def test_what_a_later_run_did_is_undone_under_another_key() -> None:
    """Else a system that removes duplicates would take it as undone already."""
    history = given(start("a", "z"), completed("a"), fatal("z"), undone("a"), retry(), around=AROUND)
    history.happen(completed("a", run=2))
    history.happen(fatal("z", run=2))
    assert key_of(dispatch_of(history.state, 0)) == "e1/a/2/undo"


def test_a_step_and_its_fallback_are_undone_under_different_keys() -> None:
    """They are two deeds."""
    assert [key_of(one) for one in undoings(by_fallback())] == ["e1/a/1/fallback/undo", "e1/a/1/undo"]


def test_an_undoing_is_handed_the_output_of_what_it_undoes() -> None:
    """None where nobody knows whether there was one."""
    first, second = undoings(by_fallback())
    assert (first.output, first.params, second.output, second.params) == ({"n": 1}, {"n": 1}, None, {})


# What stands -----------------------------------------------------------------------------------------------------------


def test_what_was_open_when_a_checkpoint_was_restored_is_of_unknown_outcome() -> None:
    """Its attempt may be at work; its run is the one that was left."""
    history = given(start("a"), checkpoint(), started("a"), restore("e1.4"), around=AROUND)
    (deed,) = history.state.standing.values()
    assert (deed.run, deed.certain) == (1, False)
    history.happen(cancel())
    history.happen(due())
    assert [(one.run, one.certain) for one in history.state.standing.values()] == [(1, False), (2, False)]  # left as well


def test_what_was_taken_along_from_another_execution_is_no_deed() -> None:
    """It was done there, and is undone there."""
    command = start("a", "z", kept={"a": 1})
    history = given(command, around=AROUND)
    assert history.state.standing == {}
    history.when(fatal("z")).then_types("task_started z", "task_failed z", "execution_failed")


def test_what_a_lost_holder_did_is_not_known() -> None:
    """An attempt that is stopped before it began, behind a holder that was lost, may have done its work."""
    told = (r.Stopped(losses=1), "a", "1-1")
    state = given(start("a"), cancel()).when(told).state
    assert [(deed.step, deed.certain) for deed in state.standing.values()] == [(0, False)]
    never = (r.Stopped(), "a", "1-1")
    assert not given(start("a"), cancel()).when(never).state.standing
