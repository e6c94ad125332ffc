"""What can have happened. A closed union; the type names and field names are a storage format and never change meaning.

A new version of an event gets an upcaster in the codec and a golden history under `tests/histories/`.
Every event of a step names its `step`, `attempt` and `run` (omitted while 1). Times are UTC, durations `_ms`.
"""

from datetime import datetime
from typing import Any, Literal, get_args

import msgspec

from esexec.domain.alerts import AlertCondition
from esexec.domain.errors import ErrorInfo
from esexec.domain.flow import Resource, ResourcePool, ResourceUsage
from esexec.domain.measures import Measured
from esexec.domain.objects import ObjectRef
from esexec.domain.settings import EMPTY_CONFIG, EMPTY_NAMESPACE, ExecutionConfig, NamespaceConfig, TaskInfo
from esexec.domain.sharing.requests import Ask, Gate
from esexec.domain.strategies import RecoveryVerb, Strategy

SkipReason = Literal["dependency_failed", "recovery", "condition", "cancelled"]
Ending = Literal["cancelled", "killed", "abandoned"]
"""How a late or cancelled handler was ended: its coroutine cancelled, its process killed, its thread left to itself."""

Instead = Literal["recovery", "fallback"]
"""What is tried once a step's attempts have failed, in this order, before the step is failed."""
AfterRecovery = Literal["retry", "recovery", "skip", "fallback", "fail", "restore"]
"""What follows from a strategy's advice."""
CheckpointBy = Literal["command", "interval", "task"]


class _Event(msgspec.Struct, tag_field="type", omit_defaults=True, frozen=True, kw_only=True, gc=False):
    pass


# Executions ----------------------------------------------------------------------------------------------------------


class ExecutionCreated(_Event, tag="execution_created", frozen=True, kw_only=True):
    """A start was accepted. Holds all that the history needs to explain itself: plan, input, and every level of settings.

    `tasks`: what workers had announced of the plan's tasks, an inverse that was found by its name included. `unannounced`: those
    that no worker had announced by then, and that wait for one (of many the first). `namespace`: the
    namespace's settings at that time, of its queues those that may be used. `start_at`: nothing happens before. `deadline`,
    `parent`, `forked_from`, `kept`: as in the start. `plan_object`: the plan is kept as this object, and `plan` is not stored
    (whoever reads the history puts it there). `input_object`, `kept_objects`: the same of the input and of kept outputs.
    """

    plan: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    plan_id: str
    name: str
    input: Any = None
    context: dict[str, Any] = {}
    config: ExecutionConfig = EMPTY_CONFIG
    tasks: dict[str, TaskInfo] = {}
    namespace: NamespaceConfig = EMPTY_NAMESPACE
    metadata: dict[str, Any] = {}
    idempotency_key: str | None = None
    owner: str | None = None
    start_at: datetime | None = None
    deadline: datetime | None = None
    parent: str | None = None
    forked_from: str | None = None
    kept: dict[str, Any] = {}
    unannounced: tuple[str, ...] = ()
    plan_object: ObjectRef | None = None
    input_object: ObjectRef | None = None
    kept_objects: dict[str, ObjectRef] = {}

    @property
    def document(self) -> bytes:
        """The plan's JSON; empty: it is kept as an object, and was not fetched."""
        return b"" if self.plan is msgspec.UNSET else bytes(self.plan)

    @property
    def given(self) -> Any:
        """The input, or what stands for it."""
        return self.input if self.input_object is None else self.input_object


class ExecutionStarted(_Event, tag="execution_started", frozen=True, kw_only=True):
    """The first step may be scheduled. The timer of the first checkpoint, if there is an interval, is named by this version."""


class ExecutionCompleted(_Event, tag="execution_completed", frozen=True, kw_only=True):
    """Every step completed, or was skipped for a reason that is no failure."""


