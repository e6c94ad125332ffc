"""Recovery strategies: how they are made, found, asked, and what becomes of their answers."""

import asyncio
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest

from esexec.domain import limits
from esexec.domain.errors import ErrorInfo, ExecutionError, ValidationError
from esexec.domain.flow import Resource
from esexec.domain.messages import Dispatch, RecoveryRequest
from esexec.domain.plan import plan_of_task
from esexec.domain.strategies import RecoveryOutcome, Strategy
from esexec.tasks import (
    NetworkTimeoutRecovery,
    RecoveryAction,
    RecoveryContext,
    RecoveryResult,
    RecoveryStrategy,
    as_strategy,
    collect,
    collect_strategies,
    recovery,
)
from esexec.tasks.asking import ask, ask_in_thread, is_async

PLAN = msgspec.json.encode(plan_of_task("fetch", "s"))


class Patient(RecoveryStrategy):
    id = "patient"
    applicable_errors = ("HTTP_5*",)

    async def execute(self, ctx: RecoveryContext) -> RecoveryResult:
        return RecoveryResult(True, RecoveryAction.RETRY)


def dispatch(variables: dict[str, Any] | None = None, recoveries: int = 1) -> Dispatch:
    request = RecoveryRequest(
        error=ErrorInfo(type="execution_error", code="HTTP_503", message="away"),
        failed_attempt=3,
        recoveries=recoveries,
        plan=msgspec.Raw(PLAN),
        state={"completed_tasks": ["a"], "variables": variables or {}},
    )
    return Dispatch(execution_id="e", step="s", task="x", attempt=4, run=2, purpose="recovery", recovery=request)


def answers(result: Any) -> RecoveryStrategy:
    @recovery()
    async def answer(ctx: RecoveryContext) -> Any:
        return result(ctx) if callable(result) else result

    return answer


async def answer_to(result: Any, variables: dict[str, Any] | None = None) -> dict[str, Any]:
    output = await ask(answers(result), dispatch(variables))
    msgspec.convert(output, RecoveryOutcome)
    return output


def refused(make: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        make()
    return caught.value


# Declaring -----------------------------------------------------------------------------------------------------------------


def test_a_class_is_a_strategy() -> None:
    """Attributes of the class say what the namespace keeps; what is given to an instance goes first."""
    assert Patient().info == Strategy(id="patient", name="patient", applicable_errors=("HTTP_5*",))
    info = Patient(id="p", name="P", description="d", queue="q", timeout="2m", before_retries=True, applicable_errors="A").info
    assert info == Strategy(
        id="p", name="P", description="d", queue="q", timeout_ms=120_000, before_retries=True, applicable_errors=("A",)
    )
    assert Patient(timeout=0).info.timeout_ms == 0
    with pytest.raises(TypeError, match="colour"):
        Patient(colour=3)  # type: ignore[call-arg]


def test_a_function_is_a_strategy() -> None:
    """`@recovery(codes…)` makes one of it, called after it, and it can still be called."""

    @recovery("NETWORK_TIMEOUT", "HTTP_5*", timeout="5s")
    async def wait_a_little(ctx: RecoveryContext) -> RecoveryResult:
        """Wait.

        More.
        """
        return RecoveryResult(True, RecoveryAction.RETRY)

    assert wait_a_little.info == Strategy(
        id="wait_a_little",
        name="wait_a_little",
        description="Wait.",
        applicable_errors=("NETWORK_TIMEOUT", "HTTP_5*"),
        timeout_ms=5_000,
    )

    @recovery
    def everything(ctx: RecoveryContext) -> RecoveryResult:
        return RecoveryResult(True, RecoveryAction.SKIP)

    assert everything.info.applicable_errors == ("*",)
    assert (is_async(wait_a_little), is_async(everything), is_async(Patient())) == (True, False, True)


def test_whatever_has_what_a_strategy_needs_is_one() -> None:
    """An object of the user's own need not know our base class."""

    class Mine:
        id = "mine"
        name = "Mine"
        description = ""
        applicable_errors = ["X"]

        async def execute(self, ctx: RecoveryContext) -> dict[str, Any]:
            return {"success": True, "action": "skip"}

    strategy = as_strategy(Mine())
    assert strategy.info == Strategy(id="mine", name="Mine", applicable_errors=("X",))
    assert is_async(strategy)
    assert as_strategy(Patient).id == "patient"


@pytest.mark.parametrize(
    "options",
    [
        {"id": "a b"},
        {"id": ""},
        {"id": 7},
        {"queue": "a.b"},
        {"timeout": "soon"},
        {"timeout": "30d"},
        {"applicable_errors": [7]},
        {"applicable_errors": 7},
        {"before_retries": "yes"},
        {"description": "x" * (limits.text_chars + 1)},
    ],
)
def test_what_the_namespace_could_not_keep_is_refused(options: dict[str, Any]) -> None:
    """Wherever somebody asks: a client that adds it, a worker that is given it."""
    assert refused(lambda: Patient(**options).info).code == "invalid_strategy"
    assert refused(lambda: as_strategy(Patient(**options))).code == "invalid_strategy"


def test_a_bad_function_is_refused_where_it_is_decorated() -> None:
    """As a task is."""
    assert refused(lambda: recovery("A", timeout="soon")(Patient().execute)).code == "invalid_strategy"
    assert refused(lambda: recovery("A")(3)).code == "invalid_strategy"  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [3, "patient", object(), dict, Patient(id=""), None])
