"""A server that refuses, restarts, or keeps less than it should: what waits for it goes on by itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest

import esexec
from esexec.domain import limits
from esexec.nats.connection import Connection, connect
from esexec.nats.direct import read_leader
from esexec.nats.streams import ensure_lane, ensure_streams
from esexec.nats.subjects import Subjects
from tests.chaos.checker import check, left
from tests.integration.engine import QUICK, Complaints, Engine, until
from tests.server import NatsServer


@esexec.task
async def double(number: int) -> int:
    return 2 * number


@pytest.fixture
async def alone(own_server: NatsServer, complaints: Complaints) -> AsyncIterator[Engine]:
    """An engine without any process yet but a client, on a server of its own. Checked at the end."""
    engine = Engine(own_server.url, "faults")
    engine.complaints = complaints
    async with engine.stack:
        engine.client = await engine.another_client(confirm_s=10.0)
        yield engine

        async def at_rest() -> bool:  # an acknowledgement that died with the server is made up for when the lease is over
            return not await left(looker, "faults", ["COMMANDS", "INBOX", "TASKS"])

        looker = await nats.connect(own_server.url, allow_reconnect=False)
        await until(at_rest, 12)
        await looker.close()
    report = await check(own_server.url, "faults", may_be_left=["TIMERS"])
    assert not report.problems, str(report)


async def limit(connection: Connection, stream: str, **settings: Any) -> None:
    """As an operator would, with the CLI of NATS."""
    info = await connection.api(f"STREAM.INFO.{stream}")
    await connection.api(f"STREAM.UPDATE.{stream}", info["config"] | settings)


async def test_a_dispatch_that_the_server_refuses_for_want_of_room_is_made_when_there_is_room(alone: Engine) -> None:
    """What is refused is not given up: the execution goes on by itself once an operator has made room."""
    await alone.executor()
    async with await connect(alone.url, name="operator") as operator:
        await limit(operator, alone.subjects.tasks_stream, max_msgs=1, discard="new")
        handles = [await alone.client.start(double, {"number": number}) for number in range(3)]
        await limit(operator, alone.subjects.tasks_stream, max_msgs=-1, discard="old")
    await alone.worker(double)
    assert [await handle.result(wait_timeout=10) for handle in handles] == [0, 2, 4]


async def test_a_commit_that_the_log_refuses_for_want_of_room_is_stored_when_there_is_room(alone: Engine) -> None:
    """A full log is no conflict: the same commit is tried again, and the execution goes on once there is room."""
    await alone.executor()
    await alone.worker(double)
    await alone.execute(double, {"number": 1})
    async with await connect(alone.url, name="operator") as operator:
        stream = alone.subjects.log_stream
        full = (await operator.api(f"STREAM.INFO.{stream}"))["state"]["messages"]
        await limit(operator, stream, max_msgs=full)
        starting = asyncio.ensure_future(alone.client.start(double, {"number": 2}))
        await until(lambda: any("the log refuses" in line for line in alone.complaints.lines) or starting.done())
        assert not starting.done()
        await limit(operator, stream, max_msgs=-1)
    assert await (await starting).result(wait_timeout=10) == 4


async def test_taking_an_attempt_back_from_its_holder_costs_no_other_holder_its_lease(
    alone: Engine, own_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A purge by subject would make the server forget the older leases of the lane when it restarts: attempts would be lost."""
    monkeypatch.setattr("esexec.domain.limits.cancel_grace_ms", 500)  # nobody runs what is taken back
    await alone.executor()
    subjects = alone.subjects
    async with await connect(alone.url, name="holder") as holder:
        await ensure_lane(holder, subjects, "default", 5, lease_ms=1000)
        subscription = await holder.client.subscribe(holder.client.new_inbox())
        handles = [await alone.client.start(double, {"number": number}) for number in range(6)]
        pull = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.tasks_stream}.{subjects.lane_consumer('default', 5)}"
        await holder.client.publish(pull, b'{"batch": 6, "expires": 3000000000}', subscription.subject)
        held = [await subscription.next_msg(timeout=3) for _ in handles]
        by_number = sorted(held, key=lambda message: int(message.reply.split(".")[5]))
        third = by_number[2].subject.split(".")[-3]
        assert await alone.client.cancel(third)

        async def taken_back() -> bool:
            return await read_leader(holder, subjects.tasks_stream, by_number[2].subject) is None

        await until(taken_back)
        for message in by_number[3:]:  # their holder says that they are done
            await message.respond(b"")
        await holder.flush()
    own_server.stop()  # an orderly end, so that the server writes down what it believes
    own_server.start()
    await alone.worker(double)
    results = [await alone.client.wait(message.subject.split(".")[-3], wait_timeout=15) for message in by_number[:3]]
    assert [result.status.value for result in results] == ["completed", "completed", "cancelled"]
    for message in by_number[3:]:  # nobody has them any more: whoever notices nudges
        await alone.client._publisher.send(subjects.nudge_in(message.subject.split(".")[-3]), b"")
    for handle in handles:
        await handle.wait(wait_timeout=10)


