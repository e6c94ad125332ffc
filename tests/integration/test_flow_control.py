"""Rate limits, concurrency keys and resource pools on a real server, decided by executors that know nothing of each other."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

import esexec
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Commit
from esexec.domain.sharing.fold import fold_shared
from esexec.log import codec
from esexec.nats.direct import waits_since
from esexec.world import now
from tests.integration.engine import Engine, until

pytestmark = pytest.mark.parametrize("engine", ["three executors"], indirect=True)

WINDOW_MS, MOST = 500, 5
running: Counter[str] = Counter()
most: Counter[str] = Counter()


@esexec.task(rate_limit=esexec.RateLimit(MOST, WINDOW_MS))
async def call(number: int) -> int:
    return number


@esexec.task(rate_limit=esexec.RateLimit(1, 60_000, on_limit="reject"))
async def call_or_fail() -> None: ...


@esexec.task(concurrency=esexec.Key("params.user", limit=2))
async def serve(user: str) -> str:
    running[user] += 1
    most[user] = max(most[user], running[user])
    while most[user] < 2:  # until another one runs beside it
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.01)
    running[user] -= 1
    return user


@esexec.task(resources={"gpu": 2})
async def train(ctx: esexec.Context) -> list[str]:
    (gpu,) = ctx.allocated
    running["gpu"] += gpu.amount  # type: ignore[assignment]
    most["gpu"] = max(most["gpu"], running["gpu"])
    await asyncio.sleep(0.02)
    running["gpu"] -= gpu.amount  # type: ignore[assignment]
    return [gpu.pool]


@pytest.fixture(autouse=True)
def nothing_runs() -> None:
    running.clear()
    most.clear()


async def worker(engine: Engine, task: esexec.Task[..., Any], slots: int = 10) -> None:
    """A worker whose announcement every executor has heard: before, one may create executions that know nothing of the limits."""
    await engine.worker(task, queues={"default": slots})
    await until(lambda: all(task.name in one._desk.surroundings.tasks for one in engine.executors))


async def commits_of(engine: Engine, prefix: str) -> list[Commit]:
    """The history of the one entity whose id begins so."""
    (entity,) = [one for one in await engine.client.list_ids(shared=True) if one.startswith(prefix)]
    return [codec.decode(one.data) for one in await engine.client._log.load(entity)]


def check_window(commits: list[Commit], most: int, window: timedelta) -> int:
    """No window holds more grants than allowed; how many there were."""
    grants = [commit.time for commit in commits for event in commit.events if isinstance(event, e.RequestGranted)]
    for first in range(len(grants) - most):
        assert grants[first + most] - grants[first] >= window
    return len(grants)


async def test_no_window_holds_more_grants_than_allowed(engine: Engine) -> None:
    """Twenty-three executions at five in half a second: all complete, none used a retry, those that waited say so."""
    await worker(engine, call)
    results = await asyncio.gather(*[engine.execute(call, {"number": number}) for number in range(23)])
    assert [result.result for result in results] == list(range(23))
    assert {result.results[0].retries for result in results} == {0}
    assert any(result.results[0].was_rate_limited for result in results), "nobody had to wait"
    commits = await commits_of(engine, "_limit-")
    assert check_window(commits, MOST, timedelta(milliseconds=WINDOW_MS)) == 23


@pytest.mark.usefixtures("short_ack_wait")
async def test_a_killed_executor_costs_no_grant(engine: Engine) -> None:
    """One of four executors is killed again and again while they grant: all complete, and no window is overfull."""
    await worker(engine, call, 30)
    fourth = [sys.executable, "-m", "tests.chaos.role", "executor", engine.url, engine.namespace]
    killed = [subprocess.Popen([*fourth, f"k{number}"]) for number in range(2)]  # noqa: ASYNC220  # returns at once
    started = asyncio.gather(*[engine.execute(call, {"number": number}, wait=60) for number in range(30)])
    try:
        for number in range(2):
            commits = 3 * (number + 1)
            await until(lambda least=commits: _has_grants(engine, least), 30)
            os.kill(killed[number].pid, signal.SIGKILL)
    finally:
        for one in killed:
            one.kill()
            one.wait()
    assert all(result.ok for result in await started)
    commits = await commits_of(engine, "_limit-")
    assert check_window(commits, MOST, timedelta(milliseconds=WINDOW_MS)) >= 30


async def _has_grants(engine: Engine, least: int) -> bool:
    entities = [one for one in await engine.client.list_ids(shared=True) if one.startswith("_limit-")]
    return bool(entities) and len(await engine.client._log.load(entities[0])) >= least


async def test_reject_fails_at_once(engine: Engine) -> None:
    """There is no room: the attempt fails with `rate_limited`, and is not retried."""
    await worker(engine, call_or_fail)
    assert (await engine.execute(call_or_fail)).ok
    failed = await engine.execute(call_or_fail)
    assert (failed.status, failed.error.code, failed.results[0].retries) == ("failed", "rate_limited", 0)


async def test_no_more_steps_of_a_key_run_at_once_than_allowed(engine: Engine) -> None:
    """Ten of each of two users, two at a time of each: and the slots are all free in the end."""
    await worker(engine, serve, 20)
    users = ["ada", "bob"] * 10
    assert [one.result for one in await asyncio.gather(*[engine.execute(serve, {"user": user}) for user in users])] == users
    assert most == {"ada": 2, "bob": 2}

    async def all_free() -> bool:
        entities = [one for one in await engine.client.list_ids(shared=True) if one.startswith("_slots-")]
        histories = [(entity, await engine.client._log.load(entity)) for entity in entities]
        return not any(fold_shared(entity, [codec.decode(one.data) for one in stored]).held for entity, stored in histories)

    await until(all_free)


def singleton(policy: Any) -> esexec.Plan:
    return esexec.Plan("one", [esexec.Step(wait_for_it)], concurrency=esexec.Key.singleton("input.key", policy))


@esexec.task
async def wait_for_it(ctx: esexec.Context) -> str:
    running[ctx.execution_id] += 1
    while not most["go"]:
        await asyncio.sleep(0.005)
    return "done"


async def test_a_singleton_that_queues_skips_or_replaces(engine: Engine) -> None:
    """While one runs, the next of its key waits; or ends as cancelled; or the one that runs is cancelled in its favour."""
    await engine.worker(wait_for_it)
    client = engine.client
    first = await client.start(singleton("queue"), {"key": "k"})
    await until(lambda: running[first.id])
    skipped = await client.execute(singleton("skip"), {"key": "k"}, wait_timeout=10)
    assert (skipped.status, skipped.error.code, skipped.results[0].attempt) == ("cancelled", "skipped", 0)
    waiting = await client.start(singleton("queue"), {"key": "k"})
    assert (await client.get_or_raise(waiting.id)).status == "pending"
    replacing = await client.start(singleton("replace"), {"key": "k"})
    for replaced in (first, waiting):
        result = await client.wait(replaced.id, wait_timeout=10)
        assert (result.status, result.error.code) == ("cancelled", "replaced")
        with pytest.raises(esexec.ExecutionCancelled) as raised:
            await replaced.result()
        assert raised.value.code == "replaced"
    await until(lambda: running[replacing.id])
    most["go"] = 1
    assert (await client.wait(replacing.id, wait_timeout=10)).ok


async def test_a_pool_is_never_oversold(engine: Engine) -> None:
    """Twelve attempts that need two of five: never more than two at once; what they used, and its cost, is told."""
    await engine.client.resources.declare(esexec.ResourcePool("rack", "gpu", 5.0, cost_per_unit=0.5))
    await worker(engine, train, 20)
    results = await asyncio.gather(*[engine.execute(train) for _ in range(12)])
    assert [result.error for result in results] == [None] * 12
    assert {tuple(result.result) for result in results} == {("rack",)}
    assert most["gpu"] == 4
    types = await engine.types(results[0].id)
    assert types.index("resource_allocated") < types.index("task_started") < types.index("resource_released")
    (used,) = await engine.client.resources.usage(results[0].id)
    assert (used.resource_type, used.amount_used, used.cost) == ("gpu", 2.0, 1.0)
    assert used.end_time is not None
    assert 0 < used.efficiency <= 1

    async def all_free() -> bool:
        return [one.free for one in await engine.client.resources.pools()] == [5.0]

    await until(all_free)


async def test_a_client_allocates_holds_and_releases(engine: Engine) -> None:
    """What is free is allocated at once; what is not is waited for, or refused in time; a block gives back by itself."""
    resources = engine.client.resources
    await resources.declare({"id": "rack", "type": "gpu", "capacity": 4, "attributes": {"memory": 16}})
    with pytest.raises(esexec.ResourceUnavailable, match="no pools have so much"):
        await resources.allocate({"gpu": 8})
    with pytest.raises(esexec.ResourceUnavailable, match="no pool of fpga"):
        await resources.allocate({"fpga": 1})
    (held,) = await resources.allocate({"gpu": 3})
    with pytest.raises(esexec.ResourceUnavailable):
        await resources.allocate({"gpu": 2}, wait_timeout=0)
    with pytest.raises(esexec.ResourceUnavailable, match="not free within"):
        await resources.allocate({"gpu": 2}, wait_timeout=0.2)
    waiting = asyncio.ensure_future(resources.allocate({"gpu": 2}, wait_timeout=10))
    assert await resources.release([held])
    assert [one.amount for one in await waiting] == [2.0]
    async with resources.hold([esexec.ResourceRequirement("gpu", 2.0, constraints={"minMemory": 8})]) as block:
        assert [one.free for one in await resources.pools()] == [0.0]
    assert not await resources.release(block)
    with pytest.raises(esexec.EsexecError, match="pool_in_use"):
        await resources.remove("rack")


async def test_a_lease_that_nobody_renews_ends(engine: Engine) -> None:
    """The holder is gone: after its lease the resources are free again, without anybody's help."""
    resources = engine.client.resources
    await resources.declare(esexec.ResourcePool("rack", "gpu", 1.0))
    await resources.allocate({"gpu": 1}, lease="1s")
    assert await resources.allocate({"gpu": 1}, wait_timeout=10)


