"""What somebody wants to be told of: a condition on a metric. And an alert: the condition held, from when to when.

Which metrics there are, of what each is judged, and what can be said of it. When a condition holds is worked out by the
projections (`projections.alerting`); how people write a condition is read in `alert_reading`.
"""

import math
from datetime import datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from esexec.domain import limits
from esexec.domain.errors import ErrorInfo
from esexec.domain.explain import quoted, shown
from esexec.domain.ids import is_user_id

Operator = Literal["gt", "lt", "eq", "gte", "lte"]

OF_EACH_EXECUTION: Final = frozenset({"execution_duration", "execution_failed"})
"""Metrics that only a single execution has: they are judged of each execution within the scope."""
SAMPLED_OF_WORKERS: Final = frozenset({"cpu_usage", "memory_usage"})
SAMPLED: Final = SAMPLED_OF_WORKERS | {"queue_depth", "lag"}
"""Metrics that are in no history: somebody looks at them every few seconds."""
COUNTED: Final = ("error_rate", "success_rate", "retries", "cost", "quality_score")
"""Metrics that are counted from events; so are all that handlers report (`ctx.metric`), by the names that they give them."""
METRICS: Final = tuple(sorted({*OF_EACH_EXECUTION, *SAMPLED, *COUNTED}))
"""The metrics that esexec itself knows."""

WINDOW_MS: Final = 300_000
"""How far back is counted where nothing else is said: 5 minutes."""
SYMBOLS: Final = {">": "gt", "<": "lt", "=": "eq", "==": "eq", ">=": "gte", "<=": "lte"}
"""How people write the operators."""


class AlertCondition(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """`metric` `operator` `threshold`, for at least `duration_ms` without a break.

    Scope: one execution (`execution_id`), those of a plan (`plan`: its name or its id), or the whole namespace. `source`: the
    worker, queue or projection that a sampled metric is of; None = each. `execution_duration` (ms, since the run began) and
    `execution_failed` (1 in the moment in which it fails) are judged of each execution; so are others with `each_execution`. Else
    those of a plan or of the namespace are counted together, over the last `window_ms` (5 minutes).
    """

    metric: Annotated[str, Meta(min_length=1, max_length=2 * limits.metric_name_chars)]
    operator: Operator
    threshold: float
    duration_ms: Annotated[int, Meta(ge=0, le=limits.delay_ms)] = 0
    execution_id: Annotated[str, Meta(max_length=limits.id_chars)] | None = None
    plan: Annotated[str, Meta(min_length=1, max_length=limits.name_chars)] | None = None
    source: Annotated[str, Meta(min_length=1, max_length=limits.name_chars)] | None = None
    each_execution: bool = False
    window_ms: Annotated[int, Meta(ge=limits.alert_window_min_ms, le=limits.alert_window_ms)] | None = None

    @property
    def of_each(self) -> bool:
        """Whether it is judged of each execution within the scope."""
        return self.each_execution or self.execution_id is not None or self.metric in OF_EACH_EXECUTION

    def holds(self, value: float | None) -> bool:
        """Whether it holds for this value; of nothing it never does."""
        if value is None:
            return False
        match self.operator:
            case "gt":
                return value > self.threshold
            case "gte":
                return value >= self.threshold
            case "lt":
                return value < self.threshold
            case "lte":
                return value <= self.threshold
            case _:
                return value == self.threshold

    def __str__(self) -> str:
        symbol = next(symbol for symbol, operator in SYMBOLS.items() if operator == self.operator)
        return f"{self.metric} {symbol} {self.threshold:g}"


class Alert(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """A condition held. `id`: of this occurrence, the same however often it is told; `alert_id`: of what was set.

    `execution_id`, `source`: what it is about, where it is not the plan or the namespace as a whole. `value`: of the metric when
    `state` became what it is; None where there is none any more. Times are UTC; `resolved_at` is None while it holds.
    """

    id: str
    alert_id: str
    state: Literal["triggered", "resolved"]
    condition: AlertCondition
    triggered_at: datetime
    resolved_at: datetime | None = None
    execution_id: str | None = None
    source: str | None = None
    value: float | None = None
    message: str = ""


# What cannot be ----------------------------------------------------------------------------------------------------------


def condition_problem(condition: AlertCondition) -> ErrorInfo | None:
    """Why there can be no such condition: it would never be judged, or what it says contradicts itself."""
    metric, sampled = condition.metric, condition.metric in SAMPLED
    if not metric.isprintable() or metric != metric.strip():
        return _bad(f"{quoted(metric)} is no name of a metric", f"one of {', '.join(METRICS)}, or what handlers report")
    if not math.isfinite(condition.threshold):
        return _bad(f"a threshold of {condition.threshold}", "a finite number")
    if condition.execution_id is not None and condition.plan is not None:
        return _bad("both an execution and a plan", "give one of `execution_id` and `plan`, or neither: the whole namespace")
    if condition.execution_id is not None and not is_user_id(condition.execution_id):
        return _bad(f"{quoted(condition.execution_id)} is no execution id", "1 to 64 letters, digits, - and _; not _ first")
    if (condition.execution_id or condition.plan) and sampled and metric not in SAMPLED_OF_WORKERS:
        return _bad(f"no execution has a {metric}", "leave out `execution_id` and `plan`")
    if condition.source is not None and not sampled:
        return _bad(f"{shown(metric)} is of executions, not of a source", f"`source` is for {', '.join(sorted(SAMPLED))}")
    if condition.each_execution and sampled:
        return _bad(f"no execution has a {metric} of its own", "leave out `each_execution`")
    if condition.window_ms is not None and (condition.of_each or sampled):
        return _bad(f"{shown(metric)} is not counted over a window here", "leave out `window_ms`")
    if condition.duration_ms and metric == "execution_failed":
        return _bad("an execution fails in one moment", "leave out `duration_ms`")
    if metric == "execution_failed" and not condition.holds(1.0):
        return _bad(f"{condition} never holds", "execution_failed is 1 when an execution fails: execution_failed >= 1")
    return None


def webhook_problem(url: str) -> ErrorInfo | None:
    """Why nothing can be posted there."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if usable and len(url) <= limits.webhook_chars and url.isascii() and url.isprintable() and " " not in url:
        return None
    hint = f"http:// or https://, a host, at most {limits.webhook_chars} ASCII characters (limits.webhook_chars)"
    return ErrorInfo(type="validation_error", code="bad_webhook", message=f"{quoted(url)} is no webhook", hint=hint)


def alert_id_problem(alert_id: object) -> ErrorInfo | None:
    """Why no alert can be called so: its id stands in a subject."""
    if isinstance(alert_id, str) and is_user_id(alert_id):
        return None
    hint = f"1 to {limits.id_chars} letters, digits, - and _; not _ first"
    return ErrorInfo(type="validation_error", code="bad_alert_id", message=f"{quoted(alert_id)} cannot name an alert", hint=hint)


def _bad(message: str, hint: str) -> ErrorInfo:
    return ErrorInfo(type="validation_error", code="bad_alert", message=message, hint=hint)
