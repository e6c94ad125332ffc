"""What every log does, in memory and in JetStream alike: `esexec.log.port.Log` as a list of promises."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from esexec.domain.errors import CorruptHistory
from esexec.log.jetstream import JetStreamLog
from esexec.log.memory import MemoryLog
from esexec.log.port import Log
from esexec.nats.connection import Connection
from esexec.nats.direct import DirectReader
from esexec.nats.publisher import Publisher
from esexec.nats.streams import ensure_streams
from esexec.nats.subjects import Subjects


@pytest.fixture
async def jetstream(connection: Connection, subjects: Subjects) -> AsyncIterator[JetStreamLog]:
    await ensure_streams(connection, subjects)
    async with Publisher(connection) as publisher:
        yield JetStreamLog(connection, subjects, publisher, await DirectReader(connection).start())


@pytest.fixture(params=["memory", "jetstream"])
def log(request: pytest.FixtureRequest) -> Log:
    return MemoryLog() if request.param == "memory" else request.getfixturevalue("jetstream")  # type: ignore[no-any-return]


async def append(log: Log, entity: str, n: int, data: bytes, after: int) -> int | None:
    """Append and wait: the position, or None if it was refused."""
    outcome: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def done(position: int | None) -> None:
        outcome.set_result(position)

    await log.append(entity, n, data, after, done)
    return await asyncio.wait_for(outcome, 10)


async def history(log: Log, entity: str, commits: list[bytes]) -> int:
    """Append these commits from the first on; the position of the last."""
    position = 0
    for n, data in enumerate(commits, 1):
        stored = await append(log, entity, n, data, position)
        assert stored is not None
        assert stored > position
        position = stored
    return position


async def test_what_was_appended_is_read_in_order_and_from_any_number_on(log: Log) -> None:
    """`load` gives the commits above a number, `read` one of them; what does not exist is empty or None."""
    commits = [b"%d" % n for n in range(1, 31)]
    await history(log, "a", commits)
    await history(log, "b", [b"other"])
    for after in (0, 1, 7, 8, 29, 30, 99):
        assert [(one.n, one.data) for one in await log.load("a", after)] == list(enumerate(commits, 1))[after:]
    assert await log.load("nobody") == []
    third, none = await log.read("a", 3), await log.read("a", 31)
    assert third is not None
    assert (third.n, third.data, none) == (3, b"3", None)
    assert sorted([entity async for entity in log.entities()]) == ["a", "b"]


async def test_a_commit_is_stored_only_right_behind_the_one_it_was_decided_upon(log: Log) -> None:
    """Another number, another predecessor, or a place that is taken: refused, and nothing changes."""
    first = await append(log, "a", 1, b"one", 0)
    assert first is not None
    assert await append(log, "a", 1, b"uno", 0) is None
    assert await append(log, "a", 2, b"two", 0) is None
    second = await append(log, "a", 2, b"two", first)
    assert second is not None
    assert await append(log, "a", 3, b"three", first) is None
    assert [one.data for one in await log.load("a")] == [b"one", b"two"]


async def test_our_own_write_is_recognised_by_its_bytes(log: Log) -> None:
    """Appending the identical bytes again says where they stand, as often as one likes."""
    last = await history(log, "a", [b"one", b"two"])
    first = await append(log, "a", 1, b"one", 0)
    assert first is not None
    assert await append(log, "a", 2, b"two", first) == last


async def test_the_outcome_is_told_exactly_once(log: Log) -> None:
    """`done` is called once for each append, whatever the outcome, and knows the position that a read then finds."""
    told: list[int | None] = []

    async def done(position: int | None) -> None:
        told.append(position)

    for data in (b"one", b"one", b"uno"):
        before = len(told)
        await log.append("a", 1, data, 0, done)
        async with asyncio.timeout(10):
            while len(told) == before:
                await asyncio.sleep(0.001)
    one = await log.read("a", 1)
    assert one is not None
    assert told == [one.position, one.position, None]
    assert await log.load("a") == [one]


async def test_entities_do_not_touch_each_other(log: Log) -> None:
    """The same numbers, rival bytes, names that begin alike: each entity is a history of its own, in one order of positions."""
    names = ["a", "ab", "a-b", "_key-1", "A"]
    positions = [await append(log, name, 1, b"same", 0) for name in names]
    assert None not in positions
    assert positions == sorted(set(positions))  # type: ignore[type-var]
    second = await append(log, "a", 2, b"two", positions[0] or 0)
    assert second is not None
    assert [len(await log.load(name)) for name in names] == [2, 1, 1, 1, 1]
    assert sorted([entity async for entity in log.entities()]) == sorted(names)


async def test_a_long_history_is_read_whole_and_in_part(log: Log) -> None:
    """More commits than the server answers at once (1,024) make no difference, wherever one begins to read."""
    count = 2_060
    commits = [b"%d" % n for n in range(1, count + 1)]
    await history(log, "a", commits)
    for after in (0, 1, 1_000, 1_023, 1_024, 1_025, count - 1, count):
        assert [(one.n, one.data) for one in await log.load("a", after)] == list(enumerate(commits, 1))[after:]
    last = await log.read("a", count)
    assert last is not None
    assert last.data == commits[-1]
    assert await log.read("a", count + 1) is None


async def test_many_histories_are_appended_side_by_side(log: Log) -> None:
    """Appends to different entities do not wait for each other and do not refuse each other."""
    lasts = await asyncio.gather(*(history(log, f"e{number}", [b"1", b"2", b"3"]) for number in range(50)))
    assert len(set(lasts)) == 50


async def test_of_many_rivals_for_one_number_exactly_one_wins(log: Log) -> None:
    """Twenty different commits 1 at the same time: one stands, nineteen hear that it is not theirs."""
    outcomes = await asyncio.gather(*(append(log, "a", 1, b"%d" % rival, 0) for rival in range(20)))
    assert [position is not None for position in outcomes].count(True) == 1


@pytest.mark.slow
async def test_a_history_larger_than_one_answer_of_the_server_is_read_whole(jetstream: JetStreamLog) -> None:
    """The server ends an answer at 64 MB; what is left is asked for, by whoever folds and by whoever verifies."""
    commits = [b"%d" % n + b"x" * 1_000_000 for n in range(1, 81)]
    await history(jetstream, "a", commits)
    assert [one.data for one in await jetstream.load("a")] == commits
    assert [one.data for one in await jetstream.load_raw("a")] == commits


async def test_a_stranger_among_the_commits_is_a_corrupt_history(
    jetstream: JetStreamLog, connection: Connection, subjects: Subjects
) -> None:
    """A message that is no commit's number halts its own execution as `CorruptHistory`, not as an accident."""
    await history(jetstream, "a", [b"one"])
    await connection.request(subjects.log_all("a").replace("*", "stranger"), b"?")
    with pytest.raises(CorruptHistory):
        await jetstream.load("a")


