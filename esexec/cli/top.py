"""`esexec top`: what goes on in a namespace, drawn anew each second: queues, workers, executions, projections."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from esexec.cli.call import Call
from esexec.cli.exits import Exit
from esexec.cli.verb import verb
from esexec.client.overview import Overview, Seen
from esexec.domain import limits

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_AGAIN_S = 1.0
_HEARD_S = limits.sample_interval_ms / 1000 + 0.5
"""After so long every worker has been heard of."""
_ROWS = 12
"""So many rows a section has at most."""
_DIM = "bright_black"


def register(app: typer.Typer) -> None:
    verb(app, interrupted=Exit.OK)(top)


async def top(
    call: Call, once: Annotated[bool, typer.Option("--once", help="Listen for 5 s, print what there is, and end.")] = False
) -> None:
    """Show queues, workers, executions and projections, again each second until Ctrl-C."""
    from esexec.cli.terminal import is_live, show, terminal

    console = terminal()
    async with call.client(asks=True) as (client, server), Overview(client) as overview:
        place = f"namespace {call.namespace}  {server.place}"
        if call.json or once or not is_live(console):
            if once:
                await asyncio.sleep(_HEARD_S)
            while True:
                seen = await overview.look()
                if call.json:
                    call.line(seen)
                else:
                    show(console, picture(seen, place))
                if once:
                    return
                await asyncio.sleep(_AGAIN_S)
        from rich.live import Live

        with Live(console=console, auto_refresh=False, screen=True) as live:
            while True:
                live.update(picture(await overview.look(), place), refresh=True)
                await asyncio.sleep(_AGAIN_S)


def picture(seen: Seen, place: str = "") -> "RenderableType":
    """All of it, section by section."""
    from rich.console import Group

    from esexec.cli.terminal import text

    parts: list[RenderableType] = [text(f"{seen.time.astimezone():%H:%M:%S}  {place}".rstrip(), _DIM)]
    for title, rows in (
        ("queues", [*_queues(seen), *_intake(seen)]),
        ("workers", [*_workers(seen)]),
        ("executions", [*_counts(seen), *_running(seen)]),
        ("projections", [*_projections(seen)]),
    ):
        parts += ["", text(title, "bold"), *_section(rows)]
    return Group(*parts)


def _section(rows: "Sequence[tuple[Text, ...]]") -> "list[RenderableType]":
    from esexec.cli.terminal import columns, text

    shown = columns(*(tuple(row) for row in rows[:_ROWS]), wrap_last=False)
    return [shown] if len(rows) <= _ROWS else [shown, text(f"and {len(rows) - _ROWS} more", _DIM)]


def _queues(seen: Seen) -> "Iterator[tuple[Text, ...]]":
    from esexec.cli.terminal import text

    if not seen.queues:
        yield (text("none yet" if seen.queues is not None else "the server does not answer", _DIM),)
    for one in sorted(seen.queues or (), key=lambda one: (-one.waiting, -one.in_flight)):
        waits = text(f"{one.waiting} waiting", "yellow" if one.waiting else _DIM)
        yield text(one.queue), text(f"priority {one.priority}", _DIM), waits, text(f"{one.in_flight} in hand")


def _intake(seen: Seen) -> "Iterator[tuple[Text, ...]]":
    from esexec.cli.terminal import text

    if seen.intake is not None and (seen.intake.commands or seen.intake.inbox):
        yield text("for executors"), text(""), text(f"{seen.intake.commands + seen.intake.inbox} waiting", "yellow"), text("")
    if seen.intake is not None and seen.intake.dead:
        yield text("dead letters"), text(""), text(f"{seen.intake.dead}", "bold red"), text("")


def _workers(seen: Seen) -> "Iterator[tuple[Text, ...]]":
    from esexec.cli.terminal import text

    if not seen.workers:
        yield (text("nothing heard of any", _DIM),)
    for one in seen.workers:
        memory = f"{one.memory_bytes / 1_000_000:.0f} MB ({one.memory_usage:.0f} %)"
        yield text(one.worker), text(f"{one.running} in hand"), text(f"CPU {one.cpu_usage:.0f} %"), text(memory)


def _counts(seen: Seen) -> "Iterator[tuple[Text, ...]]":
    from esexec.cli.progress import LOOKS
    from esexec.cli.terminal import text

    if seen.counts is None:
        yield (text("no projections answer: `esexec projections` keeps what is shown here", _DIM),)
        return
    told = [(status, count) for status, count in seen.counts.items() if count]
    line = text("" if told else "none yet", _DIM)
    for status, count in told:
        sign, style = LOOKS[status]
        line.append_text(text(f"{sign} {count} {status}  ", style))
    yield (line,)


def _running(seen: Seen) -> "Iterator[tuple[Text, ...]]":
    from esexec.cli.progress import LOOKS
    from esexec.cli.terminal import text
    from projections.timeline import duration

    for one in seen.running or ():
        sign, style = LOOKS[one.status]
        share = round(100 * one.completed_steps / one.total_steps) if one.total_steps else 0
        took_ms = round((seen.time - one.created_at).total_seconds() * 1000)
        phase = one.current_phase if one.current_phase != "executing" else ""
        words = (
            f"{one.name}  {share:>3} %  {one.completed_steps}/{one.total_steps}  {duration(max(0, took_ms))}  {phase}".rstrip()
        )
        yield (text(f"{sign} {one.execution_id}  ", style).append_text(text(words)),)


def _projections(seen: Seen) -> "Iterator[tuple[Text, ...]]":
    from esexec.cli.projection import row

    if seen.projections is None:
        from esexec.cli.terminal import text

        yield (text("none run here", _DIM),)
    for one in seen.projections or ():
        yield row(one)
