"""The handlers of the workloads. They do nothing that could be measured instead of the engine."""

import asyncio
import os
import time
from typing import Any, Final

import esexec


@esexec.task
async def noop() -> dict[str, int]:
    return {"ok": 1}


@esexec.task
async def stamp() -> int:
    """When the handler's first line ran, by the clock that all processes of a machine share."""
    return time.monotonic_ns()


@esexec.task
async def second(ctx: esexec.Context, file: str) -> None:
    """Takes a second, and notes down that it began."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{ctx.execution_id}\n".encode())
    os.close(descriptor)
    await asyncio.sleep(1)


@esexec.task
async def broken() -> None:
    """Fails, and would again."""
    raise esexec.ExecutionError("this is what it is for", code="broken", retry=False)


@esexec.task
async def flaky(ctx: esexec.Context) -> dict[str, int]:
    """Fails once."""
    if ctx.attempt == 1:
        raise ConnectionError("not at the first attempt")
    return {"ok": ctx.attempt}


ALL: Final[list[esexec.Task[..., Any]]] = [noop, stamp, second, broken, flaky]
