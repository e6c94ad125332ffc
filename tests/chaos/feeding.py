"""A process that tells the public feed, to be killed: python -m tests.chaos.feeding URL NAMESPACE PAGE [POINT:N]

It kills itself with SIGKILL at the N-th batch: `sent`, once the socket has it, or `stored`, before anybody here knows.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from esexec.nats import batch as batch_module
from esexec.nats.batch import Part
from esexec.nats.connection import Connection, connect
from esexec.nats.direct import DirectReader
from esexec.nats.publisher import Ack
from esexec.nats.subjects import Subjects
from projections import feed as feed_module
from projections.feed import EventFeed
from projections.memory import MemoryStore
from projections.source import JetStreamSource
from tests.chaos.dying import die


def arm(point: str) -> None:
    """Die there."""
    name, _, number = point.partition(":")
    store, answer, times = batch_module.store_batch, batch_module._answer, 0

    async def counted(connection: Connection, parts: Sequence[Part]) -> Ack:
        nonlocal times
        times += 1
        ack = await store(connection, parts)
        if times == int(number) and name == "stored":
            die()
        return ack

    async def answered(connection: Connection, *more: Any) -> Any:
        asking = asyncio.ensure_future(answer(connection, *more))
        if times == int(number) and name == "sent":
            await asyncio.sleep(0)
            await connection.client._flush_pending()
            die()
        return await asking

    feed_module.store_batch = counted
    batch_module._answer = answered


async def main(url: str, namespace: str, page: str, point: str = "") -> None:
    if point:
        arm(point)
    async with await connect(url, name="feeding", patience=60) as connection, await connect(url, name="hearing") as hearing:
        subjects, reader = Subjects(namespace), await DirectReader(connection).start()
        source = await JetStreamSource(connection, hearing, subjects, reader).start()
        try:
            await EventFeed(connection, subjects, source, MemoryStore(), page=int(page)).run()
        finally:
            await source.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
