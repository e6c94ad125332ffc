"""A loop for callers that have none: coroutines are carried out there, and waited for here, in whatever thread this is.

What runs on it is the asynchronous client; nothing is done twice. A call is interrupted as any other that waits: Ctrl-C cancels
what was waited for, and is raised.
"""

import asyncio
import atexit
import inspect
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from esexec.client.errors import closed
from esexec.domain.errors import ValidationError

T = TypeVar("T")

_CLOSE_S = 10.0
_OPEN = "with esexec.connect_sync(url) as client: …, or client.open()"


class Loop:
    """Where coroutines are carried out. `LoopThread` is one of its own; `Loop.around(loop)` is one that runs already."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._waiting: set[_Call[Any]] = set()

    @classmethod
    def around(cls, loop: asyncio.AbstractEventLoop) -> "Loop":
        """For other threads than that which runs this loop."""
        found = cls()
        found._loop = loop
        return found

    def call(self, awaitable: Awaitable[T]) -> T:
        """What comes of awaiting this there. Raises what it raises; `ValidationError`: `not_open`, `forked`, `own_loop`."""
        return self._carried_out(awaitable)

    def _carried_out(self, awaitable: Awaitable[T], ending: asyncio.AbstractEventLoop | None = None) -> T:
        """`ending`: the loop, for the last call that there is."""
        call: _Call[T] | None = None
        try:
            loop = ending or self._checked()
            call = _Call(awaitable)
            self._waiting.add(call)
            try:
                loop.call_soon_threadsafe(call.begin)
            except RuntimeError:  # it was closed in this very moment
                raise closed() from None
            if ending is None and self._loop is not loop:  # it is ended, and whoever ends it may have looked before
                call.fail()
            return call.result()
        except BaseException:  # a KeyboardInterrupt here; of what it raised itself nothing is left to cancel
            if call is None:
                _drop(awaitable)
            else:
                try:
                    loop.call_soon_threadsafe(call.give_up)
                except RuntimeError:
                    call.give_up()
            raise
        finally:
            if call is not None:
                self._waiting.discard(call)

    def _checked(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            raise ValidationError("the client is not open", code="not_open", hint=_OPEN)
        if os.getpid() != self._pid:
            hint = "connections do not survive a fork: make a client in each process, after the fork"
            raise ValidationError("this client belongs to another process", code="forked", hint=hint)
        if _running() is self._loop:
            hint = "it would wait for itself: use the asynchronous client there, or call it in a thread"
            raise ValidationError("a call that waits, on the loop that it waits for", code="own_loop", hint=hint)
        return self._loop

    def iterate(self, items: AsyncIterable[T]) -> Iterator[T]:
        """The items, each fetched when it is asked for. Left early, the rest is given up."""
        iterator = aiter(items)
        try:
            while True:
                try:
                    item = self.call(anext(iterator))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._give_up(iterator)

    def _give_up(self, iterator: AsyncIterator[Any]) -> None:
        close = getattr(iterator, "aclose", None)
        loop = self._loop
        if close is None or loop is None or loop.is_closed() or os.getpid() != self._pid:
            return
        if _running() is loop:  # dropped there, by a collection of garbage
            loop.create_task(close())
        else:
            self.call(close())

    @contextmanager
    def entered(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Its block, as one of here."""
        value = self.call(manager.__aenter__())
        try:
            yield value
        except BaseException as error:
            if not self.call(manager.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self.call(manager.__aexit__(None, None, None))


class LoopThread(Loop):
    """A loop of its own, in a thread of its own, from `start` to `stop`; at the latest until the program ends."""

    def __init__(self, at_exit: Callable[[], object]) -> None:
        """`at_exit`: what is called at the end of a program that has not stopped it."""
        super().__init__()
        self._at_exit = at_exit
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. Raises `ValidationError` (`is_open`) if it has."""
        if self._thread is not None:
            raise ValidationError("the client is open already", code="is_open", hint="close it before it is opened again")
        self._loop, self._pid = _new_loop(), os.getpid()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="esexec-client", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while True:
            try:
                loop.run_forever()  # until `stop`
            except (
                SystemExit,
                KeyboardInterrupt,
            ):  # of a callback: it is raised where that was waited for
                continue
            return

    @property
    def is_running(self) -> bool:
        """Whether it can carry out anything, for this process."""
        return self._thread is not None and os.getpid() == self._pid

    def stop(self) -> None:
        """End it; what still waits there is cancelled. In another process than its own nothing is done."""
        atexit.unregister(self._at_exit)
        loop, thread, self._thread = self._loop, self._thread, None
        if loop is None or thread is None or os.getpid() != self._pid:
            return
        # From now on nobody begins a call. No lock: one may be begun by a collection of garbage within another.
        self._loop = None
        try:
            self._carried_out(_cancel_all(), loop)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_CLOSE_S)
            for call in list(self._waiting):  # of a task that does not end
                call.fail()
        if not thread.is_alive():
            loop.close()


class _Call(Generic[T]):
    """What one thread waits for, and the loop's does. Between them stands a queue that is not written in Python: where a
    KeyboardInterrupt comes upon a lock of Python's it stays locked, and the loop would wait for it."""

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self._awaitable = awaitable
        self._done: SimpleQueue[asyncio.Future[T] | None] = SimpleQueue()
        self._task: asyncio.Future[T] | None = None

    def begin(self) -> None:
        """On the loop."""
        self._task = asyncio.ensure_future(self._awaitable)
        self._task.add_done_callback(self._done.put)

    def give_up(self) -> None:
        """On the loop: nobody waits for it any more."""
        if self._task is not None:
            self._task.cancel()
        else:
            _drop(self._awaitable)

    def fail(self) -> None:
        """There will be no result."""
        self._done.put(None)

    def result(self) -> T:
        """Waits for it. Raises what it raises, and `Unavailable` (`closed`)."""
        task = self._done.get()
        if task is None or task.cancelled():
            raise closed()
        return task.result()


def _drop(awaitable: object) -> None:
    """It was not begun, and will not be."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_CLOSE_S)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def in_thread(callback: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The callback as one that may wait: it is called in a thread, where it may use the client that calls it. Of the same
    callback it is the same."""
    return callback if inspect.iscoroutinefunction(callback) else _InThread(callback)


class _InThread:
    def __init__(self, callback: Callable[..., Any]) -> None:
        self.callback = callback

    async def __call__(self, *args: Any) -> Any:
        return await asyncio.to_thread(self.callback, *args)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _InThread) and self.callback == other.callback

    def __hash__(self) -> int:
        return hash(self.callback)
