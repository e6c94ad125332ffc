"""What follows by itself: skip what can never run, cancel or schedule what is left, undo what is to be undone, end what is over.

One place, called after every message. It stops when the commit is full and leaves the rest to a `continue`. Each loop
looks at the front of an index only (heaps, deque, cursor), so the work is proportional to the events it emits.
"""

from datetime import timedelta
from heapq import heappop
from typing import Literal

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.asking import ask_of_execution
from esexec.domain.decision import Decision
from esexec.domain.errors import ErrorInfo
from esexec.domain.flow import usage_of
from esexec.domain.rollback import can_undo, compensation_of
from esexec.domain.sharing.requests import entity_of
from esexec.domain.state import SETTLED, ExecutionState

NAMED = 100
"""So many steps are named in an event that ends an execution."""


def advance(decision: Decision) -> None:
    """Emit everything that follows from the state, in plan order where there is a choice."""
    state = decision.state
    if state.leftover:
        _release(decision)
    if state.ended:
        return
    if state.phase == "rolling_back":
        _roll_back(decision)
        return
    if state.doomed and not state.cancel:
        _skip_doomed(decision)
    if state.ending:
        _sweep(decision)
    elif state.started_at is not None:
        _schedule(decision)
    elif state.slot is not None and state.slot.granted and not state.paused:
        begin_run(decision)
        _schedule(decision)
    if not state.unsettled and not state.in_flight:
        if len(decision.events) >= limits.events_per_commit:
            decision.unfinished = True
        else:
            _end(decision)


def begin_run(decision: Decision) -> None:
    """The first step may be scheduled, and the run's deadline begins to count; before, it asks for its slot, if it needs one."""
    if not has_slot(decision):
        return
    decision.emit(e.ExecutionStarted())
    set_deadline(decision)
    if decision.state.deadline is not None and decision.state.deadline <= decision.time:
        exceed_deadline(decision)


def has_slot(decision: Decision) -> bool:
    """Whether the run has the slot of its concurrency key, or needs none; else it asks for it."""
    state = decision.state
    if state.execution_policy.concurrency is None or (state.slot is not None and state.slot.granted):
        return True
    if state.slot is None:
        decision.emit(e.ExecutionQueued(entity=entity_of(ask_of_execution(state).ask), run=state.run))
    return False


def _release(decision: Decision) -> None:
    """What resources were used for is told when they are given back."""
    state = decision.state
    while state.leftover:
        left = state.leftover[0]
        usage = tuple(usage_of(one, left.since, decision.time, busy_s=left.busy_s) for one in left.resources)
        decision.emit(e.ResourceReleased(step=state.graph.steps[left.step].id, attempt=left.attempt, run=left.run, usage=usage))


def exceed_deadline(decision: Decision) -> None:
    """The deadline passed: nothing begins any more, and what runs is told to end."""
    state = decision.state
    error = ErrorInfo(
        type="timeout_error",
        code="execution_timeout",
        message=f"{state.execution_id} did not end by its deadline {state.deadline:%Y-%m-%dT%H:%M:%S.%fZ}",
        retryable=False,
        timestamp=decision.time,
    )
    decision.emit(e.DeadlineExceeded(error=error, grace_ms=limits.cancel_grace_ms))


def set_deadline(decision: Decision) -> None:
    """The run must end by the earlier of its own timeout, which counts once it has its slot, and the deadline of its start."""
    state = decision.state
    has_to_wait = state.slot is not None and not state.slot.granted
    timeout = 0 if has_to_wait else state.execution_policy.execution_timeout_ms
    named = state.created.deadline
    if not timeout and named is None:
        return
    deadlines = [decision.time + timedelta(milliseconds=timeout)] if timeout else []
    if named is not None and (state.run == 1 or named > decision.time):  # whoever retries it later knows about the deadline
        deadlines.append(named)
    if deadlines and min(deadlines) != state.deadline:
        decision.emit(e.DeadlineSet(deadline=min(deadlines)))


# Running -------------------------------------------------------------------------------------------------------------


def _sweep(decision: Decision) -> None:
    """The execution ends early: every step without an open attempt is settled now, the others when they report."""
    state = decision.state
    while state.cursor < len(state.steps):
        step = state.steps[state.cursor]
        if step.status not in SETTLED and (not step.open or step.held):
            if decision.full:
                decision.unfinished = True
                return
            step_id = state.graph.steps[state.cursor].id
            if state.cancel or step.attempt:
                decision.emit(e.TaskCancelled(step=step_id, attempt=step.attempt, run=state.run))
            else:
                because = state.graph.steps[state.failed[0]].id if state.failed else None
                decision.emit(e.TaskSkipped(step=step_id, run=state.run, attempt=0, reason="cancelled", because=because))
        state.cursor += 1


def _skip_doomed(decision: Decision) -> None:
    state = decision.state
    while state.doomed:
        index, because = state.doomed[0]
        if state.steps[index].status in SETTLED:
            state.doomed.popleft()
            continue
        if decision.full:
            decision.unfinished = True
            return
        step_id = state.graph.steps[index].id
        is_unwanted = state.steps[state.graph.index[because]].skip_reason == "condition"
        reason: e.SkipReason = "condition" if is_unwanted else "dependency_failed"
        decision.emit(e.TaskSkipped(step=step_id, run=state.run, attempt=0, reason=reason, because=because))


