"""Callbacks on an execution, what is collected of it, and what is told of it in numbers, on a real server."""

import asyncio
import logging
from typing import Any

import msgspec
import pytest

import esexec
from esexec import ExecutionUpdate, Plan, Step
from esexec.client import updates
from esexec.domain.messages import WorkerSample
from esexec.nats.connection import Connection
from esexec.views import Durations
from tests.integration.engine import Engine, until

PLAN = Plan("chain", steps=[Step("gate", id=f"s{n}", params={"n": n}) for n in range(4)])


class Gate:
    """A task whose calls are let through one by one."""

    def __init__(self) -> None:
        self.passes = asyncio.Semaphore(0)

        @esexec.task(name="gate", timeout=0)
        async def gate(n: int, ctx: esexec.Context) -> int:
            ctx.log.info(f"at gate {n}")
            await self.passes.acquire()
            return n

        self.task = gate

    def let(self, count: int) -> None:
        for _ in range(count):
            self.passes.release()


@pytest.fixture
async def gate(engine: Engine) -> Gate:
    gate = Gate()
    await engine.worker(gate.task, sample_ms=50)
    return gate


class Hearer:
    """A callback that keeps what it hears."""

    def __init__(self) -> None:
        self.updates: list[ExecutionUpdate] = []

    def __call__(self, update: ExecutionUpdate) -> None:
        self.updates.append(update)

    @property
    def events(self) -> list[Any]:
        return [event for update in self.updates for event in update.events]


async def test_every_callback_hears_everything(engine: Engine, gate: Gate) -> None:
    """Sync or async, there from the beginning or late: each hears every event once, in order, and its end."""
    handle = await engine.client.start(PLAN)
    plain, late, awaited = Hearer(), Hearer(), Hearer()

    async def slowly(update: ExecutionUpdate) -> None:
        await asyncio.sleep(0)
        awaited(update)

    subscriptions = [await engine.client.subscribe(handle.id, plain), await engine.client.subscribe(handle.id, slowly)]
    gate.let(2)
    await until(lambda: plain.updates and plain.updates[-1].progress.completed == 2)
    subscriptions.append(await engine.client.subscribe(handle.id, late))
    gate.let(2)
    for subscription in subscriptions:
        await asyncio.wait_for(subscription.ended(), 8)
        assert not subscription.active
    events = await engine.events(handle.id)
    for hearer in (plain, awaited, late):
        assert hearer.events == events
        assert hearer.updates[-1].status == "completed"
        assert hearer.updates[-1].version == len(events)
    assert late.updates[0].progress.completed == 2
    assert [message.message for update in plain.updates for message in update.messages] == [f"at gate {n}" for n in range(4)]
    assert await subscriptions[0].unsubscribe() is False