class ExecutionFailed(_Event, tag="execution_failed", frozen=True, kw_only=True):
    """At least one step failed, or the deadline passed, and nothing is in flight any more. `error` is that of the first failure.

    `rollback_status` `partial`: it was rolled back, and not everything that was to be undone was; `not_undone` names the steps.
    """

    error: ErrorInfo
    failed_steps: tuple[str, ...] = ()
    rollback_status: Literal["partial"] | None = None
    not_undone: tuple[str, ...] = ()


class ExecutionCancelRequested(_Event, tag="execution_cancel_requested", frozen=True, kw_only=True):
    """Somebody wants it to end. What is queued is withdrawn, what runs is told, until `grace_ms` is over.

    `code`: `skipped` or `replaced`, where its concurrency key wants it, and nobody asked for it.
    """

    grace_ms: int
    reason: str = ""
    code: str | None = None


class ExecutionCancelled(_Event, tag="execution_cancelled", frozen=True, kw_only=True):
    """Nothing is in flight any more after a cancel request; or the grace was over (`abandoned` then names the steps).

    `rollback_status`: if it was being rolled back, whether anything was left (`partial`; `not_undone` names the steps).
    """

    reason: str = ""
    abandoned: tuple[str, ...] = ()
    rollback_status: Literal["completed", "partial"] | None = None
    not_undone: tuple[str, ...] = ()


class ExecutionPaused(_Event, tag="execution_paused", frozen=True, kw_only=True):
    """Nothing new is handed out from now on; what waits for a worker is taken back."""

    reason: str = ""


class ExecutionResumed(_Event, tag="execution_resumed", frozen=True, kw_only=True):
    """The pause is over: what waited is handed out, and due retries are due."""


class ExecutionRetried(_Event, tag="execution_retried", frozen=True, kw_only=True):
    """It runs again, as run `run`: completed steps keep their outputs, unless they were undone. `step`: only this failed one."""

    run: int
    step: str | None = None


class ExecutionForked(_Event, tag="execution_forked", frozen=True, kw_only=True):
    """A retry as an execution of its own was asked for: `new_id` is started with what this one had completed at this version.

    `all_again`: with nothing, because this one was rolled back.
    """

    new_id: str
    all_again: bool = False


class DeadlineSet(_Event, tag="execution_deadline_set", frozen=True, kw_only=True):
    """This run must end by `deadline`. The timer that sees to it is named by this event's version."""

    deadline: datetime


class DeadlineExceeded(_Event, tag="execution_deadline_exceeded", frozen=True, kw_only=True):
    """The deadline passed: the execution fails. What is queued is withdrawn, what runs is told, until `grace_ms` is over."""

    error: ErrorInfo
    grace_ms: int


# Checkpoints -----------------------------------------------------------------------------------------------------------


class CheckpointCreated(_Event, tag="checkpoint_created", frozen=True, kw_only=True):
    """The state before this event has a name: `<execution>.<version>`, the version being this event's."""

    checkpoint_id: str
    by: CheckpointBy = "command"
    metadata: dict[str, Any] = {}


class CheckpointFailed(_Event, tag="checkpoint_failed", frozen=True, kw_only=True):
    """A checkpoint could not be made. A message, not a failure: the execution goes on; automatic checkpoints end here."""

    message: str
    by: CheckpointBy = "command"


class CheckpointRestored(_Event, tag="checkpoint_restored", frozen=True, kw_only=True):
    """It goes on from a checkpoint, as run `run`. What was completed since runs again, and is not undone.

    `abandoned`: the attempts of the run before that were open, as `step/attempt`: nobody waits for them any more. `vars`: what
    a recovery strategy set; they stand over the checkpoint's.
    """

    checkpoint_id: str
    run: int
    by: Literal["command", "recovery"] = "command"
    reason: str = ""
    abandoned: tuple[str, ...] = ()
    vars: dict[str, Any] = {}


# Rollback --------------------------------------------------------------------------------------------------------------


class RollbackStarted(_Event, tag="rollback_started", frozen=True, kw_only=True):
    """What was completed is undone from now on, one step after the other, in reverse order of completion."""

    by: Literal["failure", "command"] = "failure"
    reason: str = ""


