"""What handlers tell while they run, as a watcher hears it: the last that is kept, then each as it comes. Bounded, and without a
consumer on the server. None of it is in the log, and whatever is lost or cannot be read is not missed.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from esexec.domain import limits
from esexec.domain.errors import Unavailable
from esexec.domain.messages import LogSignal, ProgressSignal
from esexec.domain.state import ExecutionState
from esexec.nats.connection import Connection, Msg
from esexec.nats.direct import DirectReader
from esexec.nats.subjects import Subjects
from esexec.results import ExecutionUpdate, LogMessage, TaskProgress

_log = msgspec.json.Decoder(LogSignal).decode
_progress = msgspec.json.Decoder(ProgressSignal).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_READ_S = 2.0
_EARLY = 1_000
"""So many messages that come while the past is being read are told apart from it."""


LiveOf = Callable[[str, Callable[[], None]], "Live"]
"""Makes the `Live` of an execution, given who hears of news."""


class Live:
    """What is told of one execution, from `listen` to `close`. `heard` is called for each news."""

    def __init__(
        self, connection: Connection, reader: DirectReader, subjects: Subjects, execution_id: str, heard: Callable[[], None]
    ) -> None:
        self._connection, self._reader, self._subjects = connection, reader, subjects
        self._execution_id, self._heard = execution_id, heard
        self._messages: deque[LogMessage] = deque(maxlen=limits.live_kept)
        self._progress: dict[str, tuple[int, TaskProgress]] = {}
        """By step: the run, and what was told in it last."""
        self._early: set[bytes] | None = set()
        """What was heard while the past is being read; None: that was read."""
        self._subscriptions: list[Any] = []
        self.has_news = False

    async def listen(self) -> None:
        for kind in ("log", "progress"):
            subject = self._subjects.live(self._execution_id, kind)
            self._subscriptions.append(await self._connection.listen(subject, self._on_message))

    async def close(self) -> None:
        for subscription in self._subscriptions:
            if not self._connection.is_closed:
                await subscription.unsubscribe()

    async def read_past(self) -> None:
        """Take what is kept, before what was heard meanwhile."""
        heard, self._messages = self._messages, deque(maxlen=limits.live_kept)
        stream, pattern = self._subjects.live_stream, self._subjects.live(self._execution_id, "*")
        with suppress(Unavailable, TimeoutError):  # there is no such stream
            async with asyncio.timeout(_READ_S):
                for message in await self._reader.from_first(stream, pattern, 2 * limits.live_kept):
                    if self._early is not None and message.data not in self._early:
                        self._take(message.subject, message.data)
        self._early = None
        self._messages.extend(heard)

    async def _on_message(self, message: Msg) -> None:
        if self._early is not None and len(self._early) < _EARLY:
            self._early.add(message.data)
        self._take(message.subject, message.data)
        self._heard()

    def _take(self, subject: str, data: bytes) -> None:
        with suppress(*_UNREADABLE):
            if subject.endswith(".log"):
                self._messages.append(_message_of(_log(data)))
                self.has_news = True
                return
            told = _progress(data)
            before = self._progress.get(told.step)
            if before is None or (told.run, told.attempt, told.time) >= (before[0], before[1].attempt, before[1].time):
                progress = TaskProgress(fraction=told.fraction, text=told.text, time=told.time, attempt=told.attempt)
                self._progress[told.step] = told.run, progress
                self.has_news = True

    def tell(self, update: ExecutionUpdate, state: ExecutionState) -> ExecutionUpdate:
        """Put what is new into an update; of progress only that of attempts that run."""
        self.has_news = False
        update.messages = list(self._messages)
        self._messages.clear()
        if self._progress:
            update.task_progress = self._of_running(state)
        return update

    def _of_running(self, state: ExecutionState) -> dict[str, TaskProgress]:
        running: dict[str, TaskProgress] = {}
        for step_id, (run, progress) in list(self._progress.items()):
            index = state.graph.index.get(step_id)
            if index is None:
                del self._progress[step_id]  # a step of nobody's
                continue
            step = state.steps[index]
            if run == state.run and step.open and step.attempt == progress.attempt:
                running[step_id] = progress
        return running


def _message_of(told: LogSignal) -> LogMessage:
    return LogMessage(
        level=told.level,
        message=told.message,
        time=told.time,
        task_id=told.step,
        attempt=told.attempt,
        run=told.run,
        context=told.fields,
        worker_id=told.worker or None,
        left_out=told.left_out,
    )
