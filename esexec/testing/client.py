"""The engine's own client, with a virtual engine where it has a server else."""

import asyncio
from typing import Self, cast

from esexec.client import Client
from esexec.log.jetstream import JetStreamLog
from esexec.nats.connection import Connection
from esexec.nats.direct import DirectReader
from esexec.nats.publisher import Publisher
from esexec.testing.log import SharedLog
from esexec.testing.wire import Wire


class VirtualClient(Client):
    """See the module. It is open from the beginning, and needs no `async with`."""

    def __init__(self, wire: Wire, log: SharedLog, actor: str) -> None:
        super().__init__("nats://virtual", namespace=wire.subjects.namespace, actor=actor)
        self._wire, self._shared_log = wire, log

    async def open(self) -> None:
        self._publisher, self._reader = cast(Publisher, self._wire), cast(DirectReader, None)
        self._log = cast(JetStreamLog, self._shared_log)
        self._stand_on(cast(Connection, self._wire))
        self._feed.loop = asyncio.get_running_loop()  # it is never started: nothing that it looks for in time is lost here
        self._connection = cast(Connection, self._wire)

    async def close(self) -> None:
        await self._subscriptions.close(asyncio.current_task())
        await self._feed.close()

    async def __aenter__(self) -> Self:
        """Programs under test may open it as they open theirs."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """It stays open: the test goes on with it."""
