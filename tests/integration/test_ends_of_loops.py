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


def leases() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "esexec-leases"]


async def test_a_worker_whose_leases_cannot_be_kept_does_not_begin(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the thread that keeps them is raised where the worker is started, which waits for it no longer."""

    async def fails(*_: object, **__: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr("esexec.worker.leases.connect", fails)
    with pytest.raises(OSError, match="too many open files"):
        await engine.worker()
    assert leases() == []


async def test_a_start_that_is_given_up_leaves_no_thread(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
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
