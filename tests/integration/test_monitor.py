"""Watching live: first the past, then every commit in order, at last the end; whatever gets lost on the way is filled in."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import esexec
from esexec import ExecutionStatus, ExecutionUpdate, Plan, Step
from esexec.client.feed import Feed
from esexec.domain.events import type_of
from tests.integration.engine import KINDS, Engine, until

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)

PLAN = Plan("chain", steps=[Step("gate", id=f"s{n}", params={"n": n}) for n in range(4)])


class Gate:
    """A task whose calls are let through one by one."""

    def __init__(self) -> None:
        self.passes = asyncio.Semaphore(0)

        @esexec.task(name="gate", timeout=0)
        async def gate(n: int) -> int:
            await self.passes.acquire()
            return n

        self.task = gate

    def let(self, count: int) -> None:
        for _ in range(count):
            self.passes.release()


@pytest.fixture
def gate() -> Gate:
    return Gate()


class Watcher:
    """Collects updates in the background."""

    def __init__(self, updates: AsyncIterator[ExecutionUpdate]) -> None:
        self.updates: list[ExecutionUpdate] = []
        self.task = asyncio.create_task(self._watch(updates))

    async def _watch(self, updates: AsyncIterator[ExecutionUpdate]) -> None:
        async for update in updates:
            self.updates.append(update)

    async def end(self) -> list[ExecutionUpdate]:
        await asyncio.wait_for(self.task, 10)
        return self.updates

    @property
    def types(self) -> list[str]:
        return [type_of(event) for update in self.updates for event in update.events]


async def whole(engine: Engine, watcher: Watcher, execution_id: str) -> None:
    """It ends with the execution, and has told every event once, in order."""
    updates = await watcher.end()
    assert watcher.types == await engine.types(execution_id)
    assert updates[-1].status == (await engine.client.status(execution_id))
    percentages = [update.progress.percentage for update in updates]
    assert percentages == sorted(percentages)
    assert [update.timestamp for update in updates] == sorted(update.timestamp for update in updates)


@everywhere
async def test_first_the_past_then_every_commit_then_the_end(engine: Engine, gate: Gate) -> None:
    """F300: whoever comes late gets all that has happened in the first update, and then one update per commit."""
    await engine.worker(gate.task)
    handle = await engine.client.start(PLAN)
    gate.let(2)

    async def half() -> bool:
        return (await handle.snapshot()).completed_steps == 2

    await until(half)
    watcher = Watcher(handle.monitor())
    await until(lambda: watcher.updates)
    past = watcher.updates[0]
    assert type_of(past.events[0]) == "execution_created"
    assert (past.progress.completed_tasks, past.progress.total_tasks, past.progress.percentage) == (2, 4, 50.0)
    assert (past.progress.completed, past.progress.total, past.progress.current_phase) == (2, 4, "executing")
    assert (past.status, past.current_task, past.execution_id) == (ExecutionStatus.RUNNING, "s2", handle.id)
    gate.let(2)
    await whole(engine, watcher, handle.id)
    assert watcher.updates[-1].progress.percentage == 100.0
    assert len(watcher.updates) > 2


async def test_an_ended_execution_is_one_update(engine: Engine, gate: Gate) -> None:
    """Everything at once, and it ends."""
    await engine.worker(gate.task)
    gate.let(4)
    result = await engine.execute(PLAN)
    updates = [update async for update in engine.client.monitor(result.id)]
    assert len(updates) == 1
    assert [type_of(event) for event in updates[0].events] == await engine.types(result.id)


async def test_what_is_not_there_is_not_found(engine: Engine) -> None:
    """`NotFound` at once."""
    with pytest.raises(esexec.NotFound):
        await anext(engine.client.monitor("nobody"))


@everywhere
async def test_several_watchers_hear_the_same(engine: Engine, gate: Gate) -> None:
    """Two on one client, one on another, one that begins later, one that stops early: none disturbs another."""
    await engine.worker(gate.task)
    other = await engine.another_client()
    handle = await engine.client.start(PLAN)
    watchers = [Watcher(handle.monitor()), Watcher(handle.monitor()), Watcher(other.monitor(handle.id))]
    await until(lambda: all(watcher.updates for watcher in watchers))
    first = await anext(aiter(handle.monitor()))
    assert first.status == ExecutionStatus.RUNNING
    gate.let(2)
    watchers.append(Watcher(other.monitor(handle.id)))
    await until(lambda: watchers[-1].updates)
    gate.let(2)
    assert (await handle.wait(wait_timeout=8)).status == ExecutionStatus.COMPLETED
    for watcher in watchers:
        await whole(engine, watcher, handle.id)


async def test_a_slow_watcher_misses_nothing(engine: Engine, gate: Gate) -> None:
    """Who takes his time with each update gets them all, and holds up nobody else."""
    await engine.worker(gate.task)
    handle = await engine.client.start(PLAN)
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[ExecutionUpdate]:
        async for update in handle.monitor():
            yield update
            await go_on.wait()

    slow = Watcher(slowly())
    await until(lambda: slow.updates)
    gate.let(4)
    assert (await handle.wait(wait_timeout=8)).status == ExecutionStatus.COMPLETED
    assert len(slow.updates) == 1
    go_on.set()
    await whole(engine, slow, handle.id)


@pytest.mark.parametrize("lost", [{2}, {3, 4}, {2, 4, 6}, set(range(2, 100))], ids=str)
async def test_a_lost_message_is_filled_in(engine: Engine, gate: Gate, lost: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server repeats is at-most-once: a gap is filled by a read, and who hears nothing looks again by himself."""
    dropped: list[str] = []
    heard = Feed._on_commit

    async def losing(feed: Feed, message) -> None:  # type: ignore[no-untyped-def]
        if int(message.subject.rsplit(".", 1)[1]) in lost:
            dropped.append(message.subject)
        else:
            await heard(feed, message)

    monkeypatch.setattr(Feed, "_on_commit", losing)
    monkeypatch.setattr("esexec.client.feed._LOOK_AGAIN_S", 0.2)
    client = await engine.another_client()
    await engine.worker(gate.task)
    handle = await client.start(PLAN)
    watcher = Watcher(handle.monitor())
    gate.let(4)
    assert (await client.wait(handle.id, wait_timeout=8)).status == ExecutionStatus.COMPLETED
    await whole(engine, watcher, handle.id)
    assert dropped


