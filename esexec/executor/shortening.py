"""Letting go what the history of an entity that executions share no longer needs: what is before a commit that holds all of it.

Only what the feed of events has told may go: for others it is the only place where they hear of it.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from esexec.domain import limits
from esexec.domain.commit import hash_of
from esexec.log.port import Log, Stored

FeedIsAt = Callable[[], Awaitable[int | None]]
"""The position in the log up to which the feed has told all events; None: there was no feed ever."""


class _Whole(NamedTuple):
    """A commit that holds all that was before it: the history may begin with it."""

    n: int
    position: int
    hash: str


class Shortening:
    """Of one entity. Remembers the commits that hold all before them until the feed has come to them."""

    __slots__ = ("_whole",)

    def __init__(self) -> None:
        self._whole: list[_Whole] = []

    def written(self, stored: Stored) -> None:
        """This commit holds all that is before it."""
        before = [one for one in self._whole if one.position < stored.position]
        self._whole = [*before, _Whole(stored.n, stored.position, hash_of(stored.data))]

    async def shorten(self, log: Log, feed_is_at: FeedIsAt, entity: str, last: Stored) -> None:
        """Let go as much as may; the rest goes another time. What is too old is not waited for. Raises what the log raises."""
        told = await feed_is_at()
        told = last.position if told is None else max(told, last.position - limits.untold_positions)
        reached = [one for one in self._whole if one.position <= told + 1]
        if not reached:
            return
        del self._whole[: len(reached)]
        first = reached[-1]
        if first.n == last.n:
            await log.forget(entity, last)
            return
        stored = await log.read(entity, first.n)
        if stored is not None and (stored.position, hash_of(stored.data)) == (first.position, first.hash):  # it is still this log
            await log.forget(entity, stored)
