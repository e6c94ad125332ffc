"""Time on a running engine: starts for later, deadlines, the wait for a worker, and that all of it survives restarts."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import esexec
from esexec import Step
from esexec.domain.events import TaskTimedOut
from tests.integration.engine import KINDS, Engine, until
from tests.integration.site import WAIT_S, Shaker, Site, has, phase

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)


async def timeouts(engine: Engine, execution_id: str) -> list[tuple[str, int]]:
    """What timed out: (code, milliseconds) in order."""
    events = await engine.events(execution_id)
    return [(event.error.code, event.timeout_ms) for event in events if isinstance(event, TaskTimedOut)]


@everywhere
async def test_a_delay_counts_from_when_it_was_stored(engine: Engine, site: Site) -> None:
    """F125: not before; it is pending and `scheduled` until then."""
    began = datetime.now(UTC)
    handle = await engine.client.start(site.row("a"), delay="300ms")
    shown = await handle.snapshot()
    assert (shown.status, shown.current_phase, site.calls) == ("pending", "scheduled", [])
    result = await handle.wait(wait_timeout=WAIT_S)
    assert result.started_at is not None
    assert result.started_at >= began + timedelta(milliseconds=295)


async def test_a_start_for_later_outlives_everything(alone: Engine, shake: Shaker) -> None:
    """Whoever is restarted before its time, it begins then, once."""
    site = Site()
    await alone.worker(*site.tasks)
    due = datetime.now(UTC) + timedelta(seconds=1.5)
    handle = await alone.client.start(site.row("a"), start_at=due)
    await shake()
    assert (await phase(handle, "scheduled")).start_at == due
    result = await handle.wait(wait_timeout=WAIT_S)
    assert result.started_at is not None
    assert due <= result.started_at < due + timedelta(seconds=3)
    assert site.order == ["build a"]


async def test_a_start_for_later_can_be_cancelled(engine: Engine, site: Site) -> None:
    """It ends at once, and its time passes without effect."""
    handle = await engine.client.start(site.row("a"), delay="1h")
    assert await handle.cancel() is True
    assert (await handle.wait(wait_timeout=WAIT_S)).status == "cancelled"
    assert site.calls == []


@everywhere
async def test_a_deadline_stops_what_runs(engine: Engine, site: Site) -> None:
    """F126: the handler is cancelled, and what had completed is undone; the error says that it was the deadline."""
    site.shut("b")
    handle = await engine.client.start(site.row("a", "b", "c"), execution_timeout="300ms")
    result = await handle.wait(wait_timeout=WAIT_S)
    assert (result.status, result.error.code if result.error else None) == ("rolled_back", "execution_timeout")
    assert (site.hands, site.done[0]) == (set(), "build a")
    assert set(site.done[1:]) == {"undo a", "undo b"} or site.done[1:] == ["undo a"]


async def test_a_deadline_outlives_everything(alone: Engine, shake: Shaker) -> None:
    """Its timer is as durable as the history: whoever is restarted, the execution ends by it."""
    site = Site()
    await alone.worker(*site.tasks, lease_ms=1_000)
    site.shut("b")
    handle = await alone.client.start(site.row("a", "b", enable_rollback=False), execution_timeout="1500ms", timeout=0)
    await site.at("b")
    await shake()
    result = await handle.wait(wait_timeout=WAIT_S)
    assert (result.status, result.error.code if result.error else None) == ("failed", "execution_timeout")
    await until(lambda: site.hands == set())


async def test_a_retry_has_the_whole_time_again(engine: Engine, site: Site) -> None:
    """A deadline is a run's: retried, the execution has as long as the first time."""
    site.shut("b")
    result = await engine.execute(site.row("a", "b", enable_rollback=False), execution_timeout="1s")
    assert result.error is not None
    assert result.error.code == "execution_timeout"
    site.open("b")
    handle = await engine.client.retry(result.id)
    assert (await handle.wait(wait_timeout=WAIT_S)).ok


@everywhere
async def test_nobody_there_to_begin_it(engine: Engine) -> None:
    """F032: an attempt that no worker takes within `queue_timeout` times out, is retried, and finds who has come meanwhile."""
    site = Site()
    handle = await engine.client.start(site.row("a"), queue_timeout="200ms", retry_delay="10ms", jitter=0.0)
    await has(engine, handle.id, "task_timed_out")
    await engine.worker(*site.tasks)
    result = await handle.wait(wait_timeout=WAIT_S)
    assert result.ok
    assert set(await timeouts(engine, handle.id)) == {("queue_timeout", 200)}
    assert len(site.done) == 1


@everywhere
async def test_nobody_free_to_begin_it(engine: Engine, site: Site) -> None:
    """Behind a busy worker it is taken back and never runs; who had begun is not touched by it, however long it takes."""
    await engine.worker(*site.tasks, queues={"narrow": 1})
    site.shut("a")
    options = {"queue": "narrow", "max_retries": 0, "queue_timeout": "200ms"}
    first = await engine.client.start(site.row("a"), **options)
    await site.at("a")
    second = await engine.client.start(site.row("b"), **options)
    result = await second.wait(wait_timeout=WAIT_S)
    assert (result.status, result.error.code if result.error else None) == ("failed", "queue_timeout")
    assert await first.status() == "running"
    site.open("a")
    assert (await first.wait(wait_timeout=WAIT_S)).ok
    assert site.done == ["build a"]
    assert result.rollback_status is None  # what nobody began has nothing to undo


async def test_a_queue_timeout_outlives_everything(alone: Engine, shake: Shaker) -> None:
    """Without a worker and over a restart, the waiting ends in its time."""
    site = Site()
    handle = await alone.client.start(site.row("a"), queue_timeout="1200ms", max_retries=0)
    await shake()
    result = await handle.wait(wait_timeout=WAIT_S)
    assert (result.status, result.error.code if result.error else None) == ("failed", "queue_timeout")


async def test_a_pause_does_not_count_as_waiting(engine: Engine, site: Site) -> None:
    """What the pause held did not wait for a worker: resumed after the timeout has passed, it runs."""
    await engine.worker(*site.tasks, queues={"narrow": 1})
    site.shut("a")
    first = await engine.client.start(site.row("a"), queue="narrow", timeout=0)
    await site.at("a")
    second = await engine.client.start(site.row("b"), queue="narrow", queue_timeout="500ms", max_retries=0)
    await second.pause()
    paused_at = datetime.now(UTC)
    await until(lambda: datetime.now(UTC) > paused_at + timedelta(seconds=0.7))
    site.open("a")
    assert (await first.wait(wait_timeout=WAIT_S)).ok
    await second.resume()
    assert (await second.wait(wait_timeout=WAIT_S)).ok


async def test_each_timed_out_attempt_gives_the_next_one_longer(engine: Engine) -> None:
    """C41: `timeout_growth` multiplies the timeout after every attempt that was too slow."""
    given: list[float] = []

    @esexec.task(timeout="60ms", timeout_growth=3.0, retry_delay="10ms")
    async def slow(ctx: esexec.Context) -> int:
        assert ctx.deadline is not None
        given.append(round((ctx.deadline - datetime.now(UTC)).total_seconds() * 1000, -1))
        if ctx.attempt < 3:
            await asyncio.sleep(60)
        return ctx.attempt

    await engine.worker(slow)
    result = await engine.execute(esexec.Plan("p", steps=[Step("slow", id="a")]), jitter=0.0)
    assert result.result == 3
    assert await timeouts(engine, result.id) == [("task_timeout", 60), ("task_timeout", 180)]
    assert given[-1] > 400
