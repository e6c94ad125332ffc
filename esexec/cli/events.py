"""`esexec events`: what the public feed holds, and what comes."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Literal

import typer

from esexec.cli.call import Call
from esexec.cli.given import read_duration, read_time
from esexec.cli.verb import verb
from esexec.cloudevents import CloudEvent, document
from esexec.domain.durations import milliseconds
from esexec.world import now


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
    async with call.client(asks=True) as (client, _):
        async for event in client.events(_since(since), types=types or (), execution_id=execution_id, follow=follow):
            if call.json:
                call.line(document(event))
            else:
                _tell(event)


def _since(said: str | None) -> datetime | Literal["beginning"]:
    if said is None:
        return "beginning"
    if re.match(r"\d{4}-", said):
        return read_time(said, "--since")
    return now() - timedelta(milliseconds=milliseconds(read_duration(said), name="--since") or 0)


def _tell(event: CloudEvent) -> None:
    from esexec.cli.terminal import columns, show, terminal, text

    when = text(f"{event.time:%Y-%m-%d %H:%M:%S}", "bright_black")
    bad = event.type.endswith((".failed", ".timed_out", ".deadline_exceeded"))
    words = text(event.data.description, "red" if bad else "")
    show(terminal(), columns((when, text(f"{event.subject:<32}"), text(f"{event.type:<26}", "bright_black"), words)))
