"""What an alert says, in one line."""

from esexec.domain.alerts import AlertCondition
from esexec.domain.explain import shown
from projections.timeline import duration

_OPERATORS = {"gt": "above", "gte": "at or above", "lt": "below", "lte": "at or below", "eq": "equal to"}
_RATES = frozenset({"error_rate", "success_rate"})
_PERCENT = frozenset({"cpu_usage", "memory_usage"})
_IN_MS = frozenset({"execution_duration"})
_SOURCES = {"queue_depth": "queue", "lag": "projection"}


def about(condition: AlertCondition, execution_id: str | None, source: str | None) -> str:
    """What the metric is of."""
    if source is not None:
        return f"{_SOURCES.get(condition.metric, 'worker')} {shown(source)}"
    if execution_id is not None:
        return f"execution {execution_id}"
    return f"plan {shown(condition.plan)}" if condition.plan is not None else "the namespace"


def triggered(condition: AlertCondition, about: str, value: float, detail: str = "") -> str:
    """Why it was triggered. `about`: what the metric is of; `detail`: what else there is to say."""
    if condition.metric == "execution_failed":
        return f"{about} failed" + (f": {detail}" if detail else "")
    held = f" for {duration(condition.duration_ms)}" if condition.duration_ms else ""
    limit = f"{_OPERATORS[condition.operator]} {amount(condition.metric, condition.threshold)}"
    return f"{shown(condition.metric)} of {about} is {amount(condition.metric, value)}, {limit}{held}"


def resolved(condition: AlertCondition, before: str, value: float | None, why: str = "") -> str:
    """Why it is over. `before`: what was said when it was triggered; `why`: unless the value alone says so."""
    if condition.metric == "execution_failed":
        return before
    now = "nothing is known of it any more" if value is None else f"now {amount(condition.metric, value)}"
    return f"{before}; over: {why or now}"


def amount(metric: str, value: float) -> str:
    """A value of the metric with its unit: `97 %`, `2 h 5 min`, `0.25`."""
    if metric in _IN_MS:
        return duration(value)
    if metric in _RATES:
        return f"{100 * value:.3g} %"
    return f"{value:g} %" if metric in _PERCENT else f"{value:g}"
