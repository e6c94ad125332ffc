"""What follows from an execution's history: its state, and `evolve`, the only way to it.

`evolve(state, event)` costs work in proportion to what the event changes, never to the size of the plan. It owns the
state it is given and returns it; whoever wants to keep an old state folds again. A state is a pure function of the
commits: `fold(commits)` gives the same on every machine at every time. Anything else that hangs on a state (`ready`,
`doomed`, `cursor`) is an index into it that may hold entries already dealt with; `advance` in the decider skips those.
"""

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from heapq import heappush
from typing import Any, Literal, NamedTuple

import msgspec

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.compiled import graph_of
from esexec.domain.errors import CorruptHistory, ErrorInfo
from esexec.domain.graph import Graph
from esexec.domain.settings import BUILT_IN_EXECUTION, ExecutionPolicy, Policy, merge, merge_execution

ExecutionStatus = Literal["pending", "running", "paused", "completed", "failed", "cancelled", "rolled_back"]
Phase = Literal["queued", "executing", "failing", "cancelling", "ended"]
StepStatus = Literal["pending", "running", "completed", "failed", "skipped", "cancelled", "rate_limited"]
TERMINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled", "rolled_back"})
SETTLED: frozenset[str] = frozenset({"completed", "failed", "skipped", "cancelled"})


class Timer(NamedTuple):
    """A delay that is open. Its name is the version of the event that set it."""

    kind: Literal["retry", "cancel_grace"]
    due: datetime
    step: int = -1


class StepState(msgspec.Struct, gc=False):
    """A step's life. `open`: an attempt was scheduled and its outcome is not known. `waiting`: dependencies not completed.

    `started_time` is the log's time of `TaskStarted`, `started_at` the worker's own; only the first is used for decisions.
    `timer`, `delay_ms`: the version and delay of the last retry timer. `closed`: the commits that closed its attempts.
    """

    waiting: int = 0
    status: StepStatus = "pending"
    attempt: int = 0
    open: bool = False
    worker: str = ""
    first_started_at: datetime | None = None
    started_at: datetime | None = None
    started_time: datetime | None = None
    ended_at: datetime | None = None
    output: Any = None
    error: ErrorInfo | None = None
    next_retry_at: datetime | None = None
    timer: int = 0
    delay_ms: int = 0
    closed: list[int] = []
    skip_reason: e.SkipReason | None = None
    because: str | None = None
    timed_out: int = 0

    def closed_by(self, attempt: int) -> int:
        """The commit that closed an attempt; 0 = none did."""
        return self.closed[attempt - 1] if 0 < attempt <= len(self.closed) else 0


class ExecutionState(msgspec.Struct, eq=False, gc=False):
    """An execution as its history tells it. `n`, `version`, `position` and `prev` are the head of that history,
    `weight` its bytes (kept by whoever reads and writes it).

    `in_flight`: steps that hold a slot, oldest first: an attempt is open, or a retry is being waited for. `ready`, `serial`:
    heaps of steps whose dependencies are completed: those marked parallel, and those that run one at a time. `doomed`: steps
    that can never run, and the failed step they depend on. `cancel`: the version of the cancel request, which also names its
    grace timer; 0 = not requested. `closed_timers`: the commits that closed retry timers. `applied`: client commands that were
    carried out and decisions that were continued, and in which commit.
    """

    execution_id: str
    n: int = 0
    version: int = 0
    position: int = 0
    prev: str = ""
    weight: int = 0
    time: datetime | None = None
    status: ExecutionStatus = "pending"
    phase: Phase = "queued"
    run: int = 1
    created: e.ExecutionCreated = None  # type: ignore[assignment]  # set by the first event
    graph: Graph = None  # type: ignore[assignment]
    execution_policy: ExecutionPolicy = BUILT_IN_EXECUTION
    steps: list[StepState] = []
    unsettled: int = 0
    in_flight: dict[int, None] = {}
    serial_busy: bool = False
    ready: list[int] = []
    serial: list[int] = []
    doomed: deque[tuple[int, str]] = msgspec.field(default_factory=deque)
    cursor: int = 0
    failing: bool = False
    failed: list[int] = []
    error: ErrorInfo | None = None
    cancel: int = 0
    cancel_reason: str = ""
    abandoned: list[str] = []
    timers: dict[int, Timer] = {}
    closed_timers: dict[int, int] = {}
    applied: dict[str, int] = {}
    last_control: datetime | None = None
    policies: dict[int, Policy] = {}
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def exists(self) -> bool:
        return self.n > 0

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def ending(self) -> bool:
        """Whether it ends early: nothing new is scheduled, what is open may still report."""
        return self.failing or self.cancel > 0

    def policy_of(self, index: int) -> Policy:
        """The merged settings of a step's attempts (design §4: built-in < namespace < task < plan < step < call)."""
        policy = self.policies.get(index)
        if policy is None:
            created, step = self.created, self.graph.steps[index]
            levels = (created.namespace, created.tasks.get(step.task), self.graph.plan.config, step, created.config)
            policy = self.policies[index] = merge(levels)
        return policy

    def output_of(self, step_id: str) -> Any:
        """The output of a completed step, for references."""
        return self.steps[self.graph.index[step_id]].output


