"""What every decision of a test is held against, besides `legality`: the tables of `life`, and that somebody goes on with it."""

from collections.abc import Iterable

from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain.advance import has_more
from esexec.domain.life import EXECUTION, STEP
from esexec.domain.sharing.requests import WHOLE
from esexec.domain.state import ExecutionState, ExecutionStatus, StepStatus

Lives = tuple[ExecutionStatus, StepStatus | None]
WAKING = frozenset({"start", "retry", "queue", "grace"})
"""Timers that make an execution go on; the others only watch over something that goes on anyway."""


Attempt = tuple[str, int, int]


class Handed:
    """What some commit's effects told of attempts: that an attempt is open reaches nobody.

    `out`: handed out, and not taken back since. `sent`: handed out, and not proven to be with nobody since. `told`: to stop.
    `asked`: for a grant.
    """

    def __init__(self) -> None:
        self.out: set[Attempt] = set()
        self.sent: set[Attempt] = set()
        self.told: set[Attempt] = set()
        self.asked: set[Attempt] = set()

    def note(self, effects: Iterable[fx.Effect]) -> None:
        """These effects were carried out."""
        for effect in effects:
            match effect:
                case fx.Ask():
                    self.asked.add((effect.step, effect.run, effect.attempt))
                case fx.DispatchAttempt() | fx.TakeBack(why="overdue"):  # one is handed out, or put back, so that it is proven
                    self.out.add((effect.step, effect.run, effect.attempt))
                    self.sent.add((effect.step, effect.run, effect.attempt))
                case fx.TakeBack():
                    self.out.discard((effect.step, effect.run, effect.attempt))
                    if effect.why in ("stop", "over"):
                        self.told.add((effect.step, effect.run, effect.attempt))

    def prove(self, state: ExecutionState) -> None:
        """What is held by now is with nobody, until it is handed out once more."""
        self.sent -= {_attempt(state, index) for index in state.in_flight if state.steps[index].held}

    def reaches(self, state: ExecutionState, index: int) -> bool:
        """Whether somebody has the open attempt of this step, or will have it."""
        attempt = _attempt(state, index)
        asks = state.steps[index].asking and attempt in self.asked
        return asks or state.steps[index].started_at is not None or attempt in self.out

    def may_answer(self, state: ExecutionState, index: int) -> bool:
        """Whether a stop can hear of the open attempt of this step: somebody may have it, and was told."""
        step, attempt = state.steps[index], _attempt(state, index)
        return attempt in self.told and (step.started_at is not None or (attempt in self.sent and not step.held))


def _attempt(state: ExecutionState, index: int) -> Attempt:
    return state.graph.steps[index].id, state.run, state.steps[index].attempt


def stuck(state: ExecutionState, handed: Handed) -> str | None:
    """Why nobody and nothing will wake the execution, or carry on with an attempt of it; None: it goes on, or has ended.

    A stop, also one during a pause, waits only for what somebody may have; what nobody has it settles at once, unless there was
    no room for that.
    """
    if state.ended or not state.exists or (state.paused and not state.stopping):
        return None
    openings = [index for index, one in enumerate(state.steps) if one.open]
    heard = handed.may_answer if state.stopping else handed.reaches
    unheard = [state.graph.steps[index].id for index in openings if not heard(state, index)]
    if unheard and not (state.stopping and has_more(state)):
        return f"the stop waits for {unheard}" if state.stopping else f"nobody was handed the open attempts of {unheard}"
    waking = any(timer.kind in WAKING for timer in state.timers.values())
    if state.slot is not None and not state.slot.granted:
        waking = waking or (WHOLE, state.slot.run, 0) in handed.asked
    if waking or has_more(state) or openings:
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
    if isinstance(event, e.TaskRateLimited | e.TaskGranted) and state.phase == "rolling_back":
        return None if now[1] == was[1] else f"{e.type_of(event)} of an undoing made a step that was {was[1]} {now[1]}"
    if now[1] not in (STEP[kind].get(was[1], ()) if kind in STEP else was[1:]):
        return f"{e.type_of(event)} made a step that was {was[1]} {now[1]}"
    return None
