"""`client.monitor`: how executions go, live and in numbers. Everything is read from the log and what the server repeats of it."""

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING

from esexec.client.commands import checked_id
from esexec.client.monitoring import Monitoring
from esexec.client.subscriptions import Callback, Subscription
from esexec.client.updates import updates_of
from esexec.domain.flow import ResourceUsage
from esexec.results import ExecutionResult, ExecutionUpdate
from esexec.views import ExecutionMetrics, Gantt, TimelineEntry
from esexec.world import now
from projections import gantt, metrics, timeline, usage

if TYPE_CHECKING:
    from esexec.client.client import Client


class Monitor:
    """Call it to watch an execution: `async for update in client.monitor(id):`."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    # Live ------------------------------------------------------------------------------------------------------------------

    def __call__(self, execution_id: str) -> AsyncIterator[ExecutionUpdate]:
        """Its updates: first one for all that has happened, then one per commit, and when a handler tells something (`ctx.log`,
        `ctx.progress`); ends when the execution has ended.

        Raises `NotFound` if there is no such execution.
        """
        return self._watch(checked_id(execution_id))

    def _watch(self, execution_id: str) -> AsyncGenerator[ExecutionUpdate, None]:
        client = self._client
        return updates_of(execution_id, client._feed, client._log, client._live_of, client._durations.of)

    async def subscribe(self, execution_id: str, callback: Callback) -> Subscription:
        """Call `callback` with each update, as `monitor` gives them: the first tells all that has happened. It may be a coroutine
        function, which is awaited before the next. What it raises is logged once, and changes nothing.

        Raises `NotFound` if there is no such execution.
        """
        return await self._client._subscriptions.add(checked_id(execution_id), callback)

    async def unsubscribe(self, execution_id: str, callback: Callback) -> bool:
        """Call it no more: True if that ended a subscription, False if there was none."""
        return await self._client._subscriptions.remove(checked_id(execution_id), callback)

    async def start(self, execution_id: str) -> bool:
        """Collect its updates and samples of its workers (CPU, memory) from now on, until `stop`: True if that began, False if
        this client does so already. Workers tell how they do every 5 s, so what is short has no samples.

        Raises `NotFound` if there is no such execution.
        """
        return await self._client._monitorings.start(checked_id(execution_id))

    async def stop(self, execution_id: str) -> Monitoring | None:
        """What was collected since `start`; None if this client did not monitor it."""
        found = await self._client._monitorings.stop(checked_id(execution_id))
        if found is None:
            return None
        return Monitoring(
            execution_id=execution_id,
            since=found.since,
            until=now(),
            metrics=await self.metrics(execution_id),
            updates=[*found.updates],
            samples=[*found.samples],
        )

    # In numbers ------------------------------------------------------------------------------------------------------------

    async def metrics(self, execution_id: str) -> ExecutionMetrics:
        """How it went in numbers, or goes as of now. Raises `NotFound`."""
        found = metrics.metrics_of(await self._client.history(checked_id(execution_id)), now())
        assert found is not None
        return found

    async def timeline(self, execution_id: str) -> list[TimelineEntry]:
        """Everything that happened, in words, one entry per event. Raises `NotFound`."""
        return timeline.timeline(await self._client.history(checked_id(execution_id)))

    async def gantt(self, execution_id: str) -> Gantt:
        """Where its time went, or goes as of now: per attempt, what it spent its time with. Raises `NotFound`."""
        found = gantt.gantt(await self._client.history(checked_id(execution_id)), now())
        assert found is not None
        return found

    async def resource_usage(self, execution_id: str) -> list[ResourceUsage]:
        """What its steps used, and what that cost. See `Resources.usage`. Raises `NotFound`."""
        return await self._client.resources.usage(execution_id)

    async def _fill(self, result: ExecutionResult, *, version: int | None = None, at: datetime | None = None) -> None:
        """Complete a result. Of an execution that runs, these may be a commit ahead of the rest; of a past one they are as of its
        last commit then."""
        commits = await self._client.history(result.execution_id, version=version, at=at)
        time = now() if version is None and at is None else commits[-1].time
        result.metrics = metrics.metrics_of(commits, time)
        result.timeline = timeline.timeline(commits)
        result.resource_usage = usage.usage_in(commits, time)
