"""What events say of the metrics: counted of one execution, and over a window of those of a plan or of the namespace.

| metric | of one execution | over a window |
| --- | --- | --- |
| `error_rate` | attempts that failed or timed out / all that ended, cancelled ones aside | the same |
| `success_rate` | steps that completed / completed or failed | executions that completed / ended |
| `retries` | re-attempts that were scheduled | the same |
| `cost` | what attempts cost, and the resources they were allocated | the same |
| `quality_score` | the mean of what was reported | the same |
| any that handlers report | the last that was reported | the mean |

A handler's metric is called by its name, and means its one value or the one called `value`; any of its values is `name.value`.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from math import fsum
from typing import NamedTuple, get_args

from esexec.domain import events as e
from esexec.domain.alerts import WINDOW_MS, AlertCondition
from esexec.domain.measures import Measured
from projections.alerting.state import BEGINNING, Active, Bucket, SetAlert

PARTS = 60
"""A window moves on by this part of itself."""
_SUMS = frozenset({"retries", "cost"})
_MS = timedelta(milliseconds=1)


COUNTED = frozenset(
    {
        e.TaskCompleted,
        e.TaskFailed,
        e.TaskTimedOut,
        e.RecoveryCompleted,
        e.TaskRetryScheduled,
        e.ResourceReleased,
        e.ExecutionCompleted,
        e.ExecutionFailed,
        e.ExecutionCancelled,
        e.ExecutionRolledBack,
        *(kind for kind in get_args(e.Event) if "measured" in kind.__struct_fields__),
    }
)
"""The types of events that `count` finds anything in: of most there is nothing to count."""


class Said(NamedTuple):
    """What an event adds to a metric over a window."""

    metric: str
    amount: float


def count(active: Active, event: e.Event) -> Iterator[Said]:
    """Count an event of an execution; and what it adds to windows."""
    match event:
        case e.TaskCompleted():
            active.attempts += 1
            active.steps += 1
            active.steps_completed += 1
            yield Said("error_rate", 0.0)
        case e.TaskFailed() | e.TaskTimedOut():
            active.attempts += 1
            active.attempts_failed += 1
            active.steps += not event.will_retry and event.instead is None
            yield Said("error_rate", 1.0)
        case e.RecoveryCompleted(then="fail"):
            active.steps += 1
        case e.TaskRetryScheduled():
            active.retries += 1
            yield Said("retries", 1.0)
        case e.ResourceReleased():
            cost = fsum(one.cost for one in event.usage)
            active.cost += cost
            yield Said("cost", cost)
        case e.ExecutionCompleted():
            yield Said("success_rate", 1.0)
        case e.ExecutionFailed() | e.ExecutionCancelled() | e.ExecutionRolledBack():
            yield Said("success_rate", 0.0)
    measured: Measured | None = getattr(event, "measured", None)
    if measured is not None:
        yield from _measured(active, measured)


def _measured(active: Active, measured: Measured) -> Iterator[Said]:
    if measured.cost:
        active.cost += measured.cost
        yield Said("cost", measured.cost)
    if measured.quality is not None:
        active.quality += measured.quality
        active.qualities += 1
        yield Said("quality_score", measured.quality)
    for metric in measured.metrics:
        values = {f"{metric.name}.{name}": float(value) for name, value in metric.values.items()}
        main = metric.values.get("value", next(iter(metric.values.values())) if len(metric.values) == 1 else None)
        if main is not None:
            values[metric.name] = float(main)
        for name, value in values.items():
            yield Said(name, value)


def value_of(active: Active, alert: SetAlert, at: datetime) -> float | None:
    """The metric of one execution; None where nothing is known of it. What handlers report is known since the alert was set."""
    match alert.condition.metric:
        case "execution_duration":
            return None if active.began_at is None else float(max(0, (at - active.began_at) // _MS))
        case "error_rate":
            return active.attempts_failed / active.attempts if active.attempts else None
        case "success_rate":
            return active.steps_completed / active.steps if active.steps else None
        case "retries":
            return float(active.retries)
        case "cost":
            return active.cost
        case "quality_score":
            return active.quality / active.qualities if active.qualities else None
        case _:
            value, version = active.reported.get(alert.condition.metric, (None, 0))
            return value if version >= alert.version else None


# Windows ---------------------------------------------------------------------------------------------------------------


def add(buckets: list[Bucket], condition: AlertCondition, said: Said, at: datetime) -> None:
    """Count it in the part of the window that `at` is in."""
    number = _part(at, condition)
    if not buckets or buckets[-1].number < number:
        buckets.append(Bucket(number))
    buckets[-1].total += said.amount
    buckets[-1].count += 1


def move(buckets: list[Bucket], condition: AlertCondition, at: datetime) -> datetime | None:
    """Forget what is not within the window any more; when the next of it will not be."""
    first = _part(at, condition) - PARTS + 1
    while buckets and buckets[0].number < first:
        del buckets[0]
    return BEGINNING + (buckets[0].number + PARTS) * _part_of(condition) if buckets else None


def total_of(buckets: list[Bucket], metric: str) -> float | None:
    """The metric over the window; None where nothing is known of it."""
    total = fsum(bucket.total for bucket in buckets)
    if metric in _SUMS:
        return total
    counted = sum(bucket.count for bucket in buckets)
    return total / counted if counted else None


def _part_of(condition: AlertCondition) -> timedelta:
    return timedelta(milliseconds=condition.window_ms or WINDOW_MS) / PARTS


def _part(at: datetime, condition: AlertCondition) -> int:
    return (at - BEGINNING) // _part_of(condition)