def test_what_is_no_strategy_is_refused(value: Any) -> None:
    """A worker that quietly did without it would abort where somebody relies on it."""
    assert refused(lambda: as_strategy(value)).code == "invalid_strategy"


# Collecting ----------------------------------------------------------------------------------------------------------------

MODULE = textwrap.dedent(
    """
    import esexec.tasks as t
    from esexec.tasks import NetworkTimeoutRecovery, RecoveryStrategy, recovery

    class First(RecoveryStrategy):
        id = "first"

    class Base(RecoveryStrategy):
        "without an id"

    class Needy(RecoveryStrategy):
        id = "needy"
        def __init__(self, url): ...

    class Made(RecoveryStrategy):
        id = "made"

    made = again = Made(timeout="1s")

    class Duck:
        id, applicable_errors = "duck", ("A",)
        async def execute(self, ctx): ...

    duck = Duck()

    @recovery("B")
    async def by_function(ctx): ...
    """
)


def test_the_strategies_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances, functions, ducks, and classes of its own that can be made; imported classes are somebody else's."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "of_strategies.py").write_text(MODULE)
    place = str(tmp_path / "of_strategies.py")
    found = collect_strategies(place)
    assert sorted(found) == ["by_function", "duck", "first", "made"]
    assert found["made"].timeout == "1s"
    assert collect(place) == {}, "a module with strategies need not have tasks"
    assert list(collect_strategies(f"{place}:made")) == ["made"]
    assert sorted(collect_strategies([place, place])) == sorted(found)


def test_two_strategies_of_one_id_are_refused() -> None:
    """Which of them was meant is nobody's guess; an instance and its own class are one."""
    assert refused(lambda: collect_strategies([Patient(), Patient()])).code == "duplicate_strategy"
    mine = Patient(timeout="1s")
    assert collect_strategies([Patient], [mine]) == {"patient": mine}
    assert refused(lambda: collect_strategies([], [len])).code == "invalid_strategy"


# Asking --------------------------------------------------------------------------------------------------------------------


async def test_a_strategy_is_told_what_other_attempts_hold_of_the_pools() -> None:
    """`resources` are those of the state, as resources."""
    seen: list[RecoveryContext] = []

    def look(ctx: RecoveryContext) -> RecoveryResult:
        seen.append(ctx)
        return RecoveryResult(False, RecoveryAction.ABORT)

    asked = dispatch()
    assert asked.recovery is not None
    held = Resource("r1", "rack", "gpu", 2.0)
    state = {"resource_allocations": {"r1": msgspec.to_builtins(held)}}
    request = msgspec.structs.replace(asked.recovery, state=state)
    await ask(answers(look), msgspec.structs.replace(asked, recovery=request))
    assert seen[0].resources == [held]


async def test_what_a_strategy_is_told() -> None:
    """The failure, the state, the plan, and how often it was asked."""
    seen: list[RecoveryContext] = []

    def look(ctx: RecoveryContext) -> RecoveryResult:
        seen.append(ctx)
        return RecoveryResult(False, RecoveryAction.ABORT, message="no")

    assert await answer_to(look, {"n": 1}) == {"success": False, "action": "abort", "message": "no"}
    (ctx,) = seen
    assert (ctx.execution_id, ctx.step, ctx.run, ctx.recoveries, ctx.failed_attempt) == ("e", "s", 2, 1, 3)
    assert (ctx.error.code, ctx.plan.steps[0].task, ctx.resources) == ("HTTP_503", "fetch", [])
    assert (ctx.state.completed_tasks, ctx.state.variables) == (["a"], {"n": 1})


