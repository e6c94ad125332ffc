"""Processes of projections that are killed while executions go on, and a log that is restored to an earlier day: what is counted
is what the log holds, once, and lists say what details say.
"""

import asyncio
import json
import os
import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest

import esexec
from esexec.results import TaskResult
from tests.chaos.checker import read_log
from tests.chaos.dying import PROJECTION_POINTS
from tests.chaos.rig import Rig, Role, tail, until
from tests.chaos.test_deaths import dead, reborn
from tests.server import NatsServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

STORM_S = 9.0
KILLS = 12
KEPT = ["counting", "executions", "statistics"]
NOT_IN_LISTS = {"output"}
SOON = {"initial_retry_delay": 0.02, "max_retries": 3}


@pytest.fixture
async def rig(own_server: NatsServer, tmp_path: Path) -> AsyncIterator[Rig]:
    """An executor and a worker; projections are the test's."""
    rig = Rig(tmp_path, own_server)
    await rig.make_streams(ack_wait_ms=1000)
    rig.executor()
    rig.worker(queues={"default": 20})
    await rig.ready()
    yield rig
    rig.close()


def views(rig: Rig) -> str:
    return str(rig.directory / "views.sqlite")


def work(ms: int = 5) -> esexec.Plan:
    step = esexec.Step
    steps = [step("work", id="a", params={"ms": ms, "fail_first": 1}), step("work", id="b", depends_on=["a"], params={"ms": ms})]
    return esexec.Plan("counted", steps)


async def some(client: esexec.Client, number: int, *, first: int = 0) -> int:
    """So many executions, side by side; the position of the last that ended."""
    results = await asyncio.gather(
        *(
            client.execute(
                work(), execution_id=f"e-{first + n}", initial_retry_delay=0.02, metadata={"n": n % 3}, wait_timeout=60
            )
            for n in range(number)
        )
    )
    assert all(result.ok for result in results)
    return max(result.position for result in results)


async def in_the_log(rig: Rig) -> Counter[tuple[str, str]]:
    """What stands in the log: by entity and type of event, how often."""
    client = await nats.connect(rig.server.url)
    try:
        stored = await read_log(client, rig.namespace)
    finally:
        await client.close()
    return Counter((one.entity, event["type"]) for one in stored for event in json.loads(one.data)["events"])


def counted(rig: Rig) -> Counter[tuple[str, str]]:
    """What was counted, by the file itself."""
    with sqlite3.connect(views(rig)) as connection:
        live = connection.execute("SELECT view FROM esexec_live WHERE projection = 'counting'").fetchone()
        rows = connection.execute(f'SELECT entity, type, count FROM "{live[0] if live else "counting"}__counts"').fetchall()
    return Counter({(entity, kind): count for entity, kind, count in rows})


async def agree(rig: Rig, client: esexec.Client) -> None:
    """All is counted, exactly once; and all lists, and sums, are what the details are."""
    truth = await in_the_log(rig)
    await until("all events are counted", lambda: counted(rig).total() >= truth.total(), 20, lambda: logs(rig))
    assert counted(rig) == truth
    listed, cursor = {}, None
    while True:
        page = await client.executions.list(limit=50, cursor=cursor)
        listed |= {one.execution_id: one for one in page}
        if (cursor := page.cursor) is None:
            break
    assert set(listed) == {entity for entity, _ in truth if not entity.startswith("_")}
    results = [await client.get_or_raise(execution_id) for execution_id in listed]
    for result in results:
        execution_id, row = result.id, listed[result.id]
        same = [name for name in row.__struct_fields__ if hasattr(result, name)]
        assert {name: getattr(row, name) for name in same} == {name: getattr(result, name) for name in same}
        tasks = {task.task_id: task for task in await client.tasks.list(execution_id=execution_id)}
        for task in result.results:
            assert said(tasks[task.task_id]) == said(task)
    await sums_agree(client, results)


async def sums_agree(client: esexec.Client, results: list[esexec.ExecutionResult]) -> None:
    """Statistics are the sums of the details."""
    after = max(result.position for result in results)
    stats, of_tasks = await client.stats(after=after), await client.task_stats(after=after)
    tasks = [task for result in results for task in result.results]
    assert +Counter(stats.by_status) == Counter(str(result.status) for result in results)
    assert +Counter(of_tasks.by_status) == Counter(str(task.status) for task in tasks)
    assert stats.retries == of_tasks.retries == sum(task.retries for task in tasks)
    took_ms = [result.duration_ms for result in results if result.duration_ms is not None]
    assert stats.average_execution_time_ms == pytest.approx(sum(took_ms) / len(took_ms))