class ExecutionRolledBack(_Event, tag="execution_rolled_back", frozen=True, kw_only=True):
    """Everything that can be undone was. `undone`: how many steps; `skipped`: those that nothing undoes; `error`: the failure."""

    undone: int
    skipped: tuple[str, ...] = ()
    error: ErrorInfo | None = None


# Tasks: one attempt of one step ----------------------------------------------------------------------------------------


class _TaskEvent(_Event, frozen=True, kw_only=True):
    step: str
    attempt: int = 1
    run: int = 1


class TaskScheduled(_TaskEvent, tag="task_scheduled", frozen=True, kw_only=True):
    """The attempt is handed to the workers of its queue (while the execution is paused, once it is resumed).

    If it may not wait for ever, the timer that ends its waiting is named by this event's version.
    """


class TaskStarted(_TaskEvent, tag="task_started", frozen=True, kw_only=True):
    """The handler of the attempt began, at `started_at` by its worker's clock."""

    started_at: datetime
    worker: str = ""


class TaskCompleted(_TaskEvent, tag="task_completed", frozen=True, kw_only=True):
    """The attempt returned `output`, and set these of the execution's variables. `measured`: what its handler measured.

    `output_object`: the output is kept as this object. `directive`: what it said beside its output. That of a failed one stands
    in its error. `worker`: who completed it, if another had begun it and was lost.
    """

    ended_at: datetime
    output: Any = None
    output_object: ObjectRef | None = None
    vars: dict[str, Any] = {}
    measured: Measured | None = None
    directive: Any = None
    worker: str = ""


class TaskFailed(_TaskEvent, tag="task_failed", frozen=True, kw_only=True):
    """The attempt ended with an error. The step is failed only if `will_retry` is false and nothing is tried `instead`."""

    error: ErrorInfo
    ended_at: datetime | None = None
    will_retry: bool = False
    retries_exhausted: bool = False
    instead: Instead | None = None
    vars: dict[str, Any] = {}
    measured: Measured | None = None


class TaskRejected(TaskFailed, tag="task_rejected", frozen=True, kw_only=True):
    """The worker that was handed the attempt does not have its task. Takes the place of `TaskFailed`; it is never retried."""


class TaskTimedOut(_TaskEvent, tag="task_timed_out", frozen=True, kw_only=True):
    """The attempt ran past its timeout; takes the place of `TaskFailed`, never beside it. `ended` says how it was stopped.

    With the error code `queue_timeout` no worker began it in time.
    """

    timeout_ms: int
    error: ErrorInfo
    ended_at: datetime | None = None
    ended: Ending | None = None
    will_retry: bool = False
    retries_exhausted: bool = False
    instead: Instead | None = None
    measured: Measured | None = None


class TaskRetryScheduled(_TaskEvent, tag="task_retry_scheduled", frozen=True, kw_only=True):
    """The next attempt (`attempt`) is due at `due`. The timer that wakes it is named by this event's version."""

    delay_ms: int
    due: datetime


class TaskSkipped(_TaskEvent, tag="task_skipped", frozen=True, kw_only=True):
    """The step will not run. `because` names the failed dependency, if that is the reason."""

    reason: SkipReason
    because: str | None = None


class TaskCancelled(_TaskEvent, tag="task_cancelled", frozen=True, kw_only=True):
    """The step ends because its execution was cancelled. `ended`: how a running handler was stopped, if one ran.

    `attempt` 0: the step had no attempt yet.
    """

    ended: Ending | None = None
    measured: Measured | None = None


class TaskHeld(_TaskEvent, tag="task_held", frozen=True, kw_only=True):
    """A pause took the attempt back before any worker had it. It is handed out again when the pause is over."""


class TaskOverdue(_TaskEvent, tag="task_overdue", frozen=True, kw_only=True):
    """No worker is known to have begun the attempt in time: it is taken back, and timed out if nobody had it."""


# Flow control: what an attempt must be granted before it is handed out -------------------------------------------------------


