"""Following an execution to its end, for the verbs that wait: what is shown meanwhile, what is said then, the exit code."""

import asyncio
from typing import Any

import msgspec

from esexec.cli.call import Call
from esexec.cli.exits import Exit
from esexec.client import Client
from esexec.results import ExecutionResult
from projections.timeline import TimelineEntry


async def follow_to_end(
    call: Call, client: Client, execution_id: str, *, wait_timeout: float | None = None, again: bool = False
) -> ExecutionResult:
    """Show how it goes and what came of it; with `--json` only wait. Raises `AwaitTimeout`, `NotFound`.

    `again`: a command has just set it going again; what was before that is not told.
    """
    if call.json:
        return await client.wait(execution_id, wait_timeout=wait_timeout)
    from esexec.cli.progress import follow
    from esexec.cli.render import outcome
    from esexec.cli.terminal import show, terminal

    console = terminal()
    following = asyncio.ensure_future(follow(client.monitor(execution_id), console, again=again, debug=call.verbose))
    waiting = asyncio.ensure_future(client.wait(execution_id, wait_timeout=wait_timeout))
    try:
        # Whichever fails first: who follows what is not there is told at once, and not waited for by the other.
        await asyncio.gather(waiting, following)
    finally:
        waiting.cancel()
        following.cancel()
        await asyncio.wait({waiting, following})
    result = waiting.result()
    show(console, "", outcome(result, stacks=call.verbose))
    return result


def fields_of(result: ExecutionResult) -> dict[str, Any]:
    """The result as a JSON object that always has the same names; what only a result in full has is told by `analyze`."""
    fields = msgspec.structs.asdict(result)
    for name in ("metrics", "resource_usage", "timeline"):
        del fields[name]
    return fields


def command_of(entry: TimelineEntry) -> dict[str, Any]:
    """A command that was carried out, as a JSON object: when, with which event, who gave it."""
    return {"time": entry.time, "version": entry.version, "type": entry.type, "actor": entry.actor}


def exit_of_result(result: ExecutionResult) -> Exit:
    """0 for what completed."""
    return Exit.OK if result.ok else Exit.FAILED
