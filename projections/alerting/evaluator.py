"""Judging: takes what happened, in order, and gives the alerts that were triggered or resolved by it.

Whatever can change by time alone is on an agenda (`Dues`), by the instant at which it does; every step first carries out what was
due until then, in order. So it does not matter how often, or how late, somebody looks.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.alerts import SAMPLED, Alert
from esexec.domain.commit import Commit
from projections.alerting import measuring, words
from projections.alerting.dues import Due, Dues, turn_of
from projections.alerting.samples import STALE_MS, Sample
from projections.alerting.scopes import Scopes
from projections.alerting.state import Active, AlertingState, Sampled, SetAlert, Watch
from projections.timeline import said

_STALE = timedelta(milliseconds=STALE_MS)
_ENDS = frozenset({e.ExecutionCompleted, e.ExecutionFailed, e.ExecutionCancelled, e.ExecutionRolledBack})


class Evaluator:
    """See the module. `touched_alerts`, `touched_executions`: whose rows of the state changed; for whoever stores them.

    Executions that have ended stay in the state until they are taken out (`forget`), and can be put in again (`remember`).
    """

    def __init__(self, state: AlertingState | None = None) -> None:
        self.state = AlertingState() if state is None else state
        self.touched_alerts: set[str] = set()
        self.touched_executions: set[str] = set()
        self._told: list[Alert] = []
        self._scopes = Scopes(self.state.alerts.values())
        self._logged, self._live = Dues(), Dues()
        self._fill()

    # What happens --------------------------------------------------------------------------------------------------------

    def commit(self, commit: Commit, at: datetime | None = None) -> list[Alert]:
        """The next commit of the log, which was stored `at`; where that is not known, when it was decided."""
        at = max(self.state.clock, at or commit.time)
        self._advance(at)
        if commit.execution_id == "_alerts":
            for event in commit.events:
                self.state.version += 1
                if isinstance(event, e.AlertSet):
                    self._drop(event.alert_id, at, "it was set anew")
                    self._set(event, at)
                elif isinstance(event, e.AlertRemoved):
                    self._drop(event.alert_id, at, "it is not watched any more")
        elif not commit.execution_id.startswith("_"):
            self._happened(commit, at)
        self._advance(at)
        return self._tell()

    def tick(self, at: datetime) -> list[Alert]:
        """It is `at`, and every commit that was stored before was taken: carry out what was due."""
        self._advance(at)
        return self._tell() + self.tick_samples(at)

    def tick_samples(self, at: datetime) -> list[Alert]:
        """As `tick`, for what is sampled; the log need not have been read."""
        self.state.heard = at = max(self.state.heard, at)
        for due in self._live.until(at):
            alert = self.state.alerts.get(due.alert_id)
            sampled = alert.sources.get(due.about) if alert is not None else None
            if alert is not None and sampled is not None:
                self._judge_sampled(alert, due.about, sampled, due.at)
        return self._tell()

    def sample(self, sample: Sample, at: datetime) -> list[Alert]:
        """Somebody looked, `at`."""
        told = self.tick_samples(at)
        at = self.state.heard
        for alert in self._scopes.sampled.get(sample.metric, ()):
            if self._concerns(alert, sample):
                known = alert.sources.get(sample.source)
                if known is None:
                    if len(alert.sources) >= limits.alert_sources:
                        continue
                    known = alert.sources[sample.source] = Sampled(sample.value, at, Watch())
                known.value, known.heard_at = sample.value, at
                self.touched_alerts.add(alert.alert_id)
                self._judge_sampled(alert, sample.source, known, at)
        return told + self._tell()

    def resume(self, at: datetime) -> None:
        """Nobody listened to samples until now: what was told stands until the next one; what had begun begins anew."""
        self.state.heard = at = max(self.state.heard, at)
        for alert in self.state.alerts.values():
            for sampled in alert.sources.values():
                sampled.heard_at = at
                if sampled.watch.alert is None:
                    sampled.watch.since = None
                self.touched_alerts.add(alert.alert_id)
        self._fill()

    def forget(self, executions: Iterable[str]) -> None:
        """Take executions that have ended out of the state."""
        for execution_id in executions:
            if (active := self.state.executions.get(execution_id)) is not None and active.ended:
                del self.state.executions[execution_id]

    def remember(self, active: Active) -> None:
        """Put one in again, before a commit of its is taken."""
        self.state.executions.setdefault(active.execution_id, active)

    @property
    def sampled(self) -> frozenset[str]:
        """The metrics of which samples are of use."""
        return frozenset(self._scopes.sampled)

    # Alerts --------------------------------------------------------------------------------------------------------------

    def _set(self, event: e.AlertSet, at: datetime) -> None:
        alert = SetAlert(event.alert_id, self.state.version, event.condition, at, event.webhook)
        self.state.alerts[event.alert_id] = alert
        self._changed(alert)
        if event.condition.metric in SAMPLED:
            return
        if event.condition.of_each:
            for active in self._in_order():
                if not active.ended and self._scopes.covers(alert, active):
                    self._judge_execution(alert, active, at)
        else:
            self._judge_scope(alert, at)

    def _drop(self, alert_id: str, at: datetime, why: str) -> None:
        alert = self.state.alerts.pop(alert_id, None)
        if alert is None:
            return
        self._resolve(alert.watch, at, None, why)
        for _, sampled in sorted(alert.sources.items()):
            self._resolve(sampled.watch, at, None, why)
        for active in self._in_order():
            if (watch := active.watches.pop(alert_id, None)) is not None:
                self._resolve(watch, at, None, why)
                self.touched_executions.add(active.execution_id)
        self._changed(alert)

    def _in_order(self) -> list[Active]:
        """The executions, in an order that does not depend on how they came into the state."""
        return [active for _, active in sorted(self.state.executions.items())]

    def _changed(self, alert: SetAlert) -> None:
        self.touched_alerts.add(alert.alert_id)
        self._scopes = Scopes(self.state.alerts.values())

    # Executions ----------------------------------------------------------------------------------------------------------

    def _happened(self, commit: Commit, at: datetime) -> None:
        execution_id = commit.execution_id
        active = self.state.executions.get(execution_id)
        if active is None:
            active = self.state.executions[execution_id] = Active(execution_id)
        self.touched_executions.add(execution_id)
        counted: set[str] = set()
        for event in commit.events:
            match event:
                case e.ExecutionCreated():
                    active.plan_id, active.name = event.plan_id, event.name
                case e.ExecutionStarted():
                    active.began_at = commit.time
                case e.ExecutionRetried() | e.CheckpointRestored():
                    active.began_at, active.ended = commit.time, False
                case e.RollbackStarted():
                    active.undoing_failure = event.by == "failure"
                    active.began_at = commit.time if active.ended else active.began_at
                    active.ended = False
            if type(event) in measuring.COUNTED:
                counted |= self._count(active, event, at)
            if type(event) in _ENDS:
                self._end(active, event, at)
        if not active.ended:
            for alert in self._scopes.each_of(active):
                self._judge_execution(alert, active, at)
        for alert_id in sorted(counted):
            self._judge_scope(self.state.alerts[alert_id], at)

    def _count(self, active: Active, event: e.Event, at: datetime) -> set[str]:
        """Count it; in the windows of which alerts."""
        counted: set[str] = set()
        for news in measuring.count(active, event):
            if news.metric in self._scopes.reported:
                active.reported[news.metric] = news.amount, self.state.version
            for alert in self._scopes.windows.get(news.metric, ()):
                if self._scopes.covers(alert, active):
                    measuring.add(alert.buckets, alert.condition, news, at)
                    counted.add(alert.alert_id)
        return counted

    def _end(self, active: Active, event: e.Event, at: datetime) -> None:
        """What held at the end is told, and over."""
        failed = isinstance(event, e.ExecutionFailed) or (isinstance(event, e.ExecutionRolledBack) and active.undoing_failure)
        for alert in self._scopes.each_of(active):
            watch = active.watches.setdefault(alert.alert_id, Watch())
            if alert.condition.metric == "execution_failed":
                if failed:
                    error = getattr(event, "error", None)
                    self._judge(alert, watch, 1.0, at, active.execution_id, detail=said(error) if error else "")
            else:
                self._judge_execution(alert, active, at)
            self._resolve(watch, at, measuring.value_of(active, alert, at), "it has ended")
        active.ended, active.undoing_failure = True, False
        active.watches = {alert_id: watch for alert_id, watch in active.watches.items() if watch.last is not None}

    # Judging -------------------------------------------------------------------------------------------------------------

    def _judge_execution(self, alert: SetAlert, active: Active, at: datetime) -> None:
        condition = alert.condition
        if condition.metric == "execution_failed":
            return
        watch = active.watches.get(alert.alert_id)
        if watch is None:
            watch = active.watches[alert.alert_id] = Watch()
        self.touched_executions.add(active.execution_id)
        self._judge(alert, watch, measuring.value_of(active, alert, at), at, active.execution_id)
        if condition.metric == "execution_duration" and active.began_at is not None:
            self._logged.add(turn_of(condition, active.began_at, at), alert.alert_id, active.execution_id)

    def _judge_scope(self, alert: SetAlert, at: datetime) -> None:
        self.touched_alerts.add(alert.alert_id)
        self._logged.add(measuring.move(alert.buckets, alert.condition, at), alert.alert_id)
        self._judge(alert, alert.watch, measuring.total_of(alert.buckets, alert.condition.metric), at)

    def _judge_sampled(self, alert: SetAlert, source: str, sampled: Sampled, at: datetime) -> None:
        self.touched_alerts.add(alert.alert_id)
        if at >= sampled.heard_at + _STALE:
            self._resolve(sampled.watch, at, None, f"nothing was heard for {STALE_MS // 1000} s")
            del alert.sources[source]
            return
        self._live.add(sampled.heard_at + _STALE, alert.alert_id, source)
        self._judge(alert, sampled.watch, sampled.value, at, source=source)

    def _judge(
        self,
        alert: SetAlert,
        watch: Watch,
        value: float | None,
        at: datetime,
        execution_id: str | None = None,
        source: str | None = None,
        detail: str = "",
    ) -> None:
        """Whether the condition holds `at`, for this value; and for long enough."""
        if value is None or not alert.condition.holds(value):
            self._resolve(watch, at, value)
            return
        if watch.alert is not None:
            return
        watch.since = watch.since or at
        due = watch.since + timedelta(milliseconds=alert.condition.duration_ms)
        if due > at:
            (self._logged if source is None else self._live).add(due, alert.alert_id, execution_id or source or "")
            return
        watch.again = watch.again + 1 if watch.last == due else 0
        watch.last = due
        about = words.about(alert.condition, execution_id, source)
        watch.alert = Alert(
            id=_occurrence(alert, execution_id or source or "", watch),
            alert_id=alert.alert_id,
            state="triggered",
            condition=alert.condition,
            triggered_at=due,
            execution_id=execution_id or alert.condition.execution_id,
            source=source,
            value=value,
            message=words.triggered(alert.condition, about, value, detail),
        )
        self._told.append(watch.alert)

    def _resolve(self, watch: Watch, at: datetime, value: float | None, why: str = "") -> None:
        alert, watch.since, watch.alert = watch.alert, None, None
        if alert is not None:
            self._told.append(
                Alert(
                    id=alert.id,
                    alert_id=alert.alert_id,
                    state="resolved",
                    condition=alert.condition,
                    triggered_at=alert.triggered_at,
                    resolved_at=max(at, alert.triggered_at),
                    execution_id=alert.execution_id,
                    source=alert.source,
                    value=value,
                    message=words.resolved(alert.condition, alert.message, value, why),
                )
            )

    # Time ----------------------------------------------------------------------------------------------------------------

    def _advance(self, at: datetime) -> None:
        """Carry out what was due until then, in the order in which it was."""
        for due in self._logged.until(at):
            self._look(due)
        self.state.clock = max(self.state.clock, at)
        if self._logged.crowded:
            self._fill()

    def _look(self, due: Due) -> None:
        alert = self.state.alerts.get(due.alert_id)
        if alert is None or alert.condition.metric in SAMPLED:
            return
        if not alert.condition.of_each:
            self._judge_scope(alert, due.at)
            return
        active = self.state.executions.get(due.about)
        if active is not None and not active.ended and self._scopes.covers(alert, active):
            self._judge_execution(alert, active, due.at)

    def _fill(self) -> None:
        """Everything that is due some time, from the state alone."""
        self._logged.clear()
        self._live.clear()
        for alert in self.state.alerts.values():
            held = timedelta(milliseconds=alert.condition.duration_ms)
            for source, sampled in alert.sources.items():
                self._live.add(sampled.heard_at + _STALE, alert.alert_id, source)
                self._live.add(_holding(sampled.watch, held), alert.alert_id, source)
            if alert.buckets:
                buckets = alert.buckets[:]
                self._logged.add(measuring.move(buckets, alert.condition, self.state.clock), alert.alert_id)
            self._logged.add(_holding(alert.watch, held), alert.alert_id)
        for active in self.state.executions.values():
            if not active.ended:
                self._fill_of(active)

    def _fill_of(self, active: Active) -> None:
        for alert in self._scopes.each_of(active):
            if (watch := active.watches.get(alert.alert_id)) is not None:
                held = timedelta(milliseconds=alert.condition.duration_ms)
                self._logged.add(_holding(watch, held), alert.alert_id, active.execution_id)
            if alert.condition.metric == "execution_duration" and active.began_at is not None:
                turn = turn_of(alert.condition, active.began_at, self.state.clock)
                self._logged.add(turn, alert.alert_id, active.execution_id)

    # -----------------------------------------------------------------------------------------------------------------------

    def _concerns(self, alert: SetAlert, sample: Sample) -> bool:
        condition = alert.condition
        if condition.source not in (None, sample.source):
            return False
        if condition.execution_id is not None:
            return condition.execution_id in sample.executions
        if condition.plan is not None:
            known = map(self.state.executions.get, sample.executions)
            return any(map(partial(self._scopes.covers, alert), filter(None, known)))
        return True

    def _tell(self) -> list[Alert]:
        told, self._told = self._told, []
        return told


def _holding(watch: Watch, held: timedelta) -> datetime | None:
    """When a condition that holds will have held for long enough."""
    return watch.since + held if watch.since is not None and watch.alert is None else None


def _occurrence(alert: SetAlert, about: str, watch: Watch) -> str:
    assert watch.last is not None
    known = f"{alert.alert_id}/{alert.version}/{about}/{watch.last.isoformat()}/{watch.again}"
    return hashlib.sha256(known.encode()).hexdigest()[:32]
