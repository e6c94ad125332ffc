"""What a client collects of an execution between `monitor.start` and `monitor.stop`: its updates, and samples of its workers.

Samples are what every worker tells of its process each few seconds; nothing is collected unless somebody monitors, and what is
collected is bounded.
"""

import asyncio
from collections import deque
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

from esexec.client.subscriptions import Subscription, Subscriptions
from esexec.domain import limits
from esexec.domain.messages import WorkerSample
from esexec.nats.connection import Connection, Msg
from esexec.nats.subjects import Subjects
from esexec.results import ExecutionUpdate
from esexec.views import ExecutionMetrics
from esexec.world import now

_decode = msgspec.json.Decoder(WorkerSample).decode


class Monitoring(msgspec.Struct, frozen=True, kw_only=True):
    """What was collected of an execution from `since` to `until`: the last of its updates, the last samples of workers while
    they ran attempts of it, and its metrics at the end."""

    execution_id: str
    since: datetime
    until: datetime
    metrics: ExecutionMetrics
    updates: list[ExecutionUpdate]
    samples: list[WorkerSample]

    @property
    def cpu_usage(self) -> float | None:
        """The mean of the samples, in per cent of one core; None: there are none."""
        return sum(one.cpu_usage for one in self.samples) / len(self.samples) if self.samples else None

    @property
    def memory_usage(self) -> float | None:
        """The highest of the samples, in per cent of the machine's memory; None: there are none."""
        return max((one.memory_usage for one in self.samples), default=None)


class Collecting:
    """What is collected of one execution."""

    def __init__(self, execution_id: str) -> None:
        self.execution_id, self.since = execution_id, now()
        self.updates: deque[ExecutionUpdate] = deque(maxlen=limits.monitored_kept)
        self.samples: deque[WorkerSample] = deque(maxlen=limits.monitored_kept)
        self.subscription: Subscription | None = None
        self._workers: set[str] = set()

    def hear(self, update: ExecutionUpdate) -> None:
        self.updates.append(update)
        self._workers |= {worker for event in update.events if (worker := getattr(event, "worker", ""))}

    def take(self, sample: WorkerSample) -> None:
        unnamed = sample.running > len(sample.executions) and len(sample.executions) == limits.sampled_executions
        if self.execution_id in sample.executions or (unnamed and sample.worker in self._workers):
            self.samples.append(sample)


class Monitorings:
    """All that a client monitors. One subscription to the samples, while it monitors anything."""

    def __init__(self, connection: Connection, subjects: Subjects, subscriptions: Subscriptions) -> None:
        self._connection, self._subjects, self._subscriptions = connection, subjects, subscriptions
        self._collecting: dict[str, Collecting] = {}
        self._samples: Any = None
        self._listening = asyncio.Lock()

    async def start(self, execution_id: str) -> bool:
        """True: it is monitored from now on; False: it was already. Raises as a watch does."""
        if execution_id in self._collecting:
            return False
        collecting = self._collecting[execution_id] = Collecting(execution_id)
        try:
            collecting.subscription = await self._subscriptions.add(execution_id, collecting.hear)
        except BaseException:
            self._collecting.pop(execution_id, None)
            raise
        async with self._listening:
            if self._samples is None and self._collecting:
                self._samples = await self._connection.subscribe(self._subjects.samples, self._on_sample)
        return True

    async def stop(self, execution_id: str) -> Collecting | None:
        """What was collected; None: it was not monitored."""
        collecting = self._collecting.pop(execution_id, None)
        if collecting is None:
            return None
        if collecting.subscription is not None:
            await collecting.subscription.unsubscribe()
        async with self._listening:
            if not self._collecting and self._samples is not None:
                samples, self._samples = self._samples, None
                if not self._connection.is_closed:
                    await samples.unsubscribe()
        return collecting

    async def _on_sample(self, message: Msg) -> None:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            sample = _decode(message.data)
            for collecting in self._collecting.values():
                collecting.take(sample)