class TaskGranted(_TaskEvent, tag="task_granted", frozen=True, kw_only=True):
    """The attempt was granted something that it asked for: room within its rate limit, or a slot of its concurrency key.

    After the last grant it is handed to the workers of its queue. If it may not wait there for ever, the timer that ends its
    waiting is named by the version of that last grant. `entity`: who granted it.
    """

    by: Gate
    entity: str


class ResourceAllocated(_TaskEvent, tag="resource_allocated", frozen=True, kw_only=True):
    """The attempt was granted these resources; it has them until it ends."""

    resources: tuple[Resource, ...]


class ResourceReleased(_TaskEvent, tag="resource_released", frozen=True, kw_only=True):
    """The attempt has ended, or is not waited for any more: its resources are given back. `usage`: what they were used for."""

    usage: tuple[ResourceUsage, ...]


class TaskRateLimited(_TaskEvent, tag="task_rate_limited", frozen=True, kw_only=True):
    """There is no room within the rate limit: the attempt waits for its turn, and uses up no retry.

    `next_retry_at`: its turn cannot come before.
    """

    entity: str
    next_retry_at: datetime | None = None


class TaskWaiting(_TaskEvent, tag="task_waiting", frozen=True, kw_only=True):
    """The attempt waits for a slot of its concurrency key, or for its resources. `ahead`: how many wait before it."""

    by: Gate
    entity: str
    ahead: int = 0


class ExecutionGranted(_Event, tag="execution_granted", frozen=True, kw_only=True):
    """The run may begin, or go on: it has a slot of its concurrency key, until it ends."""

    entity: str
    run: int = 1


class ExecutionQueued(_Event, tag="execution_queued", frozen=True, kw_only=True):
    """The run asks for a slot of its concurrency key: it begins, or goes on, once it is granted. `entity`: who grants it."""

    entity: str
    run: int = 1


class FallbackStarted(_TaskEvent, tag="task_fallback_started", frozen=True, kw_only=True):
    """From this attempt on the step is done by another task, `task`, with attempts of its own."""

    task: str


class BeforeImageRecorded(_TaskEvent, tag="before_image_recorded", frozen=True, kw_only=True):
    """What something was before the step changed it. Only the first image of a step is recorded."""

    image: Any = None


class RecoveryInitiated(_TaskEvent, tag="recovery_initiated", frozen=True, kw_only=True):
    """A recovery strategy is asked what to do about the step's failure; asking it is an attempt of the step's, `attempt`."""

    strategy: str
    name: str = ""
    queue: str = "default"
    timeout_ms: int = 30_000
    before_retries: bool = False


class RecoveryStarted(_TaskEvent, tag="recovery_started", frozen=True, kw_only=True):
    """The strategy's code began, at `started_at` by its worker's clock."""

    started_at: datetime
    worker: str = ""


class RecoveryCompleted(_TaskEvent, tag="recovery_completed", frozen=True, kw_only=True):
    """The strategy asked for `action`; one that threw, timed out or was lost asks to abort. `then` is what follows.

    Without `success` nothing came of it, and the failure order goes on behind it: with another strategy (`recovery`), say. With
    `fail` the step is failed; an abort also ends the execution.
    """

    success: bool
    action: RecoveryVerb
    then: AfterRecovery
    message: str = ""
    ended_at: datetime | None = None
    vars: dict[str, Any] = {}


class CompensationScheduled(_TaskEvent, tag="compensation_scheduled", frozen=True, kw_only=True):
    """The undoing of the step, by `task`, is handed to its workers."""

    task: str


class CompensationStarted(_TaskEvent, tag="compensation_started", frozen=True, kw_only=True):
    """The handler that undoes the step began, at `started_at` by its worker's clock."""

    started_at: datetime
    worker: str = ""


class CompensationCompleted(_TaskEvent, tag="compensation_completed", frozen=True, kw_only=True):
    """The step is undone. `vars`: the execution's variables that the compensation set."""

    ended_at: datetime
    vars: dict[str, Any] = {}
    measured: Measured | None = None


