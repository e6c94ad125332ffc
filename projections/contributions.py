"""What an execution and its steps add to the statistics, as functions of their state; and what they had added before a page."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.state import ExecutionState
from projections.following import Followed

_ENDED_BY_ITSELF: Final = frozenset({"completed", "failed", "rolled_back"})
_NAME_CHARS: Final = 200
_HANDED_OUT: Final = frozenset({e.TaskScheduled, e.TaskGranted, e.ResourceAllocated, e.TaskHeld, e.TaskCompleted})


class OfStep(NamedTuple):
    """What a step adds. `duration_ms`: None unless it completed or failed, and a handler ran."""

    status: str
    duration_ms: int | None
    retries: int
    tried: bool
    cached: bool
    undoing: str | None
    code: str | None


class OfExecution(NamedTuple):
    """What an execution adds, besides its steps. `duration_ms`: None unless it began, and ended by itself."""

    status: str
    duration_ms: int | None
    reruns: int
    rollback: str | None
    code: str | None


class Before(NamedTuple):
    """What an execution and its steps had added before a page."""

    execution: OfExecution
    steps: dict[int, OfStep]


class FollowedWithBefore(Followed):
    """Executions; what those of a page had added before it; and when the open attempts were handed out, by the log's time."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Before] = {}
        self._handed_out: dict[str, dict[str, datetime]] = {}

    def will_change(self, state: ExecutionState, steps: Iterable[int] | None) -> None:
        before = self.before.get(state.execution_id)
        if before is None:
            if state.execution_id in self.changed:
                return  # it was created in this page
            before = self.before[state.execution_id] = Before(of_execution(state), {})
        for index in range(len(state.steps)) if steps is None else steps:
            if index not in before.steps:
                before.steps[index] = of_step(state, index)

    def read(self, entity: str, commits: Sequence[Commit]) -> None:
        for commit in commits:
            for event in commit.events:
                self.hand_out(entity, event, commit.time)

    def hand_out(self, entity: str, event: e.Event, time: datetime) -> datetime | None:
        """Remember when an attempt was handed out; and say it, once the step has completed."""
        if type(event) not in _HANDED_OUT:
            return None
        match event:
            case e.TaskScheduled(attempt=1) | e.TaskGranted() | e.ResourceAllocated():
                self._handed_out.setdefault(entity, {})[event.step] = time
            case e.TaskHeld() | e.TaskCompleted():
                return self._handed_out.get(entity, {}).pop(event.step, None)
        return None

    def left(self, entity: str) -> None:
        self.before.pop(entity, None)
        self._handed_out.pop(entity, None)

    def forget(self) -> None:
        super().forget()
        self.before.clear()
        self._handed_out.clear()


def of_execution(state: ExecutionState) -> OfExecution:
    """What an execution adds as it is."""
    status, duration_ms, code = state.status, None, None
    if status in _ENDED_BY_ITSELF:
        if state.started_at is not None and state.ended_at is not None:
            duration_ms = milliseconds_between(state.started_at, state.ended_at)
        if status != "completed" and state.error is not None:
            code = _named(state.error.code)
    return OfExecution(status, duration_ms, state.run - 1, state.rollback_status, code)


def of_step(state: ExecutionState, index: int) -> OfStep:
    """What a step adds as it is."""
    step = state.steps[index]
    duration_ms = code = None
    if step.status in ("completed", "failed"):
        if step.cached is None and step.first_started_at is not None and step.ended_at is not None:
            duration_ms = milliseconds_between(step.first_started_at, step.ended_at)
        if step.status == "failed" and step.error is not None:
            code = _named(step.error.code)
    return OfStep(
        step.status,
        duration_ms,
        step.retries if step.scheduled > 1 else 0,
        step.scheduled > 0,
        step.cached is not None,
        step.compensation if step.compensation != "running" else None,
        code,
    )


def _named(text: str) -> str:
    """A name that any database takes."""
    return text[:_NAME_CHARS].replace("\0", "\\0")


def milliseconds_between(start: datetime, end: datetime) -> int:
    """As durations are told: rounded, and never negative."""
    return max(0, round((end - start).total_seconds() * 1000))
