"""What must happen after a commit: a pure function of its events and the current state.

An effect names exactly one attempt or timer, and is due only while that is open. So the same function serves a fresh commit
and the repetition of an old one: what has been dealt with since simply gives no effect any more. An effect holds all that is
needed to carry it out, for the state goes on changing meanwhile.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from esexec.domain import events as e
from esexec.domain import limits, messages
from esexec.domain.advance import has_more
from esexec.domain.asking import ask_of, ask_of_execution
from esexec.domain.commands import StartExecution
from esexec.domain.dispatches import Deferred, dispatch_later, dispatch_of, dispatch_with_objects, start_of_fork
from esexec.domain.errors import ErrorInfo, InternalError, ValidationError
from esexec.domain.objects import ObjectNeeded
from esexec.domain.sharing.requests import WHOLE, Acquire
from esexec.domain.state import HELD_BY_A_PAUSE, ExecutionState, Lane


class DispatchAttempt(NamedTuple):
    """Hand an open attempt to its workers. `message` an error: it cannot be handed out, and that is its outcome; `Deferred`: only
    with objects at hand.

    `again`: it may have been handed out before, and its report may be on its way. `in_hand`: and a worker may have it of whose
    lease nothing is left.
    """

    step: str
    run: int
    attempt: int
    queue: str
    priority: int
    message: messages.Dispatch | Deferred | ErrorInfo
    again: bool = False
    in_hand: bool = False


class SetTimer(NamedTuple):
    """Wake the execution at `due`, `wait_s` seconds after this commit; `name` is the version of the event that asked for it."""

    name: int
    due: datetime
    wait_s: float


class ClearTimer(NamedTuple):
    """The timer is not needed any more; what takes its place stands."""

    name: int


WhyTakenBack = Literal["stop", "over", "overdue", "pause"]


class TakeBack(NamedTuple):
    """Take an attempt's dispatch back, if no worker has it.

    stop: the execution is being stopped; it is reported if nobody had it, else whoever has it is told to stop. over: nobody
    waits for it any more; whoever has it is told to stop. overdue: it is reported if nobody had it, and put back if it was not
    there (`again`). pause: it is reported if nobody had it; `pause` is the version of the pause.
    """

    step: str
    run: int
    attempt: int
    queue: str
    priority: int
    why: WhyTakenBack
    reason: str = ""
    pause: int = 0
    again: DispatchAttempt | None = None


class LookLater(NamedTuple):
    """Look, a little later, where everything is that is open."""


class Ask(NamedTuple):
    """Ask an entity that executions share for what an attempt must be granted. `message` an error: nothing can be asked for.

    `step` `_`: for the execution as a whole. `queue`: of the attempt.
    """

    step: str
    run: int
    attempt: int
    queue: str
    message: Acquire | ErrorInfo


class GiveBack(NamedTuple):
    """Tell an entity that a grant is not needed any more, or that nobody waits for it."""

    entity: str
    step: str
    attempt: str


class ContinueLater(NamedTuple):
    """More is to be decided than fitted into commit `after`."""

    after: int


class StartFork(NamedTuple):
    """Start the execution that carries on from this one."""

    new_id: str
    command: StartExecution


Effect = DispatchAttempt | SetTimer | ClearTimer | TakeBack | LookLater | Ask | GiveBack | ContinueLater | StartFork


def effects_of(
    events: Sequence[e.Event], first_version: int, state: ExecutionState, n: int, *, unfinished: bool | None = None
) -> list[Effect]:
    """The effects of the events of commit `n`, the first of which is `first_version`, that are still open in `state`.

    `unfinished`: whether the decision had to leave something; None: not known, so the state is asked.
    """
    effects: list[Effect] = []
    resumed = False
    for version, event in enumerate(events, first_version):
        if (follow := _FOLLOW.get(type(event))) is not None:
            follow(effects, state, event, version)
            resumed = resumed or follow is _resume
    if resumed:
        effects = _each_once(effects)
    if state.left:
        effects.extend(_give_up(state, lane) for lane in state.left.get(n, ()))
    if state.given_back:
        effects.extend(GiveBack(*holding) for holding in state.given_back.get(n, ()))
    if state.cleared:
        effects.extend(ClearTimer(version) for version in state.cleared.get(n, ()))
    if has_more(state) if unfinished is None else unfinished:
        effects.append(ContinueLater(state.n))
    return effects


def _each_once(effects: list[Effect]) -> list[Effect]:
    """A resume looks for all that is open; what its own commit scheduled is handed out by that, and not a second time."""
    out = {(one.step, one.attempt) for one in effects if isinstance(one, DispatchAttempt) and not one.again}
    once: list[Effect] = []
    for one in effects:
        if isinstance(one, DispatchAttempt) and one.again:
            if (one.step, one.attempt) in out:
                continue
            out.add((one.step, one.attempt))
        once.append(one)
    return once


def open_effects(state: ExecutionState) -> list[Effect]:
    """Everything that is open in a state, and all that was to be given back: what a nudge repeats."""
    effects: list[Effect] = []
    if state.stopping and not state.ended:
        effects.extend(_stops(state))
    elif not state.paused:
        effects.extend(_overdue(state, index) if state.steps[index].overdue else _go_on(state, index) for index in _open(state))
    if state.slot is not None and not state.slot.granted:
        effects.append(_ask_for_slot(state))
    effects.extend(_set(state, version) for version in state.timers)
    effects.extend(GiveBack(*holding) for holdings in state.given_back.values() for holding in holdings)
    if has_more(state):
        effects.append(ContinueLater(state.n))
    return effects


# By event ------------------------------------------------------------------------------------------------------------


def _timer(effects: list[Effect], state: ExecutionState, event: e.Event, version: int) -> None:
    """The event's version may be the name of a timer."""
    if version in state.timers:
        effects.append(_set(state, version))