async def test_a_server_that_is_restarted_while_nobody_works_is_used_again_at_once(alone: Engine, own_server: NatsServer) -> None:
    """The pull requests that the server forgot are made again: the next execution ends within two seconds."""
    await alone.executor()
    await alone.worker(double)
    assert (await alone.execute(double, {"number": 4})).output == 8
    for number in range(3):
        await asyncio.to_thread(own_server.restart)
        await until(lambda: alone.client._connection is not None and alone.client._connection.is_connected)
        began = time.monotonic()
        assert (await alone.execute(double, {"number": number})).output == 2 * number
        assert time.monotonic() - began < 2.0


async def test_processes_that_start_before_their_server_wait_for_it(own_server: NatsServer) -> None:
    """With patience, whoever finds no server keeps trying, and works as soon as it is there."""
    own_server.stop()
    namespace = "late"
    executor = esexec.Executor(own_server.url, namespace=namespace, patience=30)
    worker = esexec.Worker(own_server.url, namespace=namespace, tasks=[double], patience=30)
    starting = asyncio.gather(executor.start(), worker.start())
    await asyncio.sleep(0.6)  # long enough that both were refused
    assert not starting.done()
    await asyncio.to_thread(own_server.start)
    await starting
    async with executor, worker, esexec.connect(own_server.url, namespace=namespace) as client:
        assert await client.run(double, {"number": 5}, wait_timeout=10, **QUICK) == 10


async def test_what_was_submitted_while_no_executor_was_there_is_carried_out_when_one_comes(alone: Engine) -> None:
    """A command without an executor is durable: the start is not confirmed in time, and is carried out later."""
    async with esexec.connect(alone.url, namespace=alone.namespace, confirm_s=0.2) as hasty:
        with pytest.raises(esexec.NotConfirmed) as raised:
            await hasty.start(double, {"number": 6})
        handle = raised.value.handle
    await alone.executor()
    await alone.worker(double)
    assert await alone.client.handle(handle.id).result(wait_timeout=10) == 12


async def test_a_start_that_no_server_took_says_so_and_is_carried_out_once_there_is_one(
    alone: Engine, own_server: NatsServer
) -> None:
    """What the server has not acknowledged is not called durable; the client sends it again when the server is back."""
    await alone.executor()
    await alone.worker(double)
    async with esexec.connect(alone.url, namespace=alone.namespace, confirm_s=0.2) as hasty:
        own_server.kill()
        with pytest.raises(esexec.NotConfirmed, match="not acknowledged") as raised:
            await hasty.start(double, {"number": 7})
        assert raised.value.code == "not_stored"
        own_server.start()
        assert await raised.value.handle.result(wait_timeout=15) == 14


async def test_a_cancel_is_not_refused_while_the_start_is_in_the_hands_of_an_executor_that_died(alone: Engine) -> None:
    """There is "no such execution" only when no start of it is on its way either; the cancel waits for it."""
    await ensure_streams_of(alone)
    async with await connect(alone.url, name="dying") as dying:
        subjects, inbox = alone.subjects, await dying.client.subscribe(dying.client.new_inbox())
        for partition in range(limits.partitions):
            pull = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.commands_stream}.{subjects.partition_consumer(partition)}"
            await dying.client.publish(pull, b'{"batch": 1, "expires": 2000000000}', inbox.subject)
        starting = asyncio.ensure_future(alone.client.start(double, {"number": 8}))
        start = await inbox.next_msg(timeout=5)
        execution = start.subject.split(".")[-2]
        await inbox.unsubscribe()
        turns = (await alone.executor())._desk.preparation._turns
        assert turns is not None
        cancelling = asyncio.ensure_future(alone.client.cancel(execution))
        await until(lambda: execution in turns._lines)
        assert not cancelling.done()
        await start.respond(b"-NAK")  # sooner than the ack wait would be over
        handle = await starting
    assert await cancelling
    assert (await handle.wait(wait_timeout=10)).status.value == "cancelled"


async def test_reports_that_were_lost_and_repeated_change_nothing(alone: Engine) -> None:
    """Every message of a finished execution, sent again outside of any dedup window, leaves the log as it was."""
    recorded: list[tuple[str, bytes]] = []
    watcher = await nats.connect(alone.url)

    async def record(message: Any) -> None:
        recorded.append((message.subject, message.data))

    await ensure_streams_of(alone)
    for pattern in (f"esexec.{alone.namespace}.cmd.*.*", f"esexec.{alone.namespace}.in.*.>"):
        await watcher.subscribe(pattern, cb=record)
    await watcher.flush()
    await alone.executor(cache_size=0)
    await alone.worker(double)
    plan = esexec.Plan("three", [esexec.Step(double, id=name, params={"number": 3}) for name in "abc"])
    result = await alone.execute(plan)
    assert result.ok
    before = await log_end(watcher, alone.subjects)
    for subject, data in [*reversed(recorded), *recorded]:
        await watcher.publish(subject, data)
    await watcher.flush()

    async def quiet() -> bool:
        return not await waiting(watcher, alone.subjects)

    await until(quiet, 10)
    assert await log_end(watcher, alone.subjects) == before
    await watcher.close()


async def ensure_streams_of(engine: Engine) -> None:
    async with await connect(engine.url, name="setup") as connection:
        await ensure_streams(connection, engine.subjects)


async def log_end(client: Any, subjects: Subjects) -> int:
    return (await client.jetstream().stream_info(subjects.log_stream)).state.last_seq


async def waiting(client: Any, subjects: Subjects) -> int:
    streams = (subjects.commands_stream, subjects.inbox_stream)
    return sum([(await client.jetstream().stream_info(stream)).state.messages for stream in streams])
