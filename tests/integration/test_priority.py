"""Which waiting attempt starts when a slot frees: the highest priority, then the oldest; never more than there are slots."""

import asyncio
from typing import Any

import pytest

import esexec
from esexec import ExecutionStatus, Plan, Step, Worker
from esexec.domain import limits
from esexec.nats.pull import Tap
from esexec.nats.streams import ensure_lane
from tests.integration.engine import KINDS, Engine, until

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)


class Turnstile:
    """A task whose calls are noted, and let through one by one."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.running = self.most = 0
        self._passes = asyncio.Semaphore(0)

        @esexec.task(name="turn", timeout=0)
        async def turn(n: Any) -> Any:
            self.seen.append(n)
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self._passes.acquire()
            finally:
                self.running -= 1
            return n

        self.task = turn

    def let(self, count: int) -> None:
        """So many calls may go on."""
        for _ in range(count):
            self._passes.release()

    async def entered(self, count: int) -> None:
        """Wait until so many calls have begun."""
        await until(lambda: len(self.seen) >= count)


@pytest.fixture
def turnstile() -> Turnstile:
    return Turnstile()


async def waiting(engine: Engine, count: int) -> None:
    """Wait until so many dispatches are in TASKS."""

    async def there() -> bool:
        return await depth(engine) == count

    await until(there)


async def lanes_known(worker: Worker, count: int) -> None:
    """Wait until the worker has heard of so many lanes of its queue."""
    await until(lambda: len(worker._queues["default"]._lanes) == count)


async def depth(engine: Engine) -> int:
    connection = engine.client._connection
    assert connection is not None
    info = await connection.api(f"STREAM.INFO.{engine.subjects.tasks_stream}")
    return int(info["state"]["messages"])


def losses(events: list[Any]) -> list[Any]:
    """The failures among these events."""
    return [event for event in events if type(event).__name__ in ("TaskFailed", "TaskTimedOut")]


@everywhere
async def test_the_highest_then_oldest_waiting_attempt_starts(engine: Engine, turnstile: Turnstile) -> None:
    """F137, C29: one busy worker with one slot, priorities 0 to 10 in mixed order, three of each."""
    worker = await engine.worker(turnstile.task, queues={"default": 1})
    await engine.client.start("turn", {"n": "first"})
    await turnstile.entered(1)
    mixed = [3, 10, 0, 7, 5, 1, 9, 4, 8, 2, 6]
    handles = []
    for round_ in range(3):
        for priority in mixed:
            handles.append(await engine.client.start("turn", {"n": [priority, round_]}, priority=priority))
    await waiting(engine, 1 + len(handles))
    await lanes_known(worker, 11)
    for n in range(len(handles) + 1):
        turnstile.let(1)
        await turnstile.entered(min(n + 2, len(handles) + 1))
    assert [(await handle.wait(wait_timeout=8)).status for handle in handles] == [ExecutionStatus.COMPLETED] * len(handles)
    assert turnstile.seen[1:] == [[priority, round_] for priority in range(10, -1, -1) for round_ in range(3)]
    assert turnstile.most == 1


async def test_a_higher_attempt_that_comes_late_is_next(engine: Engine, turnstile: Turnstile) -> None:
    """A lane that was made while the worker was busy is swept from then on: its attempts overtake the older, lower ones."""
    worker = await engine.worker(turnstile.task, queues={"default": 1})
    for n in range(4):
        await engine.client.start("turn", {"n": n})
    await turnstile.entered(1)
    urgent = await engine.client.start("turn", {"n": "urgent"}, priority=9)
    await waiting(engine, 5)
    await lanes_known(worker, 2)
    turnstile.let(5)
    await urgent.wait(wait_timeout=8)
    await turnstile.entered(5)
    assert turnstile.seen == [0, "urgent", 1, 2, 3]


async def test_the_priority_of_step_plan_and_task_counts(engine: Engine, turnstile: Turnstile) -> None:
    """The merged priority decides: the step's above the plan's above the task's."""
    worker = await engine.worker(turnstile.task, queues={"default": 1})
    await engine.client.start("turn", {"n": "first"})
    await turnstile.entered(1)
    plan = Plan(
        "mixed",
        steps=[
            Step("turn", id="low", params={"n": "step 1"}, priority=1),
            Step("turn", id="plan", params={"n": "plan 6"}),
            Step("turn", id="high", params={"n": "step 8"}, priority=8),
        ],
        parallel=True,
        config={"priority": 6},
    )
    handle = await engine.client.start(plan)
    await waiting(engine, 4)
    await lanes_known(worker, 4)
    turnstile.let(4)
    await handle.wait(wait_timeout=8)
    assert turnstile.seen[1:] == ["step 8", "plan 6", "step 1"]


