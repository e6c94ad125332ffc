"""What must happen after a commit of an entity that executions share: answers, a timer, holders that have to go.

A pure function of its events and the present state, as `effects` is for executions: what has been dealt with since gives nothing
any more, and all of it may be repeated.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from esexec.domain import events as e
from esexec.domain.sharing import limiter, slots
from esexec.domain.sharing.fold import next_due
from esexec.domain.sharing.requests import Answer, AskForSlot, AskToBegin, Granted, Waiting, denied, gate_of
from esexec.domain.sharing.state import Request, SharedState


class Tell(NamedTuple):
    """Tell somebody what became of its request."""

    request_id: str
    answer: Answer
    until: datetime | None = None


class SetWake(NamedTuple):
    """Look at the entity again at `due`."""

    name: int
    due: datetime


class MakeRoom(NamedTuple):
    """An execution that holds a slot is to be cancelled: `by` takes its place."""

    request_id: str
    by: str


Follow = Tell | SetWake | MakeRoom


def follow(events: Sequence[e.Event], state: SharedState, n: int) -> list[Follow]:
    """What follows from the events of commit `n`, as far as it is still so in `state`."""
    concerned = {one.request_id: one for one in events if isinstance(one, e.RequestGranted | e.RequestQueued | e.RequestDropped)}
    out = [one for request_id, last in concerned.items() for one in _told(state, request_id, last)]
    if state.wake is not None and state.wake.name == n:
        out.append(SetWake(*_wake(state)))
    return out


def _told(state: SharedState, request_id: str, event: e.RequestGranted | e.RequestQueued | e.RequestDropped) -> list[Follow]:
    """Who was dropped is told by the event itself: a state does not know everybody by name for ever."""
    if isinstance(event, e.RequestDropped) and event.error is not None:
        return [Tell(request_id, denied(state.entity, event.error, skipped=event.skipped))]
    return told_again(state, request_id)


def _wake(state: SharedState) -> tuple[int, datetime]:
    assert state.wake is not None
    return state.wake.name, state.wake.due


def everything(state: SharedState, since: datetime | None = None) -> list[Follow]:
    """All that follows from what the entity is now: whoever should have told it may have died. `since`: what was granted before
    that was told.

    Of those who wait nobody is told again, for each asked by a message of its own, which comes again as well.
    """
    held = [grant.id for grant in state.held.values() if since is None or grant.time >= since]
    begun = list(state.recent) if since is None else limiter.begun_since(state, since)
    out = [one for request_id in (*state.dropped, *held, *begun) for one in told_again(state, request_id)]
    return out + ([SetWake(*_wake(state))] if state.wake is not None else [])


def look_again(state: SharedState, name: str, not_before: datetime) -> list[Follow]:
    """What follows after the wake-up of this name came. If it is the present one (any other has been replaced by one with a timer
    of its own), and something will still become possible, it was early, and comes once more."""
    if state.wake is None or str(state.wake.name) != name or (due := next_due(state)) is None:
        return []
    return [SetWake(state.wake.name, max(due, not_before))]


def told_again(state: SharedState, request_id: str) -> list[Follow]:
    """What has become of a request, and whoever stands in its way is told to go."""
    if request_id in state.held:
        grant = state.held[request_id]
        return [Tell(request_id, Granted(entity=state.entity, gate=gate_of(grant.ask), resources=grant.resources), grant.until)]
    if request_id in state.recent:
        return [Tell(request_id, Granted(entity=state.entity, gate="rate_limit"))]
    if request_id not in state.names:
        return [Tell(request_id, state.dropped[request_id])] if request_id in state.dropped else []
    request, ahead = _waiting(state, request_id)
    until = limiter.room_at(state, request.ask, ahead) if isinstance(request.ask, AskToBegin) else None
    answer = Waiting(entity=state.entity, gate=gate_of(request.ask), until=until, ahead=ahead)
    out: list[Follow] = [Tell(request_id, answer)]
    if isinstance(request.ask, AskForSlot) and request.ask.policy == "replace":
        out += [MakeRoom(grant.id, request_id) for grant in slots.in_its_way(state, request.ask)]
    return out


def _waiting(state: SharedState, request_id: str) -> tuple[Request, int]:
    """A request that waits, and how many wait before it."""
    return next((one, place) for place, one in enumerate(state.waiting) if one.id == request_id)
