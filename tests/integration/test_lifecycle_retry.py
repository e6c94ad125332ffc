"""Retry of what has ended, on a running engine: in place, one step, as an execution of its own, after a rollback."""

import asyncio
from collections import Counter
from typing import Any

import pytest

import esexec
from esexec import Plan, Refused, Step
from tests.integration.engine import KINDS, Engine, until
from tests.integration.site import WAIT_S, Shaker, Site, phase

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)


def two_failures(**settings: Any) -> Plan:
    """`a` before `b` before `c`; `x` before `y`; `b` and `x` fail."""
    return Plan(
        "two",
        steps=[
            Step("build", id="a"),
            Step("build", id="b", depends_on=["a"]),
            Step("build", id="c", depends_on=["b"]),
            Step("build", id="x"),
            Step("build", id="y", depends_on=["x"]),
        ],
        parallel=True,
        continue_on_error=True,
        **settings,
    )


@everywhere
async def test_completed_steps_keep_what_they_gave(engine: Engine, site: Site) -> None:
    """F116: run 2 does what failed and what was skipped; outputs of run 1 are handed on, and attempts count from one again."""
    site.hopeless |= {"b", "x"}
    result = await engine.execute(two_failures())
    assert (result.status, {task.task_id: task.status for task in result.results}) == (
        "failed",
        {"a": "completed", "b": "failed", "c": "skipped", "x": "failed", "y": "skipped"},
    )
    site.hopeless.clear()
    handle = await engine.client.retry(result.id)
    again = await handle.wait(wait_timeout=WAIT_S)
    assert (again.status, again.run) == ("completed", 2)
    assert Counter(site.done) == Counter(f"build {name}" for name in "abcxy")
    assert again.partial_results == {"a": {"id": "a-1"}} | {name: {"id": f"{name}-2"} for name in "bcxy"}
    assert {(call["step"], call["attempt"]) for call in site.calls if call["run"] == 2} == {(name, 1) for name in "bcxy"}


@everywhere
async def test_one_step_is_retried_and_the_other_failure_stays(engine: Engine, site: Site) -> None:
    """F117: only the named step and what waited for it run; the execution still fails for the other, which can be next."""
    site.hopeless |= {"b", "x"}
    result = await engine.execute(two_failures())
    site.hopeless.clear()
    handle = await engine.client.retry(result.id, step="b")
    again = await handle.wait(wait_timeout=WAIT_S)
    assert (again.status, {task.task_id: task.status for task in again.results}) == (
        "failed",
        {"a": "completed", "b": "completed", "c": "completed", "x": "failed", "y": "skipped"},
    )
    with pytest.raises(Refused, match="nothing_to_retry"):
        await engine.client.retry(result.id, step="b")
    await engine.client.retry(result.id, step="x")
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert Counter(site.done) == Counter(f"build {name}" for name in "abcxy")


async def test_a_retry_outlives_everything(alone: Engine, shake: Shaker) -> None:
    """Restarted between the end and the retry, and in the middle of run 2: the kept outputs stay, each step ends once."""
    site = Site()
    await alone.worker(*site.tasks)
    site.hopeless.add("b")
    result = await alone.execute(site.row("a", "b", "c", enable_rollback=False))
    await shake()
    site.hopeless.clear()
    site.shut("b")
    handle = await alone.client.retry(result.id)
    await site.at("b")
    await shake()
    site.open("b")
    again = await handle.wait(wait_timeout=WAIT_S)
    assert (again.status, again.run, again.partial_results["a"]) == ("completed", 2, {"id": "a-1"})
    assert site.order == ["build a", "build b", "build c"]


