"""How attempts are made: timeouts, retries, queue, priority; and how they are merged.

Merge order, later wins: built-in < namespace < queue < task < plan < step < call. None means "not said here".
Durations are milliseconds. `Policy` is the outcome of a merge: nothing in it is None.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.explain import did_you_mean, shown
from esexec.domain.flow import Key, RateLimit, ResourceRequirement

DurationMs = Annotated[int, Meta(ge=0, le=limits.delay_ms)]


class TaskSettings(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What can be said of a task, a step, or of all tasks of a plan, a call or a namespace.

    `timeout_ms`: of one attempt; 0 = none. `timeout_growth`: after each attempt that timed out the next one's timeout is this
    many times longer. `queue_timeout_ms`: how long an attempt may wait for a worker to begin it; 0 = for ever.
    `max_retries`: re-attempts after the first (attempts = max_retries + 1).
    The n-th retry waits min(initial_retry_delay_ms × backoff_multiplier^(n-1), max_retry_delay_ms), × (1 + U(0, jitter)).
    `retry_unknown`: whether errors that no rule knows are retried. `max_retry_after_ms` caps a delay the error asks for.
    `rate_limit`: how many attempts may begin within a time, counted by the task's name unless that says otherwise.
    """

    timeout_ms: Annotated[int, Meta(ge=0, le=limits.timeout_ms)] | None = None
    timeout_growth: Annotated[float, Meta(ge=1, le=1000)] | None = None
    queue_timeout_ms: DurationMs | None = None
    max_retries: Annotated[int, Meta(ge=0, le=limits.max_retries)] | None = None
    initial_retry_delay_ms: DurationMs | None = None
    max_retry_delay_ms: DurationMs | None = None
    backoff_multiplier: Annotated[float, Meta(ge=1, le=1000)] | None = None
    jitter: Annotated[float, Meta(ge=0, le=1)] | None = None
    retry_unknown: bool | None = None
    max_retry_after_ms: DurationMs | None = None
    queue: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-][A-Za-z0-9_-]{0,63}\Z")] | None = None
    priority: Annotated[int, Meta(ge=0, le=limits.priority_max)] | None = None
    rate_limit: RateLimit | None = None