async def test_what_executions_share_has_histories_to_be_read(engine: Engine) -> None:
    """As those of executions; but an execution they are not."""
    await engine.client.resources.declare(esexec.ResourcePool("rack", "gpu", 1.0))
    (commit,) = await engine.client.history("_pools")
    assert [type(event) for event in commit.events] == [e.PoolDeclared]
    with pytest.raises(esexec.ValidationError):
        await engine.client.resources.remove("no pool")
    for call in (engine.client.status, engine.client.resources.usage, engine.client.cancel):
        with pytest.raises(esexec.ValidationError) as refused:
            await call("_pools")
        assert refused.value.code == "bad_execution_id"
    with pytest.raises(esexec.NotFound):
        await engine.client.history("_limit-none")


@pytest.mark.parametrize("wait", ["5s", timedelta(seconds=5), 5, None])
async def test_a_wait_is_a_duration_as_any_other(engine: Engine, wait: Any) -> None:
    """A number of seconds, a text with its unit, a timedelta."""
    resources = engine.client.resources
    await resources.declare(esexec.ResourcePool("rack", "gpu", 1.0))
    assert await resources.release(await resources.allocate({"gpu": 1}, wait_timeout=wait))
    async with resources.hold({"gpu": 1}, wait_timeout=wait, lease=timedelta(seconds=5)):
        pass
    with pytest.raises(esexec.NotFound):
        await engine.client.status("nobody")
    handle = await engine.client.start("nobody_has_this", execution_id="waits")
    with pytest.raises(esexec.AwaitTimeout, match=r"within 0\.05 s"):
        await handle.wait(wait_timeout="50ms")
    with pytest.raises(esexec.AwaitTimeout):
        await engine.client.execute("nobody_has_this", wait_timeout=timedelta(milliseconds=50))


