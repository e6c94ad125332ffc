"""Processes that die at chosen instructions, freeze, or drain: everything ends once, and the log agrees with the world."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import esexec
from esexec.domain import limits
from esexec.domain.events import TaskScheduled
from esexec.nats.streams import ACK_WAIT_MS
from tests.chaos.dying import EXECUTOR_POINTS, WORKER_POINTS
from tests.chaos.rig import Rig, Role, tail, until
from tests.server import NatsServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

SOON = {"initial_retry_delay": 0.05, "max_retries": 6}
LEASE_S = limits.lease_ms / 1000


@pytest.fixture
async def rig(own_server: NatsServer, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """Messages that an executor did not let go come again after a second, so that its restart is seen to work soon.

    Parametrized indirectly: after so many milliseconds.
    """
    rig = Rig(tmp_path, own_server)
    await rig.make_streams(ack_wait_ms=getattr(request, "param", 1000))
    yield rig
    rig.close()


def plan(ms: int = 20) -> esexec.Plan:
    """Three steps in a row, the middle one with a retry, and two beside each other."""
    step = esexec.Step
    return esexec.Plan(
        "deaths",
        [
            step("work", id="a", params={"ms": ms}),
            step("work_sync", id="b", params={"ms": ms, "fail_first": 1, "before": ["${steps.a.output}"]}),
            step("work", id="c", params={"ms": ms, "before": ["${steps.b.output}"]}),
            step("work", id="d", params={"ms": ms, "before": ["${steps.b.output}"]}, parallel=True),
        ],
    )


async def dead(role: Role) -> None:
    await until(f"{role.name} has died", lambda: not role.is_alive, 20, lambda: tail(role.log))
    assert role.process is not None
    assert role.process.returncode == -signal.SIGKILL


async def reborn(role: Role) -> None:
    role.options.pop("die")
    role.start()
    await role.rig.ready(role)


async def settled(rig: Rig, **acknowledged: list[str]) -> None:
    """Nothing is on its way, the checker is content, and a restart of everything changes nothing."""
    await rig.at_rest()
    report = await rig.check(acknowledged=acknowledged)
    assert not report.problems, f"{report}\nlogs: {rig.directory}"
    await rig.restart_everything()
    await rig.at_rest()
    again = await rig.check(acknowledged=acknowledged)
    assert not again.problems, f"{again}\nlogs: {rig.directory}"
    assert again.last_sequence == report.last_sequence


@pytest.mark.parametrize("nth", [1, 2, 4])
@pytest.mark.parametrize("point", EXECUTOR_POINTS)
async def test_an_executor_may_die_at_any_instruction(rig: Rig, point: str, nth: int) -> None:
    """Killed once it loaded, decided, appended, before effects or ack: restarted it goes on; one decision per command."""
    cache = {"cache_size": 0} if point == "loaded" else {}
    executor, _worker = rig.executor(die=f"{point}:{nth}", **cache), rig.worker()
    await rig.ready()
    async with esexec.connect(rig.url, namespace=rig.namespace, confirm_s=30) as client:
        starting = asyncio.ensure_future(client.start(plan(), idempotency_key="one", **SOON))
        await dead(executor)
        await reborn(executor)
        handle = await starting
        assert (await handle.wait(wait_timeout=20)).ok, tail(executor.log)
    await settled(rig, **{handle.id: ["completed"]})
    assert len(rig.notes("end")) >= 4


@pytest.mark.parametrize("point", ["continue:1", "continued:1", "decided:2", "appended:2", "continue:2"])
async def test_an_executor_may_die_between_the_parts_of_a_decision(rig: Rig, point: str) -> None:
    """A fan-out of 10,000 does not fit into one decision: killed before, within or after a further part, each step runs once."""
    executor, _worker = rig.executor(die=point), rig.worker(queues={"default": 200})
    await rig.ready()
    fan = esexec.Plan("fan", [esexec.Step("work", id=f"s{n}", params={"ms": 0}) for n in range(10_000)], parallel=True)
    async with esexec.connect(rig.url, namespace=rig.namespace, confirm_s=60) as client:
        starting = asyncio.ensure_future(client.start(fan, parallel_execution_limit=1000))
        await dead(executor)
        await reborn(executor)
        handle = await starting
        result = await handle.wait(wait_timeout=150)
        assert result.ok, tail(executor.log)
        stored = await client._log.load(handle.id)
        assert max(len(one.data) for one in stored) <= limits.commit_bytes
        scheduled = Counter(event.step for commit in await client.history(handle.id) for event in commit.events
                            if isinstance(event, TaskScheduled))  # fmt: skip
        assert len(scheduled) == 10_000
        assert set(scheduled.values()) == {1}
        assert all(len(commit.events) <= limits.events_per_commit for commit in await client.history(handle.id))


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("point", WORKER_POINTS)
async def test_a_worker_may_die_at_any_instruction(rig: Rig, point: str, nth: int) -> None:
    """Killed before a handler begins, after its effect and before its report, or before the ack: at least once, one outcome."""
    rig.executor()
    worker = rig.worker(die=f"{point}:{nth}")
    await rig.ready()
    async with esexec.connect(rig.url, namespace=rig.namespace) as client:
        handle = await client.start(plan(), **SOON)
        await dead(worker)
        await reborn(worker)
        assert (await handle.wait(wait_timeout=4 * LEASE_S)).ok, tail(worker.log)
    await settled(rig, **{handle.id: ["completed"]})
    ended = Counter((note["step"], note["attempt"]) for note in rig.notes("end"))
    assert set(ended) == {("a", 1), ("b", 2), ("c", 1), ("d", 1)}
    assert max(ended.values()) <= 2


async def test_the_late_report_of_a_frozen_worker_changes_nothing(rig: Rig, tmp_path: Path) -> None:
    """Frozen for longer than its lease, its attempt goes to another; thawed, its report is one too many, and so is its ack."""
    rig.executor()
    frozen = rig.worker(queues={"default": 1})
    await rig.ready()
    gate = tmp_path / "gate"
    async with esexec.connect(rig.url, namespace=rig.namespace) as client:
        handle = await client.start("until_file", {"path": str(gate)}, **SOON)
        await until("the first worker has begun", lambda: len(rig.notes("begin")) == 1, 10)
        frozen.freeze()
        other = rig.worker(queues={"default": 1})
        await rig.ready(other)
        await until("the other worker has begun too", lambda: len(rig.notes("begin")) == 2, 3 * LEASE_S, lambda: tail(other.log))
        gate.touch()
        assert (await handle.wait(wait_timeout=10)).ok
        length = len(await client.history(handle.id))
        frozen.thaw()
        await until("the frozen worker ended its handler", lambda: len(rig.notes("end")) == 2, 10, lambda: tail(frozen.log))
        await rig.at_rest()
        assert len(await client.history(handle.id)) == length
    await settled(rig, **{handle.id: ["completed"]})


async def test_a_step_ends_although_its_late_holder_acks_and_its_new_one_dies(rig: Rig, tmp_path: Path) -> None:
    """The thawed worker reports while another has the attempt, and that one is killed: the report stands, the step has ended."""
    rig.executor()
    frozen = rig.worker(queues={"default": 1})
    await rig.ready()
    gate = tmp_path / "gate"
    async with esexec.connect(rig.url, namespace=rig.namespace) as client:
        handle = await client.start("until_file", {"path": str(gate)}, **SOON)
        await until("the first worker has begun", lambda: len(rig.notes("begin")) == 1, 10)
        frozen.freeze()
        other = rig.worker(queues={"default": 1})
        await until("the other worker has begun too", lambda: len(rig.notes("begin")) == 2, 4 * LEASE_S, lambda: tail(other.log))
        other.freeze()
        frozen.thaw()
        gate.touch()
        await until("the late holder ended its handler", lambda: len(rig.notes("end")) == 1, 10)
        other.kill()
        assert (await handle.wait(wait_timeout=4 * LEASE_S)).ok
    await settled(rig, **{handle.id: ["completed"]})


@pytest.mark.parametrize("seconds", [1, 4, 9])
async def test_a_server_that_stands_still_leaves_no_doubt_behind(rig: Rig, seconds: int) -> None:
    """Frozen in full flow, below and beyond what connections and leases bear: unknown outcomes are resolved, nothing twice."""
    for kind in ("executor", "executor", "worker", "worker"):
        rig.role(kind)
    await rig.ready()
    async with esexec.connect(rig.url, namespace=rig.namespace, confirm_s=40) as client:
        starts = [asyncio.ensure_future(client.start(plan(100), **SOON)) for _ in range(30)]
        await until("work is under way", lambda: len(rig.notes("end")) > 20, 20)
        rig.server.freeze()
        await asyncio.sleep(seconds)  # the fault itself
        rig.server.thaw()
        handles = await asyncio.gather(*starts)
        results = await asyncio.gather(*(handle.wait(wait_timeout=40) for handle in handles))
    assert [result.ok for result in results] == [True] * 30
    await settled(rig, **{handle.id: ["completed"] for handle in handles})


@pytest.mark.parametrize("rig", [ACK_WAIT_MS], indirect=True)
async def test_sigterm_drains_everything_within_its_deadline(rig: Rig) -> None:
    """Asked to end in full flow, every process hands back what it cannot finish; its successors go on within seconds."""
    for kind in ("executor", "executor", "worker", "worker"):
        rig.role(kind)
    await rig.ready()
    async with esexec.connect(rig.url, namespace=rig.namespace) as client:
        handles = [await client.start(plan(300), **SOON) for _ in range(40)]
        await until("work is under way", lambda: len(rig.notes("end")) > 10, 20)
        began = time.monotonic()
        for role in rig.roles:
            role.signal(signal.SIGTERM)
        for role in rig.roles:
            await until(f"{role.name} has ended", lambda role=role: not role.is_alive, 12, lambda role=role: tail(role.log))
            assert role.process is not None
            assert role.process.returncode == 0, tail(role.log)
        assert time.monotonic() - began < 11
        before = Counter((note["execution"], note["step"], note["attempt"]) for note in rig.notes("begin"))
        for role in rig.roles:
            role.start()
        await rig.ready()
        began = time.monotonic()
        results = await asyncio.gather(*(handle.wait(wait_timeout=60) for handle in handles))
        took = time.monotonic() - began
    assert [result.ok for result in results] == [True] * 40
    assert took < 12, f"the successors took {took:.1f} s: something waited for a lease or an ack wait to end"
    after = Counter((note["execution"], note["step"], note["attempt"]) for note in rig.notes("begin"))
    assert sum((after - before).values()) + sum(before.values()) == len(after), "a handler that could end was run again"
    await settled(rig, **{handle.id: ["completed"] for handle in handles})


async def test_a_task_that_kills_its_workers_is_given_up_and_the_others_go_on(rig: Rig) -> None:
    """After ten lost holders the attempt ends as WORKER_LOST; whatever else runs beside it ends as it should."""
    rig.executor()
    worker = rig.worker(lease_ms=2000, queues={"default": 2})
    await rig.ready()
    stop = asyncio.Event()

    async def keep_it_up() -> None:
        while not stop.is_set():
            if not worker.is_alive:
                worker.start()
            await asyncio.sleep(0.05)

    keeper = asyncio.ensure_future(keep_it_up())
    async with esexec.connect(rig.url, namespace=rig.namespace) as client:
        killer = await client.start("killer", {}, max_retries=0)
        others = [await client.start("work", {"ms": 10}, **SOON) for _ in range(5)]
        result = await killer.wait(wait_timeout=90)
        assert [(await other.wait(wait_timeout=30)).ok for other in others] == [True] * 5
    stop.set()
    await keeper
    assert result.error is not None
    assert result.error.code == "WORKER_LOST"
    assert len([note for note in rig.notes("begin") if note["step"] == "killer"]) <= limits.losses_per_attempt
    report = await rig.check(acknowledged={killer.id: ["failed"], **{other.id: ["completed"] for other in others}})
    assert not report.problems, str(report)
