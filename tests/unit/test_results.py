"""What an execution looks like from outside, at every moment of its life."""

import msgspec
import pytest

from esexec.domain import commands as c
from esexec.domain.decider import Surroundings
from esexec.domain.errors import EsexecError, ExecutionCancelled, ExecutionError, TaskTimeout
from esexec.domain.evolve import fold
from esexec.domain.past import as_of
from esexec.domain.settings import TaskInfo
from esexec.results import (
    Err,
    ExecutionResult,
    ExecutionStatus,
    Ok,
    Pending,
    TaskStatus,
    exception_of,
    outcome_of,
    result_of,
    update_of,
)
from tests.given import (
    EXECUTION,
    History,
    Message,
    TimerOf,
    at,
    cancel,
    completed,
    due,
    failed,
    fatal,
    given,
    start,
    started,
    step,
    stopped,
    timed_out,
    undone,
    withdrawn,
)


def told(*messages: Message | TimerOf) -> ExecutionResult:
    return result_of(given(*messages).state)


def test_a_fresh_execution_runs_with_everything_pending() -> None:
    """Created and started are one commit: the first thing anyone sees is `running`."""
    result = told(start("a", "b", metadata={"m": 1}, input=5, idempotency_key="k", actor="ada"))
    assert (result.status, result.current_phase, result.ok, result.run) == (ExecutionStatus.RUNNING, "executing", False, 1)
    assert (result.total_steps, result.completed_steps, result.failed_steps) == (2, 0, 0)
    assert (result.metadata, result.input, result.idempotency_key, result.owner) == ({"m": 1}, 5, "k", "ada")
    assert (result.created_at, result.started_at, result.completed_at, result.duration_ms) == (at(1), at(1), None, None)
    assert [task.status for task in result.results] == [TaskStatus.PENDING, TaskStatus.PENDING]
    assert result.id == result.execution_id == "e1"
    assert len(result.plan_id) == 64
    assert result.name == "p"


def test_a_step_that_was_taken_over_is_of_the_worker_that_completed_it() -> None:
    """And began when it first began."""
    task = told(start("a"), started("a", began=1, worker="w7"), completed("a", began=4, ended=5, worker="w8")).step("a")
    assert (task.worker_id, task.started_at, task.completed_at) == ("w8", at(1), at(5))


def test_a_steps_result_has_all_its_fields() -> None:
    """Position, name, worker, times by the worker's clock, and the aliases of the documents."""
    ran = started("a", began=1, worker="w7"), completed("a", {"k": 1}, began=1, ended=3.5, worker="w7")
    task = told(start(step("a", task="x.y")), *ran).step("a")
    assert (task.task_id, task.step, task.step_index, task.name, task.tool) == ("a", "a", 0, "x.y", "x.y")
    assert (task.output, task.result, task.error, task.status) == ({"k": 1}, {"k": 1}, None, TaskStatus.COMPLETED)
    assert (task.started_at, task.completed_at, task.duration_ms, task.worker_id) == (at(1), at(3.5), 2500, "w7")
    assert (task.attempt, task.retries, task.retry_count, task.next_retry_at, task.was_rate_limited) == (1, 0, 0, None, False)


def test_a_running_step_is_seen() -> None:
    """A task that reported its start is `running`, and has a start but no end."""
    task = told(start("a"), started("a", began=2)).step("a")
    assert (task.status, task.started_at, task.completed_at, task.duration_ms) == (TaskStatus.RUNNING, at(2), None, None)


def test_waiting_for_a_retry_is_pending_with_its_time() -> None:
    """`next_retry_at` is told from the failure until the next attempt is scheduled; the error stays visible."""
    history = given(start("a"), failed("a"))
    task = result_of(history.state).step("a")
    assert (task.status, task.next_retry_at, task.retries) == (TaskStatus.PENDING, at(3), 0)
    assert task.error is not None
    history.happen(due("a"))
    task = result_of(history.state).step("a")
    assert (task.status, task.next_retry_at, task.retries, task.attempt) == (TaskStatus.PENDING, None, 1, 2)


