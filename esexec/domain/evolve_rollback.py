"""What the events of a rollback make of the state: one step after the other is undone."""

from esexec.domain import events as e
from esexec.domain import measures
from esexec.domain.evolve_admission import ask
from esexec.domain.evolve_step import close_attempt, leave, open_attempt, set_vars, wait_in_queue
from esexec.domain.rollback import order_of_undoing
from esexec.domain.state import ExecutionState, Rollback, StepState, table
from esexec.domain.timers import close_timer, close_timers


def rollback_started(state: ExecutionState, event: e.RollbackStarted) -> None:
    state.status, state.phase, state.ended_at = "paused" if state.paused else "running", "rolling_back", None
    state.cancel, state.expired, state.abandoned = 0, 0, []
    state.rollback_status = None
    for kind in ("deadline", "checkpoint", "grace"):
        close_timers(state, kind)
    state.deadline = None
    state.rollback = Rollback(order_of_undoing(state))
    if event.by == "command":
        state.going_since, state.turned = state.time, state.n


def compensation_scheduled(state: ExecutionState, event: e.CompensationScheduled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    if step.compensation != "running":
        step.tries, step.timed_out, step.timer = 0, 0, 0
        if state.rollback is not None and index not in state.rollback.failed:
            step.undo_error = None
    step.purpose, step.compensation, step.compensator = "compensation", "running", event.task
    open_attempt(state, step, event.attempt)
    state.in_flight[index] = None
    if step.timer:
        close_timer(state, step.timer, fired=True)
    if state.gated and ask(state, index, step):
        return
    if wait := state.attempt_policy(index).queue_timeout_ms:
        wait_in_queue(state, index, step, wait)


def compensation_completed(state: ExecutionState, event: e.CompensationCompleted) -> None:
    index, step, rollback = _undoing(state, event.step)
    if event.measured is not None:
        step.measured = measures.after(step.measured, measures.cost_of(event.measured))
    close_attempt(state, step, None)
    if index in rollback.failed:  # of two things that the step did, the other could not be undone
        step.compensation = "failed"
    else:
        step.compensation, step.undo_error = "completed", None
    deed = state.standing.pop(rollback.order[rollback.cursor].key)
    table(state, "undone")[deed.since] = state.version
    if event.vars:
        set_vars(state, event.vars)
    if not _did_more(state, index):
        table(state, "images").pop(index, None)
    rollback.undone += 1
    _next_undo(state, index, rollback)


def compensation_failed(state: ExecutionState, event: e.CompensationFailed) -> None:
    index, step, rollback = _undoing(state, event.step)
    if event.measured is not None:
        step.measured = measures.after(step.measured, measures.cost_of(event.measured))
    if event.error.code == "cancelled" and not step.held:
        leave(state, index)
    close_attempt(state, step, None)
    step.undo_error = event.error
    if event.error.type == "timeout_error":
        step.timed_out += 1
    if not event.will_retry:
        step.compensation = "failed"
        rollback.failed.append(index)
        _next_undo(state, index, rollback)


def compensation_skipped(state: ExecutionState, event: e.CompensationSkipped) -> None:
    index, step, rollback = _undoing(state, event.step)
    if index not in rollback.failed:
        step.compensation = "skipped"
    rollback.skipped.append(index)
    _next_undo(state, index, rollback)


def _did_more(state: ExecutionState, index: int) -> bool:
    """Whether something else that the step, or its fallback, did is not undone."""
    who = {None, state.graph.steps[index].fallback}
    return any((index, task, run) in state.standing for task in who for run in range(1, state.run + 1))


def _undoing(state: ExecutionState, step_id: str) -> tuple[int, StepState, Rollback]:
    index = state.graph.index[step_id]
    assert state.rollback is not None
    return index, state.steps[index], state.rollback


def _next_undo(state: ExecutionState, index: int, rollback: Rollback) -> None:
    state.in_flight.pop(index, None)
    rollback.cursor += 1
