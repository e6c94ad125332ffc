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
    signals, begun = list[int](), list[Callable[[], object]]()

    def on_signal(number: int, _: object) -> None:
        signals.append(number)
        if len(signals) > 1:  # at once, also where a handler blocks the loop
            os._exit(Exit.INTERRUPTED)  # the embedded server ends with its parent
        for end in begun:
            end()

    async def until_told() -> int:
        loop, running = asyncio.get_running_loop(), asyncio.create_task(body())

        def end() -> None:
            told()
            running.cancel()

        begun.append(lambda: loop.call_soon_threadsafe(end))
        if signals:
            end()
        try:
            return await running
        except asyncio.CancelledError:
            if not signals:
                raise
            return interrupted
        finally:
            begun.clear()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = {
        number: was
        for number, was in before.items()
        if was is not None and (number != signal.SIGHUP or was is not signal.SIG_IGN)
    }
    for number in ours:  # SIGHUP is ignored under `nohup`
        signal.signal(number, on_signal)
    try:
        return process.run(until_told())
    finally:
        for number, was in ours.items():
            signal.signal(number, was)
