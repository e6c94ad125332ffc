"""What every decision of a test is held against, besides `legality`: the tables of `life`, and that somebody goes on with it."""

from esexec.domain import events as e
from esexec.domain.advance import has_more
from esexec.domain.life import EXECUTION, STEP
from esexec.domain.state import ExecutionState, ExecutionStatus, StepStatus

Lives = tuple[ExecutionStatus, StepStatus | None]
WAKING = frozenset({"start", "retry", "grace"})
"""Timers that make an execution go on; the others only watch over something that goes on anyway."""


def not_stuck(state: ExecutionState) -> bool:
    """Whether somebody or something will wake the execution, or it has ended."""
    if state.ended or not state.exists or state.paused or has_more(state):
        return True
    return any(one.open for one in state.steps) or any(timer.kind in WAKING for timer in state.timers.values())


def lives_of(state: ExecutionState, event: e.Event) -> Lives:
    """The statuses that an event may change: the execution's, and its step's."""
    index = state.graph.index.get(getattr(event, "step", None) or "") if state.version else None
    return state.status, None if index is None else state.steps[index].status


def unlike_its_life(state: ExecutionState, event: e.Event, was: Lives) -> str | None:
    """Where an event changed a status otherwise than the tables say; None: nowhere."""
    now, kind = lives_of(state, event), type(event)
    if now[0] not in (EXECUTION[kind].get(was[0], ()) if kind in EXECUTION else was[:1]):
        return f"{e.type_of(event)} made an execution that was {was[0]} {now[0]}"
    if isinstance(event, e.ExecutionRetried) or was[1] is None:
        return None  # a new run begins with new steps
    if now[1] not in (STEP[kind].get(was[1], ()) if kind in STEP else was[1:]):
        return f"{e.type_of(event)} made a step that was {was[1]} {now[1]}"
    return None
