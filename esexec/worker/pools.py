"""The resources of a worker at work: items are made when they are needed, lent to one handler at a time, and closed at the end.

Who waits stands in line; the line does not stop the loop, and ends with the attempt. An item comes back when its handler has
really ended: a thread that was left to itself keeps it.
"""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

from esexec.domain.errors import ExecutionError
from esexec.process import in_thread
from esexec.tasks.resources import WorkerResource, WorkerResources

logger = logging.getLogger("esexec.worker")

_CLOSE_S = 5.0
"""So long the closing of all items may take when the worker stops."""


class Item:
    """One of what a resource makes. `close`: what is to be done when it is not needed any more."""

    __slots__ = ("close", "value")

    def __init__(self, value: Any, close: Callable[[], Awaitable[Any]] | None = None) -> None:
        self.value, self.close = value, close


class Pool:
    """The items of one resource: at most `size`, those lent and those being made or closed included."""

    def __init__(self, resource: WorkerResource) -> None:
        self._resource = resource
        self._free: list[Item] = []
        self._count = 0
        self._line: deque[asyncio.Future[Item | None]] = deque()
        """Who waits, first come first served: for an item, or (None) for the place to make one."""
        self._work: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def take(self, timeout_s: float | None) -> Item:
        """An item that nobody else has, made if need be (at most for so long). Raises what the factory raises."""
        if self._free:
            return self._free.pop()
        if self._count < self._resource.size:
            self._count += 1
        elif (item := await self._wait()) is not None:
            return item
        return await self._make(timeout_s)

    async def _wait(self) -> Item | None:
        turn: asyncio.Future[Item | None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.done() or turn.cancelled():
                with suppress(ValueError):
                    self._line.remove(turn)
            elif (item := turn.result()) is not None:
                self.give_back(item)
            else:
                self._vacate()
            raise

    async def _make(self, timeout_s: float | None) -> Item:
        """Make an item for a place that is ours. Who stops waiting does not stop it: then it is for the next."""
        making = self._apart(_opened(self._resource))
        try:
            async with asyncio.timeout(timeout_s) as patience:
                return await asyncio.shield(making)
        except (TimeoutError, asyncio.CancelledError):
            if making.done():
                self._made_for_nobody(making)
            else:
                making.add_done_callback(self._made_for_nobody)
            if patience.expired():
                raise ExecutionError(
                    f"resource {self._resource.name} was not made within {timeout_s:g} s", code="resource_timeout", retry=True
                ) from None
            raise
        except BaseException:
            self._vacate()
            raise

    def _made_for_nobody(self, making: "asyncio.Task[Item]") -> None:
        if making.cancelled() or making.exception() is not None:
            self._vacate()
        else:
            self.give_back(making.result())

    def give_back(self, item: Item, *, broken: bool = False) -> None:
        """The handler that had it has ended."""
        if broken or self._closed:
            self._apart(self._discard(item))
        elif not self._pass_on(item):
            self._free.append(item)

    async def _discard(self, item: Item) -> None:
        await self._close_one(item)
        self._vacate()

    def _vacate(self) -> None:
        """An item less: who is next may make one."""
        if not self._pass_on(None):
            self._count -= 1

    def _pass_on(self, item: Item | None) -> bool:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(item)
                return True
        return False

    def close(self) -> "set[asyncio.Task[Any]]":
        """Close what is free now, and the rest as it comes back. Gives the work that this is."""
        self._closed = True
        while self._free:
            self._apart(self._discard(self._free.pop()))
        return self._work

    async def _close_one(self, item: Item) -> None:
        if item.close is not None:
            try:
                await item.close()
            except (Exception, SystemExit) as error:  # it is of no use any more in any case
                logger.warning("resource %s: an item could not be closed: %r", self._resource.name, error)

    def _apart(self, work: Any) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task


class Lent:
    """What one handler has; given back once."""

    __slots__ = ("_items", "_pools", "resources")

    def __init__(self, pools: Mapping[str, Pool], items: dict[str, Item]) -> None:
        self._pools, self._items = pools, items
        self.resources = WorkerResources({name: item.value for name, item in items.items()})

    def give_back(self) -> None:
        items, self._items = self._items, {}
        for name, item in items.items():
            self._pools[name].give_back(item, broken=name in self.resources.discarded)

    def around(self, call: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
        """The handler, with its items given back when it has ended, however that is."""
        if is_async:
            return partial(self._await, call)
        return partial(self._run, call, asyncio.get_running_loop())

    async def _await(self, call: Callable[..., Awaitable[Any]], /, **arguments: Any) -> Any:
        try:
            return await call(**arguments)
        finally:
            self.give_back()

    def _run(self, call: Callable[..., Any], loop: asyncio.AbstractEventLoop, /, **arguments: Any) -> Any:
        try:
            return call(**arguments)
        finally:
            with suppress(RuntimeError):  # the loop is closed: the worker has ended
                loop.call_soon_threadsafe(self.give_back)


class Pools:
    """All resources of a worker."""

    def __init__(self, resources: Iterable[WorkerResource]) -> None:
        self._pools = {one.name: Pool(one) for one in resources}

    async def lend(self, names: Iterable[str], timeout_s: float | None) -> Lent:
        """An item of each, taken in this order. Raises what a factory raises, ExecutionError (`resource_timeout`)."""
        items: dict[str, Item] = {}
        try:
            for name in names:
                items[name] = await self._pools[name].take(timeout_s)
        except BaseException:
            for name, item in items.items():
                self._pools[name].give_back(item)
            raise
        return Lent(self._pools, items)

    async def close(self) -> None:
        """Close all items that are not lent, at most for some seconds."""
        work = [task for pool in self._pools.values() for task in pool.close()]
        if work and (await asyncio.wait(work, timeout=_CLOSE_S))[1]:
            logger.warning("some items of resources were not closed within %g s", _CLOSE_S)


# Making --------------------------------------------------------------------------------------------------------------------


async def _opened(resource: WorkerResource) -> Item:
    factory: Any = resource.factory
    inner = inspect.unwrap(factory)
    try:
        if inspect.isasyncgenfunction(inner):
            manager = factory() if inner is not factory else asynccontextmanager(factory)()
            return Item(await manager.__aenter__(), partial(manager.__aexit__, None, None, None))
        if inspect.isgeneratorfunction(inner):
            manager = factory() if inner is not factory else contextmanager(factory)()
            closing = partial(_in_thread, partial(manager.__exit__, None, None, None))
            return Item(await _in_thread(manager.__enter__), closing)
        if inspect.iscoroutinefunction(inner):
            return Item(await factory())
        value = await _in_thread(factory)
        return Item(await value if inspect.isawaitable(value) else value)
    except (SystemExit, KeyboardInterrupt) as error:  # it would end the worker
        raise ExecutionError(f"resource {resource.name} was not made: {error!r}", code="resource_failed") from error


async def _in_thread(call: Callable[[], Any]) -> Any:
    return await in_thread(call, "esexec resource")
