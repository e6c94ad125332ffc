"""What the statistics can be asked, and what they answer: the wire form of `query.stats`, `.task_stats` and `.durations`.

Durations are milliseconds. A percentile is at most 1/64 (1.6 %) away from the true one, and exact below 64 ms. What there is
none of is None: an average over nothing, say.
"""

from datetime import datetime
from typing import Literal

import msgspec

from projections.asks import Ask, AsOf

MOST_GROUPS = 500
"""So many groups are in one answer at most."""
MOST_NAMES = 50
"""So many error codes, and so many steps, are named in one answer at most: those that are there most often."""

By = Literal["name", "plan_id", "hour", "day"]
TaskBy = Literal["name", "hour", "day"]


class AskStatistics(Ask, kw_only=True):
    """Figures of executions: of all, of those with a name (of the plan, or of the task of a single one), or those of a plan by
    its id.

    `since`, `until`: of those created at or after the one, before the other; both are rounded outward to full hours (UTC), and
    by day to full days. `by`: also for each name or plan, or for each hour or day in which executions were created.
    """

    name: str | None = None
    plan_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    by: By | None = None


class AskTaskStatistics(Ask, kw_only=True):
    """Figures of steps: of all, or of those of the task with this `name`. Otherwise as `AskStatistics`."""

    name: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    by: TaskBy | None = None


class AskDurations(Ask, kw_only=True):
    """How long the steps of a plan took. `tasks`: of these tasks it is wanted as well, whatever the plan; where none are named
    and the plan never completed, of those that there are most of, `MOST_GROUPS` at most."""

    plan_id: str
    tasks: tuple[str, ...] = ()


class Undoings(msgspec.Struct, frozen=True):
    """Steps that a rollback came to: how many were undone, whose compensation failed, and that nothing undoes."""

    undone: int = 0
    failed: int = 0
    skipped: int = 0


class Rollbacks(msgspec.Struct, frozen=True, kw_only=True):
    """Executions that were rolled back: how many wholly (`completed`), or not (`partial`). `steps`: all steps of theirs that a
    rollback came to.

    `by_step`: the same by step of the plan; by task, where the figures are of no plan. Those that come up most often.
    """

    completed: int = 0
    partial: int = 0
    steps: Undoings = Undoings()
    by_step: dict[str, Undoings] = {}


class ExecutionTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of executions. `by_status`: all seven.

    `success_rate`: completed / (completed + failed + rolled back), 0 to 1. `average_execution_time_ms` and the percentiles: of
    those same executions, as far as they began, from their first start to their last end. `retries`: how often a step was tried
    again, in the runs that the executions are in; `reruns`: how often an execution was, by a retry or a restore.
    """

    total: int
    by_status: dict[str, int]
    success_rate: float | None
    average_execution_time_ms: float | None
    p50_ms: int | None
    p95_ms: int | None
    p99_ms: int | None
    average_steps_per_execution: float | None
    retries: int
    reruns: int
    rollbacks: Rollbacks


class ExecutionStatistics(ExecutionTotals, frozen=True, kw_only=True):
    """Figures of executions, as of `as_of`. `since`, `until`: those created then; None: no bound.

    `failures`: what failed executions, and those that were rolled back, failed of: how many by error code; the most frequent.
    `groups`: the same figures by what was asked for: names in order of how many there are, times in their order; of more than
    `MOST_GROUPS` the largest or the latest, and `left_out` others.
    """

    since: datetime | None = None
    until: datetime | None = None
    failures: dict[str, int] = {}
    groups: dict[str, ExecutionTotals] = {}
    left_out: int = 0
    as_of: AsOf


class TaskTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of steps. `by_status`: all seven.

    `success_rate`: completed / (completed + failed), 0 to 1. `average_duration_ms`, `p50_ms` …: of steps that completed or
    failed, from the start of their first attempt to the end of the last, with all that lies between. `answer_p50_ms` …: how long
    an attempt took that completed, in whatever run: how fast the task itself answers. `cached` ones took no time, and are in
    neither. `average_retries`: of those that were tried at all, in the run that their execution is in.
    """

    total: int
    completed: int
    failed: int
    by_status: dict[str, int]
    success_rate: float | None
    average_duration_ms: float | None
    p50_ms: int | None
    p95_ms: int | None
    p99_ms: int | None
    answer_p50_ms: int | None
    answer_p95_ms: int | None
    answer_p99_ms: int | None
    average_retries: float | None
    retries: int
    cached: int
    undoings: Undoings


class TaskStatistics(TaskTotals, frozen=True, kw_only=True):
    """Figures of steps, as of `as_of`; the other fields as those of `ExecutionStatistics`."""

    since: datetime | None = None
    until: datetime | None = None
    failures: dict[str, int] = {}
    groups: dict[str, TaskTotals] = {}
    left_out: int = 0
    as_of: AsOf
