"""Whether an event may follow in a state: the two state machines of `life`, and what they cannot say.

`decide` emits only legal events; this says so independently. `verify` uses it to find events that nobody decided, the
simulation to find decisions that should not have been made.
"""

from typing import Any, get_args

from esexec.domain import events as e
from esexec.domain.life import EXECUTION, STEP
from esexec.domain.state import ExecutionState, StepState

_OF_A_STEP: tuple[type, ...] = tuple(
    kind for kind in get_args(e.ExecutionEvent) if "step" in kind.__struct_fields__ and kind is not e.ExecutionRetried
)
_UNDOING = (
    e.CompensationScheduled,
    e.CompensationStarted,
    e.CompensationCompleted,
    e.CompensationFailed,
    e.CompensationRetryScheduled,
    e.CompensationSkipped,
)
_OF_GRANTS = (e.TaskGranted, e.ResourceAllocated, e.TaskRateLimited, e.TaskWaiting)
_AFTER_THE_END = (e.ExecutionRetried, e.CheckpointRestored, e.RollbackStarted, e.ExecutionForked, e.DeadlineSet)


def objection(state: ExecutionState, event: e.Event) -> str | None:
    """Why this event cannot be the next one; None if it can."""
    if isinstance(event, e.ExecutionCreated):
        return "an execution is created once" if state.version else None
    if not isinstance(event, e.ExecutionEvent):
        return f"{e.type_of(event)} is no event of an execution"
    if not state.version:
        return f"{e.type_of(event)} before execution_created"
    if state.ended and not isinstance(event, _AFTER_THE_END):
        return f"{e.type_of(event)} after the end"
    if isinstance(event, _OF_A_STEP):
        return _about_step(state, event)
    life = EXECUTION.get(type(event))
    if life is not None and state.status not in life:
        return f"{e.type_of(event)} while it is {state.status}"
    return _about_execution(state, event)


# Executions ------------------------------------------------------------------------------------------------------------


def _about_execution(state: ExecutionState, event: e.ExecutionEvent) -> str | None:
    match event:
        case e.ExecutionCancelRequested():
            return "cancel requested twice" if state.cancel else None
        case e.ExecutionCompleted() | e.ExecutionFailed() | e.ExecutionCancelled() | e.ExecutionRolledBack() if _at_work(state):
            return f"{e.type_of(event)} while {_at_work(state)}"
        case e.ExecutionCompleted() if state.failed or state.cancel or state.expired or state.rollback:
            return "completed although it failed, was cancelled or rolled back"
        case e.ExecutionFailed() if state.cancel or not (state.failed or state.expired or state.rollback):
            return "failed without a failed step, or although it was cancelled"
        case e.ExecutionFailed() if (event.rollback_status == "partial") != (state.rollback is not None):
            return "failed with a wrong rollback_status"
        case e.ExecutionCancelled() if not state.cancel:
            return "cancelled without a request"
        case e.ExecutionRolledBack() if state.rollback is None or state.rollback.failed or not state.rollback.undone:
            return "rolled back although not everything was undone"
        case e.ExecutionRetried() | e.CheckpointRestored() if event.run != state.run + 1:
            return f"{e.type_of(event)} as run {event.run} after run {state.run}"
        case e.CheckpointRestored() if event.checkpoint_id not in state.checkpoints:
            return f"there is no checkpoint {event.checkpoint_id}"
        case e.CheckpointRestored() if not state.ended and (state.cancel or state.phase == "rolling_back"):
            return f"restored while it is {state.phase}"
        case e.CheckpointCreated() if event.checkpoint_id != f"{state.execution_id}.{state.version + 1}":
            return f"a checkpoint made now is not {event.checkpoint_id}"
        case e.RollbackStarted() if not state.ended and (state.unsettled or state.in_flight or state.cancel):
            return "rolled back before its end"
        case e.RollbackStarted() if not state.ended and not (state.failed or state.expired):
            return "rolled back although nothing failed"
        case e.RollbackStarted() if state.phase == "rolling_back":
            return "rolled back twice at once"
        case e.RollbackStarted() if not state.standing:
            return "rolled back although nothing was done"
        case e.DeadlineExceeded() if state.stopping or state.deadline is None:
            return "there is no deadline to exceed"
        case e.ExecutionQueued() if state.slot is not None or event.run != state.run:
            return f"queued as run {event.run} although it is"
        case e.ExecutionGranted() if state.slot is None or state.slot.granted or event.run != state.slot.run:
            return "granted what it did not ask for"
        case e.ExecutionForked() if not state.ended:
            return "forked before its end"
        case e.DeadlineSet() if state.ended:
            return "a deadline of no run"
    return None


