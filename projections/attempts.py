"""The attempts of an execution, followed event by event: which are open, and what each spends its time with. Pure.

A step has one open attempt at most, so what is kept is bounded by the steps in flight. Times are the log's, but for how long a
handler ran: that is its worker's clock's. So that clocks which differ do not tell nonsense, its span is moved as far as it must
be to lie between the moment it was handed out and the moment its end was stored.
"""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from esexec.domain import events as e
from esexec.domain.messages import Purpose
from esexec.views import Bar, Outcome, Span, SpanKind

Opening = e.TaskScheduled | e.CompensationScheduled | e.RecoveryInitiated
"""Hands out an attempt, as soon as it may be."""
Delay = e.TaskRetryScheduled | e.CompensationRetryScheduled
"""The next attempt is waited for."""
ENDINGS: Final = (e.ExecutionCompleted, e.ExecutionFailed, e.ExecutionCancelled, e.ExecutionRolledBack)
NEW_RUNS: Final = (e.ExecutionRetried, e.CheckpointRestored)


class Attempt(msgspec.Struct, kw_only=True, gc=False):
    """One attempt so far. `past`: its spans that are over; what it does since `since` is `doing`, None once it has ended.

    `began`: when its handler began, by its worker's clock. `tried`: it was scheduled, and not only waited for.
    """

    step: str
    attempt: int
    run: int
    purpose: Purpose
    doing: SpanKind | None
    since: datetime
    by: str = ""
    past: list[Span] = []
    began: datetime | None = None
    handed_out: datetime | None = None
    worker: str = ""
    tried: bool = False
    cached: bool = False
    outcome: Outcome | None = None

    @property
    def running(self) -> Span | None:
        """The time in which its handler ran, once it has ended."""
        return self.past[-1] if self.past and self.past[-1].kind == "running" else None

    @property
    def earliest_start(self) -> datetime | None:
        """Its handler may have begun at that time, though nobody said so yet; None: it did not begin before now."""
        if self.doing == "running":
            return self.handed_out
        return self.since if self.doing in ("queued", "held") else None  # one that is held may have begun all the same

    def turn(self, doing: SpanKind | None, time: datetime, by: str = "") -> None:
        """From now on it does something else; what took no time is not told, unless it ran."""
        if self.doing is not None and (time > self.since or self.doing == "running"):
            self.past.append(Span(kind=self.doing, start=self.since, end=max(time, self.since), by=self.by))
        self.doing, self.since, self.by = doing, time, by

    def start(self, began: datetime, time: datetime, worker: str) -> None:
        self.handed_out = self.since
        self.began, self.worker = began, worker
        self.turn("running", min(max(began, self.since), time))

    def end(self, outcome: Outcome, time: datetime, ended: datetime | None) -> None:
        if self.doing == "running" and self.began is not None and self.handed_out is not None and ended is not None:
            took = max(min(ended - self.began, time - self.handed_out), timedelta())  # whatever a worker says
            end = min(self.since + took, time)
            start = max(self.handed_out, end - took)
            if start < self.since:  # the worker's clock is ahead of the log's
                self._begin_sooner(start)
            self.turn(None, end)
        else:
            self.turn(None, time)
        self.outcome = outcome

    def _begin_sooner(self, start: datetime) -> None:
        if self.past and self.past[-1].end == self.since:
            before = self.past.pop()
            if start > before.start:
                self.past.append(msgspec.structs.replace(before, end=start))
        self.since = start

    def bar(self) -> Bar:
        """As it stands."""
        going = () if self.doing is None else (Span(kind=self.doing, start=self.since, by=self.by),)
        return Bar(
            step=self.step,
            attempt=self.attempt,
            run=self.run,
            purpose=self.purpose,
            worker=self.worker,
            outcome=self.outcome,
            spans=(*self.past, *going),
        )