def fold(execution_id: str, commits: Iterable[Commit], state: ExecutionState | None = None) -> ExecutionState:
    """The state after these commits, which follow each other and the given state without a gap.

    Raises `CorruptHistory` if they do not, or if they tell what cannot have happened.
    """
    state = ExecutionState(execution_id) if state is None else state
    for commit in commits:
        if commit.execution_id != execution_id:
            raise CorruptHistory(f"{execution_id}: a commit of {commit.execution_id} stands where commit {state.n + 1} belongs")
        if commit.n != state.n + 1 or commit.version != state.version + 1:
            raise CorruptHistory(
                f"{execution_id}: expected commit {state.n + 1} with version {state.version + 1}, "
                f"found commit {commit.n} with version {commit.version}"
            )
        try:
            begin(state, commit.n, commit.time)
            for event in commit.events:
                evolve(state, event)
        except Exception as error:
            raise CorruptHistory(f"{execution_id}: commit {commit.n} cannot have happened ({error!r})") from error
        for cause in commit.commands:
            note_cause(state, cause.id, cause.time)
    return state


def begin(state: ExecutionState, n: int, time: datetime) -> None:
    """The events that are evolved next belong to commit `n` of this time."""
    state.n = n
    state.time = time


def note_cause(state: ExecutionState, cause_id: str, time: datetime) -> None:
    """A commit was decided upon this. Commands and continuations are remembered; reports and timers are recognised otherwise."""
    if "/" not in cause_id:
        state.applied[cause_id] = state.n
        if state.last_control is None or time > state.last_control:
            state.last_control = time
    elif cause_id.startswith("continue/"):
        state.applied[cause_id] = state.n


def evolve(state: ExecutionState, event: e.Event) -> ExecutionState:
    """The state after this event."""
    state.version += 1
    _EVOLVE[type(event)](state, event)
    return state


# One function per event, in the order of `events` ----------------------------------------------------------------------


def _created(state: ExecutionState, event: e.ExecutionCreated) -> None:
    graph = graph_of(bytes(event.plan))
    state.created, state.graph = event, graph
    state.created_at = state.time
    state.execution_policy = merge_execution((event.namespace, graph.plan.config, event.config))
    state.steps = [StepState(len(waiting)) for waiting in graph.dependencies]
    state.unsettled = len(state.steps)
    for index, step in enumerate(state.steps):
        if not step.waiting:
            _make_ready(state, index)


def _started(state: ExecutionState, event: e.ExecutionStarted) -> None:
    state.status, state.phase, state.started_at = "running", "executing", state.time


def _completed(state: ExecutionState, event: e.ExecutionCompleted) -> None:
    _end(state, "completed")


def _failed(state: ExecutionState, event: e.ExecutionFailed) -> None:
    state.error = event.error
    _end(state, "failed")


def _cancel_requested(state: ExecutionState, event: e.ExecutionCancelRequested) -> None:
    assert state.time is not None
    state.phase, state.cancel, state.cancel_reason = "cancelling", state.version, event.reason
    state.cursor = 0
    state.timers[state.version] = Timer("cancel_grace", state.time + timedelta(milliseconds=event.grace_ms))


def _cancelled(state: ExecutionState, event: e.ExecutionCancelled) -> None:
    state.timers.pop(state.cancel, None)
    _end(state, "cancelled")


