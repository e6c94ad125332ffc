"""More commands than can be carried out: a clear refusal for what does not fit, and all that was acknowledged is carried out."""

import asyncio
import os
import time
from collections import Counter
from typing import Any

import msgspec
import psutil
import pytest

import esexec
from esexec.client import Client
from esexec.domain import limits
from esexec.domain.errors import NotConfirmed, Overloaded
from esexec.nats.connection import connect
from esexec.nats.publisher import STREAM_FULL, Ack, Publisher
from tests.integration.engine import Engine, until
from tests.integration.raw import RawClient
from tests.server import NatsServer

FITS = 40


@esexec.task
async def double(number: int) -> int:
    return 2 * number


@pytest.fixture
def small_intake(monkeypatch: pytest.MonkeyPatch) -> None:
    """COMMANDS holds forty. Before the engine makes its streams."""
    monkeypatch.setattr(limits, "commands_waiting", FITS)


@pytest.mark.parametrize("engine", [None], indirect=True)
async def test_what_does_not_fit_is_refused_at_once(small_intake: None, engine: Engine, raw: RawClient) -> None:
    """`Overloaded`, with a hint, without waiting; what was stored is durable, what was refused leaves no trace."""
    client = await engine.another_client(confirm_s=0.5)
    begun = time.monotonic()

    async def start(number: int) -> str:
        try:
            await client.start("double", {"number": number}, execution_id=f"e-{number}")
        except Overloaded as error:
            return "refused at once" if "commands_waiting" in (error.hint or "") and time.monotonic() - begun < 0.5 else "late"
        except NotConfirmed as error:
            return "stored" if error.code == "not_confirmed" else error.code
        return "confirmed"

    became = await asyncio.gather(*(start(number) for number in range(3 * FITS)))
    assert Counter(became) == {"stored": FITS, "refused at once": 2 * FITS}
    answer = await _published(raw, engine.subjects.command("e-raw", "start"), b'{"id":"c","task":"double"}')
    assert answer["error"] == {"code": 503, "err_code": STREAM_FULL, "description": "maximum messages exceeded"}
    assert "error" not in await _published(raw, f"esexec.{engine.namespace}.in.e-0.nudge", b"")  # reports are never refused
    await engine.executor()
    await engine.worker(double)
    for number, what in enumerate(became):
        if what == "stored":
            assert (await engine.client.wait(f"e-{number}", wait_timeout=10)).result == 2 * number
    assert sorted(await engine.client.list_ids()) == sorted(f"e-{n}" for n, what in enumerate(became) if what == "stored")
    assert await engine.client.run("double", {"number": 21}, wait_timeout=8) == 42


async def _published(raw: RawClient, subject: str, data: bytes) -> dict[str, Any]:
    """As a bare client publishes: the answer of JetStream."""
    answer: dict[str, Any] = msgspec.json.decode((await raw.connection.request(subject, data)).data)
    return answer


async def test_unknown_ids_leave_nothing_in_memory(engine: Engine, raw: RawClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, reports and timers for executions that there are not: the executor forgets them once they are dealt with."""
    monkeypatch.setattr("esexec.executor.desk.DELIVERIES_OF_UNKNOWN", 2)
    monkeypatch.setattr("esexec.executor.desk.backoff_s", lambda deliveries: 0.02)
    monkeypatch.setattr("esexec.executor.shared._KEPT", 50)
    engine.errors_expected = True
    (executor,) = engine.executors
    post = raw.connection.client.post
    for number in range(400):
        post(f"esexec.{engine.namespace}.cmd.u-{number}.cancel", b'{"id":"c-%d"}' % number)
        post(f"esexec.{engine.namespace}.cmd._pools.renew", b'{"id":"r-%d","allocation":"a-%d"}' % (number, number))
        post(f"esexec.{engine.namespace}.in.u-{number}.report.q.s.1-1", b"{}")
        post(f"esexec.{engine.namespace}.in._limit-{number}.release.u.s.1-1", b"")
        post(f"esexec.{engine.namespace}.in._slots-{number}.nudge", b"")
    await raw.connection.flush()

    async def dealt_with() -> bool:
        names = (engine.subjects.commands_stream, engine.subjects.inbox_stream)
        infos = [await raw.connection.api(f"STREAM.INFO.{name}") for name in names]
        return all(info["state"]["messages"] == 0 for info in infos)

    await until(dealt_with, 60)
    await until(lambda: executor._desk.idle and executor._sharing.idle)
    assert (executor._desk._mailboxes, executor._desk._weights, executor._desk._tasks) == ({}, {}, set())
    turns = executor._desk.preparation._turns
    assert turns is not None
    assert turns._lines == {}
    assert len(executor._sharing._boxes) <= 50
    await engine.worker(double)
    assert await engine.client.run("double", {"number": 21}, wait_timeout=8) == 42


@pytest.mark.chaos
async def test_a_flood_of_100_000_commands(own_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more than the intake holds and the workers do: some are refused, memory stays bounded, and every acknowledged one has
    its history, completed, once there is a worker."""
    monkeypatch.setattr(limits, "commands_waiting", 10_000)
    monkeypatch.setattr(limits, "tasks_waiting", 2_000)
    engine, process = Engine(own_server.url, "flood"), psutil.Process(os.getpid())
    stored: set[int] = set()
    refused: Counter[int] = Counter()

    async with engine.stack:
        await engine.executor()
        engine.client = await engine.another_client()
        connection = await engine.stack.enter_async_context(await connect(own_server.url, name="flood"))
        publisher = await engine.stack.enter_async_context(Publisher(connection))
        gate = asyncio.Event()

        @esexec.task(name="double")
        async def patient(number: int) -> int:
            await gate.wait()
            return 2 * number

        await engine.worker(patient, queues={"default": 200})
        before = process.memory_info().rss

        def heard(number: int) -> Any:
            async def done(ack: Ack) -> None:
                if ack.error is None:
                    stored.add(number)
                else:
                    refused[ack.error.err_code] += 1

            return done

        for number in range(100_000):
            body = b'{"id":"c-%d","task":"double","input":{"number":%d},"config":{"timeout_ms":0}}' % (number, number)
            await publisher.send(engine.subjects.command(f"f-{number:05}", "start"), body, None, heard(number))
            if not number % 500:
                await until(lambda: publisher.in_flight < 5_000, 60)
        await until(lambda: not publisher.in_flight, 120)
        assert refused.keys() == {STREAM_FULL}
        assert len(stored) + refused.total() == 100_000
        assert len(stored) >= 10_000
        assert process.memory_info().rss - before < 400 * 1024 * 1024
        gate.set()

        async def drained() -> bool:
            infos = [
                await connection.api(f"STREAM.INFO.{engine.subjects.stream(name)}") for name in ("COMMANDS", "TASKS", "INBOX")
            ]
            return not any(info["state"]["messages"] for info in infos)

        await until(drained, 900)
        ids = set(await engine.client.list_ids())
        assert ids == {f"f-{number:05}" for number in stored}
        async for verification in engine.client.histories.verify_all(shared=False):
            assert verification.ok, verification
        async with Client(own_server.url, namespace="flood") as client:
            for number in sorted(stored)[:: max(1, len(stored) // 500)]:
                assert (await client.get_or_raise(f"f-{number:05}")).result == 2 * number
        assert process.memory_info().rss - before < 800 * 1024 * 1024
