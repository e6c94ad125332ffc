"""`esexec ls`: which executions there are. Answered by the projections."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esexec.cli.call import Call
from esexec.cli.given import read_metadata, read_time
from esexec.cli.verb import verb
from esexec.client.queries import Conditions, TaskConditions
from esexec.domain.durations import milliseconds
from esexec.domain.errors import EsexecError, ValidationError
from esexec.results import ExecutionSummary, TaskRecord

if TYPE_CHECKING:
    from rich.console import RenderableType


WatchOption = Annotated[bool, typer.Option("--watch", help="Look again every second, until Ctrl-C.")]
_AGAIN_S = 1.0


def register(app: typer.Typer) -> None:
    verb(app)(ls)


async def ls(
    call: Call,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="STATUS", help="With this status. Repeatable: any of them."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Of this plan; with --tasks, of this task.")] = None,
    plan: Annotated[str | None, typer.Option("--plan", metavar="ID", help="Of the plan with this id.")] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option("--meta", metavar="KEY=VALUE", help="With this metadata: JSON, or text. Repeatable."),
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME|AGE", help="Created since then, or so long ago.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME|AGE", help="Created before.")] = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="List the steps of executions instead.")] = False,
    execution: Annotated[str | None, typer.Option("--execution", metavar="ID", help="With --tasks: of this execution.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="So many; the rest by the cursor.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", metavar="CURSOR", help="What follows upon an earlier answer.")] = None,
    watch: WatchOption = False,
) -> None:
    """List executions, or with --tasks their steps, the newest first."""
    asked: dict[str, Any] = {"status": status, "name": name, "plan_id": plan, "limit": limit, "cursor": cursor}
    asked |= {"since": read_since(since, "--since"), "until": read_since(until, "--until")}
    if tasks:
        asked["execution_id"] = execution
        _refuse(meta, "--meta", "is of executions, not of steps")
    else:
        asked["metadata"] = read_metadata(meta) or None
        _refuse(execution, "--execution", "goes with --tasks")
    given = {key: value for key, value in asked.items() if value is not None}
    async with call.client(asks=True) as (client, _):

        async def page() -> Any:
            if tasks:
                return await client.tasks.list(**TaskConditions(**given))  # type: ignore[typeddict-item]
            return await client.executions.list(**Conditions(**given))  # type: ignore[typeddict-item]

        await watched(call, page, _tasks if tasks else _executions, watch)


async def watched(call: Call, ask: Any, picture: Any, watch: bool) -> None:
    """Print an answer once, or again and again in place."""
    from esexec.cli.terminal import is_live, show, terminal

    console = terminal()
    if not watch:
        answer = await ask()
        if call.json:
            call.document(answer)
        else:
            show(console, picture(answer))
        return
    if call.json or not is_live(console):
        while True:
            answer = await ask()
            if call.json:
                call.line(answer)
            else:
                show(console, picture(answer))
            await asyncio.sleep(_AGAIN_S)
    from rich.live import Live

    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            live.update(picture(await ask()), refresh=True)
            await asyncio.sleep(_AGAIN_S)


def _executions(page: Any) -> "RenderableType":
    return _listed("no executions", [_execution(one) for one in page.items], page)


def _tasks(page: Any) -> "RenderableType":
    return _listed("no tasks", [_task(one) for one in page.items], page)


def _execution(one: ExecutionSummary) -> Sequence[Any]:
    steps = f"{one.completed_steps}/{one.total_steps}"
    phase = one.current_phase if not one.status.is_final and one.current_phase != "executing" else ""
    return _row(one.status, one.execution_id, one.name, one.created_at, one.duration_ms, steps, phase or _why(one))


def _task(one: TaskRecord) -> Sequence[Any]:
    tries = f"{one.retries} retried" if one.retries else ""
    return _row(one.status, one.id, one.name, one.created_at, one.duration_ms, tries, _why(one))


def _row(status: Any, identity: str, name: str, created_at: datetime, took_ms: int | None, steps: str, why: str) -> Sequence[Any]:
    from esexec.cli.progress import LOOKS
    from esexec.cli.terminal import text
    from projections.timeline import duration

    sign, style = LOOKS[status]
    when = created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    took = duration(took_ms) if took_ms is not None else ""
    return (
        text(sign, style),
        text(identity),
        text(name),
        text(status, style),
        text(when, "bright_black"),
        text(took, "bright_black"),
        text(steps, "bright_black"),
        text(why, style),
    )


def _why(one: ExecutionSummary | TaskRecord) -> str:
    return f"[{one.error.code}] {one.error.message}"[:200] if one.error is not None else ""


def _listed(nothing: str, rows: Sequence[Any], page: Any) -> "RenderableType":
    from rich.console import Group

    from esexec.cli.terminal import columns, text

    if not rows:
        return text(nothing)
    more = [text(f"more with --cursor {page.cursor}", "bright_black")] if page.cursor else []
    return Group(columns(*rows), *more)


def _refuse(value: Any, option: str, why: str) -> None:
    if value:
        raise ValidationError(f"{option} {why}", code="usage", hint="esexec ls --help")


def read_since(said: str | None, option: str) -> datetime | None:
    """The value of an option that takes a time, or how long ago that was."""
    if said is None:
        return None
    if said[:1].isdigit() and "-" not in said:
        try:
            ago_ms = milliseconds(said.removesuffix("ago").strip(), name=option)
        except EsexecError:
            ago_ms = None
        if ago_ms is not None:
            return datetime.now(UTC) - timedelta(milliseconds=ago_ms)
    return read_time(said, option)
