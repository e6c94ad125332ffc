"""`esexec tasks ls | show`: the tasks that workers have announced, who has them now, and what they take."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from esexec.cli.call import Call
from esexec.cli.text import counted
from esexec.cli.verb import verb
from esexec.domain.errors import NotFound
from esexec.domain.explain import did_you_mean

if TYPE_CHECKING:
    from rich.console import RenderableType

    from esexec.client.workers import AnnouncedTask, AnnouncedVersion

tasks = typer.Typer(name="tasks", help="See which tasks workers have announced, and who has them now.", no_args_is_help=True)

_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_NAMES = 3
"""So many workers are named; of more, how many there are."""


def register(app: typer.Typer) -> None:
    for body in (ls, show):
        verb(tasks)(body)
    app.add_typer(tasks)


async def ls(call: Call) -> None:
    """List the tasks that workers have announced, and how many workers have each now."""
    async with call.client() as (client, _):
        found = await client.workers.tasks()
    if call.json:
        call.document(found)
        return
    if not found:
        call.say("no tasks: no worker has announced any")
        return
    from esexec.cli.terminal import columns, show, terminal, text

    rows = []
    for one in _once(found):
        count = len(one.workers)
        there = text(counted(count, "worker") if count else "no worker", "" if count else "yellow")
        versions = sum(bool(version.workers) for version in one.versions)
        more = f"{versions} versions" if versions > 1 else ""
        rows.append(
            (text(one.name), there, text(", ".join(one.queues)), text(more, "yellow"), text(one.description, "bright_black"))
        )
    show(terminal(), columns(*rows))


def _once(found: "list[AnnouncedTask]") -> "list[AnnouncedTask]":
    """Without those that only say where the function of another is: a step may name a task by that as well."""
    known = [(one.info, one.versions, one.workers) for one in found if not _PLACE.fullmatch(one.name)]
    return [one for one in found if not _PLACE.fullmatch(one.name) or (one.info, one.versions, one.workers) not in known]


async def show(call: Call, name: Annotated[str, typer.Argument(metavar="NAME", help="The task.", show_default=False)]) -> None:
    """Show a task: who has it, its settings, what undoes it, and the schema of its params, of each version of it."""
    async with call.client() as (client, _):
        found = {one.name: one for one in await client.workers.tasks()}
    if name not in found:
        raise NotFound(f"no worker has announced a task {name[:128]}", code="unknown_task", hint=did_you_mean(name, found))
    if call.json:
        call.document(found[name])
        return
    from esexec.cli.terminal import show, terminal

    show(terminal(), *_told(found[name]))


def _told(task: "AnnouncedTask") -> "list[RenderableType]":
    from esexec.cli.terminal import columns, text

    said: dict[str, Any] = msgspec.to_builtins(task.info)
    rows = [("task", task.name), ("workers", _names(task.workers)), ("queues of theirs", ", ".join(task.queues) or "none")]
    if task.description:
        rows.insert(1, ("does", task.description))
    undo = said.pop("compensate", None) or said.pop("inverse", None)
    rows += [("undone by", undo or "nothing that is announced")]
    rows += [
        (setting, value if isinstance(value, str) else msgspec.json.encode(value).decode()) for setting, value in said.items()
    ]
    parts: list[RenderableType] = [columns(*((text(label, "bright_black"), text(str(value))) for label, value in rows))]
    live = [one for one in task.versions if one.workers] or [*task.versions]
    for number, one in enumerate(live):
        whose = f" of version {one.id or 'without a schema'} ({_names(one.workers)})" if len(live) > 1 else ""
        parts += ["", text(f"params{whose}", "bold")]
        if number == 0 and len(live) > 1:
            parts.append(text("what any of them takes is accepted", "bright_black"))
        parts += _schema(one)
    if not live:
        parts += ["", text("params", "bold"), text("anything: no schema was announced")]
    return parts


def _schema(version: "AnnouncedVersion") -> "list[RenderableType]":
    from esexec.cli.terminal import text

    if version.schema is None:
        return [text("anything: no schema was announced")]
    schema = {name: value for name, value in version.schema.items() if name != "description"}
    return [text(line) for line in msgspec.json.format(msgspec.json.encode(schema), indent=2).decode().splitlines()]


def _names(workers: tuple[str, ...]) -> str:
    if not workers:
        return "none now"
    return ", ".join(workers[:_NAMES]) + (f" and {len(workers) - _NAMES} more" if len(workers) > _NAMES else "")
