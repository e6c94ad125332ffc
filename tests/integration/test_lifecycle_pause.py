"""Pause and resume on a running engine: nothing begins while it is paused, nothing is lost or done twice by it."""

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

import esexec
from esexec import Plan, Refused, Step
from tests.integration.engine import KINDS, Engine, until
from tests.integration.site import WAIT_S, Shaker, Site, has, phase

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)
FAST_S = 4.0
"""Far below the grace of 10 s."""


def fan(width: int, **settings: object) -> Plan:
    return Plan("fan", steps=[Step("build", id=f"s{n}") for n in range(width)], parallel=True, **settings)  # type: ignore[arg-type]


@everywhere
async def test_what_was_handed_out_and_not_begun_does_not_begin(engine: Engine) -> None:
    """More attempts than slots: after `pause` has returned no handler begins; after the resume each runs exactly once."""
    site = Site()
    names = [f"s{n}" for n in range(10)]
    site.shut(*names)
    await engine.worker(*site.tasks, queues={"default": 3})
    handle = await engine.client.start(fan(10))
    await until(lambda: len(site.hands) == 3)
    assert await handle.pause() is True
    begun = set(site.hands)
    site.open(*names)

    async def ended() -> bool:
        return (await handle.snapshot()).completed_steps == 3

    await until(ended)
    another = await engine.execute("build")  # the same queue: had anything waited before it, that would have begun
    assert another.ok
    assert {call["step"] for call in site.calls} == begun | {"build"}
    assert await handle.resume() is True
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert Counter(call["step"] for call in site.calls) == Counter([*names, "build"])


async def test_a_pause_of_many_executions_holds_their_common_queue(engine: Engine) -> None:
    """Twenty executions behind one slot: paused in the same moment, none begins; resumed, each runs exactly once."""
    site = Site()
    site.shut("build")
    await engine.worker(*site.tasks, queues={"default": 1})
    handles = [await engine.client.start("build") for _ in range(20)]
    await site.at("build")
    assert all(await asyncio.gather(*(handle.pause() for handle in handles)))
    site.open("build")
    await until(lambda: site.done)
    assert (await handles[0].wait(wait_timeout=WAIT_S)).ok  # what ran when it was paused may complete
    assert len(site.calls) == 1
    assert all(await asyncio.gather(*(handle.resume() for handle in handles[1:])))
    assert all([(await handle.wait(wait_timeout=WAIT_S)).ok for handle in handles])
    assert len(site.calls) == 20


@everywhere
async def test_pauses_and_resumes_in_quick_succession(engine: Engine, site: Site) -> None:
    """Thirty times over, from two clients: whatever is in flight meanwhile, every step is done once."""
    other = await engine.another_client()
    handle = await engine.client.start(fan(20, parallel_execution_limit=4))
    while True:
        try:
            await engine.client.pause(handle.id)
            await other.resume(handle.id)
        except Refused as refused:
            if refused.code == "ended":
                break
            if refused.code != "superseded":
                raise
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert Counter(site.done) == Counter(f"build s{n}" for n in range(20))


@everywhere
async def test_a_retry_that_comes_due_waits(engine: Engine, site: Site) -> None:
    """The timer of a retry has no effect while paused: the next attempt is made after the resume, and only once."""
    site.fails["a"] = 1
    site.shut("a")
    handle = await engine.client.start(site.row("a"), initial_retry_delay=0.05, jitter=0.0)
    await site.at("a")
    await handle.pause("wait")
    site.open("a")
    await has(engine, handle.id, "task_retry_scheduled")
    due = (await handle.snapshot()).step("a").next_retry_at
    assert due is not None
    await until(lambda: datetime.now(UTC) > due + timedelta(seconds=0.3))
    shown = await handle.snapshot()
    assert (shown.status, shown.step("a").attempt, len(site.calls)) == ("paused", 1, 1)
    await handle.resume()
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert [call["attempt"] for call in site.calls] == [1, 2]