def test_retries_count_from_the_first_start() -> None:
    """A retried step's duration reaches from its first attempt's start to its last one's end."""
    task = told(start("a"), failed("a"), due("a"), completed("a", 1, 2, began=5, ended=9)).step("a")
    assert (task.retries, task.started_at, task.completed_at, task.duration_ms) == (1, at(0), at(9), 9000)


def test_a_failed_execution_keeps_its_partial_results() -> None:
    """Outputs of completed steps, the first error with its stack, the reason of every skip."""
    result = told(
        start("a", "b", step("c", "b"), config={"continue_on_error": True}),
        completed("a", 1),
        failed("b", retryable=False, stack="S"),
    )
    assert (result.status, result.result, result.output) == (ExecutionStatus.FAILED, None, None)
    assert result.partial_results == {"a": 1}
    assert (result.completed_steps, result.failed_steps) == (1, 1)
    assert result.error is not None
    assert (result.error.code, result.step("b").stack) == ("BROKEN", "S")
    assert (result.step("c").status, result.step("c").skip_reason, result.step("c").duration_ms) == (
        TaskStatus.SKIPPED,
        "dependency_failed",
        None,
    )


def test_the_result_is_the_last_steps_output() -> None:
    """One last step: its output. Several: an object of theirs by id."""
    assert told(start("a", step("b", "a")), completed("a", 1), completed("b", 2)).result == 2
    assert told(start("a", "b"), completed("a", 1), completed("b", 2)).result == {"a": 1, "b": 2}
    assert told(start("a"), completed("a", None)).unwrap() is None


def test_a_cancelled_execution_has_no_error_and_says_what_stopped() -> None:
    """Its steps are cancelled or completed; waiting for its output raises `ExecutionCancelled`."""
    result = told(start("a", "b"), cancel(), stopped("a"))
    assert (result.status, result.error, result.completed_at) == (ExecutionStatus.CANCELLED, None, at(3))
    assert [task.status for task in result.results] == [TaskStatus.CANCELLED, TaskStatus.CANCELLED]
    with pytest.raises(ExecutionCancelled):
        result.unwrap()


def test_a_step_cancelled_while_it_waited_for_a_retry_keeps_its_last_end() -> None:
    """It ended when its last attempt did."""
    task = told(start("a"), failed("a"), cancel()).step("a")
    assert (task.status, task.completed_at, task.next_retry_at) == (TaskStatus.CANCELLED, at(1), None)


@pytest.mark.parametrize(
    ("messages", "kind"),
    [([fatal("a")], ExecutionError), ([timed_out("a")], TaskTimeout)],
)
def test_the_error_is_raised_with_its_type(messages: list[Message], kind: type[EsexecError]) -> None:
    """`unwrap` raises the exception that belongs to the error, with its code and its step."""
    result = told(start("a", config={"max_retries": 0}), *messages)
    with pytest.raises(kind) as raised:
        result.unwrap()
    assert raised.value.info is result.error


def test_poll_has_three_answers() -> None:
    """Pending with the status, the value, or the error."""
    assert outcome_of(given(start("a")).state) == Pending(ExecutionStatus.RUNNING)
    assert outcome_of(given(start("a"), completed("a", 3)).state) == Ok(3)
    found = outcome_of(given(start("a"), fatal("a")).state)
    assert isinstance(found, Err)
    assert found.error.code == "FATAL"


def test_a_step_that_does_not_exist_is_a_key_error() -> None:
    """Asking for a step of another plan is the caller's mistake."""
    with pytest.raises(KeyError):
        told(start("a")).step("b")


def test_an_execution_without_an_error_still_raises() -> None:
    """Whoever waits for a value that will not come gets an exception in any case."""
    assert isinstance(exception_of("e1", ExecutionStatus.FAILED, None), EsexecError)