class CompensationFailed(_TaskEvent, tag="compensation_failed", frozen=True, kw_only=True):
    """An attempt to undo the step failed, or timed out. The step stays as it is only if `will_retry` is false."""

    error: ErrorInfo
    ended_at: datetime | None = None
    will_retry: bool = False
    retries_exhausted: bool = False
    measured: Measured | None = None


class CompensationRetryScheduled(_TaskEvent, tag="compensation_retry_scheduled", frozen=True, kw_only=True):
    """The next attempt (`attempt`) to undo the step is due at `due`. Its timer is named by this event's version."""

    delay_ms: int
    due: datetime


class CompensationSkipped(_TaskEvent, tag="compensation_skipped", frozen=True, kw_only=True):
    """The step is not undone, because nothing is known that undoes it, or what it was before was not recorded."""

    reason: Literal["no_compensation", "no_before_image"]


# Cached results ----------------------------------------------------------------------------------------------------------


class TaskCacheHit(_TaskEvent, tag="task_cache_hit", frozen=True, kw_only=True):
    """No handler ran: the output that follows was returned before, in `source_step` of `source_execution`, `age_ms` ago.

    It takes the place of `task_started`. `found_at` is its worker's clock's, `key` what it was found by. A rollback undoes
    nothing of it.
    """

    key: str
    source_execution: str
    source_step: str
    age_ms: int
    found_at: datetime
    worker: str = ""


# What executions share ---------------------------------------------------------------------------------------------------


class KeyBound(_Event, tag="key_bound", frozen=True, kw_only=True):
    """An idempotency key belongs to an execution, for ever."""

    key: str
    execution_id: str


class NamespaceConfigured(_Event, tag="namespace_configured", frozen=True, kw_only=True):
    """The namespace's level of the settings is now this."""

    config: NamespaceConfig


class TasksAnnounced(_Event, tag="tasks_announced", frozen=True, kw_only=True):
    """Workers announced these tasks: what is said of each replaces what was said of it before.

    `schemas`: of the params of a task, each one more version of it that takes what this describes; None: one that takes anything.
    `any_task`: the worker has a handler for tasks of whatever name.
    """

    tasks: dict[str, TaskInfo]
    worker: str = ""
    schemas: dict[str, dict[str, Any] | None] = {}
    any_task: bool = False


class StrategyAdded(_Event, tag="strategy_added", frozen=True, kw_only=True):
    """Failures in the namespace are offered to this recovery strategy; it takes the place of one of the same id."""

    strategy: Strategy


class StrategyRemoved(_Event, tag="strategy_removed", frozen=True, kw_only=True):
    """Failures are not offered to this strategy any more."""

    strategy_id: str


class PlanStored(_Event, tag="plan_stored", frozen=True, kw_only=True):
    """A plan's document, in an entity of its own (`_plan-<hash>`), for ever; a large one as this object."""

    plan_id: str
    plan: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    plan_object: ObjectRef | None = None

    @property
    def document(self) -> bytes:
        """The plan's JSON; empty: it is kept as an object."""
        return b"" if self.plan is msgspec.UNSET else bytes(self.plan)


class PlanListed(_Event, tag="plan_listed", frozen=True, kw_only=True):
    """A plan that the namespace keeps, or its new status. `problem`: why it is `invalid`. `query`: what it was made from."""

    plan_id: str
    name: str
    status: Literal["draft", "ready", "invalid", "archived"]
    problem: ErrorInfo | None = None
    query: str = ""


class RequestQueued(_Event, tag="request_queued", frozen=True, kw_only=True):
    """Somebody waits for a grant. `request_id`: `<execution>/<step>/<run>-<attempt>`, or the id of a client's command.

    `at`: when it asked, where that was before this commit.
    """

    request_id: str
    ask: Ask
    priority: int = 5
    at: datetime | None = None


