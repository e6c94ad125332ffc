"""The timeline of an execution: its history in words, one entry per event. Pure: commits in, entries out.

An entry's time is its commit's, so a timeline never runs backwards; how long an attempt took is said in its description, by
its worker's clock. Descriptions are for people and may change; `type` and `event` are the storage format and do not.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.errors import ErrorInfo
from esexec.domain.flow import Resource
from esexec.domain.strategies import RecoveryVerb
from esexec.views import TimelineEntry as TimelineEntry
from projections.actors import actors_by_event

_MESSAGE_CHARS = 200


def timeline(commits: Iterable[Commit]) -> list[TimelineEntry]:
    """The entries of a history, in the order of its versions."""
    entries: list[TimelineEntry] = []
    teller, first = Teller(), None
    for commit in commits:
        first = first or commit.time
        offset_ms = round((commit.time - first).total_seconds() * 1000)
        actors = actors_by_event(commit)
        for index, event in enumerate(commit.events):
            entry = TimelineEntry(
                time=commit.time,
                offset_ms=offset_ms,
                n=commit.n,
                version=commit.version + index,
                type=e.type_of(event),
                step=getattr(event, "step", None),
                attempt=getattr(event, "attempt", None),
                description=teller.describe(event),
                actor=actors.get(index),
                event=event,
            )
            entries.append(entry)
    return entries


class Teller:
    """Puts events into words, given to it in order: it remembers when attempts began."""

    def __init__(self) -> None:
        self._began: dict[tuple[str, int, int], datetime] = {}

    def describe(self, event: e.Event) -> str:
        """What happened, in one line, bounded."""
        if (knows := _WHO_KNOWS.get(type(event))) is not None:
            return knows(event) or _by_name(event)
        match event:
            case e.TaskStarted():
                self._begins(event)
                return f"{_attempt(event)} started{_on(event.worker)}"
            case e.TaskCacheHit():
                source = f"{_line(event.source_step)} in execution {_line(event.source_execution)}"
                return f"{_attempt(event)} found in the cache: the output of {source}, {duration(event.age_ms)} old"
            case e.TaskCompleted():
                return f"{_attempt(event)} completed{_on(event.worker)}{self._took(event, event.ended_at, 'in')}"
            case e.TaskRejected():
                return f"{_attempt(event)} rejected: {said(event.error)}{_final(event)}"
            case e.TaskFailed():
                return f"{_attempt(event)} failed{self._took(event, event.ended_at)}: {said(event.error)}{_final(event)}"
            case e.RecoveryStarted():
                self._begins(event)
                return f"recovery of {event.step} started{_on(event.worker)}"
            case e.RecoveryCompleted():
                words = f": {_line(event.message)}" if event.message else ""
                took = self._took(event, event.ended_at)
                advice = f"with {_ADVICE[event.action]}" if event.success or event.action == "abort" else "without help"
                return f"recovery of {event.step} ended{took} {advice}{words}; {_AFTER[event.then]}"
            case e.CompensationStarted():
                self._begins(event)
                return f"undoing of {event.step} started{_on(event.worker)}"
            case e.CompensationCompleted():
                return f"{event.step} undone{self._took(event, event.ended_at, 'in')}"
            case e.CompensationFailed():
                took = self._took(event, event.ended_at)
                if event.error.code == "cancelled":
                    return f"undoing of {event.step} given up{took}: {_line(event.error.message)}"
                return f"undoing of {event.step} failed{took}: {said(event.error)}{_final(event)}"
            case _:
                return _described(event)

    def _begins(self, event: e.TaskStarted | e.RecoveryStarted | e.CompensationStarted) -> None:
        self._began[event.step, event.run, event.attempt] = event.started_at

    def _took(
        self,
        event: e.TaskCompleted | e.TaskFailed | e.RecoveryCompleted | e.CompensationCompleted | e.CompensationFailed,
        ended_at: datetime | None,
        word: str = "after",
    ) -> str:
        began = self._began.pop((event.step, event.run, event.attempt), None)
        if began is None or ended_at is None:
            return ""
        return f" {word} {duration((ended_at - began).total_seconds() * 1000)}"


_WHO_KNOWS: dict[type[e.Event], Callable[[e.Event], str | None]] = {}
"""By the type of an event who puts it into words, as found out with the first of them: there are sixty, asked one by one."""


def _described(event: e.Event) -> str:
    for knows in (_of_task, _of_execution, _of_namespace, _by_name):
        if (words := knows(event)) is not None:
            _WHO_KNOWS[type(event)] = knows
            return words
    raise AssertionError(event)


def _by_name(event: e.Event) -> str:
    return e.type_of(event).replace("_", " ")


_ADVICE: dict[RecoveryVerb, str] = {
    "retry": "“retry”",
    "skip": "“skip”",
    "fallback": "“fallback”",
    "abort": "“abort”",
    "checkpoint_restore": "“restore a checkpoint”",
}
_AFTER: dict[e.AfterRecovery, str] = {
    "retry": "it is tried again",
    "recovery": "another strategy is asked",
    "skip": "it is skipped",
    "fallback": "its fallback is tried",
    "fail": "it has failed",
    "restore": "the last checkpoint is restored",
}
_INSTEAD = {"recovery": "; a recovery strategy is asked", "fallback": "; its fallback is tried"}
_NOT_UNDONE = {
    "no_compensation": "nothing is known that undoes it",
    "no_before_image": "what it was before was not recorded",
}
_MADE_BY = {"command": "", "interval": " at its interval", "task": " after a task"}


def _of_task(event: e.Event) -> str | None:
    match event:
        case e.TaskScheduled():
            return f"{_attempt(event)} scheduled"
        case e.TaskHeld():
            return f"{_attempt(event)} is held back while the execution is paused"
        case e.TaskGranted(by="concurrency"):
            return f"{_attempt(event)} has a slot of its concurrency key"
        case e.TaskGranted():
            return f"{_attempt(event)} has its turn within its rate limit"
        case e.TaskRateLimited():
            when = f", not before {event.next_retry_at:%H:%M:%S}" if event.next_retry_at is not None else ""
            return f"{_attempt(event)} waits for its turn within its rate limit{when}"
        case e.TaskWaiting():
            what = "a slot of its concurrency key" if event.by == "concurrency" else "resources"
            return f"{_attempt(event)} waits for {what}" + (f", behind {event.ahead} others" if event.ahead else "")
        case e.ResourceAllocated():
            return f"{_attempt(event)} was allocated {_amounts(event.resources)}"
        case e.ResourceReleased():
            cost = sum(one.cost for one in event.usage)
            what = ", ".join(f"{one.amount_used:g} {one.resource_type}" for one in event.usage)
            return f"{_attempt(event)} released {what}" + (f", cost {cost:g}" if cost else "")
        case e.TaskOverdue():
            return f"{_attempt(event)} was not begun in time and is taken back"
        case e.TaskTimedOut():
            if event.error.code == "queue_timeout":
                return f"{_attempt(event)} was not begun within {duration(event.timeout_ms)}{_final(event)}"
            ended = f" ({event.ended})" if event.ended else ""
            return f"{_attempt(event)} ran past its timeout of {duration(event.timeout_ms)}{ended}{_final(event)}"
        case e.TaskRetryScheduled():
            return f"{event.step} is tried again in {duration(event.delay_ms)} (attempt {event.attempt})"
        case e.TaskSkipped():
            return f"{event.step} skipped: {_why_skipped(event)}"
        case e.TaskCancelled():
            return f"{event.step} cancelled" + (f" (handler {event.ended})" if event.ended else "")
        case e.FallbackStarted():
            return f"{event.step} is done by its fallback {_line(event.task)} instead"
        case e.BeforeImageRecorded():
            return f"{event.step} recorded what was before"
        case e.RecoveryInitiated():
            return f"recovery strategy {_line(event.name or event.strategy)} is asked about {event.step}"
        case e.CompensationScheduled():
            return f"undoing of {event.step} by {_line(event.task)} scheduled"
        case e.CompensationRetryScheduled():
            return f"undoing of {event.step} is tried again in {duration(event.delay_ms)} (attempt {event.attempt})"
        case e.CompensationSkipped():
            return f"{event.step} is not undone: {not_undone(event.reason)}"
    return None


def _of_execution(event: e.Event) -> str | None:
    match event:
        case e.ExecutionQueued():
            return "execution waits for a slot of its concurrency key"
        case e.ExecutionGranted():
            return "execution has a slot of its concurrency key"
        case e.ExecutionCreated():
            return _created(event)
        case e.ExecutionFailed():
            left = f"; rolled back in part, not undone: {_names(event.not_undone)}" if event.rollback_status else ""
            return f"execution failed: {said(event.error)}{left}"
        case e.ExecutionCancelRequested():
            return "cancel requested" + _because(event.reason)
        case e.ExecutionCancelled():
            late = f"; did not stop in time: {_names(event.abandoned)}" if event.abandoned else ""
            left = f"; rolled back in part, not undone: {_names(event.not_undone)}" if event.rollback_status else ""
            return f"execution cancelled{late}{left}"
        case e.ExecutionPaused():
            return "execution paused" + _because(event.reason)
        case e.ExecutionResumed():
            return "execution resumed"
        case e.ExecutionRetried():
            return f"execution retried, as run {event.run}" + (f": {event.step} again" if event.step else "")
        case e.ExecutionForked():
            return f"carried on as execution {event.new_id}"
        case e.DeadlineSet():
            return f"must end by {_time(event.deadline)}"
        case e.DeadlineExceeded():
            return f"deadline exceeded: {said(event.error)}"
        case e.CheckpointCreated():
            return f"checkpoint {event.checkpoint_id} created{_MADE_BY[event.by]}"
        case e.CheckpointFailed():
            return f"checkpoint not created{_MADE_BY[event.by]}: {_line(event.message)}"
        case e.CheckpointRestored():
            by = " by a recovery strategy" if event.by == "recovery" else ""
            return f"restored to checkpoint {event.checkpoint_id}{by}, as run {event.run}" + _because(event.reason)
        case e.RollbackStarted():
            return "rollback started" + (" on command" if event.by == "command" else "") + _because(event.reason)
        case e.ExecutionRolledBack():
            steps = "1 step" if event.undone == 1 else f"{event.undone} steps"
            left = f"; nothing undoes {_names(event.skipped)}" if event.skipped else ""
            return f"execution rolled back: {steps} undone{left}"
    return None


def _created(event: e.ExecutionCreated) -> str:
    key = f", idempotency key {_line(event.idempotency_key)}" if event.idempotency_key else ""
    start = f", not to start before {_time(event.start_at)}" if event.start_at else ""
    parent = f", started by {_line(event.parent)}" if event.parent else ""
    origin = f", carries on from {event.forked_from}" if event.forked_from else ""
    owner = f" by {_line(event.owner)}" if event.owner else ""
    missing = f"; no worker has announced {_names(event.unannounced)}" if event.unannounced else ""
    return f"execution of {_line(event.name)} created{owner}{key}{parent}{origin}{start}{missing}"


def _of_namespace(event: e.Event) -> str | None:
    match event:
        case e.KeyBound():
            return f"idempotency key {_line(event.key)} belongs to {event.execution_id}"
        case e.NamespaceConfigured():
            return "namespace configured"
        case e.TasksAnnounced():
            names = [*dict.fromkeys((*event.tasks, *event.schemas)), *(["any other"] if event.any_task else [])]
            return f"tasks announced by {event.worker or 'a worker'}: {_line(', '.join(names))}"
        case e.StrategyAdded():
            return f"recovery strategy {_line(event.strategy.id)} added for {_line(', '.join(event.strategy.applicable_errors))}"
        case e.StrategyRemoved():
            return f"recovery strategy {_line(event.strategy_id)} removed"
        case e.PlanStored():
            return f"plan {event.plan_id[:12]} stored"
        case e.RequestQueued():
            return f"{event.request_id} waits for its turn"
        case e.RequestGranted():
            return f"{event.request_id} was granted" + (f" {_amounts(event.resources)}" if event.resources else "")
        case e.RequestDropped():
            return f"{event.request_id} waits no more" + (f": {said(event.error)}" if event.error else "")
        case e.GrantReleased():
            return f"{event.request_id} " + ("lost its lease" if event.expired else "gave back what it had")
        case e.LeaseRenewed():
            return f"{event.request_id} keeps its resources until {event.until:%H:%M:%S}"
        case e.PoolDeclared():
            return f"pool {event.pool.id} has {event.pool.capacity:g} {event.pool.type}"
        case e.PoolRemoved():
            return f"pool {event.pool_id} removed"
        case e.AlertSet():
            held = f" for {duration(event.condition.duration_ms)}" if event.condition.duration_ms else ""
            return f"alert {event.alert_id} set: {_line(str(event.condition))}{held}"
        case e.AlertRemoved():
            return f"alert {event.alert_id} removed"
        case e.Compacted():
            return "all of it was written down, and goes on from there"
        case e.PlanListed():
            problem = f": {said(event.problem)}" if event.problem else ""
            return f"plan {_line(event.name)} ({event.plan_id[:12]}) is {event.status}{problem}"
    return None


def _attempt(
    event: e.TaskScheduled
    | e.TaskStarted
    | e.TaskCompleted
    | e.TaskFailed
    | e.TaskTimedOut
    | e.TaskHeld
    | e.TaskOverdue
    | e.TaskCacheHit
    | e.TaskGranted
    | e.TaskRateLimited
    | e.TaskWaiting
    | e.ResourceAllocated
    | e.ResourceReleased,
) -> str:
    return f"{event.step} (attempt {event.attempt})" if event.attempt > 1 else event.step


def _final(event: e.TaskFailed | e.TaskTimedOut | e.CompensationFailed) -> str:
    instead = getattr(event, "instead", None)
    return ("; no retries left" if event.retries_exhausted else "") + (_INSTEAD[instead] if instead else "")


def _on(worker: str) -> str:
    return f" on {worker}" if worker else ""


def not_undone(reason: str) -> str:
    """Why a step is not undone, in words."""
    return _NOT_UNDONE.get(reason, reason)


def _because(reason: str) -> str:
    return f": {_line(reason)}" if reason else ""


def _names(steps: tuple[str, ...]) -> str:
    return _line(", ".join(steps))


def _time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def said(error: ErrorInfo) -> str:
    """An error in one bounded line."""
    return f"[{_line(error.code)}] {_line(error.message)}"


def _line(text: str) -> str:
    first, more, _ = text.strip().partition("\n")
    return first if len(first) <= _MESSAGE_CHARS and not more else first[: _MESSAGE_CHARS - 1] + "…"


def duration(duration_ms: float) -> str:
    """`340 ms`, `2.5 s`, `3 min 20 s`, `2 h 5 min`."""
    if duration_ms < 1000:
        return f"{max(0, round(duration_ms))} ms"
    seconds = duration_ms / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _amounts(resources: tuple[Resource, ...]) -> str:
    return ", ".join(f"{one.amount:g} {one.type} of {one.pool}" for one in resources)


def _why_skipped(event: e.TaskSkipped) -> str:
    if event.because is None:
        return event.reason.replace("_", " ")
    return f"{event.because} {'was skipped' if event.reason == 'condition' else 'failed'}"