def _end(state: ExecutionState, status: ExecutionStatus) -> None:
    state.status, state.phase, state.ended_at = status, "ended", state.time


def _task_scheduled(state: ExecutionState, event: e.TaskScheduled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.status, step.attempt, step.open = "pending", event.attempt, True
    step.started_at = step.started_time = step.next_retry_at = None
    if event.attempt == 1:
        state.in_flight[index] = None
        state.serial_busy = state.serial_busy or not state.graph.parallel[index]
    else:
        _close_timer(state, step)


def _task_started(state: ExecutionState, event: e.TaskStarted) -> None:
    step = state.steps[state.graph.index[event.step]]
    step.status, step.worker = "running", event.worker
    step.started_at, step.started_time = event.started_at, state.time
    if step.first_started_at is None:
        step.first_started_at = event.started_at


def _task_completed(state: ExecutionState, event: e.TaskCompleted) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.output, step.error = event.output, None
    _close(state, step, event.ended_at)
    _settle(state, index, step, "completed")
    for dependent in state.graph.dependents[index]:
        other = state.steps[dependent]
        other.waiting -= 1
        if not other.waiting and other.status == "pending":
            _make_ready(state, dependent)


def _task_failed(state: ExecutionState, event: e.TaskFailed | e.TaskTimedOut) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.error = event.error
    _close(state, step, event.ended_at)
    if type(event) is e.TaskTimedOut:
        step.timed_out += 1
    if event.will_retry:
        step.status = "pending"
        return
    _settle(state, index, step, "failed")
    state.failed.append(index)
    if state.error is None:
        state.error = event.error
    _doom_dependents(state, index, event.step)
    if not state.execution_policy.continue_on_error and not state.failing:
        state.failing, state.cursor = True, 0
        if not state.cancel:
            state.phase = "failing"


def _task_retry_scheduled(state: ExecutionState, event: e.TaskRetryScheduled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.timer, step.delay_ms, step.next_retry_at = state.version, event.delay_ms, event.due
    state.timers[state.version] = Timer("retry", event.due, index)


def _task_skipped(state: ExecutionState, event: e.TaskSkipped) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.skip_reason, step.because = event.reason, event.because
    if state.doomed and state.doomed[0][0] == index:
        state.doomed.popleft()
    _settle(state, index, step, "skipped")
    if event.reason == "dependency_failed":
        _doom_dependents(state, index, event.step)


def _task_cancelled(state: ExecutionState, event: e.TaskCancelled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    _close_timer(state, step)
    if event.ended == "abandoned":
        state.abandoned.append(event.step)
    if step.open:
        _close(state, step, state.time)
    _settle(state, index, step, "cancelled")


def _make_ready(state: ExecutionState, index: int) -> None:
    heappush(state.ready if state.graph.parallel[index] else state.serial, index)


def _close(state: ExecutionState, step: StepState, ended_at: datetime | None) -> None:
    step.open, step.ended_at = False, ended_at or state.time
    step.closed.append(state.n)


def _close_timer(state: ExecutionState, step: StepState) -> None:
    if state.timers.pop(step.timer, None) is not None:
        state.closed_timers[step.timer] = state.n


def _settle(state: ExecutionState, index: int, step: StepState, status: StepStatus) -> None:
    step.status, step.next_retry_at = status, None
    state.unsettled -= 1
    if index in state.in_flight:
        del state.in_flight[index]
        if not state.graph.parallel[index]:
            state.serial_busy = False


def _doom_dependents(state: ExecutionState, index: int, because: str) -> None:
    state.doomed.extend((dependent, because) for dependent in state.graph.dependents[index])


_EVOLVE: dict[type, Any] = {
    e.ExecutionCreated: _created,
    e.ExecutionStarted: _started,
    e.ExecutionCompleted: _completed,
    e.ExecutionFailed: _failed,
    e.ExecutionCancelRequested: _cancel_requested,
    e.ExecutionCancelled: _cancelled,
    e.TaskScheduled: _task_scheduled,
    e.TaskStarted: _task_started,
    e.TaskCompleted: _task_completed,
    e.TaskFailed: _task_failed,
    e.TaskTimedOut: _task_failed,
    e.TaskRetryScheduled: _task_retry_scheduled,
    e.TaskSkipped: _task_skipped,
    e.TaskCancelled: _task_cancelled,
}