def _set(state: ExecutionState, version: int) -> SetTimer:
    due = state.timers[version].due
    return SetTimer(version, due, (due - (state.time or due)).total_seconds())


def _dispatch(
    effects: list[Effect],
    state: ExecutionState,
    event: e.TaskScheduled | e.CompensationScheduled | e.RecoveryInitiated,
    version: int,
) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    is_open = step.open and step.attempt == event.attempt and event.run == state.run
    if not is_open or state.stopping:
        return
    if step.gate is not None:  # after the last grant it is that which hands it out
        if step.asking and not state.paused:
            effects.append(_ask(state, index))
    elif not state.paused and not step.overdue:
        effects.append(_hand_out(state, index))
    if step.timer and step.delay_ms < limits.backstop_timer_ms:
        effects.append(ClearTimer(step.timer))  # a longer one has fired to get here, and is gone by itself
    if state.timers:
        _timer(effects, state, event, version)


def _granted(effects: list[Effect], state: ExecutionState, event: e.TaskGranted | e.ResourceAllocated, version: int) -> None:
    """It asks for the next, or is handed out."""
    index = state.graph.index[event.step]
    step = state.steps[index]
    if not step.open or step.attempt != event.attempt or event.run != state.run or state.stopping:
        return
    if not state.paused and not step.overdue:
        effects.append(_ask(state, index) if step.asking else _hand_out(state, index))
    if state.timers:
        _timer(effects, state, event, version)


def _queued(effects: list[Effect], state: ExecutionState, event: e.ExecutionQueued, version: int) -> None:
    if state.slot is not None and state.slot.run == event.run and not state.slot.granted:
        effects.append(_ask_for_slot(state))


def _stop_all(effects: list[Effect], state: ExecutionState, event: e.Event, version: int) -> None:
    if version in state.timers:
        effects.append(_set(state, version))
        effects.extend(_stops(state))


def _began(
    effects: list[Effect], state: ExecutionState, event: e.TaskStarted | e.RecoveryStarted | e.CompensationStarted, version: int
) -> None:
    """While the execution is being stopped: whoever has it was not told, or began all the same."""
    if state.stopping:
        index = state.graph.index[event.step]
        if state.steps[index].open:  # that somebody has it is known now, so it cannot turn out that nobody had
            effects.append(_stop(state, index)._replace(why="over"))


def _overdue_one(effects: list[Effect], state: ExecutionState, event: e.TaskOverdue, version: int) -> None:
    """While the execution is being stopped, the attempt is taken back for that.

    If it turned out meanwhile that somebody has begun it, its dispatch may have been deleted all the same, by who died of it.
    """
    if state.stopping:
        return
    index = state.graph.index[event.step]
    step = state.steps[index]
    if not step.open or step.attempt != event.attempt or event.run != state.run:
        return
    if step.overdue:
        effects.append(_overdue(state, index))
    elif not state.paused:
        effects.append(_hand_out_again(state, index))


def _pause(effects: list[Effect], state: ExecutionState, event: e.ExecutionPaused, version: int) -> None:
    """What nobody is known to have begun is not to begin while the execution is paused.

    If it was resumed meanwhile, by another executor, what was taken back behind that one's back is handed out once more.
    """
    if state.ended or state.stopping:
        return
    if state.paused:
        waiting = [index for index in _waiting(state) if not state.steps[index].held]
        effects.extend(_take_back(state, index, "pause")._replace(pause=state.pause) for index in waiting)
    else:
        _look_for_all(effects, state)


def _resume(effects: list[Effect], state: ExecutionState, event: e.ExecutionResumed, version: int) -> None:
    """What was held is handed out, what else is open is looked for, and the timers that had no effect are set again."""
    if state.paused or state.ended:
        return
    if not state.stopping:
        _look_for_all(effects, state, freed=state.freed)
    effects.extend(_set(state, version) for version, timer in state.timers.items() if timer.kind in HELD_BY_A_PAUSE)


def _forked(effects: list[Effect], state: ExecutionState, event: e.ExecutionForked, version: int) -> None:
    effects.append(StartFork(event.new_id, start_of_fork(state, event, version)))


