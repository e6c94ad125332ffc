"""The public feed on a real server: each event of the log once, in order, as a CloudEvent, whatever happens to who tells it."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import msgspec
import pytest

from esexec import cloudevents
from esexec.domain import events as e
from esexec.domain.errors import Unavailable
from esexec.nats.batch import Part
from esexec.nats.connection import Connection, connect
from esexec.nats.publisher import Ack
from esexec.nats.streams import Config, drift, ensure_streams, stream_configs
from esexec.nats.subjects import Subjects
from esexec.world import now
from projections import feed as feed_module
from projections.source import Page
from tests.integration.engine import until
from tests.integration.feeding import FeedStage
from tests.server import NatsServer


@pytest.fixture
async def stage(connection: Connection, subjects: Subjects, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FeedStage]:
    monkeypatch.setattr(feed_module, "_AFTER_ANOTHER_S", 0.01)
    stage = await FeedStage(connection, subjects).start()
    yield stage
    await stage.close()


async def test_every_event_is_a_cloud_event(stage: FeedStage) -> None:
    """On the subject of its type and execution, with the numbers it has in the history, in words, and with its own fields."""
    await stage.happens()
    stage.feed()
    await stage.all_told()
    history = {
        f"{one.execution_id}/{one.version + i}": (one, event)
        for one in await stage.commits()
        for i, event in enumerate(one.events)
    }
    for message in await stage.messages():
        document = msgspec.json.decode(message.data)
        told = cloudevents.decode(message.data)
        commit, event = history[told.id]
        name = e.type_of(event)
        assert message.subject == stage.subjects.event(name, commit.execution_id)
        assert document["specversion"] == "1.0"
        assert document["type"] == cloudevents.ExecutionEventType[name.upper()]
        assert document["source"] == f"esexec/{stage.subjects.namespace}"
        assert (told.subject, told.time, told.n, told.actor) == (commit.execution_id, commit.time, commit.n, commit.actor)
        assert {"type": name} | told.data.data == msgspec.json.decode(msgspec.json.encode(event))
        assert told.data.description
        assert told.data.task_id == getattr(event, "step", None)


async def test_a_message_says_what_it_is(stage: FeedStage) -> None:
    """By the header that CloudEvents have in NATS."""
    await stage.append("a", e.ExecutionStarted())
    stage.feed()
    await stage.all_told()
    answer = await stage.connection.request(
        f"$JS.API.DIRECT.GET.{stage.subjects.events_stream}.{stage.subjects.event('execution_started', 'a')}", b""
    )
    assert (answer.headers or {})["content-type"] == "application/cloudevents+json"


@pytest.mark.parametrize("seed", range(6))
async def test_a_feed_that_dies_anywhere(stage: FeedStage, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Before a batch, between storing and knowing it, behind it: whoever follows tells each event once, in order."""
    chance, really = random.Random(seed), feed_module.store_batch

    async def deadly(connection: Connection, parts: Sequence[Part]) -> Ack:
        dies = chance.choice(["before", "behind", "never", "never"])
        if dies == "before":
            raise asyncio.CancelledError
        ack = await really(connection, parts)
        if dies == "behind":
            raise asyncio.CancelledError
        return ack

    await stage.happens(times=2)
    monkeypatch.setattr(feed_module, "store_batch", deadly)
    expected, deaths = len(await stage.happened()), 0
    feed = stage.feed(page=chance.randint(1, 9))
    while len(await stage.told()) < expected:
        if stage.feeds[-1].done():
            await stage.dies()
            deaths += 1
            if deaths == 3:
                await stage.happens()
                expected = len(await stage.happened())
            feed = stage.feed(page=chance.randint(1, 9))
        await asyncio.sleep(0)
    assert deaths > 1
    await stage.all_told()
    assert feed.state != "failed"


