"""What a handler measures of its attempt, until the report takes it along. Bad values are refused where they are given.

Refusals are ExecutionErrors that are not retried: `invalid_metric`, `invalid_quality`, `invalid_cost`, `metrics_too_large` (too
many, or too much together).
"""

import math
import threading
from collections.abc import Mapping
from typing import Any

import msgspec

from esexec.domain import limits
from esexec.domain.errors import ExecutionError
from esexec.domain.measures import Measured, Metric, Number


class Measures:
    """The measures of one attempt. May be used from any thread."""

    __slots__ = ("_bytes", "_cost", "_lock", "_metrics", "_quality")

    def __init__(self) -> None:
        self._metrics: list[Metric] = []
        self._quality: float | None = None
        self._cost = 0.0
        self._bytes = 2
        self._lock = threading.Lock()

    def metric(self, name: str, values: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        """Add a metric."""
        if not values:
            raise _invalid("metric", f"metric {name!r:.80} has no value", 'ctx.metric("rows", 12) or ctx.metric("io", size=3)')
        metric = Metric(name=name, values={key: _number(key, value) for key, value in values.items()}, tags=_tags(tags))
        size = _checked_size(metric) + 1
        with self._lock:
            if len(self._metrics) >= limits.metrics_per_attempt:
                raise _too_large(f"an attempt has no more than metrics_per_attempt = {limits.metrics_per_attempt} metrics")
            if self._bytes + size > limits.measured_bytes:
                raise _too_large(f"the metrics of an attempt have no more than measured_bytes = {limits.measured_bytes} bytes")
            self._metrics.append(metric)
            self._bytes += size

    def quality(self, score: float) -> None:
        """Say how good the output is."""
        found = _finite(score)
        if found is None or not 0 <= found <= 1:
            raise _invalid("quality", f"{score!r:.80} is no quality", "a number from 0 to 1")
        self._quality = float(found)

    def cost(self, amount: float) -> None:
        """Add to the cost."""
        found = _finite(amount)
        if found is None or found < 0:
            raise _invalid("cost", f"{amount!r:.80} is no cost", "a finite number, 0 or more")
        with self._lock:
            if self._cost + found > limits.cost_max:
                raise _invalid("cost", f"the cost would be above cost_max = {limits.cost_max:g}", "count in another unit")
            self._cost += float(found)

    def result(self) -> Measured | None:
        """What the report says; None: nothing."""
        with self._lock:
            if self._quality is None and not self._cost and not self._metrics:
                return None
            return Measured(quality=self._quality, cost=self._cost, metrics=tuple(self._metrics))


def _checked_size(metric: Metric) -> int:
    """Its bytes as JSON, if it keeps within the bounds of its type."""
    try:
        msgspec.convert(msgspec.to_builtins(metric), Metric)
        return len(msgspec.json.encode(metric))
    except (msgspec.ValidationError, TypeError, UnicodeEncodeError) as error:
        raise _invalid("metric", f"metric {metric.name!r:.80}: {error}", "see the limits metric_…") from None


def _number(name: str, value: Any) -> Number:
    found = _finite(value)
    if found is None:
        raise _invalid("metric", f"{name} = {value!r:.80} is no finite number", "give an int or a float")
    return found


def _finite(value: Any) -> Number | None:
    """The value as an int or a float, also of a Decimal or a number of numpy; None for what is no finite number."""
    if isinstance(value, bool | str | bytes):
        return None
    if isinstance(value, int) and abs(value) < 1 << 63:
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    for name, value in tags.items():
        if not isinstance(value, str | int | float):
            raise _invalid("metric", f"tag {name!r:.80} is {value!r:.80}", "give a text, a number or a bool")
    return {name: value if isinstance(value, str) else str(value) for name, value in tags.items()}


def _invalid(what: str, message: str, hint: str) -> ExecutionError:
    return ExecutionError(message, code=f"invalid_{what}", retry=False, hint=hint)


def _too_large(message: str) -> ExecutionError:
    return ExecutionError(message, code="metrics_too_large", retry=False, hint="sum up in the handler, and give the sums")
