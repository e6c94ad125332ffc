"""`esexec plan check | show`: looks at plans before they run; nothing is sent. Those that are kept: `esexec plans`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from esexec.cli.call import Call
from esexec.cli.exits import Exit
from esexec.cli.given import TasksOption, importing, load_tasks
from esexec.cli.text import counted
from esexec.cli.verb import verb
from esexec.domain.errors import PlanInvalid, ValidationError
from esexec.domain.kept_plans import is_plan_id
from esexec.domain.namespace import version_of
from esexec.executor.params import Checks
from esexec.plan_problems import Checked, Judge, PlanProblem, check_file, check_plan
from esexec.plans import Plan

plan = typer.Typer(
    name="plan", help="Check and draw plans; nothing is run. (Plans that are kept: esexec plans.)", no_args_is_help=True
)

_FILES: Final = (".yaml", ".yml", ".json")


def register(app: typer.Typer) -> None:
    for body in (check, show):
        verb(plan)(body)
    app.add_typer(plan)


async def check(
    call: Call,
    plans: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|MODULE:PLAN", help="Plan files, or plans of Python: pkg.mod:plan, file.py.", show_default=False
        ),
    ],
    tasks: TasksOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as problems.")] = False,
) -> Exit:
    """Tell everything that is wrong with plans, and what is probably not meant. Exit code 2 if one cannot be carried out.

    With --tasks (or `tasks` in the settings) also tasks that do not exist, params that they do not take, and steps that nothing
    undoes.
    """
    places = tasks or call.tasks
    known = load_tasks(places) if places else None
    judge = Checks({name: (version_of(task.schema),) for name, task in known.items()}).refusals if known else None
    found = [(name, one) for place in plans for name, one in _checked(place, known, judge)]
    if call.json:
        call.document([_document(name, one) for name, one in found])
    else:
        for name, one in found:
            _say(call, name, one)
    bad = any(one.plan is None or (strict and one.found) for _, one in found)
    return Exit.USAGE if bad else Exit.OK


async def show(
    call: Call,
    plan: Annotated[
        str,
        typer.Argument(
            metavar="FILE|MODULE:PLAN|ID", help="A plan file, a plan of Python, or one that is kept.", show_default=False
        ),
    ],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print it as a Mermaid flowchart, for Markdown.")] = False,
) -> None:
    """Draw a plan: its levels, who waits for whom, what undoes what, settings. With --json the document itself."""
    what = await _kept(call, plan) if is_plan_id(plan) else _one(plan)
    if call.json:
        call.document(what.to_dict())
        return
    from esexec.cli import drawing

    if mermaid:
        for line in drawing.mermaid(what.graph).splitlines():
            call.say(line)
        return
    from esexec.cli.terminal import show as put
    from esexec.cli.terminal import terminal

    put(terminal(), *drawing.picture(what.graph))


async def _kept(call: Call, plan_id: str) -> Plan:
    async with call.client() as (client, _):
        kept = await client.plans.get(plan_id)
    if kept.plan is None:
        raise PlanInvalid(f"{plan_id} is kept as {kept.status}", code="plan_not_ready", hint=f"{call.esexec} plans get {plan_id}")
    return kept.plan


def _one(place: str) -> Plan:
    if _is_file(place):
        return Plan.from_file(place)
    plans = dict(_plans_at(place))
    if len(plans) > 1:
        raise ValidationError(f"{place} has several plans", code="many_plans", hint=f"one of {', '.join(plans)}")
    return next(iter(plans.values()))


def _is_file(place: str) -> bool:
    return place.lower().endswith(_FILES) or (Path(place).is_file() and not place.endswith(".py"))


def _checked(place: str, known: Any, judge: Judge | None) -> Iterator[tuple[str, Checked]]:
    if _is_file(place):
        yield place, check_file(place, known, judge)
        return
    try:
        yield from ((name, check_plan(one, known, judge)) for name, one in _plans_at(place))
    except PlanInvalid as error:  # it was made while its module was imported
        yield place, Checked(None, [PlanProblem(severity="problem", code=error.code, message=error.message, hint=error.hint)])


def _plans_at(place: str) -> list[tuple[str, Plan]]:
    """The plans of a module or file of Python, by `place:name`; or the one that is named."""
    from esexec.tasks.places import at_place

    with importing(place, "plan_broken"):
        found = at_place(place, "plan_not_found")
    if isinstance(found, Plan):
        return [(place, found)]
    if ":" in place:
        raise ValidationError(f"{place} is no plan, but a {type(found).__name__}", code="plan_not_found")
    plans = [(f"{place}:{name}", one) for name, one in vars(found).items() if isinstance(one, Plan)]
    if not plans:
        hint = "a plan file ends in .yaml, .yml or .json; a plan of Python is a name of its module"
        raise ValidationError(f"{place} has no plans", code="plan_not_found", hint=hint)
    return plans


# Telling -----------------------------------------------------------------------------------------------------------------


def _document(name: str, checked: Checked) -> dict[str, Any]:
    plan = checked.plan
    said = {"plan": name, "ok": plan is not None, "found": checked.found}
    return said if plan is None else said | {"name": plan.name, "plan_id": plan.id, "steps": len(plan.spec.steps)}


def _say(call: Call, name: str, checked: Checked) -> None:
    from esexec.cli.terminal import show as put
    from esexec.cli.terminal import terminal, text

    console = terminal()
    for one in checked.found:
        style = "bold red" if one.severity == "problem" else "yellow"
        where = ":".join(str(part) for part in (name, one.line, one.column) if part is not None)
        path = f"{one.path}: " if one.path else ""
        head = (
            text(f"{where}: ").append_text(text(f"{one.severity} [{one.code}]", style)).append_text(text(f" {path}{one.message}"))
        )
        put(console, head, *_excerpt(one))
        if one.hint:
            put(console, text(f"  hint: {one.hint}", "bright_black"))
    problems = sum(one.severity == "problem" for one in checked.found)
    warnings = len(checked.found) - problems
    if checked.plan is None:
        call.say(f"{name}: {counted(problems, 'problem')}, {counted(warnings, 'warning')}")
    else:
        count = len(checked.plan.spec.steps)
        told = f", {counted(warnings, 'warning')}" if warnings else ""
        call.say(f"{name}: ok, {counted(count, 'step')}{told}")


def _excerpt(one: PlanProblem) -> Iterator[Any]:
    """The line, and below it carets under what is meant; not where a line has more than anybody can see."""
    from esexec.cli.terminal import text

    if one.line is None or one.column is None or not one.excerpt or len(one.excerpt) > 200:
        return
    yield text(f"{one.line:>5} | {one.excerpt.replace(chr(9), ' ')}", "bright_black")
    yield text(f"      | {' ' * (one.column - 1)}{'^' * one.width}", "red" if one.severity == "problem" else "yellow")
