"""What the type checker must know of tasks. Never run: `mypy tests/typing` checks it."""

from typing import Any, assert_type

from esexec.tasks import (
    Context,
    RecoveryAction,
    RecoveryContext,
    RecoveryResult,
    RecoveryStrategy,
    Task,
    collect,
    current_context,
    recovery,
    task,
)


@task
def bare(name: str, size: int = 1) -> list[str]:
    return [name] * size


@task(max_retries=5, timeout="30s", retry_delay=0.5)
async def configured(name: str, ctx: Context) -> dict[str, int]:
    return {name: ctx.attempt}


@configured.compensate
async def undo(name: str, soft: bool = False) -> bytes:
    return name.encode()


@bare.compensate(max_retries=10, timeout="1m", name="drop")
def drop(name: str) -> None: ...


@task(compensate=drop, timeout_growth=2, queue_timeout="5s")
def other(ctx: Context) -> None: ...


@recovery("NETWORK_TIMEOUT", "HTTP_5*", timeout="5s", before_retries=True)
async def wait(ctx: RecoveryContext) -> RecoveryResult:
    ctx.state.variables["n"] = 1
    return RecoveryResult(True, RecoveryAction.RETRY, ctx.state)


@recovery
def skip(ctx: RecoveryContext) -> RecoveryResult:
    return RecoveryResult(True, RecoveryAction.SKIP, message=f"{ctx.error.code} in {ctx.plan.name}")


class Patient(RecoveryStrategy):
    id = "patient"
    applicable_errors = ["A"]
    timeout = 5

    async def execute(self, ctx: RecoveryContext) -> RecoveryResult:
        return await super().execute(ctx)


async def a_compensation_is_typed_as_the_function_that_it_was() -> None:
    assert_type(await undo("a", soft=True), bytes)
    drop(7)  # type: ignore[arg-type]
    bare.compensate(timeuot=3)  # type: ignore[call-overload]
    bare.compensate(max_retries="3")  # type: ignore[call-overload]


async def a_context_is_typed(ctx: Context) -> None:
    ctx.vars["n"] = [1]
    assert_type(await ctx.before({"n": 1}), Any)
    assert_type(ctx.has_before_image, bool)
    assert_type(current_context(), Context | None)


def a_strategy_is_typed() -> list[RecoveryStrategy]:
    recovery("A", timeuot=3)  # type: ignore[call-overload]
    return [wait, skip, Patient(timeout="1s")]


async def a_task_is_typed_as_the_function_that_it_was(ctx: Context) -> None:
    assert_type(bare("a", size=2), list[str])
    assert_type(await configured("a", ctx), dict[str, int])
    assert_type(bare.name, str)
    bare(7)  # type: ignore[arg-type]
    bare()  # type: ignore[call-arg]
    bare("a", count=2)  # type: ignore[call-arg]
    task(timeuot=3)  # type: ignore[call-overload]


def what_collect_takes() -> dict[str, Task[..., Any]]:
    def plain() -> None: ...

    collect("pkg.module")
    collect(bare)
    return collect([bare, configured, plain])
