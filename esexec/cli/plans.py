"""`esexec plans put | get | ls | archive`: the plans that the namespace keeps, to be started by their ids."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from esexec import plan_files
from esexec.cli.call import Call
from esexec.cli.completing import plan_ids
from esexec.cli.notes import note_warnings
from esexec.cli.verb import verb
from esexec.client.plans import KeptPlan
from esexec.domain.commands import PlanStatus
from esexec.domain.errors import PlanInvalid
from esexec.plans import Plan

plans = typer.Typer(
    name="plans", help="Keep plans, and start them by their ids. (To check and draw them: esexec plan.)", no_args_is_help=True
)

FileArgument = Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="The plan, YAML or JSON.", show_default=False)]
PlanIdArgument = Annotated[str, typer.Argument(metavar="ID", autocompletion=plan_ids, help="The plan's id.", show_default=False)]


def register(app: typer.Typer) -> None:
    for body in (put, get, ls, archive):
        verb(plans)(body)
    app.add_typer(plans)


async def put(
    call: Call,
    plan: FileArgument,
    draft: Annotated[
        bool, typer.Option("--draft", help="It cannot be started before it is put once more, without this.")
    ] = False,
) -> None:
    """Keep a plan, and print its id (esexec start --plan-id ID). One that cannot be carried out is kept as invalid (2)."""
    what, problem = _read(plan)
    async with call.client(new_store=True, decides=True) as (client, _):
        kept = await client.plans.put(what, "draft" if draft else "ready")
        if isinstance(what, Plan):
            await note_warnings(call, client, what)
    if call.json:
        call.document(kept)
    call.say(kept.plan_id)
    if problem is not None:
        raise problem


def _read(file: Path) -> tuple[Plan | Mapping[str, Any], PlanInvalid | None]:
    """The plan; or what the file says instead, and what is wrong with it."""
    try:
        return Plan.from_file(file), None
    except PlanInvalid as error:
        _, document = plan_files.load(file)
        if not isinstance(document, Mapping):
            raise
        return document, error


async def get(call: Call, plan_id: PlanIdArgument) -> None:
    """Show a plan that is kept: its status, its steps, what is wrong with it. With --json the whole document."""
    async with call.client() as (client, _):
        kept = await client.plans.get(plan_id)
    if call.json:
        call.document(kept)
        return
    from esexec.cli import render
    from esexec.cli.terminal import columns, show, terminal, text

    facts = {
        "plan": kept.name,
        "id": kept.plan_id,
        "status": kept.status,
        "created": f"{kept.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "query": kept.query,
    }
    show(terminal(), columns(*((text(name, "bright_black"), text(fact)) for name, fact in facts.items() if fact)), "")
    if kept.problem is not None:
        show(terminal(), render.failure(kept.problem))
    else:
        show(terminal(), columns(*((text(step), text(task), text(after, "bright_black")) for step, task, after in _steps(kept))))


def _steps(kept: KeptPlan) -> list[tuple[str, str, str]]:
    plan = kept.plan
    if plan is None:
        return []
    graph = plan.graph
    names = [[graph.steps[position].id for position in waits_for] for waits_for in graph.dependencies]
    return [
        (step.id, step.task, f"after {', '.join(before)}" if before else "")
        for step, before in zip(graph.steps, names, strict=True)
    ]


async def ls(
    call: Call,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help=f"Only these: {', '.join(get_args(PlanStatus))}.")
    ] = None,
) -> None:
    """List the plans that are kept, oldest first."""
    async with call.client() as (client, _):
        found = await client.plans.list(status)  # type: ignore[arg-type]
    if call.json:
        call.document(found)
        return
    if not found:
        call.say("no plans" if status is None else f"no plans are {status}")
        return
    from esexec.cli.terminal import columns, show, terminal, text

    rows = [
        (text(plan.plan_id), text(plan.status), text(f"{plan.created_at:%Y-%m-%d %H:%M}", "bright_black"), text(plan.name))
        for plan in found
    ]
    show(terminal(), columns(*rows))


async def archive(call: Call, plan_id: PlanIdArgument) -> None:
    """Keep a plan from being started by its id. It stays where it is; putting it again makes it ready again."""
    async with call.client(decides=True) as (client, _):
        effective = await client.plans.archive(plan_id)
    if call.json:
        call.document({"plan_id": plan_id, "archived": effective})
    call.say("archived" if effective else "it was archived before")
