"""The streams as the server really has them: each setting of design §2 by its effect."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from esexec.domain import limits
from esexec.nats.connection import ApiError, Connection, connect
from esexec.nats.streams import (
    delete_streams,
    drift,
    ensure_lane,
    ensure_streams,
    executor_consumers,
    lane_names,
    stream_configs,
)
from esexec.nats.subjects import Subjects
from tests.server import NatsServer


@pytest.fixture
async def made(connection: Connection, subjects: Subjects) -> Subjects:
    await ensure_streams(connection, subjects)
    return subjects


async def store(connection: Connection, subject: str, data: bytes = b"x", **headers: str) -> dict[str, Any]:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return msgspec.json.decode((await connection.request(subject, data, headers=named or None)).data)


async def stored(connection: Connection, stream: str) -> dict[str, int]:
    info = await connection.api(f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
    return info["state"].get("subjects") or {}


async def pull(connection: Connection, stream: str, consumer: str, timeout: float = 5.0) -> Any:
    """The consumer's next message. (Not by `request`: the answer carries the message's own subject.)"""
    arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def on_message(message: Any) -> None:
        if not arrived.done():
            arrived.set_result(message)

    inbox = connection.client.new_inbox()
    subscription = await connection.subscribe(inbox, on_message)
    request = msgspec.json.encode({"batch": 1, "expires": int(timeout * 1e9)})
    await connection.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", request, reply=inbox)
    message = await asyncio.wait_for(arrived, timeout)
    await subscription.unsubscribe()
    return message


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


def schedule_in(seconds: float, target: str) -> dict[str, str]:
    at = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    return {"Nats_Schedule": f"@at {at}", "Nats_Schedule_Target": target}


async def test_streams_are_made_as_declared(connection: Connection, made: Subjects) -> None:
    """Right after they were made nothing differs from what was asked for, as the server tells it."""
    assert await drift(connection, made) == []
    assert len(stream_configs(made)) == 11
    assert len(executor_consumers(made)) == 2 * limits.partitions + 3


async def test_many_make_them_at_once(connection: Connection, subjects: Subjects, caplog: pytest.LogCaptureFixture) -> None:
    """Any number of processes may make the streams at the same time; none fails, none warns, and once more changes nothing."""
    caplog.set_level(logging.WARNING)
    await asyncio.gather(*(ensure_streams(connection, subjects) for _ in range(8)))
    await ensure_streams(connection, subjects)
    assert await drift(connection, subjects) == []
    assert caplog.messages == []


async def test_drift_is_told_and_not_mended(connection: Connection, made: Subjects, caplog: pytest.LogCaptureFixture) -> None:
    """A setting that somebody changed is named in a warning and stays changed; a missing consumer is made again."""
    log = next(config for config in stream_configs(made) if config["name"] == made.log_stream)
    await connection.api(f"STREAM.UPDATE.{made.log_stream}", log | {"discard_new_per_subject": False, "max_msg_size": 100})
    await connection.api(f"CONSUMER.DELETE.{made.inbox_stream}.p3")
    caplog.set_level(logging.WARNING)
    await ensure_streams(connection, made)
    expected = [
        f"stream {made.log_stream}: discard_new_per_subject is None and should be True",
        f"stream {made.log_stream}: max_msg_size is 100 and should be -1",
    ]
    assert await drift(connection, made) == expected
    assert caplog.messages == expected


async def test_the_engine_does_without_what_it_need_not_have(
    connection: Connection, subjects: Subjects, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the server has no room for cached results or for what is told live, that is a warning; all other streams stand."""
    taken = {"name": f"TAKEN_{subjects.namespace}", "subjects": [subjects.cache_all]}
    await connection.api(f"STREAM.CREATE.{taken['name']}", taken)
    try:
        caplog.set_level(logging.WARNING)
        await ensure_streams(connection, subjects)
        assert [line for line in caplog.messages if f"does without stream {subjects.cache_stream}" in line]
        assert await drift(connection, subjects) == [f"stream {subjects.cache_stream} is missing"]
    finally:
        await connection.api(f"STREAM.DELETE.{taken['name']}")