class RequestGranted(_Event, tag="request_granted", frozen=True, kw_only=True):
    """Somebody may begin. `ask`: where it had not waited, and `at`: when it asked, where that was before this commit.

    `until`: then the lease of its resources ends, unless it is renewed.
    """

    request_id: str
    ask: Ask | None = None
    at: datetime | None = None
    resources: tuple[Resource, ...] = ()
    until: datetime | None = None


class RequestDropped(_Event, tag="request_dropped", frozen=True, kw_only=True):
    """Somebody does not wait any more: it was withdrawn, or (`error`) cannot be granted. `skipped`: another took its place."""

    request_id: str
    error: ErrorInfo | None = None
    skipped: bool = False


class GrantReleased(_Event, tag="grant_released", frozen=True, kw_only=True):
    """What somebody was granted is free again; if ids are named, of its resources only those. `expired`: its lease ended."""

    request_id: str
    resources: tuple[str, ...] = ()
    expired: bool = False


class LeaseRenewed(_Event, tag="lease_renewed", frozen=True, kw_only=True):
    """Somebody goes on holding its resources, until then."""

    request_id: str
    until: datetime


class PoolDeclared(_Event, tag="pool_declared", frozen=True, kw_only=True):
    """There is such a pool; it takes the place of one of the same id."""

    pool: ResourcePool


class PoolRemoved(_Event, tag="pool_removed", frozen=True, kw_only=True):
    """There is no such pool any more."""

    pool_id: str


class AlertSet(_Event, tag="alert_set", frozen=True, kw_only=True):
    """It is watched whether `condition` holds; it takes the place of one of the same id. `webhook`: where alerts are posted."""

    alert_id: str
    condition: AlertCondition
    webhook: str | None = None


class AlertRemoved(_Event, tag="alert_removed", frozen=True, kw_only=True):
    """It is not watched any more."""

    alert_id: str


class Compacted(_Event, tag="compacted", frozen=True, kw_only=True):
    """All that this entity has become until now. What was before may be gone from the log."""

    state: msgspec.Raw


ExecutionEvent = (
    ExecutionCreated
    | ExecutionStarted
    | ExecutionCompleted
    | ExecutionFailed
    | ExecutionCancelRequested
    | ExecutionCancelled
    | TaskScheduled
    | TaskStarted
    | TaskCompleted
    | TaskFailed
    | TaskRejected
    | TaskTimedOut
    | TaskRetryScheduled
    | TaskSkipped
    | TaskCancelled
    | ExecutionPaused
    | ExecutionResumed
    | ExecutionRetried
    | ExecutionForked
    | DeadlineSet
    | DeadlineExceeded
    | CheckpointCreated
    | CheckpointFailed
    | CheckpointRestored
    | RollbackStarted
    | ExecutionRolledBack
    | TaskHeld
    | TaskOverdue
    | FallbackStarted
    | BeforeImageRecorded
    | RecoveryInitiated
    | RecoveryStarted
    | RecoveryCompleted
    | CompensationScheduled
    | CompensationStarted
    | CompensationCompleted
    | CompensationFailed
    | CompensationRetryScheduled
    | CompensationSkipped
    | TaskCacheHit
    | TaskGranted
    | ResourceAllocated
    | ResourceReleased
    | TaskRateLimited
    | TaskWaiting
    | ExecutionGranted
    | ExecutionQueued
)
SharedEvent = (
    KeyBound
    | NamespaceConfigured
    | TasksAnnounced
    | StrategyAdded
    | StrategyRemoved
    | PlanStored
    | PlanListed
    | RequestQueued
    | RequestGranted
    | RequestDropped
    | GrantReleased
    | LeaseRenewed
    | PoolDeclared
    | PoolRemoved
    | Compacted
    | AlertSet
    | AlertRemoved
)
Event = ExecutionEvent | SharedEvent


_TYPE_OF = {kind: str(kind.__struct_config__.tag) for kind in get_args(Event)}
TYPES: tuple[str, ...] = tuple(_TYPE_OF.values())
"""Every event type."""


def type_of(event: Event) -> str:
    """The event's name on the wire: `task_failed`."""
    return _TYPE_OF[type(event)]
