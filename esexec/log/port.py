"""What a log is: for each entity a gapless sequence of commits, each appended only if its predecessor is the last.

Two homes pass the same conformance suite (`tests/conformance/`): `memory` for tests and simulation, `jetstream` for life.
The log knows bytes, entities and positions; what the bytes mean is the codec's business.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, Protocol

Appended = Callable[[int | None], Awaitable[None]]
"""Called once with the position of the stored commit, or None: refused, somebody else's commit stands there."""


class Stored(NamedTuple):
    """A commit as it is stored: its number, its position in the log, and its bytes. `plan`: of a first commit whose plan is
    kept as an object, that object's bytes; empty: there is none, or nobody has fetched it."""

    n: int
    position: int
    data: bytes
    plan: bytes = b""


class Log(Protocol):
    """See the module."""

    async def append(self, entity: str, n: int, data: bytes, after: int, done: Appended) -> None:
        """Store `data` as commit `n` if the entity's last commit has position `after` (0: it has none).

        Returns as soon as the write is on its way. `done` is called when its outcome is known for certain: an unknown outcome
        is resolved by writing the identical bytes again. A refused write whose bytes stand in the log is our own: stored.
        """
        ...

    async def load(self, entity: str, after: int = 0) -> list[Stored]:
        """The commits numbered above `after`, in order, gapless: complete as of some recent moment (a follower may answer).

        The whole history of an entity that executions share may begin later than with commit 1, see `forget`.
        Raises `CorruptHistory` on a gap, `Unavailable` if the log does not answer.
        """
        ...

    async def read(self, entity: str, n: int) -> Stored | None:
        """Commit `n` as the leader knows it now; None: it certainly does not exist at this moment."""
        ...

    async def last(self, entity: str) -> Stored | None:
        """Its last commit as the leader knows it now; None: it has none."""
        ...

    async def forget(self, entity: str, first: Stored) -> None:
        """Let go what stands before this commit, which holds all of it: the history begins there from now on."""
        ...

    def entities(self) -> AsyncIterator[str]:
        """Every entity that has a history, in no particular order."""
        ...


async def load_certain(log: Log, entity: str) -> list[Stored]:
    """The whole history as the leader knows it now."""
    while True:
        stored, last = await log.load(entity), await log.last(entity)
        if last is None or (stored and stored[-1].n >= last.n):
            return stored


async def append_and_wait(log: Log, entity: str, n: int, data: bytes, after: int) -> int | None:
    """`Log.append` for what is rare: the position of the stored commit, or None if another one stands there."""
    future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def appended(position: int | None) -> None:
        if not future.done():
            future.set_result(position)

    await log.append(entity, n, data, after, appended)
    return await future