async def test_a_result_can_be_anything_that_has_its_fields() -> None:
    """Actions also as text, in any case; a mapping in place of a RecoveryResult."""
    expected = {"success": True, "action": "checkpoint_restore", "message": ""}
    assert await answer_to({"success": True, "action": "CHECKPOINT_RESTORE"}) == expected
    assert await answer_to(RecoveryResult(True, RecoveryAction.CHECKPOINT_RESTORE)) == expected
    assert len((await answer_to(RecoveryResult(True, RecoveryAction.SKIP, None, "x" * 20_000)))["message"]) == limits.text_chars


@pytest.mark.parametrize(
    "result", [None, True, "retry", {}, {"success": 1, "action": "retry"}, {"success": True, "action": "hope"}]
)
async def test_what_is_no_result_fails_the_attempt(result: Any) -> None:
    """The core takes a failed recovery as ABORT; the message says what was returned."""
    with pytest.raises(ExecutionError) as caught:
        await answer_to(result)
    assert (caught.value.code, caught.value.retry) == ("bad_recovery_result", False)


async def test_only_variables_that_differ_become_new() -> None:
    """A parallel step's change of another variable must not be undone by what was read before it."""

    def change(ctx: RecoveryContext) -> RecoveryResult:
        ctx.state.variables["n"] += 1
        ctx.state.variables["seen"].append(3)
        ctx.state.variables["flag"] = True
        return RecoveryResult(True, RecoveryAction.RETRY, ctx.state)

    output = await answer_to(change, {"n": 1, "seen": [], "flag": 1, "other": "o"})
    assert output["new_state"] == {"variables": {"n": 2, "seen": [3], "flag": True}}
    mapping = RecoveryResult(True, RecoveryAction.RETRY, {"variables": {"a": 1}})
    assert (await answer_to(mapping))["new_state"] == {"variables": {"a": 1}}
    assert "new_state" not in await answer_to(lambda ctx: RecoveryResult(True, RecoveryAction.RETRY, ctx.state), {"n": 1})


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"a": object()}, "vars_not_serializable"),
        ({"a": "x" * limits.vars_bytes}, "vars_too_large"),
        ([1], "bad_recovery_result"),
    ],
)
async def test_a_new_state_that_cannot_be_kept_fails_the_attempt(variables: Any, code: str) -> None:
    """As in a handler, with the variables' own codes."""
    with pytest.raises(ExecutionError) as caught:
        await answer_to(RecoveryResult(True, RecoveryAction.RETRY, {"variables": variables}))
    assert caught.value.code == code


def test_a_sync_strategy_is_asked_without_a_loop() -> None:
    """Its `execute` is called in a thread."""

    @recovery
    def sync(ctx: RecoveryContext) -> RecoveryResult:
        return RecoveryResult(True, RecoveryAction.FALLBACK)

    assert ask_in_thread(sync, dispatch())["action"] == "fallback"


async def test_a_strategy_without_execute_says_so() -> None:
    """The base class raises; the core makes an abort of it."""
    with pytest.raises(NotImplementedError, match="empty"):
        await ask(RecoveryStrategy(id="empty"), dispatch())


# Built in ------------------------------------------------------------------------------------------------------------------


async def test_the_built_in_strategy_waits_longer_each_time_and_then_aborts(monkeypatch: pytest.MonkeyPatch) -> None:
    """2^n seconds, at most three times per step; the count stands in a variable of that step's own."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    variables: dict[str, Any] = {"retry_count.other": 3}
    outputs = []
    for recoveries in range(1, 5):
        output = await ask(NetworkTimeoutRecovery(), dispatch(variables, recoveries))
        variables |= output.get("new_state", {}).get("variables", {})
        outputs.append(output)
    assert slept == [1.0, 2.0, 4.0]
    assert [(output["success"], output["action"]) for output in outputs] == [(True, "retry")] * 3 + [(False, "abort")]
    assert outputs[0]["message"] == "Retrying after 1000ms delay (attempt 1/3)"
    assert outputs[3]["message"] == "Max retries (3) exceeded for network timeout"
    assert variables == {"retry_count.other": 3, "retry_count.s": 3}
    again = await ask(NetworkTimeoutRecovery(), dispatch(variables))
    assert again["action"] == "retry", "a step that was begun anew is counted anew"


def test_the_built_in_strategy_is_for_the_network() -> None:
    """It applies to what failures of the network are called, and to nothing else."""
    info = NetworkTimeoutRecovery().info
    assert info.id == "network_timeout_recovery"
    codes = ("NETWORK_TIMEOUT", "CONNECTION_REFUSED", "connection_reset", "TYPE_ERROR", "HTTP_404", "task_timeout")
    applies = [info.applies_to(ErrorInfo(type="execution_error", code=code, message="")) for code in codes]
    assert applies == [True, True, True, False, False, False]