async def test_an_operator_says_how_much_is_cached(connection: Connection, made: Subjects) -> None:
    """The bytes of what is dispensable are the operator's choice, and no drift."""
    for name in (made.cache_stream, made.live_stream):
        config = next(config for config in stream_configs(made) if config["name"] == name)
        await connection.api(f"STREAM.UPDATE.{name}", config | {"max_bytes": 1024 * 1024})
    assert await drift(connection, made) == []


async def test_drift_names_what_is_missing(connection: Connection, subjects: Subjects) -> None:
    """Where nothing was made, every stream and consumer is called missing."""
    lines = await drift(connection, subjects)
    assert len(lines) == 11 + 2 * limits.partitions + 3
    assert lines[0] == f"stream {subjects.commands_stream} is missing"


async def test_commands_are_stored_under_their_partition(connection: Connection, made: Subjects) -> None:
    """A command is stored as `commands.<partition>.<execution>.<verb>`; an execution's partition never changes."""
    executions = [f"execution-{i}" for i in range(64)]
    for _ in range(2):
        for execution in executions:
            assert "error" not in await store(connection, made.command(execution, "start"))
    found = await stored(connection, made.commands_stream)
    assert {made.parse_command(subject) for subject in found} == {(execution, "start") for execution in executions}
    assert set(found.values()) == {2}
    partitions = {int(subject.split(".")[3]) for subject in found}
    assert partitions <= set(range(limits.partitions))
    assert len(partitions) > limits.partitions // 2


async def test_inbox_keeps_the_whole_tail(connection: Connection, made: Subjects) -> None:
    """Whatever follows the kind is kept, and all messages of an execution share the partition of its commands."""
    await store(connection, made.command("abc", "start"))
    await store(connection, made.report("abc", "q", "step", 1, 2))
    await store(connection, made.nudge_in("abc"))
    await store(connection, made.due_in("abc", "7"))
    found = await stored(connection, made.inbox_stream)
    assert {made.parse_inbox(subject) for subject in found} == {
        ("abc", "report", ("q", "step", "1-2")),
        ("abc", "nudge", ()),
        ("abc", "due", ("7",)),
    }
    (command,) = await stored(connection, made.commands_stream)
    assert {subject.split(".")[3] for subject in found} == {command.split(".")[3]}


async def test_every_partition_has_one_consumer(connection: Connection, made: Subjects) -> None:
    """Each stored message is handed to the consumer of its partition, an ack removes it, and no other consumer may overlap."""
    await store(connection, made.nudge_in("abc"))
    (subject,) = await stored(connection, made.inbox_stream)
    partition = int(subject.split(".")[3])
    message = await pull(connection, made.inbox_stream, made.partition_consumer(partition))
    assert message.subject == subject
    await connection.request(message.reply, b"+ACK")
    assert await stored(connection, made.inbox_stream) == {}
    overlapping = {"name": "other", "durable_name": "other", "ack_policy": "explicit", "filter_subject": subject}
    with pytest.raises(ApiError) as refused:
        await connection.api(
            f"CONSUMER.CREATE.{made.inbox_stream}.other", {"stream_name": made.inbox_stream, "config": overlapping}
        )
    assert refused.value.err_code == 10100


