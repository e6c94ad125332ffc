"""Recovery strategies on a running engine: their code runs on a worker, and what they ask for is done."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import esexec
from esexec import ExecutionStatus, Plan, RecoveryAction, RecoveryContext, RecoveryResult, Step, TaskStatus
from esexec.domain.events import RecoveryCompleted, RecoveryInitiated, type_of
from tests.integration.cli import Cli
from tests.integration.engine import KINDS, Engine, until

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)


@esexec.task(max_retries=0)
def needs_a_key(ctx: esexec.Context) -> str:
    """Fails until somebody has set the variable `key`."""
    if "key" not in ctx.vars:
        raise esexec.ExecutionError("there is no key", code="NO_KEY")
    return f"{ctx.vars['key']} in run {ctx.run}"


@esexec.task
def note(ctx: esexec.Context) -> str:
    return ctx.step


@esexec.task
def instead(ctx: esexec.Context) -> str:
    return f"{ctx.purpose} {ctx.idempotency_key.split('/', 1)[1]}"


def answer(action: str, success: bool = True, new_state: Any = None) -> RecoveryResult:
    return RecoveryResult(success, RecoveryAction(action), new_state, f"says {action}")


async def with_strategy(engine: Engine, strategy: Any, *, on_worker: bool = True) -> None:
    """A worker with the tasks and the strategy; every executor has heard of it."""
    await engine.worker(needs_a_key, note, instead, strategies=[strategy] if on_worker else [])
    await engine.client.strategies.add(strategy)
    await until(lambda: all(strategy.id in [one.id for one in each._desk.surroundings.strategies] for each in engine.executors))


def plan(**step: Any) -> Plan:
    return Plan(
        "p",
        steps=[
            Step("note", id="first"),
            Step("needs_a_key", id="middle", depends_on=["first"], **step),
            Step("note", id="last", depends_on=["middle"]),
        ],
    )


async def recovered(engine: Engine, execution_id: str) -> list[RecoveryCompleted]:
    return [event for event in await engine.events(execution_id) if isinstance(event, RecoveryCompleted)]


@everywhere
async def test_a_strategy_can_have_the_step_tried_again(engine: Engine) -> None:
    """F260-F272, F278: it is told of the failure, changes a variable, and the next attempt sees it."""
    asked: list[RecoveryContext] = []

    @esexec.recovery("no_*", name="Find a key", timeout="5s")
    async def find_key(ctx: RecoveryContext) -> RecoveryResult:
        asked.append(ctx)
        ctx.state.variables["key"] = "found"
        return answer("retry", new_state=ctx.state)

    await with_strategy(engine, find_key)
    result = await engine.execute(plan())
    assert (result.status, result.step("middle").output, result.variables) == (
        ExecutionStatus.COMPLETED, "found in run 1", {"key": "found"},
    )  # fmt: skip
    assert (result.step("middle").recoveries, result.step("middle").retries) == (1, 1)
    (ctx,) = asked
    assert (ctx.execution_id, ctx.step, ctx.error.code, ctx.failed_attempt, ctx.recoveries) == (
        result.id,
        "middle",
        "NO_KEY",
        1,
        1,
    )
    assert (ctx.state.completed_tasks, ctx.plan.name, ctx.resources) == (["first"], "p", [])
    events = [event for event in await engine.events(result.id) if type_of(event).startswith("recovery_")]
    assert [type_of(event) for event in events] == ["recovery_initiated", "recovery_started", "recovery_completed"]
    initiated = events[0]
    assert isinstance(initiated, RecoveryInitiated)
    assert (initiated.strategy, initiated.name, initiated.attempt, initiated.timeout_ms) == ("find_key", "Find a key", 2, 5_000)


async def test_a_strategy_can_leave_the_step_out(engine: Engine) -> None:
    """F273: SKIP: the step is skipped, and what depends on it goes on."""

    @esexec.recovery
    def leave_out(ctx: RecoveryContext) -> RecoveryResult:
        return answer("skip")

    await with_strategy(engine, leave_out)
    result = await engine.execute(plan())
    assert result.status == ExecutionStatus.COMPLETED
    assert [one.status for one in result.results] == [TaskStatus.COMPLETED, TaskStatus.SKIPPED, TaskStatus.COMPLETED]


async def test_a_strategy_can_ask_for_the_fallback(engine: Engine) -> None:
    """F274: FALLBACK: the step's other task does it, and knows that it does; without one the step fails."""

    @esexec.recovery
    async def ask_somebody_else(ctx: RecoveryContext) -> RecoveryResult:
        return answer("fallback")

    await with_strategy(engine, ask_somebody_else)
    result = await engine.execute(plan(fallback="instead"))
    assert (result.status, result.step("middle").output) == (ExecutionStatus.COMPLETED, "fallback middle/1/fallback")
    assert (await engine.execute(plan())).status == ExecutionStatus.FAILED


async def test_a_strategy_can_end_the_execution(engine: Engine) -> None:
    """F275: ABORT: no fallback, nothing else: it has failed, with the step's own error."""

    @esexec.recovery
    async def give_up(ctx: RecoveryContext) -> RecoveryResult:
        return answer("abort", success=False)

    await with_strategy(engine, give_up)
    result = await engine.execute(plan(fallback="instead"))
    assert result.status == ExecutionStatus.FAILED
    assert result.error is not None
    assert result.error.code == "NO_KEY"
    (event,) = await recovered(engine, result.id)
    assert (event.success, event.action, event.then, event.message) == (False, "abort", "fail", "says abort")


