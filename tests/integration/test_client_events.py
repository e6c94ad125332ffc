"""`client.events`: the public feed as a client reads it, from any time on, narrowed down, as it comes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

import esexec
from esexec import Client, CloudEvent, ExecutionEventType, ValidationError
from esexec.domain import events as e
from esexec.nats.batch import Part, store_batch
from esexec.nats.connection import Connection
from esexec.nats.subjects import Subjects
from tests.integration.engine import Engine, until
from tests.integration.feeding import FeedStage
from tests.server import NatsServer


@pytest.fixture
async def stage(connection: Connection, subjects: Subjects) -> AsyncIterator[FeedStage]:
    stage = await FeedStage(connection, subjects).start()
    yield stage
    await stage.close()


@pytest.fixture
async def client(nats_server: NatsServer, namespace: str) -> AsyncIterator[Client]:
    async with Client(nats_server.url, namespace=namespace) as client:
        yield client


async def ids(events: AsyncIterator[CloudEvent]) -> list[str]:
    return [event.id async for event in events]


async def some(events: AsyncIterator[CloudEvent], count: int) -> list[CloudEvent]:
    """The next so many."""
    return [await asyncio.wait_for(anext(events), 10) for _ in range(count)]


class Listener:
    """Somebody who listens, from before this returns on."""

    def __init__(self, events: AsyncIterator[CloudEvent]) -> None:
        self.heard: list[str] = []
        self.task = asyncio.create_task(self._listen(events))

    async def _listen(self, events: AsyncIterator[CloudEvent]) -> None:
        async for event in events:
            self.heard.append(event.id)


async def test_what_is_there_is_given_in_order(stage: FeedStage, client: Client) -> None:
    """From the beginning, over several pages, and the iteration ends."""
    await stage.happens(times=12)
    stage.feed()
    await stage.all_told()
    assert len(await stage.happened()) > 1000
    assert await ids(client.events("beginning", follow=False)) == await stage.happened()
    assert await ids(client.events(follow=False)) == []


async def test_it_goes_on_with_what_comes(stage: FeedStage, client: Client) -> None:
    """What was there and what comes, without a seam; and from now on only what comes, soon."""
    await stage.happens()
    stage.feed()
    await stage.all_told()
    old = await stage.happened()
    everything, new = Listener(client.events("beginning")), Listener(client.events())
    await until(lambda: everything.heard == old)
    await stage.happens(times=3)
    expected = await stage.happened()
    await until(lambda: len(everything.heard) >= len(expected))
    await until(lambda: len(new.heard) >= len(expected) - len(old))
    assert everything.heard == expected
    assert new.heard == expected[len(old) :]
    for listener in (everything, new):
        listener.task.cancel()


async def test_it_is_soon(stage: FeedStage, client: Client) -> None:
    """An event is with the listener long before anybody looks by himself."""
    stage.feed()
    events = client.events("beginning")
    begun = asyncio.get_running_loop().time()
    for number in range(5):
        await stage.append(f"x{number}", e.ExecutionStarted())
        assert [event.subject for event in await some(events, 1)] == [f"x{number}"]
    assert asyncio.get_running_loop().time() - begun < 2.0


async def test_it_can_be_narrowed_down(stage: FeedStage, client: Client) -> None:
    """By type, said in either way, by several types, by execution, by both."""
    await stage.happens()
    stage.feed()
    await stage.all_told()
    whole = [event async for event in client.events("beginning", follow=False)]
    assert ExecutionEventType.TASK_FAILED in {event.type for event in whole}

    def those(*types: str) -> list[str]:
        return [event.id for event in whole if event.type in types]

    for said in ("task.failed", "task_failed", "TASK_FAILED", ExecutionEventType.TASK_FAILED, ["task.failed"]):
        assert await ids(client.events("beginning", types=said, follow=False)) == those("task.failed")
    two = {ExecutionEventType.TASK_FAILED, ExecutionEventType.EXECUTION_CREATED}
    assert await ids(client.events("beginning", types=two, follow=False)) == those(*two)
    of_e2 = [event.id for event in whole if event.execution_id == "e2"]
    assert await ids(client.events("beginning", execution_id="e2", follow=False)) == of_e2
    one = await ids(client.events("beginning", execution_id="e2", types="execution.created", follow=False))
    assert one == ["e2/1"]


async def test_what_cannot_be_is_refused(client: Client) -> None:
    """At once, with a code and a hint."""
    with pytest.raises(ValidationError) as unknown:
        client.events(types="task.fialed")
    assert unknown.value.code == "unknown_event_type"
    assert "task.failed" in (unknown.value.hint or "")
    with pytest.raises(ValidationError, match="no execution id"):
        client.events(execution_id="a.>")
    with pytest.raises(ValidationError) as naive:
        client.events(datetime(2026, 1, 1))
    assert naive.value.code == "naive_time"


async def test_since_a_time(stage: FeedStage, client: Client) -> None:
    """It is the time of the event that counts, not when it was told."""
    t = datetime.now(UTC)
    for number, seconds in enumerate([0, 10, 20, 30]):
        await stage.append(f"x{number}", e.ExecutionStarted(), at=t - timedelta(seconds=40 - seconds))
    stage.feed()
    await stage.all_told()
    assert await ids(client.events(t - timedelta(seconds=20), follow=False)) == ["x2/1", "x3/1"]
    assert await ids(client.events(t - timedelta(hours=1), follow=False)) == ["x0/1", "x1/1", "x2/1", "x3/1"]
    assert await ids(client.events(t + timedelta(hours=1), follow=False)) == []


async def test_behind_the_last_that_one_had(stage: FeedStage, client: Client) -> None:
    """Who was interrupted goes on behind any event, also in the middle of a commit."""
    await stage.happens()
    stage.feed()
    await stage.all_told()
    whole = [event async for event in client.events("beginning", follow=False)]
    for place in (0, 1, 7, len(whole) - 1):
        rest = await ids(client.events(after=whole[place], follow=False))
        assert rest == [event.id for event in whole[place + 1 :]]


async def test_behind_one_that_happened_later_than_what_follows(stage: FeedStage, client: Client) -> None:
    """It is the place in the log that counts: of two executors one may be late, and its commits then have earlier times."""
    t = datetime.now(UTC)
    for number, seconds in enumerate([0, 20, 10, 30]):
        await stage.append(f"x{number}", e.ExecutionStarted(), at=t - timedelta(seconds=40 - seconds))
    stage.feed()
    await stage.all_told()
    whole = [event async for event in client.events("beginning", follow=False)]
    assert await ids(client.events(after=whole[1], follow=False)) == ["x2/1", "x3/1"]


async def test_what_was_refused_is_not_given(stage: FeedStage, client: Client) -> None:
    """A batch is heard before it is judged: only what stands in the stream is told."""
    stage.feed()
    listener = Listener(client.events("beginning"))
    await stage.append("real", e.ExecutionStarted())
    await until(lambda: listener.heard == ["real/1"])
    headers = {"Nats-Expected-Last-Subject-Sequence": "9999"}
    forged = stage.subjects.event("execution_started", "forged")
    ack = await store_batch(
        stage.connection, [Part(forged, b'{"id":"forged"}', {}), Part(stage.subjects.event_position, b"{}", headers)]
    )
    assert ack.error is not None
    await stage.append("next", e.ExecutionStarted())
    await until(lambda: len(listener.heard) > 1)
    assert listener.heard == ["real/1", "next/1"]
    listener.task.cancel()


async def test_what_is_no_event_is_passed_over(stage: FeedStage, client: Client) -> None:
    """Whatever somebody has published there."""
    await stage.connection.request(stage.subjects.event("execution_started", "x"), b"nonsense")
    await stage.append("real", e.ExecutionStarted())
    stage.feed()
    await until(lambda: _stored(stage, "real"))
    assert await ids(client.events("beginning", follow=False)) == ["real/1"]


async def _stored(stage: FeedStage, execution: str) -> bool:
    return stage.subjects.event("execution_started", execution) in [message.subject for message in await stage.messages()]


@esexec.task
async def fine() -> int:
    return 1


async def test_the_feed_of_an_engine(engine: Engine) -> None:
    """A process of projections tells what executors decide, and says how it is; another one takes over."""
    await engine.worker(fine)
    projector = await engine.projector()
    types = [ExecutionEventType.TASK_COMPLETED, ExecutionEventType.EXECUTION_COMPLETED]
    listening = asyncio.create_task(some(engine.client.events("beginning", types=types), 2))
    await engine.client.execute("fine", execution_id="one")
    told = await listening
    assert [event.type for event in told] == ["task.completed", "execution.completed"]
    assert told[0].data.data["output"] == 1
    statuses = {one.name: one for one in (await engine.client.queries.projections()).projections}
    assert statuses["feed"].state == "working"
    await projector.stop()
    await engine.client.execute("fine", execution_id="meanwhile")
    await engine.projector(only=["feed"])
    ended = engine.client.events("beginning", types="execution.completed", execution_id="meanwhile")
    assert [event.subject for event in await some(ended, 1)] == ["meanwhile"]
    history = await engine.events("meanwhile")
    whole = engine.client.events("beginning", execution_id="meanwhile", follow=False)
    assert [event.version async for event in whole] == list(range(1, len(history) + 1))