def _schedule(decision: Decision) -> None:
    """Ready steps get the free slots: the earliest in the plan first, those not marked parallel one at a time."""
    state = decision.state
    limit = state.execution_policy.parallel_execution_limit
    if state.slot is not None and not state.slot.granted:
        return
    while len(state.in_flight) < limit and not state.paused:
        index = _next_ready(state)
        if index is None:
            return
        if decision.full:
            decision.unfinished = True
            return
        heappop(state.ready if state.graph.parallel[index] else state.serial)
        if index in state.graph.conditions and not _is_wanted(state, index):
            _skip_unwanted(decision, index)
            continue
        decision.emit(e.TaskScheduled(step=state.graph.steps[index].id, run=state.run))


def _is_wanted(state: ExecutionState, index: int) -> bool:
    """What a step's `when` says."""
    created = state.created
    return state.graph.conditions[index].holds(input=created.given, context=created.context, output_of=state.output_of)


def _skip_unwanted(decision: Decision, index: int) -> None:
    state = decision.state
    decision.emit(e.TaskSkipped(step=state.graph.steps[index].id, run=state.run, attempt=0, reason="condition"))
    if state.doomed:
        _skip_doomed(decision)


def _next_ready(state: ExecutionState) -> int | None:
    """The first step of the plan that may start now; entries that were dealt with otherwise are dropped on the way."""
    for heap in (state.ready, state.serial):
        while heap and (state.steps[heap[0]].attempt or state.steps[heap[0]].status in SETTLED):
            heappop(heap)
    parallel = state.ready[0] if state.ready else None
    serial = state.serial[0] if state.serial and not state.serial_busy else None
    if parallel is None or serial is None:
        return serial if parallel is None else parallel
    return min(parallel, serial)


# Ending --------------------------------------------------------------------------------------------------------------


def _end(decision: Decision) -> None:
    state = decision.state
    if state.cancel:
        _cancelled(decision)
    elif not state.failed and not state.expired:
        decision.emit(e.ExecutionCompleted())
    elif state.execution_policy.enable_rollback and can_undo(state):
        decision.emit(e.RollbackStarted())
        _roll_back(decision)
    else:
        decision.emit(_failed(state))


def _failed(state: ExecutionState, *, not_undone: tuple[str, ...] = ()) -> e.ExecutionFailed:
    error = state.error or ErrorInfo(type="internal_error", code="rollback_incomplete", message="not everything could be undone")
    failed = tuple(state.graph.steps[index].id for index in state.failed[:NAMED])
    partial = state.rollback is not None
    return e.ExecutionFailed(
        error=error, failed_steps=failed, rollback_status="partial" if partial else None, not_undone=not_undone
    )


def _cancelled(decision: Decision) -> None:
    state = decision.state
    left: tuple[str, ...] = ()
    rolled_back: Literal["completed", "partial"] | None = None
    if state.rollback is not None:
        left = _not_undone(state)
        rolled_back = "partial" if left else "completed"
    decision.emit(
        e.ExecutionCancelled(
            reason=state.cancel_reason, abandoned=tuple(state.abandoned), rollback_status=rolled_back, not_undone=left
        )
    )


# Rolling back ----------------------------------------------------------------------------------------------------------


def _roll_back(decision: Decision) -> None:
    """The next step is undone once the one before is; what nothing undoes is only listed."""
    state, rollback = decision.state, decision.state.rollback
    assert rollback is not None
    while rollback.cursor < len(rollback.order):
        if state.in_flight:
            return  # an undoing is under way, or its retry is being waited for
        if decision.full:
            decision.unfinished = True
            return
        deed = rollback.order[rollback.cursor]
        task = compensation_of(state, deed)
        if isinstance(task, e.CompensationSkipped):
            decision.emit(task)
        elif state.paused:
            return
        else:
            step = state.steps[deed.step]
            decision.emit(
                e.CompensationScheduled(step=state.graph.steps[deed.step].id, attempt=step.attempt + 1, run=state.run, task=task)
            )
    left_is_fine = state.execution_policy.on_missing_compensation == "skip" or not rollback.skipped
    if rollback.undone and not rollback.failed and left_is_fine:
        skipped = tuple(state.graph.steps[index].id for index in rollback.skipped[:NAMED])
        decision.emit(e.ExecutionRolledBack(undone=rollback.undone, skipped=skipped, error=state.error))
    else:
        decision.emit(_failed(state, not_undone=_not_undone(state)))


def _not_undone(state: ExecutionState) -> tuple[str, ...]:
    left = dict.fromkeys(deed.step for deed in reversed(state.standing.values()))
    return tuple(state.graph.steps[index].id for index in [*left][:NAMED])


# What is left ------------------------------------------------------------------------------------------------------------


def has_more(state: ExecutionState) -> bool:
    """Whether `advance` would emit something: true only after a decision that had to stop for want of room."""
    if not state.exists or state.ended:
        return False
    if state.phase == "rolling_back":
        return _has_more_to_undo(state)
    if not state.unsettled and not state.in_flight:
        return True
    if not state.cancel:
        while state.doomed and state.steps[state.doomed[0][0]].status in SETTLED:
            state.doomed.popleft()
        if state.doomed:
            return True
    if state.ending:
        while state.cursor < len(state.steps):
            step = state.steps[state.cursor]
            if step.status not in SETTLED and (not step.open or step.held):
                return True
            state.cursor += 1
        return False
    if state.paused or state.started_at is None:
        return False
    if state.slot is not None and not state.slot.granted:
        return False
    return len(state.in_flight) < state.execution_policy.parallel_execution_limit and _next_ready(state) is not None


def _has_more_to_undo(state: ExecutionState) -> bool:
    rollback = state.rollback
    assert rollback is not None
    if state.in_flight:
        return False
    if rollback.cursor == len(rollback.order) or not state.paused:
        return True
    return isinstance(compensation_of(state, rollback.order[rollback.cursor]), e.CompensationSkipped)
