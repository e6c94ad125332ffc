"""The read model of alerts: what is set, what holds, what held. And the alerts on their way to those who want to be told.

What `alerting` works out is written in the transaction of the commits that it was worked out from, together with what is yet to
be told: so nothing is told twice, or not at all, however this process ends. Once a second the clock is looked at, and the samples
that came meanwhile.
"""

import asyncio
from collections import deque
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec
from eventsourcing.persistence import Tracking

from esexec.domain.alerts import Alert
from esexec.world import now
from projections.alerting import Active, AlertingState, Evaluator, Sample, SetAlert
from projections.looking import Looking
from projections.outbox import Outbox
from projections.projection import Projection, RecordedEvent
from projections.source import Recorded
from projections.tables import Row, Table, Where
from projections.view import View

ALERTS = Table("alerts", key=("id",), columns={"id": str, "data": bytes})
"""What is set, and what is known of it by now."""
COUNTS = Table("counts", key=("id",), columns={"id": str, "ended": int, "data": bytes}, indexes=[("ended",)])
"""What is counted of each execution."""
OCCURRENCES = Table(
    "occurrences",
    key=("id",),
    columns={"id": str, "rank": int, "state": str, "alert_id": str, "execution_id": str, "data": bytes},
    indexes=[("rank", "id"), ("state", "rank", "id"), ("alert_id", "rank", "id"), ("execution_id", "rank", "id")],
)
"""Each alert, as it was told last. `rank`: when it was triggered, in microseconds since 1970."""
UNTOLD = Table("untold", key=("number",), columns={"number": int, "data": bytes})
"""What is yet to be told, in order."""
CLOCK = Table("clock", key=("id",), columns={"id": int, "time": str, "heard": str, "version": int, "number": int})
"""One row: up to when the log was judged, and samples; the version of `_alerts`, the number of the last that was to be told."""

_BEHIND = timedelta(seconds=1)
"""The clock is looked at as it was then: what was stored until then has surely been heard."""
_SAMPLES = 10_000
_encode = msgspec.json.Encoder().encode
_set_alert = msgspec.json.Decoder(SetAlert).decode
_active = msgspec.json.Decoder(Active).decode
_alert = msgspec.json.Decoder(Alert).decode


class AlertsProjection(Projection):
    """See the module."""

    name = "alerts"
    tables = (ALERTS, COUNTS, OCCURRENCES, UNTOLD, CLOCK)
    tick_s: ClassVar[float] = 1.0

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._evaluator: Evaluator | None = None
        self._told: list[Alert] = []
        self._number = 0
        self._written: list[tuple[int, Alert]] = []
        """Yet to be told, and not handed to the outbox so far."""
        self._samples: deque[tuple[Sample, datetime]] = deque(maxlen=_SAMPLES)
        self._outbox: Outbox | None = None
        self._looking: Looking | None = None

    # The work of this process ----------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        self.forget()
        evaluator = await asyncio.to_thread(self._ready)
        evaluator.resume(self._now())
        if self.outside is None:
            return
        if self._outbox is None:
            self._outbox = Outbox(self.outside)
            self._outbox.start()
        if self._looking is None:
            self._looking = Looking(self.outside, self._samples, self._wanted)
            await self._looking.start()
        self._outbox.begin(self._written)
        self._written = []

    async def end(self) -> None:
        outbox, looking, self._outbox, self._looking = self._outbox, self._looking, None, None
        if outbox is not None:
            await outbox.stop()
        if looking is not None:
            await looking.stop()

    def _wanted(self) -> frozenset[str]:
        return self._evaluator.sampled if self._evaluator is not None else frozenset()

    def _now(self) -> datetime:
        return self._looking.now() if self._looking is not None else now()

    # What is kept ------------------------------------------------------------------------------------------------------------

    def _ready(self) -> Evaluator:
        """What is in the view, to go on from."""
        if self._evaluator is None:
            state = AlertingState()
            if (clock := self.view.get(CLOCK, 1)) is not None:
                state.clock, state.heard = datetime.fromisoformat(clock.time), datetime.fromisoformat(clock.heard)
                state.version = clock.version
                self._number = clock.number
            state.alerts = {row.id: _set_alert(row.data) for row in self.view.select(ALERTS)}
            active = self.view.select(COUNTS, [Where("ended", "=", 0)])
            state.executions = {row.id: _active(row.data) for row in active}
            self._written = [(row.number, _alert(row.data)) for row in self.view.select(UNTOLD, order=["number"])]
            self._evaluator = Evaluator(state)
        return self._evaluator

    def process_commit(self, recorded: Recorded) -> None:
        evaluator, entity = self._ready(), recorded.entity
        is_known = entity in evaluator.state.executions or entity[0] == "_" or recorded.n == 1
        if not is_known and (row := self.view.get(COUNTS, entity)) is not None:  # it had ended, and goes on
            evaluator.remember(_active(row.data))
        self._told += evaluator.commit(recorded.commit)

    def process_event(self, domain_event: RecordedEvent, tracking: Tracking) -> None:
        raise NotImplementedError("it goes by commits")

    def tick(self, *, caught_up: bool) -> bool:
        evaluator, clock = self._evaluator, self._now()
        if evaluator is None:
            return False
        while self._samples:
            sample, at = self._samples.popleft()
            self._told += evaluator.sample(sample, at)
        self._told += evaluator.tick_samples(clock)
        if caught_up:
            self._told += evaluator.tick(clock - _BEHIND)
        return bool(self._told) or (self._outbox is not None and bool(self._outbox.told))

    def finish(self) -> None:
        evaluator = self._ready()
        alerts, executions = evaluator.state.alerts, evaluator.state.executions
        touched, evaluator.touched_alerts = evaluator.touched_alerts, set()
        counted, evaluator.touched_executions = evaluator.touched_executions, set()
        told, self._told = self._told, []
        self._put(ALERTS, [ALERTS.row(one, _encode(alerts[one])) for one in touched if one in alerts])
        if gone := [(one,) for one in touched if one not in alerts]:
            self.view.delete(ALERTS, gone)
        changed = [executions[one] for one in counted if one in executions]
        self._put(COUNTS, [COUNTS.row(one.execution_id, int(one.ended), _encode(one)) for one in changed])
        self._put(OCCURRENCES, [_occurrence(alert) for alert in told])
        numbered = [*enumerate(told, self._number + 1)]
        self._number += len(numbered)
        self._put(UNTOLD, [UNTOLD.row(number, _encode(alert)) for number, alert in numbered])
        if self._outbox is not None and (done := self._outbox.take_told()):
            self.view.delete(UNTOLD, [(number,) for number in done])
        state = evaluator.state
        clock = CLOCK.row(1, state.clock.isoformat(), state.heard.isoformat(), state.version, self._number)
        self.view.put(CLOCK, [clock])
        evaluator.forget([one.execution_id for one in changed if one.ended])
        self._written += numbered

    def _put(self, table: Table, rows: list[Row]) -> None:
        if rows:
            self.view.put(table, rows)

    async def settled(self) -> None:
        written, self._written = self._written, []
        if self._outbox is not None and written:
            self._outbox.offer(written)

    def forget(self) -> None:
        self._evaluator, self._told, self._written = None, [], []


def _occurrence(alert: Alert) -> Any:
    rank = round(alert.triggered_at.timestamp() * 1_000_000)
    return OCCURRENCES.row(alert.id, rank, alert.state, alert.alert_id, alert.execution_id, _encode(alert))
