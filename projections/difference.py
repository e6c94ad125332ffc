"""What is different between two states of an execution: at two versions of one, or of two executions. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from esexec.results import ExecutionResult

_NOT_COMPARED = frozenset({"results", "position"})


class Change(msgspec.Struct, frozen=True):
    """One thing that is different. `what`: its path, as `status`, `variables.n`, `steps.a.output.total`. None: no value."""

    what: str
    before: Any
    after: Any


def difference(before: ExecutionResult, after: ExecutionResult) -> list[Change]:
    """What is different in `after`: first of the execution, then of its steps, in their order. Objects are compared key by key,
    lists as a whole."""
    changes = list(_differences("", _fields(before, _NOT_COMPARED), _fields(after, _NOT_COMPARED)))
    steps = [{task.task_id: _fields(task, frozenset({"task_id"})) for task in one.results} for one in (before, after)]
    for step in dict.fromkeys([*steps[0], *steps[1]]):
        changes += _differences(f"steps.{step}", steps[0].get(step), steps[1].get(step))
    return changes


def _fields(struct: msgspec.Struct, without: frozenset[str]) -> dict[str, Any]:
    return {field: msgspec.to_builtins(getattr(struct, field)) for field in struct.__struct_fields__ if field not in without}


def _differences(path: str, before: Any, after: Any) -> Iterator[Change]:
    """The leaves that are different. What appears or vanishes as a whole is one change, unless it is the whole execution."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _differences(f"{path}.{key}" if path else str(key), before.get(key), after.get(key))
    elif not _same(before, after):
        yield Change(path, before, after)


def _same(before: Any, after: Any) -> bool:
    """Equal, and of one kind: to JSON, 1 and true are different."""
    return before == after and isinstance(before, bool) == isinstance(after, bool)
