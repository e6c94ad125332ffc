"""What the events of an execution as a whole make of its state."""

from datetime import timedelta

from esexec.domain import events as e
from esexec.domain.compiled import graph_of
from esexec.domain.errors import CorruptHistory
from esexec.domain.evolve_admission import give_slot_back
from esexec.domain.evolve_run import find_ready, next_checkpoint
from esexec.domain.evolve_step import close_attempt, hold_what_was_not_handed_out, make_ready
from esexec.domain.settings import EMPTY_CONFIG, EMPTY_NAMESPACE, merge_execution
from esexec.domain.state import ExecutionState, ExecutionStatus, StepState, Timer
from esexec.domain.timers import close_timer, close_timers


def created(state: ExecutionState, event: e.ExecutionCreated) -> None:
    document = event.document
    if not document and event.plan_object is not None:
        raise CorruptHistory(f"{state.execution_id}: its plan is the object {event.plan_object.sha256}, which nobody has fetched")
    graph = graph_of(document)
    state.created, state.graph = event, graph
    state.created_at, state.turned = state.time, state.n
    silent = event.config is EMPTY_CONFIG and event.namespace is EMPTY_NAMESPACE
    if not silent or graph.plan.config is not EMPTY_CONFIG:
        state.execution_policy = merge_execution((event.namespace, graph.plan.config, event.config))
    state.bounded_waits = graph.bounded_waits or ((not silent or bool(event.tasks)) and _says_a_queue_timeout(event))
    state.gated = graph.gated or ((not silent or bool(event.tasks)) and _says_flow_control(event))
    state.steps = [StepState(len(waiting)) for waiting in graph.dependencies]
    state.unsettled = len(state.steps)
    state.has_objects = event.plan_object is not None or event.input_object is not None or bool(event.kept_objects)
    kept = event.kept | event.kept_objects if event.kept_objects else event.kept
    for step_id, output in kept.items():
        step = state.steps[graph.index[step_id]]
        step.status, step.output, step.settled, step.ended_at = "completed", output, state.version, state.time
    if kept:
        find_ready(state)
    else:
        for index, step in enumerate(state.steps):
            if not step.waiting:
                make_ready(state, index)
    if event.start_at is not None:
        state.timers[state.version] = Timer("start", event.start_at)


def _says_a_queue_timeout(event: e.ExecutionCreated) -> bool:
    levels = (event.config, event.namespace, *event.namespace.queues.values(), *event.tasks.values())
    return any(level.queue_timeout_ms for level in levels)


def _says_flow_control(event: e.ExecutionCreated) -> bool:
    levels = (event.config, event.namespace, *event.namespace.queues.values(), *event.tasks.values())
    of_tasks = any(task.concurrency is not None or task.resources for task in event.tasks.values())
    return of_tasks or any(level.rate_limit is not None for level in levels)


def started(state: ExecutionState, event: e.ExecutionStarted) -> None:
    state.status, state.phase, state.started_at = "running", "executing", state.time
    if state.created.start_at is not None:
        close_timer(state, 1, fired=True)
    if state.execution_policy.checkpoint_interval_ms:
        next_checkpoint(state)


def completed(state: ExecutionState, event: e.ExecutionCompleted) -> None:
    _end(state, "completed")


def failed(state: ExecutionState, event: e.ExecutionFailed) -> None:
    state.error, state.rollback_status = event.error, event.rollback_status
    _end(state, "failed")


def cancel_requested(state: ExecutionState, event: e.ExecutionCancelRequested) -> None:
    state.phase, state.status = "cancelling", "running" if state.started_at is not None else "pending"
    state.cancel, state.cancel_reason, state.cancel_code, state.turned = state.version, event.reason, event.code, state.n
    hold_what_was_not_handed_out(state)
    if state.rollback is not None:
        _give_up_waiting_undo(state)
    if state.paused:
        _unpause(state, hand_out=False)
    state.cursor = 0
    _set_grace(state, event.grace_ms)


def _give_up_waiting_undo(state: ExecutionState) -> None:
    """An undoing that waits for its retry, or that a pause holds, is not tried again: nothing is in flight of it."""
    for index in [index for index in state.in_flight if not state.steps[index].open or state.steps[index].held]:
        step = state.steps[index]
        if step.open:
            close_attempt(state, step, None)
        del state.in_flight[index]
        step.compensation = "failed"
    close_timers(state, "retry")


def cancelled(state: ExecutionState, event: e.ExecutionCancelled) -> None:
    state.rollback_status = event.rollback_status
    _end(state, "cancelled")


def rolled_back(state: ExecutionState, event: e.ExecutionRolledBack) -> None:
    state.rollback_status = "completed"
    _end(state, "rolled_back")


def _end(state: ExecutionState, status: ExecutionStatus) -> None:
    state.status, state.phase, state.ended_at = status, "ended", state.time
    if state.pause:
        state.paused, state.paused_at, state.pause = False, None, 0
    if state.in_flight:
        state.in_flight.clear()
    if state.timers:
        close_timers(state)
    if state.slot is not None:
        give_slot_back(state)


def paused(state: ExecutionState, event: e.ExecutionPaused) -> None:
    state.status, state.paused, state.pause_reason, state.paused_at = "paused", True, event.reason, state.time
    state.pause, state.turned, state.cursor = state.version, state.n, 0
    hold_what_was_not_handed_out(state)


def resumed(state: ExecutionState, event: e.ExecutionResumed) -> None:
    _unpause(state)
    state.pause, state.turned = 0, state.n
    state.status = "pending" if state.started_at is None else "running"


def _unpause(state: ExecutionState, *, hand_out: bool = True) -> None:
    """The pause is over. Unless `hand_out`, what it took back, or is taking back, stays where it is."""
    assert state.time is not None
    paused_at, state.paused, state.paused_at, state.pause_reason = state.paused_at, False, None, ""
    for version, timer in state.timers.items():
        if timer.kind == "queue" and paused_at is not None:  # what was taken back did not wait for a worker
            waited_from = max(paused_at, timer.since or paused_at)
            state.timers[version] = timer._replace(due=timer.due + (state.time - waited_from))
    if hand_out:
        held = [index for index in state.in_flight if state.steps[index].held and not state.steps[index].asking]
        state.freed = frozenset(held)
        for index in state.freed:
            state.steps[index].held, state.steps[index].opened = False, state.n


def forked(state: ExecutionState, event: e.ExecutionForked) -> None:
    pass


def deadline_set(state: ExecutionState, event: e.DeadlineSet) -> None:
    close_timers(state, "deadline")
    state.deadline = event.deadline
    state.timers[state.version] = Timer("deadline", event.deadline)


def deadline_exceeded(state: ExecutionState, event: e.DeadlineExceeded) -> None:
    close_timers(state, "deadline", fired=True)
    if state.error is None:
        state.error = event.error
    state.expired, state.failing, state.cursor = state.version, True, 0
    hold_what_was_not_handed_out(state)
    if not state.cancel:
        state.phase = "failing"
    _set_grace(state, event.grace_ms)


def _set_grace(state: ExecutionState, grace_ms: int) -> None:
    assert state.time is not None
    state.timers[state.version] = Timer("grace", state.time + timedelta(milliseconds=grace_ms))