async def test_forty_executions_are_watched_at_once(engine: Engine, gate: Gate) -> None:
    """More than are followed one by one; each watcher hears its own execution only."""
    await engine.worker(gate.task, queues={"default": 40})
    handles = [await engine.client.start(PLAN) for _ in range(40)]
    watchers = [Watcher(handle.monitor()) for handle in handles]
    gate.let(160)
    for handle, watcher in zip(handles, watchers, strict=True):
        await whole(engine, watcher, handle.id)
        assert {update.execution_id for update in watcher.updates} == {handle.id}


async def test_cancelled_and_failed_end_a_watch_too(engine: Engine, gate: Gate) -> None:
    """Every final status ends it."""

    @esexec.task
    async def bad() -> None:
        raise esexec.ExecutionError("no", retry=False)

    await engine.worker(gate.task, bad)
    handle = await engine.client.start(PLAN)
    watcher = Watcher(handle.monitor())
    await until(lambda: watcher.updates)
    await handle.cancel()
    assert (await watcher.end())[-1].status == ExecutionStatus.CANCELLED
    failed = await engine.client.start("bad")
    assert [update.status async for update in failed.monitor()][-1] == ExecutionStatus.FAILED


async def test_no_consumer_is_made_for_a_watcher(engine: Engine, gate: Gate) -> None:
    """Design §2: watching costs the server a subscription, nothing that stays."""
    await engine.worker(gate.task)
    handle = await engine.client.start(PLAN)
    connection = engine.client._connection
    assert connection is not None
    watchers = [Watcher(handle.monitor()) for _ in range(5)]
    await until(lambda: all(watcher.updates for watcher in watchers))
    info = await connection.api(f"STREAM.INFO.{engine.subjects.log_stream}")
    assert info["state"].get("consumer_count", 0) == 0
    gate.let(4)
    for watcher in watchers:
        await watcher.end()
