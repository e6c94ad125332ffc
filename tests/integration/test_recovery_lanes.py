"""Who is asked: only a worker that has the strategy's code, whatever else is up, and whoever dies."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import esexec
from esexec import ExecutionStatus, Plan, RecoveryAction, RecoveryContext, RecoveryResult, Step
from esexec.domain import limits
from esexec.domain.events import RecoveryCompleted, RecoveryInitiated
from esexec.domain.strategies import Strategy, own_lane
from esexec.nats.connection import Connection
from esexec.nats.streams import ensure_lane, lane_names
from esexec.worker import worker as worker_module
from tests.integration.cli import Cli, Running
from tests.integration.engine import Engine, until


@esexec.task(max_retries=0)
def stumble() -> None:
    raise esexec.ExecutionError("no", code="NO")


@esexec.task
def instead() -> str:
    return "instead"


def plan(**step: Any) -> Plan:
    return Plan("p", steps=[Step("stumble", id="a", **step)])


def skipping(id: str = "skips", **options: Any) -> tuple[Any, list[str]]:
    """A strategy that leaves the step out, and the executions that it was asked about."""
    asked: list[str] = []

    @esexec.recovery(id=id, **options)
    async def skips(ctx: RecoveryContext) -> RecoveryResult:
        asked.append(ctx.execution_id)
        return RecoveryResult(True, RecoveryAction.SKIP)

    return skips, asked


async def added(engine: Engine, strategy: Any) -> None:
    await engine.client.strategies.add(strategy)
    await until(lambda: all(strategy.id in [one.id for one in each._desk.surroundings.strategies] for each in engine.executors))


async def advice(engine: Engine, execution_id: str) -> RecoveryCompleted:
    (event,) = [event for event in await engine.events(execution_id) if isinstance(event, RecoveryCompleted)]
    return event


async def delivered(connection: Connection, engine: Engine, queue: str) -> int:
    """How often a lane has handed something out; 0 if there is none."""
    if (queue, 5) not in await lane_names(connection, engine.subjects):
        return 0
    consumer = engine.subjects.lane_consumer(queue, 5)
    info = await connection.api(f"CONSUMER.INFO.{engine.subjects.tasks_stream}.{consumer}")
    return int(info["delivered"]["consumer_seq"])


async def waiting(connection: Connection, engine: Engine) -> int:
    info = await connection.api(f"STREAM.INFO.{engine.subjects.tasks_stream}")
    return int(info["state"]["messages"])


async def lost_in(connection: Connection, engine: Engine, queue: str, times: int) -> None:
    """So many holders of what waits in a lane begin it, and say nothing more."""
    consumer = engine.subjects.lane_consumer(queue, 5)
    lane = await connection.client.jetstream().pull_subscribe_bind(consumer, engine.subjects.tasks_stream)
    for _ in range(times):
        [message] = await lane.fetch(1, timeout=8)
        about = engine.subjects.parse_task(message.subject)
        report = engine.subjects.report(about.execution, queue, about.step, about.run, about.attempt)
        await connection.client.publish(report, b'{"type": "started", "started_at": "2026-11-20T13:37:56Z"}')
    await lane.unsubscribe()


# A lane of its own -----------------------------------------------------------------------------------------------------------


async def test_only_workers_that_have_the_code_are_asked(engine: Engine, connection: Connection) -> None:
    """Of two workers of one queue, the one without the code is not even handed a question; every execution recovers."""
    skips, asked = skipping()
    await engine.worker(stumble)
    await engine.worker(stumble, strategies=[skips])
    await added(engine, skips)
    handles = [await engine.client.start(plan()) for _ in range(20)]
    results = [await handle.wait(wait_timeout=10.0) for handle in handles]
    assert {result.status for result in results} == {ExecutionStatus.COMPLETED}
    assert sorted(asked) == sorted(handle.id for handle in handles)
    assert await delivered(connection, engine, own_lane("skips")) == 20


@pytest.mark.parametrize("id", ["skips", "shop/rescue:v1.2", "x" * limits.task_name_chars])
async def test_a_worker_is_asked_whatever_its_queues_are(engine: Engine, id: str) -> None:
    """The code is on a worker of another queue, under an id of any form; a step's priority makes no difference."""
    skips, asked = skipping(id)
    await engine.worker(stumble)
    await engine.worker(queues={"far": 1}, strategies=[skips])
    await added(engine, skips)
    for priority in (5, 9):
        assert (await engine.execute(plan(priority=priority))).status == ExecutionStatus.COMPLETED
    assert len(asked) == 2


