"""What is probably not meant in a plan, as notes beside the result. With `--json` there are none."""

from collections.abc import Awaitable, Iterable
from pathlib import Path

from esexec.cli.call import Call
from esexec.client import Client, Handle
from esexec.client.strategies import namespace_of
from esexec.domain.errors import ValidationError
from esexec.domain.lint import PlanWarning
from esexec.plan_files import in_file
from esexec.plans import Plan

_NAMED = 3
"""So many warnings of a kind are told one by one."""


def say_warnings(call: Call, warnings: Iterable[PlanWarning]) -> None:
    """A line for each, and for each kind a hint."""
    if call.json:
        return
    by_code: dict[str, list[PlanWarning]] = {}
    for one in warnings:
        by_code.setdefault(one.code, []).append(one)
    for code, alike in by_code.items():
        for one in alike[:_NAMED]:
            call.note(f"note [{code}]: {one.message}")
        if len(alike) > _NAMED:
            call.note(f"note [{code}]: and {len(alike) - _NAMED} more")
        call.note(f"hint: {alike[0].hint}")


async def note_warnings(call: Call, client: Client, plan: Plan) -> None:
    """The same where the tasks are elsewhere: what undoes a step is told only if workers announced all of them."""
    if call.json:
        return
    known = (await namespace_of(client)).tasks
    complete = all(step.task in known for step in plan.spec.steps)
    # Whether a task records what was before nobody can see from here.
    unseen = {"needs_before_image"} if complete else {"needs_before_image", "no_compensation"}
    say_warnings(call, [one for one in plan.lint(known if complete else None) if one.code not in unseen])


async def started(starting: Awaitable[Handle], file: Path | None) -> Handle:
    """The handle; a refusal of what stands in a plan file says in which line."""
    try:
        return await starting
    except ValidationError as error:
        path = str(error.context.get("path", ""))
        if file is None or error.code != "invalid_params" or not path.startswith("steps["):
            raise
        raise in_file(error, file) from None
