"""What an execution looks like from outside: the answers to "how is it", "what came of it", "what happened".

All of it is made from a folded state, so a list and a detail cannot disagree. Times are UTC, durations milliseconds; None
means "not (yet)". `task_id` is the step's id; `tool` and `result` of the documents are the properties of those names.
"""

from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, Literal

import msgspec

from esexec.domain.errors import ErrorInfo, EsexecError, ExecutionCancelled, ExecutionError, to_exception
from esexec.domain.events import Event, ExecutionCreated
from esexec.domain.flow import ResourceUsage
from esexec.domain.measures import Metric
from esexec.domain.messages import Level
from esexec.domain.outcome import Err as Err
from esexec.domain.outcome import Ok as Ok
from esexec.domain.outcome import T as T
from esexec.domain.state import SETTLED, TERMINAL, ExecutionState, StepState, phase_of
from esexec.views import ExecutionMetrics, TimelineEntry


class ExecutionStatus(StrEnum):
    """The statuses of an execution. The last four are final."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"

    @property
    def is_final(self) -> bool:
        return self.value in TERMINAL


class TaskStatus(StrEnum):
    """The statuses of a step. Waiting for a retry is `pending` with `next_retry_at`."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    RATE_LIMITED = "rate_limited"


_EXECUTION = {status.value: status for status in ExecutionStatus}
_TASK = {status.value: status for status in TaskStatus}


