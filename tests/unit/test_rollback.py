"""What was done is undone: in reverse order of completion, each once, and what cannot be is told."""

from typing import Any

import pytest

from esexec.domain import events as e
from esexec.domain.decider import Surroundings
from esexec.domain.effects import dispatch_of
from esexec.domain.rollback import order_of_undoing, rollback_plan
from esexec.domain.settings import NamespaceConfig, TaskInfo
from esexec.domain.state import Deed
from tests.given import (
    History,
    at,
    before,
    cancel,
    checkpoint,
    completed,
    due,
    failed,
    failure,
    fatal,
    given,
    in_words,
    lost,
    on_attempts,
    repeated,
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


def undoable(steps: str = "abc", **more: TaskInfo) -> Surroundings:
    """A namespace whose workers announced what undoes these tasks."""
    return Surroundings(tasks={name: TaskInfo(compensate=f"undo_{name}") for name in steps} | more)


def known(*tasks: str) -> Surroundings:
    """A namespace whose workers announced these tasks, without saying what undoes them."""
    return Surroundings(tasks={task: TaskInfo() for task in tasks})


def order_of(history: History) -> list[str]:
    """The steps of a history that were undone, in that order."""
    return [event.step for event in history.events if isinstance(event, e.CompensationCompleted)]


def carried_out(history: History) -> History:
    """A rollback, every undoing of which succeeds."""
    while not history.state.ended:
        (index,) = history.state.in_flight
        spec, one = history.state.graph.steps[index], history.state.steps[index]
        history.happen(completed(spec.id, None, one.attempt, run=history.state.run))
    return history


# When ------------------------------------------------------------------------------------------------------------------


def test_a_failed_execution_undoes_what_completed() -> None:
    """The failure of the last step starts the undoing of the one before; when that is done it is `rolled_back`."""
    history = given(start("a", "b"), completed("a", {"id": 1}), around=undoable())
    outcome = history.when(fatal("b"))
    outcome.then_types("task_started b", "task_failed b", "rollback_started", "compensation_scheduled a")
    assert outcome.events[-1] == e.CompensationScheduled(step="a", attempt=2, task="undo_a")
    assert (outcome.state.status, outcome.state.phase) == ("running", "rolling_back")
    history.when(started("a", 2)).then_types("compensation_started a")
    outcome = history.when(undone("a"))
    error = failure("FATAL", retryable=False)
    outcome.then(e.CompensationCompleted(step="a", attempt=2, ended_at=at(1)), e.ExecutionRolledBack(undone=1, error=error))
    assert (outcome.state.status, outcome.state.rollback_status) == ("rolled_back", "completed")
    assert (outcome.state.steps[0].status, outcome.state.steps[0].compensation) == ("completed", "completed")


def test_nothing_is_undone_before_the_last_attempt_has_ended() -> None:
    """What still runs may complete, and is then undone with the rest, first of all."""
    history = given(start("a", "b", "c", plan_fields=PARALLEL), completed("a"), fatal("b"), around=undoable())
    assert history.state.phase == "failing"
    history.when(completed("c")).then_types("task_started c", "task_completed c", "rollback_started", "compensation_scheduled c")
    assert order_of(carried_out(history)) == ["c", "a"]


def test_with_nothing_to_compensate_the_end_is_failed_without_a_rollback() -> None:
    """No step completed, or nothing undoes those that did: no event of a rollback."""
    given(start("a"), around=undoable()).when(fatal("a")).then_types("task_started", "task_failed", "execution_failed")
    history = given(start("a", "b"), completed("a"))
    state = history.when(fatal("b")).then_types("task_started", "task_failed", "execution_failed").state
    assert (state.status, state.rollback_status) == ("failed", None)


def test_a_rollback_can_be_switched_off() -> None:
    """`enable_rollback: false`: the end is `failed`, and the rollback can be asked for later."""
    history = given(start("a", "b", config={"enable_rollback": False}), completed("a"), around=undoable())
    history.when(fatal("b")).then_types("task_started b", "task_failed b", "execution_failed")
    history.when(rollback(reason="now")).then(
        e.RollbackStarted(by="command", reason="now"), e.CompensationScheduled(step="a", attempt=2, task="undo_a")
    )
    history.when(undone("a")).then_types("compensation_started a", "compensation_completed a", "execution_rolled_back")


@pytest.mark.parametrize(
    ("config", "rolls_back"),
    [
        ({"continue_on_error": True}, False),
        ({"continue_on_error": True, "enable_rollback": True}, True),
        ({"continue_on_error": True, "enable_rollback": False}, False),
    ],
)
def test_continue_on_error_and_rollback(config: dict[str, bool], rolls_back: bool) -> None:
    """One who goes on in spite of errors wants no rollback unless it was said (C24); then it comes after the last step's end."""
    history = given(start("a", "b", "c", config=config), completed("a"), fatal("b"), around=undoable())
    history.when(completed("c")).then_types(
        "task_started c",
        "task_completed c",
        *(["rollback_started", "compensation_scheduled c"] if rolls_back else ["execution_failed"]),
    )


def test_a_completed_and_a_cancelled_execution_are_undone_when_somebody_wishes() -> None:
    """A rollback by command needs no failure; the end is `rolled_back` without an error."""
    for history in (
        given(start("a"), completed("a"), around=undoable()),
        given(start("a", "b"), completed("a"), cancel(), withdrawn("b"), around=undoable()),
    ):
        history.when(rollback()).then_types("rollback_started", "compensation_scheduled a")
        end = (
            history.when(undone("a"))
            .then_types("compensation_started", "compensation_completed", "execution_rolled_back")
            .events[-1]
        )
        assert end == e.ExecutionRolledBack(undone=1)


# Which, in which order -------------------------------------------------------------------------------------------------


def test_the_order_is_that_of_completion_reversed() -> None:
    """Neither the plan's order nor that of starting counts."""
    history = given(start("a", "b", "c", "z", plan_fields=PARALLEL), around=undoable())
    for name in "cab":
        history.happen(completed(name))
    assert [one.step for one in rollback_plan(history.state)] == ["b", "a", "c"]
    history.happen(fatal("z"))
    assert order_of(carried_out(history)) == ["b", "a", "c"]


def test_one_step_is_undone_at_a_time() -> None:
    """The next undoing begins when the one before has ended, parallel steps or not."""
    history = given(start("a", "b", "z", plan_fields=PARALLEL), completed("a"), completed("b"), around=undoable())
    history.happen(fatal("z"))
    assert [one.open for one in history.state.steps] == [False, True, False]
    history.when(undone("b")).then_types("compensation_started b", "compensation_completed b", "compensation_scheduled a")


def test_a_step_that_completed_in_two_runs_counts_where_it_completed_last() -> None:
    """A restore makes it run again: it is undone once, in the order of its last completion, with its last output."""
    plan = start("a", "b", "z", config={"enable_rollback": False})
    history = given(plan, checkpoint(), completed("a", {"n": 1}), completed("b"), fatal("z"), around=undoable())
    history.happen(restore("e1.4"))
    assert [one.step for one in rollback_plan(history.state)] == ["b", "a"]
    history.happen(completed("a", {"n": 2}, run=2))
    assert [(one.step, one.params) for one in rollback_plan(history.state)] == [("a", {"n": 2}), ("b", {})]
    history.happen(completed("b", run=2))
    history.happen(fatal("z", run=2))
    history.happen(rollback())
    assert order_of(carried_out(history)) == ["b", "a"]


def test_a_failed_attempt_left_nothing_to_undo() -> None:
    """An error says that the work was not done."""
    history = given(start("a", "b", config={"max_retries": 0}), completed("a"), failed("b"), around=undoable())
    assert [one.step for one in rollback_plan(history.state)] == ["a"]


@pytest.mark.parametrize("outcome", [timed_out("b"), lost("b", 10)])
def test_an_attempt_of_unknown_outcome_is_undone_with_the_params_alone(outcome: Any) -> None:
    """It may have done its work before it timed out or was lost; there is no output to tell."""
    plan = start("a", step("b", params={"x": "${steps.a.output}"}), config={"max_retries": 0})
    history = given(plan, completed("a", 7), started("b"), outcome, around=undoable())
    assert rollback_plan(history.state)[0][:4] == ("b", "undo_b", None, {"x": 7})
    assert [one.certain for one in rollback_plan(history.state)] == [False, True]
    assert order_of(carried_out(history)) == ["b", "a"]


def test_an_attempt_that_was_stopped_in_the_middle_is_of_unknown_outcome() -> None:
    """A cancelled handler may have done half its work; one that never began did none."""
    history = given(start("a", "b", "c", plan_fields=PARALLEL), started("a"), cancel(), around=undoable())
    for report in (stopped("a"), withdrawn("b"), withdrawn("c")):
        history.happen(report)
    assert history.state.ended
    assert [(one.step, one.certain) for one in rollback_plan(history.state)] == [("a", False)]


def test_an_attempt_that_was_left_to_itself_is_of_unknown_outcome() -> None:
    """Whatever did not answer within the grace may have been at work."""
    history = given(start("a"), cancel(), due(), around=undoable())
    assert [(one.step, one.certain) for one in rollback_plan(history.state)] == [("a", False)]


def test_an_attempt_that_no_worker_began_did_nothing() -> None:
    """After a queue timeout there is nothing to undo."""
    plan = start(step("a", queue_timeout_ms=1_000), config={"max_retries": 0})
    history = given(plan, due("a", "queue"), around=undoable())
    history.when(withdrawn("a")).then_types("task_timed_out a", "execution_failed")


# What undoes -----------------------------------------------------------------------------------------------------------


def undo_of(task: str, around: Surroundings, **fields: Any) -> tuple[str | None, str | None]:
    history = given(start(step("a", task=task, **fields)), completed("a"), around=around)
    ((_, undo, reason, *_),) = rollback_plan(history.state)
    return undo, reason


@pytest.mark.parametrize(
    ("task", "around", "fields", "undo"),
    [
        ("t", Surroundings(), {"compensate": "by_step"}, "by_step"),
        ("t", undoable(t=TaskInfo(compensate="by_task")), {}, "by_task"),
        ("t", undoable(t=TaskInfo(compensate="by_task")), {"compensate": "by_step"}, "by_step"),
        ("create_x", known("create_x", "delete_x"), {}, "delete_x"),
        ("create_x", known("create_x"), {}, None),
        ("create_x", known("delete_x"), {}, "delete_x"),
        ("create_x", Surroundings(tasks={"create_x": TaskInfo(compensate="own"), "delete_x": TaskInfo()}), {}, "own"),
        ("created_x", known("created_x", "deleted_x"), {}, None),
        ("t", known("t"), {}, None),
    ],
)
def test_what_undoes_a_step(task: str, around: Surroundings, fields: dict[str, str], undo: str | None) -> None:
    """The step's own word, then the task's, then the inverse by name among the tasks that workers have; else nothing."""
    assert undo_of(task, around, **fields) == (undo, None if undo else "no_compensation")


def test_an_inverse_that_is_announced_later_does_not_change_what_was_started() -> None:
    """Which task undoes which stands in commit 1, so that a history explains itself."""
    history = given(start(step("a", task="create_x"), "b"), completed("a"), around=known("create_x"))
    history.around = known("create_x", "delete_x")
    history.when(fatal("b")).then_types("task_started b", "task_failed b", "execution_failed")


def test_what_was_announced_is_recorded_in_the_order_of_the_plan() -> None:
    """Two executors that decide the same write the same bytes: first what is called, then what undoes it."""
    said = TaskInfo(timeout_ms=7)
    called, undoing = [f"create_{name}" for name in "gcafbed"], [f"delete_{name}" for name in "gcafbed"]
    around = Surroundings(tasks=dict.fromkeys([*sorted(called), *sorted(undoing)], said))
    created = given(start(*(step(name[-1], task=name) for name in called)), around=around).state.created
    assert [*created.tasks] == called + undoing


def test_an_inverse_that_was_found_stands_beside_what_was_said() -> None:
    """`inverse` in commit 1 tells that nobody named it; a worker that announces one is not asked for another."""
    around = Surroundings(tasks={"create_x": TaskInfo(queue="q"), "delete_x": TaskInfo()})
    created = given(start(step("a", task="create_x")), around=around).state.created
    assert created.tasks["create_x"] == TaskInfo(queue="q", inverse="delete_x")


@pytest.mark.parametrize("setting", [{}, {"timeout_ms": 5_000}, {"queue": "prices"}])
def test_an_update_is_undone_by_itself_whatever_is_said_of_it(setting: dict[str, Any]) -> None:
    """`update_price` puts its image back, though it is its own inverse and has settings; with these as its undoing, too."""
    around = Surroundings(tasks={"update_price": TaskInfo(**setting)})
    history = given(start(step("a", task="update_price", params={"id": 1, "price": 20}), "z"), around=around)
    for message in (before("a", {"id": 1, "price": 10}), completed("a"), fatal("z")):
        history.happen(message)
    dispatch = dispatch_of(history.state, 0)
    assert (dispatch.task, dispatch.params) == ("update_price", {"id": 1, "price": 10})
    assert {"timeout_ms": dispatch.timeout_ms, "queue": dispatch.queue} | setting == {
        "timeout_ms": dispatch.timeout_ms,
        "queue": dispatch.queue,
    }


@pytest.mark.parametrize("order", [("delete_room", "create_room"), ("create_room", "delete_room")])
def test_two_tasks_of_one_plan_undo_each_other_whatever_is_said_of_them(order: tuple[str, str]) -> None:
    """Each has its inverse, whichever comes first in the plan, and its settings as work and as undoing."""
    settings = {"create_room": TaskInfo(timeout_ms=1_000), "delete_room": TaskInfo(timeout_ms=2_000)}
    around = Surroundings(tasks={**settings, "z": TaskInfo()})
    steps = [step("a", task=order[0], params={"n": 1}), step("b", task=order[1], params={"n": 2}), "z"]
    history = given(start(*steps), around=around)
    for name in "ab":
        history.happen(before(name, {"was": name}))
        history.happen(completed(name))
    history.happen(fatal("z"))
    dispatched = []
    while not history.state.ended:
        (index,) = history.state.in_flight
        dispatched.append(dispatch_of(history.state, index))
        history.happen(undone(dispatched[-1].step))
    assert [(one.step, one.task) for one in dispatched] == [("b", order[0]), ("a", order[1])]
    assert [one.timeout_ms for one in dispatched] == [settings[task].timeout_ms for task in order]
    images = [
        {"n": n, "was": name} if task == "delete_room" else {"n": n} for n, name, task in ((2, "b", order[1]), (1, "a", order[0]))
    ]
    assert [one.params for one in dispatched] == images


def test_it_is_called_with_the_params_and_the_output_over_them() -> None:
    """`{**params, **output}`, references resolved as they were; an output that is no object adds nothing."""
    plan = start("a", step("b", params={"n": "${steps.a.output.n}", "id": 0, "of": "${input.who}"}), "z", input={"who": "ada"})
    for output, params in (({"id": 9}, {"n": 7, "id": 9, "of": "ada"}), ("text", {"n": 7, "id": 0, "of": "ada"})):
        history = given(plan, completed("a", {"n": 7}), completed("b", output), fatal("z"), around=undoable())
        dispatch = dispatch_of(history.state, 1)
        assert (dispatch.task, dispatch.purpose, dispatch.attempt) == ("undo_b", "compensation", 2)
        assert (dispatch.params, dispatch.output) == (params, output)


def test_references_are_resolved_also_when_what_they_point_to_was_undone() -> None:
    """The output of a step is still known after its undoing: a later wish to undo the rest needs it."""
    plan = start("a", step("b", "a", params={"n": "${steps.a.output}"}), plan_fields=PARALLEL)
    history = given(plan, completed("a", 7), completed("b", {}), around=undoable())
    history.happen(rollback())
    history.happen(fatal("b", 2))
    history.happen(undone("a"))
    assert history.state.rollback_status == "partial"
    assert rollback_plan(history.state)[0].params == {"n": 7}


# What nothing undoes ---------------------------------------------------------------------------------------------------


def test_by_default_what_nothing_undoes_is_only_listed() -> None:
    """`on_missing_compensation: skip`: `rolled_back` needs one undo, and no failed one."""
    history = given(start("a", "x", "z"), completed("a"), completed("x"), around=undoable())
    history.when(fatal("z")).then_types(
        "task_started z", "task_failed z", "rollback_started", "compensation_skipped x", "compensation_scheduled a"
    )
    end = (
        history.when(undone("a")).then_types("compensation_started", "compensation_completed", "execution_rolled_back").events[-1]
    )
    assert isinstance(end, e.ExecutionRolledBack)
    assert (end.undone, end.skipped) == (1, ("x",))


def test_what_nothing_undoes_can_make_the_rollback_partial() -> None:
    """`on_missing_compensation: fail`: everything else is undone all the same."""
    plan = start("a", "x", "z", config={"on_missing_compensation": "fail"})
    history = given(plan, completed("a"), completed("x"), fatal("z"), around=undoable())
    end = history.when(undone("a")).then_types("compensation_started", "compensation_completed", "execution_failed").events[-1]
    assert isinstance(end, e.ExecutionFailed)
    assert (end.rollback_status, end.not_undone) == ("partial", ("x",))


def test_a_namespace_can_say_how_missing_compensations_are_taken() -> None:
    """As every setting, it has its levels."""
    around = undoable()._replace(namespace=NamespaceConfig(on_missing_compensation="fail"))
    history = given(start("x", "a", "z"), completed("x"), completed("a"), fatal("z"), around=around)
    outcome = history.when(undone("a"))
    outcome.then_types("compensation_started a", "compensation_completed a", "compensation_skipped x", "execution_failed")


# What depends on what --------------------------------------------------------------------------------------------------

VM_AND_DISK = start("vm", step("disk", "vm"), "z", config={"enable_rollback": False})
IN_THE_CLOUD = Surroundings(tasks={name: TaskInfo(compensate=f"delete_{name}") for name in ("vm", "disk")})


def test_after_a_restore_what_depends_on_a_step_is_undone_before_it() -> None:
    """The machine was made once more, later than its disk: the disk goes first all the same."""
    history = given(VM_AND_DISK, checkpoint(), completed("vm"), completed("disk"), fatal("z"), around=IN_THE_CLOUD)
    history.happen(restore("e1.4"))
    history.happen(completed("vm", run=2))
    assert [one.step for one in rollback_plan(history.state) if one.task] == ["disk", "vm"]
    history.happen(fatal("disk", run=2))
    history.happen(rollback())
    assert order_of(carried_out(history)) == ["disk", "vm"]


def test_after_a_retry_what_depends_on_a_step_is_undone_before_it() -> None:
    """The first rollback could delete the machine only; the retry makes another, and fails before the disk's turn."""
    plan = start("vm", step("disk", "vm"), step("last", "disk"))
    history = given(plan, completed("vm"), completed("disk"), fatal("last"), around=IN_THE_CLOUD)
    for message in (fatal("disk", 2), undone("vm"), retry(), completed("vm", run=2)):
        history.happen(message)
    assert [one.step for one in rollback_plan(history.state) if one.task] == ["disk", "vm"]


def test_what_does_not_depend_on_each_other_is_undone_last_first_after_a_restore() -> None:
    """Only what depends on a step overtakes what was done later."""
    plan = start("a", "b", "c", "z", config={"enable_rollback": False})
    history = given(plan, checkpoint(), completed("a"), completed("b"), completed("c"), fatal("z"), around=undoable())
    history.happen(restore("e1.4"))
    history.happen(completed("a", run=2))
    history.happen(completed("b", run=2))
    assert [one.step for one in rollback_plan(history.state) if one.task] == ["b", "a", "c"]


def test_a_long_chain_is_undone_in_its_order() -> None:
    """As long as a plan may be, also after a restore."""
    chain = [step(f"s{n}", *([f"s{n - 1}"] if n else [])) for n in range(1_500)]
    history = given(start(*chain, config={"enable_rollback": False}), checkpoint(), restore("e1.4"))
    state = history.state
    for index in range(1_500):
        deed = Deed(index, None, 1, 1_000_000 - index, True, None, ())
        state.standing[deed.key] = deed
    assert [deed.step for deed in order_of_undoing(state)] == [*reversed(range(1_500))]


# Never twice -----------------------------------------------------------------------------------------------------------


def test_nothing_is_undone_twice() -> None:
    """A second rollback undoes only what the first left; with nothing left it is refused."""
    history = given(start("a", "b", "c"), completed("a"), completed("b"), fatal("c"), around=undoable())
    history.happen(fatal("b", 2))
    history.happen(undone("a"))
    history.when(rollback()).then(e.RollbackStarted(by="command"), e.CompensationScheduled(step="b", attempt=3, task="undo_b"))
    history.when(undone("b", 3)).then_types("compensation_started b", "compensation_completed b", "execution_rolled_back")
    error = history.when(rollback("third")).then_nothing("refused").verdict.error
    assert error is not None
    assert error.code == "nothing_to_compensate"
    assert order_of(history) == ["a", "b"]


def test_after_a_retry_only_what_ran_since_is_undone() -> None:
    """Everything was undone once; the second run's failure undoes the second run's work."""
    history = given(start("a", "b"), completed("a"), fatal("b"), undone("a"), retry(), around=undoable())
    history.when(fatal("a", run=2)).then_types("task_started a", "task_failed a", "task_skipped b", "execution_failed")
    history.happen(retry(id="again"))
    history.happen(completed("a", {"n": 3}, run=3))
    history.happen(fatal("b", run=3))
    assert dispatch_of(history.state, 0).params == {"n": 3}
    history.when(undone("a", run=3)).then_types("compensation_started", "compensation_completed", "execution_rolled_back")


def test_after_a_restore_what_was_undone_is_not_taken_as_done() -> None:
    """A checkpoint from before the rollback does not make undone work done: the steps run again."""
    history = given(start("a", "b"), completed("a"), checkpoint(), fatal("b"), undone("a"), around=undoable())
    history.when(restore("e1.7")).then_types("checkpoint_restored", "task_scheduled a")


def test_a_step_that_was_kept_by_a_retry_is_undone_with_what_came_later() -> None:
    """Its completion in the earlier run still stands."""
    history = given(start("a", "b", "c", config={"enable_rollback": False}), completed("a"), fatal("b"), around=undoable())
    for message in (retry(), completed("b", run=2), fatal("c", run=2), rollback()):
        history.happen(message)
    assert order_of(carried_out(history)) == ["b", "a"]


def test_a_late_report_of_an_undoing_is_stale() -> None:
    """An undoing has one outcome, as any attempt."""
    history = given(start("a", "b"), completed("a"), fatal("b"), undone("a"), around=undoable())
    for late in (undone("a"), failed("a", 2), lost("a", 10, 2)):
        history.when(late).then_nothing("stale")


# Cancelled -------------------------------------------------------------------------------------------------------------


def test_a_cancel_gives_a_rollback_up_where_it_is() -> None:
    """The undoing under way is told to stop; the end says what still stands, and a later rollback goes on with it."""
    history = given(start("a", "b", "c"), completed("a"), completed("b"), fatal("c"), started("b", 2), around=undoable())
    outcome = history.when(cancel())
    assert "stop b/1-2" in in_words(outcome.effects)
    end = history.when(stopped("b", 2)).then_types("compensation_failed b", "execution_cancelled").events[-1]
    assert isinstance(end, e.ExecutionCancelled)
    assert (end.rollback_status, end.not_undone) == ("partial", ("b", "a"))
    history.happen(rollback())
    assert order_of(carried_out(history)) == ["b", "a"]


def test_an_undoing_that_completes_during_the_cancel_counts() -> None:
    """What was done was done; only the next one is not begun."""
    history = given(start("a", "b", "c"), completed("a"), completed("b"), fatal("c"), cancel(), around=undoable())
    end = history.when(undone("b")).then_types("compensation_started", "compensation_completed", "execution_cancelled").events[-1]
    assert isinstance(end, e.ExecutionCancelled)
    assert end.not_undone == ("a",)


def test_a_cancel_while_the_next_try_of_an_undoing_is_waited_for_ends_at_once() -> None:
    """Nothing runs, so there is nobody to wait for."""
    history = given(start("a", "b"), completed("a"), fatal("b"), failed("a", 2), around=undoable())
    timer = timer_of(history.state, due("a"))
    outcome = history.when(cancel()).then_types("execution_cancel_requested", "execution_cancelled")
    assert f"clear {timer}" in in_words(outcome.effects)
    assert (outcome.state.steps[0].compensation, outcome.state.timers) == ("failed", {})
    assert order_of(carried_out(history.when(rollback()).history)) == ["a"]


def test_the_grace_ends_an_undoing_that_does_not_answer() -> None:
    """A cancelled rollback waits for its undoing as long as for any other attempt."""
    history = given(start("a", "b"), completed("a"), fatal("b"), started("a", 2), cancel(), around=undoable())
    outcome = history.when(due())
    assert outcome.state.status == "cancelled"
    assert [one.step for one in rollback_plan(history.state)] == ["a"]
    assert on_attempts(outcome.effects) == ["give up a/1-2: the execution went on without it"]
    assert on_attempts(repeated(history, outcome.state.n)) == ["give up a/1-2: the execution went on without it"]


def test_a_cancel_during_the_last_undoing_may_leave_nothing() -> None:
    """If that succeeds all the same everything is undone, and nothing is left for a later rollback."""
    history = given(start("a", "b", "c"), completed("a"), completed("b"), fatal("c"), undone("b"), around=undoable())
    history.happen(cancel())
    outcome = history.when(undone("a")).then_types("compensation_started a", "compensation_completed a", "execution_cancelled")
    assert outcome.events[-1] == e.ExecutionCancelled(rollback_status="completed")
    assert outcome.state.rollback_status == "completed"
    history.when(rollback()).then_nothing("refused")


# The dry run -----------------------------------------------------------------------------------------------------------


def test_the_dry_run_is_what_the_rollback_does() -> None:
    """Task by task, in that order, with these params; it changes nothing."""
    plan = start(step("a", params={"k": 1}), "x", step("b", params={"k": 2}), "z", config={"enable_rollback": False})
    history = given(plan, completed("a", {"id": 3}), completed("x"), completed("b"), fatal("z"), around=undoable())
    planned = rollback_plan(history.state)
    assert planned == rollback_plan(history.state)
    history.happen(rollback())
    done = []
    while not history.state.ended:
        (index,) = history.state.in_flight
        dispatch = dispatch_of(history.state, index)
        done.append((dispatch.step, dispatch.task, dispatch.params))
        history.happen(undone(dispatch.step, dispatch.attempt))
    assert done == [(one.step, one.task, one.params) for one in planned if one.task is not None]
    assert [(one.step, one.reason) for one in planned if one.task is None] == [("x", "no_compensation")]
