"""`esexec list`: what can be run. Plans and tasks in files and modules, and those that the namespace keeps or workers announced.

What was run, the executions, is `esexec ls`.
"""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from esexec.cli.call import Call
from esexec.cli.given import importing
from esexec.cli.text import counted
from esexec.cli.verb import verb
from esexec.client.strategies import namespace_of
from esexec.client.workers import is_known
from esexec.domain.errors import EsexecError, PlanInvalid, ValidationError
from esexec.plans import Plan
from esexec.tasks import Task

_PLAN_FILES = (".yaml", ".yml", ".json")


class Runnable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A plan or a task. `run`: what `esexec` is told to run it; `source`: where it is. `problem`: why it cannot be run.

    `workers`: of a task of the namespace, how many that live have it.
    """

    kind: str
    name: str
    source: str
    run: str = ""
    about: str = ""
    plan_id: str | None = None
    workers: int | None = None
    problem: str | None = None


def register(app: typer.Typer) -> None:
    verb(app, name="list")(list_)


async def list_(
    call: Call,
    places: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODULE|FILE|DIRECTORY]…", help="Else `tasks` of the settings.", show_default=False),
    ] = None,
    plans: Annotated[bool, typer.Option("--plans", help="Only plans.")] = False,
    tasks: Annotated[bool, typer.Option("--tasks", help="Only tasks.")] = False,
) -> None:
    """List what can be run: plans and tasks, here and in the namespace. (What was run: esexec ls.)"""
    found = [one for place in places or call.tasks for one in _at(place)]
    try:
        found += await _kept(call)
    except EsexecError as error:
        if not found:
            raise
        if error.code != "no_store":
            call.note(f"note: the namespace is not told: {error.message}")
    kinds = {kind for kind, wanted in (("plan", plans), ("task", tasks)) if wanted or plans == tasks}
    found = [one for one in found if one.kind in kinds]
    if call.json:
        call.document(found)
        return
    _show(call, found)


# Here --------------------------------------------------------------------------------------------------------------------


def _at(place: str) -> Iterator[Runnable]:
    path = Path(place)
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in _PLAN_FILES and (one := _of_file(file)).problem is None:
                yield one  # in a directory there may be files of any kind
    elif path.suffix.lower() in _PLAN_FILES:
        yield _of_file(path)
    else:
        yield from _of_module(place)


def _of_file(file: Path) -> Runnable:
    try:
        plan = Plan.from_file(file)
    except PlanInvalid as error:
        return Runnable(kind="plan", name=file.stem, source=str(file), problem=error.message, about=f"esexec plan check {file}")
    about = plan.spec.description.partition("\n")[0] or _size(plan)
    return Runnable(kind="plan", name=plan.name, source=str(file), run=f"start {file}", about=about, plan_id=plan.id)


def _of_module(place: str) -> Iterator[Runnable]:
    from esexec.tasks.places import at_place

    with importing(place, "tasks_broken"):
        module = at_place(place)
    things: Iterable[Any] = [module] if isinstance(module, Plan | Task) else vars(module).values()
    found, seen = False, set[int]()
    for one in things:
        if id(one) in seen or not isinstance(one, Plan | Task):
            continue
        seen.add(id(one))
        found = True
        if isinstance(one, Plan):
            yield Runnable(kind="plan", name=one.name, source=place, about=one.spec.description or _size(one), plan_id=one.id)
        else:
            yield Runnable(kind="task", name=one.name, source=place, run=f"start --task {one.name}", about=_signature(one))
    if not found:
        hint = "decorate functions with @esexec.task, or name a plan file"
        raise ValidationError(f"{place} has no plans and no tasks", code="nothing_to_run", hint=hint)


def _size(plan: Plan) -> str:
    return counted(len(plan.spec.steps), "step")


def _signature(task: Task[..., Any]) -> str:
    """What it takes, and the first line of what its function says of itself."""
    try:
        names = [name for name, one in inspect.signature(task.fn).parameters.items() if "Context" not in str(one.annotation)]
    except (ValueError, TypeError):
        names = []
    doc = (inspect.getdoc(task.fn) or "").partition("\n")[0]
    return f"({', '.join(names)}) {doc}".rstrip()


# In the namespace --------------------------------------------------------------------------------------------------------


async def _kept(call: Call) -> list[Runnable]:
    where = f"namespace {call.namespace}"
    async with call.client() as (client, _):
        kept = await client.plans.list()
        announced = (await namespace_of(client)).tasks
        workers = await client.workers.present()
    found = [
        Runnable(
            kind="plan",
            name=one.name,
            source=where,
            run=f"start --plan-id {one.plan_id}" if one.status == "ready" else "",
            about=one.status,
            plan_id=one.plan_id,
        )
        for one in kept
    ]
    for name in sorted(name for name in announced if ":" not in name):  # not the places of functions
        count = sum(is_known(name, [one]) for one in workers)
        about = counted(count, "worker") if count else "no worker has it now"
        run = f"start --task {name}"
        found.append(Runnable(kind="task", name=name, source=where, run=run, about=about, workers=count))
    return found


# Telling -----------------------------------------------------------------------------------------------------------------


def _show(call: Call, found: Sequence[Runnable]) -> None:
    from esexec.cli.terminal import columns, show, terminal, text

    if not found:
        call.say("nothing can be run: name modules or files, or keep plans (esexec plans put)")
        return
    for kind in ("plan", "task"):
        rows = [
            (
                text(f"  {one.name}", "red" if one.problem else ""),
                text(one.source, "bright_black"),
                text(one.problem or one.about, "red" if one.problem else "bright_black"),
            )
            for one in found
            if one.kind == kind
        ]
        if rows:
            show(terminal(), text(f"{kind}s", "bold"), columns(*rows))
