"""The read model of executions and their tasks: what is, for lists by any mix of conditions.

A row is made of the folded state, as every answer of the client is; it holds that answer as JSON, and besides what it is found
by. Newest first is by `rank`, when it was created in microseconds since 1970; then by id, and the steps of an execution from the
last to the first.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
from eventsourcing.persistence import Tracking

from esexec.domain.state import ExecutionState
from esexec.log.port import Log
from esexec.results import record_of, summary_of
from projections.following import Followed
from projections.projection import Projection, RecordedEvent
from projections.source import Recorded
from projections.tables import Table
from projections.view import View

EXECUTIONS = Table(
    "executions",
    key=("id",),
    columns={"id": str, "rank": int, "status": str, "name": str, "plan_id": str, "touched": int, "data": bytes},
    indexes=[("rank", "id"), ("status", "rank", "id"), ("name", "rank", "id"), ("plan_id", "rank", "id"), ("status", "touched")],
)
"""`touched`: when its last commit was, as `rank_at` says it."""
TAGS = Table(
    "tags",
    key=("tag", "id"),
    columns={"tag": str, "id": str, "rank": int, "status": str, "name": str, "plan_id": str},
    indexes=[("tag", "rank", "id"), ("tag", "status", "rank", "id")],
)
"""The metadata of executions, one row for each of its values."""
TASKS = Table(
    "tasks",
    key=("id", "step"),
    columns={"id": str, "step": int, "rank": int, "status": str, "name": str, "plan_id": str, "data": bytes},
    indexes=[("rank", "id", "step"), ("status", "rank", "id", "step"), ("name", "rank", "id", "step")],
)

_LONGEST_TAG = 300
_encode = msgspec.json.Encoder().encode


class ExecutionsProjection(Projection):
    """See the module."""

    name = "executions"
    tables = (EXECUTIONS, TAGS, TASKS)

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._followed = Followed()

    async def prepare(self, commits: Sequence[Recorded], log: Log) -> None:
        await self._followed.prepare(commits, log)

    def process_commit(self, recorded: Recorded) -> None:
        self._followed.advance(recorded)

    def process_event(self, domain_event: RecordedEvent, tracking: Tracking) -> None:
        raise NotImplementedError("it goes by commits")

    def finish(self) -> None:
        executions, tags, tasks = [], [], []
        for state, steps in self._followed.taken():
            rank = rank_of(state)
            found_by = state.status, state.created.name, state.created.plan_id
            touched = rank_at(state.time) if state.time is not None else rank
            executions.append(EXECUTIONS.row(state.execution_id, rank, *found_by, touched, _encode(summary_of(state))))
            tags += [TAGS.row(tag, state.execution_id, rank, *found_by) for tag in tags_of(state.created.metadata)]
            tasks += [_task(state, rank, step) for step in steps]
        self.view.put(EXECUTIONS, executions)
        if tags:
            self.view.put(TAGS, tags)
        if tasks:
            self.view.put(TASKS, tasks)
        self._followed.let_go()

    def forget(self) -> None:
        self._followed.forget()


def _task(state: ExecutionState, rank: int, step: int) -> Any:
    record = record_of(state, step)
    name, plan_id = record.name, state.created.plan_id
    return TASKS.row(state.execution_id, step, rank, record.status.value, name, plan_id, _encode(record))


def rank_of(state: ExecutionState) -> int:
    """See the module."""
    assert state.created_at is not None
    return rank_at(state.created_at)


def rank_at(time: datetime) -> int:
    """The rank of what was created at this time."""
    return round(time.timestamp() * 1_000_000)


def tags_of(metadata: dict[str, Any]) -> list[str]:
    """What an execution is found by of its metadata: names with plain values; what is nested is not."""
    return [tag_of(name, value) for name, value in metadata.items() if value is None or isinstance(value, str | int | float)]


def tag_of(name: str, value: str | float | bool | None) -> str:
    """A name and its value as one text, however long they are."""
    tag = f"{name}={_encode(value).decode()}".replace("\0", "\\0")
    return tag if len(tag) <= _LONGEST_TAG else f"sha256={sha256(tag.encode()).hexdigest()}"