def test_what_is_not_there_is_not_said() -> None:
    """An execution that nobody paused, restored or undid says nothing of all that: its JSON holds no such names."""
    document = msgspec.json.decode(msgspec.json.encode(told(start("a"), completed("a", 1))))
    assert document.keys() == {
        *("execution_id", "plan_id", "name", "status", "current_phase", "result", "results", "total_steps"),
        *("completed_steps", "created_at", "started_at", "completed_at", "duration_ms"),
    }
    assert document["results"][0].keys() == {
        *("task_id", "step_index", "name", "status", "output", "attempt", "worker_id"),
        *("started_at", "completed_at", "duration_ms"),
    }


def test_a_pause_is_a_status_with_a_reason() -> None:
    """While it is paused the status says so, and why; afterwards neither."""
    history = given(start("a", "b"), c.PauseExecution(id="k", reason="lunch"))
    result = result_of(history.state)
    assert (result.status, result.paused, result.pause_reason) == (ExecutionStatus.PAUSED, True, "lunch")
    assert outcome_of(history.state) == Pending(ExecutionStatus.PAUSED)
    history.happen(c.ResumeExecution(id="l"))
    result = result_of(history.state)
    assert (result.status, result.paused, result.pause_reason) == (ExecutionStatus.RUNNING, False, "")


def test_what_was_rolled_back_keeps_its_error() -> None:
    """`rolled_back` raises the error it was rolled back for; outputs that were undone are no partial results."""
    history = given(start(step("a", compensate="undo"), "b"), completed("a", 1), fatal("b"))
    result = result_of(history.state)
    assert (result.status, result.current_phase, result.step("a").compensation) == ("running", "rolling_back", "running")
    history.happen(completed("a", None, 2))
    result = result_of(history.state)
    assert (result.status, result.rollback_status, result.step("a").compensation) == ("rolled_back", "completed", "completed")
    assert (result.error is not None and result.error.code, result.partial_results) == ("FATAL", {})
    assert (result.step("a").attempt, result.step("a").retries) == (2, 0)
    with pytest.raises(ExecutionError) as raised:
        result.unwrap()
    assert raised.value.code == "FATAL"


def test_a_rollback_on_command_has_an_error_too() -> None:
    """Whoever waits for the output of an execution that completed and was undone is told so."""
    history = given(start(step("a", compensate="undo")), completed("a", 1), c.RollbackExecution(id="k"), completed("a", None, 2))
    assert result_of(history.state).error is None
    with pytest.raises(ExecutionError) as raised:
        result_of(history.state).unwrap()
    assert raised.value.code == "rolled_back"


def test_what_a_rollback_left_is_named() -> None:
    """`not_undone`: the steps whose work stands, or may stand, after a partial rollback, in the order of undoing; and why."""
    history = given(
        start(step("a", compensate="undo"), step("b", compensate="undo", max_retries=0), "c", "d"),
        completed("a"),
        timed_out("b"),
    )
    assert result_of(history.state).not_undone == []
    history.happen(fatal("b", 2))
    history.happen(completed("a", None, 2))
    result = result_of(history.state)
    assert (result.status, result.rollback_status, result.not_undone) == ("failed", "partial", ["b"])
    assert (result.step("b").compensation, result.step("b").undone_by) == ("failed", "undo")
    error = result.step("b").compensation_error
    assert error is not None
    assert error.code == "FATAL"
    history.happen(c.RetryExecution(id="k"))
    again = result_of(history.state)
    assert (again.not_undone, again.step("b").compensation_error, again.step("b").undone_by) == ([], None, None)


def test_a_cancelled_rollback_names_what_it_did_not_come_to() -> None:
    """Also the steps whose turn had not come, and those that nothing undoes, are left as they are."""
    history = given(
        start(step("a", compensate="undo"), "b", step("c", compensate="undo")), completed("a"), completed("b"), completed("c")
    )
    history.happen(c.RollbackExecution(id="k"))
    history.happen(cancel())
    history.happen(withdrawn("c", 2))
    result = result_of(history.state)
    assert (result.status, result.rollback_status, result.not_undone) == ("cancelled", "partial", ["c", "b", "a"])
    assert [task.compensation for task in result.results] == [None, None, "failed"]


