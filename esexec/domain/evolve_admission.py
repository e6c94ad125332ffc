"""What grants make of the state: attempts are held until they have all of theirs, and give them back when they end."""

from datetime import datetime

from esexec.domain import events as e
from esexec.domain.asking import ask_of, gates_of
from esexec.domain.errors import ErrorInfo, ValidationError
from esexec.domain.sharing.requests import POOLS_ENTITY, WHOLE, Gate, entity_of
from esexec.domain.state import Admission, ExecutionState, Holding, Leftover, Slot, StepState, table
from esexec.domain.timers import close_timer


def ask(state: ExecutionState, index: int, step: StepState) -> bool:
    """Whether the attempt that was just opened must be granted something first; then it is held until it was."""
    gates = gates_of(state, index)
    if gates:
        assert state.time is not None
        step.gate, step.held = Admission(index, gates, state.time), True
    return bool(gates)


def granted(state: ExecutionState, index: int, step: StepState, event: e.TaskGranted | e.ResourceAllocated) -> bool:
    """One grant more; whether it was the last: then the attempt is handed out by this commit, unless it is paused."""
    gate = step.gate
    assert gate is not None and state.time is not None
    gate.asked_at = state.time
    if isinstance(event, e.ResourceAllocated):
        by: Gate = "resources"
        gate.resources, gate.since = event.resources, state.time
        gate.held = (*gate.held, POOLS_ENTITY)
    else:
        by = event.by
        if by == "concurrency":
            gate.held = (*gate.held, event.entity)
    gate.asks = tuple(one for one in gate.asks if one != by)
    gate.granted = {**gate.granted, by: state.n}
    gate.waiting, gate.until = False, None
    if step.status == "rate_limited":
        step.status, step.next_retry_at = "pending", None
    if gate.asks:
        return False
    step.held, step.opened = state.paused, state.n
    return True


def rate_limited(state: ExecutionState, event: e.TaskRateLimited) -> None:
    step = state.steps[state.graph.index[event.step]]
    assert step.gate is not None
    step.gate.waiting, step.gate.until, step.was_rate_limited = True, event.next_retry_at, True
    if step.purpose != "compensation":  # a step that is being undone stays what it is
        step.status, step.next_retry_at = "rate_limited", event.next_retry_at


def is_blocked(gate: Admission, error: ErrorInfo) -> bool:
    """Whether an attempt that failed so was refused by its rate limit."""
    return gate.asks[:1] == ("rate_limit",) and error.code == "rate_limited"


def waiting(state: ExecutionState, event: e.TaskWaiting) -> None:
    step = state.steps[state.graph.index[event.step]]
    assert step.gate is not None
    step.gate.waiting = True


def let_go(state: ExecutionState, step: StepState, ended_at: datetime | None) -> None:
    """The attempt is over: what it holds is given back by this commit, and what it asked for is withdrawn."""
    gate = step.gate
    assert gate is not None and state.time is not None
    index = gate.step
    step_id, attempt = state.graph.steps[index].id, f"{state.run}-{step.attempt}"
    entities = list(gate.held)
    if gate.asks and (asked := _asked(state, index, gate)) is not None:
        entities.append(asked)
    for entity in entities:
        table(state, "given_back").setdefault(state.n, []).append(Holding(entity, step_id, attempt))
    if gate.resources and gate.since is not None:
        busy_s = ((ended_at or state.time) - step.started_at).total_seconds() if step.started_at is not None else 0.0
        left = Leftover(index, state.run, step.attempt, gate.resources, gate.since, max(0.0, busy_s))
        state.leftover = [*state.leftover, left]
    step.gate = None


def _asked(state: ExecutionState, index: int, gate: Admission) -> str | None:
    """Whom it asked last; None: its key refers to nothing, so that it asked nobody."""
    try:
        return entity_of(ask_of(state, index, gate.asks[0]).ask)
    except ValidationError:
        return None


def released(state: ExecutionState, event: e.ResourceReleased) -> None:
    state.leftover = state.leftover[1:]


# The execution as a whole ------------------------------------------------------------------------------------------------


def queued(state: ExecutionState, event: e.ExecutionQueued) -> None:
    assert state.time is not None
    state.slot = Slot(event.entity, event.run, state.time)
    if state.created.start_at is not None:
        close_timer(state, 1, fired=True)


def execution_granted(state: ExecutionState, event: e.ExecutionGranted) -> None:
    assert state.slot is not None
    state.slot.granted = state.n


def give_slot_back(state: ExecutionState) -> None:
    """The run has ended."""
    slot, state.slot = state.slot, None
    if slot is not None:
        table(state, "given_back").setdefault(state.n, []).append(Holding(slot.entity, WHOLE, f"{slot.run}-0"))