class Attempts:
    """All attempts of one execution. `take` every event in order, with the time of its commit."""

    def __init__(self) -> None:
        self.open: dict[str, Attempt] = {}
        """By step; an attempt whose retry is waited for is here as well."""
        self._paused = False
        self._fallbacks: set[str] = set()

    def take(self, time: datetime, event: e.Event) -> list[Attempt]:
        """The attempts that ended with this event."""
        match event:
            case e.TaskScheduled() | e.CompensationScheduled() | e.RecoveryInitiated():
                self._opened(time, event)
            case e.TaskRetryScheduled() | e.CompensationRetryScheduled():
                self.open[event.step] = self._new(event, "back_off", time)
            case e.FallbackStarted():
                self._fallbacks.add(event.step)
            case e.TaskStarted() | e.CompensationStarted() | e.RecoveryStarted():
                if (attempt := self.open.get(event.step)) is not None:
                    attempt.start(event.started_at, time, event.worker)
            case e.TaskCacheHit():
                if (attempt := self.open.get(event.step)) is not None:
                    attempt.cached = True
                    attempt.start(event.found_at, time, event.worker)
            case e.TaskWaiting() | e.TaskRateLimited() | e.TaskGranted() | e.ResourceAllocated():
                self._gate(time, event)
            case e.TaskHeld():
                if (attempt := self.open.get(event.step)) is not None:
                    attempt.turn("held", time)
            case e.ExecutionPaused() | e.ExecutionCancelRequested():
                self._paused = isinstance(event, e.ExecutionPaused)
            case e.ExecutionResumed():
                self._resumed(time)
            case e.ExecutionRetried() | e.CheckpointRestored():
                self._fallbacks.clear()
                return self._all_end(time)
            case e.ExecutionCompleted() | e.ExecutionFailed() | e.ExecutionCancelled() | e.ExecutionRolledBack():
                self._paused = False
                return self._all_end(time)
            case _:
                return self._perhaps_ended(time, event)
        return []

    def _new(self, event: Opening | Delay, doing: SpanKind, time: datetime) -> Attempt:
        purpose: Purpose = "fallback" if event.step in self._fallbacks else "task"
        if isinstance(event, e.CompensationScheduled | e.CompensationRetryScheduled):
            purpose = "compensation"
        elif isinstance(event, e.RecoveryInitiated):
            purpose = "recovery"
        return Attempt(step=event.step, attempt=event.attempt, run=event.run, purpose=purpose, doing=doing, since=time)

    def _opened(self, time: datetime, event: Opening) -> None:
        doing: SpanKind = "held" if self._paused else "queued"
        attempt = self.open.get(event.step)
        if attempt is not None and attempt.attempt == event.attempt and attempt.doing == "back_off":
            attempt.turn(doing, time)
        else:
            attempt = self.open[event.step] = self._new(event, doing, time)
        attempt.tried = True

    def _gate(self, time: datetime, event: e.TaskWaiting | e.TaskRateLimited | e.TaskGranted | e.ResourceAllocated) -> None:
        """What it must be granted, it has waited for since it was scheduled, or granted the gate before."""
        attempt = self.open.get(event.step)
        if attempt is None or attempt.doing not in ("queued", "waiting"):
            return
        match event:
            case e.TaskWaiting() | e.TaskGranted():
                by: str = event.by
            case e.TaskRateLimited():
                by = "rate_limit"
            case e.ResourceAllocated():
                by = "resources"
        attempt.doing, attempt.by = "waiting", by
        if isinstance(event, e.TaskGranted | e.ResourceAllocated):
            attempt.turn("queued", time)

    def _resumed(self, time: datetime) -> None:
        self._paused = False
        for attempt in self.open.values():
            if attempt.doing == "held":
                attempt.turn("queued", time)

    def _perhaps_ended(self, time: datetime, event: e.Event) -> list[Attempt]:
        match event:
            case e.TaskCompleted():
                if event.worker and (attempt := self.open.get(event.step)) is not None:
                    attempt.worker = event.worker
                return self._ended(event.step, "completed", time, event.ended_at)
            case e.TaskFailed():
                return self._ended(event.step, "failed", time, event.ended_at)
            case e.TaskTimedOut():
                return self._ended(event.step, "timed_out", time, event.ended_at)
            case e.TaskCancelled() | e.TaskSkipped():
                return self._ended(event.step, "cancelled", time, None)
            case e.CompensationCompleted():
                return self._ended(event.step, "completed", time, event.ended_at)
            case e.CompensationFailed():
                given_up = event.error.code == "cancelled"
                return self._ended(event.step, "cancelled" if given_up else "failed", time, event.ended_at)
            case e.RecoveryCompleted():
                return self._ended(event.step, "completed" if event.success else "failed", time, event.ended_at)
        return []

    def _ended(self, step: str, outcome: Outcome, time: datetime, ended: datetime | None) -> list[Attempt]:
        attempt = self.open.pop(step, None)
        if attempt is None:
            return []
        attempt.end("cached" if attempt.cached and outcome == "completed" else outcome, time, ended)
        return [attempt]

    def _all_end(self, time: datetime) -> list[Attempt]:
        """A run is over, and with it whatever is still open: nobody waits for it."""
        left, self.open = [*self.open.values()], {}
        for attempt in left:
            attempt.end("abandoned" if attempt.doing != "back_off" else "cancelled", time, None)
        return left
