"""Checkpoints on a running engine: by hand, by interval, per task; back to one while it runs and after its end."""

import asyncio
from collections import Counter
from typing import Any

import pytest

import esexec
from esexec import Plan, Step
from esexec.domain.events import CheckpointCreated
from tests.integration.engine import KINDS, Engine, until
from tests.integration.site import WAIT_S, Shaker, Site, has

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)


async def made(engine: Engine, execution_id: str, by: str) -> list[str]:
    events = await engine.events(execution_id)
    return [event.checkpoint_id for event in events if isinstance(event, CheckpointCreated) and event.by == by]


@everywhere
async def test_one_after_every_task(engine: Engine, site: Site) -> None:
    """F243: each knows what had completed by then; back to the second, what came after it runs again."""
    result = await engine.execute(site.row("a", "b", "c"), checkpoint_every="task")
    checkpoints = await made(engine, result.id, "task")
    states = [(await engine.client.checkpoints.get(one)).state for one in checkpoints]
    assert [state.completed_tasks for state in states if state] == [["a"], ["a", "b"], ["a", "b", "c"]]
    handle = await engine.client.checkpoints.restore(checkpoints[1])
    again = await handle.wait(wait_timeout=WAIT_S)
    assert (again.status, again.run) == ("completed", 2)
    assert site.done == ["build a", "build b", "build c", "build c"]


@everywhere
async def test_one_every_so_often_until_the_end(engine: Engine, site: Site) -> None:
    """F242: as long as it runs, at its interval; none after the end, and no timer is left."""
    site.shut("a")
    handle = await engine.client.start(site.row("a"), checkpoint_interval=0.1)

    async def three() -> bool:
        return len(await made(engine, handle.id, "interval")) >= 3

    await until(three)
    site.open("a")
    result = await handle.wait(wait_timeout=WAIT_S)
    assert result.ok
    connection = engine.client._connection
    assert connection is not None

    async def no_timers() -> bool:
        info = await connection.api(f"STREAM.INFO.{engine.subjects.timers_stream}")
        return int(info["state"]["messages"]) == 0

    await until(no_timers)
    assert (await handle.snapshot()).checkpoints == result.checkpoints


@everywhere
async def test_back_to_one_while_it_runs(engine: Engine, site: Site) -> None:
    """What runs is told to stop; whatever it still reports changes nothing; the new run does it again."""
    stopped: list[str] = []
    finished = asyncio.Event()

    @esexec.task(timeout=0)
    async def stubborn(ctx: esexec.Context) -> str:
        if ctx.run == 1:
            began.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                stopped.append(f"{ctx.step} {ctx.run}-{ctx.attempt}")
            ctx.vars["who"] = "the old run"
            finished.set()
        return f"run {ctx.run}"

    began = asyncio.Event()
    await engine.worker(stubborn, queues={"hard": 1})
    steps = [Step("build", id="a"), Step("stubborn", id="b", queue="hard", depends_on=["a"])]
    handle = await engine.client.start(Plan("p", steps=steps))
    await asyncio.wait_for(began.wait(), 8)
    kept = await handle.checkpoint()
    await engine.client.checkpoints.restore(kept.id, "again")
    await asyncio.wait_for(finished.wait(), 8)
    result = await handle.wait(wait_timeout=WAIT_S)
    assert (result.status, result.run, result.result, result.variables) == ("completed", 2, "run 2", {})
    assert stopped == ["b 1-1"]
    assert site.done == ["build a"]
    outcomes = [event for event in await engine.events(handle.id) if getattr(event, "output", None)]
    assert [(event.step, event.run) for event in outcomes] == [("a", 1), ("b", 2)]


