"""`esexec projection ls | rebuild`: how the read models are, and making one anew from the log."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from esexec.cli.call import Call
from esexec.cli.exits import Exit
from esexec.cli.given import importing
from esexec.cli.verb import verb
from esexec.nats.subjects import Subjects

if TYPE_CHECKING:
    from rich.text import Text

    from projections.asks import ProjectionStatus
    from projections.projection import Projection

projection = typer.Typer(name="projection", help="See how the read models are, and make one anew.", no_args_is_help=True)

DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", metavar="FILE|URL", help="An SQLite file, or postgresql://…; else beside the store."),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="MODULE", help="Projections of your own: pkg.mod, file.py. Repeatable."),
]


def register(app: typer.Typer) -> None:
    for body in (ls, rebuild):
        verb(projection)(body)
    app.add_typer(projection)


def included(modules: Iterable[str] | None) -> "list[type[Projection]]":
    """The projections of these modules."""
    from projections.including import projections_in

    found: list[type[Projection]] = []
    for module in modules or ():
        with importing(module, "projections_broken"):
            found += projections_in(module)
    return found


async def ls(call: Call) -> Exit:
    """List the projections, by each process that keeps them: how far they are, and what is wrong with them."""
    async with call.client(asks=True) as (client, _):
        found = (await client.queries.projections()).projections
    broken = any(one.state == "failed" for one in found)
    if call.json:
        call.document(found)
        return Exit.FAILED if broken else Exit.OK
    from esexec.cli.terminal import columns, show, terminal

    show(terminal(), columns(*map(row, found)))
    return Exit.FAILED if broken else Exit.OK


def row(one: "ProjectionStatus") -> "tuple[Text, ...]":
    """How a projection is, in columns."""
    from esexec.cli.terminal import text
    from projections.timeline import duration

    behind = "up to date" if not one.lag else f"{one.lag} behind, {duration(one.lag_ms)}"
    return (
        text(one.name),
        text(one.state, {"working": "green", "failed": "bold red", "retrying": "yellow"}.get(one.state, "")),
        text(f"at {one.position}"),
        text(behind, "yellow" if one.lag_ms > 1000 else ""),
        text(one.error or f"view {one.view} of {one.host}", "red" if one.error else "bright_black"),
    )


async def rebuild(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The projection.", show_default=False)],
    into: Annotated[str | None, typer.Option("--into", metavar="VIEW", help="Keep it under this name, beside the old.")] = None,
    swap: Annotated[bool, typer.Option("--swap", help="Let the new one answer, also if it is not equal.")] = False,
    database: DatabaseOption = None,
    include: IncludeOption = None,
) -> Exit:
    """Make a read model anew from the log, beside the one that answers; it takes its place if both are equal, or with --swap."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from esexec.cli.terminal import is_live, terminal
    from projections.rebuild import rebuild as make
    from projections.role import kinds_of, reading

    modules = included(include)
    [kind] = kinds_of(modules, [name])
    began = datetime.now(UTC)
    async with (
        call.reach(new_store=False) as server,
        reading(server.url, Subjects(call.namespace), database or call.views) as room,
    ):
        console = terminal()
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        bar.disable = call.json or not is_live(console)
        with bar:
            task = bar.add_task(name, total=None)
            made = await make(
                kind,
                room.store,
                room.source,
                room.log,
                into=into,
                swap=swap,
                others=kinds_of(modules),
                told=lambda position, goal: bar.update(task, completed=position, total=goal),
            )
    if call.json:
        call.document(made)
        return Exit.OK if made.swapped or into else Exit.FAILED
    took_s = (datetime.now(UTC) - began).total_seconds()
    call.say(f"{made.view} made of {made.events} events up to position {made.position} in {took_s:.1f} s")
    call.say({None: "there was none before", True: f"equal to {made.old}", False: f"not equal to {made.old}"}[made.equal])
    if made.swapped:
        call.say(f"{made.view} answers for {name} now")
    elif not into:
        call.say(f"{made.old} answers still; --swap lets the new one")
    return Exit.OK if made.swapped or into else Exit.FAILED
