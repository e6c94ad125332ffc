"""What becomes of a role whose loop ends, or whose beginning or end is cut off: nothing is lost, nothing goes on for ever."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import esexec
from esexec import Worker
from esexec.nats.connection import Connection, connect
from tests.integration.engine import Engine, until
from tests.server import NatsServer


async def in_a_thread(main: Callable[[], Awaitable[object]]) -> None:
    """Runs it with `asyncio.run`, which cancels whatever is left in the end."""

    async def run() -> None:
        await main()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    await until(lambda: not thread.is_alive(), 20.0)


async def test_what_runs_on_a_loop_that_ends_is_handed_back(engine: Engine) -> None:
    """Who ends the loop under a worker has ended no handler: another goes on, and nothing has failed."""
    begun = threading.Event()

    @esexec.task(max_retries=0)
    async def slow() -> str:
        if not begun.is_set():
            begun.set()
            await asyncio.sleep(60)
        return "done"

    async def main() -> None:
        worker = Worker(engine.url, tasks=[slow], namespace=engine.namespace)
        await worker.start()
        working.append(asyncio.create_task(worker.run()))
        await asyncio.to_thread(begun.wait, 10)

    working: list[asyncio.Task[None]] = []
    handle = await engine.client.start(slow)
    await in_a_thread(main)
    assert working[0].cancelled()
    await engine.worker(slow)
    assert await handle.result(wait_timeout=10) == "done"
    assert "task_failed" not in await engine.types(handle.id)


@pytest.fixture
def leases() -> Callable[[], list[threading.Thread]]:
    """The threads that keep leases, but for those of other tests."""
    others = set(threading.enumerate())
    return lambda: [one for one in threading.enumerate() if one.name == "esexec-leases" and one not in others]


Leases = Callable[[], list[threading.Thread]]


async def test_a_worker_whose_leases_cannot_be_kept_does_not_begin(
    engine: Engine, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the thread that keeps them is raised where the worker is started, which waits for it no longer."""

    async def fails(*_: object, **__: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr("esexec.worker.leases.connect", fails)
    with pytest.raises(OSError, match="too many open files"):
        await engine.worker()
    assert leases() == []


async def test_a_start_that_is_given_up_leaves_no_thread(engine: Engine, leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose thread was not connected yet: it ends as soon as it is."""
    connecting, may_connect = threading.Event(), threading.Event()

    async def slowly(*given: Any, **options: Any) -> Connection:
        connecting.set()
        await asyncio.to_thread(may_connect.wait, 10)
        return await connect(*given, **options)

    monkeypatch.setattr("esexec.worker.leases.connect", slowly)
    starting = asyncio.create_task(engine.worker())
    await asyncio.to_thread(connecting.wait, 10)
    starting.cancel()
    await asyncio.sleep(0)
    may_connect.set()
    await asyncio.wait([starting])
    assert starting.cancelled()
    await until(lambda: not leases())


async def cut_off(engine: Engine) -> tuple[Worker, esexec.Handle, asyncio.Event]:
    """A worker whose stop was given up over what it has in hand, which ends with the event."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    @esexec.task
    async def slow() -> None:
        begun.set()
        await may_end.wait()

    worker = await engine.worker(slow, drain_s=10)
    handle = await engine.client.start(slow)
    await begun.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await worker.stop()
    return worker, handle, may_end


async def test_a_stop_that_is_cut_off_goes_on_to_its_end(engine: Engine, leases: Leases) -> None:
    """Whoever gives up waiting leaves nothing half closed; who stops it once more waits for that end."""
    worker, handle, may_end = await cut_off(engine)
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    assert len(leases()) == 1
    may_end.set()
    await stopping
    assert leases() == []
    assert (await handle.wait()).ok


@pytest.mark.parametrize("turns", range(4))
async def test_closing_that_is_cut_off_closes_all_the_same(engine: Engine, turns: int) -> None:
    """Of a client, of an executor and of projections nothing is left, at whatever moment that was."""
    others = asyncio.all_tasks()
    for one in (await engine.another_client(), await engine.executor(), await engine.projector()):
        closing = asyncio.create_task(one.__aexit__(None, None, None))
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await one.__aexit__(None, None, None)
    await until(lambda: not [task for task in asyncio.all_tasks() - others if not task.done()])


async def test_who_waits_for_a_client_that_is_closed_is_told(engine: Engine) -> None:
    """As an error, not as a cancellation that nobody asked for; and so is who asks it anything afterwards."""
    client = await engine.another_client()
    handles = [await client.start("nobody-has-it") for _ in range(20)]  # so many are heard of together
    waiting = [asyncio.create_task(handle.wait(wait_timeout=None)) for handle in handles]
    starting = asyncio.create_task(client.start("nobody-has-it", execution_id="late"))
    monitoring = asyncio.create_task(_updates(client, handles[0].id, told := asyncio.Event()))
    await told.wait()
    await client.__aexit__(None, None, None)
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(monitoring, *waiting, starting, return_exceptions=True)
    assert {type(one) for one in outcomes[:21]} == {esexec.Unavailable}
    assert {getattr(one, "code", one) for one in outcomes[:21]} == {"closed"}
    for asked in (client.start("nobody-has-it"), client.get(handles[0].id), client.history(handles[0].id)):
        with pytest.raises(esexec.Unavailable, match="closed"):
            async with asyncio.timeout(1):
                await asked


async def _updates(client: esexec.Client, execution_id: str, told: asyncio.Event) -> None:
    async for _ in client.monitor(execution_id):
        told.set()


async def test_an_executor_ends_what_it_has_in_hand_of_the_namespace_too(engine: Engine) -> None:
    """Settings, kept plans and alerts: who gave such a command is answered at once, also if its executor ends upon it."""
    second, desk = await engine.executor(), engine.executors[0]._settings
    reading, may_read = asyncio.Event(), asyncio.Event()
    catch_up = desk._catch_up

    async def slowly() -> None:
        reading.set()
        await may_read.wait()
        await catch_up()

    desk._catch_up = slowly  # type: ignore[method-assign]
    second._settings._catch_up = slowly  # type: ignore[method-assign]
    configuring = asyncio.create_task(engine.client.configure(max_retries=7))
    await reading.wait()
    stopping = [asyncio.create_task(executor.stop()) for executor in engine.executors]
    await asyncio.sleep(0.05)
    may_read.set()
    await asyncio.gather(configuring, *stopping)
    await engine.executor()
    assert (await engine.client.configuration()).max_retries == 7


@pytest.mark.slow
@pytest.mark.parametrize("role", ["executor", "worker", "projector", "another_client"])
async def test_a_silent_server_is_not_waited_for(alone: Engine, own_server: NatsServer, role: str) -> None:
    """A role that is stopped while the server says nothing ends within seconds, and raises nothing."""
    one = await getattr(alone, role)()
    own_server.freeze()
    async with asyncio.timeout(12):
        await one.__aexit__(None, None, None)
    own_server.thaw()


async def test_a_start_that_is_given_up_ends_at_whatever_moment(engine: Engine, leases: Leases) -> None:
    """Projections, executors, workers and clients: nothing goes on that nobody has, and no word to end is forgotten."""
    await asyncio.sleep(0.1)  # what the engine's own start has left to do
    others = asyncio.all_tasks()
    for begin in (engine.projector, engine.executor, engine.worker, engine.another_client):
        for number in range(30):
            starting = asyncio.create_task(begin())
            await asyncio.sleep(number * 0.001)
            given_up = not starting.done()
            starting.cancel()
            await asyncio.wait([starting])
            assert starting.cancelled() == given_up
            if not starting.cancelled():
                await starting.result().__aexit__(None, None, None)
        await until(lambda: not [task for task in asyncio.all_tasks() - others if not task.done()])
        assert leases() == []


async def test_who_begins_again_waits_for_the_end_before(engine: Engine) -> None:
    """Of a role, and of a client, whose stop was cut off: the old end takes nothing of the new beginning."""
    worker, handle, may_end = await cut_off(engine)
    again = asyncio.create_task(worker.start())
    await asyncio.sleep(0.05)
    assert not again.done()
    may_end.set()
    await again
    assert await engine.client.run("slow", wait_timeout=5) is None
    assert (await handle.wait()).ok
    client = await engine.another_client()
    closing = asyncio.create_task(client.__aexit__(None, None, None))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    await client.__aenter__()
    assert await client.run("slow", wait_timeout=5) is None


async def test_a_callback_may_close_its_client(engine: Engine) -> None:
    """It is not cancelled for that, and goes on."""
    client, closed = await engine.another_client(), asyncio.Event()

    async def close(_: object) -> None:
        await client.__aexit__(None, None, None)
        closed.set()

    handle = await client.start("nobody-has-it")
    await client.subscribe(handle.id, close)
    await asyncio.wait_for(closed.wait(), 5)
