"""An operator's mistakes with the streams: what they refuse or lose is made good once they are put right, or at once."""

import asyncio
import time
from typing import Any

import esexec
from esexec.nats.connection import Connection
from esexec.worker.leases import LeaseKeeper
from tests.integration.engine import Engine, until


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
    await asyncio.sleep(1)
    assert publishers[-1].in_flight == 0
