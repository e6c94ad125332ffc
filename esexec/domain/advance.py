"""What follows by itself: skip what can never run, cancel or schedule what is left, end what has ended.

One place, called after every message. It stops when the commit is full and leaves the rest to a `continue`. Each loop
looks at the front of an index only (heaps, deque, cursor), so the work is proportional to the events it emits.
"""

from heapq import heappop

from esexec.domain import events as e
from esexec.domain.decision import Decision
from esexec.domain.state import SETTLED, ExecutionState


def advance(decision: Decision) -> None:
    """Emit everything that follows from the state, in plan order where there is a choice."""
    state = decision.state
    if state.ended:
        return
    if not state.cancel:
        _skip_doomed(decision)
    if state.ending:
        _sweep(decision)
    else:
        _schedule(decision)
    if not state.unsettled:
        _end(decision)


def _sweep(decision: Decision) -> None:
    """The execution ends early: every step without an open attempt is settled now, the others when they report."""
    state = decision.state
    while state.cursor < len(state.steps):
        step = state.steps[state.cursor]
        if step.status not in SETTLED and not step.open:
            if decision.full:
                decision.unfinished = True
                return
            step_id = state.graph.steps[state.cursor].id
            if state.cancel or step.attempt:
                decision.emit(e.TaskCancelled(step=step_id, attempt=step.attempt, run=state.run))
            else:
                because = state.graph.steps[state.failed[0]].id
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
        decision.emit(e.TaskSkipped(step=step_id, run=state.run, attempt=0, reason="dependency_failed", because=because))


def _schedule(decision: Decision) -> None:
    """Ready steps get the free slots: the earliest in the plan first, those not marked parallel one at a time."""
    state = decision.state
    limit = state.execution_policy.parallel_execution_limit
    while len(state.in_flight) < limit:
        index = _next_ready(state)
        if index is None:
            return
        if decision.full:
            decision.unfinished = True
            return
        heappop(state.ready if state.graph.parallel[index] else state.serial)
        decision.emit(e.TaskScheduled(step=state.graph.steps[index].id, run=state.run))


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


def _end(decision: Decision) -> None:
    state = decision.state
    if state.cancel:
        decision.emit(e.ExecutionCancelled(reason=state.cancel_reason, abandoned=tuple(state.abandoned)))
    elif state.failed:
        assert state.error is not None
        failed = tuple(state.graph.steps[index].id for index in state.failed[:100])
        decision.emit(e.ExecutionFailed(error=state.error, failed_steps=failed))
    else:
        decision.emit(e.ExecutionCompleted())


def has_more(state: ExecutionState) -> bool:
    """Whether `advance` would emit something: true only after a decision that had to stop for want of room."""
    if not state.exists or state.ended:
        return False
    if not state.unsettled:
        return True
    if not state.cancel:
        while state.doomed and state.steps[state.doomed[0][0]].status in SETTLED:
            state.doomed.popleft()
        if state.doomed:
            return True
    if state.ending:
        while state.cursor < len(state.steps):
            step = state.steps[state.cursor]
            if step.status not in SETTLED and not step.open:
                return True
            state.cursor += 1
        return False
    return len(state.in_flight) < state.execution_policy.parallel_execution_limit and _next_ready(state) is not None