async def test_queues_have_slots_of_their_own(engine: Engine, turnstile: Turnstile) -> None:
    """A full queue does not hold up another one of the same worker, and nobody serves a queue that was not asked to."""
    await engine.worker(turnstile.task, queues={"a": 1, "b": 2})
    for n in range(3):
        for queue in ("a", "b", "c"):
            await engine.client.start("turn", {"n": f"{queue}{n}"}, queue=queue)
    await waiting(engine, 9)
    await turnstile.entered(3)
    assert sorted(turnstile.seen) == ["a0", "b0", "b1"]
    turnstile.let(6)
    await turnstile.entered(6)
    await waiting(engine, 3)
    assert not [n for n in turnstile.seen if n.startswith("c")]
    await engine.worker(turnstile.task, queues={"c": 5})
    turnstile.let(3)
    await turnstile.entered(9)
    assert sorted(turnstile.seen[6:]) == ["c0", "c1", "c2"]


async def test_never_more_runs_than_there_are_slots(engine: Engine, turnstile: Turnstile) -> None:
    """Bursts on all lanes at once, over an idle worker: what is beyond its slots is handed back, not lost, not doubled."""
    await engine.worker(turnstile.task, queues={"default": 3})
    for burst in range(3):
        starts = [engine.client.start("turn", {"n": [burst, p, i]}, priority=p) for p in range(11) for i in range(2)]
        handles = await asyncio.gather(*starts)
        turnstile.let(len(handles))
        results = await asyncio.gather(*(handle.wait(wait_timeout=20) for handle in handles))
        assert {result.status for result in results} == {ExecutionStatus.COMPLETED}
        assert max(result.results[0].attempt for result in results) == 1
    assert turnstile.most <= 3
    assert len(turnstile.seen) == 3 * 22
    assert len({str(n) for n in turnstile.seen}) == 3 * 22


async def test_a_full_worker_asks_for_nothing(engine: Engine, turnstile: Turnstile) -> None:
    """A worker of thirty slots with a pull open for all of them, filled from another lane: what waits is not passed about."""
    await engine.worker(turnstile.task, queues={"default": 30})
    turnstile.let(30)
    await asyncio.gather(*(engine.client.run("turn", {"n": n}, wait_timeout=8) for n in range(30)))
    handles = await asyncio.gather(*(engine.client.start("turn", {"n": ["high", n]}, priority=9) for n in range(30)))
    await turnstile.entered(60)
    await _waits_in_peace(engine, turnstile, handles)


async def test_full_workers_do_not_pass_an_attempt_about(engine: Engine, turnstile: Turnstile) -> None:
    """Twelve workers that were idle on two lanes and are full now: what then waits is no worker's loss, never `WORKER_LOST`."""
    workers = await asyncio.gather(*(engine.worker(turnstile.task, queues={"default": 1}) for _ in range(12)))
    turnstile.let(1)
    await engine.client.run("turn", {"n": "makes the lane"}, priority=9, wait_timeout=8)
    for worker in workers:
        await lanes_known(worker, 2)
    handles = await asyncio.gather(*(engine.client.start("turn", {"n": ["high", n]}, priority=9) for n in range(12)))
    await turnstile.entered(13)
    await _waits_in_peace(engine, turnstile, handles)


async def _waits_in_peace(engine: Engine, turnstile: Turnstile, handles: list[esexec.Handle]) -> None:
    """With all slots taken by `handles`, one more attempt waits, is hardly delivered meanwhile, and runs in the end."""
    usual = await engine.client.start("turn", {"n": "usual"})
    await waiting(engine, len(handles) + 1)
    before = await deliveries(engine)
    second = await engine.client.start("turn", {"n": "usual too"})
    await waiting(engine, len(handles) + 2)
    assert await deliveries(engine) - before <= 3
    assert turnstile.running == len(handles)
    turnstile.let(len(handles) + 2)
    for handle in (*handles, usual, second):
        result = await handle.wait(wait_timeout=10)
        assert result.status == ExecutionStatus.COMPLETED
        assert losses(await engine.events(handle.id)) == []
        assert (await engine.types(handle.id)).count("task_scheduled") == 1


