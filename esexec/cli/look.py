"""`esexec watch`, `show`, `history`, `verify`: looking at executions. Nothing here changes any."""

from typing import Annotated

import typer

from esexec.cli.call import Call
from esexec.cli.exits import Exit
from esexec.cli.following import exit_of_result, fields_of, follow_to_end
from esexec.cli.given import ExecutionIdArgument
from esexec.cli.verb import verb
from esexec.client import Client
from esexec.domain.errors import ValidationError
from esexec.log.verify import Verification


def register(app: typer.Typer) -> None:
    for body in (watch, show, history, verify):
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


async def show(call: Call, execution_id: ExecutionIdArgument) -> None:
    """Show an execution: its status, its steps, its result or error."""
    async with call.client() as (client, _):
        result = await client.get_or_raise(execution_id)
    if call.json:
        call.document(fields_of(result))
        return
    from esexec.cli import render
    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal

    print_(terminal(), render.execution(result), render.outcome(result, stacks=call.verbose))


async def history(
    call: Call,
    execution_id: Annotated[
        str, typer.Argument(metavar="ID", help="The execution, or what executions share.", show_default=False)
    ],
) -> None:
    """Tell everything that happened, event by event. With --json one line per event, with all it holds."""
    from projections.timeline import timeline

    async with call.client() as (client, _):
        entries = timeline(await client.history(execution_id))
    if call.json:
        for entry in entries:
            call.line(entry)
        return
    from esexec.cli import render
    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal

    print_(terminal(), render.history(entries))


async def verify(
    call: Call,
    execution_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The execution.", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every history of the namespace.")] = False,
) -> Exit:
    """Check that a history is whole, unaltered and lawful."""
    if (execution_id is None) != all_:
        raise ValidationError("give either an execution's id or --all", code="usage", hint="esexec verify --help")
    async with call.client() as (client, _):
        reports = await _verify_all(client) if execution_id is None else [await client.verify(execution_id)]
    broken = [report for report in reports if not report.ok]
    if call.json:
        call.document(reports[0] if execution_id else {"ok": not broken, "verified": len(reports), "broken": broken})
    else:
        _tell(reports, broken, one=execution_id is not None)
    return Exit.CORRUPT if broken else Exit.OK


async def _verify_all(client: Client) -> list[Verification]:
    return [await client.verify(entity) for entity in await client.list_ids(shared=True)]


def _tell(reports: list[Verification], broken: list[Verification], *, one: bool) -> None:
    from esexec.cli import render
    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal, text

    console = terminal()
    if one:
        print_(console, render.verified(reports[0]))
        return
    for report in broken:
        print_(console, text(f"{report.execution_id}: commit {report.commit}: {report.problem}", "red"))
    commits, events = sum(report.commits for report in reports), sum(report.events for report in reports)
    intact = f"{len(reports) - len(broken)} of {len(reports)} histories verified ({commits} commits, {events} events)"
    print_(console, text(intact, "bold red" if broken else "green"))
