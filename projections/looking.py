"""What no history tells: workers say how their machine is, queues are looked at, and how far projections are behind."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

from esexec.domain.errors import EsexecError
from esexec.domain.messages import WorkerSample
from esexec.nats.clock import ServerClock
from esexec.nats.connection import Msg
from esexec.nats.streams import lanes_waiting
from projections.alerting import Sample, samples_of
from projections.projection import Outside

logger = logging.getLogger("esexec.projections")

_EVERY_S = 5.0
_decode = msgspec.json.Decoder(WorkerSample).decode


class Looking:
    """Puts samples where they are taken from. `wanted`: the metrics that somebody wants to be told of."""

    def __init__(self, outside: Outside, samples: deque[tuple[Sample, datetime]], wanted: Callable[[], frozenset[str]]) -> None:
        self._outside, self._samples, self._wanted = outside, samples, wanted
        self._clock = ServerClock(outside.connection)
        self._subscription: Any = None
        self._task: asyncio.Task[None] | None = None

    def now(self) -> datetime:
        """What time it is, by the server's clock."""
        return self._clock.now()

    async def start(self) -> None:
        outside = self._outside
        await self._clock.look(outside.subjects.log_stream)
        self._subscription = await outside.connection.subscribe(outside.subjects.samples, self._hear)
        self._task = asyncio.create_task(self._look_again(), name="esexec-alerts-look")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._subscription is not None and not self._outside.connection.is_closed:
            await self._subscription.unsubscribe()

    async def _hear(self, message: Msg) -> None:
        if not self._wanted():
            return
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._put(*samples_of(_decode(message.data)))

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self._clock.look(self._outside.subjects.log_stream)
                await self._look()
            except EsexecError as error:
                logger.debug("will be looked at again: %s", error)

    async def _look(self) -> None:
        wanted = self._wanted()
        if "queue_depth" in wanted:
            waiting = await lanes_waiting(self._outside.connection, self._outside.subjects)
            self._put(*(Sample(metric="queue_depth", source=queue, value=number) for queue, number in waiting.items()))
        if "lag" in wanted:
            lags = self._outside.lags()
            self._put(*(Sample(metric="lag", source=name, value=behind) for name, behind in lags.items()))

    def _put(self, *samples: Sample) -> None:
        at = self.now()
        self._samples.extend((sample, at) for sample in samples if sample.metric in self._wanted())
