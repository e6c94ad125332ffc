"""`esexec watch`, `show`: looking at executions, as they are and as they were. Nothing here changes any."""

from typing import Annotated

import typer

from esexec.cli.call import Call
from esexec.cli.exits import Exit
from esexec.cli.following import command_of, exit_of_result, fields_of, follow_to_end
from esexec.cli.given import ExecutionIdArgument, read_moment
from esexec.cli.verb import verb
from esexec.domain.errors import ValidationError
from esexec.domain.past import as_of
from esexec.world import now
from projections.timeline import timeline


def register(app: typer.Typer) -> None:
    for body in (watch, show):
        verb(app)(body)


async def watch(call: Call, execution_id: ExecutionIdArgument) -> Exit:
    """Follow an execution to its end, from its beginning. With --json one line per update."""
    async with call.client() as (client, server):
        if server.is_ours and not (await client.get_or_raise(execution_id)).status.is_final:
            call.note(f"nothing runs on {server.store}; `{call.esexec} dev --tasks MODULE` goes on with it")
        if not call.json:
            return exit_of_result(await follow_to_end(call, client, execution_id))
        async for update in client.monitor(execution_id):
            call.line(update)
        return exit_of_result(await client.get_or_raise(execution_id))


async def show(
    call: Call,
    execution_id: ExecutionIdArgument,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="As it was then: 12:03:07 (UTC, as in its history) or with a date."),
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", help="As it was after that event.", show_default=False)
    ] = None,
) -> None:
    """Show an execution: its status, its steps, its result or error; now, or as it was."""
    if at is not None and version is not None:
        raise ValidationError("give either --at or --version", code="usage", hint="esexec show --help")
    async with call.client() as (client, _):
        commits = await client.history(execution_id)
        time = None if at is None else read_moment(at, commits[0].time, now(), "--at")
        result = await client.get_or_raise(execution_id, version=version, at=time)
    entries = [entry for entry in timeline(as_of(commits, version=version, at=time)) if entry.actor is not None]
    if call.json:
        call.document(fields_of(result) | {"commands": [command_of(entry) for entry in entries]})
        return
    from esexec.cli import render
    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal

    print_(terminal(), render.execution(result, entries), render.outcome(result, stacks=call.verbose))
