"""Timeouts: an attempt that runs too long is really ended, whatever its handler does, and what follows is a retry or the end."""

import asyncio
import threading
import time

import pytest

import esexec
from esexec import ExecutionStatus
from esexec.domain.events import TaskTimedOut
from tests.integration.engine import Engine, WorkerThread, until


def timed_out(events: list) -> list[TaskTimedOut]:
    return [event for event in events if isinstance(event, TaskTimedOut)]


async def test_an_async_handler_is_cancelled(engine: Engine) -> None:
    """F121–F123: the coroutine gets its cancellation, the attempt is `task_timed_out`, never `task_failed` beside it."""
    cancelled: list[bool] = []

    @esexec.task(timeout=0.1, max_retries=0)
    async def slow(ctx: esexec.Context) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(ctx.cancelled)
            raise

    await engine.worker(slow)
    result = await engine.execute("slow")
    assert cancelled == [True]
    assert result.status == ExecutionStatus.FAILED
    assert result.error is not None
    assert (result.error.type, result.error.code, result.error.task_id) == ("timeout_error", "task_timeout", "slow")
    [event] = timed_out(await engine.events(result.id))
    assert (event.timeout_ms, event.ended, event.will_retry, event.retries_exhausted) == (100, "cancelled", False, True)
    assert "task_failed" not in await engine.types(result.id)
    assert 100 <= result.results[0].duration_ms < 2_000
    with pytest.raises(esexec.TaskTimeout):
        await engine.client.executions.result(result.id)


async def test_a_timeout_is_retried(engine: Engine) -> None:
    """F122: then the retry policy; the second attempt may succeed."""

    @esexec.task(timeout=0.1)
    async def slow_once(ctx: esexec.Context) -> int:
        if ctx.attempt == 1:
            await asyncio.sleep(30)
        return ctx.attempt

    await engine.worker(slow_once)
    result = await engine.execute("slow_once")
    assert (result.result, result.results[0].retries) == (2, 1)
    [event] = timed_out(await engine.events(result.id))
    assert event.will_retry is True
    types = await engine.types(result.id)
    assert types[types.index("task_timed_out") + 1] == "task_retry_scheduled"


async def test_a_sync_handler_is_flagged_and_abandoned(engine: Engine) -> None:
    """Design §4: a thread is told by its context, then left to itself with a warning; its slot is free again."""
    gate = threading.Event()
    ended: list[str] = []

    @esexec.task(timeout=0.1, max_retries=0)
    def deaf() -> None:
        gate.wait(20)
        ended.append("deaf")

    @esexec.task(timeout=0.1, max_retries=0)
    def polite(ctx: esexec.Context) -> None:
        while not ctx.cancelled:
            time.sleep(0.01)
        ctx.check_cancelled()

    await engine.worker(deaf, polite, queues={"default": 1})
    left = await engine.execute("deaf")
    assert [event.ended for event in timed_out(await engine.events(left.id))] == ["abandoned"]
    assert any("deaf" in line and "left to itself" in line for line in engine.complaints.lines)
    told = await engine.execute("polite")  # on the only slot
    assert [event.ended for event in timed_out(await engine.events(told.id))] == ["cancelled"]
    gate.set()
    await until(lambda: ended)
    assert (await engine.client.get_or_raise(left.id)).status == ExecutionStatus.FAILED


async def test_a_handler_that_swallows_its_cancellation_is_abandoned(engine: Engine) -> None:
    """An async handler that will not end is left to itself after a while, and its attempt is closed."""
    gate = asyncio.Event()

    @esexec.task(timeout=0.1, max_retries=0)
    async def stubborn() -> str:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    await engine.worker(stubborn)
    result = await engine.execute("stubborn")
    assert [event.ended for event in timed_out(await engine.events(result.id))] == ["abandoned"]
    commits = len(await engine.client.history(result.id))
    gate.set()
    assert (await engine.client.get_or_raise(result.id)).result is None
    assert len(await engine.client.history(result.id)) == commits


