"""A server that goes away and comes back while work goes on; and roles that are told to end."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import esexec
from esexec import ExecutionStatus, Plan, Step
from tests.integration.cli import hearing_signals
from tests.integration.engine import Complaints, Engine, until
from tests.server import NatsServer

PLAN = Plan("chain", steps=[Step("work", id=f"s{n}", params={"n": n}) for n in range(5)])


@pytest.fixture
async def away(own_server: NatsServer, complaints: Complaints) -> AsyncIterator[Engine]:
    """An engine on a server of its own."""
    engine = Engine(own_server.url, "away")
    engine.complaints = complaints
    async with engine.stack:
        await engine.executor()
        engine.client = await engine.another_client()
        yield engine
        await engine.check()


def lines_of(complaints: Complaints, text: str) -> list[str]:
    return [line for line in complaints.lines if text in line]


async def test_work_goes_on_when_the_server_is_back(away: Engine, own_server: NatsServer) -> None:
    """kill -9 of the server in the middle of thirty executions: each role says one clear line, and all end as they should."""
    done: list[str] = []

    @esexec.task(timeout=0)
    async def work(n: int, ctx: esexec.Context) -> int:
        await asyncio.sleep(0.02)
        done.append(f"{ctx.execution_id}/{n}")
        return n

    await away.worker(work, queues={"default": 10}, lease_ms=1_000)
    handles = [await away.client.start(PLAN) for _ in range(30)]
    waiting = [asyncio.create_task(handle.wait(wait_timeout=40)) for handle in handles]
    await until(lambda: len(done) > 20)
    own_server.kill()
    await until(lambda: lines_of(away.complaints, "lost the NATS server"))
    own_server.start()
    results = [await one for one in waiting]
    assert {result.status for result in results} == {ExecutionStatus.COMPLETED}
    assert {f"{handle.id}/{n}" for handle in handles for n in range(5)} == set(done)
    connections = 4  # executor, client, worker, its leases
    assert len(lines_of(away.complaints, "lost the NATS server")) <= connections
    assert len(lines_of(away.complaints, "is back")) <= connections
    assert len(away.complaints.lines) <= 3 * connections, away.complaints.lines
    assert away.complaints.tracebacks == []


async def test_a_handler_that_ends_while_the_server_is_away_is_not_lost(away: Engine, own_server: NatsServer) -> None:
    """Its report waits for the server; the outcome is accepted once."""
    began, gate = asyncio.Event(), asyncio.Event()

    @esexec.task(timeout=0)
    async def work() -> str:
        began.set()
        await gate.wait()
        return "kept"

    await away.worker(work)
    handle = await away.client.start("work")
    await asyncio.wait_for(began.wait(), 5)
    own_server.kill()
    await until(lambda: away.client._connection is not None and not away.client._connection.is_connected)
    gate.set()
    own_server.start()
    assert await handle.result(wait_timeout=15) == "kept"
    assert (await away.types(handle.id)).count("task_completed") == 1


async def test_who_asks_while_the_server_is_away_waits_for_it_or_is_told(away: Engine, own_server: NatsServer) -> None:
    """A start is sent when the server is back; a read says `Unavailable` after a while; neither hangs."""

    @esexec.task
    async def work() -> int:
        return 1

    await away.worker(work)
    own_server.kill()
    await until(lambda: away.client._connection is not None and not away.client._connection.is_connected)
    starting = asyncio.create_task(away.client.run("work", wait_timeout=20))
    with pytest.raises((esexec.Unavailable, esexec.NotFound)):
        await asyncio.wait_for(away.client.status("nobody"), 12)
    own_server.start()
    [output] = await asyncio.gather(starting, return_exceptions=True)
    if isinstance(output, esexec.NotConfirmed):  # it was away for longer than a confirmation is waited for
        output = await output.handle.result(wait_timeout=15)
    assert output == 1


async def test_a_watcher_lives_through_it(away: Engine, own_server: NatsServer) -> None:
    """What was said while nobody could hear it is read afterwards, and a monitor tells every event once."""
    gate = asyncio.Semaphore(0)

    @esexec.task(timeout=0)
    async def work(n: int) -> int:
        await gate.acquire()
        return n

    await away.worker(work)
    handle = await away.client.start(PLAN)
    updates: list[esexec.ExecutionUpdate] = []

    async def watch() -> None:
        async for update in handle.monitor():
            updates.append(update)

    watching = asyncio.create_task(watch())
    await until(lambda: updates)
    own_server.restart()
    for _ in range(5):
        gate.release()
    await asyncio.wait_for(watching, 20)
    assert [event for update in updates for event in update.events] == await away.events(handle.id)


async def test_an_idle_worker_hears_again_on_every_lane(away: Engine, own_server: NatsServer) -> None:
    """Requests that were open are forgotten with the connection: asked anew, on every queue and priority."""

    @esexec.task
    async def work(n: int) -> int:
        return n

    await away.worker(work, queues={"default": 2, "other": 1})
    lanes = [("default", 5), ("default", 9), ("default", 1), ("other", 5)]
    for queue, priority in lanes:
        assert await away.client.run("work", {"n": 1}, queue=queue, priority=priority, wait_timeout=8) == 1
    own_server.restart()
    for queue, priority in lanes:
        assert await away.client.run("work", {"n": 2}, queue=queue, priority=priority, wait_timeout=15) == 2


# Told to end -----------------------------------------------------------------------------------------------------------

ROLE = """
import asyncio, logging, sys
import esexec