@everywhere
async def test_a_strategy_can_go_back_to_a_checkpoint(engine: Engine) -> None:
    """F276: CHECKPOINT_RESTORE: another run from the last checkpoint, with what the strategy changed of the state."""

    @esexec.recovery
    async def go_back(ctx: RecoveryContext) -> RecoveryResult:
        return answer("checkpoint_restore", new_state={"variables": {"key": "kept"}})

    await with_strategy(engine, go_back)
    result = await engine.execute(plan(), checkpoint_every="task")
    assert (result.status, result.run, result.step("middle").output) == (ExecutionStatus.COMPLETED, 2, "kept in run 2")
    types = await engine.types(result.id, steps=True)
    assert types.count("task_completed:first") == 1
    (event,) = await recovered(engine, result.id)
    assert event.then == "restore"


async def no_result(ctx: RecoveryContext) -> Any:
    return "retry"


async def throws(ctx: RecoveryContext) -> RecoveryResult:
    raise RuntimeError("no idea either")


async def hangs(ctx: RecoveryContext) -> RecoveryResult:
    await asyncio.sleep(60)
    raise AssertionError


@pytest.mark.parametrize(
    ("execute", "why"),
    [
        (throws, "no idea either"),
        (hangs, "timeout of 100 ms"),
        (no_result, "no result"),
    ],
)
async def test_a_strategy_that_cannot_answer_has_said_abort(engine: Engine, execute: Any, why: str) -> None:
    """One that throws, times out or returns nonsense: the step fails, with a message."""
    await with_strategy(engine, esexec.recovery("*", timeout="100ms")(execute))
    result = await engine.execute(plan(fallback="instead"))
    assert result.status == ExecutionStatus.FAILED
    (event,) = await recovered(engine, result.id)
    assert (event.success, event.action, event.then) == (False, "abort", "fail")
    assert why in event.message


async def test_a_strategy_is_asked_on_the_queue_that_it_names(engine: Engine) -> None:
    """Only the workers of that queue need its code."""

    @esexec.recovery(queue="advice")
    async def advise(ctx: RecoveryContext) -> RecoveryResult:
        return answer("skip")

    await engine.worker(queues={"advice": 1}, strategies=[advise])
    await with_strategy(engine, advise, on_worker=False)
    assert (await engine.execute(plan())).status == ExecutionStatus.COMPLETED


async def test_a_strategy_outlives_its_worker(engine: Engine) -> None:
    """A worker that ends in the middle of it hands the question back, and another answers it."""
    asked: list[str] = []
    gate = asyncio.Event()

    @esexec.recovery
    async def ponder(ctx: RecoveryContext) -> RecoveryResult:
        asked.append(ctx.step)
        await gate.wait()
        return answer("skip")

    first = await engine.worker(needs_a_key, note, instead, strategies=[ponder], drain_s=0.0)
    await engine.client.strategies.add(ponder)
    handle = await engine.client.start(plan())
    await until(lambda: asked)
    await first.stop()
    gate.set()
    await engine.worker(needs_a_key, note, instead, strategies=[ponder])
    assert (await handle.wait(wait_timeout=8.0)).status == ExecutionStatus.COMPLETED
    assert asked == ["middle", "middle"]


async def test_the_built_in_strategy_is_on_every_worker(engine: Engine) -> None:
    """F277: once it is added, a step that failed for the network is tried again after a second; the count is a variable."""
    calls: list[int] = []

    @esexec.task(max_retries=0)
    def fetch() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionRefusedError("nobody there")
        return len(calls)

    await engine.worker(fetch)
    await engine.client.strategies.add(esexec.NetworkTimeoutRecovery)
    result = await engine.execute("fetch")
    assert (result.result, result.variables) == (2, {"retry_count.fetch": 1})
    (event,) = await recovered(engine, result.id)
    assert event.message == "Retrying after 1000ms delay (attempt 1/3)"


MODULE = """
import esexec

@esexec.task(max_retries=0)
def boom() -> None:
    raise esexec.ExecutionError("bang", code="BOOM")

class Skipper(esexec.RecoveryStrategy):
    id = "skipper"
    queue = "advice"

    async def execute(self, ctx):
        return esexec.RecoveryResult(True, esexec.RecoveryAction.SKIP)
"""


def test_the_command_line_runs_the_strategies_of_a_module(tmp_path: Path) -> None:
    """A class in the module of the tasks is enough: it is added by its place, and `run` serves its queue."""
    cli = Cli(tmp_path)
    cli.write("jobs.py", MODULE)
    plan = cli.write("plan.json", {"name": "p", "steps": [{"id": "a", "task": "boom"}]})
    assert cli("strategies", "add", "jobs").out == "skipper\n"
    done = cli("run", plan, "--tasks", "jobs", "--json")
    assert (done.code, done.json["status"], done.json["results"][0]["status"]) == (0, "completed", "skipped")