def test_an_undoing_that_succeeds_in_the_end_has_no_error() -> None:
    """`compensation_error` is told while it is tried again, and not any more once the step is undone."""
    history = given(start(step("a", compensate="undo"), "b"), completed("a"), fatal("b"), failed("a", 2))
    task = result_of(history.state).step("a")
    assert (task.compensation, task.compensation_error and task.compensation_error.code) == ("running", "BROKEN")
    history.happen(due("a"))
    history.happen(completed("a", None, 3))
    task = result_of(history.state).step("a")
    assert (task.compensation, task.compensation_error, task.undone_by) == ("completed", None, "undo")


def test_of_two_things_that_a_step_did_the_one_that_stands_is_told() -> None:
    """The fallback's work could not be undone; the attempt before it, of unknown outcome, was: the step is not undone."""
    around = Surroundings(tasks={"f": TaskInfo(compensate="undo_f"), "a": TaskInfo(compensate="undo_a")})
    history = given(
        start(step("a", fallback="f", max_retries=0), "b"), timed_out("a"), completed("a", 1, 2), fatal("b"), around=around
    )
    history.happen(fatal("a", 3))
    history.happen(completed("a", None, 4))
    result = result_of(history.state)
    error = result.step("a").compensation_error
    assert (result.step("a").compensation, error and error.code, result.not_undone) == ("failed", "FATAL", ["a"])


def test_the_first_attempt_of_a_fallback_is_no_retry() -> None:
    """`retries` counts what was tried again: of the task, and of its fallback."""
    history = given(start(step("a", fallback="f", max_retries=0)), fatal("a"))
    assert result_of(history.state).step("a").retries == 0
    history = given(
        start(step("a", fallback="f", max_retries=1)), failed("a"), due("a"), failed("a", 2), failed("a", 3), due("a")
    )
    assert (result_of(history.state).step("a").fallback, result_of(history.state).step("a").retries) == ("f", 2)


def test_durations_count_from_the_first_start() -> None:
    """`duration_ms` spans all runs and what lay between; `going_since` is when the last of them, or a rollback, was asked for."""
    history = given(start(step("a", compensate="undo"), "b", config={"enable_rollback": False}), completed("a"), fatal("b"))
    result = result_of(history.state)
    assert (result.duration_ms, result.going_since) == (2_000, None)
    history.happen(c.RetryExecution(id="k"), when=1_000)
    history.happen(completed("b", None, run=2))
    result = result_of(history.state)
    assert (result.started_at, result.going_since, result.completed_at) == (at(1), at(1_000), at(1_001))
    assert result.duration_ms == 1_000_000
    history.happen(c.RollbackExecution(id="r"), when=5_000)
    assert result_of(history.state).going_since == at(5_000)


def test_a_retried_execution_is_not_over() -> None:
    """A retry begins another run: it counts from there, the outputs that are kept are there, and the failure is not."""
    history = given(start("a", "b", config={"enable_rollback": False}), completed("a", 1), fatal("b"))
    assert result_of(history.state).status == "failed"
    history.happen(c.RetryExecution(id="k"))
    result = result_of(history.state)
    assert (result.status, result.run, result.error, result.completed_at) == ("running", 2, None, None)
    assert (result.partial_results, result.step("b").attempt, result.failed_steps) == ({"a": 1}, 1, 0)
    history.happen((completed("b", 2)[0], "b", "2-1"))
    assert result_of(history.state).result == {"a": 1, "b": 2}


