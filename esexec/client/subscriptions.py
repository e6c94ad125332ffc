"""Callbacks that hear of executions. All callbacks on one execution share one watch; each is told in its own time.

A callback is told everything, in order: what happened before it came in its first update. One that throws is complained of once,
and told on; one that is slow holds up nobody else.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Container
from contextlib import aclosing
from inspect import isawaitable
from typing import Any

import msgspec

from esexec.domain import limits
from esexec.domain.errors import Unavailable
from esexec.results import ExecutionUpdate, LogMessage

logger = logging.getLogger("esexec.client")

Callback = Callable[[ExecutionUpdate], Any]
"""Takes each update; a coroutine function is awaited before the next."""
Watch = Callable[[str], AsyncGenerator[ExecutionUpdate, None]]

_TRY_AGAIN_S = 1.0


class Subscription:
    """A callback on an execution, from `subscribe` until `unsubscribe`, or until it was told that the execution has ended."""

    def __init__(self, execution_id: str, callback: Callback) -> None:
        self.execution_id, self.callback = execution_id, callback
        self._news: asyncio.Queue[ExecutionUpdate | None] = asyncio.Queue()
        self._early: list[ExecutionUpdate | None] | None = None
        """What it is to be told behind its first update; None: it was told that."""
        self._over = self._complained = False
        self._leave: Callable[[], None] = lambda: None
        self._task = asyncio.create_task(self._tell())

    @property
    def active(self) -> bool:
        """Whether it will be told of more."""
        return not self._over

    async def unsubscribe(self) -> bool:
        """It is told nothing any more from now on: True if that ended it, False if it was over."""
        return await self._end(asyncio.current_task())

    async def _end(self, by: "asyncio.Task[Any] | None") -> bool:
        was_active, self._over = not self._over, True
        self._leave()
        if self._task is not by:  # a callback may do so itself
            self._task.cancel()
            await asyncio.wait({self._task})
        return was_active

    async def ended(self) -> None:
        """Returns when it is over: unsubscribed, or told all there is to be told."""
        await asyncio.wait({self._task})

    # What it is told -------------------------------------------------------------------------------------------------------

    def _hear(self, update: ExecutionUpdate | None) -> None:
        """None: there will be no more."""
        if self._early is not None:
            self._early.append(update)
        else:
            self._news.put_nowait(update)

    def _begin(self, first: ExecutionUpdate) -> None:
        """All that has happened; behind it comes what was heard meanwhile and is not in it."""
        early, self._early = self._early or [], None
        self._hear(first)
        for update in early:
            news = None if update is None else _since(update, first.version, first.messages)
            if update is None or news is not None:
                self._hear(news)

    async def _tell(self) -> None:
        while not self._over and (update := await self._news.get()) is not None:
            try:
                answer = self.callback(update)
                if isawaitable(answer):
                    await answer
            except Exception:
                if not self._complained:
                    self._complained = True
                    logger.warning("a callback on %s raised; it is told on, and this not again", self.execution_id, exc_info=True)
        self._over = True
        self._leave()


def _since(update: ExecutionUpdate, version: int, messages: Container[LogMessage]) -> ExecutionUpdate | None:
    """What of an update is not known to somebody who knows all up to this version, and these messages; None: nothing."""
    known = max(0, version - (update.version - len(update.events)))
    news = [message for message in update.messages if message not in messages]
    if known == 0 and len(news) == len(update.messages):
        return update
    events = update.events[known:]
    if not events and not news and not update.task_progress:
        return None
    return msgspec.structs.replace(update, events=events, messages=news)


class _Shared:
    """One watch, and all who hear of it."""

    def __init__(self, execution_id: str, watch: Watch, over: Callable[[], None]) -> None:
        self.subscriptions: list[Subscription] = []
        self.execution_id, self._watch, self._over = execution_id, watch, over
        self._version = 0
        self._messages: deque[LogMessage] = deque(maxlen=limits.live_kept)
        """What was told so far; of messages the last."""
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun.add_done_callback(lambda begun: begun.exception())
        self._task = asyncio.create_task(self._run())

    async def join(self, subscription: Subscription) -> None:
        """Tell it all that has happened, then what happens. Raises what the watch raises."""
        self.subscriptions.append(subscription)
        if not self._begun.done():
            await asyncio.shield(self._begun)
            return
        subscription._early = []
        async with aclosing(self._watch(self.execution_id)) as updates:
            subscription._begin(await anext(updates))

    async def leave(self, subscription: Subscription) -> None:
        if subscription in self.subscriptions:
            self.subscriptions.remove(subscription)
        if not self.subscriptions:
            self._over()  # at once: who comes now begins anew
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            while not await self._watched():
                await asyncio.sleep(_TRY_AGAIN_S)
        except Exception as error:
            if self._begun.done():
                logger.warning("%s is not watched any more: %s", self.execution_id, error)
            else:
                self._begun.set_exception(error)
        finally:
            if not self._begun.done():
                self._begun.set_exception(Unavailable(f"{self.execution_id} is not watched any more: the client was closed"))
            self._over()
            for subscription in self.subscriptions:
                subscription._hear(None)

    async def _watched(self) -> bool:
        """Whether it was watched to its end; False: the server is away."""
        again = self._begun.done()
        try:
            async with aclosing(self._watch(self.execution_id)) as updates:
                async for update in updates:
                    news = _since(update, self._version, self._messages if again else ())
                    again = False
                    self._version = max(self._version, update.version)
                    if news is not None:
                        self._messages.extend(news.messages)
                        for subscription in self.subscriptions:
                            subscription._hear(news)
                    if not self._begun.done():
                        self._begun.set_result(None)
        except Unavailable:
            if not self._begun.done():
                raise
            return False
        return True


class Subscriptions:
    """All callbacks of a client."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._shared: dict[str, _Shared] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def add(self, execution_id: str, callback: Callback) -> Subscription:
        """Tell this callback of the execution. Raises as the watch does."""
        shared = self._shared.get(execution_id) or self._share(execution_id)
        subscription = Subscription(execution_id, callback)
        subscription._leave = lambda: self._leave(shared, subscription)
        try:
            await shared.join(subscription)
        except BaseException:
            await subscription.unsubscribe()
            raise
        return subscription

    def _share(self, execution_id: str) -> _Shared:
        shared = self._shared[execution_id] = _Shared(execution_id, self._watch, lambda: self._over(shared))
        return shared

    async def remove(self, execution_id: str, callback: Callback) -> bool:
        """End what this callback is told of the execution: True if that ended anything."""
        shared = self._shared.get(execution_id)
        found = [one for one in shared.subscriptions if one.callback == callback] if shared is not None else []
        return any([await one.unsubscribe() for one in found])

    async def close(self, by: "asyncio.Task[Any] | None") -> None:
        """`by`: who closes; one of the callbacks may."""
        for shared in list(self._shared.values()):
            for subscription in list(shared.subscriptions):
                await subscription._end(by)
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _over(self, shared: _Shared) -> None:
        if self._shared.get(shared.execution_id) is shared:
            del self._shared[shared.execution_id]

    def _leave(self, shared: _Shared, subscription: Subscription) -> None:
        leaving = asyncio.create_task(shared.leave(subscription))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
