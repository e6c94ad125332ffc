"""Before-images on their way from a handler into the history, and the answer on its way back.

The report is durable, the answer is not: so the report is repeated until an answer has come. The first image of a step stands,
and every answer gives that one, so repeating changes nothing. An attempt that is told to stop waits no longer.
"""

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from esexec.domain import reports as r
from esexec.domain.errors import ExecutionError
from esexec.domain.messages import ImageSignal
from esexec.tasks import AttemptCancelled
from esexec.worker.attempt import Attempt, key_of

Send = Callable[[str, bytes], Awaitable[None]]
"""Publishes a report durably: subject, data."""

_signal = msgspec.json.Decoder(ImageSignal).decode
_REPEAT_S = 2.0


class Images:
    """The before-images of a worker's attempts. Made on the worker's loop."""

    def __init__(self, worker: str, send: Send, *, repeat_s: float = _REPEAT_S) -> None:
        self.loop = asyncio.get_running_loop()
        self._worker, self._send, self._repeat_s = worker, send, repeat_s
        self._waiting: dict[str, set[asyncio.Future[Any]]] = {}

    async def keep(self, attempt: Attempt, data: bytes) -> Any:
        """Report an image until it is answered; gives the one that stands. For code on an event loop, the worker's or another."""
        if asyncio.get_running_loop() is self.loop:
            return await self._keep(attempt, data)
        return await asyncio.to_thread(self.keep_in_thread, attempt, data)

    def keep_in_thread(self, attempt: Attempt, data: bytes) -> Any:
        """`keep`, for code in a thread. Raises `AttemptCancelled` if the attempt is told to stop."""
        if self._on_the_loop():
            raise ExecutionError(
                "before_sync would block the worker's loop", code="before_sync_on_loop", retry=False, hint="await ctx.before(…)"
            )
        asking = asyncio.run_coroutine_threadsafe(self._keep(attempt, data), self.loop)
        attempt.asking = {asking, *(attempt.asking or ())}
        if attempt.why is not None:  # told to stop just before: then nobody has cancelled it
            asking.cancel()
        try:
            return asking.result()
        except concurrent.futures.CancelledError:
            raise AttemptCancelled(f"{attempt.key} is to stop") from None

    def _on_the_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:  # no loop runs in this thread
            return False

    async def _keep(self, attempt: Attempt, data: bytes) -> Any:
        report = msgspec.json.encode(r.Before(worker=self._worker, image=msgspec.Raw(data)))
        answer: asyncio.Future[Any] = self.loop.create_future()
        waiting = self._waiting.setdefault(attempt.key, set())
        waiting.add(answer)
        try:
            while not answer.done():
                if attempt.why is not None or attempt.over:
                    raise AttemptCancelled(f"{attempt.key} is to stop")
                await self._send(attempt.report_subject, report)
                await asyncio.wait({answer}, timeout=self._repeat_s)
            return answer.result()
        finally:
            waiting.discard(answer)
            if not waiting:
                self._waiting.pop(attempt.key, None)

    def answered(self, data: bytes) -> None:
        """An answer has come, perhaps for an attempt of another worker."""
        if not self._waiting:
            return
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            signal = _signal(data)
            for answer in self._waiting.get(key_of(signal.execution_id, signal.step, f"{signal.run}-{signal.attempt}"), ()):
                if not answer.done():
                    answer.set_result(signal.image)
