"""The hot path through nats-py's client, over what nats-py does to itself when a server comes back."""

import asyncio
import time

import pytest

from esexec.nats.connection import Connection, connect
from tests.server import NatsServer


async def test_posts_leave_at_once_also_after_reconnects(own_server: NatsServer) -> None:
    """nats-py's flusher does not survive a reconnect; what is posted afterwards must not wait for the next ping."""
    async with await connect(own_server.url, name="test") as connection:
        await assert_posts_leave_at_once(connection)
        for _ in range(2):
            await asyncio.to_thread(own_server.restart)
            await connection.wait_connected(10)
            await assert_posts_leave_at_once(connection)


async def assert_posts_leave_at_once(connection: Connection) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listener(message: object) -> None:
        heard.put_nowait(message.data)  # type: ignore[attr-defined]

    subject = connection.client.new_inbox()
    await connection.listen(subject, listener)
    await connection.flush()
    for number in range(3):
        began = time.monotonic()
        connection.client.post(subject, b"%d" % number)
        assert await asyncio.wait_for(heard.get(), 5) == b"%d" % number
        assert time.monotonic() - began < 0.5


async def test_a_connection_that_rests_reads_all_of_it_afterwards(own_server: NatsServer) -> None:
    """Nothing is heard meanwhile; then everything, in order; and a rest that is asked for again lasts as long as the last one."""
    async with await connect(own_server.url, name="test") as connection, await connect(own_server.url, name="other") as other:
        heard: list[tuple[float, bytes]] = []

        async def listener(message: object) -> None:
            heard.append((time.monotonic(), message.data))  # type: ignore[attr-defined]

        await connection.listen("told", listener)
        await connection.flush()
        began = time.monotonic()
        connection.rest(0.05)
        connection.rest(0.4)
        for number in range(100):
            other.client.post("told", b"%d" % number)
        await connection.flush()
        assert [data for _, data in heard] == [b"%d" % number for number in range(100)]
        assert heard[0][0] - began >= 0.4


@pytest.mark.slow
async def test_a_rest_ends_with_the_connection(own_server: NatsServer) -> None:
    """A server that comes back is heard at once."""
    async with await connect(own_server.url, name="test") as connection:
        connection.rest(0.3)
        await asyncio.to_thread(own_server.restart)
        await connection.wait_connected(10)
        await assert_posts_leave_at_once(connection)