def said(task: TaskResult) -> dict[str, Any]:
    return {name: getattr(task, name) for name in TaskResult.__struct_fields__ if name not in NOT_IN_LISTS}


def logs(rig: Rig) -> str:
    return "\n".join(tail(role.log) for role in rig.roles if role.kind == "projections")


@pytest.mark.parametrize("point", [*(f"{point}:1" for point in PROJECTION_POINTS), "processed:3", "committed:3"])
async def test_projections_may_die_at_any_instruction(rig: Rig, point: str) -> None:
    """Once a page is read, once rows or position are in the transaction, once that is committed: all is counted exactly once."""
    async with esexec.connect(rig.url, namespace=rig.namespace) as client:
        await some(client, 5)
        keeper = rig.role("projections", store=views(rig), only=KEPT, die=point)
        await asyncio.gather(some(client, 5, first=5), some_until_dead(client, keeper))
        await dead(keeper)
        await reborn(keeper)
        await client.executions.list(after=await some(client, 5, first=100))
        await agree(rig, client)


async def some_until_dead(client: esexec.Client, keeper: Role) -> None:
    number = 1000
    while keeper.is_alive:
        await some(client, 1, first=number)
        number += 1


async def test_whatever_is_killed_all_is_counted_once(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Two processes of projections on one file, killed at random moments: one works, the other takes over."""
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
    rng = random.Random(seed)
    keepers = [rig.role("projections", store=views(rig), only=KEPT) for _ in range(2)]
    await rig.ready(*keepers)
    over, ended = False, 0
    async with esexec.connect(rig.url, namespace=rig.namespace) as client:

        async def go_on() -> None:
            nonlocal ended
            while not over:
                await some(client, 10, first=ended)
                ended += 10

        going = asyncio.ensure_future(go_on())
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.2, 1.8) * STORM_S / KILLS)
            keeper = rng.choice(keepers)
            keeper.kill()
            keeper.start()
        over = True
        await going
        await rig.ready(*keepers)
        await agree(rig, client)
        with capsys.disabled():
            print(f"\nCHAOS_SEED={seed}: {ended} executions, {counted(rig).total()} events counted, {KILLS} kills")


async def test_another_process_takes_over(rig: Rig) -> None:
    """Within seconds after the one that works was killed, and nothing is counted twice."""
    one = rig.role("projections", store=views(rig), only=KEPT)
    await rig.ready(one)
    other = rig.role("projections", store=views(rig), only=KEPT)
    await rig.ready(other)
    async with esexec.connect(rig.url, namespace=rig.namespace) as client:
        await client.executions.list(after=await some(client, 5))
        one.kill()
        killed = time.monotonic()
        position = await some(client, 5, first=5)
        await until("it goes on", lambda: reached(client, position), 10, lambda: logs(rig))
        assert time.monotonic() - killed < 10
        await agree(rig, client)


async def reached(client: esexec.Client, position: int) -> bool:
    try:
        return (await client.executions.list(after=position)).as_of.position >= position
    except esexec.Unavailable:
        return False


@pytest.mark.parametrize("meanwhile", ["down", "frozen", "up"])
async def test_a_log_that_was_restored_is_noticed(rig: Rig, meanwhile: str) -> None:
    """To an earlier day, and then it goes on beyond where the view had come to: the view is made anew, whether its process was
    down, up, or saw nothing of it."""
    keeper = rig.role("projections", store=views(rig), only=KEPT)
    await rig.ready(keeper)
    kept = rig.directory / "backup"
    async with esexec.connect(rig.url, namespace=rig.namespace) as client:
        await some(client, 3)
        await rig.at_rest()
        rig.server.stop()
        shutil.copytree(rig.server.store, kept)
        rig.server.start()
        lost = await some(client, 10, first=100)
        await client.executions.list(after=lost)
        await agree(rig, client)
    if meanwhile == "down":
        keeper.kill()
    elif meanwhile == "frozen":
        keeper.freeze()
    rig.server.kill()
    shutil.rmtree(rig.server.store)
    shutil.copytree(kept, rig.server.store)
    rig.server.start()
    async with esexec.connect(rig.url, namespace=rig.namespace) as client:
        number, position = 200, 0
        while position <= lost + 20:
            position = await some(client, 10, first=number)
            number += 10
        if meanwhile == "down":
            keeper.start()
        elif meanwhile == "frozen":
            keeper.thaw()
        await rig.ready(keeper)
        await until("it has come as far", lambda: reached(client, position), 20, lambda: logs(rig))
        await until("the view is of the restored log", lambda: same(rig), 20, lambda: logs(rig))
        await agree(rig, client)


async def same(rig: Rig) -> bool:
    return counted(rig) == await in_the_log(rig)