async def test_callbacks_share_one_watch(engine: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, the execution is followed once, and read from the log once for each that comes late."""
    handle = await engine.client.start(PLAN)
    connection = engine.client._connection
    assert connection is not None
    before = len(connection.client._subs)
    hearers = [Hearer() for _ in range(20)]
    await asyncio.gather(*(engine.client.subscribe(handle.id, hearer) for hearer in hearers))
    assert len(connection.client._subs) <= before + 4  # commits, answers, log lines, progress
    info = await connection.api(f"STREAM.INFO.{engine.subjects.log_stream}")
    assert info["state"].get("consumer_count", 0) == 0
    gate.let(4)
    await until(lambda: all(hearer.updates and hearer.updates[-1].status == "completed" for hearer in hearers))
    await until(lambda: len(connection.client._subs) == before)
    assert engine.client._subscriptions._shared == {}


async def test_unsubscribed_it_hears_nothing_more(engine: Engine, gate: Gate) -> None:
    """By the subscription, or by the callback that was given; from within the callback as well; the others go on."""
    handle = await engine.client.start(PLAN)
    by_itself, by_callback, stays = Hearer(), Hearer(), Hearer()
    subscription = await engine.client.subscribe(handle.id, by_itself)
    await engine.client.subscribe(handle.id, by_callback)
    await engine.client.subscribe(handle.id, stays)
    within: list[ExecutionUpdate] = []

    async def once(update: ExecutionUpdate) -> None:
        within.append(update)
        assert await engine.client.unsubscribe(handle.id, once)

    await engine.client.subscribe(handle.id, once)
    await until(lambda: by_itself.updates and by_callback.updates and within)
    assert await subscription.unsubscribe() is True
    assert await engine.client.unsubscribe(handle.id, by_callback) is True
    assert await engine.client.unsubscribe(handle.id, by_callback) is False
    heard = len(by_itself.updates), len(by_callback.updates), len(within)
    gate.let(4)
    await until(lambda: stays.updates[-1].status == "completed")
    assert (len(by_itself.updates), len(by_callback.updates), len(within)) == heard
    assert await engine.client.unsubscribe("nobody", stays) is False


async def test_a_callback_that_throws_ends_nobody(engine: Engine, gate: Gate) -> None:
    """It is complained of once, told on, and the others hear everything."""
    handle = await engine.client.start(PLAN)
    heard: list[ExecutionUpdate] = []
    good = Hearer()

    def bad(update: ExecutionUpdate) -> None:
        heard.append(update)
        raise RuntimeError("no")

    engine.errors_expected = True
    await engine.client.subscribe(handle.id, bad)
    last = await engine.client.subscribe(handle.id, good)
    gate.let(4)
    await asyncio.wait_for(last.ended(), 8)
    await until(lambda: len(heard) == len(good.updates))
    assert len(heard) > 1
    assert len([line for line in engine.complaints.of_level(logging.WARNING) if "callback" in line]) == 1


async def test_subscribing_to_nothing_is_refused(engine: Engine) -> None:
    """`NotFound` at once, as often as it is tried; a bad id is refused as anywhere."""
    for _ in range(2):
        with pytest.raises(esexec.NotFound):
            await engine.client.subscribe("nobody", print)
        with pytest.raises(esexec.NotFound):
            await engine.client.monitor.start("nobody")
    with pytest.raises(esexec.ValidationError):
        await engine.client.subscribe("no*body", print)
    for ask in (engine.client.monitor.metrics, engine.client.monitor.timeline, engine.client.monitor.resource_usage):
        with pytest.raises(esexec.NotFound):
            await ask("nobody")
    assert await engine.client.monitor.stop("nobody") is None


async def test_a_client_that_is_closed_tells_nothing_more(engine: Engine, gate: Gate) -> None:
    """Whoever subscribed and did not end it leaves nothing behind."""
    handle = await engine.client.start(PLAN)
    hearer = Hearer()
    async with esexec.Client(engine.url, namespace=engine.namespace) as client:
        subscription = await client.subscribe(handle.id, hearer)
        await until(lambda: hearer.updates)
    assert not subscription.active
    heard = len(hearer.updates)
    gate.let(4)
    await handle.wait(wait_timeout=8)
    assert len(hearer.updates) == heard


async def test_a_subscription_outlives_an_outage(engine: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that broke off, because the log could not be read, is taken up again where it was."""
    monkeypatch.setattr("esexec.client.subscriptions._TRY_AGAIN_S", 0.01)
    handle = await engine.client.start(PLAN)
    hearer = Hearer()
    broken: list[str] = []
    subscription = await engine.client.subscribe(handle.id, hearer)
    monkeypatch.setattr("esexec.client.updates._following", _failing_once(broken))
    gate.let(4)
    await asyncio.wait_for(subscription.ended(), 8)
    assert hearer.events == await engine.events(handle.id)
    assert broken == ["failed"]


def _failing_once(broken: list[str]) -> Any:
    following = updates._following

    async def fail(*given: Any) -> Any:
        if not broken:
            broken.append("failed")
            raise esexec.Unavailable("away")
        return await following(*given)

    return fail


# Collecting ------------------------------------------------------------------------------------------------------------------


async def test_what_is_collected(engine: Engine, gate: Gate) -> None:
    """Between start and stop: the updates, samples of the workers that ran it, and the metrics at the end."""
    other = await engine.client.start(PLAN)
    handle = await engine.client.start(PLAN)
    assert await engine.client.monitor.start(handle.id) is True
    assert await engine.client.monitor.start(handle.id) is False
    collecting = engine.client._monitorings._collecting[handle.id]
    await until(lambda: len(collecting.samples) >= 2)
    gate.let(8)
    await handle.wait(wait_timeout=8)
    await other.wait(wait_timeout=8)
    await until(lambda: collecting.updates[-1].status == "completed")
    found = await engine.client.monitor.stop(handle.id)
    assert found is not None
    assert [event for update in found.updates for event in update.events] == await engine.events(handle.id)
    assert all(handle.id in sample.executions and sample.running >= 1 for sample in found.samples)
    assert found.cpu_usage is not None and 0 <= found.cpu_usage < 1000
    assert found.memory_usage is not None and 0 < found.memory_usage < 100
    assert found.samples[0].memory_bytes > 1_000_000
    assert found.metrics == msgspec.structs.replace(await engine.client.monitor.metrics(handle.id), as_of=found.metrics.as_of)
    assert found.since < found.until
    assert await engine.client.monitor.stop(handle.id) is None
    assert engine.client._monitorings._samples is None


async def test_samples_are_told_on_one_subject(engine: Engine, gate: Gate, connection: Connection) -> None:
    """Whoever listens hears every worker of the namespace, also one that has nothing to do."""
    heard: list[WorkerSample] = []

    async def hear(message: Any) -> None:
        heard.append(msgspec.json.decode(message.data, type=WorkerSample))

    await connection.subscribe(f"esexec.{engine.namespace}.live._workers.sample", hear)
    await engine.worker(esexec.task(lambda: None, name="other"), name="w-other", sample_ms=50)
    await engine.worker(esexec.task(lambda: None, name="mute"), name="w-mute", sample_ms=0)
    await until(lambda: len({sample.worker for sample in heard}) == 2)
    await until(lambda: sum(sample.worker == "w-other" for sample in heard) >= 3)
    assert "w-mute" not in {sample.worker for sample in heard}
    assert all(sample.running == 0 and sample.executions == () for sample in heard)


# In numbers --------------------------------------------------------------------------------------------------------------------


async def test_a_result_in_full(engine: Engine, gate: Gate) -> None:
    """With `full` a result has its metrics, its timeline and its usage; without, it is what it was."""
    gate.let(4)
    result = await engine.execute(PLAN)
    full = await engine.client.executions.get(result.id, full=True)
    assert full is not None and full.metrics is not None and full.timeline is not None
    assert (full.metrics.total_duration_ms, full.metrics.success_rate, full.metrics.attempts) == (result.duration_ms, 1.0, 4)
    assert [entry.event for entry in full.timeline] == await engine.events(result.id)
    assert full.resource_usage == []
    plain = await engine.client.get(result.id)
    assert plain is not None and (plain.metrics, plain.timeline, plain.resource_usage) == (None, None, None)
    assert plain == msgspec.structs.replace(full, metrics=None, timeline=None, resource_usage=None)
    chart = await engine.client.monitor.gantt(result.id)
    assert [(bar.step, bar.outcome) for bar in chart.bars] == [(f"s{n}", "completed") for n in range(4)]


async def test_updates_have_metrics_so_far(engine: Engine, gate: Gate) -> None:
    """Each update tells the numbers as of now; the last those of the whole."""
    gate.let(2)
    handle = await engine.client.start(PLAN)
    hearer = Hearer()
    subscription = await engine.client.subscribe(handle.id, hearer)
    await until(lambda: hearer.updates and hearer.updates[-1].progress.completed == 2)
    so_far = hearer.updates[-1].metrics
    assert so_far is not None and so_far.attempts == 2 and so_far.as_of >= hearer.updates[-1].timestamp
    gate.let(2)
    await asyncio.wait_for(subscription.ended(), 8)
    at_the_end = await engine.client.monitor.metrics(handle.id)
    last = hearer.updates[-1].metrics
    assert last is not None and last == msgspec.structs.replace(at_the_end, as_of=last.as_of)


# How long it will take ---------------------------------------------------------------------------------------------------------


async def test_nobody_knows_the_past(engine: Engine, gate: Gate) -> None:
    """Without anybody who answers there is no estimate, and no update waits for one."""
    handle = await engine.client.start(PLAN)
    update = await asyncio.wait_for(anext(handle.monitor()), 0.25)
    assert update.progress.estimated_time_remaining_ms is None
    gate.let(4)


@pytest.mark.parametrize("answer", [b"nonsense", b'{"steps": 3}', None], ids=["no JSON", "something else", "too late"])
async def test_an_answer_that_is_none(engine: Engine, gate: Gate, connection: Connection, answer: bytes | None) -> None:
    """What cannot be read, or comes too late, is no estimate, and does no harm."""

    async def respond(message: Any) -> None:
        if answer is not None:
            await message.respond(answer)

    await connection.subscribe(f"esexec.{engine.namespace}.query.durations", respond)
    await connection.flush()
    handle = await engine.client.start(PLAN)
    update = await asyncio.wait_for(anext(handle.monitor()), 3)
    assert update.progress.estimated_time_remaining_ms is None
    gate.let(4)


async def test_an_estimate_from_the_past(engine: Engine, gate: Gate, connection: Connection) -> None:
    """Who asks is told about the plan once; the estimate shrinks with what is done, and is 0 at the end."""
    asked: list[Any] = []

    async def respond(message: Any) -> None:
        asked.append(msgspec.json.decode(message.data))
        await message.respond(msgspec.json.encode(Durations(steps={f"s{n}": 60_000.0 for n in range(4)}, runs=3)))

    await connection.subscribe(f"esexec.{engine.namespace}.query.durations", respond)
    await connection.flush()
    handle = await engine.client.start(PLAN)
    first = await anext(handle.monitor())
    remaining_ms = first.progress.estimated_time_remaining_ms
    assert remaining_ms is not None and 200_000 < remaining_ms <= 240_000
    hearer = Hearer()
    subscription = await engine.client.subscribe(handle.id, hearer)
    gate.let(2)
    await until(lambda: hearer.updates and hearer.updates[-1].progress.completed == 2)
    half = hearer.updates[-1].progress.estimated_time_remaining_ms
    assert half is not None and 80_000 < half <= 120_000
    gate.let(2)
    await asyncio.wait_for(subscription.ended(), 8)
    assert hearer.updates[-1].progress.estimated_time_remaining_ms == 0
    assert asked == [{"plan_id": (await handle.snapshot()).plan_id}]
