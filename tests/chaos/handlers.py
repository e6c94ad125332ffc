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
from pathlib import Path
from zlib import crc32

import esexec


def note(ctx: esexec.Context, phase: str, **more: object) -> None:
    """Write a line into the world."""
    write(
        phase=phase,
        execution=ctx.execution_id,
        step=ctx.step,
        run=ctx.run,
        attempt=ctx.attempt,
        purpose=ctx.purpose,
        key=ctx.idempotency_key,
        **more,
    )


def write(**line: object) -> None:
    line |= {"pid": os.getpid(), "time": time.time()}
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


# Effects that can be undone ------------------------------------------------------------------------------------------------
#
# A step's effect is a cell, `old` before it and `new` after it. It is changed, and put back, at the very end of a handler, and
# the note that says so (`end`, `undone`) is written in the same breath.


def cell(ctx: esexec.Context) -> Path:
    cells = Path(os.environ["CHAOS_WORLD"]).with_name("cells")
    cells.mkdir(exist_ok=True)
    return cells / f"{ctx.execution_id}.{ctx.step}"


def value_of(place: Path) -> str:
    return place.read_text() if place.exists() else "old"


def die_once(where: str | None, here: str, ctx: esexec.Context | esexec.RecoveryContext) -> None:
    """The worker dies here, the first time that this execution gets here."""
    if where != here:
        return
    grave = Path(os.environ["CHAOS_WORLD"]).with_name(f"grave-{ctx.execution_id}")
    if not grave.exists():
        grave.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@esexec.task(name="make")
async def make(
    ctx: esexec.Context,
    ms: int = 0,
    slow_first: int = 0,
    fail_first: int = 0,
    hopeless: bool = False,
    advise: str | None = None,
    image: bool = False,
    undo_hopeless: bool = False,
    until: str | None = None,
    dies: str | None = None,
) -> str:
    """Changes its cell. `advise`: fails until a strategy has helped, which is asked so. `until`: fails until a file exists."""
    note(ctx, "begin")
    place = cell(ctx)
    if image:
        die_once(dies, "before", ctx)
        kept = await ctx.before({"value": value_of(place)})
        note(ctx, "image", value=kept["value"])
        die_once(dies, "after_before", ctx)
    await asyncio.sleep((slow_first if slow_first and ctx.attempt == 1 else ms) / 1000)
    if advise is not None and f"helped.{ctx.step}" not in ctx.vars:
        note(ctx, "failed")
        kills = " and kills" if dies == "advice" else ""
        raise esexec.ExecutionError(f"{advise} would help{kills}", code=f"ADVISE_{advise.upper()}", retry=False)
    missing = until is not None and not os.path.exists(until)  # noqa: ASYNC240
    output = finish(ctx, fail_first, hopeless or missing)
    place.write_text("new")
    ctx.vars[f"made.{ctx.step}"] = ctx.run
    return output


@make.compensate
async def unmake(ctx: esexec.Context, undo_hopeless: bool = False, image: bool = False, dies: str | None = None) -> None:
    """Puts the cell back. One attempt in four fails."""
    note(ctx, "undo")
    await asyncio.sleep(0.01)
    die_once(dies, "undo", ctx)
    if undo_hopeless:
        raise esexec.ExecutionError("this cannot be undone", code="hopeless", retry=False)
    if crc32(f"{ctx.idempotency_key}/{ctx.attempt}".encode()) % 4 == 0:
        raise ConnectionError("not now")
    restored = (ctx.before_image or {"value": "old"})["value"] if image else "old"
    cell(ctx).write_text(restored)
    note(ctx, "undone", value=restored)


@esexec.task(name="make_elsewhere")
async def make_elsewhere(ctx: esexec.Context, **meant_for_make: object) -> str:
    """The fallback: always works."""
    note(ctx, "begin")
    return finish(ctx, 0, False)


@make_elsewhere.compensate
async def unmake_elsewhere(ctx: esexec.Context) -> None:
    note(ctx, "undo", elsewhere=True)
    note(ctx, "undone", elsewhere=True, value="old")


@esexec.recovery("ADVISE_*", id="advise", timeout="5s")
async def advise(ctx: esexec.RecoveryContext) -> esexec.RecoveryResult:
    """Does what the error's code asks for."""
    write(phase="advice", execution=ctx.execution_id, step=ctx.step, run=ctx.run, attempt=ctx.failed_attempt, key="advice")
    await asyncio.sleep(0.02)
    verb = ctx.error.code.removeprefix("ADVISE_").lower()
    die_once("advice" if "kills" in ctx.error.message else None, "advice", ctx)
    if verb == "throw":
        raise RuntimeError("no idea either")
    ctx.state.variables[f"helped.{ctx.step}"] = verb
    return esexec.RecoveryResult(True, esexec.RecoveryAction(verb), ctx.state)


TASKS = [work, work_sync, until_file, killer, make, make_elsewhere]
STRATEGIES = [advise]