class TaskInfo(TaskSettings, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What a worker announces of a task: its settings, and the task that undoes it (its compensation), if there is one.

    `inverse`: a task that undoes it by its name; found when an execution is created. `concurrency`: how many steps of it may run
    at once; `resources`: what an attempt of it needs. A step's own word takes their place.
    """

    compensate: Annotated[str, Meta(max_length=limits.task_name_chars)] | None = None
    inverse: Annotated[str, Meta(max_length=limits.task_name_chars)] | None = None
    concurrency: Key | None = None
    resources: Annotated[tuple[ResourceRequirement, ...], Meta(max_length=limits.requirements)] = ()


class ExecutionConfig(TaskSettings, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """`TaskSettings` for all steps, and what concerns the execution as a whole.

    `enable_rollback`: whether a failed execution is undone; where `continue_on_error` is on and this was not said, it is off.
    `on_missing_compensation`: whether a completed step that nothing undoes is only listed, or makes the rollback a partial one.
    `execution_timeout_ms`: of a whole run, from its first step; 0 = none. `checkpoint_interval_ms`: a checkpoint that often;
    0 = never. `checkpoint_every`: `task` = one after every task that completed; `never` = none, whatever a weaker level says.
    `concurrency`: how many executions may run at once.
    """

    parallel_execution_limit: Annotated[int, Meta(ge=1, le=limits.parallel_execution_limit)] | None = None
    continue_on_error: bool | None = None
    enable_rollback: bool | None = None
    on_missing_compensation: Literal["skip", "fail"] | None = None
    execution_timeout_ms: DurationMs | None = None
    checkpoint_interval_ms: DurationMs | None = None
    checkpoint_every: Literal["task", "never"] | None = None
    concurrency: Key | None = None

    @classmethod
    def preset(cls, name: str) -> "ExecutionConfig":
        """The settings for a kind of work: `migration`, `bulk` or `critical` (the documents' profiles).

        Raises `ValidationError` (`unknown_preset`) for any other name.
        """
        found = PRESETS.get(name) if isinstance(name, str) else None
        if found is None:
            hint = did_you_mean(name, PRESETS)
            raise ValidationError(f"there is no preset `{shown(name)}`", code="unknown_preset", hint=hint)
        return found


class QueueSettings(TaskSettings, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What a namespace says of the attempts on one of its queues: anything but which queue that is."""

    queue: None = None


class NamespaceConfig(ExecutionConfig, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The namespace's level: `ExecutionConfig`, and by queue what holds for the attempts on it."""

    queues: dict[Annotated[str, Meta(pattern=r"^[A-Za-z0-9-][A-Za-z0-9_-]{0,63}\Z")], QueueSettings] = {}


class Policy(msgspec.Struct, kw_only=True, frozen=True):
    """The settings of one step's attempts, complete. The defaults are the built-in level of the merge."""

    timeout_ms: int = 30_000
    timeout_growth: float = 1.0
    queue_timeout_ms: int = 0
    max_retries: int = 3
    initial_retry_delay_ms: int = 1_000
    max_retry_delay_ms: int = 60_000
    backoff_multiplier: float = 2.0
    jitter: float = 0.25
    retry_unknown: bool = True
    max_retry_after_ms: int = 3_600_000
    queue: str = "default"
    priority: int = 5
    rate_limit: RateLimit | None = None


class ExecutionPolicy(msgspec.Struct, kw_only=True, frozen=True):
    """The settings of the execution as a whole, complete."""

    parallel_execution_limit: int = 5
    continue_on_error: bool = False
    enable_rollback: bool = True
    on_missing_compensation: Literal["skip", "fail"] = "skip"
    execution_timeout_ms: int = 0
    checkpoint_interval_ms: int = 0
    checkpoint_every: Literal["task", "never"] | None = None
    concurrency: Key | None = None


EMPTY_CONFIG = ExecutionConfig()
"""The config that says nothing. Shared, so that "nothing was said" is an identity test on the hot path."""
EMPTY_NAMESPACE = NamespaceConfig()
"""The same of a namespace."""

PRESETS: dict[str, ExecutionConfig] = {
    "migration": ExecutionConfig(
        max_retries=5, initial_retry_delay_ms=2_000, enable_rollback=True, continue_on_error=False, parallel_execution_limit=3
    ),
    "bulk": ExecutionConfig(
        max_retries=3, initial_retry_delay_ms=1_000, enable_rollback=False, continue_on_error=True, parallel_execution_limit=10
    ),
    "critical": ExecutionConfig(
        max_retries=10, initial_retry_delay_ms=5_000, enable_rollback=True, continue_on_error=False, parallel_execution_limit=1
    ),
}
"""What `ExecutionConfig.preset` knows."""

BUILT_IN = Policy()
BUILT_IN_EXECUTION = ExecutionPolicy()


def merge(levels: Iterable[TaskSettings | None]) -> Policy:
    """One complete policy from the levels, weakest first; levels that are None or say nothing cost nothing."""
    said = _said(levels, Policy.__struct_fields__)
    return Policy(**said) if said else BUILT_IN  # type: ignore[arg-type]


def merge_in(namespace: NamespaceConfig, levels: tuple[TaskSettings | None, ...]) -> Policy:
    """`merge`, with the namespace as the weakest level, and above it what that says of the queue that all of them lead to."""
    policy = merge((namespace, *levels))
    of_queue = namespace.queues.get(policy.queue) if namespace.queues else None
    return policy if of_queue is None else merge((namespace, of_queue, *levels))


def merge_execution(levels: Iterable[ExecutionConfig | None]) -> ExecutionPolicy:
    """As `merge`, for what concerns the execution as a whole."""
    said = _said(levels, ExecutionPolicy.__struct_fields__)
    if said.get("continue_on_error"):
        said.setdefault("enable_rollback", False)
    return ExecutionPolicy(**said) if said else BUILT_IN_EXECUTION  # type: ignore[arg-type]


def _said(levels: Iterable[TaskSettings | None], fields: tuple[str, ...]) -> dict[str, object]:
    said: dict[str, object] = {}
    for level in levels:
        if level is None or level is EMPTY_CONFIG or level is EMPTY_NAMESPACE:
            continue
        for field in fields:
            value = getattr(level, field, None)
            if value is not None:
                said[field] = value
    return said
