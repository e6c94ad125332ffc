"""What the type checker must know of tasks. Never run: `mypy tests/typing` checks it."""

from typing import Any, assert_type

from esexec.tasks import Context, Task, collect, task


@task
def bare(name: str, size: int = 1) -> list[str]:
    return [name] * size


@task(max_retries=5, timeout="30s", retry_delay=0.5)
async def configured(name: str, ctx: Context) -> dict[str, int]:
    return {name: ctx.attempt}


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
