"""Settings of a namespace's queues: above its other settings, below the task's; found by where an attempt goes."""

from typing import Any

import msgspec
import pytest

from esexec.domain import events as e
from esexec.domain.decision import Surroundings
from esexec.domain.settings import EMPTY_NAMESPACE, NamespaceConfig, QueueSettings, TaskInfo, merge_in
from tests.given import completed, fatal, given, start, step

SLOW = QueueSettings(timeout_ms=600_000, max_retries=9, priority=1)
FAST = QueueSettings(timeout_ms=1_000, max_retries=0)
QUEUES = {"slow": SLOW, "fast": FAST}


def around(tasks: dict[str, TaskInfo] | None = None, queues: Any = QUEUES, **namespace: Any) -> Surroundings:
    return Surroundings(NamespaceConfig(queues=queues, **namespace), tasks or {})


def created(history: Any) -> e.ExecutionCreated:
    event = history.state.created
    assert isinstance(event, e.ExecutionCreated)
    return event


@pytest.mark.parametrize("level", ["namespace", "task", "plan", "step", "call"])
def test_the_queue_is_found_first(level: str) -> None:
    """Whichever level names the queue, what the namespace says of that queue holds for the attempt."""
    said = {level: {"queue": "slow"}}
    tasks = {"a": msgspec.convert(said.get("task", {}), TaskInfo)}
    command = start(step("a", **said.get("step", {})), plan_fields={"config": said.get("plan", {})}, config=said.get("call", {}))
    policy = given(command, around=around(tasks, **said.get("namespace", {}))).state.policy_of(0)
    assert (policy.queue, policy.timeout_ms, policy.max_retries, policy.priority) == ("slow", 600_000, 9, 1)


@pytest.mark.parametrize(
    ("stronger", "expected"), [({"namespace": 5}, 9), ({"task": 5}, 5), ({"plan": 0}, 0), ({"step": 5}, 5), ({"call": 0}, 0)]
)
def test_it_stands_between_namespace_and_task(stronger: dict[str, int], expected: int) -> None:
    """built-in < namespace < queue < task < plan < step < call, for falsy values too."""
    said: dict[str, dict[str, Any]] = {level: {"max_retries": value} for level, value in stronger.items()}
    tasks = {"a": TaskInfo(queue="slow", **said.get("task", {}))}
    command = start(step("a", **said.get("step", {})), plan_fields={"config": said.get("plan", {})}, config=said.get("call", {}))
    state = given(command, around=around(tasks, **said.get("namespace", {}))).state
    assert state.policy_of(0).max_retries == expected
    assert state.policy_of(0).timeout_ms == 600_000


def test_the_default_queue_has_settings_too() -> None:
    """What is said of `default` holds where nobody names a queue, and nowhere else."""
    history = given(start("a", step("b", queue="slow")), around=around(queues={"default": FAST}))
    assert history.state.policy_of(0).timeout_ms == 1_000
    assert history.state.policy_of(1).timeout_ms == 30_000


def test_the_history_holds_only_queues_that_may_be_used() -> None:
    """A namespace with many queues does not weigh on executions that are on none of them; the rest explains itself."""
    many = {f"q{number}": FAST for number in range(99)} | {"slow": SLOW}
    history = given(start(step("a", queue="slow")), around=around(queues=many))
    assert created(history).namespace == NamespaceConfig(queues={"slow": SLOW})
    history.around = Surroundings()
    assert history.state.policy_of(0).timeout_ms == 600_000
    assert created(given(start("a"), around=around(queues=many))).namespace is EMPTY_NAMESPACE


def test_an_undoing_goes_by_the_queue_that_it_is_on() -> None:
    """A compensation is on the queue of what it undoes, unless it names its own."""
    tasks = {"a": TaskInfo(compensate="undo", queue="slow"), "undo": TaskInfo(max_retries=2)}
    history = given(start("a", "b"), completed("a"), fatal("b"), around=around(tasks))
    policy = history.state.attempt_policy(0)
    assert (policy.queue, policy.timeout_ms, policy.max_retries, policy.priority) == ("slow", 600_000, 2, 1)
    tasks = tasks | {"undo": TaskInfo(queue="fast")}
    history = given(start("a", "b"), completed("a"), fatal("b"), around=around(tasks))
    policy = history.state.attempt_policy(0)
    assert (policy.queue, policy.timeout_ms, policy.max_retries) == ("fast", 1_000, 0)


def test_a_queue_cannot_lead_to_another() -> None:
    """Its settings have no `queue`, so there is one place to look."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"queues": {"slow": {"queue": "fast"}}}, NamespaceConfig)
    assert merge_in(NamespaceConfig(queue="slow", queues=QUEUES), ()).queue == "slow"
