"""The tasks of the chaos tests: they take a while, fail as told, and write down outside what they do.

The world is one file (`CHAOS_WORLD`), a JSON object per line, each written by a single append, so that a kill at any
moment leaves whole lines. `end` is written before the handler returns: it has happened, whatever becomes of the report.
"""

import asyncio
import json
import os
import signal
import time
import uuid

import esexec


def note(ctx: esexec.Context, phase: str, **more: object) -> None:
    """Write a line into the world."""
    line = {
        "phase": phase,
        "execution": ctx.execution_id,
        "step": ctx.step,
        "run": ctx.run,
        "attempt": ctx.attempt,
        "key": ctx.idempotency_key,
        "pid": os.getpid(),
        "time": time.time(),
        **more,
    }
    file = os.open(os.environ["CHAOS_WORLD"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def finish(ctx: esexec.Context, fail_first: int, hopeless: bool) -> str:
    """The output, or the failure that was asked for."""
    if hopeless:
        note(ctx, "failed")
        raise esexec.ExecutionError("this can never work", code="hopeless", retry=False)
    if ctx.attempt <= fail_first:
        note(ctx, "failed")
        raise RuntimeError(f"attempt {ctx.attempt} of {fail_first} that fail")
    output = uuid.uuid4().hex
    note(ctx, "end", output=output)
    return output


@esexec.task(name="work")
async def work(
    ctx: esexec.Context, ms: int = 0, fail_first: int = 0, hopeless: bool = False, before: list[str | None] | None = None
) -> str:
    """Works on the loop."""
    note(ctx, "begin")
    await asyncio.sleep(ms / 1000)
    return finish(ctx, fail_first, hopeless)


@esexec.task(name="work_sync")
def work_sync(
    ctx: esexec.Context, ms: int = 0, fail_first: int = 0, hopeless: bool = False, before: list[str | None] | None = None
) -> str:
    """Works in a thread, and looks now and then whether it is to stop."""
    note(ctx, "begin")
    until = time.monotonic() + ms / 1000
    while (left := until - time.monotonic()) > 0:
        ctx.check_cancelled()
        time.sleep(min(left, 0.02))
    return finish(ctx, fail_first, hopeless)


@esexec.task(name="until_file")
async def until_file(ctx: esexec.Context, path: str) -> str:
    """Works until a file exists: so a test decides when it ends."""
    note(ctx, "begin")
    while not os.path.exists(path):  # noqa: ASYNC240
        await asyncio.sleep(0.01)
    return finish(ctx, 0, False)


@esexec.task(name="killer")
async def killer(ctx: esexec.Context) -> None:
    """Takes its worker with it."""
    note(ctx, "begin")
    os.kill(os.getpid(), signal.SIGKILL)


TASKS = [work, work_sync, until_file, killer]