def _at_work(state: ExecutionState) -> str:
    """What has not ended, in words."""
    if state.unsettled:
        return f"{state.unsettled} steps have not ended"
    if any(state.steps[index].open for index in state.in_flight):
        return "an attempt is open"
    if state.rollback is not None and not state.cancel and state.rollback.cursor < len(state.rollback.order):
        return "steps are to be undone"
    return ""


# Steps -----------------------------------------------------------------------------------------------------------------


def _about_step(state: ExecutionState, event: Any) -> str | None:
    index = state.graph.index.get(event.step)
    if index is None:
        return f"there is no step {event.step}"
    step = state.steps[index]
    where = f"{e.type_of(event)} of {event.step} ({event.run}-{event.attempt})"
    if isinstance(event, e.ResourceReleased):
        left = state.leftover[0] if state.leftover else None
        due = left is not None and (left.step, left.run, left.attempt) == (index, event.run, event.attempt)
        return None if due else f"{where}: it has no resources to release"
    if event.run != state.run:
        return f"{where}: this is run {state.run}"
    if isinstance(event, e.TaskHeld | e.TaskOverdue):
        waits = step.open and event.attempt == step.attempt and step.started_at is None
        return None if waits else f"{where}: that attempt waits for no worker"
    if isinstance(event, _OF_GRANTS):
        return _about_grant(step, event, where)
    if isinstance(event, _UNDOING):
        return _about_undoing(state, index, event, where)
    if state.started_at is None and not (isinstance(event, e.TaskCancelled | e.TaskSkipped) and state.ending):
        return f"{where}: before execution_started"
    if step.status not in STEP[type(event)]:
        return f"{where}: the step is {step.status}"
    return _about_task(state, index, event, where)


def _about_task(state: ExecutionState, index: int, event: Any, where: str) -> str | None:
    step = state.steps[index]
    match event:
        case e.TaskScheduled():
            return _about_scheduled(state, index, event, where)
        case e.TaskRetryScheduled():
            return None if _wants_more(state, step, event.attempt) else f"{where}: not the retry of a failed attempt"
        case e.RecoveryInitiated():
            return None if _wants_more(state, step, event.attempt) else f"{where}: nothing to recover from"
        case e.FallbackStarted():
            legal = _wants_more(state, step, event.attempt) and step.fallback is None
            return None if legal else f"{where}: nothing to fall back from"
        case e.TaskSkipped():
            return _about_skipped(state, index, event, where)
        case e.TaskCancelled():
            legal = event.attempt == step.attempt and state.ending
            return None if legal else f"{where}: nobody cancelled it"
        case e.TaskCacheHit() if step.cached is not None:
            return f"{where}: found in the cache twice"
        case e.TaskStarted() | e.RecoveryStarted() if step.started_at is not None:
            return f"{where}: started twice"
        case e.BeforeImageRecorded() if index in state.images:
            return f"{where}: it has an image"
    if not step.open or event.attempt != step.attempt:
        return f"{where}: that attempt is not open"
    of_a_recovery = isinstance(event, e.RecoveryStarted | e.RecoveryCompleted)
    return None if of_a_recovery == (step.purpose == "recovery") else f"{where}: the attempt is for something else"


