"""Runs a verb on the loop and ends it in order: the first SIGINT, SIGTERM or SIGHUP cancels it, it drains; a second ends it at
once."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from esexec import process
from esexec.cli.exits import Exit


def run(body: Callable[[], Coroutine[Any, Any, int]], *, told: Callable[[], None], interrupted: Exit) -> int:
    """The exit code of `body`, or `interrupted`. `told` is called with the first signal."""
    return process.run(_until_told(body, told, interrupted))


async def _until_told(body: Callable[[], Coroutine[Any, Any, int]], told: Callable[[], None], interrupted: Exit) -> int:
    loop = asyncio.get_running_loop()
    running = loop.create_task(body())
    signals: list[int] = []

    def on_first() -> None:
        told()
        running.cancel()

    def on_signal(number: int, _: object) -> None:
        signals.append(number)
        if len(signals) > 1:  # at once, also where a handler blocks the loop
            os._exit(Exit.INTERRUPTED)  # the embedded server ends with its parent
        loop.call_soon_threadsafe(on_first)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # `nohup`
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, on_signal)
    try:
        return await running
    except asyncio.CancelledError:
        if not signals:
            raise
        return interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
