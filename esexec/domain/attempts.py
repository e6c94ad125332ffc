"""What an observation of an attempt means. The failure order stands in `_failed`: retry, else the step fails.

An outcome is accepted once per (step, run, attempt). What comes late is `stale`: it changes nothing, and whoever still
works on a closed attempt is told to stop.
"""

from datetime import datetime, timedelta

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.advance import advance
from esexec.domain.decision import APPLIED, Decision, Verdict
from esexec.domain.errors import ErrorInfo
from esexec.domain.retry import delay_ms, may_retry
from esexec.domain.state import StepState


def decide_report(decision: Decision, report: r.Report, step_id: str, attempt_id: str, time: datetime) -> Verdict:
    """Record what a report says of the attempt `attempt_id` (`<run>-<attempt>`) of a step, and what follows."""
    state = decision.state
    run, attempt = parse_attempt(attempt_id)
    index = state.graph.index.get(step_id) if state.exists else None
    if index is None or run > state.run:
        return Verdict("unknown")
    step = state.steps[index]
    if run < state.run or attempt < step.attempt or (attempt == step.attempt and not step.open):
        # A start closes nothing, so no effect of the closing commit is owed to it.
        return Verdict("stale", n=0 if isinstance(report, r.Started) else step.closed_by(attempt))
    if attempt > step.attempt:
        return Verdict("unknown")
    before = len(decision.events)
    _Attempt(decision, index, step).observe(report)
    if len(decision.events) == before:
        return APPLIED if isinstance(report, r.Started) else Verdict("ineffective")
    decision.cause(f"{report.__struct_config__.tag}/{step_id}/{attempt_id}", time)
    if not step.open:  # a start frees nothing; and its repetition could not name the commit whose effects it caused
        advance(decision)
    return APPLIED


def parse_attempt(attempt_id: str) -> tuple[int, int]:
    """`"1-3"` → run 1, attempt 3; anything else → an attempt that no history knows."""
    run, _, attempt = attempt_id.partition("-")
    if run.isascii() and run.isdigit() and attempt.isascii() and attempt.isdigit() and len(attempt_id) < 20:
        return int(run), int(attempt)
    return 1 << 62, 0


class _Attempt:
    """The open attempt of a step, and what is decided about it."""

    __slots__ = ("attempt", "decision", "index", "step", "step_id")

    def __init__(self, decision: Decision, index: int, step: StepState) -> None:
        self.decision, self.index, self.step = decision, index, step
        self.step_id = decision.state.graph.steps[index].id
        self.attempt = step.attempt

    def observe(self, report: r.Report) -> None:
        match report:
            case r.Completed():
                self.started(report.started_at, report.worker)
                self.decision.emit(
                    e.TaskCompleted(
                        step=self.step_id,
                        attempt=self.attempt,
                        run=self.decision.state.run,
                        ended_at=report.ended_at,
                        output=report.output,
                    )
                )
            case r.Started():
                self.started(report.started_at, report.worker)
            case r.Failed():
                self.started(report.started_at, report.worker)
                self.failed(report.error, report.ended_at)
            case r.TimedOut():
                self.started(report.started_at, report.worker)
                self.timed_out(report.ended_at, report.ended)
            case r.Stopped():
                self.stopped(report)
            case r.Lost():
                self.lost(report)
            case r.Withdrawn():
                if self.decision.state.cancel:
                    self.cancelled(None)

    def started(self, started_at: datetime | None, worker: str) -> None:
        """`TaskStarted` is an event of every attempt that began, exactly once, whichever report tells it first."""
        if started_at is not None and self.step.started_at is None:
            self.decision.emit(
                e.TaskStarted(
                    step=self.step_id, attempt=self.attempt, run=self.decision.state.run, started_at=started_at, worker=worker
                )
            )

    def failed(self, error: ErrorInfo, ended_at: datetime | None) -> None:
        will_retry, exhausted = self._retry(error)
        self.decision.emit(
            e.TaskFailed(
                step=self.step_id,
                attempt=self.attempt,
                run=self.decision.state.run,
                error=error,
                ended_at=ended_at,
                will_retry=will_retry,
                retries_exhausted=exhausted,
            )
        )
        if will_retry:
            self._schedule_retry(error)

    def timed_out(self, ended_at: datetime | None, ended: e.Ending | None) -> None:
        timeout_ms = self.decision.state.policy_of(self.index).timeout_ms
        error = ErrorInfo(
            type="timeout_error",
            code="task_timeout",
            message=f"{self.step_id} ran longer than its timeout of {timeout_ms} ms",
            task_id=self.step_id,
            attempt=self.attempt,
            timestamp=self.decision.time,
        )
        will_retry, exhausted = self._retry(error)
        self.decision.emit(
            e.TaskTimedOut(
                step=self.step_id,
                attempt=self.attempt,
                run=self.decision.state.run,
                timeout_ms=timeout_ms,
                error=error,
                ended_at=ended_at,
                ended=ended,
                will_retry=will_retry,
                retries_exhausted=exhausted,
            )
        )
        if will_retry:
            self._schedule_retry(error)

    def stopped(self, report: r.Stopped) -> None:
        """Its worker ended the handler because it was told to: the end of a cancelled attempt, else a failure to retry."""
        self.started(report.started_at, report.worker)
        if self.decision.state.cancel:
            self.cancelled(report.ended)
        else:
            stopped = ErrorInfo(
                type="execution_error",
                code="stopped",
                message="the handler was stopped by its worker",
                retryable=True,
                task_id=self.step_id,
            )
            self.failed(stopped, report.ended_at)

    def lost(self, report: r.Lost) -> None:
        """The attempt's holder was lost and another has it. Too many losses, or a start too long ago, end the attempt."""
        policy = self.decision.state.policy_of(self.index)
        if report.losses >= limits.losses_per_attempt:
            error = ErrorInfo(
                type="execution_error",
                code="WORKER_LOST",
                message=f"{report.losses} workers were lost while they ran {self.step_id}",
                retryable=True,
                task_id=self.step_id,
                attempt=self.attempt,
            )
            self.failed(error, None)
        elif policy.timeout_ms and self.step.started_time is not None:
            allowed = timedelta(milliseconds=policy.timeout_ms + limits.timeout_grace_ms)
            if self.decision.time - self.step.started_time > allowed:
                self.timed_out(None, None)

    def cancelled(self, ended: e.Ending | None) -> None:
        self.decision.emit(e.TaskCancelled(step=self.step_id, attempt=self.attempt, run=self.decision.state.run, ended=ended))

    def _retry(self, error: ErrorInfo) -> tuple[bool, bool]:
        """Whether the attempt is repeated, and whether it would have been but for `max_retries`."""
        state = self.decision.state
        policy = state.policy_of(self.index)
        if state.ending or not may_retry(policy, error):
            return False, False
        return (True, False) if self.attempt <= policy.max_retries else (False, True)

    def _schedule_retry(self, error: ErrorInfo) -> None:
        decision = self.decision
        delay = delay_ms(decision.state.policy_of(self.index), self.attempt, error, decision.chance)
        decision.emit(
            e.TaskRetryScheduled(
                step=self.step_id,
                attempt=self.attempt + 1,
                run=decision.state.run,
                delay_ms=delay,
                due=decision.time + timedelta(milliseconds=delay),
            )
        )
