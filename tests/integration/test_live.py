"""What handlers tell and measure, on a real server: progress, log lines, metrics, quality, cost."""

import asyncio
import threading
from typing import Any

import msgspec
import pytest

import esexec
from esexec import ExecutionUpdate, Metric, Plan, Step, TaskStatus
from esexec.domain import limits
from esexec.domain.messages import LogSignal
from esexec.nats.connection import Connection
from tests.integration.engine import Engine, until


class Talker:
    """A task, async or sync, that tells something and then waits to be let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.told = threading.Event()

        @esexec.task(name="talk", timeout=0, max_retries=0)
        async def talk(ctx: esexec.Context, count: int = 1) -> str:
            self._tell(ctx, count)
            while not self.go.is_set():
                await asyncio.sleep(0.005)
            return "done"

        @esexec.task(name="talk_sync", timeout=0, max_retries=0)
        def talk_sync(ctx: esexec.Context, count: int = 1) -> str:
            self._tell(ctx, count)
            assert self.go.wait(20)
            return "done"

        self.tasks = talk, talk_sync

    def _tell(self, ctx: esexec.Context, count: int) -> None:
        for number in range(count):
            ctx.log.info(f"line {number}", number=number)
        ctx.progress(0.4, "half way")
        self.told.set()


async def watched(engine: Engine, execution_id: str, updates: list[ExecutionUpdate]) -> None:
    async for update in engine.client.monitor(execution_id):
        updates.append(update)


def lines(updates: list[ExecutionUpdate]) -> list[str]:
    return [message.message for update in updates for message in update.messages]


@pytest.mark.parametrize("task", ["talk", "talk_sync"])
async def test_a_watcher_sees_progress_and_lines_while_the_handler_runs(engine: Engine, task: str) -> None:
    """F316, F326: an update comes when something is told, before any commit; with what belongs to it."""
    talker = Talker()
    handle = await engine.client.start(task, {"count": 2}, execution_id="e1")
    updates: list[ExecutionUpdate] = []
    watching = asyncio.create_task(watched(engine, handle.id, updates))
    await until(lambda: updates)
    worker = await engine.worker(*talker.tasks)
    await until(lambda: updates[-1].task_progress and lines(updates) == ["line 0", "line 1"])
    progress = updates[-1].task_progress[task]
    assert (progress.fraction, progress.text, progress.attempt) == (0.4, "half way", 1)
    message = next(message for update in updates for message in update.messages)
    assert (message.level, message.task_id, message.context, message.worker_id) == ("info", task, {"number": 0}, worker.name)
    talker.go.set()
    await asyncio.wait_for(watching, 10)
    assert updates[-1].status.is_final
    assert updates[-1].task_progress == {}
    assert lines(updates) == ["line 0", "line 1"]


async def test_who_watches_later_sees_the_last_that_was_told(engine: Engine) -> None:
    """The last `live_kept` lines are kept, also when the execution has ended; the progress of what runs as well."""
    talker = Talker()
    await engine.worker(*talker.tasks)
    handle = await engine.client.start("talk", {"count": limits.live_kept + 5})
    await until(talker.told.is_set)
    async for update in engine.client.monitor(handle.id):
        if update.task_progress and update.messages:
            break
    expected = [f"line {number}" for number in range(5, limits.live_kept + 5)]
    assert [message.message for message in update.messages] == expected
    assert update.task_progress["talk"].text == "half way"
    talker.go.set()
    await handle.wait(wait_timeout=10)
    updates: list[ExecutionUpdate] = []
    await watched(engine, handle.id, updates)
    assert lines(updates) == expected
    assert len(updates) == 1


async def test_nothing_told_is_in_the_log_and_no_consumer_is_made(engine: Engine, connection: Connection) -> None:
    """Watchers cost the server nothing but a subscription, and a history is the same whatever was told."""
    talker = Talker()
    talker.go.set()
    await engine.worker(*talker.tasks)
    handle = await engine.client.start("talk")
    updates: list[ExecutionUpdate] = []
    await watched(engine, handle.id, updates)
    names = await connection.api(f"CONSUMER.NAMES.{engine.subjects.live_stream}")
    assert not names.get("consumers")
    assert await engine.types(handle.id) == [
        "execution_created",
        "execution_started",
        "task_scheduled",
        "task_started",
        "task_completed",
        "execution_completed",
    ]


async def test_what_nobody_can_read_disturbs_no_watcher(engine: Engine, connection: Connection) -> None:
    """Anyone may publish where handlers tell: what is no line is left out, and a line of a foreign worker is one."""
    talker = Talker()
    await engine.worker(*talker.tasks)
    handle = await engine.client.start("talk", {"count": 0})
    await until(talker.told.is_set)
    line = LogSignal(execution_id=handle.id, step="talk", attempt=1, time="2026-01-01T00:00:00Z", level="info", message="hi")  # type: ignore[arg-type]
    for kind, data in [
        ("log", b"\xff"),
        ("log", b"[]"),
        ("progress", b"{}"),
        ("progress", b'{"execution_id":"x","step":"nobody","attempt":1,"time":"2026-01-01T00:00:00Z","fraction":0.1}'),
        ("progress", b'{"execution_id":"x","step":"talk","attempt":1,"time":"2036-01-01T00:00:00Z","fraction":7}'),
        ("log", msgspec.json.encode(line)),
    ]:
        await connection.publish(engine.subjects.live(handle.id, kind), data)
    await connection.flush()
    updates: list[ExecutionUpdate] = []
    watching = asyncio.create_task(watched(engine, handle.id, updates))
    await until(lambda: lines(updates) == ["hi"])
    talker.go.set()
    await asyncio.wait_for(watching, 10)
    assert lines(updates) == ["hi"]


# Measures ------------------------------------------------------------------------------------------------------------------


async def test_measures_can_be_read_with_the_result(engine: Engine) -> None:
    """F357, F397: metrics, quality and cost of a step, its cost over all attempts; in async and in sync handlers."""

    @esexec.task(max_retries=1, retry_delay="1ms")
    def flaky(ctx: esexec.Context) -> None:
        ctx.cost(0.5)
        if ctx.attempt == 1:
            ctx.metric("rows", 3)
            raise ConnectionError("down")
        ctx.metric("custom_metric", duration=1.2, size=3, tags={"kind": "a"})
        ctx.quality(0.2)
        ctx.quality(0.93)

    @esexec.task
    async def plain() -> None:
        pass

    await engine.worker(flaky, plain)
    result = await engine.execute(Plan("p", steps=[Step(flaky, id="a"), Step(plain, id="b")]))
    told = await engine.client.get_or_raise(result.id)
    a, b = told.step("a"), told.step("b")
    custom = Metric(name="custom_metric", values={"duration": 1.2, "size": 3}, tags={"kind": "a"})
    assert (a.quality, a.cost, a.metrics) == (0.93, 1.0, (custom,))
    assert (b.quality, b.cost, b.metrics) == (None, 0.0, ())
    events: list[Any] = await engine.events(result.id)
    failed = next(event for event in events if hasattr(event, "will_retry"))
    assert failed.measured.metrics == (Metric(name="rows", values={"value": 3}),)


async def test_what_a_late_or_cancelled_handler_measured_is_kept(engine: Engine) -> None:
    """It has cost something, whatever became of it."""

    @esexec.task(timeout=0.05, max_retries=0)
    async def late(ctx: esexec.Context) -> None:
        ctx.cost(2)
        await asyncio.sleep(60)

    @esexec.task(timeout=0, max_retries=0)
    async def endless(ctx: esexec.Context) -> None:
        ctx.cost(3)
        begun.set()
        await asyncio.sleep(60)

    begun = asyncio.Event()
    await engine.worker(late, endless)
    result = await engine.execute(late)
    assert (result.step("late").cost, result.step("late").timed_out) == (2.0, 1)
    handle = await engine.client.start(endless)
    await asyncio.wait_for(begun.wait(), 10)
    await handle.cancel()
    result = await handle.wait(wait_timeout=10)
    assert (result.step("endless").status, result.step("endless").cost) == (TaskStatus.CANCELLED, 3.0)


async def test_a_bad_measure_fails_the_handler_with_its_code(engine: Engine) -> None:
    """As any error of its own, and without a retry."""

    @esexec.task
    async def boast(ctx: esexec.Context) -> None:
        ctx.quality(11)

    await engine.worker(boast)
    result = await engine.execute(boast)
    assert result.error.code == "invalid_quality"
    assert result.step("boast").retries == 0


async def test_a_handler_asks_whether_it_is_to_stop(engine: Engine) -> None:
    """`ctx.cancelled` is a property, for async and for sync handlers: true once the execution is cancelled."""
    seen: dict[str, list[bool]] = {"async": [], "sync": []}

    @esexec.task(timeout=0)
    async def on_loop(ctx: esexec.Context) -> None:
        seen["async"].append(ctx.cancelled)
        try:
            await asyncio.sleep(60)
        finally:
            seen["async"].append(ctx.cancelled)

    @esexec.task(timeout=0)
    def in_thread(ctx: esexec.Context) -> None:
        seen["sync"].append(ctx.cancelled)
        while not ctx.cancelled:
            threading.Event().wait(0.005)
        seen["sync"].append(ctx.cancelled)
        ctx.check_cancelled()

    await engine.worker(on_loop, in_thread)
    handle = await engine.client.start(Plan("p", steps=[Step(on_loop, id="a"), Step(in_thread, id="b")], parallel=True))
    await until(lambda: all(seen.values()))
    await handle.cancel()
    result = await handle.wait(wait_timeout=10)
    assert result.status == "cancelled"
    assert seen == {"async": [False, True], "sync": [False, True]}
