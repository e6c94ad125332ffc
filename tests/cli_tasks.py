"""Tasks for the tests of the command line: what `--tasks tests.cli_tasks` names."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import esexec

HOSTILE = "\x1b]0;title\x07\x1b[31m [bold]red[/bold] \u202ereversed\x9b2J"
"""What a handler may say, and no terminal may be sent."""


@esexec.task
async def greet(name: str) -> dict[str, str]:
    """Completes at once."""
    return {"greeting": f"Hello, {name}!"}


@esexec.task
async def ungreet(greeting: str) -> None:
    """Takes a greeting back."""


@esexec.task(max_retries=0)
async def fail_until(exists: Path) -> str:
    """Fails unless there is a file."""
    if not await asyncio.to_thread(exists.exists):
        raise RuntimeError("not yet")
    return "there it is"


@esexec.task
async def hold(until: Path) -> str:
    """Goes on until there is a file."""
    while not await asyncio.to_thread(until.exists):
        await asyncio.sleep(0.01)
    return "let go"


@esexec.task
async def stay(seconds: float) -> None:
    """Does not hear of being cancelled."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.1)


@esexec.task
async def block(begun: Path) -> None:
    """Lets nothing else run on its worker's loop."""
    begun.touch()  # noqa: ASYNC240
    time.sleep(60)  # noqa: ASYNC251


@esexec.task(max_retries=1, initial_retry_delay="10ms")
async def stumble(ctx: esexec.Context) -> str:
    """Fails at first."""
    if ctx.attempt == 1:
        raise RuntimeError("not yet")
    return "done"


@esexec.task(max_retries=0)
async def fail(message: str = HOSTILE) -> None:
    """Fails."""
    raise RuntimeError(message)


@esexec.task
def hostile() -> dict[str, Any]:
    """Says what would change a terminal."""
    return {"word": HOSTILE}
