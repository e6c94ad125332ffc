"""Everything that is wrong with a plan file, not only the first of it, each with its place in the file.

The reader stops at the first problem, and rightly so. Here what it complained of is taken out of the document, and it is read
again, until it is content or nothing can be taken out. What complains only of the gap that this left is not told.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from typing import Final, Literal, NamedTuple

import msgspec

from esexec import plan_files
from esexec.domain import limits
from esexec.domain.errors import ErrorInfo, PlanInvalid
from esexec.domain.explain import did_you_mean, shown
from esexec.domain.graph import Graph
from esexec.domain.lint import PlanWarning
from esexec.plan_files import Place, Source
from esexec.plans import Known, Plan

_MADE_UP: Final = "made-up-name"
"""Stands for a name that was wrong, so that reading can go on."""
_KNOWN_MADE_UP: Final = re.compile(rf"(, )?\b{_MADE_UP}(_\d+)?")
_STEPS_READ: Final = 50_000
_LEAST: Final = 5
_LAST: Final = 1_000_000_000
_OF_THE_KEY: Final = frozenset({"unknown_key", "said_twice"})
_ABOUT_A_STEP: Final = frozenset({"unknown_dependency", "unknown_reference"})

Judge = Callable[[Graph], Iterable[ErrorInfo]]
"""What tasks would refuse of the params in a plan, each with its `path`."""


class PlanProblem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something in a plan that is wrong, or a `warning`: allowed and probably not meant.

    `path`: where in the plan (`steps[2].timeout`). `line`, `column`: where in the file, from 1; `excerpt`: that line, of which
    `width` characters are meant.
    """

    severity: Literal["problem", "warning"]
    code: str
    message: str
    hint: str | None = None
    path: str = ""
    line: int | None = None
    column: int | None = None
    width: int = 1
    excerpt: str = ""


class Checked(NamedTuple):
    """A plan, if it can be carried out, and what was found; problems before warnings, each in the order of the file."""

    plan: Plan | None
    found: list[PlanProblem]


def check_file(path: str | PathLike[str], tasks: Known | None = None, judge: Judge | None = None) -> Checked:
    """All that is wrong with a plan file. `tasks`: those that workers will have; one that is not among them is a problem then."""
    try:
        source = plan_files.open_source(path)
    except PlanInvalid as error:
        return Checked(None, [_unreadable(error)])
    found: list[PlanProblem] = []
    lost: set[str] = set()
    for _ in range(_rounds(source)):
        try:
            plan = Plan.from_dict(source.document)
        except PlanInvalid as error:
            problem, mended = _taken_out(source, error, lost)
            if problem is not None:
                found.append(problem)
            if not mended:
                break
        else:
            if not found:  # else something is missing from them that was taken out
                found += _of_params(plan, source, judge)
            found += _of_tasks(plan, source, tasks)
            found.sort(key=lambda one: (one.line or 0, one.column or 0))
            return Checked(None if found else plan, found + _warnings(plan, source, tasks, unknown=bool(found)))
    else:
        message, hint = "there may be more problems than these", "mend them, and check again"
        found.append(PlanProblem(severity="problem", code="perhaps_more", message=message, hint=hint))
    return Checked(None, sorted(found, key=lambda one: (one.line or 0, one.column or 0) if one.line else (_LAST, 0)))


