"""The timeline of an execution: its history in words, one entry per event. Pure: commits in, entries out.

An entry's time is its commit's, so a timeline never runs backwards; how long an attempt took is said in its description, by
its worker's clock. Descriptions are for people and may change; `type` and `event` are the storage format and do not.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.errors import ErrorInfo

_MESSAGE_CHARS = 200


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `n` and `version` number its commit and itself; `offset_ms` counts from the first commit.

    `step` and `attempt` are None for what concerns the whole execution. `description` may hold whatever a handler said.
    """

    time: datetime
    offset_ms: int
    n: int
    version: int
    type: str
    step: str | None = None
    attempt: int | None = None
    description: str
    event: e.Event


def timeline(commits: Iterable[Commit]) -> list[TimelineEntry]:
    """The entries of a history, in the order of its versions."""
    entries: list[TimelineEntry] = []
    teller, first = Teller(), None
    for commit in commits:
        first = first or commit.time
        offset_ms = round((commit.time - first).total_seconds() * 1000)
        for version, event in enumerate(commit.events, commit.version):
            entry = TimelineEntry(
                time=commit.time,
                offset_ms=offset_ms,
                n=commit.n,
                version=version,
                type=e.type_of(event),
                step=getattr(event, "step", None),
                attempt=getattr(event, "attempt", None),
                description=teller.describe(event),
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
        match event:
            case e.TaskStarted():
                self._began[event.step, event.run, event.attempt] = event.started_at
                return f"{_attempt(event)} started" + (f" on {event.worker}" if event.worker else "")
            case e.TaskCompleted():
                return f"{_attempt(event)} completed{self._took(event, event.ended_at)}"
            case e.TaskFailed():
                return f"{_attempt(event)} failed{self._took(event, event.ended_at)}: {said(event.error)}{_final(event)}"
            case e.TaskTimedOut():
                ended = f" ({event.ended})" if event.ended else ""
                return f"{_attempt(event)} ran past its timeout of {duration(event.timeout_ms)}{ended}{_final(event)}"
            case _:
                return _describe(event)

    def _took(self, event: e.TaskCompleted | e.TaskFailed, ended_at: datetime | None) -> str:
        began = self._began.pop((event.step, event.run, event.attempt), None)
        if began is None or ended_at is None:
            return ""
        verb = "in" if isinstance(event, e.TaskCompleted) else "after"
        return f" {verb} {duration((ended_at - began).total_seconds() * 1000)}"


def _describe(event: e.Event) -> str:
    match event:
        case e.ExecutionCreated():
            key = f", idempotency key {_line(event.idempotency_key)}" if event.idempotency_key else ""
            return f"execution of {_line(event.name)} created" + (f" by {_line(event.owner)}" if event.owner else "") + key
        case e.ExecutionFailed():
            return f"execution failed: {said(event.error)}"
        case e.ExecutionCancelRequested():
            return "cancel requested" + (f": {_line(event.reason)}" if event.reason else "")
        case e.ExecutionCancelled():
            left = f"; did not stop in time: {', '.join(event.abandoned)}" if event.abandoned else ""
            return f"execution cancelled{left}"
        case e.TaskScheduled():
            return f"{_attempt(event)} scheduled"
        case e.TaskRetryScheduled():
            return f"{event.step} is tried again in {duration(event.delay_ms)} (attempt {event.attempt})"
        case e.TaskSkipped():
            return f"{event.step} skipped: " + (f"{event.because} failed" if event.because else event.reason.replace("_", " "))
        case e.TaskCancelled():
            return f"{event.step} cancelled" + (f" (handler {event.ended})" if event.ended else "")
        case e.KeyBound():
            return f"idempotency key {_line(event.key)} belongs to {event.execution_id}"
        case e.NamespaceConfigured():
            return "namespace configured"
        case e.TasksAnnounced():
            return f"tasks announced by {event.worker or 'a worker'}: {_line(', '.join(event.tasks))}"
        case _:
            return e.type_of(event).replace("_", " ")


def _attempt(event: e.TaskScheduled | e.TaskStarted | e.TaskCompleted | e.TaskFailed | e.TaskTimedOut) -> str:
    return f"{event.step} (attempt {event.attempt})" if event.attempt > 1 else event.step


def _final(event: e.TaskFailed | e.TaskTimedOut) -> str:
    return "; no retries left" if event.retries_exhausted else ""


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
