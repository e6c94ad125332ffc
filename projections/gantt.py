"""Where the time of an execution went, for Gantt charts: commits in, a bar per attempt out. Pure."""

from collections.abc import Iterable
from datetime import datetime

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.views import Gantt, Span, SpanKind
from projections.attempts import ENDINGS, Attempt, Attempts


def gantt(commits: Iterable[Commit], now: datetime | None = None) -> Gantt | None:
    """The chart of a history as of `now` (by default its last commit); None if nothing happened."""
    attempts, whole = Attempts(), _Whole()
    seen: list[Attempt] = []
    first = last = None
    for commit in commits:
        first, last = first or commit, commit
        for event in commit.events:
            before = attempts.open.get(step) if (step := getattr(event, "step", None)) is not None else None
            attempts.take(commit.time, event)
            after = attempts.open.get(step) if step is not None else None
            if after is not None and after is not before:
                seen.append(after)
            whole.take(commit.time, event)
    if first is None or last is None:
        return None
    as_of = max(now or last.time, last.time)
    return Gantt(
        execution_id=first.execution_id,
        start=first.time,
        end=whole.ended or as_of,
        as_of=as_of,
        execution=whole.spans(),
        bars=[attempt.bar() for attempt in seen],
    )


class _Whole:
    """What the execution waits for as a whole."""

    def __init__(self) -> None:
        self._past: list[Span] = []
        self._since: dict[SpanKind, datetime] = {}
        self.ended: datetime | None = None

    def take(self, time: datetime, event: e.Event) -> None:
        match event:
            case e.ExecutionCreated() | e.ExecutionQueued():
                self._since.setdefault("queued", time)
            case e.ExecutionStarted() | e.ExecutionGranted():
                self._over("queued", time)
            case e.ExecutionPaused():
                self._since["held"] = time
            case e.ExecutionResumed() | e.ExecutionCancelRequested():
                self._over("held", time)
            case e.ExecutionRetried() | e.CheckpointRestored() | e.RollbackStarted():
                self.ended = None
            case _ if isinstance(event, ENDINGS):
                self._over("queued", time)
                self._over("held", time)
                self.ended = time

    def _over(self, kind: SpanKind, time: datetime) -> None:
        since = self._since.pop(kind, time)
        if time > since:
            self._past.append(Span(kind=kind, start=since, end=time))

    def spans(self) -> list[Span]:
        going = (Span(kind=kind, start=since) for kind, since in self._since.items())
        return sorted([*self._past, *going], key=lambda span: span.start)