async def test_what_a_strategy_asks_for_waits(engine: Engine, site: Site) -> None:
    """Paused while a strategy is asked: its answer is recorded, and what it asked for begins after the resume."""
    asked = asyncio.Event()
    gate = asyncio.Event()

    @esexec.recovery("HOPELESS")
    async def again(ctx: esexec.RecoveryContext) -> esexec.RecoveryResult:
        asked.set()
        await gate.wait()
        site.hopeless.clear()
        return esexec.RecoveryResult(True, esexec.RecoveryAction.RETRY)

    site.hopeless.add("a")
    await engine.worker(*site.tasks, queues={"advice": 1}, strategies=[again])
    await engine.client.strategies.add(esexec.domain.strategies.Strategy(id="again", queue="advice"))
    await until(lambda: all(it._desk.surroundings.strategies for it in engine.executors))
    handle = await engine.client.start(site.row("a", "b"))
    await asyncio.wait_for(asked.wait(), 8)
    assert (await handle.snapshot()).current_phase == "recovering"
    await handle.pause()
    gate.set()
    await has(engine, handle.id, "recovery_completed")
    assert len(site.calls) == 1
    await handle.resume()
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert [(call["step"], call["attempt"]) for call in site.calls] == [("a", 1), ("a", 3), ("b", 1)]


@everywhere
async def test_a_rollback_waits_before_its_next_undoing(engine: Engine, site: Site) -> None:
    """Paused while one step is undone: that one ends, the next is undone after the resume; each once."""
    site.hopeless.add("d")
    site.shut("undo b")
    handle = await engine.client.start(site.row("a", "b", "c", "d"))
    await site.at("undo b")
    await handle.pause()
    site.open("undo b")
    await has(engine, handle.id, "compensation_completed:b")
    shown = await handle.snapshot()
    assert (shown.status, shown.current_phase) == ("paused", "rolling_back")
    assert site.done[3:] == ["undo c", "undo b"]
    await handle.resume()
    assert (await handle.wait(wait_timeout=WAIT_S)).status == "rolled_back"
    assert site.done[3:] == ["undo c", "undo b", "undo a"]


@everywhere
async def test_a_paused_execution_is_cancelled_at_once(engine: Engine, site: Site) -> None:
    """What the pause took back is not waited for: the end comes now, and not with the grace."""
    site.shut("s0")
    await engine.worker(*site.tasks, queues={"other": 1})
    handle = await engine.client.start(fan(5), queue="other")
    await site.at("s0")
    await handle.pause()
    site.open("s0")
    await has(engine, handle.id, "task_completed:s0")
    began = time.monotonic()
    assert await handle.cancel() is True
    assert (await handle.wait(wait_timeout=FAST_S)).status == "cancelled"
    assert time.monotonic() - began < FAST_S
    assert len(site.calls) == 1


async def test_a_paused_execution_outlives_everything(alone: Engine, shake: Shaker) -> None:
    """F341: over a restart it stays paused, holds what it held, and goes on with the resume; every step is done once."""
    site = Site()
    site.shut("s0", "s1")
    await alone.worker(*site.tasks, queues={"default": 2})
    handle = await alone.client.start(fan(6), timeout=0)
    await site.at("s0", "s1")
    await handle.pause("the night")
    await shake()
    site.open("s0", "s1")
    await has(alone, handle.id, "task_completed:s0")
    await has(alone, handle.id, "task_completed:s1")
    shown = await phase(handle, "paused")
    assert (shown.pause_reason, set(site.order)) == ("the night", {"build s0", "build s1"})
    await shake()
    assert await handle.resume() is True
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert set(site.order) == {f"build s{n}" for n in range(6)}


async def test_a_start_that_is_due_waits_for_the_resume(engine: Engine, site: Site) -> None:
    """Paused before its start time it stays pending; resumed after it, it begins at once."""
    handle = await engine.client.start(site.row("a"), delay=0.3)
    await handle.pause()
    start_at = (await handle.snapshot()).start_at
    assert start_at is not None
    await until(lambda: datetime.now(UTC) > start_at + timedelta(seconds=0.2))
    assert ((await handle.snapshot()).status, site.calls) == ("paused", [])
    await handle.resume()
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