async def test_without_a_timeout_a_handler_may_take_its_time(engine: Engine) -> None:
    """F025: 0 means none; the context has no deadline then."""

    @esexec.task(timeout=0)
    async def patient(ctx: esexec.Context) -> bool:
        await asyncio.sleep(0.3)
        return ctx.deadline is None

    @esexec.task(timeout=5)
    async def limited(ctx: esexec.Context) -> float:
        assert ctx.deadline is not None
        return (ctx.deadline - esexec.world.now()).total_seconds()

    await engine.worker(patient, limited)
    assert (await engine.execute("patient")).result is True
    assert 4 < (await engine.execute("limited")).result <= 5


async def test_the_default_is_thirty_seconds(engine: Engine) -> None:
    """C14: 30 s where nobody says otherwise; and a negative one is refused."""

    @esexec.task
    async def usual(ctx: esexec.Context) -> float:
        assert ctx.deadline is not None
        return (ctx.deadline - esexec.world.now()).total_seconds()

    await engine.worker(usual)
    assert 29 < (await engine.execute("usual")).result <= 30
    with pytest.raises(esexec.ValidationError):
        await engine.client.start("usual", timeout=-1)


async def test_a_timeout_is_the_attempts_not_the_callers(engine: Engine) -> None:
    """F124: `timeout=` of a start limits each attempt; the caller's patience is another thing."""

    @esexec.task
    async def slow() -> None:
        await asyncio.sleep(30)

    await engine.worker(slow)
    with pytest.raises(esexec.TaskTimeout):
        await engine.client.run("slow", timeout=0.05, max_retries=0, wait_timeout=8)


@pytest.mark.usefixtures("quick_leases")
async def test_a_handler_that_blocks_the_loop_is_closed_and_costs_nobody_else_anything(engine: Engine) -> None:
    """Design §4: past timeout and grace its attempt is closed; the other attempts of that worker keep their leases."""
    calls: list[str] = []
    release = threading.Event()

    @esexec.task(timeout=0.3, max_retries=0)
    async def blocks() -> None:
        calls.append("blocks")
        release.wait(10)  # the very thing one must not do in a coroutine

    @esexec.task(timeout=30)
    async def innocent() -> str:
        calls.append("innocent")
        await asyncio.sleep(0.2)
        return "fine"

    @esexec.task(timeout=5)
    async def together() -> int:
        calls.append("together")
        await until(lambda: len(calls) == 2, 4)
        return len(calls)

    async with WorkerThread(engine, blocks, innocent, together, queues={"default": 2}, lease_ms=1_000):
        good = await engine.client.start("innocent")
        await until(lambda: calls)
        bad = await engine.execute("blocks")
        assert bad.status == ExecutionStatus.FAILED
        assert [event.ended for event in timed_out(await engine.events(bad.id))] == ["abandoned"]
        assert any("blocks its worker's loop" in line for line in engine.complaints.lines)
        blocked_until = time.monotonic() + 1.5  # longer than a lease
        await until(lambda: time.monotonic() > blocked_until)
        release.set()
        assert await good.result(wait_timeout=5) == "fine"
        assert calls == ["innocent", "blocks"]  # nothing was handed out twice
        # Both slots are free again.
        again = await asyncio.gather(*(engine.execute("innocent") for _ in range(4)))
        assert [result.result for result in again] == ["fine"] * 4
        calls.clear()
        both = [await engine.client.start("together") for _ in range(2)]
        assert [await handle.result(wait_timeout=5) for handle in both] == [2, 2]  # side by side


@pytest.mark.usefixtures("quick_leases")
async def test_long_attempts_keep_their_lease(engine: Engine) -> None:
    """A handler that runs longer than a lease is not handed out again: the lease is kept by a thread of its own."""
    calls: list[int] = []

    @esexec.task(timeout=0)
    async def long(ctx: esexec.Context) -> str:
        calls.append(ctx.attempt)
        await asyncio.sleep(2.5)
        return "done"

    @esexec.task(timeout=0)
    def long_sync(ctx: esexec.Context) -> str:
        calls.append(ctx.attempt)
        time.sleep(2.5)
        return "done"

    await engine.worker(long, long_sync, lease_ms=1_000)
    results = await asyncio.gather(engine.execute("long"), engine.execute("long_sync"))
    assert [result.result for result in results] == ["done", "done"]
    assert calls == [1, 1]
