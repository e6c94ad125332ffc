"""Histories for tests of alerts: commits of several executions and of `_alerts`, one after the other, at given seconds."""

from datetime import datetime
from typing import Any

import msgspec

from esexec.domain import events as e
from esexec.domain.alerts import Alert, AlertCondition
from esexec.domain.commit import Commit
from esexec.domain.errors import ErrorInfo
from esexec.domain.measures import Measured, Metric
from projections.alerting import AlertingState, Evaluator
from tests.given import at

ERROR = ErrorInfo(type="execution_error", code="BROKEN", message="it broke")


class Histories:
    """Numbers the commits of each entity."""

    def __init__(self) -> None:
        self._numbers: dict[str, tuple[int, int]] = {}

    def commit(self, entity: str, seconds: float, *events: e.Event) -> Commit:
        n, version = self._numbers.get(entity, (1, 1))
        self._numbers[entity] = n + 1, version + len(events)
        return Commit(v=1, execution_id=entity, n=n, version=version, time=at(seconds), events=events)


class Judged:
    """An evaluator, the histories it is told of, and all that it told."""

    def __init__(self) -> None:
        self.evaluator, self.told = Evaluator(), list[Alert]()
        self._histories = Histories()

    def set(self, alert_id: str, condition: AlertCondition, seconds: float = 0) -> "Judged":
        return self.happen("_alerts", seconds, e.AlertSet(alert_id=alert_id, condition=condition))

    def remove(self, alert_id: str, seconds: float) -> "Judged":
        return self.happen("_alerts", seconds, e.AlertRemoved(alert_id=alert_id))

    def start(self, execution: str = "e1", seconds: float = 0, plan: str = "p") -> "Judged":
        return self.happen(execution, seconds, created(plan), e.ExecutionStarted())

    def happen(self, entity: str, seconds: float, *events: e.Event) -> "Judged":
        self.told += self.evaluator.commit(self._histories.commit(entity, seconds, *events))
        return self

    def tick(self, seconds: float) -> "Judged":
        self.told += self.evaluator.tick(at(seconds))
        return self

    def restart(self) -> "Judged":
        """Only what was stored is left."""
        self.evaluator = Evaluator(stored(self.evaluator.state))
        return self

    @property
    def lines(self) -> list[str]:
        """What was told, in few words: `triggered long e1 at 7200.001: 7200001`."""
        return [line_of(alert) for alert in self.told]


def stored(state: AlertingState) -> AlertingState:
    """As it is read again after it was written down."""
    return msgspec.json.decode(msgspec.json.encode(state), type=AlertingState)


def line_of(alert: Alert) -> str:
    when = alert.triggered_at if alert.state == "triggered" else alert.resolved_at
    about = alert.source or alert.execution_id
    value = "" if alert.value is None else f": {_short(alert.value)}"
    return " ".join(filter(None, [alert.state, alert.alert_id, about, f"at {_short(seconds_of(when))}{value}"]))


def _short(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def seconds_of(time: datetime | None) -> float:
    assert time is not None
    return round((time - at(0)).total_seconds(), 6)


def created(plan: str = "p") -> e.ExecutionCreated:
    return e.ExecutionCreated(plan=msgspec.Raw(b"{}"), plan_id=f"id-of-{plan}", name=plan)


def completed(step: str = "a", *, quality: float | None = None, cost: float = 0.0, **metrics: Any) -> e.TaskCompleted:
    values = {name: value if isinstance(value, dict) else {"value": value} for name, value in metrics.items()}
    measured = Measured(quality=quality, cost=cost, metrics=tuple(Metric(name=name, values=one) for name, one in values.items()))
    return e.TaskCompleted(step=step, ended_at=at(0), measured=measured)


def failed(step: str = "a", *, will_retry: bool = False) -> e.TaskFailed:
    return e.TaskFailed(step=step, error=ERROR, will_retry=will_retry)


def execution_failed() -> e.ExecutionFailed:
    return e.ExecutionFailed(error=ERROR, failed_steps=("a",))
