"""The questions that the view of statistics answers: functions of the view, each of one moment."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar, get_args

import msgspec

from esexec.domain.errors import ValidationError
from esexec.domain.state import ExecutionStatus, StepStatus
from esexec.views import Durations
from projections.figures import Figures, Histogram, decoded
from projections.queries import as_of
from projections.statistics import (
    ALL,
    COUNTS,
    DAY_H,
    FAILURE,
    FIGURES,
    HOUR_S,
    NAME,
    PLAN_ID,
    STEPS,
    TASK,
    TASKS,
    UNDOINGS,
    counted_of,
    hour_of,
)
from projections.statistics_asks import (
    MOST_GROUPS,
    MOST_NAMES,
    AskDurations,
    AskStatistics,
    AskTaskStatistics,
    ExecutionStatistics,
    ExecutionTotals,
    Rollbacks,
    TaskStatistics,
    TaskTotals,
    Undoings,
)
from projections.tables import Row, Table, Where
from projections.view import View

T = TypeVar("T")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PERCENTILES: Final = (50, 95, 99)
_SPANS: Final = {"hour": 1, "day": DAY_H}


def statistics(view: View, ask: AskStatistics) -> ExecutionStatistics:
    """Raises ValidationError (`bad_window`, `bad_condition`)."""
    if ask.name is not None and ask.plan_id is not None:
        raise ValidationError("a plan is asked for twice", code="bad_condition", hint="give its name or its id")
    kind, name = (NAME, ask.name) if ask.name is not None else (PLAN_ID, ask.plan_id) if ask.plan_id is not None else (ALL, "")
    if kind != ALL and ask.by in (NAME, PLAN_ID):
        raise ValidationError(f"by {ask.by} there is one group", code="bad_condition", hint="by hour or day, or of all plans")
    window, of = _window(ask.since, ask.until, ask.by), counted_of(kind, name)
    with view.snapshot():
        figures = _sum(view, kind, name, window)
        failed = figures.by_status.get("failed", 0) + figures.by_status.get("rolled_back", 0)
        groups, left_out = _groups(view, kind, name, ask.by, window, _execution_totals)
        return ExecutionStatistics(
            **_fields(_execution_totals(figures, _by_step(view, of, window) if figures.undoings else {})),
            **_fields(window.told),
            failures=_named(view, of, FAILURE, window) if failed else {},
            groups=groups,
            left_out=left_out,
            as_of=as_of(view),
        )


def task_statistics(view: View, ask: AskTaskStatistics) -> TaskStatistics:
    """Raises ValidationError (`bad_window`, `bad_condition`)."""
    kind, name = (TASK, ask.name) if ask.name is not None else (TASKS, "")
    if kind == TASK and ask.by == "name":
        raise ValidationError("by name there is one group", code="bad_condition", hint="by hour or day, or of all tasks")
    window = _window(ask.since, ask.until, ask.by)
    with view.snapshot():
        figures = _sum(view, kind, name, window)
        groups, left_out = _groups(view, kind, name, TASK if ask.by == "name" else ask.by, window, _task_totals)
        return TaskStatistics(
            **_fields(_task_totals(figures)),
            **_fields(window.told),
            failures=_named(view, counted_of(kind, name), FAILURE, window) if figures.by_status.get("failed") else {},
            groups=groups,
            left_out=left_out,
            as_of=as_of(view),
        )


def durations(view: View, ask: AskDurations) -> Durations:
    """What is not known yet is not among it."""
    with view.snapshot():
        steps = view.select(STEPS, [Where("plan_id", "=", ask.plan_id)])
        plan = _sum(view, PLAN_ID, ask.plan_id, _ALWAYS)
        runs = plan.by_status.get("completed", 0)
        means = {task: _sum(view, TASK, task, _ALWAYS).durations.mean_ms for task in dict.fromkeys(ask.tasks)}
        if not runs and not ask.tasks:
            where = [Where("kind", "=", TASK), *_ALWAYS.conditions[0]]
            rows = view.select(FIGURES, where, order=["-total", "name"], limit=MOST_GROUPS)
            means = {row.name: decoded(row.data).durations.mean_ms for row in rows}
        return Durations(
            steps={row.step: row.sum_ms / row.many for row in steps},
            tasks={task: mean_ms for task, mean_ms in means.items() if mean_ms is not None},
            overhead_ms=plan.overhead_us / plan.overheads / 1000 if plan.overheads else 0.0,
            runs=runs,
        )


# Windows -----------------------------------------------------------------------------------------------------------------


class _Told(msgspec.Struct):
    since: datetime | None = None
    until: datetime | None = None


class _Window(NamedTuple):
    """Some hours: what is asked of the tables for them, each row once; and their bounds."""

    conditions: list[list[Where]]
    told: _Told
    first: int | None = None
    end: int | None = None

    def spans(self, span: int) -> list[Where]:
        """The rows of windows of this span that are wholly or in part within."""
        where = [Where("span", "=", span)]
        if self.first is not None:
            where.append(Where("since", ">", self.first - span))
        if self.end is not None:
            where.append(Where("since", "<", self.end))
        return where


_ALWAYS: Final = _Window([[Where("span", "=", 0), Where("since", "=", 0)]], _Told())


def _window(since: datetime | None, until: datetime | None, by: str | None) -> _Window:
    if since is None and until is None:
        return _ALWAYS
    unit = _SPANS.get(by or "", 1)
    try:
        first = None if since is None else hour_of(_utc(since)) // unit * unit
        end = None if until is None else -(int(-_utc(until).timestamp() // HOUR_S) // unit * unit)
        told = _Told(_time(first), _time(end))
    except OverflowError:
        raise ValidationError(
            "the window is beyond the calendar", code="bad_window", hint="leave out what has no bound"
        ) from None
    if first is not None and end is not None and first >= end:
        raise ValidationError("the window is empty: `until` is not after `since`", code="bad_window", hint="swap them?")
    return _Window(_conditions(first, end), told, first, end)


def _conditions(first: int | None, end: int | None) -> list[list[Where]]:
    """Whole days, and the hours before and behind them."""
    first_day = None if first is None else -(-first // DAY_H) * DAY_H
    end_day = None if end is None else end // DAY_H * DAY_H
    if first is not None and end is not None and first_day is not None and end_day is not None and first_day >= end_day:
        return [[Where("span", "=", 1), Where("since", ">=", first), Where("since", "<", end)]]
    days = [Where("span", "=", DAY_H)]
    found = [days]
    if first is not None and first_day is not None:
        days.append(Where("since", ">=", first_day))
        if first < first_day:
            found.append([Where("span", "=", 1), Where("since", ">=", first), Where("since", "<", first_day)])
    if end is not None and end_day is not None:
        days.append(Where("since", "<", end_day))
        if end_day < end:
            found.append([Where("span", "=", 1), Where("since", ">=", end_day), Where("since", "<", end)])
    return found


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _time(hour: int | None) -> datetime | None:
    return None if hour is None else _EPOCH + timedelta(hours=hour)


# Sums ----------------------------------------------------------------------------------------------------------------------


def _rows(view: View, table: Table, where: Sequence[Where], window: _Window) -> Iterator[Row]:
    for condition in window.conditions:
        yield from view.select(table, [*where, *condition])


def _sum(view: View, kind: str, name: str, window: _Window) -> Figures:
    figures = Figures()
    for row in _rows(view, FIGURES, [Where("kind", "=", kind), Where("name", "=", name)], window):
        figures.add(decoded(row.data))
    return figures


def _groups(
    view: View, kind: str, name: str, by: str | None, window: _Window, totals: Callable[[Figures], T]
) -> tuple[dict[str, T], int]:
    """The groups in their order, and how many are left out."""
    if by is None:
        return {}, 0
    if (span := _SPANS.get(by)) is not None:
        return _by_time(view, kind, name, span, window, totals)
    where = [Where("kind", "=", by)]
    if window is _ALWAYS:
        where += window.conditions[0]
        rows = view.select(FIGURES, where, order=["-total", "name"], limit=MOST_GROUPS)
        left_out = max(0, view.count(FIGURES, where) - len(rows)) if len(rows) == MOST_GROUPS else 0
        return {row.name: totals(decoded(row.data)) for row in rows}, left_out
    sums: dict[str, Figures] = {}
    for row in _rows(view, FIGURES, where, window):
        sums.setdefault(row.name, Figures()).add(decoded(row.data))
    order = sorted(sums.items(), key=lambda one: (-one[1].total, one[0]))
    return {name: totals(figures) for name, figures in order[:MOST_GROUPS]}, max(0, len(order) - MOST_GROUPS)


def _by_time(
    view: View, kind: str, name: str, span: int, window: _Window, totals: Callable[[Figures], T]
) -> tuple[dict[str, T], int]:
    where = [Where("kind", "=", kind), Where("name", "=", name), *window.spans(span)]
    rows = view.select(FIGURES, where, order=["-since"], limit=MOST_GROUPS)
    left_out = max(0, view.count(FIGURES, where) - len(rows)) if len(rows) == MOST_GROUPS else 0
    return {f"{_time(row.since):%Y-%m-%dT%H:%M:%SZ}": totals(decoded(row.data)) for row in reversed(rows)}, left_out


def _named(view: View, of: str, what: str, window: _Window) -> dict[str, int]:
    """How often, by name; the most frequent first."""
    where = [Where("of", "=", of), Where("what", "=", what)]
    if window is _ALWAYS:
        rows = view.select(COUNTS, [*where, *window.conditions[0]], order=["-many", "name"], limit=MOST_NAMES)
        return {row.name: row.many for row in rows}
    sums: dict[str, int] = {}
    for row in _rows(view, COUNTS, where, window):
        sums[row.name] = sums.get(row.name, 0) + row.many
    return dict(sorted(sums.items(), key=lambda one: (-one[1], one[0]))[:MOST_NAMES])


def _by_step(view: View, of: str, window: _Window) -> dict[str, Undoings]:
    undone, failed, skipped = (_named(view, of, what, window) for what in UNDOINGS)
    names = {name: undone.get(name, 0) + failed.get(name, 0) + skipped.get(name, 0) for name in (undone | failed | skipped)}
    most = sorted(names, key=lambda name: (-names[name], name))[:MOST_NAMES]
    return {name: Undoings(undone.get(name, 0), failed.get(name, 0), skipped.get(name, 0)) for name in most}


# What is told of a sum -----------------------------------------------------------------------------------------------------


def _execution_totals(figures: Figures, by_step: dict[str, Undoings] | None = None) -> ExecutionTotals:
    by_status = _all_statuses(figures, ExecutionStatus)
    total, completed = figures.total, by_status["completed"]
    ended = completed + by_status["failed"] + by_status["rolled_back"]
    return ExecutionTotals(
        total=total,
        by_status=by_status,
        success_rate=_ratio(completed, ended),
        average_execution_time_ms=figures.durations.mean_ms,
        **_percentiles(figures.durations),
        average_steps_per_execution=_ratio(figures.steps, total),
        retries=figures.retries,
        reruns=figures.reruns,
        rollbacks=Rollbacks(
            completed=figures.rollbacks.get("completed", 0),
            partial=figures.rollbacks.get("partial", 0),
            steps=_undoings(figures),
            by_step=by_step or {},
        ),
    )


def _task_totals(figures: Figures) -> TaskTotals:
    by_status = _all_statuses(figures, StepStatus)
    completed, failed = by_status["completed"], by_status["failed"]
    return TaskTotals(
        total=figures.total,
        completed=completed,
        failed=failed,
        by_status=by_status,
        success_rate=_ratio(completed, completed + failed),
        average_duration_ms=figures.durations.mean_ms,
        **_percentiles(figures.durations),
        **_percentiles(figures.answers, "answer_"),
        average_retries=_ratio(figures.retries, figures.tried),
        retries=figures.retries,
        cached=figures.cached,
        undoings=_undoings(figures),
    )


def _all_statuses(figures: Figures, statuses: Any) -> dict[str, int]:
    return {status: figures.by_status.get(status, 0) for status in get_args(statuses)}


def _percentiles(histogram: Histogram, prefix: str = "") -> dict[str, Any]:
    found = histogram.percentiles_ms(*_PERCENTILES)
    return {f"{prefix}p{percent}_ms": value for percent, value in zip(_PERCENTILES, found, strict=True)}


def _undoings(figures: Figures) -> Undoings:
    return Undoings(*(figures.undoings.get(how, 0) for how in UNDOINGS))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(struct)
