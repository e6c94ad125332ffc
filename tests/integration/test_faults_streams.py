"""An operator's mistakes with the streams: what they refuse or lose is made good once they are put right, or at once."""

import time
from pathlib import Path
from typing import Any

import pytest

import esexec
from esexec.nats import embedded
from esexec.nats.connection import Connection, connect
from esexec.nats.publisher import Publisher
from esexec.worker.leases import LeaseKeeper
from tests.integration.engine import Complaints, Engine, until
from tests.server import NatsServer


@esexec.task
async def double(number: int) -> int:
    return 2 * number


@esexec.task(timeout="0.2s", max_retries=0)
async def block() -> None:
    time.sleep(5)  # noqa: ASYNC251  the loop is blocked on purpose


async def change(connection: Connection, stream: str, **settings: Any) -> None:
    config = (await connection.api(f"STREAM.INFO.{stream}"))["config"]
    await connection.api(f"STREAM.UPDATE.{stream}", config | settings)


async def test_a_report_that_is_refused_is_sent_until_it_is_stored(engine: Engine, connection: Connection) -> None:
    """INBOX refuses a report, as only an operator can make it: its attempt is not acknowledged, and ends once INBOX takes it."""
    engine.errors_expected = True
    await engine.worker(double)
    inbox = engine.subjects.inbox_stream
    await change(connection, inbox, max_msg_size=1)
    handle = await engine.client.start(double, {"number": 4})

    async def refused() -> bool:
        return any("a report was refused" in line for line in engine.complaints.lines)

    await until(refused)
    await change(connection, inbox, max_msg_size=-1)
    assert await handle.result(wait_timeout=8) == 8


async def test_a_lane_that_was_deleted_is_made_again(engine: Engine, connection: Connection) -> None:
    """Without its consumer nobody is handed what waits on a lane: the worker that serves it makes it again."""
    await engine.worker(double)
    assert await engine.client.run(double, {"number": 1}) == 2
    lane = engine.subjects.lane_consumer("default", 5)
    await connection.api(f"CONSUMER.DELETE.{engine.subjects.tasks_stream}.{lane}")
    assert await engine.client.run(double, {"number": 2}, wait_timeout=15) == 4


async def test_nothing_is_left_in_flight_by_an_attempt_that_blocked_its_loop(engine: Engine, monkeypatch: Any) -> None:
    """The thread that closes such an attempt acknowledges it once, and does not repeat that for ever."""
    publishers = []
    look = LeaseKeeper._look

    async def observed(keeper: LeaseKeeper, connection: Connection, publisher: Any) -> None:
        publishers.append(publisher)
        await look(keeper, connection, publisher)

    monkeypatch.setattr(LeaseKeeper, "_look", observed)
    engine.errors_expected = True
    await engine.worker(block)
    result = await engine.client.execute(block, wait_timeout=12)
    assert result.status == "failed"
    looks = len(publishers)
    await until(lambda: len(publishers) > looks + 2)  # whatever it had to say was said in the look before
    assert publishers[-1].in_flight == 0


async def test_a_store_without_room_is_told_loudly_and_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaints: Complaints
) -> None:
    """A full disk or quota looks like a server that is not ready: one line says what it is; what waited is stored in the end."""
    usual = embedded._configuration

    def small(*arguments: Any) -> str:
        return usual(*arguments).replace("sync_interval", "max_file_store: 5MB\n  sync_interval")

    monkeypatch.setattr(embedded, "_configuration", small)
    server = NatsServer(tmp_path)
    try:
        async with await connect(server.url, name="test") as connection, Publisher(connection) as publisher:
            await connection.api("STREAM.CREATE.FILL", {"name": "FILL", "subjects": ["fill"], "storage": "file"})
            for _ in range(60):
                await publisher.send("fill", b"x" * 100_000)
            await until(lambda: "insufficient resources" in " ".join(complaints.lines))
            waiting = publisher.in_flight
            assert 0 < waiting < 60
            await connection.api("STREAM.PURGE.FILL")
            await until(lambda: not publisher.in_flight, 10)
        assert len(complaints.lines) == 1
    finally:
        server.kill()
