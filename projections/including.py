"""Projections that users bring along: found in their modules, and looked at before they are run."""

import inspect
import re
from types import ModuleType
from typing import Any

from esexec.domain.errors import ValidationError
from esexec.tasks.places import at_place
from projections.asks import Ask
from projections.projection import Projection
from projections.tables import NAMES, is_name

_QUESTION = re.compile(r"[a-z][a-z0-9_]{0,39}(\.[a-z][a-z0-9_]{0,39}){0,3}\Z")


def projections_in(place: str) -> list[type[Projection]]:
    """The projections that a module defines: `pkg.mod`, `path/file.py`, or with `:Name` behind it that one.

    Raises ValidationError (`no_module`, `no_projection`). What the module raises while it is imported is not touched.
    """
    there = at_place(place, code="no_module")
    if not isinstance(there, ModuleType):
        if not _is_projection(there):
            raise ValidationError(f"{place} is no projection", code="no_projection", hint="a subclass of projections.Projection")
        return [there]
    kinds = [one for one in vars(there).values() if _is_projection(one) and one.__module__ == there.__name__]
    if not kinds:
        hint = "a subclass of projections.Projection with a method process_event"
        raise ValidationError(f"{place} defines no projection", code="no_projection", hint=hint)
    return kinds


def _is_projection(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Projection) and not inspect.isabstract(thing)


def check_projection(kind: type[Projection]) -> None:
    """Raises ValidationError (`bad_projection`) for one that could not be kept, or asked."""
    wrong = None
    if not is_name(kind.name):
        wrong = f"its name is {kind.name!r}: {NAMES}"
    for name, (ask, _) in kind.questions.items():
        if not _QUESTION.match(name):
            wrong = f"{name!r} is no name for a question: words like those of a table, with dots between"
        elif not (inspect.isclass(ask) and issubclass(ask, Ask)):
            wrong = f"{name} is asked by {ask!r}, which is no subclass of projections.Ask"
    if wrong is not None:
        raise ValidationError(f"{kind.__qualname__}: {wrong}", code="bad_projection")
