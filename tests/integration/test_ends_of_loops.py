"""What becomes of a role whose loop ends, or whose end is cut off: nothing is lost, nobody is blamed, nothing goes on for ever."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import esexec
from esexec import Worker
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
