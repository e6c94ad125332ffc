"""What hypothesis makes of plans, reports and events."""

from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.alerts import AlertCondition
from esexec.domain.errors import ErrorInfo
from esexec.domain.flow import Key, RateLimit, Resource, ResourcePool, ResourceRequirement, ResourceUsage
from esexec.domain.measures import Measured, Metric
from esexec.domain.settings import ExecutionConfig, NamespaceConfig, QueueSettings, TaskInfo, TaskSettings
from esexec.domain.sharing.requests import AskForResources, AskForSlot, AskToBegin
from esexec.domain.strategies import RecoveryVerb, Strategy
from tests.given import start, step

words = st.text("abcxyzABC-_019", min_size=1, max_size=12)
times = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # the timezone is given
whole = st.integers(-(2**63), 2**63 - 1)
values = st.recursive(
    st.none()
    | st.booleans()
    | whole
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
objects = st.dictionaries(words, values, max_size=3)
durations_ms = st.none() | st.integers(0, limits.delay_ms)
rate_limits = st.builds(
    RateLimit,
    max_executions=st.integers(0, limits.grants_per_window),
    window_ms=st.integers(1, limits.window_ms),
    key=st.sampled_from([None, "k", "${input.a}/${params.b}"]),
    on_limit=st.sampled_from(["wait", "reject"]),
)
conditions = st.builds(
    AlertCondition,
    metric=words,
    operator=st.sampled_from(["gt", "lt", "eq", "gte", "lte"]),
    threshold=st.floats(allow_nan=False, allow_infinity=False),
    duration_ms=st.integers(0, limits.delay_ms),
    execution_id=st.none() | words,
    plan=st.none() | words,
    source=st.none() | words,
    each_execution=st.booleans(),
    window_ms=st.none() | st.integers(limits.alert_window_min_ms, limits.alert_window_ms),
)
_at_once = st.integers(1, limits.concurrency_limit)


def keys(*policies: str) -> st.SearchStrategy[Key]:
    """Concurrency keys, of executions or of steps."""
    scope, total = st.none() | words, st.none() | _at_once
    written = st.sampled_from(["k", "input.a", "${context.a}-${input}"])
    return st.builds(Key, key=written, limit=_at_once, total=total, scope=scope, policy=st.sampled_from(policies))


requirements = st.lists(
    st.builds(
        ResourceRequirement,
        type=words,
        amount=st.floats(0.001, 1e15),
        duration_ms=st.none() | st.integers(0, limits.delay_ms),
        priority=st.integers(0, limits.priority_max),
        constraints=st.dictionaries(words, st.none() | st.booleans() | st.integers(0, 2**53 - 1) | words, max_size=2),
    ),
    max_size=2,
).map(tuple)
_of_tasks: dict[str, st.SearchStrategy[Any]] = {
    "timeout_ms": st.none() | st.integers(0, limits.timeout_ms),
    "timeout_growth": st.none() | st.floats(1, 1000),
    "queue_timeout_ms": durations_ms,
    "max_retries": st.none() | st.integers(0, limits.max_retries),
    "initial_retry_delay_ms": durations_ms,
    "max_retry_delay_ms": durations_ms,
    "backoff_multiplier": st.none() | st.floats(1, 1000),
    "jitter": st.none() | st.floats(0, 1),
    "retry_unknown": st.none() | st.booleans(),
    "max_retry_after_ms": durations_ms,
    "queue": st.none() | st.sampled_from(["default", "q-1"]),
    "priority": st.none() | st.integers(0, limits.priority_max),
    "rate_limit": st.none() | rate_limits,
}
settings_of_tasks = st.builds(TaskSettings, **_of_tasks)
of_steps: dict[str, st.SearchStrategy[Any]] = {"concurrency": st.none() | keys("queue"), "resources": requirements}
task_infos = st.builds(TaskInfo, **_of_tasks, **of_steps, compensate=st.none() | words)
_of_executions = dict(
    **_of_tasks,
    parallel_execution_limit=st.none() | st.integers(1, limits.parallel_execution_limit),
    continue_on_error=st.none() | st.booleans(),
    enable_rollback=st.none() | st.booleans(),
    on_missing_compensation=st.sampled_from([None, "skip", "fail"]),
    execution_timeout_ms=durations_ms,
    checkpoint_interval_ms=durations_ms,
    checkpoint_every=st.sampled_from([None, "task"]),
    concurrency=st.none() | keys("queue", "skip", "replace"),
)
configs = st.builds(ExecutionConfig, **_of_executions)
_of_queues = {name: values for name, values in _of_tasks.items() if name != "queue"}
namespaces = st.builds(
    NamespaceConfig,
    **_of_executions,
    queues=st.dictionaries(st.sampled_from(["default", "q-1"]), st.builds(QueueSettings, **_of_queues), max_size=2),
)
recovery_strategies = st.builds(
    Strategy,
    id=words,
    name=words,
    description=words,
    applicable_errors=st.lists(words, max_size=3).map(tuple),
    timeout_ms=st.integers(0, limits.timeout_ms),
    before_retries=st.booleans(),
)
errors = st.builds(
    ErrorInfo,
    type=st.sampled_from(["validation_error", "execution_error", "timeout_error", "internal_error"]),
    code=words,
    message=st.text(st.characters(codec="utf-8"), max_size=40),
    hint=st.none() | words,
    retryable=st.none() | st.booleans(),
    recoverable=st.booleans(),
    task_id=st.none() | words,
    attempt=st.none() | st.integers(0, 100),
    timestamp=st.none() | times,
    retry_after_ms=st.none() | st.integers(0, 10**9),
    context=objects,
    exception=st.none() | words,
    stack=st.none() | st.text(st.characters(codec="utf-8"), max_size=40),
)
_task = {"step": words, "attempt": st.integers(0, 2000), "run": st.integers(1, 9)}
_ending = st.sampled_from([None, "cancelled", "killed", "abandoned"])
_metrics = st.builds(
    Metric,
    name=words.filter(bool),
    values=st.dictionaries(words.filter(bool), st.integers(-(2**60), 2**60) | st.floats(-1e9, 1e9), min_size=1, max_size=2),
    tags=st.dictionaries(words.filter(bool), words, max_size=2),
)
_measured = st.none() | st.builds(
    Measured,
    quality=st.none() | st.floats(0, 1),
    cost=st.floats(0, 1e6),
    metrics=st.lists(_metrics, max_size=2).map(tuple),
)
_names = st.lists(words, max_size=3).map(tuple)
_runs = st.integers(2, 9)
_by = st.sampled_from(get_args(e.CheckpointBy))
_partial: dict[str, st.SearchStrategy[Any]] = {"rollback_status": st.sampled_from([None, "partial"]), "not_undone": _names}
_undone: dict[str, st.SearchStrategy[Any]] = _partial | {"rollback_status": st.sampled_from([None, "completed", "partial"])}
_after: dict[str, st.SearchStrategy[Any]] = {
    "will_retry": st.booleans(),
    "retries_exhausted": st.booleans(),
    "instead": st.sampled_from([None, *get_args(e.Instead)]),
}
_raw = objects.map(lambda value: msgspec.Raw(msgspec.json.encode(value)))
_counts = st.integers(0, 2000)
_amounts = st.floats(0.125, 1e6)
_gate = st.sampled_from(["concurrency", "resources", "rate_limit"])
_resources = st.lists(st.builds(Resource, words, words, words, _amounts, _amounts, _amounts), max_size=2).map(tuple)
_usage = st.builds(ResourceUsage, words, words, _amounts, _amounts, times, st.none() | times, st.floats(0, 1))
_ask = st.one_of(
    st.builds(AskToBegin, key=words, max_executions=st.integers(1, 99), window_ms=st.integers(1, 10**6)),
    st.builds(AskForSlot, scope=words, key=words, limit=st.integers(1, 9), total=st.none() | st.integers(1, 9)),
    st.builds(AskForResources, requirements=st.tuples(st.builds(ResourceRequirement, words, _amounts)), lease_ms=_counts),
)

EVENTS: dict[type, st.SearchStrategy[Any]] = {
    e.ExecutionCreated: st.builds(
        e.ExecutionCreated,
        plan=_raw,
        plan_id=words,
        name=words,
        input=values,
        context=objects,
        config=configs,
        tasks=st.dictionaries(words, task_infos, max_size=2),
        unannounced=st.lists(words, max_size=2).map(tuple),
        namespace=namespaces,
        metadata=objects,
        idempotency_key=st.none() | words,
        owner=st.none() | words,
        start_at=st.none() | times,
        deadline=st.none() | times,
        parent=st.none() | words,
        forked_from=st.none() | words,
        kept=objects,
    ),
    e.ExecutionStarted: st.builds(e.ExecutionStarted),
    e.ExecutionCompleted: st.builds(e.ExecutionCompleted),
    e.ExecutionFailed: st.builds(e.ExecutionFailed, error=errors, failed_steps=_names, **_partial),
    e.ExecutionCancelRequested: st.builds(
        e.ExecutionCancelRequested, grace_ms=st.integers(0, 10**6), reason=words, code=st.none() | words
    ),
    e.ExecutionCancelled: st.builds(e.ExecutionCancelled, reason=words, abandoned=_names, **_undone),
    e.ExecutionPaused: st.builds(e.ExecutionPaused, reason=words),
    e.ExecutionResumed: st.builds(e.ExecutionResumed),
    e.ExecutionRetried: st.builds(e.ExecutionRetried, run=_runs, step=st.none() | words),
    e.ExecutionForked: st.builds(e.ExecutionForked, new_id=words, all_again=st.booleans()),
    e.DeadlineSet: st.builds(e.DeadlineSet, deadline=times),
    e.DeadlineExceeded: st.builds(e.DeadlineExceeded, error=errors, grace_ms=st.integers(0, 10**6)),
    e.CheckpointCreated: st.builds(e.CheckpointCreated, checkpoint_id=words, by=_by, metadata=objects),
    e.CheckpointFailed: st.builds(e.CheckpointFailed, message=words, by=_by),
    e.CheckpointRestored: st.builds(
        e.CheckpointRestored,
        checkpoint_id=words,
        run=_runs,
        by=st.sampled_from(["command", "recovery"]),
        reason=words,
        abandoned=_names,
        vars=objects,
    ),
    e.RollbackStarted: st.builds(e.RollbackStarted, by=st.sampled_from(["failure", "command"]), reason=words),
    e.ExecutionRolledBack: st.builds(
        e.ExecutionRolledBack, undone=st.integers(0, 10_000), skipped=_names, error=st.none() | errors
    ),
    e.TaskScheduled: st.builds(e.TaskScheduled, **_task),
    e.TaskStarted: st.builds(e.TaskStarted, **_task, started_at=times, worker=words),
    e.TaskCompleted: st.builds(
        e.TaskCompleted, **_task, ended_at=times, output=values, vars=objects, measured=_measured, directive=values
    ),
    e.TaskFailed: st.builds(
        e.TaskFailed,
        **_task,
        error=errors,
        ended_at=st.none() | times,
        **_after,
        vars=objects,
        measured=_measured,
    ),
    e.TaskRejected: st.builds(e.TaskRejected, **_task, error=errors, ended_at=st.none() | times),
    e.TaskCacheHit: st.builds(
        e.TaskCacheHit,
        **_task,
        key=words,
        source_execution=words,
        source_step=words,
        age_ms=st.integers(0, 10**12),
        found_at=times,
        worker=words,
    ),
    e.TaskTimedOut: st.builds(
        e.TaskTimedOut,
        **_task,
        timeout_ms=st.integers(0, 10**6),
        error=errors,
        ended_at=st.none() | times,
        ended=_ending,
        **_after,
        measured=_measured,
    ),
    e.TaskRetryScheduled: st.builds(e.TaskRetryScheduled, **_task, delay_ms=st.integers(0, 10**9), due=times),
    e.TaskSkipped: st.builds(
        e.TaskSkipped,
        **_task,
        reason=st.sampled_from(["dependency_failed", "recovery", "condition", "cancelled"]),
        because=st.none() | words,
    ),
    e.TaskCancelled: st.builds(e.TaskCancelled, **_task, ended=_ending, measured=_measured),
    e.TaskHeld: st.builds(e.TaskHeld, **_task),
    e.TaskOverdue: st.builds(e.TaskOverdue, **_task),
    e.FallbackStarted: st.builds(e.FallbackStarted, **_task, task=words),
    e.BeforeImageRecorded: st.builds(e.BeforeImageRecorded, **_task, image=values),
    e.RecoveryInitiated: st.builds(
        e.RecoveryInitiated,
        **_task,
        strategy=words,
        name=words,
        queue=words,
        timeout_ms=st.integers(0, 10**6),
        before_retries=st.booleans(),
    ),
    e.RecoveryStarted: st.builds(e.RecoveryStarted, **_task, started_at=times, worker=words),
    e.RecoveryCompleted: st.builds(
        e.RecoveryCompleted,
        **_task,
        success=st.booleans(),
        action=st.sampled_from(get_args(RecoveryVerb)),
        then=st.sampled_from(get_args(e.AfterRecovery)),
        message=words,
        ended_at=st.none() | times,
        vars=objects,
    ),
    e.CompensationScheduled: st.builds(e.CompensationScheduled, **_task, task=words),
    e.CompensationStarted: st.builds(e.CompensationStarted, **_task, started_at=times, worker=words),
    e.CompensationCompleted: st.builds(e.CompensationCompleted, **_task, ended_at=times, vars=objects),
    e.CompensationFailed: st.builds(
        e.CompensationFailed,
        **_task,
        error=errors,
        ended_at=st.none() | times,
        will_retry=st.booleans(),
        retries_exhausted=st.booleans(),
    ),
    e.CompensationRetryScheduled: st.builds(e.CompensationRetryScheduled, **_task, delay_ms=st.integers(0, 10**9), due=times),
    e.CompensationSkipped: st.builds(
        e.CompensationSkipped, **_task, reason=st.sampled_from(["no_compensation", "no_before_image"])
    ),
    e.KeyBound: st.builds(e.KeyBound, key=st.text(st.characters(codec="utf-8"), max_size=20), execution_id=words),
    e.NamespaceConfigured: st.builds(e.NamespaceConfigured, config=namespaces),
    e.TasksAnnounced: st.builds(
        e.TasksAnnounced,
        tasks=st.dictionaries(words, task_infos, max_size=2),
        worker=words,
        schemas=st.dictionaries(words, st.none() | objects, max_size=2),
        any_task=st.booleans(),
    ),
    e.StrategyAdded: st.builds(e.StrategyAdded, strategy=recovery_strategies),
    e.TaskGranted: st.builds(e.TaskGranted, **_task, by=_gate, entity=words),
    e.ResourceAllocated: st.builds(e.ResourceAllocated, **_task, resources=_resources),
    e.ResourceReleased: st.builds(e.ResourceReleased, **_task, usage=st.lists(_usage, max_size=2).map(tuple)),
    e.TaskRateLimited: st.builds(e.TaskRateLimited, **_task, entity=words, next_retry_at=st.none() | times),
    e.TaskWaiting: st.builds(e.TaskWaiting, **_task, by=_gate, entity=words, ahead=_counts),
    e.ExecutionQueued: st.builds(e.ExecutionQueued, entity=words, run=_counts),
    e.ExecutionGranted: st.builds(e.ExecutionGranted, entity=words, run=_counts),
    e.RequestQueued: st.builds(e.RequestQueued, request_id=words, ask=_ask, priority=st.integers(0, 10)),
    e.RequestGranted: st.builds(
        e.RequestGranted, request_id=words, ask=st.none() | _ask, resources=_resources, until=st.none() | times
    ),
    e.RequestDropped: st.builds(e.RequestDropped, request_id=words, error=st.none() | errors, skipped=st.booleans()),
    e.GrantReleased: st.builds(
        e.GrantReleased, request_id=words, resources=st.lists(words, max_size=2).map(tuple), expired=st.booleans()
    ),
    e.LeaseRenewed: st.builds(e.LeaseRenewed, request_id=words, until=times),
    e.PoolDeclared: st.builds(
        e.PoolDeclared, pool=st.builds(ResourcePool, words, words, _amounts, _amounts, _amounts, st.just({"memory": 16}))
    ),
    e.PoolRemoved: st.builds(e.PoolRemoved, pool_id=words),
    e.AlertSet: st.builds(e.AlertSet, alert_id=words, condition=conditions, webhook=st.none() | words),
    e.AlertRemoved: st.builds(e.AlertRemoved, alert_id=words),
    e.Compacted: st.builds(e.Compacted, state=_raw),
    e.StrategyRemoved: st.builds(e.StrategyRemoved, strategy_id=words),
    e.PlanStored: st.builds(e.PlanStored, plan_id=words, plan=_raw),
    e.PlanListed: st.builds(
        e.PlanListed,
        plan_id=words,
        name=words,
        status=st.sampled_from(["draft", "ready", "invalid", "archived"]),
        problem=st.none() | errors,
        query=words,
    ),
}


@st.composite
def starts(draw: st.DrawFn, *, steps_max: int = 8) -> c.StartExecution:
    """A start of any small plan: any acyclic graph in any order, some steps parallel, settings that steer decisions."""
    count = draw(st.integers(1, steps_max))
    order = draw(st.permutations(range(count)))
    steps: list[dict[str, Any]] = [{} for _ in range(count)]
    for rank, index in enumerate(order):
        earlier = [f"s{other}" for other in order[:rank]]
        depends_on = draw(st.lists(st.sampled_from(earlier), max_size=3, unique=True)) if earlier else []
        steps[index] = step(f"s{index}", *depends_on, parallel=draw(st.booleans()), max_retries=draw(st.integers(0, 2)))
    config = {"continue_on_error": draw(st.booleans()), "parallel_execution_limit": draw(st.integers(1, 4))}
    return start(*steps, config=config)
