"""What can have happened. A closed union; the type names and field names are a storage format and never change meaning.

A new version of an event gets an upcaster in the codec and a golden history under `tests/histories/`.
Every event of a step names its `step`, `attempt` and `run` (omitted while 1). Times are UTC, durations `_ms`.
"""

from datetime import datetime
from typing import Any, Literal, get_args

import msgspec

from esexec.domain.errors import ErrorInfo
from esexec.domain.settings import EMPTY_CONFIG, ExecutionConfig, TaskSettings

SkipReason = Literal["dependency_failed", "recovery", "condition", "cancelled"]
Ending = Literal["cancelled", "killed", "abandoned"]
"""How a late or cancelled handler was ended: its coroutine cancelled, its process killed, its thread left to itself."""


class _Event(msgspec.Struct, tag_field="type", omit_defaults=True, frozen=True, kw_only=True, gc=False):
    pass


# Executions ----------------------------------------------------------------------------------------------------------


class ExecutionCreated(_Event, tag="execution_created", frozen=True, kw_only=True):
    """A start was accepted. Holds all that the history needs to explain itself: plan, input, and every level of settings.

    `tasks`: what workers had announced of the plan's tasks. `namespace`: the namespace's settings at that time.
    """

    plan: msgspec.Raw
    plan_id: str
    name: str
    input: Any = None
    context: dict[str, Any] = {}
    config: ExecutionConfig = EMPTY_CONFIG
    tasks: dict[str, TaskSettings] = {}
    namespace: ExecutionConfig = EMPTY_CONFIG
    metadata: dict[str, Any] = {}
    idempotency_key: str | None = None
    owner: str | None = None


class ExecutionStarted(_Event, tag="execution_started", frozen=True, kw_only=True):
    """The first step may be scheduled."""


class ExecutionCompleted(_Event, tag="execution_completed", frozen=True, kw_only=True):
    """Every step completed, or was skipped for a reason that is no failure."""


class ExecutionFailed(_Event, tag="execution_failed", frozen=True, kw_only=True):
    """At least one step failed and nothing is in flight any more. `error` is that of the first step that failed."""

    error: ErrorInfo
    failed_steps: tuple[str, ...] = ()


class ExecutionCancelRequested(_Event, tag="execution_cancel_requested", frozen=True, kw_only=True):
    """Somebody wants it to end. What is queued is withdrawn, what runs is told, until `grace_ms` is over."""

    grace_ms: int
    reason: str = ""


class ExecutionCancelled(_Event, tag="execution_cancelled", frozen=True, kw_only=True):
    """Nothing is in flight any more after a cancel request; or the grace was over (`abandoned` then names the steps)."""

    reason: str = ""
    abandoned: tuple[str, ...] = ()


# Tasks: one attempt of one step ----------------------------------------------------------------------------------------


class _TaskEvent(_Event, frozen=True, kw_only=True):
    step: str
    attempt: int = 1
    run: int = 1


class TaskScheduled(_TaskEvent, tag="task_scheduled", frozen=True, kw_only=True):
    """The attempt is handed to the workers of its queue."""


class TaskStarted(_TaskEvent, tag="task_started", frozen=True, kw_only=True):
    """The handler of the attempt began, at `started_at` by its worker's clock."""

    started_at: datetime
    worker: str = ""


class TaskCompleted(_TaskEvent, tag="task_completed", frozen=True, kw_only=True):
    """The attempt returned `output`."""

    ended_at: datetime
    output: Any = None


class TaskFailed(_TaskEvent, tag="task_failed", frozen=True, kw_only=True):
    """The attempt ended with an error. The step is failed only if `will_retry` is false."""

    error: ErrorInfo
    ended_at: datetime | None = None
    will_retry: bool = False
    retries_exhausted: bool = False


class TaskTimedOut(_TaskEvent, tag="task_timed_out", frozen=True, kw_only=True):
    """The attempt ran past its timeout; takes the place of `TaskFailed`, never beside it. `ended` says how it was stopped."""

    timeout_ms: int
    error: ErrorInfo
    ended_at: datetime | None = None
    ended: Ending | None = None
    will_retry: bool = False
    retries_exhausted: bool = False


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


# What executions share ---------------------------------------------------------------------------------------------------


class KeyBound(_Event, tag="key_bound", frozen=True, kw_only=True):
    """An idempotency key belongs to an execution, for ever."""

    key: str
    execution_id: str


class NamespaceConfigured(_Event, tag="namespace_configured", frozen=True, kw_only=True):
    """The namespace's level of the settings is now this."""

    config: ExecutionConfig


class TasksAnnounced(_Event, tag="tasks_announced", frozen=True, kw_only=True):
    """Workers announced these tasks: what is said of each replaces what was said of it before."""

    tasks: dict[str, TaskSettings]
    worker: str = ""


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
    | TaskTimedOut
    | TaskRetryScheduled
    | TaskSkipped
    | TaskCancelled
)
SharedEvent = KeyBound | NamespaceConfigured | TasksAnnounced
Event = ExecutionEvent | SharedEvent


def type_of(event: Event) -> str:
    """The event's name on the wire: `task_failed`."""
    return str(event.__struct_config__.tag)


TYPES: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in get_args(Event))
"""Every event type, in the order of this file."""
