"""A rate limit: at most so many grants within any window. Exact by the times of the grants in this entity's own history.

A grant at `t` is given only if fewer than `max_executions` were given later than `t - window_ms`. So the n-th grant from the end
is all that has to be looked at, whatever the windows of those who ask; and each is judged by its own rule.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from esexec.domain.sharing.requests import AskToBegin
from esexec.domain.sharing.state import Request, SharedState

KEPT = 200
"""So many grants are remembered at least, for a rule that is larger than those before."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def in_turn(state: SharedState, requests: list[Request], now: datetime) -> Iterator[Request]:
    """Who can be granted now, one after the other; the state knows of each before the next is asked for.

    Nobody goes before who asked first.
    """
    for request in requests:
        if not _has_room(state, _rule(request), now):
            return
        yield request


def note_grant(state: SharedState, ask: AskToBegin, time: datetime) -> None:
    """There is one more."""
    state.most = max(state.most, ask.max_executions)
    state.window.append(_microseconds(time))
    kept = max(state.most, KEPT)
    if len(state.window) > 2 * kept:
        state.forgotten = state.window[-kept - 1]
        del state.window[:-kept]


def room_at(state: SharedState, ask: AskToBegin, ahead: int) -> datetime | None:
    """When at the earliest there is room behind `ahead` others of the same rule; None: now, as far as is known."""
    place = len(state.window) + ahead - ask.max_executions
    if place < 0:
        window = timedelta(milliseconds=ask.window_ms)
        return _EPOCH + timedelta(microseconds=state.forgotten) + window if state.forgotten else None
    windows = 1
    while place >= len(state.window):  # room for it is made by a grant that is to come
        place -= ask.max_executions
        windows += 1
        if place < 0:  # that one can be given now
            return state.time and state.time + (windows - 1) * timedelta(milliseconds=ask.window_ms)
    return _EPOCH + timedelta(microseconds=state.window[place]) + windows * timedelta(milliseconds=ask.window_ms)


def next_room(state: SharedState) -> datetime | None:
    """When the first who waits can be granted; None: nobody waits."""
    if not state.waiting:
        return None
    return room_at(state, _rule(state.waiting[0]), 0) or state.time


def _has_room(state: SharedState, ask: AskToBegin, now: datetime) -> bool:
    window, most = state.window, ask.max_executions
    if len(window) < most:  # as far as is known: those that were forgotten may have been as many as it takes
        return not state.forgotten or _microseconds(now) - state.forgotten >= ask.window_ms * 1000
    return _microseconds(now) - window[-most] >= ask.window_ms * 1000


def _rule(request: Request) -> AskToBegin:
    assert isinstance(request.ask, AskToBegin)
    return request.ask


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