logging.basicConfig(level=logging.INFO, format="%(message)s")

@esexec.task(timeout=0)
async def work(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"

async def main() -> None:
    url, namespace, role = sys.argv[1:]
    made = esexec.Executor(url, namespace=namespace) if role == "executor" else esexec.Worker(
        url, tasks=[work], namespace=namespace, drain_s=1.0)
    async with made:
        print("ready", flush=True)
        await made.run()

asyncio.run(main())
"""


async def role(engine: Engine, what: str) -> asyncio.subprocess.Process:
    """A role in a process of its own, ready."""
    with hearing_signals():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ROLE, engine.url, engine.namespace, what,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"ready\n"
    return process


@pytest.mark.parametrize("engine", [None], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_drains(engine: Engine, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM: the worker lets what runs end and takes nothing new, the executor lets what is in hand come to rest."""
    executor, worker = await asyncio.gather(role(engine, "executor"), role(engine, "worker"))
    handle = await engine.client.start("work", {"seconds": 0.4})
    await until(handle.worker_id)
    worker.send_signal(number)
    _, said = await asyncio.wait_for(worker.communicate(), 10)
    assert await handle.result(wait_timeout=5) == "done"
    assert b"handed back" not in said
    executor.send_signal(number)
    await asyncio.wait_for(executor.communicate(), 10)


@pytest.mark.parametrize("engine", [None], indirect=True)
async def test_what_does_not_end_in_time_is_handed_back_at_once(engine: Engine) -> None:
    """A drained worker's unfinished attempt is running elsewhere at once, not only when its lease is over."""
    await engine.executor()
    worker = await role(engine, "worker")
    handle = await engine.client.start("work", {"seconds": 60})
    await until(handle.worker_id)
    ran: list[int] = []

    @esexec.task(timeout=0)
    async def work(seconds: float, ctx: esexec.Context) -> str:
        ran.append(ctx.attempt)
        return "elsewhere"

    worker.send_signal(signal.SIGINT)
    await engine.worker(work, name="next")
    _, said = await asyncio.wait_for(worker.communicate(), 10)
    assert b"handed back" in said
    assert await handle.result(wait_timeout=3) == "elsewhere"
    assert ran == [1]  # the same attempt, in other hands


def test_nothing_here_speaks_on_the_root_logger() -> None:
    """A library logs on its own loggers and configures none."""
    assert not logging.getLogger("esexec").handlers
