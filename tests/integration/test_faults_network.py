"""A network that loses, resets and swallows: our own writes are recognised, and everything goes on within a bound."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

import esexec
from esexec.nats.connection import connect
from esexec.nats.streams import ACK_WAIT_MS
from tests.chaos.checker import check
from tests.integration.engine import Complaints, Engine, until
from tests.proxy import Proxy
from tests.server import NatsServer


class World:
    """What handlers do, and when they may end."""

    def __init__(self) -> None:
        self.ran: Counter[int] = Counter()
        self.open = asyncio.Event()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def gated(world: World) -> esexec.Task[..., int]:
    """A task that ends when the test says so."""

    @esexec.task(name="gated")
    async def gated(number: int) -> int:
        world.ran[number] += 1
        await world.open.wait()
        return number

    return gated


@pytest.fixture
async def proxy(nats_server: NatsServer) -> AsyncIterator[Proxy]:
    async with Proxy(nats_server.url) as proxy:
        yield proxy


@pytest.fixture
async def behind(proxy: Proxy, nats_server: NatsServer, namespace: str, complaints: Complaints) -> AsyncIterator[Engine]:
    """An engine whose executors and workers are behind the proxy, and whose client is not. Checked at the end."""
    engine = Engine(proxy.url, namespace)
    engine.complaints = complaints
    async with engine.stack:
        engine.client = await engine.stack.enter_async_context(esexec.connect(nats_server.url, namespace=namespace))
        yield engine
    report = await check(nats_server.url, namespace, may_be_left=["COMMANDS", "INBOX", "TASKS", "TIMERS"])
    assert not report.problems, str(report)


@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_commit_whose_acknowledgement_was_lost_is_recognised_as_our_own(
    behind: Engine, proxy: Proxy, world: World, gated: esexec.Task[..., int], nth: int
) -> None:
    """The same bytes are sent again and refused; they stand in the log already, so nothing is decided twice."""
    acks = 0

    def lose(data: bytes) -> None:
        nonlocal acks
        acks += data.count(f'"stream":"{behind.subjects.log_stream}"'.encode())
        if acks >= nth:
            proxy.deaf, proxy.watch = True, None
            asyncio.get_running_loop().call_later(0.2, proxy.reset)

    await behind.executor()
    async with esexec.Worker(behind.client.url, namespace=behind.namespace, tasks=[gated]):
        world.open.set()
        proxy.watch = lose
        plan = esexec.Plan(
            "two", [esexec.Step(gated, id="a", params={"number": 1}), esexec.Step(gated, id="b", params={"number": 2})]
        )
        result = await behind.client.execute(plan, wait_timeout=20)
    assert result.ok
    assert proxy.watch is None, "no acknowledgement was lost"
    types = await behind.types(result.id)
    assert Counter(types)["task_completed"] == 2
    assert world.ran == Counter({1: 1, 2: 1})


async def reset_often(behind: Engine, proxy: Proxy, times: int) -> None:
    for _ in range(times):
        before = proxy.connections
        proxy.reset()
        # The executor has one connection, the worker two.
        await until(lambda before=before: proxy.connections >= before + 3 and behind.executors[0]._connection.is_connected)


async def deliveries(behind: Engine) -> int:
    """How often attempts were handed out so far."""
    async with await connect(behind.client.url, name="looker") as looker:
        info = await looker.api(f"CONSUMER.INFO.{behind.subjects.tasks_stream}.{behind.subjects.lane_consumer('default', 5)}")
    return int(info["delivered"]["consumer_seq"])


async def test_connections_that_are_reset_cost_nothing_but_a_moment(
    behind: Engine, proxy: Proxy, world: World, gated: esexec.Task[..., int]
) -> None:
    """Resets of an idle and of a busy worker: no attempt is lost, none is handed out in vain, and all goes on at once."""
    await behind.executor()
    await behind.worker(gated, queues={"default": 2})
    await reset_often(behind, proxy, 6)
    handles = [await behind.client.start(gated, {"number": number}) for number in range(8)]
    await until(lambda: len(world.ran) == 2)
    await reset_often(behind, proxy, 6)
    assert await deliveries(behind) == 2
    began = time.monotonic()
    world.open.set()
    results = [await handle.wait(wait_timeout=20) for handle in handles]
    assert [result.ok for result in results] == [True] * 8
    assert time.monotonic() - began < 8
    for handle in handles:
        assert Counter(await behind.types(handle.id))["task_scheduled"] == 1
    assert world.ran == Counter(dict.fromkeys(range(8), 1))


@pytest.mark.chaos
async def test_a_connection_that_goes_dark_is_given_up_and_made_anew_within_a_bound(
    behind: Engine, proxy: Proxy, world: World, gated: esexec.Task[..., int]
) -> None:
    """Bytes vanish without a reset: the silence is noticed, and all goes on soon after the light comes back."""
    world.open.set()
    await behind.executor()
    await behind.worker(gated)
    assert (await behind.execute(gated, {"number": 1})).ok
    proxy.dark = True
    starting = asyncio.ensure_future(behind.client.start(gated, {"number": 2}))
    executor = behind.executors[0]
    await until(lambda: executor._connection is not None and not executor._connection.is_connected, 12)
    proxy.dark = False
    began = time.monotonic()
    assert (await behind.execute(gated, {"number": 3})).ok
    assert time.monotonic() - began < 6
    try:
        handle = await starting
    except esexec.NotConfirmed as error:
        handle = error.handle
    # Its command may have vanished on the way to the executor: then it comes again when the consumer's ack wait is over.
    assert (await handle.wait(wait_timeout=ACK_WAIT_MS / 1000 + 10)).ok
