"""How executions begin: what is refused, what is the same start again, which settings hold."""

from typing import Any

import msgspec
import pytest

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain.decider import Surroundings
from esexec.domain.effects import dispatch_of
from esexec.domain.settings import (
    BUILT_IN,
    ExecutionConfig,
    NamespaceConfig,
    Policy,
    TaskInfo,
    TaskSettings,
    merge,
    merge_execution,
)
from tests.given import completed, given, start, step


def code_of(command: c.StartExecution) -> str:
    outcome = given().when(command).then_nothing("invalid")
    assert outcome.verdict.error is not None
    assert outcome.verdict.error.type == "validation_error"
    return outcome.verdict.error.code


def raw(document: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(document))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (c.StartExecution(id="c1"), "plan_or_task"),
        (c.StartExecution(id="c1", task="t", plan=raw({"name": "p", "steps": [step("a")]})), "plan_or_task"),
        (c.StartExecution(id="c1", task="no task name"), "bad_task_name"),
        (start(), "empty_plan"),
        (start(step("a", "b"), step("b", "a")), "cycle"),
        (start(step("a", "a")), "self_dependency"),
        (start(step("a", "x")), "unknown_dependency"),
        (start("a", "a"), "duplicate_step"),
        (start(step("a", params={"x": "${steps.b.output}"})), "unknown_reference"),
        (start(step("a", nonsense=1)), "unknown_key"),
        (c.StartExecution(id="c1", plan=msgspec.Raw(b"[")), "bad_json"),
    ],
)
def test_a_start_that_cannot_be_carried_out_is_refused(command: c.StartExecution, code: str) -> None:
    """A plan's fault is a typed refusal, whatever the history says (`invalid`); nothing is recorded."""
    assert code_of(command) == code


def test_the_same_command_again_is_recognised() -> None:
    """The same command id is `repeated`, whatever happened since."""
    history = given(start("a", id="c1"), completed("a"))
    assert history.when(start("a", id="c1")).then_nothing("repeated").verdict.n == 1


def test_the_same_content_again_is_the_same_start() -> None:
    """Another command of the same content is a `duplicate`: as if the first had been sent twice."""
    history = given(start("a", input={"n": 1}, id="c1"))
    assert history.when(start("a", input={"n": 1}, id="c2")).then_nothing("duplicate").verdict.n == 1


@pytest.mark.parametrize(
    "other",
    [
        start("b", id="c2"),
        start("a", id="c2", input=1),
        start("a", id="c2", context={"k": 1}),
        start("a", id="c2", metadata={"k": 1}),
        start("a", id="c2", config={"max_retries": 1}),
        start("a", id="c2", idempotency_key="k"),
        c.StartExecution(id="c2", task="a"),
        c.StartExecution(id="c2"),
    ],
)
def test_an_id_given_twice_with_other_content_is_a_conflict(other: c.StartExecution) -> None:
    """An execution's id stands for one content; anything else is refused, and says how to go on."""
    outcome = given(start("a", id="c1")).when(other).then_nothing("refused")
    assert outcome.verdict.error is not None
    assert outcome.verdict.error.code == "conflict"
    assert outcome.verdict.error.hint


def test_the_history_explains_itself() -> None:
    """Whatever the start took from the namespace stands in its first event; later changes there change nothing here."""
    around = Surroundings(NamespaceConfig(max_retries=7), {"a": TaskInfo(timeout_ms=5), "other": TaskInfo(timeout_ms=6)})
    history = given(around=around)
    created = history.when(start("a", idempotency_key="k")).events[0]
    assert isinstance(created, e.ExecutionCreated)
    assert (created.namespace, created.tasks) == (around.namespace, {"a": TaskInfo(timeout_ms=5)})
    assert created.idempotency_key == "k"
    history.around = Surroundings()
    policy = history.state.policy_of(0)
    assert (policy.max_retries, policy.timeout_ms) == (7, 5)


# Settings ---------------------------------------------------------------------------------------------------------------

LEVELS = ("namespace", "task", "plan", "step", "call")


@pytest.mark.parametrize("strongest", range(len(LEVELS)))
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("timeout_ms", (0, 1, 2, 3, 4)),
        ("max_retries", (4, 3, 2, 1, 0)),
        ("initial_retry_delay_ms", (0, 1, 2, 3, 4)),
        ("jitter", (0.0, 0.1, 0.2, 0.3, 0.4)),
        ("retry_unknown", (False, True, False, True, False)),
        ("queue", ("n", "t", "p", "s", "c")),
        ("priority", (0, 1, 2, 3, 4)),
    ],
)
def test_each_level_wins_over_the_weaker_ones(strongest: int, field: str, values: tuple[Any, ...]) -> None:
    """built-in < namespace < task < plan < step < call, for falsy values too."""
    said = {level: {field: values[index]} for index, level in enumerate(LEVELS) if index <= strongest}
    around = Surroundings(
        msgspec.convert(said.get("namespace", {}), NamespaceConfig), {"a": msgspec.convert(said.get("task", {}), TaskInfo)}
    )
    command = start(step("a", **said.get("step", {})), plan_fields={"config": said.get("plan", {})}, config=said.get("call", {}))
    state = given(command, around=around).state
    assert getattr(state.policy_of(0), field) == values[strongest]
    assert state.policy_of(0).max_retry_delay_ms == BUILT_IN.max_retry_delay_ms


def test_the_built_in_settings() -> None:
    """Where nobody says anything, these hold."""
    policy = given(start("a")).state.policy_of(0)
    assert policy == Policy(
        timeout_ms=30_000,
        max_retries=3,
        initial_retry_delay_ms=1_000,
        max_retry_delay_ms=60_000,
        backoff_multiplier=2.0,
        jitter=0.25,
        retry_unknown=True,
        max_retry_after_ms=3_600_000,
        queue="default",
        priority=5,
    )
    execution = given(start("a")).state.execution_policy
    assert (execution.parallel_execution_limit, execution.continue_on_error, execution.enable_rollback) == (5, False, True)


def test_levels_of_the_whole_execution() -> None:
    """`parallel_execution_limit` and `continue_on_error` come from namespace, plan and call, the call last."""
    levels = [
        ExecutionConfig(parallel_execution_limit=1, continue_on_error=True),
        None,
        ExecutionConfig(parallel_execution_limit=2),
    ]
    merged = merge_execution(levels)
    assert (merged.parallel_execution_limit, merged.continue_on_error) == (2, True)
    assert merge([None, TaskSettings(), None]) is BUILT_IN


def test_a_dispatch_says_what_a_worker_needs() -> None:
    """Queue, priority, timeout and how many attempts there can be travel with the attempt."""
    state = given(start(step("a", task="x.y", params={"k": 1}, queue="q", priority=9, timeout_ms=7, max_retries=2))).state
    dispatch = dispatch_of(state, 0)
    assert (dispatch.task, dispatch.params, dispatch.queue, dispatch.priority) == ("x.y", {"k": 1}, "q", 9)
    assert (dispatch.timeout_ms, dispatch.max_attempts, dispatch.attempt, dispatch.run) == (7, 3, 1, 1)
