"""What must happen after a commit: a pure function of its events and the current state.

An effect names exactly one attempt or timer, and is due only while that is open. So the same function serves a fresh commit
and the repetition of an old one: what has been dealt with since simply gives no effect any more.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from esexec.domain import events as e
from esexec.domain import limits, messages, references
from esexec.domain.advance import has_more
from esexec.domain.state import ExecutionState


class DispatchAttempt(NamedTuple):
    """Hand the open attempt of a step to its workers."""

    step: int
    attempt: int


class SetTimer(NamedTuple):
    """Wake the execution at `due`; `name` is the version of the event that asked for it."""

    name: int
    due: datetime


class ClearTimer(NamedTuple):
    """The timer is not needed any more; what takes its place stands."""

    name: int


class Withdraw(NamedTuple):
    """Take the attempt's dispatch back if no worker has it, and tell the worker that may have it to stop."""

    step: int
    attempt: int


class ContinueLater(NamedTuple):
    """More is to be decided than fitted into commit `after`."""

    after: int


Effect = DispatchAttempt | SetTimer | ClearTimer | Withdraw | ContinueLater


def effects_of(
    events: Sequence[e.Event], first_version: int, state: ExecutionState, *, unfinished: bool | None = None
) -> list[Effect]:
    """The effects of these events, the first of which is `first_version`, that are still open in `state`.

    `unfinished`: whether the decision had to leave something; None: not known, so the state is asked.
    """
    effects: list[Effect] = []
    for version, event in enumerate(events, first_version):
        kind = type(event)
        if kind is e.TaskScheduled:
            _dispatch(effects, state, event)  # type: ignore[arg-type]
        elif kind is e.TaskRetryScheduled:
            if (timer := state.timers.get(version)) is not None:
                effects.append(SetTimer(version, timer.due))
        elif kind is e.TaskCancelled:
            if timer_of := state.steps[state.graph.index[event.step]].timer:  # type: ignore[union-attr]
                effects.append(ClearTimer(timer_of))
        elif kind is e.TaskStarted and state.cancel:
            # Whoever has it was not told, or began all the same.
            index = state.graph.index[event.step]  # type: ignore[union-attr]
            if state.steps[index].open:
                effects.append(Withdraw(index, state.steps[index].attempt))
        elif kind is e.ExecutionCancelRequested:
            if (timer := state.timers.get(version)) is not None:
                effects.append(SetTimer(version, timer.due))
                effects.extend(_withdrawals(state))
        elif kind is e.ExecutionCancelled and state.cancel:
            effects.append(ClearTimer(state.cancel))
    if has_more(state) if unfinished is None else unfinished:
        effects.append(ContinueLater(state.n))
    return effects


def _dispatch(effects: list[Effect], state: ExecutionState, event: e.TaskScheduled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    if step.open and step.attempt == event.attempt and event.run == state.run and not state.cancel:
        effects.append(DispatchAttempt(index, event.attempt))
        if event.attempt > 1 and step.delay_ms < limits.backstop_timer_ms:
            effects.append(ClearTimer(step.timer))  # a longer one has fired to get here, and is gone by itself


def _withdrawals(state: ExecutionState) -> list[Effect]:
    open_steps = [(index, state.steps[index]) for index in state.in_flight if state.steps[index].open]
    return [Withdraw(index, step.attempt) for index, step in open_steps]


def open_effects(state: ExecutionState) -> list[Effect]:
    """Everything that is open in a state: what a nudge repeats."""
    if state.cancel and not state.ended:
        effects = _withdrawals(state)
    else:
        open_steps = [(index, state.steps[index]) for index in state.in_flight if state.steps[index].open]
        effects = [DispatchAttempt(index, step.attempt) for index, step in open_steps]
    effects.extend(SetTimer(version, timer.due) for version, timer in state.timers.items())
    if has_more(state):
        effects.append(ContinueLater(state.n))
    return effects


def dispatch_of(state: ExecutionState, index: int, attempt: int) -> messages.Dispatch:
    """The message that hands the open attempt of a step to a worker, its references resolved.

    Raises `ValidationError` (code `reference_unresolved`) if a reference points to what is not there.
    """
    step, template = state.graph.steps[index], state.graph.templates[index]
    policy, created = state.policy_of(index), state.created
    if template is None:
        params = step.params
    else:
        params = references.resolve(template, input=created.input, context=created.context, output_of=state.output_of)
    return messages.Dispatch(
        execution_id=state.execution_id,
        step=step.id,
        task=step.task,
        attempt=attempt,
        run=state.run,
        params=params,
        context=created.context,
        timeout_ms=policy.timeout_ms,
        max_attempts=policy.max_retries + 1,
        queue=policy.queue,
        priority=policy.priority,
    )