async def test_a_fork_outlives_everything(alone: Engine, shake: Shaker) -> None:
    """As new: the old one is left as it failed; the new one names it, takes its outputs along, and can be rolled back alone."""
    site = Site()
    await alone.worker(*site.tasks)
    site.hopeless.add("b")
    result = await alone.execute(site.row("a", "b", enable_rollback=False))
    await shake()
    site.hopeless.clear()
    site.shut("b")
    handle = await alone.client.retry(result.id, as_new=True)
    await site.at("b")
    await shake()
    site.open("b")
    forked = await handle.wait(wait_timeout=WAIT_S)
    assert (forked.status, forked.forked_from, forked.run) == ("completed", result.id, 1)
    assert forked.partial_results == {"a": {"id": "a-1"}, "b": {"id": "b-1"}}
    assert (await alone.client.get_or_raise(result.id)).status == "failed"
    await handle_of_rollback(alone, handle.id)
    assert site.order == ["build a", "build b", "undo b"]  # what the old one did is the old one's


async def handle_of_rollback(engine: Engine, execution_id: str) -> None:
    undone = await (await engine.client.rollback(execution_id)).wait(wait_timeout=WAIT_S)
    assert (undone.status, undone.rollback_status) == ("rolled_back", "completed")


@everywhere
async def test_the_same_fork_asked_for_twice_is_one_execution(engine: Engine, site: Site) -> None:
    """With one new id, ten clients at once start one execution."""
    site.hopeless.add("b")
    result = await engine.execute(site.row("a", "b", enable_rollback=False))
    site.hopeless.clear()
    handles = await asyncio.gather(*(engine.client.retry(result.id, new_id=f"{result.id[:30]}-new") for _ in range(10)))
    assert {handle.id for handle in handles} == {f"{result.id[:30]}-new"}
    assert (await handles[0].wait(wait_timeout=WAIT_S)).ok
    assert Counter(site.done) == Counter(["build a", "build b"])


@everywhere
async def test_after_a_rollback_everything_runs_again(engine: Engine, site: Site) -> None:
    """F205: nothing is kept of what was undone; what the second run does can be undone again, once."""
    site.hopeless.add("c")
    handle = await engine.client.start(site.row("a", "b", "c"))
    assert (await phase(handle, "rolled_back")).rollback_status == "completed"
    await handle.retry()
    again = await handle.wait(wait_timeout=WAIT_S)
    assert (again.status, again.run) == ("rolled_back", 2)
    assert site.done == ["build a", "build b", "undo b", "undo a"] * 2
    assert {call["id"] for call in site.calls if call.get("undo") == "a"} == {"a-1", "a-2"}
    site.hopeless.clear()
    await handle.retry()
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert site.done[8:] == ["build a", "build b", "build c"]


async def test_what_was_cancelled_can_be_retried(engine: Engine, site: Site) -> None:
    """F205: a cancelled execution goes on from what it had completed."""
    site.shut("b")
    handle = await engine.client.start(site.row("a", "b", "c"))
    await site.at("b")
    await handle.cancel()
    assert (await handle.wait(wait_timeout=WAIT_S)).status == "cancelled"
    site.open("b")
    await handle.retry()
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert site.done == ["build a", "build b", "build c"]


@pytest.mark.parametrize("engine", ["two executors"], indirect=True)
async def test_rivals_retry_it_once(engine: Engine, site: Site) -> None:
    """Ten clients retry the same failed execution at once: one does, the others hear that it has not ended or is overtaken."""
    site.hopeless.add("b")
    result = await engine.execute(site.row("a", "b", enable_rollback=False))
    site.hopeless.clear()
    site.shut("b")
    clients = [await engine.another_client() for _ in range(5)]
    asked = await asyncio.gather(*(client.retry(result.id) for client in clients * 2), return_exceptions=True)
    refused = [one.code for one in asked if isinstance(one, esexec.EsexecError)]
    assert (len(refused), set(refused) <= {"not_ended", "superseded"}) == (9, True)
    await until(lambda: site.hands == {"b"})
    site.open("b")
    again = await engine.client.wait(result.id, wait_timeout=WAIT_S)
    assert (again.ok, again.run) == (True, 2)