async def test_outcomes_that_nobody_knows(stage: FeedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose answer was lost may be stored or not: that is read, and it is told once."""
    chance, really, lost = random.Random(1), feed_module.store_batch, []
    monkeypatch.setattr(feed_module, "_FIRST_BACKOFF_S", 0.01)

    async def lossy(connection: Connection, parts: Sequence[Part]) -> Ack:
        ack = await really(connection, parts) if chance.random() < 0.7 else None
        if ack is None or chance.random() < 0.4:
            lost.append(ack)
            raise Unavailable("on purpose")
        return ack

    monkeypatch.setattr(feed_module, "store_batch", lossy)
    await stage.happens(times=2)
    stage.feed(page=7)
    await stage.all_told()
    assert None in lost
    assert any(ack is not None for ack in lost)


@pytest.mark.parametrize("page", [1, 4, 500])
async def test_several_at_once(stage: FeedStage, page: int) -> None:
    """Feeds that know nothing of each other tell each event once, in order, together."""
    await stage.happens()
    for _ in range(3):
        stage.feed(page=page)
    await stage.happens(times=2)
    await stage.all_told()


async def test_one_that_was_believed_dead(stage: FeedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had prepared is refused once another has gone on, and it goes on behind that."""
    really, held, release = feed_module.store_batch, asyncio.Event(), asyncio.Event()

    async def holding(connection: Connection, parts: Sequence[Part]) -> Ack:
        if not held.is_set():
            held.set()
            await release.wait()
        return await really(connection, parts)

    monkeypatch.setattr(feed_module, "store_batch", holding)
    await stage.happens()
    zombie = stage.feed(page=5)
    await held.wait()
    stage.feed(page=5)
    await stage.all_told()
    release.set()
    await until(lambda: zombie.state == "standby")
    await stage.happens()
    await stage.all_told()


async def test_the_dedup_window_is_not_relied_upon(stage: FeedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was down for longer than the server remembers ids goes on all the same."""
    await stage.change(duplicate_window=100_000_000)
    really = feed_module.store_batch

    async def deadly(connection: Connection, parts: Sequence[Part]) -> Ack:
        await really(connection, parts)
        raise asyncio.CancelledError

    monkeypatch.setattr(feed_module, "store_batch", deadly)
    await stage.happens()
    stage.feed(page=9)
    await until(lambda: stage.feeds[-1].done())
    monkeypatch.setattr(feed_module, "store_batch", really)
    probe = stage.subjects.event("probe", "probe")

    async def forgotten() -> bool:
        answer = await stage.connection.request(probe, b'{"id":"probe"}', headers={"Nats-Msg-Id": "probe"})
        return not msgspec.json.decode(answer.data).get("duplicate")

    assert await forgotten()
    await until(forgotten)
    stage.feed(page=9)
    await stage.connection.api(f"STREAM.PURGE.{stage.subjects.events_stream}", {"filter": probe})
    await stage.all_told()


async def test_the_place_is_kept_when_all_has_expired(stage: FeedStage) -> None:
    """Nothing of what was told is in the stream any more: what is new is told, and nothing again."""
    await stage.happens()
    stage.feed()
    await stage.all_told()
    old = await stage.told()
    await stage.dies()
    await stage.change(max_age=100_000_000, duplicate_window=100_000_000)

    async def expired() -> bool:
        return list((await stage.state())["subjects"]) == [stage.subjects.event_position]

    await until(expired)
    await stage.change(max_age=3_600_000_000_000)
    stage.feed()
    await stage.happens()
    await stage.all_told(old)


async def test_a_stream_that_is_emptied_meanwhile(stage: FeedStage) -> None:
    """The feed that runs knows where it was, and says so again with what it tells next."""
    await stage.happens()
    stage.feed()
    await stage.all_told()
    old = await stage.told()
    await stage.connection.api(f"STREAM.PURGE.{stage.subjects.events_stream}")
    await stage.happens()
    await stage.all_told(old)
    await stage.dies()
    await stage.happens()
    stage.feed()
    await stage.all_told(old)


async def test_a_stream_that_is_emptied_while_nobody_tells(stage: FeedStage) -> None:
    """Then there is no place: it begins with what is no older than the stream keeps, and tells that once."""
    await stage.happens()
    stage.feed()
    await stage.all_told()
    await stage.dies()
    await stage.connection.api(f"STREAM.PURGE.{stage.subjects.events_stream}")
    stage.feed()
    await stage.all_told()


async def test_what_is_too_old_is_not_told(stage: FeedStage) -> None:
    """A feed that begins in a namespace with a past tells as much of it as the stream keeps."""
    await stage.happens()
    old = await stage.happened()
    await stage.change(max_age=200_000_000, duplicate_window=100_000_000)
    begun = (await stage.connection.api(f"STREAM.INFO.{stage.subjects.log_stream}"))["state"]["last_ts"]
    then = msgspec.convert(begun, type=type(now()))
    await until(lambda: now() > then + timedelta(milliseconds=250))
    feed = stage.feed()
    await until(lambda: feed.position > 0)
    await stage.change(max_age=3_600_000_000_000)
    await stage.happens()
    await stage.all_told(old)


@pytest.mark.parametrize("grows", [False, True], ids=["shorter", "longer than before"])
async def test_a_log_that_was_replaced(stage: FeedStage, grows: bool) -> None:
    """The feed goes on with what the new one holds, whether or not that has grown past the old place."""
    await stage.happens(["retried"])
    stage.feed()
    await stage.all_told()
    told = await stage.told()
    await stage.dies()
    await stage.connection.api(f"STREAM.DELETE.{stage.subjects.log_stream}")
    await ensure_streams(stage.connection, stage.subjects)
    stage.number = 100
    await stage.happens(["retried"], times=3 if grows else 1)
    new = await stage.happened()
    stage.feed()

    async def complete() -> bool:
        return await stage.told() == [*told, *new]

    await until(complete)


@pytest.mark.parametrize("times", [1, 2, 3], ids=["shorter", "as long", "longer than before"])
async def test_a_log_that_is_replaced_under_a_feed_that_runs(stage: FeedStage, times: int) -> None:
    """It finds out by what it hears next, also if that has grown past the old place before it looked."""
    await stage.happens(["retried"], times=2)
    feed = stage.feed()
    await stage.all_told()
    told = await stage.told()
    await stage.connection.api(f"STREAM.DELETE.{stage.subjects.log_stream}")
    await ensure_streams(stage.connection, stage.subjects)
    stage.number = 100
    await stage.happens(["retried"], times=times)
    new = await stage.happened()

    async def complete() -> bool:
        return await stage.told() == [*told, *new]

    await until(complete)
    assert (feed.status().lag, feed.status().error) == (0, "")


async def test_many_events_in_a_commit(stage: FeedStage) -> None:
    """Commits of as many events as there may be: several batches, none of them cut."""
    for number in range(5):
        await stage.append(f"big{number}", *(e.TaskSkipped(step=f"s{i}", reason="cancelled") for i in range(500)))
    stage.feed()
    await stage.all_told()
    assert len(await stage.told()) == 2500


async def test_an_event_as_large_as_a_commit_may_be(stage: FeedStage) -> None:
    """It is told without its own fields where they do not fit, and with them where they do."""
    room = stage.publisher.room() - 450
    await stage.append("huge", e.TaskCompleted(step="a", ended_at=now(), output="x" * room), e.ExecutionCompleted())
    await stage.append("large", e.TaskCompleted(step="a", ended_at=now(), output="x" * (room // 2)))
    stage.feed()
    await stage.all_told()
    huge, end, large = (cloudevents.decode(message.data).data for message in await stage.messages())
    assert (huge.left_out, huge.data, huge.task_id, huge.description) == (True, {}, "a", "a completed")
    assert not end.left_out
    assert len(large.data["output"]) == room // 2


async def test_what_executions_share_is_told(stage: FeedStage) -> None:
    """But not that it was written down as a whole: nothing happened then."""
    await stage.append("_pools", e.PoolRemoved(pool_id="p"), e.Compacted(state=msgspec.Raw(b"{}")), e.PoolRemoved(pool_id="q"))
    stage.feed()
    await until(lambda: stage.has_told(2))
    assert await stage.told() == ["_pools/1", "_pools/3"]


async def test_old_places_are_removed(stage: FeedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """They never expire, so the feed sees to it that there are few."""
    monkeypatch.setattr(feed_module, "_MARKS", 3)
    await stage.happens()
    stage.feed(page=1)
    await stage.all_told()
    assert (await stage.state())["subjects"][stage.subjects.event_position] <= 4


async def test_what_somebody_else_published_as_a_position(stage: FeedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed says so and tells nothing until it is deleted; then it goes on."""
    monkeypatch.setattr(feed_module, "_FIRST_BACKOFF_S", 0.01)
    await stage.happens()
    stage.feed()
    await stage.all_told()
    await stage.dies()
    answer = await stage.connection.request(stage.subjects.event_position, b"here")
    feed = stage.feed()
    await until(lambda: feed.state == "retrying")
    assert "is no position of the feed" in feed.status().error
    await stage.happens()
    sequence = msgspec.json.decode(answer.data)["seq"]
    await stage.connection.api(f"STREAM.MSG.DELETE.{stage.subjects.events_stream}", {"seq": sequence})
    await stage.all_told()


async def test_a_stream_of_an_earlier_version_is_given_what_it_lacks(
    connection: Connection, subjects: Subjects, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a warning, by whoever comes first; what the operator chose, and what is in it, stays."""
    wanted = next(one for one in stream_configs(subjects) if one["name"] == subjects.events_stream)
    old: Config = {key: value for key, value in wanted.items() if key not in ("allow_atomic", "allow_msg_ttl")}
    old |= {"subjects": [subjects.events_all], "description": "ours"}
    await connection.api(f"STREAM.CREATE.{subjects.events_stream}", old)
    await connection.request(subjects.event("x", "y"), b"before")
    await asyncio.gather(*(ensure_streams(connection, subjects) for _ in range(4)))
    assert await drift(connection, subjects) == []
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    info = await connection.api(f"STREAM.INFO.{subjects.events_stream}")
    assert (info["config"]["description"], info["state"]["messages"]) == ("ours", 1)


async def test_a_server_that_dies_again_and_again(own_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was under way is told once, in order, when it is back."""
    monkeypatch.setattr(feed_module, "_FIRST_BACKOFF_S", 0.05)
    async with await connect(own_server.url, name="test") as connection:
        stage = await FeedStage(connection, Subjects("alone")).start()
        feed = stage.feed(page=3)
        for round_ in range(4):
            happening = asyncio.create_task(stage.happens())
            await until(lambda done=round_: stage.has_told(20 * done + 7), 20)
            await asyncio.to_thread(own_server.restart)
            await happening
        await stage.all_told()
        assert feed.state in ("working", "retrying")
        await stage.close()


async def test_a_server_that_comes_back_with_another_log(own_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running feed looks whether its place is in the log that is there now, though that is longer than it has read."""
    monkeypatch.setattr(feed_module, "_FIRST_BACKOFF_S", 0.05)
    async with await connect(own_server.url, name="test") as connection:
        stage = await FeedStage(connection, Subjects("alone")).start()
        really, held = stage.source.page, asyncio.Event()

        async def late(after: int, most: int) -> Page:
            page = await really(after, most)
            await held.wait()
            return page

        monkeypatch.setattr(stage.source, "page", late)
        held.set()
        stage.feed()
        await stage.happens(["retried"])
        await stage.all_told()
        told = await stage.told()
        held.clear()
        await asyncio.to_thread(own_server.restart)
        await connection.wait_connected(10)
        await connection.api(f"STREAM.DELETE.{stage.subjects.log_stream}")
        await ensure_streams(connection, stage.subjects)
        stage.number = 100
        await stage.happens(["retried"], times=3)
        new = await stage.happened()
        held.set()

        async def complete() -> bool:
            return (await stage.told())[len(told) :] == new

        await until(complete)
        await stage.close()
