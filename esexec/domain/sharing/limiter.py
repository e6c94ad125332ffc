"""A rate limit: at most so many grants within any window. Exact by the times of the grants in this entity's own history.

A grant at `t` is given only if fewer than `max_executions` were given later than `t - window_ms`. So the n-th grant from the end
is all that has to be looked at, whatever the windows of those who ask; and each is judged by its own rule.

As many grants are known as the largest rule so far counts. Where a still larger one comes, what is not known is taken to be as
late as it can have been: it may have to wait for once, and never begins too early.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from esexec.domain.sharing.requests import AskToBegin
from esexec.domain.sharing.state import Request, SharedState

KEPT = 200
"""So many grants are remembered at least, for a rule that is larger than those before."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def in_turn(state: SharedState, requests: list[Request], now: datetime, stays: Callable[[Request], bool]) -> Iterator[Request]:
    """Who can be granted now, one after the other; the state knows of each before the next is asked for.

    Nobody goes before who asked first, if that one stays in line (`stays`).
    """
    for request in requests:
        if _has_room(state, _rule(request), now):
            yield request
        elif stays(request):
            return


def note_grant(state: SharedState, ask: AskToBegin, time: datetime) -> None:
    """There is one more."""
    state.most = max(state.most, ask.max_executions, KEPT)
    state.window.append(_microseconds(time))
    if len(state.window) > 2 * state.most:
        state.forgotten = state.window[-state.most - 1]
        del state.window[: -state.most]


def room_at(state: SharedState, ask: AskToBegin, ahead: int) -> datetime | None:
    """When at the earliest there is room behind `ahead` others of the same rule; None: now, as far as is known."""
    window = timedelta(milliseconds=ask.window_ms)
    windows, ahead = divmod(ahead, ask.max_executions)  # after each window as many of those can begin
    leaving = _leaving(state, ask.max_executions - ahead)
    room = None if leaving is None else _EPOCH + timedelta(microseconds=leaving) + window
    if room is not None and state.time is not None and room <= state.time:
        room = None
    if not windows:
        return room
    first = room or state.time
    return first and first + windows * window


def begun_since(state: SharedState, since: datetime) -> list[str]:
    """Whose grants were given since then, as far as they are known by name. Of what is forgotten it is taken to be so."""
    names, given_since = list(state.recent), _microseconds(since)
    known = min(len(names), len(state.window))
    forgotten, names = names[: len(names) - known], names[len(names) - known :]
    times = state.window[len(state.window) - known :]  # the last of both are the same
    begun = [name for name, time in zip(names, times, strict=True) if time >= given_since]
    return forgotten + begun if state.forgotten >= given_since else begun


def next_room(state: SharedState) -> datetime | None:
    """When the first who waits can be granted; None: nobody waits."""
    if not state.waiting:
        return None
    return room_at(state, _rule(state.waiting[0]), 0) or state.time


def _has_room(state: SharedState, ask: AskToBegin, now: datetime) -> bool:
    leaving = _leaving(state, ask.max_executions)
    return leaving is None or _microseconds(now) - leaving >= ask.window_ms * 1000


def _leaving(state: SharedState, most: int) -> int | None:
    """When the grant was given, at the latest, that has to be out of the window; None: there were not so many."""
    if most <= len(state.window):
        return state.window[-most]
    return state.forgotten or None


def _rule(request: Request) -> AskToBegin:
    assert isinstance(request.ask, AskToBegin)
    return request.ask


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