async def test_a_strategy_costs_nothing_until_it_is_asked(engine: Engine, connection: Connection) -> None:
    """A worker of fifty strategies has one lane, and one more after the first question."""
    strategies = [skipping(f"s{n}")[0] for n in range(50)]
    worker = await engine.worker(stumble, strategies=strategies)
    assert await lane_names(connection, engine.subjects) == [("default", 5)]
    await added(engine, strategies[7])
    await engine.execute(plan())
    assert await lane_names(connection, engine.subjects) == [("_recovery-s7", 5), ("default", 5)]
    assert set(worker._queues) == {"default", "_recovery-s7"}


async def test_a_worker_that_comes_later_is_asked(engine: Engine) -> None:
    """The question waits for the deployment that brings the code."""
    skips, asked = skipping()
    await engine.worker(stumble)
    await added(engine, skips)
    handle = await engine.client.start(plan())
    await until(lambda: _is_asked(engine, handle.id))
    await engine.worker(stumble, strategies=[skips])
    assert (await handle.wait(wait_timeout=8.0)).status == ExecutionStatus.COMPLETED
    assert asked == [handle.id]


async def _is_asked(engine: Engine, execution_id: str) -> bool:
    return any(isinstance(event, RecoveryInitiated) for event in await engine.events(execution_id))


async def test_local_serves_its_strategies(tmp_path: Path) -> None:
    """Everything in one process: nothing has to be said of queues."""
    skips, asked = skipping()
    async with esexec.local(tasks=[stumble], strategies=[skips], store=tmp_path, sync="2m") as client:
        await client.strategies.add(skips)
        assert (await client.execute(plan(), wait_timeout=8.0)).status == ExecutionStatus.COMPLETED
    assert len(asked) == 1


async def test_ten_lost_workers_end_a_question(engine: Engine, connection: Connection) -> None:
    """What was begun, and kills whoever is asked, is an abort after `losses_per_attempt` deaths, and is not begun again."""
    skips, asked = skipping()
    await engine.worker(stumble)
    await ensure_lane(connection, engine.subjects, own_lane("skips"), 5, 100)
    await added(engine, skips)
    handle = await engine.client.start(plan(fallback="instead"))
    await lost_in(connection, engine, own_lane("skips"), limits.losses_per_attempt)
    await engine.worker(stumble, strategies=[skips])
    assert (await handle.wait(wait_timeout=8.0)).status == ExecutionStatus.FAILED
    event = await advice(engine, handle.id)
    assert (event.action, "10 workers were lost" in event.message, asked) == ("abort", True, [])


# A queue of many -------------------------------------------------------------------------------------------------------------