_FOLLOW: dict[type, Callable[[list[Effect], ExecutionState, Any, int], None]] = {
    e.TaskScheduled: _dispatch,
    e.CompensationScheduled: _dispatch,
    e.RecoveryInitiated: _dispatch,
    e.TaskStarted: _began,
    e.RecoveryStarted: _began,
    e.CompensationStarted: _began,
    e.TaskRetryScheduled: _timer,
    e.CompensationRetryScheduled: _timer,
    e.TaskOverdue: _overdue_one,
    e.ExecutionCreated: _timer,
    e.ExecutionStarted: _timer,
    e.ExecutionRetried: _timer,
    e.DeadlineSet: _timer,
    e.CheckpointCreated: _timer,
    e.CheckpointRestored: _timer,
    e.ExecutionCancelRequested: _stop_all,
    e.DeadlineExceeded: _stop_all,
    e.ExecutionPaused: _pause,
    e.ExecutionResumed: _resume,
    e.ExecutionForked: _forked,
    e.TaskGranted: _granted,
    e.ResourceAllocated: _granted,
    e.ExecutionQueued: _queued,
}
"""What an event asks for; one that is missing here asks for nothing."""


# Attempts ------------------------------------------------------------------------------------------------------------


def _open(state: ExecutionState) -> list[int]:
    return [index for index in state.in_flight if state.steps[index].open]


def _waiting(state: ExecutionState) -> list[int]:
    """Open attempts that nobody is known to have begun."""
    return [index for index in _open(state) if state.steps[index].started_at is None and not state.steps[index].overdue]


def _hand_out(state: ExecutionState, index: int) -> DispatchAttempt:
    step, policy = state.steps[index], state.attempt_policy(index)
    message: messages.Dispatch | Deferred | ErrorInfo
    try:
        message = dispatch_of(state, index, policy) if not state.has_objects else dispatch_with_objects(state, index, policy)
    except Exception as error:  # whatever it is, a dispatch that were given up would hold up its execution for ever
        told = error if isinstance(error, ValidationError) else InternalError(f"the params cannot be sent: {error!r}")
        message = told.info
        if told.code == "params_too_large" and step.purpose in ("task", "fallback"):  # for here, where all are told at once
            message = dispatch_later(state, index, policy)
    return DispatchAttempt(state.graph.steps[index].id, state.run, step.attempt, policy.queue, policy.priority, message)


def _ask(state: ExecutionState, index: int) -> Ask:
    """Ask for the first that the open attempt of a step is missing."""
    step, gate = state.steps[index], state.steps[index].gate
    assert gate is not None
    message: Acquire | ErrorInfo
    try:
        message = ask_of(state, index, gate.asks[0])
    except ValidationError as error:
        message = error.info
    except ObjectNeeded:
        hint = "hand what the key needs over in the context"
        message = ValidationError("the key is in an object", code="value_in_object", hint=hint).info
    return Ask(state.graph.steps[index].id, state.run, step.attempt, state.attempt_policy(index).queue, message)


def _ask_for_slot(state: ExecutionState) -> Ask:
    assert state.slot is not None
    return Ask(WHOLE, state.slot.run, 0, "", ask_of_execution(state))


def _go_on(state: ExecutionState, index: int) -> Effect:
    """An open attempt goes on, wherever it is: it asks once more for what it is missing, or is handed out if it is nowhere."""
    return _ask(state, index) if state.steps[index].asking else _hand_out_again(state, index)


def _hand_out_again(state: ExecutionState, index: int) -> DispatchAttempt:
    """Wherever it is: in TASKS, in INBOX or in a worker's hands, it is not handed out a second time."""
    return _hand_out(state, index)._replace(again=True, in_hand=True)


def _look_for_all(effects: list[Effect], state: ExecutionState, *, freed: frozenset[int] = frozenset()) -> None:
    """Hand out whatever is open and nowhere; `freed`: what nobody can have.

    What is overdue is being taken back by who decided that; whether that was done is looked at later.
    """
    found = _open(state)
    overdue = [index for index in found if state.steps[index].overdue]
    for index in found:
        if state.steps[index].asking:
            effects.append(_ask(state, index))
        elif not state.steps[index].overdue:
            effects.append(_hand_out_again(state, index)._replace(in_hand=index not in freed))
    if overdue:
        effects.append(LookLater())


def _stops(state: ExecutionState) -> list[TakeBack]:
    return [_stop(state, index) for index in _open(state)]


def _stop(state: ExecutionState, index: int) -> TakeBack:
    reason = state.cancel_reason if state.cancel else "the execution's deadline has passed"
    return _take_back(state, index, "stop")._replace(reason=reason)


def _overdue(state: ExecutionState, index: int) -> TakeBack:
    again = None if state.paused else _hand_out_again(state, index)  # during a pause it is not put there again
    return _take_back(state, index, "overdue")._replace(again=again)


def _take_back(state: ExecutionState, index: int, why: WhyTakenBack) -> TakeBack:
    step, policy = state.steps[index], state.attempt_policy(index)
    return TakeBack(state.graph.steps[index].id, state.run, step.attempt, policy.queue, policy.priority, why)


def _give_up(state: ExecutionState, lane: Lane) -> TakeBack:
    """An attempt that nobody waits for any more."""
    step = state.graph.steps[lane.step].id
    return TakeBack(step, lane.run, lane.attempt, lane.queue, lane.priority, "over", "the execution went on without it")
