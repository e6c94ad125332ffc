"""What goes on in a namespace, at one moment: what `esexec top` shows. Whatever cannot be found out is None, the rest is told."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from esexec.domain import limits
from esexec.domain.errors import Unavailable, ValidationError
from esexec.domain.messages import WorkerSample
from esexec.nats.connection import Connection, Msg
from esexec.nats.streams import LaneDepth, lane_depths, waiting_in
from esexec.results import ExecutionSummary
from esexec.world import now
from projections.asks import ProjectionStatus

if TYPE_CHECKING:
    from esexec.client.client import Client

T = TypeVar("T")

SHOWN = 20
"""So many executions that have not ended are told, the last created ones."""
_FORGOTTEN = timedelta(seconds=20)
"""A worker of which nothing was heard for so long is not told any more."""
_OPEN = ("running", "paused", "pending")


class Intake(msgspec.Struct, frozen=True):
    """Messages that wait for executors; and dead letters."""

    commands: int
    inbox: int
    dead: int


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. `counts`: executions by status. `running`: those that have not ended."""

    time: datetime
    queues: list[LaneDepth] | None
    intake: Intake | None
    workers: list[WorkerSample]
    counts: dict[str, int] | None
    running: list[ExecutionSummary] | None
    projections: list[ProjectionStatus] | None


class Overview:
    """`async with Overview(client) as overview: seen = await overview.look()`."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._heard: dict[str, tuple[datetime, WorkerSample]] = {}
        """By worker, when it was heard of last: what a sample says of the time is its own word."""
        self._subscription: Any = None

    async def __aenter__(self) -> "Overview":
        self._subscription = await self._connection.subscribe(self._client._subjects.samples, self._hear)
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._connection.is_closed:
            await self._subscription.unsubscribe()

    @property
    def _connection(self) -> Connection:
        assert self._client._connection is not None
        return self._client._connection

    async def _hear(self, message: Msg) -> None:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            sample = msgspec.json.decode(message.data, type=WorkerSample)
            if len(self._heard) < limits.workers_shown or sample.worker in self._heard:
                self._heard[sample.worker] = now(), sample

    async def look(self) -> Seen:
        """What there is now."""
        executions, queries = self._client.executions, self._client.queries
        queues, intake, counts, running, projections = await asyncio.gather(
            _known(lane_depths(self._connection, self._client._subjects)),
            _known(self._intake()),
            _known(executions.counts()),
            _known(executions.list(status=_OPEN, limit=SHOWN)),
            _known(queries.projections()),
        )
        time = now()
        self._heard = {name: heard for name, heard in self._heard.items() if time - heard[0] < _FORGOTTEN}
        return Seen(
            time=time,
            queues=queues,
            intake=intake,
            workers=[self._heard[name][1] for name in sorted(self._heard)],
            counts=counts,
            running=running.items if running is not None else None,
            projections=projections.projections if projections is not None else None,
        )

    async def _intake(self) -> Intake:
        subjects = self._client._subjects
        streams = (subjects.commands_stream, subjects.inbox_stream, subjects.dead_stream)
        return Intake(*await asyncio.gather(*(waiting_in(self._connection, name) for name in streams)))


async def _known(asked: Awaitable[T]) -> T | None:
    """None: nobody answers, or not this question."""
    try:
        return await asked
    except (Unavailable, ValidationError):
        return None