async def test_commands_are_refused_when_full(
    connection: Connection, subjects: Subjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COMMANDS refuses the message beyond its limit with 10077 and loses none before it; INBOX has no limit."""
    monkeypatch.setattr(limits, "commands_waiting", 3)
    await ensure_streams(connection, subjects)
    for execution in "abc":
        assert "error" not in await store(connection, subjects.command(execution, "start"))
    answer = await store(connection, subjects.command("d", "start"))
    assert answer["error"]["err_code"] == 10077
    assert sum((await stored(connection, subjects.commands_stream)).values()) == 3
    for _ in range(10):
        assert "error" not in await store(connection, subjects.nudge_in("a"))


async def test_a_commit_stands_once_and_is_repeated_live(connection: Connection, made: Subjects) -> None:
    """A second message for the same n is refused even without an expected sequence; only what was stored is repeated."""
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def on_commit(message: Any) -> None:
        heard.put_nowait((message.subject, message.data))

    await connection.subscribe(made.commits_of("abc"), on_commit)
    assert (await store(connection, made.log("abc", 1), b"first"))["seq"] == 1
    assert (await store(connection, made.log("abc", 1), b"other"))["error"]["err_code"] == 10077
    await store(connection, made.log("abc", 2), b"second")
    async with asyncio.timeout(5):
        assert await heard.get() == (made.commit("abc", 1), b"first")
        assert await heard.get() == (made.commit("abc", 2), b"second")
    assert made.parse_commit(made.commit("abc", 2)) == made.parse_commit(made.log("abc", 2)) == ("abc", 2)


async def test_the_log_checks_the_expected_sequence(connection: Connection, made: Subjects) -> None:
    """A commit expects the sequence of the one before it, over all subjects of its execution, and is refused with 10071."""
    expect = {"Nats_Expected_Last_Subject_Sequence_Subject": made.log_all("abc")}
    first = await store(connection, made.log("abc", 1), **expect, Nats_Expected_Last_Subject_Sequence="0")
    await store(connection, made.log("other", 1))
    late = await store(connection, made.log("abc", 2), **expect, Nats_Expected_Last_Subject_Sequence="0")
    assert late["error"]["err_code"] == 10071
    second = await store(connection, made.log("abc", 2), **expect, Nats_Expected_Last_Subject_Sequence=str(first["seq"]))
    assert second["seq"] == 3


async def test_commits_cannot_be_deleted(connection: Connection, made: Subjects) -> None:
    """The log refuses to delete a single message."""
    await store(connection, made.log("abc", 1))
    with pytest.raises(ApiError):
        await connection.api(f"STREAM.MSG.DELETE.{made.log_stream}", {"seq": 1})


async def test_only_timers_allow_schedules(connection: Connection, made: Subjects) -> None:
    """Schedules and rollups are refused on every stream but TIMERS."""
    answer = await store(connection, made.task("q", 5, "abc", "s", 1, 1), **schedule_in(5, made.due("abc", "1")))
    assert "error" in answer
    answer = await store(connection, made.log("abc", 1), Nats_Rollup="all")
    assert "error" in answer


async def test_a_timer_fires_once_and_is_gone_when_acked(connection: Connection, made: Subjects) -> None:
    """A schedule fires into `due.`, setting it again replaces it, purging clears it, and an ack leaves nothing behind."""
    await store(connection, made.timer("abc", "1"), b"old", **schedule_in(60, made.due("abc", "1")))
    await store(connection, made.timer("abc", "1"), b"new", **schedule_in(0.6, made.due("abc", "1")))
    await store(connection, made.timer("abc", "2"), b"cleared", **schedule_in(0.6, made.due("abc", "2")))
    await connection.api(f"STREAM.PURGE.{made.timers_stream}", {"filter": made.timer("abc", "2")})
    message = await pull(connection, made.timers_stream, "due")
    assert (made.parse_due(message.subject), message.data) == (("abc", "1"), b"new")
    await connection.request(message.reply, b"+ACK")
    assert await stored(connection, made.timers_stream) == {}


async def test_waiting_timers_survive_crashes(own_server: NatsServer) -> None:
    """A timer that waits is neither lost nor fired early by acks of later ones, a `kill -9`, or a lost consumer state."""
    subjects = Subjects("default")
    async with await connect(own_server.url, name="test") as connection:
        await ensure_streams(connection, subjects)
        await store(connection, subjects.timer("far", "1"), **schedule_in(3600, subjects.due("far", "1")))
        await store(connection, subjects.timer("near", "1"), **schedule_in(4, subjects.due("near", "1")))
        for name in map(str, range(5)):
            await store(connection, subjects.timer("abc", name), **schedule_in(0.1, subjects.due("abc", name)))
        for _ in range(5):
            message = await pull(connection, subjects.timers_stream, "due")
            await connection.request(message.reply, b"+ACK")
        own_server.restart()
        await connection.wait_connected(10)
        assert subjects.timer("far", "1") in await stored(connection, subjects.timers_stream)
        message = await pull(connection, subjects.timers_stream, "due", timeout=10)
        assert subjects.parse_due(message.subject) == ("near", "1")
        await connection.api(f"CONSUMER.DELETE.{subjects.timers_stream}.due")
        await ensure_streams(connection, subjects)
        assert subjects.timer("far", "1") in await stored(connection, subjects.timers_stream)


async def test_lanes_are_made_once(connection: Connection, made: Subjects, caplog: pytest.LogCaptureFixture) -> None:
    """A lane can be made again and again; another lease is refused with a warning; names of queues never get mixed up."""
    lanes = [("default", 0), ("default", 10), ("a_p5", 5), ("a", 5), ("x-y_z", 3)]
    names = [await ensure_lane(connection, made, *lane) for lane in lanes]
    assert len(set(names)) == len(lanes)
    assert await ensure_lane(connection, made, "a", 5) == "a_p5"
    assert await lane_names(connection, made) == sorted(lanes)
    assert caplog.messages == []
    await ensure_lane(connection, made, "a", 5, lease_ms=1000)
    assert caplog.messages == [f"consumer a_p5 of stream {made.tasks_stream}: ack_wait is 5000000000 and should be 1000000000"]


async def test_lane_names_are_paged(connection: Connection, made: Subjects) -> None:
    """More lanes than the server names in one answer (1024) are all found."""
    await asyncio.gather(*(ensure_lane(connection, made, f"q{i}", 5) for i in range(1030)))
    assert len(await lane_names(connection, made)) == 1030


async def test_a_lane_hands_out_its_own_tasks(connection: Connection, made: Subjects) -> None:
    """A lane delivers the attempts of its queue and priority and no others, and again when the lease ends without an ack."""
    lane = await ensure_lane(connection, made, "q", 5, lease_ms=200)
    other = await ensure_lane(connection, made, "q", 6)
    await store(connection, made.task("q", 6, "abc", "s", 1, 1))
    await store(connection, made.task("q", 5, "abc", "s", 1, 2))
    for _ in range(2):
        message = await pull(connection, made.tasks_stream, lane)
        assert made.parse_task(message.subject) == ("q", 5, "abc", "s", 1, 2)
    message = await pull(connection, made.tasks_stream, other)
    assert made.parse_task(message.subject) == ("q", 6, "abc", "s", 1, 1)


async def test_a_lane_has_no_cap(connection: Connection, made: Subjects) -> None:
    """More messages than the server's default of 1000 may be held at once, and more pulls than 512 may wait."""
    lane = await ensure_lane(connection, made, "q", 5)
    await asyncio.gather(*(store(connection, made.task("q", 5, f"e{i}", "s", 1, 1)) for i in range(1100)))
    arrived = 0

    async def count(message: Any) -> None:
        nonlocal arrived
        arrived += 1 if message.reply else 0

    inbox = connection.client.new_inbox()
    await connection.subscribe(inbox, count)
    request = msgspec.json.encode({"batch": 1, "expires": 60_000_000_000})
    for _ in range(1700):
        await connection.publish(f"$JS.API.CONSUMER.MSG.NEXT.{made.tasks_stream}.{lane}", request, reply=inbox)

    async def all_are_held_and_all_pulls_wait() -> bool:
        info = await connection.api(f"CONSUMER.INFO.{made.tasks_stream}.{lane}")
        return arrived == 1100 and info["num_ack_pending"] == 1100 and info["num_waiting"] == 600

    await until(all_are_held_and_all_pulls_wait)


async def test_deleting_is_complete(connection: Connection, made: Subjects) -> None:
    """After `delete_streams` nothing of the namespace is left; doing it again is no error."""
    await delete_streams(connection, made)
    await delete_streams(connection, made)
    names = (await connection.api("STREAM.NAMES", {"subject": f"esexec.{made.namespace}.>"})).get("streams")
    assert not names