async def deliveries(engine: Engine) -> int:
    """How often the usual lane has handed something out."""
    connection = engine.client._connection
    assert connection is not None
    info = await connection.api(f"CONSUMER.INFO.{engine.subjects.tasks_stream}.default_p5")
    return int(info["delivered"]["consumer_seq"])


@pytest.mark.parametrize("slots", [1, 4])
async def test_several_workers_share_the_lanes(engine: Engine, turnstile: Turnstile, slots: int) -> None:
    """Three workers, eleven lanes, 66 attempts: each runs once, and every worker keeps within its slots."""
    workers: list[Worker] = [await engine.worker(turnstile.task, queues={"default": slots}) for _ in range(3)]
    handles = await asyncio.gather(*(engine.client.start("turn", {"n": [p, i]}, priority=p) for i in range(6) for p in range(11)))
    await turnstile.entered(3 * slots)
    turnstile.let(len(handles))
    results = await asyncio.gather(*(handle.wait(wait_timeout=20) for handle in handles))
    assert {result.status for result in results} == {ExecutionStatus.COMPLETED}
    assert turnstile.most <= 3 * slots
    assert len({str(n) for n in turnstile.seen}) == len(turnstile.seen) == 66
    assert {worker.name for worker in workers} >= {result.results[0].worker_id for result in results}


async def two_lanes(engine: Engine, turnstile: Turnstile, slots: int) -> Worker:
    """An idle worker that serves two lanes."""
    worker = await engine.worker(turnstile.task, queues={"default": slots})
    turnstile.let(2)
    for priority in (5, 9):
        await engine.client.run("turn", {"n": f"p{priority}"}, priority=priority, wait_timeout=8)
    await lanes_known(worker, 2)
    return worker


async def test_every_free_slot_is_used_whatever_the_lane(engine: Engine, turnstile: Turnstile) -> None:
    """Three slots, two lanes, three long attempts on one of them, one after the other: all three run."""
    await two_lanes(engine, turnstile, slots=3)
    for n in range(3):
        await engine.client.start("turn", {"n": n})
        await turnstile.entered(3 + n)
    turnstile.let(3)


async def test_a_worker_of_many_lanes_keeps_listening(
    engine: Engine, turnstile: Turnstile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pull requests expire; an idle worker then asks again, on every lane."""
    monkeypatch.setattr("esexec.nats.pull._EXPIRES_S", 1)
    await two_lanes(engine, turnstile, slots=2)
    ended: list[str] = []
    status = Tap.status
    monkeypatch.setattr(Tap, "status", lambda tap, code, pending: (ended.append(code), status(tap, code, pending)))
    await until(lambda: ended.count("408") >= 3)
    turnstile.let(2)
    for priority in (5, 9):
        await engine.client.run("turn", {"n": f"again p{priority}"}, priority=priority, wait_timeout=8)


async def test_what_was_only_handed_back_is_never_lost(
    engine: Engine, turnstile: Turnstile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handed back by more workers than may be lost, and begun by none, an attempt is handed out anew and carried out."""
    monkeypatch.setattr("esexec.executor.outbox._LOOK_AGAIN_S", 0.2)
    connection = engine.client._connection
    assert connection is not None
    handle = await engine.client.start("turn", {"n": 1}, max_retries=0)
    await waiting(engine, 1)
    await ensure_lane(connection, engine.subjects, "default", 5)
    consumer = engine.subjects.lane_consumer("default", 5)
    lane = await connection.client.jetstream().pull_subscribe_bind(consumer, engine.subjects.tasks_stream)
    for _ in range(limits.losses_per_attempt):
        [message] = await lane.fetch(1, timeout=8)
        await message.nak()
    await lane.unsubscribe()
    await engine.worker(turnstile.task)
    turnstile.let(1)
    assert (await handle.wait(wait_timeout=8)).status == ExecutionStatus.COMPLETED
    assert (losses(await engine.events(handle.id)), turnstile.seen) == ([], [1])
