"""What hypothesis makes of plans, reports and events."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import strategies as st

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain.errors import ErrorInfo
from esexec.domain.settings import ExecutionConfig, TaskSettings
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
settings_of_tasks = st.builds(
    TaskSettings,
    timeout_ms=st.none() | st.integers(0, 10**6),
    max_retries=st.none() | st.integers(0, 1000),
    jitter=st.none() | st.floats(0, 1),
    retry_unknown=st.none() | st.booleans(),
    queue=st.none() | st.sampled_from(["default", "q-1"]),
    priority=st.none() | st.integers(0, 10),
)
configs = st.builds(
    ExecutionConfig,
    max_retries=st.none() | st.integers(0, 1000),
    continue_on_error=st.none() | st.booleans(),
    parallel_execution_limit=st.none() | st.integers(1, 1000),
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
_raw = objects.map(lambda value: msgspec.Raw(msgspec.json.encode(value)))

EVENTS: dict[type, st.SearchStrategy[Any]] = {
    e.ExecutionCreated: st.builds(
        e.ExecutionCreated,
        plan=_raw,
        plan_id=words,
        name=words,
        input=values,
        context=objects,
        config=configs,
        tasks=st.dictionaries(words, settings_of_tasks, max_size=2),
        namespace=configs,
        metadata=objects,
        idempotency_key=st.none() | words,
        owner=st.none() | words,
    ),
    e.ExecutionStarted: st.builds(e.ExecutionStarted),
    e.ExecutionCompleted: st.builds(e.ExecutionCompleted),
    e.ExecutionFailed: st.builds(e.ExecutionFailed, error=errors, failed_steps=st.lists(words, max_size=3).map(tuple)),
    e.ExecutionCancelRequested: st.builds(e.ExecutionCancelRequested, grace_ms=st.integers(0, 10**6), reason=words),
    e.ExecutionCancelled: st.builds(e.ExecutionCancelled, reason=words, abandoned=st.lists(words, max_size=3).map(tuple)),
    e.TaskScheduled: st.builds(e.TaskScheduled, **_task),
    e.TaskStarted: st.builds(e.TaskStarted, **_task, started_at=times, worker=words),
    e.TaskCompleted: st.builds(e.TaskCompleted, **_task, ended_at=times, output=values),
    e.TaskFailed: st.builds(
        e.TaskFailed,
        **_task,
        error=errors,
        ended_at=st.none() | times,
        will_retry=st.booleans(),
        retries_exhausted=st.booleans(),
    ),
    e.TaskTimedOut: st.builds(
        e.TaskTimedOut,
        **_task,
        timeout_ms=st.integers(0, 10**6),
        error=errors,
        ended_at=st.none() | times,
        ended=_ending,
        will_retry=st.booleans(),
        retries_exhausted=st.booleans(),
    ),
    e.TaskRetryScheduled: st.builds(e.TaskRetryScheduled, **_task, delay_ms=st.integers(0, 10**9), due=times),
    e.TaskSkipped: st.builds(
        e.TaskSkipped,
        **_task,
        reason=st.sampled_from(["dependency_failed", "recovery", "condition", "cancelled"]),
        because=st.none() | words,
    ),
    e.TaskCancelled: st.builds(e.TaskCancelled, **_task, ended=_ending),
    e.KeyBound: st.builds(e.KeyBound, key=st.text(st.characters(codec="utf-8"), max_size=20), execution_id=words),
    e.NamespaceConfigured: st.builds(e.NamespaceConfigured, config=configs),
    e.TasksAnnounced: st.builds(e.TasksAnnounced, tasks=st.dictionaries(words, settings_of_tasks, max_size=2), worker=words),
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
