"""How a process hears that it is to end."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from esexec.process import until_terminated


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """The program's own handler of SIGTERM is called with these."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def in_a_thread() -> threading.Thread:
    thread = threading.Thread(target=lambda: asyncio.run(until_terminated()), daemon=True)
    thread.start()
    return thread


async def test_all_that_wait_hear_it_in_whatever_thread() -> None:
    """The signal comes to the main thread alone; what a thread's loop waits for is set there."""
    here = [asyncio.create_task(until_terminated()) for _ in range(2)]
    await asyncio.sleep(0)
    thread = in_a_thread()
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(*here), 5)
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_programs_own_handler_stays(handled: list[int]) -> None:
    """Also where a role waits in a thread already."""
    in_a_thread()
    await asyncio.sleep(0.1)
    waiting = asyncio.create_task(until_terminated())
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.05)
    assert handled == [signal.SIGTERM]
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
