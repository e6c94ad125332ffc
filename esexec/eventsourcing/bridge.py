"""From threads into a loop: the library is synchronous, the log is not.

A `Bridge` has a thread with a loop and a connection of its own. Whoever calls waits for the answer; any number of threads may.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any, TypeVar, Unpack

from eventsourcing.persistence import DataError, InterfaceError, OperationalError, PersistenceError

from esexec.domain.errors import CorruptHistory, Unavailable
from esexec.log.jetstream import JetStreamLog
from esexec.nats.connection import ApiError, Auth, Connection, Msg, connect
from esexec.nats.direct import DirectReader
from esexec.nats.publisher import Publisher
from esexec.nats.streams import ensure_streams
from esexec.nats.subjects import Subjects

T = TypeVar("T")

_LOOK_AGAIN_S = 2.0
"""News are told at most once: so often listeners look without having been told."""


class Bridge:
    """See the module. `close` ends the connection and the thread; it may be called twice, and from anywhere.

    Raises the library's `OperationalError` if the server cannot be reached. What is called after the end, or was waiting then,
    raises its `InterfaceError`.
    """

    connection: Connection
    reader: DirectReader
    log: JetStreamLog

    def __init__(self, url: str, namespace: str = "default", **auth: Unpack[Auth]) -> None:
        self.subjects = Subjects(namespace)
        self._url, self._auth = url, auth
        self._stack = AsyncExitStack()
        self._listeners: set[threading.Event] = set()
        self._closing = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="esexec-eventsourcing", daemon=True)
        self._thread.start()
        try:
            self.call(self._open())
        except BaseException:
            self.close()
            raise

    async def _open(self) -> None:
        async with AsyncExitStack() as stack:
            connection = await connect(self._url, name="esexec-eventsourcing", **self._auth)
            self.connection = await stack.enter_async_context(connection)
            await ensure_streams(connection, self.subjects)
            publisher = await stack.enter_async_context(Publisher(connection))
            self.reader = await DirectReader(connection).start()
            self.log = JetStreamLog(connection, self.subjects, publisher, self.reader)
            self._stack = stack.pop_all()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of it on the loop."""
        with self._closing:
            if self._closed:
                work.close()
                raise InterfaceError("the connection to the log is closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            with as_errors_of_the_library():
                return future.result()
        except concurrent.futures.CancelledError:
            raise InterfaceError("the connection to the log was closed") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """See the class."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        if threading.current_thread() is self._thread:  # the garbage collector may call from anywhere
            ending.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
            return
        with suppress(Exception):
            ending.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await self._stack.aclose()
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self.tell()

    # News ------------------------------------------------------------------------------------------------------------------

    def listen(self, news: threading.Event) -> Callable[[], None]:
        """Sets `news` whenever there may be commits that were not there before. Returns what ends that."""
        self._listeners.add(news)
        with suppress(PersistenceError):  # the next read says so
            self.call(self._begin_listening())
        return lambda: self._listeners.discard(news)

    async def _begin_listening(self) -> None:
        if not hasattr(self, "_ticking"):
            await self.connection.listen(self.subjects.commits_all, self._heard)
            self._ticking = asyncio.create_task(self._tick())

    async def _heard(self, _: Msg) -> None:
        self.tell()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AGAIN_S)
            self.tell()

    def tell(self) -> None:
        """Wake who listens."""
        for news in list(self._listeners):
            news.set()


@contextmanager
def as_errors_of_the_library() -> Iterator[None]:
    """Errors of the log as users of the library expect them."""
    try:
        yield
    except (Unavailable, ApiError) as error:
        raise OperationalError(str(error)) from error
    except CorruptHistory as error:
        raise DataError(str(error)) from error
