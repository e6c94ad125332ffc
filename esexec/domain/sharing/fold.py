"""From event to state, for the entities that executions share: one function per event, and `fold` over a history.

A history may begin with a commit whose first event is `compacted`: that holds all that was before.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Commit
from esexec.domain.errors import CorruptHistory
from esexec.domain.sharing import limiter, pools, slots
from esexec.domain.sharing.requests import AskForResources, AskForSlot, AskToBegin, denied, waits
from esexec.domain.sharing.snapshot import read_snapshot
from esexec.domain.sharing.state import RECENT_DROPPED, Grant, Request, SharedState, Wake, drop, enqueue, remember

_FEW = 2
"""So few events never fill a commit, however large."""


def fold_shared(entity: str, commits: Iterable[Commit], state: SharedState | None = None) -> SharedState:
    """The state after these commits. Raises `CorruptHistory` on a gap, or if they tell what cannot have happened."""
    if state is None:
        commits, state = _from_compacted(list(commits)), SharedState(entity)
    for commit in commits:
        if state.n == 0 and isinstance(commit.events[0], e.Compacted):
            state = read_snapshot(commit.events[0])
        if commit.n != state.n + 1 or commit.version != state.version + 1:
            raise CorruptHistory(f"{entity}: expected commit {state.n + 1}, found {commit.n}")
        begin(state, commit.n, commit.time)
        try:
            for event in commit.events:
                evolve(state, event)
        except Exception as error:
            raise CorruptHistory(f"{entity}: commit {commit.n} cannot have happened ({error!r})") from error
        for cause in commit.commands:
            remember(state.applied, cause.id, commit.n)
        end(state, len(commit.events))
    return state


def _from_compacted(commits: list[Commit]) -> list[Commit]:
    """Those from the last one on that holds all that was before: some of what was before may be gone already, and some not."""
    whole = (place for place in range(len(commits) - 1, -1, -1) if isinstance(commits[place].events[0], e.Compacted))
    return commits[next(whole, 0) :]


def begin(state: SharedState, n: int, time: datetime) -> None:
    """The events that are evolved next belong to commit `n` of this time."""
    state.n, state.time = n, time


def end(state: SharedState, events: int) -> None:
    """The commit is whole: what is to be looked at later, and when. What did not fit into it is looked at again at once."""
    may_be_full = events > _FEW or state.compacted == state.n  # to look who could be served takes long where many wait
    left = events >= limits.events_per_commit or (may_be_full and has_more(state))
    due = state.time if left else _due(state)
    if due is None:
        state.wake = None
    elif state.wake is None or due < state.wake.due or state.wake.due <= (state.time or due):
        state.wake = Wake(state.n, due)  # one that was due by now has been, or finds nothing when it comes


def next_due(state: SharedState) -> datetime | None:
    """When something becomes possible by time alone; None: nothing does. It is at once where a commit had no room for it."""
    return state.time if has_more(state) else _due(state)


def _due(state: SharedState) -> datetime | None:
    leases = [grant.until for grant in state.held.values() if grant.until is not None]
    if leases:
        return min(leases)
    return limiter.next_room(state) if state.waiting and isinstance(state.waiting[0].ask, AskToBegin) else None


def has_more(state: SharedState) -> bool:
    """Whether somebody who waits can be granted what it waits for, or told that it does not get it, as soon as there is room."""
    if not state.waiting:
        return False
    if not all(waits(request.ask) for request in state.waiting):
        return True
    match state.waiting[0].ask:
        case AskToBegin():
            return False  # that is a matter of time
        case AskForSlot():
            return bool(slots.replaced(state)) or any(True for _ in slots.in_turn(state, state.waiting, _stays))
        case AskForResources():
            return any(True for _ in pools.in_vain(state)) or any(True for _ in pools.in_turn(state, state.waiting, _stays))


def _stays(request: Request) -> bool:
    return waits(request.ask)


def evolve(state: SharedState, event: e.Event) -> None:
    """The state after this event."""
    state.version += 1
    _EVOLVE[type(event)](state, event)


def _queued(state: SharedState, event: e.RequestQueued) -> None:
    if isinstance(event.ask, AskForSlot):
        slots.note_wait(state, event.ask)
    assert state.time is not None
    enqueue(state, Request(event.request_id, state.version, event.ask, event.at or state.time, event.priority))


def _granted(state: SharedState, event: e.RequestGranted) -> None:
    waited = drop(state, event.request_id)
    ask = event.ask if waited is None else waited.ask
    assert ask is not None and state.time is not None
    if isinstance(ask, AskToBegin):
        limiter.note_grant(state, ask, state.time)
        remember(state.recent, event.request_id, state.version)
        return
    at = (event.at or state.time) if waited is None else waited.at
    state.held[event.request_id] = Grant(event.request_id, ask, state.time, at, event.resources, event.until)
    if isinstance(ask, AskForSlot):
        slots.note_grant(state, ask)


def _dropped(state: SharedState, event: e.RequestDropped) -> None:
    request = drop(state, event.request_id)
    if request is not None and event.error is not None:
        answer = denied(state.entity, event.error, skipped=event.skipped)
        remember(state.dropped, event.request_id, answer, RECENT_DROPPED)


def _released(state: SharedState, event: e.GrantReleased) -> None:
    grant = state.held[event.request_id]
    left = tuple(one for one in grant.resources if one.id not in event.resources) if event.resources else ()
    if left:
        state.held[event.request_id] = msgspec.structs.replace(grant, resources=left)
    else:
        del state.held[event.request_id]


def _renewed(state: SharedState, event: e.LeaseRenewed) -> None:
    state.held[event.request_id] = msgspec.structs.replace(state.held[event.request_id], until=event.until)


def _declared(state: SharedState, event: e.PoolDeclared) -> None:
    state.pools[event.pool.id] = event.pool
    pools.changed(state)


def _removed(state: SharedState, event: e.PoolRemoved) -> None:
    del state.pools[event.pool_id]
    pools.changed(state)


def _compacted(state: SharedState, event: e.Compacted) -> None:
    state.compacted = state.n


_EVOLVE: dict[type, Callable[[SharedState, Any], None]] = {
    e.RequestQueued: _queued,
    e.RequestGranted: _granted,
    e.RequestDropped: _dropped,
    e.GrantReleased: _released,
    e.LeaseRenewed: _renewed,
    e.PoolDeclared: _declared,
    e.PoolRemoved: _removed,
    e.Compacted: _compacted,
}
