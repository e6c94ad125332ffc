"""What an observation of an attempt means. The failure order stands in `_Attempt.failure`, and nowhere else:

    retry → recovery strategy → fallback → the step fails → (once nothing is in flight) the execution is rolled back

An outcome is accepted once per (step, run, attempt). What comes late is `stale`: it changes nothing, and whoever still
works on a closed attempt is told to stop.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.advance import advance
from esexec.domain.cached import CachedFrom
from esexec.domain.checkpoints import make_checkpoint, restore
from esexec.domain.decision import APPLIED, Decision, Verdict
from esexec.domain.errors import ErrorInfo, ValidationError
from esexec.domain.measures import Measured
from esexec.domain.recovery import outcome_of, vars_too_large
from esexec.domain.retry import delay_ms, may_retry
from esexec.domain.state import StepState
from esexec.domain.strategies import RecoveryOutcome, RecoveryVerb, Strategy, strategy_for

_OPENING = (r.Started, r.Before)
"""Reports that close nothing, so that no effect of the closing commit is owed to them."""


_STARTED = {
    "task": e.TaskStarted,
    "fallback": e.TaskStarted,
    "recovery": e.RecoveryStarted,
    "compensation": e.CompensationStarted,
}


def decide_report(decision: Decision, report: r.Report, step_id: str, attempt_id: str, time: datetime) -> Verdict:
    """Record what a report says of the attempt `attempt_id` (`<run>-<attempt>`) of a step, and what follows."""
    state = decision.state
    run, attempt = parse_attempt(attempt_id)
    index = state.graph.index.get(step_id) if state.exists else None
    if index is None or run > state.run:
        return Verdict("unknown")
    step = state.steps[index]
    if run < state.run:
        # Of a run that is over nothing is owed any more, unless this report began the next one (a recovery that went back).
        return Verdict("stale", n=state.begun[run] if run > 0 and isinstance(report, r.Completed) else 0)
    if attempt < step.attempt or (attempt == step.attempt and not step.open):
        return Verdict("stale", n=0 if isinstance(report, _OPENING) else step.closed_by(attempt))
    if attempt > step.attempt:
        return Verdict("unknown")
    if isinstance(report, r.Withdrawn) and (step.started_at is not None or (report.pause and report.pause != state.pause)):
        # Somebody has begun it all the same, or that pause is over, and whoever resumed may have seen the dispatch before it was
        # taken back: it has no lease now, so it is looked for.
        return Verdict("open")
    if isinstance(report, r.Lost) and report.losses >= limits.losses_per_attempt and step.started_at is None:
        # So often handed back, or lost before anybody said that it began: no handler's fault. Who reports it does not begin it.
        return Verdict("open")
    before = len(decision.events)
    _Attempt(decision, index, step).observe(report)
    if len(decision.events) == before:
        return APPLIED if isinstance(report, r.Started) else Verdict("ineffective")
    decision.cause(f"{report.__struct_config__.tag}/{step_id}/{attempt_id}", time)
    if not step.open or step.held:  # a start frees nothing; and its repetition could not name the commit whose effects it caused
        advance(decision)
    return APPLIED


def parse_attempt(attempt_id: str) -> tuple[int, int]:
    """`"1-3"` → run 1, attempt 3; anything else → an attempt that no history knows."""
    run, _, attempt = attempt_id.partition("-")
    if run.isascii() and run.isdigit() and attempt.isascii() and attempt.isdigit() and len(attempt_id) < 20:
        return int(run), int(attempt)
    return 1 << 62, 0


def abandon(decision: Decision, index: int) -> None:
    """The grace is over and the attempt has not ended: it is closed, and left to itself, if anybody can have it."""
    step = decision.state.steps[index]
    _Attempt(decision, index, step).cancelled(None if step.held else "abandoned")


def fail_attempt(decision: Decision, index: int, error: ErrorInfo) -> None:
    """The attempt cannot be handed out."""
    step = decision.state.steps[index]
    named = msgspec.structs.replace(
        error, task_id=decision.state.graph.steps[index].id, attempt=step.attempt, timestamp=decision.time
    )
    _Attempt(decision, index, step).failed(named, None)


class _WhatNext(NamedTuple):
    """What is tried once an attempt has failed; at most one of the first three."""

    retry: bool = False
    strategy: Strategy | None = None
    fallback: str | None = None
    exhausted: bool = False

    @property
    def anything(self) -> bool:
        return self.retry or self.instead is not None

    @property
    def instead(self) -> e.Instead | None:
        if self.strategy is not None:
            return "recovery"
        return "fallback" if self.fallback is not None else None


class _Attempt:
    """The open attempt of a step, and what is decided about it."""

    __slots__ = ("attempt", "decision", "index", "run", "state", "step", "step_id")

    def __init__(self, decision: Decision, index: int, step: StepState) -> None:
        self.decision, self.index, self.step = decision, index, step
        self.state = decision.state
        self.step_id = decision.state.graph.steps[index].id
        self.attempt, self.run = step.attempt, decision.state.run

    @property
    def what(self) -> str:
        """What the attempt carries out, for messages."""
        if self.step.purpose == "recovery" and self.step.recovery is not None:
            return f"recovery strategy {self.step.recovery.strategy}"
        return f"the undoing of {self.step_id}" if self.step.purpose == "compensation" else self.step_id

    def observe(self, report: r.Report) -> None:
        match report:
            case r.Completed():
                if report.cached is not None and self.step.purpose in ("task", "fallback"):
                    self.found(report.cached, report)
                else:
                    self.started(report.started_at, report.worker)
                self.completed(report)
            case r.Started():
                self.started(report.started_at, report.worker)
            case r.Failed():
                self.started(report.started_at, report.worker)
                self.failed(report.error, report.ended_at, report.vars, report.measured)
            case r.Rejected():
                error = msgspec.structs.replace(report.error, retryable=False, task_id=self.step_id, attempt=self.attempt)
                self.failed(error, report.ended_at, kind=e.TaskRejected)
            case r.TimedOut():
                self.started(report.started_at, report.worker)
                self.timed_out(report.ended_at, report.ended, report.measured)
            case r.Stopped():
                self.stopped(report)
            case r.Lost():
                self.lost(report)
            case r.Withdrawn():
                self.withdrawn(report.pause)
            case r.Before():
                if self.index not in self.state.images and self.step.purpose in ("task", "fallback"):
                    self.emit(e.BeforeImageRecorded, image=report.image)

    def emit(self, kind: type[Any], **fields: Any) -> None:
        self.decision.emit(kind(step=self.step_id, attempt=self.attempt, run=self.run, **fields))

    # Observations ----------------------------------------------------------------------------------------------------

    def started(self, started_at: datetime | None, worker: str) -> None:
        """The start is an event of every attempt that began, exactly once, whichever report tells it first."""
        if started_at is None or self.step.started_at is not None:
            return
        kind: Any = _STARTED[self.step.purpose]
        self.decision.emit(kind(step=self.step_id, attempt=self.attempt, run=self.run, started_at=started_at, worker=worker))

    def found(self, source: CachedFrom, report: r.Completed) -> None:
        """The output was returned before, and no handler ran."""
        self.emit(
            e.TaskCacheHit,
            key=source.key,
            source_execution=source.execution_id,
            source_step=source.step,
            age_ms=max(0, round((report.started_at - source.time).total_seconds() * 1000)),
            found_at=report.started_at,
            worker=report.worker,
        )

    def completed(self, report: r.Completed) -> None:
        match self.step.purpose:
            case "recovery":
                self.advised(report.output, report.ended_at)
            case "compensation":
                news = report.vars if not report.vars or not vars_too_large(self.state, report.vars) else {}
                self.emit(e.CompensationCompleted, ended_at=report.ended_at, vars=news, measured=report.measured)
            case _ if report.vars and vars_too_large(self.state, report.vars):
                self.failed(_vars_too_large(self.step_id, self.attempt), report.ended_at, measured=report.measured)
            case _:
                self.decision.emit(
                    e.TaskCompleted(
                        step=self.step_id,
                        attempt=self.attempt,
                        run=self.run,
                        ended_at=report.ended_at,
                        output=report.output,
                        output_object=report.output_object,
                        vars=report.vars,
                        measured=report.measured,
                        directive=report.directive,
                        worker=report.worker if report.worker != self.step.worker else "",
                    )
                )
                if self.state.execution_policy.checkpoint_every == "task" and not self.state.ending:
                    make_checkpoint(self.decision, "task")

    def timed_out(self, ended_at: datetime | None, ended: e.Ending | None, measured: Measured | None = None) -> None:
        timeout_ms = self.state.timeout_of(self.index)
        message = f"{self.what} ran longer than its timeout of {timeout_ms} ms"
        self._timed_out("task_timeout", message, timeout_ms, ended_at, ended, measured)

    def _timed_out(
        self,
        code: str,
        message: str,
        timeout_ms: int,
        ended_at: datetime | None = None,
        ended: e.Ending | None = None,
        measured: Measured | None = None,
    ) -> None:
        error = ErrorInfo(
            type="timeout_error",
            code=code,
            message=message,
            task_id=self.step_id,
            attempt=self.attempt,
            timestamp=self.decision.time,
        )
        if self.step.purpose not in ("task", "fallback"):
            self.failed(error, ended_at, measured=measured)
            return
        following = self.failure(error)
        self.emit(
            e.TaskTimedOut,
            timeout_ms=timeout_ms,
            error=error,
            ended_at=ended_at,
            ended=ended,
            will_retry=following.retry,
            retries_exhausted=following.exhausted,
            instead=following.instead,
            measured=measured,
        )
        self.go_on(following, error)

    def stopped(self, report: r.Stopped) -> None:
        """Its worker ended the handler because it was told to: the end of a cancelled attempt, else a failure to retry."""
        self.started(report.started_at, report.worker)
        if self.state.stopping:
            self.cancelled(report.ended or ("abandoned" if report.losses else None), report.measured)
        else:
            stopped = ErrorInfo(
                type="execution_error",
                code="stopped",
                message="the handler was stopped by its worker",
                retryable=True,
                task_id=self.step_id,
            )
            self.failed(stopped, report.ended_at, measured=report.measured)

    def lost(self, report: r.Lost) -> None:
        """The attempt's holder was lost and another has it. Too many losses, or a start too long ago, end what was begun."""
        timeout_ms = self.state.timeout_of(self.index)
        if report.losses >= limits.losses_per_attempt:
            error = ErrorInfo(
                type="execution_error",
                code="WORKER_LOST",
                message=f"{report.losses} workers were lost, or gave it back, after they were handed {self.what}",
                retryable=True,
                task_id=self.step_id,
                attempt=self.attempt,
            )
            self.failed(error, None)
        elif timeout_ms and self.step.started_time is not None:
            allowed = timedelta(milliseconds=timeout_ms + limits.timeout_grace_ms)
            if self.decision.time - self.step.started_time > allowed:
                self.timed_out(None, None)

    def withdrawn(self, pause: int) -> None:
        """It was taken back before anybody is known to have begun it."""
        if self.state.stopping:
            self.cancelled(None)
        elif self.step.overdue:  # that nobody had it is what its time-out waited for, whoever found it out
            policy = self.state.attempt_policy(self.index)
            wait = policy.queue_timeout_ms
            self._timed_out("queue_timeout", f"no worker of queue {policy.queue} began {self.what} within {wait} ms", wait)
        elif pause and not self.step.held:
            self.emit(e.TaskHeld)

    def cancelled(self, ended: e.Ending | None, measured: Measured | None = None) -> None:
        if self.step.purpose == "compensation":
            error = ErrorInfo(
                type="execution_error", code="cancelled", message="the rollback was cancelled", task_id=self.step_id
            )
            self.emit(e.CompensationFailed, error=error, measured=measured)
        else:
            self.emit(e.TaskCancelled, ended=ended, measured=measured)

    # Failures --------------------------------------------------------------------------------------------------------

    def failed(
        self,
        error: ErrorInfo,
        ended_at: datetime | None,
        news: dict[str, Any] | None = None,
        measured: Measured | None = None,
        kind: type[e.TaskFailed] = e.TaskFailed,
    ) -> None:
        match self.step.purpose:
            case "recovery":
                # A question that nobody was asked is no advice: the rest of the failure order follows.
                action: RecoveryVerb = "retry" if error.code in ("params_too_large", "queue_timeout") else "abort"
                self.recovered(RecoveryOutcome(False, action, f"the strategy failed: {error.message}"), ended_at)
            case "compensation":
                self.compensation_failed(error, ended_at, measured)
            case _:
                following = self.failure(error)
                self.emit(
                    kind,
                    error=error,
                    ended_at=ended_at,
                    will_retry=following.retry,
                    retries_exhausted=following.exhausted,
                    instead=following.instead,
                    vars=news if news and not vars_too_large(self.state, news) else {},
                    measured=measured,
                )
                self.go_on(following, error)

    def failure(self, error: ErrorInfo) -> _WhatNext:
        """THE failure order: what is tried after an attempt that ended with `error`, or after advice on it that did not help."""
        state, step = self.state, self.step
        if state.ending:
            return _WhatNext()
        advised = step.recovery if step.purpose == "recovery" else None
        if advised is not None and not advised.before_retries:
            return _WhatNext(fallback=self._fallback())
        if advised is None and (strategy := self._strategy(error, before_retries=True)):
            return _WhatNext(strategy=strategy)
        exhausted = False
        if may_retry(state.policy_of(self.index), error):
            if step.tries <= state.policy_of(self.index).max_retries:
                return _WhatNext(retry=True)
            exhausted = True
        if strategy := self._strategy(error, before_retries=False):
            return _WhatNext(strategy=strategy, exhausted=exhausted)
        return _WhatNext(fallback=self._fallback(), exhausted=exhausted)

    def _strategy(self, error: ErrorInfo, *, before_retries: bool) -> Strategy | None:
        strategies = self.decision.around.strategies
        if not strategies or self.step.fallback or self.step.recoveries >= limits.recoveries_per_step:
            return None
        return strategy_for(strategies, error, before_retries=before_retries)

    def _fallback(self) -> str | None:
        return None if self.step.fallback else self.state.graph.steps[self.index].fallback

    def go_on(self, following: _WhatNext, error: ErrorInfo) -> None:
        """What is tried next is begun. While the execution is paused it is handed out only once that is over."""
        if following.retry:
            delay = delay_ms(self.state.policy_of(self.index), self.step.tries, error, self.decision.chance)
            self._retry_later(e.TaskRetryScheduled, delay)
        elif following.strategy is not None:
            strategy = following.strategy
            self.decision.emit(
                e.RecoveryInitiated(
                    step=self.step_id,
                    attempt=self.attempt + 1,
                    run=self.run,
                    strategy=strategy.id,
                    name=strategy.name,
                    queue=strategy.lane,
                    timeout_ms=strategy.timeout_ms,
                    before_retries=strategy.before_retries,
                )
            )
        elif following.fallback is not None:
            self._fall_back(following.fallback)

    def _retry_later(self, kind: type[Any], delay: int) -> None:
        due = self.decision.time + timedelta(milliseconds=delay)
        self.decision.emit(kind(step=self.step_id, attempt=self.attempt + 1, run=self.run, delay_ms=delay, due=due))

    def _fall_back(self, task: str) -> None:
        following = self.attempt + 1
        self.decision.emit(e.FallbackStarted(step=self.step_id, attempt=following, run=self.run, task=task))
        self.decision.emit(e.TaskScheduled(step=self.step_id, attempt=following, run=self.run))

    def compensation_failed(self, error: ErrorInfo, ended_at: datetime | None, measured: Measured | None) -> None:
        """An undoing has its retries, and nothing else; the rollback goes on with the next step in any case."""
        state, step = self.state, self.step
        policy = state.attempt_policy(self.index)
        can = not state.stopping and may_retry(policy, error)
        again = can and step.tries <= policy.max_retries
        self.emit(
            e.CompensationFailed,
            error=error,
            ended_at=ended_at,
            will_retry=again,
            retries_exhausted=can and not again,
            measured=measured,
        )
        if again:
            self._retry_later(e.CompensationRetryScheduled, delay_ms(policy, step.tries, error, self.decision.chance))

    # Recovery --------------------------------------------------------------------------------------------------------

    def advised(self, output: object, ended_at: datetime | None) -> None:
        try:
            outcome = outcome_of(output)
        except ValidationError as error:
            outcome = RecoveryOutcome(False, "abort", error.message)
        self.recovered(outcome, ended_at)

    def recovered(self, outcome: RecoveryOutcome, ended_at: datetime | None) -> None:
        """Do what the strategy asks for, as far as that can be done; without success the rest of the failure order follows."""
        following = _WhatNext()
        if not outcome.success and outcome.action != "abort" and self.step.error is not None:
            following = self.failure(self.step.error)
        then, message = self._following(outcome, following), outcome.message
        if outcome.success and outcome.action != "abort" and then == "fail" and not self.state.ending:
            message = f"{message}; there is no {'checkpoint' if outcome.action == 'checkpoint_restore' else 'fallback'}".strip(
                "; "
            )
        news = outcome.new_state.variables if outcome.new_state is not None else {}
        if vars_too_large(self.state, news):
            then, news = "fail" if outcome.success else then, {}
            message = f"{message}; its variables are too large".strip("; ")
        self.emit(
            e.RecoveryCompleted,
            success=outcome.success,
            action=outcome.action,
            then=then,
            message=message,
            ended_at=ended_at,
            vars=news,
        )
        if following.anything and self.step.error is not None:
            self.go_on(following, self.step.error)
            return
        match then:
            case "retry":
                self.decision.emit(e.TaskScheduled(step=self.step_id, attempt=self.attempt + 1, run=self.run))
            case "skip":
                self.emit(e.TaskSkipped, reason="recovery")
            case "fallback":
                self._fall_back(self._fallback() or "")
            case "restore":
                restore(
                    self.decision, self.state.checkpoints[self.state.checkpoint or ""], by="recovery", reason=message, news=news
                )

    def _following(self, outcome: RecoveryOutcome, following: _WhatNext) -> e.AfterRecovery:
        if self.state.ending or outcome.action == "abort":
            return "fail"
        if not outcome.success:
            return "retry" if following.retry else following.instead or "fail"
        match outcome.action:
            case "fallback":
                return "fallback" if self._fallback() is not None else "fail"
            case "checkpoint_restore":
                return "restore" if self.state.checkpoint is not None else "fail"
            case action:
                return action


def _vars_too_large(step_id: str, attempt: int) -> ErrorInfo:
    return ErrorInfo(
        type="execution_error",
        code="vars_too_large",
        message=f"the execution's variables would be larger than {limits.vars_bytes} bytes",
        hint="keep large values elsewhere, and a key to them in ctx.vars (limits.vars_bytes)",
        retryable=False,
        task_id=step_id,
        attempt=attempt,
    )