def _rounds(source: Source) -> int:
    """How often it is read again: less often where it is long, so that it is done in seconds."""
    steps = source.document.get("steps") if isinstance(source.document, dict) else None
    return max(_LEAST, min(limits.plan_problems, _STEPS_READ // max(1, len(steps) if isinstance(steps, list) else 1)))


def check_plan(plan: Plan, tasks: Known | None = None, judge: Judge | None = None) -> Checked:
    """The same of a plan that was made in Python, which has no file."""
    found = [*_of_tasks(plan, None, tasks), *_of_params(plan, None, judge)]
    return Checked(None if found else plan, found + _warnings(plan, None, tasks, unknown=bool(found)))


def _unreadable(error: PlanInvalid) -> PlanProblem:
    line, column = error.context.get("line"), error.context.get("column")
    message = error.message.removeprefix(f"{error.context.get('file')}").lstrip(":0123456789 ")
    return PlanProblem(severity="problem", code=error.code, message=message, hint=error.hint, line=line, column=column)


# Taking out what was complained of ---------------------------------------------------------------------------------------


def _taken_out(source: Source, error: PlanInvalid, lost: set[str]) -> tuple[PlanProblem | None, bool]:
    """The problem, None if it is only of a gap; and whether something was taken out, so that reading on is worth it."""
    path = str(error.context.get("path", ""))
    place = source.place(path)
    if error.code in ("unknown_reference", "self_reference"):
        place = _leaf(place, _reference(error)) or place
    elif error.code == "cycle":
        place = source.place(f"{path}.depends_on") or source.place(f"{path}.params")
    problem: PlanProblem | None = _told(source, place, error)
    if place is None:
        return problem, False
    if error.code in _ABOUT_A_STEP and any(place.value == name or f"steps.{name}" in str(place.value) for name in lost):
        problem = None
    if error.code == "bad_step_id":
        lost.add(str(place.value))
    return problem, _mended(source, place, path, error)


def _mended(source: Source, place: Place, path: str, error: PlanInvalid) -> bool:
    code, reference = error.code, _reference(error)
    if reference and place.value is not _params(source, path) and reference in str(place.value):
        place.container[place.key] = place.value.replace(reference, "")  # there may be others in the same text
        return True
    if code == "cycle":
        for field in ("depends_on", "params"):
            if (one := source.place(f"{path}.{field}")) is not None and one.is_exact:
                one.remove()
        return True
    name = path.rpartition(".")[2]
    if name in ("task", "tool", "action", "name") and code != "unknown_key":
        target = place.value if code == "missing" else place.container
        if not isinstance(target, dict):
            return False
        target[name if code == "missing" else place.key] = _MADE_UP
        return True
    if not place.is_exact:
        return False
    if isinstance(place.container, list) and path.startswith("steps[") and path.endswith("]") and path.count("[") == 1:
        place.container[place.key] = {"task": _MADE_UP}  # the others keep their numbers
        return True
    place.remove()
    return True


def _params(source: Source, path: str) -> object:
    """What stands under `params` itself: a reference alone cannot be cut out of it."""
    place = source.place(path)
    return None if place is None else place.value


def _reference(error: PlanInvalid) -> str:
    """The reference that it is about."""
    if error.code not in ("unknown_reference", "self_reference"):
        return ""
    return error.message.partition(": ")[2].partition(" refers to ")[0]


def _leaf(place: Place | None, reference: str) -> Place | None:
    """Below params, the text that holds a reference."""
    return None if place is None else next((one for one in place.leaves() if reference in str(one.value)), None)


# Telling -----------------------------------------------------------------------------------------------------------------


def _told(source: Source | None, place: Place | None, error: PlanInvalid) -> PlanProblem:
    path = str(error.context.get("path", ""))
    message = error.message.removeprefix(f"{path}: ") if path else error.message
    hint = _KNOWN_MADE_UP.sub("", error.hint) if error.hint is not None else None
    return _placed(source, place, "problem", error.code, message, hint, path)


def _placed(
    source: Source | None,
    place: Place | None,
    severity: Literal["problem", "warning"],
    code: str,
    message: str,
    hint: str | None,
    path: str,
) -> PlanProblem:
    mark = None if source is None or place is None else source.mark(place, of_key=code in _OF_THE_KEY)
    problem = PlanProblem(severity=severity, code=code, message=message, hint=hint, path=path)
    if source is None or mark is None:
        return problem
    line, column, width = mark
    return msgspec.structs.replace(problem, line=line, column=column, width=width, excerpt=source.line(line))


def _of_tasks(plan: Plan, source: Source | None, tasks: Known | None) -> Iterator[PlanProblem]:
    names = _names(tasks)
    if names is None:
        return
    for position, step in enumerate(plan.spec.steps):
        for field in ("task", "fallback", "compensate"):
            task = getattr(step, field)
            if task is None or task in names or ":" in task or task == _MADE_UP:
                continue
            path = f"steps[{position}].{field}"
            place = source.place(path) if source is not None else None
            message, hint = f"there is no task `{shown(task)}`", did_you_mean(task, names)
            yield _placed(source, place, "problem", "unknown_task", message, hint, path)


def _of_params(plan: Plan, source: Source | None, judge: Judge | None) -> Iterator[PlanProblem]:
    for error in judge(plan.graph) if judge is not None else ():
        path = str(error.context["path"])
        place = source.place(path) if source is not None else None
        yield _placed(source, place, "problem", error.code, error.message.removeprefix(f"{path}: "), error.hint, path)


def _names(tasks: Known | None) -> Iterable[str] | None:
    return list(tasks) if isinstance(tasks, Mapping) else None


def _warnings(plan: Plan, source: Source | None, tasks: Known | None, *, unknown: bool) -> list[PlanProblem]:
    # What undoes a step is known only where its task is.
    unseen = {"needs_before_image", "no_compensation"} if tasks is None or unknown else set[str]()
    return [_warned(one, source) for one in plan.lint(tasks) if one.code not in unseen]


def _warned(one: PlanWarning, source: Source | None) -> PlanProblem:
    place = source.place(one.path) if source is not None else None
    return _placed(source, place, "warning", one.code, one.message, one.hint, one.path)
