"""Whether an event may follow in a state: the two state machines of esexec as a check.

`decide` emits only legal events; this says so independently. `verify` uses it to find events that nobody decided, the
simulation to find decisions that should not have been made.
"""

from esexec.domain import events as e
from esexec.domain.state import SETTLED, ExecutionState, StepState


def objection(state: ExecutionState, event: e.Event) -> str | None:
    """Why this event cannot be the next one; None if it can."""
    if isinstance(event, e.ExecutionCreated):
        return "an execution is created once" if state.version else None
    if not isinstance(event, e.ExecutionEvent):
        return f"{e.type_of(event)} is no event of an execution"
    if not state.version:
        return f"{e.type_of(event)} before execution_created"
    if state.ended:
        return f"{e.type_of(event)} after the end"
    if isinstance(event, _TASK_EVENTS):
        return _about_task(state, event)
    return _about_execution(state, event)


_TASK_EVENTS = (
    e.TaskScheduled,
    e.TaskStarted,
    e.TaskCompleted,
    e.TaskFailed,
    e.TaskTimedOut,
    e.TaskRetryScheduled,
    e.TaskSkipped,
    e.TaskCancelled,
)
_TaskEvent = (
    e.TaskScheduled
    | e.TaskStarted
    | e.TaskCompleted
    | e.TaskFailed
    | e.TaskTimedOut
    | e.TaskRetryScheduled
    | e.TaskSkipped
    | e.TaskCancelled
)


def _about_execution(state: ExecutionState, event: e.ExecutionEvent) -> str | None:
    match event:
        case e.ExecutionStarted():
            return "started twice" if state.started_at is not None else None
        case e.ExecutionCancelRequested():
            return "cancel requested twice" if state.cancel else None
        case e.ExecutionCompleted() | e.ExecutionFailed() | e.ExecutionCancelled() if state.unsettled:
            return f"{e.type_of(event)} while {state.unsettled} steps have not ended"
        case e.ExecutionCompleted() if state.failed or state.cancel:
            return "completed although it failed or was cancelled"
        case e.ExecutionFailed() if not state.failed or state.cancel:
            return "failed without a failed step, or although it was cancelled"
        case e.ExecutionCancelled() if not state.cancel:
            return "cancelled without a request"
    return None


def _about_task(state: ExecutionState, event: _TaskEvent) -> str | None:
    index = state.graph.index.get(event.step)
    if index is None:
        return f"there is no step {event.step}"
    if state.started_at is None:
        return f"{e.type_of(event)} before execution_started"
    step = state.steps[index]
    where = f"{e.type_of(event)} of {event.step} ({event.run}-{event.attempt})"
    if event.run != state.run:
        return f"{where}: this is run {state.run}"
    if step.status in SETTLED:
        return f"{where}: the step is {step.status}"
    match event:
        case e.TaskScheduled():
            return _about_scheduled(state, index, event, where)
        case e.TaskRetryScheduled():
            return None if _wants_retry(state, step, event.attempt) else f"{where}: not the retry of a failed attempt"
        case e.TaskSkipped():
            return _about_skipped(state, index, event, where)
        case e.TaskCancelled():
            legal = event.attempt == step.attempt and (state.cancel or state.failing)
            return None if legal else f"{where}: nobody cancelled it"
        case e.TaskStarted() if step.started_at is not None:
            return f"{where}: started twice"
    if not step.open or event.attempt != step.attempt:
        return f"{where}: that attempt is not open"
    return None


def _wants_retry(state: ExecutionState, step: StepState, attempt: int) -> bool:
    waiting = step.attempt > 0 and not step.open and step.timer not in state.timers
    return waiting and attempt == step.attempt + 1 and not state.ending


def _about_skipped(state: ExecutionState, index: int, event: e.TaskSkipped, where: str) -> str | None:
    if state.steps[index].attempt:
        return f"{where}: it was tried"
    if event.reason == "cancelled":
        return None if state.failing else f"{where}: nothing failed"
    if event.reason == "dependency_failed":
        others = [(state.graph.steps[other].id, state.steps[other]) for other in state.graph.dependencies[index]]
        doomed = any(id == event.because and other.status in ("failed", "skipped") for id, other in others)
        return None if doomed else f"{where}: no dependency of that name has failed"
    return None


def _about_scheduled(state: ExecutionState, index: int, event: e.TaskScheduled, where: str) -> str | None:
    step = state.steps[index]
    if state.ending:
        return f"{where}: the execution is ending"
    if step.open or event.attempt != step.attempt + 1:
        return f"{where}: out of turn"
    if step.waiting:
        return f"{where}: {step.waiting} dependencies have not completed"
    if event.attempt == 1 and len(state.in_flight) >= state.execution_policy.parallel_execution_limit:
        return f"{where}: more in flight than parallel_execution_limit"
    if event.attempt == 1 and state.serial_busy and not state.graph.parallel[index]:
        return f"{where}: another step runs that is not marked parallel"
    if event.attempt > 1 and step.timer not in state.timers:
        return f"{where}: no retry is due"
    return None
