"""What an entity that executions share has become: who waits, who holds what, and what is counted.

The whole of it can be written down as JSON (`compacted`), and goes on from there. Times in `window` are microseconds since
1970, in the order of the grants.
"""

from bisect import insort
from datetime import datetime
from typing import TypeVar

import msgspec

from esexec.domain import limits
from esexec.domain.flow import Resource, ResourcePool
from esexec.domain.sharing.fitting import Fitting
from esexec.domain.sharing.requests import Ask, Denied

T = TypeVar("T")

RECENT = 2_000
"""So many grants of a rate limit, and as many commands of clients, are known by name: who asks again is told again."""
RECENT_DROPPED = limits.requests_waiting
"""So many that will not be granted are known by name: all who waited may be dropped before it turns out that who did it died."""


class Request(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """Who waits, and for what, and when it asked. `since`: the version of the event that put it there."""

    id: str
    since: int
    ask: Ask
    at: datetime
    priority: int = 5

    @property
    def age(self) -> tuple[datetime, int]:
        """Who has the smaller asked first."""
        return self.at, self.since


class Grant(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """Who holds what, since `time`, and when it asked. `until`: then its lease ends; None = it has none."""

    id: str
    ask: Ask
    time: datetime
    at: datetime
    resources: tuple[Resource, ...] = ()
    until: datetime | None = None


class Wake(msgspec.Struct, frozen=True, gc=False):
    """The entity is to look at what has become possible at `due`; the timer is named by the commit that set it."""

    name: int
    due: datetime


class SharedState(msgspec.Struct, omit_defaults=True, eq=False):
    """See the module. `waiting` is in the order of its turn: priority, then age; `names`: who waits.

    `held`: grants that last until they are released (slots, resources). `window`: when the last grants of a rate limit were
    given, as many as the largest that was asked for (`most`) counts; `forgotten`: when the last was that is not among them;
    `recent` names some. `turns`: since when each key waits for its turn, where there is a total, as a version. `dropped`: who
    was told last that it will not be granted. `applied`: clients' commands, and their commits. `compacted`: the commit that
    holds all that was before it.

    `fitting` and `none_in_vain` (nobody waits for what no pools have) are what was found out about the pools; neither is
    written down, and not to know them costs only time.
    """

    entity: str
    n: int = 0
    version: int = 0
    time: datetime | None = None
    waiting: list[Request] = []
    names: set[str] = set()
    held: dict[str, Grant] = {}
    window: list[int] = []
    forgotten: int = 0
    most: int = 0
    recent: dict[str, int] = {}
    turns: dict[str, int] = {}
    dropped: dict[str, Denied] = {}
    pools: dict[str, ResourcePool] = {}
    applied: dict[str, int] = {}
    wake: Wake | None = None
    compacted: int = 0
    fitting: Fitting | None = None
    none_in_vain: bool = False

    def copy(self) -> "SharedState":
        """The same, to be changed by a decision that may come to nothing."""
        return msgspec.structs.replace(
            self,
            waiting=self.waiting.copy(),
            names=self.names.copy(),
            held=self.held.copy(),
            window=self.window.copy(),
            recent=self.recent.copy(),
            turns=self.turns.copy(),
            dropped=self.dropped.copy(),
            pools=self.pools.copy(),
            applied=self.applied.copy(),
        )

    def knows(self, request_id: str) -> bool:
        """Whether it was asked under this id, and what became of that is still known."""
        return any(request_id in known for known in (self.held, self.names, self.recent, self.dropped))


def turn(request: Request) -> tuple[int, datetime, int]:
    """By this requests are in order."""
    return -request.priority, *request.age


def enqueue(state: SharedState, request: Request) -> None:
    """It waits from now on."""
    insort(state.waiting, request, key=turn)
    state.names.add(request.id)


def drop(state: SharedState, request_id: str) -> Request | None:
    """It waits no more, if it did."""
    if request_id not in state.names:
        return None
    state.names.remove(request_id)
    place = next(place for place, one in enumerate(state.waiting) if one.id == request_id)
    return state.waiting.pop(place)


def remember(known: dict[str, T], name: str, value: T, most: int = RECENT) -> None:
    """The last of them are known."""
    known.pop(name, None)
    known[name] = value
    while len(known) > most:
        del known[next(iter(known))]