async def test_a_commit_that_is_missing_is_a_corrupt_history(
    jetstream: JetStreamLog, connection: Connection, subjects: Subjects
) -> None:
    """Numbers are gapless: what stands beyond a missing one is not folded, however one comes to read it."""
    await history(jetstream, "a", [b"one"])
    await connection.request(subjects.log("a", 3), b"three")
    for after in (0, 1):
        with pytest.raises(CorruptHistory, match="commit 2 is missing"):
            await jetstream.load("a", after)
    assert [one.n for one in await jetstream.load_raw("a")] == [1, 3]


async def test_what_was_compacted_is_forgotten_and_appending_goes_on(log: Log) -> None:
    """A shared entity's history begins at the commit that it was told to begin at; who expects an older end is refused."""
    await history(log, "_limit-a", [b"%d" % n for n in range(1, 6)])
    last = await log.last("_limit-a")
    assert last is not None
    assert (last.n, last.data) == (5, b"5")
    assert await log.last("_limit-b") is None
    old = await log.read("_limit-a", 3)
    await log.forget("_limit-a", last)
    assert [one.n for one in await log.load("_limit-a")] == [5]
    assert await log.read("_limit-a", 4) is None
    assert old is not None
    assert await append(log, "_limit-a", 4, b"late", old.position) is None
    assert await append(log, "_limit-a", 6, b"6", last.position) is not None
    assert [one.n for one in await log.load("_limit-a")] == [5, 6]