class TaskResult(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """What came of one step, in the run that it belongs to. `started_at` is its first attempt's, `duration_ms` from there to the
    end of the last.

    `name` is the task that was asked for, `fallback` the one that does the work in its stead. `retries` counts what was tried
    again of the work itself, by the task or by its fallback; `attempt` also attempts to undo it, and questions to recovery
    strategies (`recoveries`). `timed_out`: attempts that ran past their timeout. `compensation`: how far its undoing is, in a
    rollback; `undone_by` the task for that, `compensation_error` why it failed.

    `quality` (0 to 1) and `metrics`: the last that its handlers said. `cost`: of all its attempts in this run, those to undo it
    included. `cached_from`: no handler ran, the output is that of this `execution/step`. `directive`: what its
    handler said beside its output, or its error.
    """

    task_id: str
    step_index: int
    name: str
    status: TaskStatus
    output: Any = None
    error: ErrorInfo | None = None
    retries: int = 0
    attempt: int = 0
    worker_id: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_ms: int | None = None
    next_retry_at: datetime | None = None
    skip_reason: str | None = None
    was_rate_limited: bool = False
    timed_out: int = 0
    fallback: str | None = None
    recoveries: int = 0
    compensation: Literal["running", "completed", "failed", "skipped"] | None = None
    compensation_error: ErrorInfo | None = None
    undone_by: str | None = None
    quality: float | None = None
    cost: float = 0.0
    metrics: tuple[Metric, ...] = ()
    cached_from: str | None = None
    directive: Any = None

    @property
    def step(self) -> str:
        return self.task_id

    @property
    def tool(self) -> str:
        return self.name

    @property
    def result(self) -> Any:
        return self.output

    @property
    def retry_count(self) -> int:
        return self.retries

    @property
    def stack(self) -> str | None:
        return self.error.stack if self.error else None


class TaskRecord(TaskResult, omit_defaults=True, kw_only=True, gc=False):
    """One step of an execution, as lists have it: what `TaskResult` has but the output and the directive, and where it belongs.

    `execution_name`: of the execution's plan. `created_at`: when the execution was.
    """

    execution_id: str
    execution_name: str
    plan_id: str
    run: int = 1
    created_at: datetime

    @property
    def id(self) -> str:
        """What `client.tasks.get` takes: `execution/step`."""
        return f"{self.execution_id}/{self.task_id}"


class ExecutionSummary(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """An execution as lists have it; the fields are those of `ExecutionResult`. `error` is without its stack.

    `n`, `position`: of the last commit that it is as of.
    """

    execution_id: str
    plan_id: str
    name: str
    status: ExecutionStatus
    current_phase: str
    run: int = 1
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_ms: int | None = None
    total_steps: int = 0
    completed_steps: int = 0
    failed_steps: int = 0
    error: ErrorInfo | None = None
    metadata: dict[str, Any] = {}
    owner: str | None = None
    paused: bool = False
    rollback_status: Literal["completed", "partial"] | None = None
    parent: str | None = None
    forked_from: str | None = None
    n: int = 0
    position: int = 0

    @property
    def id(self) -> str:
        return self.execution_id


class ExecutionResult(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """An execution as of now. `result` is the output of the plan's last step, or of its last steps by id.

    `error`: what it failed of, also if it was rolled back then; of one that was cancelled for its concurrency key why (`skipped`,
    `replaced`). `rollback_status`: whether a rollback undid all that can be
    undone (`completed`), or not (`partial`); `not_undone` then names the steps whose work stands, or may stand, in the order in
    which they would be undone. `run`: how often it was begun, by retries and restores. `deadline`: when that run must end, or had
    to; a rollback has none. `variables`: what handlers set. `checkpoints`: their ids, oldest first. `parent`: the execution and
    step whose handler started it. `forked_from`: the execution that it carries on from.

    `duration_ms`: from `started_at`, its first start, to `completed_at`, its last end, with all that lies between. `going_since`:
    when a retry, a restore or a rollback on command last set it going again; what that took counts from there.

    `directive`: what the handler of the last step said beside the result, or the one that failed beside its error.

    `position`: where in the log this was read; the execution's later commits have greater ones.

    `metrics`, `resource_usage`, `timeline`: only of a result that was asked for in full (`client.get(id, full=True)`).
    """

    execution_id: str
    plan_id: str
    name: str
    status: ExecutionStatus
    current_phase: str
    run: int = 1
    input: Any = None
    result: Any = None
    error: ErrorInfo | None = None
    results: list[TaskResult] = []
    total_steps: int = 0
    completed_steps: int = 0
    failed_steps: int = 0
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_ms: int | None = None
    going_since: datetime | None = None
    metadata: dict[str, Any] = {}
    idempotency_key: str | None = None
    owner: str | None = None
    position: int = 0
    paused: bool = False
    pause_reason: str = ""
    rollback_status: Literal["completed", "partial"] | None = None
    not_undone: list[str] = []
    start_at: datetime | None = None
    deadline: datetime | None = None
    parent: str | None = None
    forked_from: str | None = None
    variables: dict[str, Any] = {}
    checkpoints: list[str] = []
    directive: Any = None
    metrics: ExecutionMetrics | None = None
    resource_usage: list[ResourceUsage] | None = None
    timeline: list[TimelineEntry] | None = None

    @property
    def id(self) -> str:
        return self.execution_id

    @property
    def ok(self) -> bool:
        """Whether it completed."""
        return self.status == ExecutionStatus.COMPLETED

    @property
    def output(self) -> Any:
        return self.result

    @property
    def partial_results(self) -> dict[str, Any]:
        """The outputs of the steps that completed and were not undone, by step id: also of an execution that failed."""
        return {
            task.task_id: task.output
            for task in self.results
            if task.status == TaskStatus.COMPLETED and task.compensation != "completed"
        }

    def step(self, step_id: str) -> TaskResult:
        """The result of one step. Raises KeyError."""
        for task in self.results:
            if task.task_id == step_id:
                return task
        raise KeyError(step_id)

    def unwrap(self) -> Any:
        """`result`, or the execution's typed error, raised."""
        if self.ok:
            return self.result
        raise exception_of(self.execution_id, self.status, self.error)


class Pending(msgspec.Struct, frozen=True):
    """Not ended yet."""

    status: ExecutionStatus


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an execution is. `percentage`: ended steps of all, 0 to 100. `current_task`: a step that runs, or is next to.

    `estimated_time_remaining_ms`: by how long its steps took in the past, and what is left of them; None: not known.
    """

    percentage: float
    completed_tasks: int
    total_tasks: int
    current_phase: str
    current_task: str | None = None
    estimated_time_remaining_ms: int | None = None

    @property
    def completed(self) -> int:
        return self.completed_tasks

    @property
    def total(self) -> int:
        return self.total_tasks


class LogMessage(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """A line that a handler told (`ctx.log`). `context`: what it said besides, by name. `left_out`: lines of the same attempt
    just before this one that were too many to be sent."""

    level: Level
    message: str
    time: datetime
    task_id: str
    attempt: int = 1
    run: int = 1
    context: dict[str, Any] = {}
    worker_id: str | None = None
    left_out: int = 0


class TaskProgress(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """How far a running attempt says it is (`ctx.progress`). `fraction`: 0 to 1."""

    fraction: float
    text: str = ""
    time: datetime
    attempt: int = 1


class ExecutionUpdate(msgspec.Struct, kw_only=True):
    """What a watcher hears: the state after a commit, and the events that led there since the update before. `version`: the
    number of the last of them. `metrics`: so far, as of now.

    `messages`: lines that handlers told since then; the first update has the last ones that are kept. `task_progress`: how far
    the steps that run say they are, by step id. An update with news of these may have no events.
    """

    execution_id: str
    timestamp: datetime
    version: int = 0
    status: ExecutionStatus
    progress: Progress
    current_task: str | None = None
    metrics: ExecutionMetrics | None = None
    events: list[Event] = []
    messages: list[LogMessage] = []
    task_progress: dict[str, TaskProgress] = {}


def result_of(state: ExecutionState) -> ExecutionResult:
    """The whole answer for a state that exists."""
    created, graph = state.created, state.graph
    status = _EXECUTION[state.status]
    tasks = [_task_result(index, graph.steps[index].id, graph.steps[index].task, step) for index, step in enumerate(state.steps)]
    result = ExecutionResult(
        execution_id=state.execution_id,
        plan_id=created.plan_id,
        name=created.name,
        status=status,
        current_phase=phase_of(state),
        run=state.run,
        input=created.given,
        result=_final(state) if state.status == "completed" else None,
        error=_error_of(state),
        results=tasks,
        total_steps=len(tasks),
        completed_steps=_completed(state),
        failed_steps=len(state.failed),
        created_at=state.created_at,
        started_at=state.started_at,
        completed_at=state.ended_at,
        duration_ms=_between(state.started_at, state.ended_at),
        metadata=created.metadata,
        idempotency_key=created.idempotency_key,
        owner=created.owner,
        position=state.position,
        variables=state.variables,
    )
    _tell_what_is_rare(result, state, created)
    return result


def _completed(state: ExecutionState) -> int:
    return [step.status for step in state.steps].count("completed")


def summary_of(state: ExecutionState) -> ExecutionSummary:
    """What lists say of a state that exists: the same as its result."""
    created = state.created
    assert state.created_at is not None
    return ExecutionSummary(
        execution_id=state.execution_id,
        plan_id=created.plan_id,
        name=created.name,
        status=_EXECUTION[state.status],
        current_phase=phase_of(state),
        run=state.run,
        created_at=state.created_at,
        started_at=state.started_at,
        completed_at=state.ended_at,
        duration_ms=_between(state.started_at, state.ended_at),
        total_steps=len(state.steps),
        completed_steps=_completed(state),
        failed_steps=len(state.failed),
        error=_without_stack(_error_of(state)),
        metadata=created.metadata,
        owner=created.owner,
        paused=state.paused,
        rollback_status=state.rollback_status,
        parent=created.parent,
        forked_from=created.forked_from,
        n=state.n,
        position=state.position,
    )


_RECORDED = tuple(name for name in TaskResult.__struct_fields__ if name not in ("output", "directive"))
_recorded = attrgetter(*_RECORDED)


def record_of(state: ExecutionState, index: int) -> TaskRecord:
    """What lists say of one step: the same as its result, without the output."""
    step, created = state.graph.steps[index], state.created
    result = _task_result(index, step.id, step.task, state.steps[index])
    said = dict(zip(_RECORDED, _recorded(result), strict=True))
    said["error"] = _without_stack(result.error)
    assert state.created_at is not None
    return TaskRecord(
        **said,
        execution_id=state.execution_id,
        execution_name=created.name,
        plan_id=created.plan_id,
        run=state.run,
        created_at=state.created_at,
    )


def _without_stack(error: ErrorInfo | None) -> ErrorInfo | None:
    return error if error is None or error.stack is None else msgspec.structs.replace(error, stack=None)


def _tell_what_is_rare(result: ExecutionResult, state: ExecutionState, created: ExecutionCreated) -> None:
    """What most executions have nothing of. Not among the others, for a thousand results a second cost something."""
    if state.paused:
        result.paused, result.pause_reason = True, state.pause_reason
    if state.rollback_status is not None:
        result.rollback_status = state.rollback_status
        if state.rollback_status == "partial":
            result.not_undone = _not_undone(state)
    if created.start_at is not None or state.deadline is not None:
        result.start_at, result.deadline = created.start_at, state.deadline
    if created.parent is not None or created.forked_from is not None:
        result.parent, result.forked_from = created.parent, created.forked_from
    if state.going_since is not None:
        result.going_since = state.going_since
    if state.checkpoints:
        result.checkpoints = list(state.checkpoints)
    if result.error is not None:
        result.directive = result.error.directive
    elif state.status == "completed":
        result.directive = _final_directive(state)


def _task_result(index: int, step_id: str, task: str, step: StepState) -> TaskResult:
    ended_at = step.ended_at if step.status in SETTLED else None
    result = TaskResult(
        task_id=step_id,
        step_index=index,
        name=task,
        status=_TASK[step.status],
        output=step.output,
        error=step.error,
        retries=step.retries if step.scheduled > 1 else 0,
        attempt=step.attempt,
        worker_id=step.worker or None,
        started_at=step.first_started_at,
        completed_at=ended_at,
        duration_ms=_between(step.first_started_at, ended_at),
        next_retry_at=step.next_retry_at,
        was_rate_limited=step.was_rate_limited,
        skip_reason=step.skip_reason,
    )
    if step.timed_out or step.fallback is not None or step.recoveries or step.compensation is not None:
        result.timed_out, result.fallback, result.recoveries = step.timed_out, step.fallback, step.recoveries
        if step.compensation is not None:
            result.compensation, result.compensation_error = step.compensation, step.undo_error
            result.undone_by = step.compensator if step.compensation != "skipped" else None
    if step.measured is not None:
        result.quality, result.cost, result.metrics = step.measured.quality, step.measured.cost, step.measured.metrics
    if step.directive is not None and step.status == "completed":
        result.directive = step.directive
    elif step.error is not None:
        result.directive = step.error.directive
    if step.cached is not None:
        result.cached_from = f"{step.cached.source_execution}/{step.cached.source_step}"
    return result


def _not_undone(state: ExecutionState) -> list[str]:
    """The steps that a rollback which is over left as they are."""
    return [state.graph.steps[index].id for index in dict.fromkeys(deed.step for deed in reversed(state.standing.values()))]


def _between(start: datetime | None, end: datetime | None) -> int | None:
    return None if start is None or end is None else max(0, round((end - start).total_seconds() * 1000))


def _final(state: ExecutionState) -> Any:
    sinks = state.graph.sinks
    if len(sinks) == 1:
        return state.steps[sinks[0]].output
    return {state.graph.steps[sink].id: state.steps[sink].output for sink in sinks}


def final_output(state: ExecutionState) -> Any:
    """The output of a completed execution; for any other end its error is raised."""
    if state.status == "completed":
        return _final(state)
    raise exception_of(state.execution_id, ExecutionStatus(state.status), _error_of(state))


def _error_of(state: ExecutionState) -> ErrorInfo | None:
    """What an execution ended with that did not complete; None: it has not, or somebody cancelled it."""
    if state.status == "cancelled" and state.cancel_code is not None:
        return ErrorInfo(type="execution_error", code=state.cancel_code, message=state.cancel_reason, timestamp=state.ended_at)
    return state.error if state.status in ("failed", "rolled_back") else None


def exception_of(execution_id: str, status: ExecutionStatus, error: ErrorInfo | None) -> EsexecError:
    """The exception for an execution that ended, but did not complete."""
    if status == ExecutionStatus.ROLLED_BACK and error is None:
        return ExecutionError(f"execution {execution_id} was rolled back", code="rolled_back", execution_id=execution_id)
    if status == ExecutionStatus.CANCELLED or error is None:
        why, code = (f": {error.message}", error.code) if error is not None else ("", None)
        return ExecutionCancelled(f"execution {execution_id} is {status.value}{why}", code=code, execution_id=execution_id)
    return to_exception(error)


def outcome_of(state: ExecutionState) -> Pending | Ok | Err:
    """The three-way view: pending, or the value, or the error."""
    if not state.ended:
        return Pending(ExecutionStatus(state.status))
    try:
        return Ok(final_output(state), _final_directive(state))
    except EsexecError as error:
        return Err(error, getattr(error, "directive", None))


def _final_directive(state: ExecutionState) -> Any:
    """Beside the output of the one last step; of several last steps each has its own in its result."""
    sinks = state.graph.sinks
    return state.steps[sinks[0]].directive if len(sinks) == 1 else None


def progress_of(state: ExecutionState, remaining_ms: int | None = None) -> Progress:
    """How far a state that exists is."""
    total = len(state.steps)
    ended = total - state.unsettled
    return Progress(
        percentage=100.0 * ended / total if total else 100.0,
        completed_tasks=ended,
        total_tasks=total,
        current_phase=phase_of(state),
        current_task=_current_task(state),
        estimated_time_remaining_ms=remaining_ms,
    )


def _current_task(state: ExecutionState) -> str | None:
    return next(
        (state.graph.steps[index].id for index in state.in_flight if state.steps[index].status == "running"),
        next((state.graph.steps[index].id for index in state.in_flight), None),
    )


def update_of(state: ExecutionState, events: list[Event], remaining_ms: int | None = None) -> ExecutionUpdate:
    """What a watcher is told after these events. `remaining_ms`: how long it will probably take still."""
    assert state.time is not None
    progress = progress_of(state, remaining_ms)
    return ExecutionUpdate(
        execution_id=state.execution_id,
        timestamp=state.time,
        version=state.version,
        status=_EXECUTION[state.status],
        progress=progress,
        current_task=progress.current_task,
        events=events,
    )
