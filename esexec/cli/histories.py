"""`esexec history`, `diff`, `verify`: what happened, what changed, whether it is true. Only `history import` writes anything."""

from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from esexec.cli.call import Call
from esexec.cli.completing import execution_ids
from esexec.cli.exits import Exit
from esexec.cli.given import ExecutionIdArgument
from esexec.cli.group import WithDefault
from esexec.cli.verb import verb
from esexec.client import Client
from esexec.domain.errors import ValidationError
from esexec.log.lines import is_object
from esexec.log.verify import Verification


class _History(WithDefault):
    default = "of"


_HELP = """Tell everything that happened: esexec history ID.

A history can be written to a file (--export), and be looked at elsewhere (esexec history import)."""

histories = typer.Typer(name="history", cls=_History, help=_HELP)

VersionArgument = Annotated[int, typer.Argument(metavar="VERSION", help="An event's number.", show_default=False)]


def register(app: typer.Typer) -> None:
    verb(histories)(of)
    verb(histories, name="import")(import_)
    app.add_typer(histories)
    for body in (diff, verify):
        verb(app)(body)


async def of(
    call: Call,
    execution_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", autocompletion=execution_ids, help="The execution, or what executions share.", show_default=False
        ),
    ],
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Write it to a file instead, byte for byte; - is stdout.")
    ] = None,
) -> None:
    """Tell everything that happened, event by event. With --json one line per event, with all it holds."""
    from projections.timeline import timeline

    async with call.client() as (client, _):
        if export is not None:
            _write(call, export, execution_id, await client.histories.export(execution_id))
            return
        entries = timeline(await client.history(execution_id))
    if call.json:
        for entry in entries:
            call.line(entry)
        return
    from esexec.cli import render
    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal

    print_(terminal(), render.history(entries))


def _write(call: Call, file: Path, execution_id: str, lines: list[bytes]) -> None:
    content = b"".join(line + b"\n" for line in lines)
    if str(file) == "-":
        typer.get_binary_stream("stdout").write(content)
        return
    try:
        file.write_bytes(content)
    except OSError as error:
        raise ValidationError(f"{file}: {error.strerror or error}", code="bad_file", hint="--export FILE") from None
    objects = sum(map(is_object, lines))
    commits, with_objects = len(lines) - objects, f", and {objects} objects," if objects else ""
    if call.json:
        told = {"execution_id": execution_id, "file": str(file), "commits": commits}
        call.document(told | ({"objects": objects} if objects else {}))
    call.say(f"{commits} commits of {execution_id}{with_objects} written to {file}")


async def import_(
    call: Call,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As --export has written it; - is stdin.", show_default=False)],
) -> None:
    """Store the histories of a file in the namespace (best one of its own: --namespace scratch), to look at them there.

    They are verified before. Refused (4) if an execution has another history there. Nothing goes on with what had not ended.
    """
    lines = _read(file)
    async with call.client(new_store=True) as (client, _):
        found = await client.histories.import_(lines)
    if call.json:
        call.document({"imported": found})
    for one in found:
        new = f"{one.written} of {one.commits} commits were new" if one.written else "it was there already"
        call.say(f"{one.execution_id}: {new}; {call.esexec} show {one.execution_id}")


def _read(file: Path) -> list[bytes]:
    try:
        content = typer.get_binary_stream("stdin").read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise ValidationError(f"{file}: {error.strerror or error}", code="bad_file", hint="esexec history import FILE") from None
    return content.split(b"\n")


async def diff(call: Call, execution_id: ExecutionIdArgument, before: VersionArgument, after: VersionArgument) -> None:
    """Show what is different between two versions of an execution: its status, its steps, outputs, variables, …"""
    async with call.client() as (client, _):
        changes = await client.histories.diff(execution_id, before, after)
    if call.json:
        call.document({"execution_id": execution_id, "before": before, "after": after, "changes": changes})
        return
    from esexec.cli import render
    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal

    print_(terminal(), render.changes(changes, before, after))


async def verify(
    call: Call,
    execution_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The execution.", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every history of the namespace.")] = False,
) -> Exit:
    """Check that a history is whole, unaltered and lawful."""
    if (execution_id is None) != all_:
        raise ValidationError("give either an execution's id or --all", code="usage", hint="esexec verify --help")
    async with call.client() as (client, _):
        return await _verify_all(call, client) if execution_id is None else _tell(call, await client.verify(execution_id))


def _tell(call: Call, report: Verification) -> Exit:
    from esexec.cli import render
    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal

    if call.json:
        call.document(report)
    else:
        print_(terminal(), render.verified(report))
    return Exit.OK if report.ok else Exit.CORRUPT


async def _verify_all(call: Call, client: Client) -> Exit:
    """Only what is broken is kept: there may be more histories than one wants in memory."""
    from esexec.cli.counting import counting
    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal, text

    verified = commits = events = 0
    broken: list[Verification] = []
    with counting("verifying", await client.histories.size()) as advance:
        async with aclosing(client.histories.verify_all()) as reports:
            async for report in reports:
                verified, commits, events = verified + 1, commits + report.commits, events + report.events
                if not report.ok:
                    broken.append(report)
                advance(report.commits)
    broken.sort(key=lambda report: report.execution_id)
    if call.json:
        call.document({"ok": not broken, "verified": verified, "broken": broken})
    else:
        for report in broken:
            print_(terminal(), text(f"{report.execution_id}: commit {report.commit}: {report.problem}", "red"))
        intact = f"{verified - len(broken)} of {verified} histories verified ({commits} commits, {events} events)"
        print_(terminal(), text(intact, "bold red" if broken else "green"))
    return Exit.CORRUPT if broken else Exit.OK
