"""What executors and workers have in common: they are started, they run until told to end, they drain."""

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from esexec.nats.connection import Connection
from esexec.process import until_terminated


class Role(ABC):
    """A process of the engine. `async with` starts and drains it; `run()` keeps it up until cancelled or SIGTERM."""

    _connection: Connection | None = None
    """Open from the end of `start` to the beginning of `stop`."""
    _stopping: "asyncio.Task[None] | None" = None

    @abstractmethod
    async def start(self) -> None:
        """Connect and begin. Raises `Unavailable` if no server answers; then nothing is left behind."""

    async def stop(self) -> None:
        """Take nothing new, let what is in hand come to rest, and close. Without effect on a role that is not up.

        Cancelled, it still goes on to its end, as long as its loop does, and another call, or a new start, waits for that: cut
        off, it would leave a half of the role behind.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            self._stopping = asyncio.create_task(self._drain(connection), name="esexec-drain")
        await self._stopped()

    async def _stopped(self) -> None:
        """Returns once no drain goes on any more: nothing may begin before that."""
        if self._stopping is not None and not self._stopping.done():
            await asyncio.shield(self._stopping)

    @abstractmethod
    async def _drain(self, connection: Connection) -> None:
        """What `stop` does, once."""

    async def run(self) -> None:
        """Start if need be, and go on until cancelled or SIGTERM; then drain."""
        if self._connection is None:
            await self.start()
        try:
            await until_terminated()
        finally:
            await self.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.stop()
