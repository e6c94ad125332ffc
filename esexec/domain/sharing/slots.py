"""A concurrency key: so many at once with the same key, and, if there is a total, so many of its scope, the keys in turn.

Of the keys for whom there is room that one comes first that has waited the longest, since its last grant or since it began to
wait; within a key whoever asked first. So a key with a thousand who wait takes nothing from one with a single one, and keys that
were never seen before take nothing from one that waits.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from heapq import heapify, heappop, heappush

from esexec.domain.sharing.requests import AskForSlot
from esexec.domain.sharing.state import Grant, Request, SharedState


def in_turn(state: SharedState, requests: list[Request], stays: Callable[[Request], bool]) -> Iterator[Request]:
    """Who can be granted now, one after the other; the state knows of each before the next is asked for.

    `stays`: whether one stays in line for whom there is no room; only then it keeps back those behind it.
    """
    lines: dict[str, deque[Request]] = {}
    for request in requests:
        lines.setdefault(_rule(request).key, deque()).append(request)
    running = Counter(_key(grant) for grant in state.held.values())
    turns = [(_since(state, key, line), key) for key, line in lines.items()]
    heapify(turns)
    last = max((turn for turn, _ in turns), default=0)
    while turns:
        _, key = heappop(turns)
        line = lines[key]
        while line and not _has_room(state, running[key], _rule(line[0])) and not stays(line[0]):
            line.popleft()
        if not line or not _has_room(state, running[key], _rule(line[0])):
            continue
        running[key] += 1
        yield line.popleft()
        last += 1
        heappush(turns, (last, key))


def note_wait(state: SharedState, ask: AskForSlot) -> None:
    """One more is about to wait: its key does from now on, if it did not; whoever replaces another goes on with its waiting."""
    if ask.total is not None and not any(_rule(request).key == ask.key for request in state.waiting):
        _note(state, ask.key)


def note_grant(state: SharedState, ask: AskForSlot) -> None:
    """It is this key's last grant."""
    if ask.total is not None:
        _note(state, ask.key)


def _note(state: SharedState, key: str) -> None:
    """Its time of waiting begins now. Keys that nobody has or wants are forgotten: theirs will begin anew."""
    state.turns[key] = state.version
    if len(state.turns) > 2 * (len(state.held) + len(state.waiting)):
        keys = {_key(grant) for grant in state.held.values()} | {_rule(request).key for request in state.waiting} | {key}
        state.turns = {one: version for one, version in state.turns.items() if one in keys}


def in_its_way(state: SharedState, ask: AskForSlot) -> list[Grant]:
    """The oldest holders of its key, as many as have to go so that it can begin."""
    found = holders(state, ask.key)
    return found[: max(0, len(found) + 1 - ask.limit)]


def holders(state: SharedState, key: str) -> list[Grant]:
    """Who holds a slot of this key, the oldest first."""
    return [grant for grant in state.held.values() if _key(grant) == key]


def replaced(state: SharedState) -> list[tuple[Request, Request | Grant]]:
    """Who waits though another one of its key, which asked later, took its place; and by whom it is replaced.

    That one may hold its slot by now: executors may come to decide upon the two in another order.
    """
    by: dict[str, Request | Grant] = {}
    those: list[Request | Grant] = [*state.held.values(), *state.waiting]
    for other in those:
        ask = other.ask
        if isinstance(ask, AskForSlot) and ask.policy == "replace" and (ask.key not in by or _is_later(other, by[ask.key])):
            by[ask.key] = other
    pairs = ((request, by.get(_rule(request).key)) for request in state.waiting) if by else ()
    return [(request, other) for request, other in pairs if other is not None and _is_later(other, request)]


def _is_later(one: Request | Grant, than: Request | Grant) -> bool:
    """Whether it asked later; of two at the same time that one is later which waits, or came later."""
    return _age(one) > _age(than)


def _age(one: Request | Grant) -> tuple[datetime, int]:
    return one.age if isinstance(one, Request) else (one.at, 0)


def _since(state: SharedState, key: str, line: Iterable[Request]) -> int:
    """Since when these of one key wait for its turn."""
    if key in state.turns and any(request.id in state.names for request in line):
        return state.turns[key]
    return min(request.since for request in line)


def _has_room(state: SharedState, running: int, ask: AskForSlot) -> bool:
    return running < ask.limit and (ask.total is None or len(state.held) < ask.total)


def _rule(request: Request) -> AskForSlot:
    assert isinstance(request.ask, AskForSlot)
    return request.ask


def _key(grant: Grant) -> str:
    assert isinstance(grant.ask, AskForSlot)
    return grant.ask.key
