"""What every decision of a test is held against, besides `legality`: the tables of `life`, and that somebody goes on with it."""

from collections.abc import Iterable

from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain.advance import has_more
from esexec.domain.life import EXECUTION, STEP
from esexec.domain.state import ExecutionState, ExecutionStatus, StepStatus

Lives = tuple[ExecutionStatus, StepStatus | None]
WAKING = frozenset({"start", "retry", "queue", "grace"})
"""Timers that make an execution go on; the others only watch over something that goes on anyway."""


class Handed:
    """The attempts that some commit's effects handed out, and none took back since: that an attempt is open reaches nobody."""

    def __init__(self) -> None:
        self.out: set[tuple[str, int, int]] = set()

    def note(self, effects: Iterable[fx.Effect]) -> None:
        """These effects were carried out."""
        for effect in effects:
            match effect:
                case fx.DispatchAttempt() | fx.TakeBack(why="overdue"):  # one is handed out, or put back, so that it is proven
                    self.out.add((effect.step, effect.run, effect.attempt))
                case fx.TakeBack():
                    self.out.discard((effect.step, effect.run, effect.attempt))

    def reaches(self, state: ExecutionState, index: int) -> bool:
        """Whether somebody has the open attempt of this step, or will have it."""
        step = state.steps[index]
        return step.started_at is not None or (state.graph.steps[index].id, state.run, step.attempt) in self.out


def stuck(state: ExecutionState, handed: Handed) -> str | None:
    """Why nobody and nothing will wake the execution, or carry on with an attempt of it; None: it goes on, or has ended."""
    if state.ended or not state.exists or state.paused:
        return None
    openings = [index for index, one in enumerate(state.steps) if one.open]
    unheard = [state.graph.steps[index].id for index in openings if not handed.reaches(state, index)]
    if unheard and not state.stopping:
        return f"nobody was handed the open attempts of {unheard}"
    waking = any(timer.kind in WAKING for timer in state.timers.values())
    if waking or has_more(state) or len(unheard) < len(openings):
        return None
    return "there is no attempt and no timer to wait for"


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