@pytest.mark.parametrize("wait", [-1, "soon", float("nan"), [5]])
async def test_a_wait_that_is_none_is_told_before_anything_is_sent(engine: Engine, wait: Any) -> None:
    """Nothing is started, and nothing is held by nobody."""
    resources = engine.client.resources
    await resources.declare(esexec.ResourcePool("rack", "gpu", 1.0))
    for call in (
        lambda: resources.allocate({"gpu": 1}, wait_timeout=wait),
        lambda: engine.client.execute(call_or_fail, wait_timeout=wait, execution_id="never"),
        lambda: engine.client.wait("never", wait_timeout=wait),
    ):
        with pytest.raises(esexec.ValidationError) as refused:
            await call()
        assert refused.value.code == "invalid_duration"
        assert "None to wait for ever" in str(refused.value.hint)
    assert await engine.client.get("never") is None
    assert [one.free for one in await resources.pools()] == [1.0]


async def test_what_goes_wrong_while_one_allocates_leaves_nothing_held(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer did not come, or could not be read: whatever was granted comes back, long before its lease ends."""
    resources = engine.client.resources
    await resources.declare(esexec.ResourcePool("rack", "gpu", 1.0))
    tell = engine.client._tell_shared

    async def tell_and_fail(entity: str, verb: str, command: Any) -> bool:
        await tell(entity, verb, command)
        raise esexec.NotConfirmed("nobody has answered")

    monkeypatch.setattr(engine.client, "_tell_shared", tell_and_fail)
    with pytest.raises(esexec.NotConfirmed):
        await resources.allocate({"gpu": 1}, lease="1h")
    monkeypatch.undo()

    async def all_free() -> bool:
        return [one.free for one in await resources.pools()] == [1.0]

    assert len(await engine.client._log.load("_pools")) >= 2
    await until(all_free)


async def test_one_resource_is_released_as_several_are(engine: Engine) -> None:
    """By its id, or itself; what is none is refused, and takes nothing back."""
    resources, facade = engine.client.resources, esexec.Engine.of(engine.client)
    await resources.declare(esexec.ResourcePool("rack", "gpu", 4.0))
    (one,), (two,) = await resources.allocate({"gpu": 1}), await resources.allocate({"gpu": 1})
    assert await resources.release(one.id)
    assert await facade.release_resources(two)
    assert [one.free for one in await resources.pools()] == [4.0]
    for wrong in (None, 5, [5], [None], "", "no id", [one.id] * 1001):
        with pytest.raises(esexec.ValidationError) as refused:
            await resources.release(wrong)  # type: ignore[arg-type]
        assert refused.value.code == "invalid_value"
    assert not await resources.release([])
    for nothing in ([], {}):
        with pytest.raises(esexec.ValidationError) as refused:
            await resources.allocate(nothing)
        assert refused.value.code == "missing"


async def test_a_lease_that_is_renewed_in_time_is_kept_though_commands_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While too many dispatches wait, no commands are taken: what was sent meanwhile to renew a lease counts all the same."""
    resources = engine.client.resources
    await resources.declare(esexec.ResourcePool("rack", "gpu", 1.0))
    async with resources.hold({"gpu": 1}, lease="1s"):
        monkeypatch.setattr(limits, "tasks_waiting", -1)
        await until(lambda: all(tap.paused for one in engine.executors for tap in one._command_taps))
        for one in engine.executors:
            await one._puller.recall()  # what was asked for before may come for half a minute

        async def is_unread_for_longer_than_a_lease() -> bool:
            subjects = engine.subjects
            stored = subjects.command_stored("_pools", "renew")
            since = await waits_since(engine.client._connection, subjects.commands_stream, stored)
            return since is not None and now() - since > timedelta(seconds=2)

        await until(is_unread_for_longer_than_a_lease, 20)
        assert [one.free for one in await resources.pools()] == [0.0]
        monkeypatch.setattr(limits, "tasks_waiting", 20_000)
        await until(lambda: not any(tap.paused for one in engine.executors for tap in one._command_taps))
        assert [one.free for one in await resources.pools()] == [0.0]
    assert "what was held is lost" not in caplog.text


async def test_a_held_allocation_that_is_lost_says_so_and_the_block_goes_on(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody released it from outside: the next renewal warns, renews no more, and the end of the block has nothing to do."""
    resources = engine.client.resources
    await resources.declare(esexec.ResourcePool("rack", "gpu", 1.0))
    async with resources.hold({"gpu": 1}, lease="1s") as held:
        assert await resources.release(held)
        await until(lambda: "what was held is lost" in caplog.text)
    assert [one.free for one in await resources.pools()] == [1.0]
