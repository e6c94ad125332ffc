"""How projections hear of commits where much is stored: by reading what is new, and by listening again when there is little."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from esexec.domain import events as e
from esexec.nats.connection import Connection, connect
from esexec.nats.direct import Message
from esexec.nats.streams import ensure_streams
from esexec.nats.subjects import Subjects
from projections import hearing as hearing_module
from projections import source as source_module
from projections.hearing import Hearing
from projections.source import Page, Recorded
from tests.integration.engine import until
from tests.integration.feeding import FeedStage
from tests.server import NatsServer


@pytest.fixture
async def stage(connection: Connection, subjects: Subjects, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FeedStage]:
    """One whose source reads along after three commits at once, each 50 ms, until there is nothing."""
    for name, value in {"_MUCH": 2, "_READ_EACH_S": 0.05, "_LITTLE": 1, "_PAGE": 7}.items():
        monkeypatch.setattr(hearing_module, name, value)
    stage = await FeedStage(connection, subjects).start()
    yield stage
    await stage.close()


def hearing_of(stage: FeedStage) -> Hearing[Recorded]:
    return stage.source._hearing


async def read_to_the_end(stage: FeedStage, after: int = 0) -> list[int]:
    """The positions of all commits that the source gives."""
    head, found = await stage.source.head(), list[int]()
    while after < head:
        page = await stage.source.page(after, 5)
        found += [one.position for one in page.commits]
        after = page.end
    return found


async def busy(stage: FeedStage, name: str) -> None:
    """Much is stored, so that the source reads along."""
    await asyncio.gather(*(stage.append(f"{name}{number}", e.ExecutionStarted()) for number in range(20)))
    await until(lambda: hearing_of(stage)._reading is not None)


async def quiet(stage: FeedStage) -> None:
    await until(lambda: hearing_of(stage)._reading is None)


async def test_whatever_way_it_is_heard_every_commit_comes_once_in_order(
    stage: FeedStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is stored while it changes from one to the other: nothing has to be looked for in the log."""
    monkeypatch.setattr(hearing_module, "_LITTLE", 1_000_000)  # after each read it listens again
    hearing, changes, ended = hearing_of(stage), 0, asyncio.Event()
    really = hearing._listen

    async def listen() -> None:
        nonlocal changes
        await really()
        changes += 1
        if changes == 6:
            ended.set()

    async def one_after_the_other(name: str) -> int:
        number = 0
        while not ended.is_set():
            await stage.append(f"{name}{number}", e.ExecutionStarted())
            number += 1
        return number

    monkeypatch.setattr(hearing, "_listen", listen)
    written = sum(await asyncio.gather(*map(one_after_the_other, "abcd")))
    await quiet(stage)
    await stage.append("last", e.ExecutionStarted())
    await until(lambda: stage.source.heard == written + 1)
    assert await read_to_the_end(stage) == list(range(1, written + 2))
    assert set(range(1, written + 2)) == hearing.kept.keys()
    assert stage.source.losses == 0