def _about_grant(step: StepState, event: Any, where: str) -> str | None:
    """Who answers, answers to the attempt that asked, about what it asked for."""
    if not step.open or event.attempt != step.attempt or step.gate is None or not step.gate.asks:
        return f"{where}: that attempt asked for nothing"
    match event:
        case e.ResourceAllocated():
            about = "resources"
        case e.TaskRateLimited():
            about = "rate_limit"
        case _:
            about = event.by
    return None if step.gate.asks[0] == about else f"{where}: it did not ask for that"


def _wants_more(state: ExecutionState, step: StepState, attempt: int) -> bool:
    """Whether a further attempt of the step may follow the one that failed."""
    waiting = step.attempt > 0 and not step.open and step.timer not in state.timers
    return waiting and attempt == step.attempt + 1 and not state.ending


def _about_skipped(state: ExecutionState, index: int, event: e.TaskSkipped, where: str) -> str | None:
    step = state.steps[index]
    if event.reason == "recovery":
        return None if step.recovery is not None and not step.open else f"{where}: no strategy asked for it"
    if step.attempt:
        return f"{where}: it was tried"
    if event.reason == "cancelled":
        return None if state.failing else f"{where}: nothing failed"
    if event.reason == "dependency_failed":
        others = [(state.graph.steps[other].id, state.steps[other]) for other in state.graph.dependencies[index]]
        doomed = any(id == event.because and other.status in ("failed", "skipped") and not other.done for id, other in others)
        return None if doomed else f"{where}: no dependency of that name has failed"
    if event.because is None:
        return None if index in state.graph.conditions else f"{where}: it has no condition"
    others = [(state.graph.steps[other].id, state.steps[other]) for other in state.graph.dependencies[index]]
    unwanted = any(id == event.because and other.skip_reason == "condition" for id, other in others)
    return None if unwanted else f"{where}: no dependency of that name was skipped for its condition"


def _about_scheduled(state: ExecutionState, index: int, event: e.TaskScheduled, where: str) -> str | None:
    step = state.steps[index]
    if state.ending:
        return f"{where}: the execution is ending"
    if step.open or event.attempt != step.attempt + 1:
        return f"{where}: out of turn"
    if step.waiting:
        return f"{where}: {step.waiting} dependencies have not completed"
    if event.attempt > 1:
        asked_for = step.timer in state.timers or step.purpose == "recovery" or (step.fallback is not None and not step.tries)
        return None if asked_for else f"{where}: no retry is due"
    if state.paused:
        return f"{where}: the execution is paused"
    if len(state.in_flight) >= state.execution_policy.parallel_execution_limit:
        return f"{where}: more in flight than parallel_execution_limit"
    if state.serial_busy and not state.graph.parallel[index]:
        return f"{where}: another step runs that is not marked parallel"
    return None


# Undoing ---------------------------------------------------------------------------------------------------------------


def _about_undoing(state: ExecutionState, index: int, event: Any, where: str) -> str | None:
    step, rollback = state.steps[index], state.rollback
    if rollback is None or rollback.next != index:
        return f"{where}: it is not its turn to be undone"
    match event:
        case e.CompensationSkipped():
            return f"{where}: its undoing was begun" if step.compensation == "running" else None
        case e.CompensationScheduled():
            if step.open or event.attempt != step.attempt + 1:
                return f"{where}: out of turn"
            if step.compensation == "running" and step.timer not in state.timers:
                return f"{where}: no retry is due"
            return f"{where}: the execution is paused" if state.paused else None
        case e.CompensationRetryScheduled():
            waiting = step.compensation == "running" and not step.open and event.attempt == step.attempt + 1
            return None if waiting else f"{where}: not the retry of a failed attempt"
        case e.CompensationStarted() if step.started_at is not None:
            return f"{where}: started twice"
    if not step.open or step.purpose != "compensation" or event.attempt != step.attempt:
        return f"{where}: that attempt is not open"
    return None
