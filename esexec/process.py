"""How a process of esexec runs its loop: on uvloop where that is installed, with a collector that looks less often; and how
it hears that it is to end.

Nearly all that the engine makes dies young and by reference count; the default thresholds have the collector look at every
live state again and again. Programs that embed esexec keep their own settings: nothing here happens on import.
"""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

_NEW_OBJECTS = 50_000


_NICENESS = 10
"""Such a process gets a tenth of the time that one gets which executes, where both want all of it."""


def yield_to_others() -> None:
    """Let other processes of this machine go first: for what follows the work, and does not do it."""
    if hasattr(os, "nice") and os.getpriority(os.PRIO_PROCESS, 0) < _NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)


_END_S = 1.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end as the main task of this process, and give its result. What else runs on its loop then is cancelled,
    and not waited for if it does not end: a handler may swallow that."""
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 100)
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            loop.run_until_complete(_end())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _end() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        _, late = await asyncio.wait(others, timeout=_END_S)
        for task in late:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
    await asyncio.get_running_loop().shutdown_asyncgens()


_waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
_listening: asyncio.AbstractEventLoop | None = None
"""The main thread's loop, while it listens to SIGTERM for all that wait."""


async def until_terminated() -> None:
    """Wait for SIGTERM, unless the program has a handler of its own for it; then, and in threads, for ever (until cancelled), or
    until another that waits in the main thread hears it."""
    global _listening
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    is_main = threading.current_thread() is threading.main_thread()
    if _listening is not None and _listening.is_closed():
        _listening = None
    if is_main and _listening is None and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        loop.add_signal_handler(signal.SIGTERM, _tell_all)
        _listening = loop
    _waiting.add((loop, told))
    try:
        await told.wait()
    finally:
        _waiting.discard((loop, told))
        if _listening is loop and not any(other is loop for other, _ in list(_waiting)):
            loop.remove_signal_handler(signal.SIGTERM)
            _listening = None


def _tell_all() -> None:
    for loop, told in list(_waiting):
        with suppress(RuntimeError):  # it has been closed
            loop.call_soon_threadsafe(told.set)


async def in_thread(call: Callable[[], T], name: str) -> T:
    """Call it in a thread of its own: one that hangs is to hold up nothing else, not even the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def work() -> None:
        value, failure = None, None
        try:
            value = call()
        except StopIteration as error:  # no future takes it
            failure = RuntimeError(repr(error))
        except BaseException as error:
            failure = error  # type: ignore[assignment]
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await done
