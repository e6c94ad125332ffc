"""Cached results of a namespace: looked up before a handler is called, kept after it has returned.

Losing one costs only that it is computed again, so nobody waits for long here: what is not found soon is not there.
"""

import asyncio
import logging
import math
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import msgspec

from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.cached import CachedFrom, CachedResult
from esexec.domain.errors import Unavailable
from esexec.domain.measures import Measured
from esexec.domain.messages import Dispatch
from esexec.nats.connection import Connection, OutboundBufferLimitError
from esexec.nats.direct import DirectReader, TooMany
from esexec.nats.lean import header_block
from esexec.nats.subjects import Subjects
from esexec.tasks import Cache, Task
from esexec.tasks.outputs import OUTPUT, encode_value
from esexec.world import now

logger = logging.getLogger("esexec.worker")

_decode = msgspec.json.Decoder(CachedResult).decode
_LOOK_S = 1.0


class ToKeep:
    """What the output of an attempt is to be found by again."""

    __slots__ = ("cache", "key", "task")

    def __init__(self, task: str, cache: Cache, key: str) -> None:
        self.task, self.cache, self.key = task, cache, key


class CachedResults:
    """See the module."""

    def __init__(self, connection: Connection, reader: DirectReader, subjects: Subjects, worker: str) -> None:
        self._connection, self._reader, self._subjects, self._worker = connection, reader, subjects, worker

    async def look_up(self, task: Task[..., Any], cache: Cache, dispatch: Dispatch) -> r.Completed | ToKeep:
        """The report of an attempt whose output is there; or what it is to be kept by. Raises as `Cache.hash_of`."""
        key = cache.hash_of(task.name, dispatch.params, lambda: task.bind(dispatch.params))
        found = await self._find(task.name, key, cache.ttl_ms, now())
        if found is None:
            return ToKeep(task.name, cache, key)
        found_at = now()
        return r.Completed(
            worker=self._worker,
            started_at=found_at,
            ended_at=found_at,
            output=found.output,
            measured=Measured(quality=found.quality) if found.quality is not None else None,
            cached=CachedFrom(key=key, execution_id=found.execution_id, step=found.step, time=found.time),
        )

    async def _find(self, task: str, key: str, ttl_ms: int, at: datetime) -> CachedResult | None:
        """The result under a key, unless it is older than `ttl_ms` (0: any age)."""
        try:
            async with asyncio.timeout(_LOOK_S):
                found = await self._reader.last_of_each(self._subjects.cache_stream, [self._subjects.cache(key)], _LOOK_S)
            result = _decode(found[0].data) if found else None
        except (Unavailable, TooMany, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            logger.debug("no cached result of %s: %r", task, error)
            return None
        if result is None or result.task != task or (ttl_ms and at - result.time >= timedelta(milliseconds=ttl_ms)):
            return None
        return result

    def keep(self, wanted: ToKeep, dispatch: Dispatch, report: r.Completed, output: Any) -> None:
        """Keep an output for others, unless it is too large. Not for one whose handler also did something that they would miss
        (it set variables, recorded a before-image, or gave a directive)."""
        measured, ended_at = report.measured, report.ended_at
        result = CachedResult(
            task=wanted.task,
            output=msgspec.Raw(encode_value(output, OUTPUT)),
            execution_id=dispatch.execution_id,
            step=dispatch.step,
            time=ended_at,
            worker=self._worker,
            quality=None if measured is None else measured.quality,
        )
        data, ttl_ms = msgspec.json.encode(result), wanted.cache.ttl_ms
        if len(data) > limits.cached_result_bytes:
            return
        headers = header_block({"Nats-TTL": f"{math.ceil(ttl_ms / 1000)}s"}) if ttl_ms else None
        with suppress(OutboundBufferLimitError):  # disconnected
            self._connection.client.post(self._subjects.cache(wanted.key), data, "", headers)
