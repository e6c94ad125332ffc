"""`esexec ls`: which executions there are. Answered by the projections."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esexec.cli.call import Call
from esexec.cli.given import read_duration, read_metadata, read_time
from esexec.cli.verb import verb
from esexec.client.queries import Conditions, TaskConditions
from esexec.domain.durations import milliseconds
from esexec.domain.errors import EsexecError, ValidationError
from esexec.results import ExecutionSummary, TaskRecord

if TYPE_CHECKING:
    from rich.console import RenderableType


WatchOption = Annotated[bool, typer.Option("--watch", help="Look again every second, until Ctrl-C.")]
_AGAIN_S = 1.0
_PLAN_ID = re.compile(r"[0-9a-f]{64}\Z")


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
    asked: dict[str, Any] = {"status": status, "name": name, "plan_id": read_plan_id(plan), "limit": limit, "cursor": cursor}
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

        await watched(call, page, tasks_table if tasks else executions_table, watch)


async def watched(call: Call, ask: Any, picture: Any, watch: bool) -> None:
    """Print an answer once, or again and again in place. `picture`: of an answer, on so many columns."""
    from esexec.cli.terminal import is_live, show, terminal

    console = terminal()
    if not watch:
        answer = await ask()
        if call.json:
            call.document(answer)
        else:
            show(console, picture(answer, console.width))
        return
    if call.json or not is_live(console):
        while True:
            answer = await ask()
            if call.json:
                call.line(answer)
            else:
                show(console, picture(answer, console.width))
            await asyncio.sleep(_AGAIN_S)
    from rich.live import Live

    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            live.update(picture(await ask(), console.width), refresh=True)
            await asyncio.sleep(_AGAIN_S)


def executions_table(page: Any, width: int) -> "RenderableType":
    """A page of executions."""
    return _listed("no executions", [_execution(one, width) for one in page.items], page)


def tasks_table(page: Any, width: int) -> "RenderableType":
    """A page of steps."""
    return _listed("no tasks", [_task(one, width) for one in page.items], page)


def _execution(one: ExecutionSummary, width: int) -> Sequence[Any]:
    steps = f"{one.completed_steps}/{one.total_steps}"
    phase = one.current_phase if not one.status.is_final and one.current_phase != "executing" else ""
    return _row(width, one.status, one.execution_id, one.name, one.created_at, one.duration_ms, steps, phase or _why(one))


def _task(one: TaskRecord, width: int) -> Sequence[Any]:
    tries = f"{one.retries} retried" if one.retries else ""
    return _row(width, one.status, one.id, one.name, one.created_at, one.duration_ms, tries, _why(one))


def _row(
    width: int, status: Any, identity: str, name: str, created_at: datetime, took_ms: int | None, steps: str, why: str
) -> Sequence[Any]:
    """On a narrow terminal without what the sign says already, and what is wrong as far as there is room."""
    from esexec.cli.progress import LOOKS
    from esexec.cli.terminal import WIDE_COLUMNS, cut, text
    from projections.timeline import duration

    sign, style = LOOKS[status]
    wide, when = width >= WIDE_COLUMNS, created_at.astimezone()
    took = duration(took_ms) if took_ms is not None else ""
    return (
        text(sign, style),
        text(identity),
        text(name),
        *([text(status, style)] if wide else []),
        text(when.strftime("%Y-%m-%d %H:%M:%S" if wide else "%m-%d %H:%M"), "bright_black"),
        text(took, "bright_black"),
        text(steps, "bright_black"),
        text(why, style) if wide else cut(why, style),
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


def read_plan_id(said: str | None) -> str | None:
    """The value of an option that takes a plan's id; one that was cut would find nothing. Raises ValidationError."""
    if said is not None and not _PLAN_ID.match(said):
        hint = "all 64 characters, as `esexec show ID --json` and `esexec plans ls` tell it; or --name"
        raise ValidationError(f"--plan {said[:80]!r} is not the id of a plan", code="bad_plan_id", hint=hint)
    return said


def _refuse(value: Any, option: str, why: str) -> None:
    if value:
        raise ValidationError(f"{option} {why}", code="usage", hint="esexec ls --help")


def read_since(said: str | None, option: str) -> datetime | None:
    """The value of an option that takes a time, or how long ago that was."""
    if said is None:
        return None
    if said[:1].isdigit() and "-" not in said:
        with suppress(EsexecError):
            ago_ms = milliseconds(read_duration(said.removesuffix("ago").strip()), name=option)
            return datetime.now(UTC) - timedelta(milliseconds=ago_ms)
    try:
        return read_time(said, option)
    except ValidationError as error:
        error.hint = f"{error.hint}, or an age such as 30m, 2h or 7d"
        raise
