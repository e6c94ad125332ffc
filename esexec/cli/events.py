"""`esexec events`: what the public feed holds, and what comes."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from esexec.cli.call import Call
from esexec.cli.lists import read_since
from esexec.cli.verb import verb
from esexec.cloudevents import CloudEvent, document

if TYPE_CHECKING:
    from rich.console import RenderableType


def register(app: typer.Typer) -> None:
    verb(app)(events)


async def events(
    call: Call,
    types: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Only these: task.failed, execution.started, … Repeatable.")
    ] = None,
    execution_id: Annotated[str | None, typer.Option("--execution", metavar="ID", help="Only of this execution.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME|DURATION", help="Since that time, or as long ago: 10m. Else all.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until interrupted.")] = False,
) -> None:
    """Tell the events of the namespace from the public feed (kept for 7 days). With --json one CloudEvent per line."""
    begin: datetime | Literal["beginning"] = read_since(since, "--since") or "beginning"
    async with call.client(asks=True) as (client, _):
        async for event in client.events(begin, types=types or (), execution_id=execution_id, follow=follow):
            if call.json:
                call.line(document(event))
            else:
                _tell(event)


def _tell(event: CloudEvent) -> None:
    from esexec.cli.terminal import show, terminal

    console = terminal()
    show(console, line(event, console.width))


def line(event: CloudEvent, width: int) -> "RenderableType":
    """One event; on a narrow terminal without its date and its type, which the words say as well."""
    from esexec.cli.terminal import WIDE_COLUMNS, columns, text

    bad = event.type.endswith((".failed", ".timed_out", ".deadline_exceeded"))
    words = text(event.data.description, "red" if bad else "")
    if width < WIDE_COLUMNS:
        return columns((text(f"{event.time:%H:%M:%S}", "bright_black"), text(f"{event.subject:<20}"), words))
    when = text(f"{event.time:%Y-%m-%d %H:%M:%S}", "bright_black")
    return columns((when, text(f"{event.subject:<32}"), text(f"{event.type:<26}", "bright_black"), words))