async def test_a_worker_without_the_code_hands_the_question_back(
    engine: Engine, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far more often than an attempt may be lost: none of it counts, and the worker that has the code answers."""
    monkeypatch.setattr(worker_module, "_LATER", b'-NAK {"delay": 20000000}')
    skips, asked = skipping(queue="default")
    await engine.worker(stumble)
    await added(engine, skips)
    handle = await engine.client.start(plan())

    async def often() -> bool:
        return await delivered(connection, engine, "default") > 4 * limits.losses_per_attempt

    await until(often)
    await engine.worker(stumble, strategies=[skips])
    assert (await handle.wait(wait_timeout=8.0)).status == ExecutionStatus.COMPLETED
    assert asked == [handle.id]
    assert await waiting(connection, engine) == 0


async def test_hand_backs_keep_no_slot(engine: Engine) -> None:
    """A worker with one slot goes on with other work while a question that it cannot answer waits."""
    skips, asked = skipping(queue="default")
    await engine.worker(stumble, instead, queues={"default": 1})
    await added(engine, skips)
    handle = await engine.client.start(plan())
    await until(lambda: _is_asked(engine, handle.id))
    for _ in range(20):
        assert await engine.client.run("instead", wait_timeout=8.0) == "instead"
    await engine.worker(strategies=[skips])
    assert (await handle.wait(wait_timeout=8.0)).status == ExecutionStatus.COMPLETED
    assert asked == [handle.id]


@pytest.mark.parametrize("options", [{"queue": "default"}, {}], ids=["handed back", "nowhere"])
async def test_a_question_that_nobody_can_answer_ends(engine: Engine, connection: Connection, options: dict[str, Any]) -> None:
    """With the queue timeout the failure order goes on, although workers without the code have had it; nothing is left."""
    skips, _ = skipping(**options)
    await engine.worker(stumble, instead)
    await added(engine, skips)
    result = await engine.execute(plan(fallback="instead", queue_timeout="300ms"))
    assert (result.status, result.step("a").output) == (ExecutionStatus.COMPLETED, "instead")
    event = await advice(engine, result.id)
    assert (event.success, event.then, "no worker of queue" in event.message) == (False, "fallback", True)

    async def empty() -> bool:
        return await waiting(connection, engine) == 0

    await until(empty)


# kill -9 ---------------------------------------------------------------------------------------------------------------------

MODULE = """
import os, signal
from pathlib import Path
import esexec

class Deadly(esexec.RecoveryStrategy):
    id = "deadly"
    queue = QUEUE
    timeout = "500ms"

    async def execute(self, ctx):
        with Path("asked").open("a") as file:
            file.write("x")
        if Path("asked").stat().st_size <= DEATHS:
            os.kill(os.getpid(), signal.SIGKILL)
        return esexec.RecoveryResult(True, esexec.RecoveryAction.SKIP)
"""


def deadly(cli: Cli, queue: str, deaths: int) -> None:
    cli.write("deadly.py", MODULE.replace("QUEUE", repr(queue)).replace("DEATHS", str(deaths)))


@pytest.mark.parametrize("queue", ["", "advice"])
async def test_the_death_of_the_worker_that_is_asked_costs_nothing(
    engine: Engine, connection: Connection, tmp_path: Path, queue: str
) -> None:
    """Beside a worker without the code; the next one that has it is asked again."""
    cli = Cli(tmp_path, engine.url)
    deadly(cli, queue, deaths=1)
    await ensure_lane(connection, engine.subjects, queue or own_lane("deadly"), 5, 500)
    await engine.worker(stumble, queues={"default": 1, "advice": 1})
    command = ("worker", "--tasks", "deadly", "--queue", queue or "other", "--namespace", engine.namespace)
    await added(engine, Strategy(id="deadly", queue=queue, timeout_ms=500))
    with cli.running(*command) as first, cli.running(*command) as second:
        said = await asyncio.to_thread(first.until, "ready in")
        await asyncio.to_thread(second.until, "ready in")
        assert "strategies deadly, network_timeout_recovery" in " ".join(said.split())
        result = await engine.execute(plan(), wait=30.0)
        codes = [one.process.poll() for one in (first, second)]
    assert result.status == ExecutionStatus.COMPLETED
    assert (tmp_path / "asked").read_text() == "xx"
    assert sorted(codes, key=str) == [-signal.SIGKILL, None]


async def test_what_kills_its_workers_ends_in_a_queue_of_many_too(engine: Engine, connection: Connection, tmp_path: Path) -> None:
    """There deliveries are no deaths: its timeout, counted from the start that was reported first, ends it."""
    cli = Cli(tmp_path, engine.url)
    deadly(cli, "advice", deaths=100)
    await ensure_lane(connection, engine.subjects, "advice", 5, 500)
    await engine.worker(stumble, queues={"default": 1, "advice": 1})
    await added(engine, Strategy(id="deadly", queue="advice", timeout_ms=500))
    handle = await engine.client.start(plan())
    end = time.monotonic() + 60
    while await handle.status() != ExecutionStatus.FAILED:
        assert time.monotonic() < end
        with cli.running("worker", "--tasks", "deadly", "--queue", "advice", "--namespace", engine.namespace) as process:
            await until(lambda process=process: _gone_or_ended(handle, process), seconds=20.0)
    assert (await advice(engine, handle.id)).action == "abort"
    assert len((tmp_path / "asked").read_text()) <= limits.losses_per_attempt


async def _gone_or_ended(handle: esexec.Handle, process: Running) -> bool:
    return process.process.poll() is not None or await handle.status() == ExecutionStatus.FAILED