def test_times_and_origins_are_told() -> None:
    """When it may start and must have ended, and where it comes from."""
    result = told(start("a", start_at=at(60), deadline=at(90), parent="e0/s", forked_from="e9"))
    assert (result.status, result.current_phase) == (ExecutionStatus.PENDING, "scheduled")
    assert (result.start_at, result.deadline, result.parent, result.forked_from) == (at(60), at(90), "e0/s", "e9")


TEN_SECONDS = {"execution_timeout_ms": 10_000, "enable_rollback": False}


@pytest.mark.parametrize(
    "end",
    [
        [completed("a"), completed("b")],
        [fatal("a")],
        [cancel(), withdrawn("a")],
        [started("a"), due(kind="deadline"), stopped("a")],
    ],
    ids=["completed", "failed", "cancelled", "too late"],
)
def test_the_deadline_is_told_until_another_run_begins(end: list[Message | TimerOf]) -> None:
    """Also one that comes from `execution_timeout`, and after the end; it is that of the run in which it is or ended."""
    history = given(start("a", "b", config=TEN_SECONDS))
    assert result_of(history.state).deadline == at(11)
    for message in end:
        history.happen(message)
    result = result_of(history.state)
    assert (result.status.is_final, result.deadline) == (True, at(11))


def test_a_deadline_that_counts_no_more_is_not_told() -> None:
    """A run that begins after the deadline of the start has none; neither has a rollback."""
    around = Surroundings(tasks={"a": TaskInfo(compensate="undo_a")})
    config = {"enable_rollback": False}
    history = given(start("a", "b", deadline=at(50), config=config), completed("a"), fatal("b"), around=around)
    assert result_of(history.state).deadline == at(50)
    history.happen(c.RollbackExecution(id="back"))
    assert (result_of(history.state).current_phase, result_of(history.state).deadline) == ("rolling_back", None)
    history.happen(undone("a"))
    history.happen(c.RetryExecution(id="again"), when=60)
    assert (result_of(history.state).run, result_of(history.state).deadline) == (2, None)


def test_checkpoints_are_listed_by_id() -> None:
    """The ids of an execution's checkpoints, oldest first."""
    result = told(start("a"), c.CreateCheckpoint(id="k1"), c.CreateCheckpoint(id="k2"))
    assert len(result.checkpoints) == 2
    assert all(one.startswith("e1.") for one in result.checkpoints)
    assert result.checkpoints == sorted(result.checkpoints, key=lambda one: int(one.split(".")[1]))


@pytest.mark.parametrize("status", list(ExecutionStatus))
def test_four_statuses_are_final(status: ExecutionStatus) -> None:
    """completed, failed, cancelled, rolled_back."""
    assert status.is_final == (status in ("completed", "failed", "cancelled", "rolled_back"))


def test_progress_counts_every_ended_step() -> None:
    """Skipped and failed steps have ended too; the current task is the oldest that runs, else the oldest in flight."""
    history: History = given(
        start("a", "b", "c", step("d", "a"), plan_fields={"parallel": True}, config={"continue_on_error": True})
    )
    history.happen(started("b"))
    assert update_of(history.state, []).current_task == "b"
    history.happen(fatal("a"))
    update = update_of(history.state, history.events[-2:])
    assert (update.progress.completed, update.progress.total, update.progress.percentage) == (2, 4, 50.0)
    assert (update.timestamp, update.status, update.current_task) == (at(3), ExecutionStatus.RUNNING, "b")
    assert len(update.events) == 2


def test_a_workers_clock_that_goes_backwards_gives_no_negative_duration() -> None:
    """Durations are never below zero."""
    assert told(start("a"), completed("a", 1, began=10, ended=5)).step("a").duration_ms == 0


def test_the_phase_right_after_the_first_event() -> None:
    """Looking back one sees an execution that nothing has happened to yet: it does not wait for anything."""
    history = given(start("a"))
    then = result_of(fold(EXECUTION, as_of(history.commits, version=1)))
    assert (then.status, then.current_phase) == (ExecutionStatus.PENDING, "created")
