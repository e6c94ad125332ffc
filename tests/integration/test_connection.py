"""A connection over a server that dies, freezes, goes dark, refuses: one line each, and everything goes on."""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from esexec.domain import limits
from esexec.domain.errors import Unavailable, ValidationError
from esexec.nats.connection import ApiError, Connection, State, connect
from tests.server import NatsServer


@pytest.fixture(autouse=True)
def no_tracebacks(caplog: pytest.LogCaptureFixture) -> Any:
    """In every test of this file: nothing is logged with a traceback, by nobody."""
    caplog.set_level(logging.WARNING)
    yield
    assert [record.message for record in caplog.records if record.exc_info] == []


async def until_silent(connection: Connection) -> None:
    lost = asyncio.Event()
    connection.on_disconnect(lost.set)
    if connection.is_connected:
        await asyncio.wait_for(lost.wait(), 15)


@contextlib.asynccontextmanager
async def proxy(target: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A TCP proxy before the server. While its event is set, it reads nothing and passes nothing: a blackhole."""
    dark, host_port, tasks = asyncio.Event(), target.removeprefix("nats://").split(":"), set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                while dark.is_set():
                    await asyncio.sleep(0.01)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*host_port)
        tasks.update({asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))})

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=4096)
    yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", dark
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_it_says_what_it_is_connected_to(connection: Connection) -> None:
    """A connection knows the server's version and the largest message."""
    assert connection.is_connected
    assert connection.max_payload == 1024 * 1024
    assert int(connection.server_version.split(".")[0]) >= 2


async def test_a_publish_arrives(connection: Connection) -> None:
    """What is published, with headers and a reply subject, is what a subscriber gets."""
    heard: asyncio.Queue[Any] = asyncio.Queue()

    async def on_message(message: Any) -> None:
        heard.put_nowait(message)

    await connection.subscribe("here", on_message)
    await connection.publish("here", b"data", {"Key": "value"}, "there")
    message = await asyncio.wait_for(heard.get(), 5)
    assert (message.data, message.headers, message.reply) == (b"data", {"Key": "value"}, "there")


@pytest.mark.slow
async def test_nothing_is_dropped_on_a_slow_subscription(connection: Connection) -> None:
    """A subscriber that has fallen far behind (more than nats-py's own limits) still gets every message."""
    go, count, total = asyncio.Event(), 0, 600_000

    async def slow(_: Any) -> None:
        nonlocal count
        await go.wait()
        count += 1

    subscription = await connection.subscribe("flood", slow)
    for _ in range(total):
        await connection.publish("flood", b"")
        if _ % 10_000 == 0:
            await connection.flush()
    assert await connection.flush(30)
    assert subscription.pending_msgs > 512 * 1024
    go.set()
    async with asyncio.timeout(30):
        while count < total:
            await asyncio.sleep(0.01)


async def test_an_api_error_carries_its_numbers(connection: Connection) -> None:
    """What JetStream refuses becomes an ApiError with status, err_code and description."""
    with pytest.raises(ApiError) as refused:
        await connection.api("STREAM.INFO.nothing")
    assert (refused.value.status, refused.value.err_code, refused.value.description) == (404, 10059, "stream not found")


async def test_a_message_beyond_the_limit_is_refused_before_sending(connection: Connection) -> None:
    """One byte more than `max_payload` is a typed error and the connection stays; exactly `max_payload` passes."""
    await connection.publish("big", b"x" * connection.max_payload)
    with pytest.raises(ValidationError) as refused:
        await connection.publish("big", b"x" * (connection.max_payload + 1))
    assert refused.value.code == "payload_too_large"
    assert await connection.flush()


@pytest.mark.parametrize("url", ["nats://127.0.0.1:9", "nats://nowhere.invalid:4222", "nats://127.0.0.1:9,nats://127.0.0.1:10"])
async def test_no_server_is_told_at_once(url: str) -> None:
    """Where nobody listens, connecting fails at once with Unavailable, the address and a hint."""
    begin = time.monotonic()
    with pytest.raises(Unavailable) as refused:
        await connect(url, name="test")
    assert time.monotonic() - begin < 2
    assert "cannot reach the NATS server at nats://" in refused.value.message
    assert refused.value.hint


async def test_a_silent_server_is_given_up(own_server: NatsServer) -> None:
    """A server that accepts the connection and says nothing is given up after seconds."""
    own_server.freeze()
    begin = time.monotonic()
    with pytest.raises(Unavailable):
        await connect(own_server.url, name="test")
    assert time.monotonic() - begin < 5


async def test_patience_waits_for_the_first_connect(own_server: NatsServer) -> None:
    """With patience, connecting waits for a server that comes up later."""
    own_server.kill()
    opening = asyncio.create_task(connect(own_server.url, name="test", patience=20))
    await asyncio.to_thread(own_server.start)
    async with await opening as connection:
        assert connection.is_connected


@pytest.mark.parametrize("url", ["x", "nats://", "http://[", "nats://h:port", "nats://a:1,ws://b:2"])
async def test_a_bad_url_is_a_typed_error(url: str) -> None:
    """An address that is none gives Unavailable, not an exception of nats-py."""
    with pytest.raises(Unavailable):
        await connect(url, name="test")


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_lost_server_is_one_line_and_so_is_its_return(
    own_server: NatsServer, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Lost: one line, `on_state`, `on_disconnect`. Back: one line, `on_state`, `on_reconnect`; subscriptions go on."""
    states: list[State] = []
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    back = asyncio.Event()

    async def on_message(message: Any) -> None:
        heard.put_nowait(message.data)

    async def on_back() -> None:
        back.set()

    async with await connect(own_server.url, name="test", on_state=states.append) as connection:
        await connection.subscribe("here", on_message)
        connection.on_reconnect(on_back)
        for _ in range(2):
            back.clear()
            getattr(own_server, how)()
            await until_silent(connection)
            assert not connection.is_connected
            with pytest.raises(Unavailable):
                await connection.publish("here", b"not sent")
            await asyncio.to_thread(own_server.start)
            await asyncio.wait_for(back.wait(), 10)
            await connection.publish("here", b"sent")
            assert await asyncio.wait_for(heard.get(), 5) == b"sent"
        assert connection.is_connected
    lost = f"lost the NATS server at {own_server.url}; reconnecting"
    returned = f"the NATS server at {own_server.url} is back"
    assert caplog.messages == [lost, returned] * 2
    assert states == ["connected", *["disconnected", "connected"] * 2, "closed"]


async def test_an_api_request_outlives_the_server(own_server: NatsServer) -> None:
    """A request during which the server dies is put again when it is back, within its own timeout."""
    async with await connect(own_server.url, name="test") as connection:
        own_server.freeze()
        asking = asyncio.create_task(connection.api("INFO", timeout=20))
        await asyncio.sleep(0)
        own_server.kill()
        await until_silent(connection)
        await asyncio.to_thread(own_server.start)
        assert "memory" in await asking


async def test_an_api_request_ends_at_its_timeout(own_server: NatsServer) -> None:
    """Without a server, a request ends as Unavailable when its time is over, not before and not much later."""
    async with await connect(own_server.url, name="test") as connection:
        own_server.kill()
        begin = time.monotonic()
        with pytest.raises(Unavailable):
            await connection.api("INFO", timeout=1)
        assert 1 <= time.monotonic() - begin < 2


async def test_a_frozen_server_is_noticed(own_server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that stops answering without closing is lost within ten seconds, and found again when it goes on."""
    async with await connect(own_server.url, name="test") as connection:
        own_server.freeze()
        begin = time.monotonic()
        await until_silent(connection)
        assert time.monotonic() - begin < 10
        own_server.thaw()
        await connection.wait_connected(10)
        assert await connection.flush()
    assert len(caplog.messages) == 2


@pytest.mark.slow
async def test_a_blackhole_with_unsent_bytes_is_left(nats_server: NatsServer) -> None:
    """A dead link is left within ten seconds also when bytes are stuck in the socket, which can never be sent."""
    async with proxy(nats_server.url) as (url, dark), await connect(url, name="test") as connection:
        dark.set()
        for _ in range(64):
            await connection.publish("nowhere", b"x" * 1_000_000)
        await until_silent(connection)
        dark.clear()
        await connection.wait_connected(10)
        assert await connection.flush()


async def test_a_flush_that_times_out_breaks_nothing(own_server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    """A late pong for a flush that was given up does not end the reader (in nats-py it would)."""
    async with await connect(own_server.url, name="test") as connection:
        own_server.freeze()
        assert not await connection.flush(0.1)
        own_server.thaw()
        assert await connection.flush()
    assert caplog.messages == []


async def test_closing_never_hangs(own_server: NatsServer) -> None:
    """`close` ends within seconds when the server answers, is frozen, or is gone; twice is no error."""
    for trouble in (lambda: None, own_server.freeze, own_server.kill):
        connection = await connect(own_server.url, name="test")
        trouble()
        begin = time.monotonic()
        await connection.close()
        await connection.close()
        assert time.monotonic() - begin < 6
        assert connection.is_closed
        if trouble == own_server.freeze:
            own_server.thaw()


async def test_what_was_published_before_closing_arrives(connection: Connection, nats_server: NatsServer) -> None:
    """`close` sends what is waiting."""
    count = 0

    async def on_message(_: Any) -> None:
        nonlocal count
        count += 1

    await connection.subscribe("last-words", on_message)
    await connection.flush()
    async with await connect(nats_server.url, name="test") as other:
        for _ in range(10_000):
            await other.publish("last-words", b"x" * 100)
    async with asyncio.timeout(5):
        while count < 10_000:
            await asyncio.sleep(0.01)


async def test_after_closing_everything_is_unavailable(nats_server: NatsServer) -> None:
    """A closed connection answers every call with Unavailable, at once."""
    connection = await connect(nats_server.url, name="test")
    await connection.close()

    async def on_message(_: Any) -> None: ...

    for call in (
        connection.publish("a", b""),
        connection.subscribe("a", on_message),
        connection.api("INFO"),
        connection.request("a", b""),
        connection.wait_connected(1),
    ):
        with pytest.raises(Unavailable):
            await call


async def test_a_failing_callback_is_told_and_harms_nobody(own_server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a reconnect callback or a subscriber is logged with its traceback; the connection lives on."""

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    async def fail_later(_: Any = None) -> None:
        fail()

    async with await connect(own_server.url, name="test") as connection:
        connection.on_reconnect(fail)
        connection.on_reconnect(fail_later)
        await connection.subscribe("here", fail_later)
        own_server.kill()
        await until_silent(connection)
        await asyncio.to_thread(own_server.start)
        await connection.wait_connected(10)
        await connection.publish("here", b"")
        assert await connection.flush()
        async with asyncio.timeout(5):
            while sum(1 for record in caplog.records if record.exc_info) < 3:
                await asyncio.sleep(0.01)
    caplog.clear()


def test_an_interrupted_program_ends_quietly(own_server: NatsServer) -> None:
    """Ctrl-C in a program that is reconnecting prints one line about the server and no traceback of NATS."""
    program = f"""
import asyncio
from esexec.nats.connection import connect
async def main():
    async with await connect({own_server.url!r}, name="test") as connection:
        print("ready", flush=True)
        lost = asyncio.Event()
        connection.on_disconnect(lost.set)
        await lost.wait()
asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    own_server.kill()
    _, err = process.communicate(timeout=20)
    assert err == f"lost the NATS server at {own_server.url}; reconnecting\n"
    assert process.returncode == 0


async def test_questions_beyond_their_places_wait_in_line(
    nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are asked at once, so many are open, and the patience of the others begins when they have their place."""
    monkeypatch.setattr(limits, "questions_at_once", 3)
    async with await connect(nats_server.url, name="asks") as connection:
        ask, at_once, most = connection._ask, 0, 0

        async def slowly(subject: str, payload: bytes) -> Any:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            try:
                await asyncio.sleep(0.1)
                return await ask(subject, payload)
            finally:
                at_once -= 1

        monkeypatch.setattr(connection, "_ask", slowly)
        answers = await asyncio.gather(*(connection.api("STREAM.NAMES", timeout=0.4) for _ in range(21)))
        assert (len(answers), most) == (21, 3)


@pytest.mark.parametrize("answers", [True, False], ids=["a server", "nobody"])
async def test_connecting_can_be_given_up_at_any_moment(nats_server: NatsServer, answers: bool) -> None:
    """It ends at once, and nothing of it is left: nobody else could close it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = nats_server.url if answers else f"nats://127.0.0.1:{taken.getsockname()[1]}"
        others, given_up = asyncio.all_tasks(), 0
        for turns in [*range(1, 40)] * 4:
            connecting = asyncio.create_task(connect(url, name="test", patience=30))
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            assert (await asyncio.wait([connecting], timeout=3))[0]
            if not connecting.cancelled():
                await connecting.result().close()
            else:
                given_up += 1
            await asyncio.sleep(0)
            assert [task for task in asyncio.all_tasks() - others if not task.done()] == []
    assert given_up > 40