async def test_what_is_compacted_is_no_reason_to_read_the_log(stage: FeedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where positions are missing the source knows that there is nothing."""
    monkeypatch.setattr(hearing_module, "_LITTLE", 0)  # it goes on like this
    await busy(stage, "a")
    first = await stage.source.head()
    await asyncio.gather(*(stage.append(f"b{number}", e.ExecutionStarted()) for number in range(30)))
    there = {one.sequence: one.subject for one in await stage.reader.from_first(stage.subjects.log_stream, ">", 100)}
    for position in (first + 1, first + 2, first + 9):
        await stage.connection.api(f"STREAM.PURGE.{stage.subjects.log_stream}", {"filter": there[position]})
    hearing = hearing_of(stage)
    hearing.heard = first  # as if nothing of it had been read when it was compacted
    for position in range(first + 1, first + 31):
        hearing.kept.pop(position, None)
    await until(lambda: hearing.heard == first + 30)

    async def never(after: int, most: int) -> None:
        raise AssertionError(f"the log was read behind {after}")

    monkeypatch.setattr(stage.source, "_read", never)
    missing = {first + 1, first + 2, first + 9}
    assert await read_to_the_end(stage, first) == [one for one in range(first + 1, first + 31) if one not in missing]


async def test_whoever_waits_for_a_position_hurries_it(stage: FeedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read before it would be its time."""
    monkeypatch.setattr(hearing_module, "_READ_EACH_S", 60.0)
    monkeypatch.setattr(source_module, "_LOOK_AGAIN_S", 60.0)
    feed = stage.feed()
    await busy(stage, "a")
    await stage.append("last", e.ExecutionStarted())
    position = await stage.source.head()
    await asyncio.wait_for(feed.reached(position), 10)
    assert feed.position >= position


@pytest.mark.parametrize("times", [1, 5], ids=["shorter", "longer than before"])
async def test_a_log_that_is_replaced_between_two_reads(stage: FeedStage, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """It is noticed, also where the new one has grown past what was read of the old one."""
    monkeypatch.setattr(hearing_module, "_READ_EACH_S", 60.0)
    await busy(stage, "a")
    assert stage.source.losses == 0
    await stage.connection.api(f"STREAM.DELETE.{stage.subjects.log_stream}")
    await ensure_streams(stage.connection, stage.subjects)
    for number in range(times):
        await asyncio.gather(*(stage.append(f"new{number}-{one}", e.ExecutionStarted()) for one in range(10)))
    stage.source.hurry()
    await quiet(stage)
    await stage.append("last", e.ExecutionStarted())
    await until(lambda: stage.source.losses > 0)
    assert await read_to_the_end(stage) == list(range(1, 10 * times + 2))


async def test_who_looks_where_the_log_ends_makes_nobody_read_it(stage: FeedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored is read for all at once when it is time: not by each of them, as soon as somebody has looked."""
    monkeypatch.setattr(hearing_module, "_READ_EACH_S", 60.0)
    monkeypatch.setattr(hearing_module, "_LITTLE", 0)
    await busy(stage, "a")
    stage.source.hurry()
    head = await stage.source.head()
    await until(lambda: hearing_of(stage).heard == head)
    really, read = stage.source._read, list[int]()

    async def noted(after: int, most: int) -> Page | None:
        read.append(after)
        return await really(after, most)

    monkeypatch.setattr(stage.source, "_read", noted)
    await stage.append("last", e.ExecutionStarted())
    assert await stage.source.head() == head + 1
    coming = asyncio.create_task(stage.source.page(head, 5))
    await asyncio.sleep(0)
    assert not read
    stage.source.hurry()
    assert [one.position for one in (await coming).commits] == [head + 1]
    assert not read


@pytest.mark.parametrize("which", ["hearing", "both"])
async def test_a_connection_that_is_lost_while_it_reads_along(
    own_server: NatsServer, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """It goes on behind what it had; nothing that was read is read again, and nothing is missed."""
    for name, value in {"_MUCH": 2, "_READ_EACH_S": 0.2, "_LITTLE": 0, "_PAGE": 7}.items():
        monkeypatch.setattr(hearing_module, name, value)
    async with await connect(own_server.url, name="test", patience=30) as connection:
        stage = await FeedStage(connection, Subjects("alone")).start()
        hearing = hearing_of(stage)
        feed = stage.feed()
        await busy(stage, "a")
        await stage.all_told()
        asked, really = list[int](), stage.reader.from_first

        async def noted(stream: str, pattern: str, most: int, **options: Any) -> list[Message]:
            asked.append(options["first"])
            return await really(stream, pattern, most, **options)

        monkeypatch.setattr(stage.reader, "from_first", noted)
        if which == "both":
            await asyncio.to_thread(own_server.restart)
        else:
            stage.hearing.client._transport._io_writer.transport.abort()  # type: ignore[union-attr]
        await until(lambda: stage.source.losses > 0, 20)
        monkeypatch.setattr(stage.reader, "from_first", noted)
        await until(lambda: hearing._reading is None, 20)
        await busy(stage, "b")
        position = await stage.source.head()
        await until(lambda: feed.position >= position, 20)
        assert not [first for first in asked if first < 20]
        monkeypatch.setattr(stage.reader, "from_first", really)
        await stage.all_told()
        await stage.close()


async def test_what_was_heard_of_another_log_is_forgotten(stage: FeedStage) -> None:
    """Whoever looks for where to go on makes sure of it, though of the new log nothing has been heard yet."""
    for number in range(5):
        await stage.append(f"old{number}", e.ExecutionStarted())
    await until(lambda: hearing_of(stage).heard == 5)
    stage.hearing.rest(60)
    await stage.connection.api(f"STREAM.DELETE.{stage.subjects.log_stream}")
    await ensure_streams(stage.connection, stage.subjects)
    for number in range(6):
        await stage.append(f"new{number}", e.ExecutionStarted())
    await stage.source.make_sure()
    assert stage.source.losses == 1
    await stage.source.head()
    page = await stage.source.page(0, 10)
    assert [one.entity for one in page.commits] == [f"new{number}" for number in range(6)]


async def test_what_is_compacted_is_no_other_log(stage: FeedStage) -> None:
    """What executions share may be gone though it was heard; that is made sure of by what an execution did."""
    await stage.append("a", e.ExecutionStarted())
    await stage.append("_keys", e.ExecutionStarted())
    await until(lambda: hearing_of(stage).heard == 2)
    await stage.connection.api(f"STREAM.PURGE.{stage.subjects.log_stream}", {"filter": f"{stage.subjects.log_prefix}._keys.1"})
    await stage.source.make_sure()
    assert stage.source.losses == 0


async def test_a_replica_that_is_behind_hides_nothing(stage: FeedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a read finds nothing though the leader has something, it is read once more: it is not passed over as compacted."""
    for number in range(3):
        await stage.append(f"e{number}", e.ExecutionStarted())
    hearing_of(stage).lost()
    really, answers = stage.reader.from_first, 0

    async def behind(stream: str, pattern: str, most: int, **options: Any) -> list[Message]:
        nonlocal answers
        answers += 1
        return [] if answers == 1 else await really(stream, pattern, most, **options)

    monkeypatch.setattr(stage.reader, "from_first", behind)
    await stage.source.head()
    assert await read_to_the_end(stage, 1) == [2, 3]


@pytest.mark.parametrize("turns", range(5))
async def test_who_is_told_to_end_in_the_moment_in_which_news_come_ends(stage: FeedStage, turns: int) -> None:
    """Whichever of the two comes first by a turn of the loop or some: a process that is to end would go on for ever."""
    reading = asyncio.create_task(stage.source.page(await stage.source.head(), 5))
    hearing, hearing_of_it = hearing_of(stage), asyncio.Event()
    await until(lambda: hearing.news._waiters)
    hearing.news._waiters[0].add_done_callback(lambda _: hearing_of_it.set())
    hearing.tell()
    for _ in range(turns):
        await asyncio.sleep(0)
    reading.cancel()
    done, _ = await asyncio.wait([reading], timeout=2.0)
    assert hearing_of_it.is_set()
    assert done
    assert reading.cancelled()