@everywhere
async def test_variables_go_back_as_well(engine: Engine) -> None:
    """F250: the variables are those of the checkpoint; what was set after it is set again by who runs again."""
    seen: list[tuple[str, int, dict[str, Any]]] = []

    @esexec.task
    async def count(ctx: esexec.Context) -> None:
        seen.append((ctx.step, ctx.run, dict(ctx.vars)))
        ctx.vars["n"] = ctx.vars.get("n", 0) + 1

    await engine.worker(count)
    steps = [Step("count", id="a"), Step("count", id="b", depends_on=["a"])]
    result = await engine.execute(Plan("p", steps=steps), checkpoint_every="task")
    assert result.variables == {"n": 2}
    handle = await engine.client.checkpoints.restore(result.checkpoints[0])
    assert (await handle.wait(wait_timeout=WAIT_S)).variables == {"n": 2}
    assert seen == [("a", 1, {}), ("b", 1, {"n": 1}), ("b", 2, {"n": 1})]


async def test_back_while_it_is_paused(engine: Engine, site: Site) -> None:
    """F348: it stays paused; nothing of the new run begins before the resume."""
    site.shut("b")
    handle = await engine.client.start(site.row("a", "b"))
    await site.at("b")
    kept = await handle.checkpoint()
    await handle.pause()
    await engine.client.checkpoints.restore(kept.id)
    await until(lambda: "b" not in site.hands)
    shown = await handle.snapshot()
    assert (shown.status, shown.run) == ("paused", 2)
    site.open("b")
    assert len(site.calls) == 2
    await handle.resume()
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert Counter(site.done) == Counter(["build a", "build b"])


async def test_back_over_a_rollback_does_what_was_undone_again(engine: Engine, site: Site) -> None:
    """A checkpoint does not bring back what was undone since: those steps run again."""
    site.hopeless.add("c")
    result = await engine.execute(site.row("a", "b", "c"), checkpoint_every="task")
    assert result.status == "rolled_back"
    site.hopeless.clear()
    handle = await engine.client.checkpoints.restore(result.checkpoints[1])
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert site.done == ["build a", "build b", "undo b", "undo a", "build a", "build b", "build c"]


async def test_a_checkpoint_outlives_everything(alone: Engine, shake: Shaker) -> None:
    """Made, kept over a restart, gone back to while it runs and after its end, with restarts in between."""
    site = Site()
    await alone.worker(*site.tasks, lease_ms=1_000)
    site.shut("b")
    handle = await alone.client.start(site.row("a", "b", "c"), checkpoint_interval=0.2, timeout=0)
    await site.at("b")
    kept = await handle.checkpoint({"why": "test"})
    await shake()
    before = len(await made(alone, handle.id, "interval"))

    async def one_more() -> bool:
        return len(await made(alone, handle.id, "interval")) > before

    await until(one_more)  # its timer has outlived it, too
    assert (await alone.client.checkpoints.get(kept.id)).metadata == {"why": "test"}
    await alone.client.checkpoints.restore(kept.id)
    await until(lambda: any((call["step"], call["run"]) == ("b", 2) for call in site.calls))
    await shake()
    site.open("b")
    again = await handle.wait(wait_timeout=WAIT_S)
    assert (again.status, again.run) == ("completed", 2)
    await alone.client.checkpoints.restore(kept.id)
    third = await handle.wait(wait_timeout=WAIT_S)
    assert (third.status, third.run, third.step("a").output) == ("completed", 3, {"id": "a-1"})
    assert {call["run"] for call in site.calls if call["step"] == "a"} == {1}


async def test_interrupted_restores_of_rivals(engine: Engine, site: Site) -> None:
    """Ten clients go back to one checkpoint at once: runs are counted without a gap, and every run but the last is given up."""
    site.shut("b")
    handle = await engine.client.start(site.row("a", "b"))
    await site.at("b")
    kept = await handle.checkpoint()
    clients = [await engine.another_client() for _ in range(5)]
    asked = await asyncio.gather(*(client.checkpoints.restore(kept.id) for client in clients * 2), return_exceptions=True)
    went = sum(isinstance(one, esexec.Handle) for one in asked)
    site.open("b")
    result = await handle.wait(wait_timeout=WAIT_S)
    assert (result.ok, result.run) == (True, 1 + went)
    await has(engine, handle.id, "execution_completed")
    assert site.done.count("build a") == 1
