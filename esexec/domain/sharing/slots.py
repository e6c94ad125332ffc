"""A concurrency key: so many at once with the same key, and, if there is a total, so many of its scope, the keys in turn.

Of the keys for whom there is room that one comes first whose last grant is the longest ago; within a key whoever asked first.
So a key with a thousand who wait takes nothing from one with a single one.
"""

from collections import Counter, deque
from collections.abc import Iterator

from esexec.domain.sharing.requests import AskForSlot
from esexec.domain.sharing.state import Grant, Request, SharedState


def in_turn(state: SharedState, requests: list[Request]) -> Iterator[Request]:
    """Who can be granted now, one after the other; the state knows of each before the next is asked for."""
    lines: dict[str, deque[Request]] = {}
    for request in requests:
        lines.setdefault(_rule(request).key, deque()).append(request)
    running = Counter(_key(grant) for grant in state.held.values())
    while lines:
        free = [key for key, line in lines.items() if _has_room(state, running[key], _rule(line[0]))]
        if not free:
            return
        key = min(free, key=lambda one: state.turns.get(one, 0))
        request = lines[key].popleft()
        if not lines[key]:
            del lines[key]
        running[key] += 1
        yield request


def note_grant(state: SharedState, ask: AskForSlot) -> None:
    """It is this key's last grant. Keys that nobody has or wants are forgotten."""
    if ask.total is None:
        return
    state.turns[ask.key] = state.version
    if len(state.turns) > 2 * (len(state.held) + len(state.waiting)):
        keys = {_key(grant) for grant in state.held.values()} | {_rule(request).key for request in state.waiting}
        state.turns = {key: version for key, version in state.turns.items() if key in keys}


def in_its_way(state: SharedState, ask: AskForSlot) -> list[Grant]:
    """The oldest holders of its key, as many as have to go so that it can begin."""
    holders = [grant for grant in state.held.values() if _key(grant) == ask.key]
    return holders[: max(0, len(holders) + 1 - ask.limit)]


def same_key(state: SharedState, ask: AskForSlot) -> list[Request]:
    """Who waits for the same key."""
    return [request for request in state.waiting if _rule(request).key == ask.key]


def _has_room(state: SharedState, running: int, ask: AskForSlot) -> bool:
    return running < ask.limit and (ask.total is None or len(state.held) < ask.total)


def _rule(request: Request) -> AskForSlot:
    assert isinstance(request.ask, AskForSlot)
    return request.ask


def _key(grant: Grant) -> str:
    assert isinstance(grant.ask, AskForSlot)
    return grant.ask.key
