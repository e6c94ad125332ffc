"""Which alerts an execution, a metric or a sample concerns: looked up, not searched, for every commit asks."""

from collections.abc import Iterable

from esexec.domain.alerts import METRICS, SAMPLED
from projections.alerting.state import Active, SetAlert


class Scopes:
    """Of the alerts that are set now."""

    def __init__(self, alerts: Iterable[SetAlert]) -> None:
        self.sampled: dict[str, list[SetAlert]] = {}
        """By metric."""
        self.windows: dict[str, list[SetAlert]] = {}
        """Those that are counted over a window, by metric."""
        self.reported: set[str] = set()
        """Metrics of handlers that are judged of each execution."""
        self._of_all: list[SetAlert] = []
        self._of_plans: dict[str, list[SetAlert]] = {}
        self._of_executions: dict[str, list[SetAlert]] = {}
        for alert in sorted(alerts, key=lambda one: one.version):
            self._sort(alert)

    def _sort(self, alert: SetAlert) -> None:
        condition = alert.condition
        if condition.metric in SAMPLED:
            self.sampled.setdefault(condition.metric, []).append(alert)
        elif not condition.of_each:
            self.windows.setdefault(condition.metric, []).append(alert)
        else:
            if condition.metric not in METRICS:
                self.reported.add(condition.metric)
            if condition.execution_id is not None:
                self._of_executions.setdefault(condition.execution_id, []).append(alert)
            elif condition.plan is not None:
                self._of_plans.setdefault(condition.plan, []).append(alert)
            else:
                self._of_all.append(alert)

    def each_of(self, active: Active) -> list[SetAlert]:
        """Those that are judged of this execution for itself."""
        found = self._of_all
        if self._of_plans:
            found = found + self._of_plans.get(active.plan_id, [])
            if active.name != active.plan_id:
                found = found + self._of_plans.get(active.name, [])
        if self._of_executions:
            found = found + self._of_executions.get(active.execution_id, [])
        return found

    @staticmethod
    def covers(alert: SetAlert, active: Active) -> bool:
        """Whether the execution is within the scope."""
        condition = alert.condition
        if condition.execution_id is not None:
            return condition.execution_id == active.execution_id
        return condition.plan is None or condition.plan in (active.plan_id, active.name)
