"""What read models can be asked, and what they answer: the wire form of `esexec.<ns>.query.…`, and the client's.

Every answer says what it is as of. Who has just written asks with `after`, the position of its write: then it is waited for.
"""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

import msgspec

from esexec.domain.alerts import Alert
from esexec.results import ExecutionStatus, ExecutionSummary, TaskRecord, TaskStatus

T = TypeVar("T")
Scalar = str | int | float | bool | None

MOST = 1_000
"""So many items are in one answer at most."""
USUAL = 20


class Ask(msgspec.Struct, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """What all questions have in common. `after`: answer as of this position of the log, or later."""

    after: int = 0


class AsOf(msgspec.Struct, frozen=True, omit_defaults=True):
    """Up to where in the log an answer holds, and the time of the last commit there; None if there is none."""

    position: int
    time: datetime | None = None


class ListExecutions(Ask):
    """Executions, the last created first, that meet all conditions that are given.

    `status`: any of these. `name`: of the plan, or of the task of a single one. `metadata`: has these names with these plain
    values. `since`, `until`: created at or after the one, before the other. `limit`: 1 to 1,000. `cursor`: of the answer before.
    """

    status: tuple[ExecutionStatus, ...] = ()
    name: str | None = None
    plan_id: str | None = None
    metadata: dict[str, Scalar] = {}
    since: datetime | None = None
    until: datetime | None = None
    limit: int = USUAL
    cursor: str | None = None


class ListTasks(Ask):
    """Steps of executions, those of the last created first, that meet all conditions that are given.

    `name`: of the task. `execution_id`: of this execution. `since`, `until`: whose execution was created then.
    """

    status: tuple[TaskStatus, ...] = ()
    name: str | None = None
    execution_id: str | None = None
    plan_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = USUAL
    cursor: str | None = None


class ListAlerts(Ask):
    """Alerts, the last triggered first, that meet all conditions that are given.

    `state`: `triggered` for those that are open, `resolved` for those that are over. `alert_id`: of what was set. `since`,
    `until`: triggered at or after the one, before the other.
    """

    state: Literal["triggered", "resolved"] | None = None
    alert_id: str | None = None
    execution_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = USUAL
    cursor: str | None = None


class CountExecutions(Ask):
    """How many executions there are, by their status."""


class Counted(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`counts`: by each status there is; 0 where there is none."""

    counts: dict[str, int]
    as_of: AsOf


class AskStatus(Ask):
    """How the projections are."""


class Listed(msgspec.Struct, Generic[T], omit_defaults=True, kw_only=True):
    """A page of a list. `cursor`: asks for what follows; None if nothing does."""

    items: list[T]
    cursor: str | None = None
    as_of: AsOf

    def __iter__(self) -> Any:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class ProjectionStatus(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How a projection is. `position`: of the last commit that it has in it, whose time is `time`. `lag`: how many positions the
    log is ahead; `lag_ms`: how old that last commit is, if there are others after it. `events`: processed since its start.

    `state`: `standby`: another process does the work. `retrying`: the database, or the log, does not answer. `failed`: its code
    threw, `error` says upon which commit. `host`: the process that says so.
    """

    name: str
    view: str
    state: str
    position: int
    time: datetime | None = None
    lag: int = 0
    lag_ms: int = 0
    events: int = 0
    error: str = ""
    host: str = ""


class Projections(msgspec.Struct, frozen=True, kw_only=True):
    """The projections of a process that answers; every one does."""

    projections: list[ProjectionStatus]


ExecutionsPage = Listed[ExecutionSummary]
TasksPage = Listed[TaskRecord]
AlertsPage = Listed[Alert]
