"""The questions that the view of executions answers: functions of the view, each of one moment.

What stands in the rows is JSON already and goes into the answer as it is.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from heapq import merge
from itertools import islice
from typing import Any

import msgspec

from esexec.domain.errors import ValidationError
from esexec.results import ExecutionStatus
from projections.alerts import OCCURRENCES
from projections.asks import MOST, AsOf, Counted, CountExecutions, ListAlerts, Listed, ListExecutions, ListTasks
from projections.executions import EXECUTIONS, TAGS, TASKS, rank_at, tag_of
from projections.source import EVENTS_PER_POSITION
from projections.tables import Row, Table, Where
from projections.view import View

_NUMBER = re.compile(r"-?\d{1,18}", re.ASCII)
"""As it can stand in a column."""
_BATCH = 200
_PROBE = 50
"""So many of the last that have a value show how rare it is."""


def as_of(view: View) -> AsOf:
    """What the view is as of."""
    witness = view.witness
    time = datetime.fromisoformat(witness.time) if witness is not None else None
    return AsOf(view.position // EVENTS_PER_POSITION, time)


def list_executions(view: View, ask: ListExecutions) -> Listed[msgspec.Raw]:
    """Raises ValidationError (`bad_limit`, `bad_cursor`)."""
    _check_limit(ask.limit)
    tags = [tag_of(name, value) for name, value in ask.metadata.items()]
    where = _given(name=ask.name, plan_id=ask.plan_id) + _between(ask.since, ask.until)
    place = ("rank", "id")
    cursor = _read_cursor(ask.cursor, place)
    with view.snapshot():
        if not tags:
            rows = _newest(view, EXECUTIONS, where, ask.status, place, cursor, ask.limit + 1)
        else:
            first, *others = _rarest_first(view, tags, cursor)
            batch = _BATCH if others else ask.limit + 1
            tagged = _newest(view, TAGS, [Where("tag", "=", first), *where], ask.status, place, cursor, batch)
            rows = _executions_of(view, _with_tags(view, tagged, others), ask.limit + 1)
        return _page(view, rows, ask.limit, place)


def list_tasks(view: View, ask: ListTasks) -> Listed[msgspec.Raw]:
    """Raises ValidationError (`bad_limit`, `bad_cursor`)."""
    _check_limit(ask.limit)
    where = _given(id=ask.execution_id, name=ask.name, plan_id=ask.plan_id) + _between(ask.since, ask.until)
    place = ("rank", "id", "step")
    with view.snapshot():
        rows = _newest(view, TASKS, where, ask.status, place, _read_cursor(ask.cursor, place), ask.limit + 1)
        return _page(view, rows, ask.limit, place)


def list_alerts(view: View, ask: ListAlerts) -> Listed[msgspec.Raw]:
    """Raises ValidationError (`bad_limit`, `bad_cursor`)."""
    _check_limit(ask.limit)
    where = _given(state=ask.state, alert_id=ask.alert_id, execution_id=ask.execution_id) + _between(ask.since, ask.until)
    place = ("rank", "id")
    with view.snapshot():
        rows = _newest(view, OCCURRENCES, where, (), place, _read_cursor(ask.cursor, place), ask.limit + 1)
        return _page(view, rows, ask.limit, place)


def count_executions(view: View, ask: CountExecutions) -> Counted:
    """By status."""
    with view.snapshot():
        counts = {status.value: view.count(EXECUTIONS, [Where("status", "=", status.value)]) for status in ExecutionStatus}
        return Counted(counts=counts, as_of=as_of(view))


def _given(**columns: str | None) -> list[Where]:
    return [Where(column, "=", value) for column, value in columns.items() if value is not None]


def _between(since: datetime | None, until: datetime | None) -> list[Where]:
    where = [Where("rank", ">=", rank_at(since))] if since is not None else []
    return where + ([Where("rank", "<", rank_at(until))] if until is not None else [])


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MOST:
        raise ValidationError(f"limit {limit} is out of range", code="bad_limit", hint=f"1 to {MOST}; more by the cursor")


# By metadata -----------------------------------------------------------------------------------------------------------


def _rarest_first(view: View, tags: list[str], cursor: list[Any] | None) -> list[str]:
    """So that few are looked at in vain: the tag of whose last executions the oldest is oldest."""
    if len(tags) == 1:
        return tags

    def reach(tag: str) -> int:
        where = [Where("tag", "=", tag)] + ([Where("rank", "<=", cursor[0])] if cursor is not None else [])
        rows = view.select(TAGS, where, order=["-rank"], limit=_PROBE)
        return int(rows[-1].rank) if len(rows) == _PROBE else -1

    return sorted(tags, key=reach)


def _with_tags(view: View, rows: Iterator[Row], tags: Sequence[str]) -> Iterator[Row]:
    """Those of the rows whose executions have all of these tags too."""
    if not tags:
        yield from rows
        return
    for some in _by(rows, _BATCH):
        ids = {row.id for row in some}
        for tag in tags:
            ids &= {row.id for row in view.get_all(TAGS, [(tag, id_) for id_ in ids])}
        yield from (row for row in some if row.id in ids)


def _executions_of(view: View, rows: Iterator[Row], batch: int) -> Iterator[Row]:
    for some in _by(rows, batch):
        found = {row.id: row for row in view.get_all(EXECUTIONS, [(row.id,) for row in some])}
        yield from (found[row.id] for row in some)


def _by(rows: Iterator[Row], count: int) -> Iterator[list[Row]]:
    """So many at a time."""
    while some := list(islice(rows, count)):
        yield some


# In order, from a place on ---------------------------------------------------------------------------------------------


def _newest(
    view: View,
    table: Table,
    where: list[Where],
    statuses: Sequence[str],
    place: tuple[str, ...],
    cursor: list[Any] | None,
    batch: int,
) -> Iterator[Row]:
    """The rows from the newest on, behind the cursor; by each status on its own, so that an index has them in order. So many are
    had at a time."""
    ways = [[*where, Where("status", "=", str(status))] for status in dict.fromkeys(statuses)] or [where]
    rows = [_down(view, table, way, place, cursor, batch) for way in ways]
    return rows[0] if len(rows) == 1 else merge(*rows, key=lambda row: _place_of(row, place), reverse=True)


def _down(
    view: View, table: Table, where: list[Where], place: tuple[str, ...], cursor: list[Any] | None, batch: int
) -> Iterator[Row]:
    order = [f"-{column}" for column in place]
    while True:
        rows: list[Row] = []
        for condition in _behind(place, cursor):
            if len(rows) < batch:
                rows += view.select(table, [*where, *condition], order=order, limit=batch - len(rows))
        yield from rows
        if len(rows) < batch:
            return
        cursor = _place_of(rows[-1], place)


def _behind(place: tuple[str, ...], cursor: list[Any] | None) -> list[list[Where]]:
    """What is behind a place, nearest first: the same up to a column, and less in that one."""
    if cursor is None:
        return [[]]
    return [
        [*(Where(place[i], "=", cursor[i]) for i in range(last)), Where(place[last], "<", cursor[last])]
        for last in reversed(range(len(place)))
    ]


def _place_of(row: Row, place: tuple[str, ...]) -> list[Any]:
    return [getattr(row, column) for column in place]


def _page(view: View, rows: Iterator[Row], limit: int, place: tuple[str, ...]) -> Listed[msgspec.Raw]:
    found = list(islice(rows, limit + 1))
    cursor = None
    if len(found) > limit:
        cursor = ".".join(str(part) for part in _place_of(found[limit - 1], place))
    return Listed(items=[msgspec.Raw(row.data) for row in found[:limit]], cursor=cursor, as_of=as_of(view))


def _read_cursor(text: str | None, place: tuple[str, ...]) -> list[Any] | None:
    if text is None:
        return None
    parts: list[Any] = text.split(".")
    if len(parts) != len(place) or not all(
        column == "id" or _NUMBER.fullmatch(part) for part, column in zip(parts, place, strict=True)
    ):
        raise ValidationError(
            f"{text[:80]!r} is no cursor", code="bad_cursor", hint="give back the cursor of the answer before, as it is"
        )
    return [part if column == "id" else int(part) for part, column in zip(parts, place, strict=True)]
