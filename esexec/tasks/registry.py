"""Tasks by name, and recovery strategies by id: gathered from what a program has, or from a module that somebody names."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, ModuleType
from typing import Any

from esexec.domain.errors import ValidationError
from esexec.tasks.handlers import Handlers, made_of, tasks_of
from esexec.tasks.places import at_place
from esexec.tasks.recovery import RecoveryStrategy, as_strategy
from esexec.tasks.resources import WorkerResource
from esexec.tasks.task import Task

Tasks = (
    str | ModuleType | Task[..., Any] | Callable[..., Any] | Iterable["Task[..., Any] | Callable[..., Any] | RecoveryStrategy"]
)
"""What `collect` takes: tasks or functions, a module, or the place of one; or several of these.

A place is `pkg.mod` or `path/file.py`, with `:attribute` behind it where only that is meant.
"""


def collect(source: Tasks) -> dict[str, Task[..., Any]]:
    """The tasks of `source` by name, ready to be bound; plain functions become tasks, but those of a module do not.

    The compensation of a task comes along with it; strategies and resources are left to functions of their own.
    Raises ValidationError: `tasks_not_found`, `duplicate_task` (two different tasks of one name), `invalid_task`.
    What a module raises while it is imported is not touched.
    """
    found: dict[str, Task[..., Any]] = {}
    for one in _with_compensations(_tasks(source)):
        known = found.setdefault(one.name, one)
        if known is not one and known.fn is not one.fn:
            raise ValidationError(
                f"two tasks are called `{one.name}`: {_place(known)} and {_place(one)}",
                code="duplicate_task",
                hint="give one of them another name: @task(name=…)",
            )
        one.prepare()
    return found


def records_before(task: Task[..., Any]) -> bool:
    """Whether a task's function speaks of `before`, as one does that calls `ctx.before`; or cannot be looked into."""
    codes = [getattr(inspect.unwrap(task.fn), "__code__", None)]
    while codes:
        code = codes.pop()
        if code is None or not {"before", "before_sync"}.isdisjoint(code.co_names):
            return True
        codes += [one for one in code.co_consts if isinstance(one, CodeType)]
    return False


def collect_strategies(source: Any, given: Iterable[Any] = ()) -> dict[str, RecoveryStrategy]:
    """The recovery strategies of `source` by id: those in it, and of a module its own, be they instances or classes.

    A class of a module counts where it needs no arguments and no instance has its id. Whatever is in `given` must be one.
    Raises ValidationError: `tasks_not_found`, `duplicate_strategy` (two of one id), `invalid_strategy`.
    """
    found: dict[str, tuple[Any, RecoveryStrategy]] = {}
    for one in [*_given(given), *_strategies(source)]:
        strategy = as_strategy(one)
        known, _ = found.setdefault(strategy.id, (one, strategy))
        if known is not one and not (isinstance(one, type) and isinstance(known, one)):
            raise ValidationError(
                f"two recovery strategies have the id `{strategy.id}`: {known!r} and {one!r}",
                code="duplicate_strategy",
                hint="give one of them another id",
            )
    return {name: strategy for name, (_, strategy) in found.items()}


def _with_compensations(tasks: list[Task[..., Any]]) -> Iterator[Task[..., Any]]:
    """Each task once, and behind it what undoes it."""
    seen: set[int] = set()
    for one in tasks:
        each: Any = one
        while isinstance(each, Task) and id(each) not in seen:
            seen.add(id(each))
            yield each
            each = each.compensation


def _tasks(source: Any) -> list[Task[..., Any]]:
    if isinstance(source, Task):
        return [source]
    if isinstance(source, Handlers):
        return tasks_of(source)
    if isinstance(source, type) and issubclass(source, Handlers):
        return tasks_of(made_of(source))
    if isinstance(source, WorkerResource) or _is_strategy(source):
        return []
    if isinstance(source, str):
        return _tasks(at_place(source))
    if isinstance(source, ModuleType):
        return _tasks_in(source)
    if isinstance(source, Mapping):
        return _tasks(source.values())
    if isinstance(source, Iterable):
        return [one for part in source for one in _tasks(part)]
    return [Task(source)]


def _tasks_in(module: ModuleType) -> list[Task[..., Any]]:
    found = [value for value in vars(module).values() if isinstance(value, Task)]
    for handlers in _handlers_in(module):
        found += tasks_of(handlers)
    if not found and not _strategies_in(module):
        raise ValidationError(
            f"module {module.__name__} has no tasks", code="tasks_not_found", hint="decorate functions with @esexec.task"
        )
    return found


def _handlers_in(module: ModuleType) -> list[Handlers]:
    """Its objects of `Handlers`; a class only if it was defined there, needs nothing, and has no object there."""
    found = [value for value in vars(module).values() if isinstance(value, Handlers)]
    for kind in vars(module).values():
        own = isinstance(kind, type) and issubclass(kind, Handlers) and kind.__module__ == module.__name__
        if own and _needs_nothing(kind) and not any(isinstance(one, kind) for one in found):
            found.append(kind())
    return found


def _strategies(source: Any) -> list[Any]:
    if isinstance(source, Task):
        return []
    if _is_strategy(source):
        return [source]
    if isinstance(source, str):
        return _strategies(at_place(source))
    if isinstance(source, ModuleType):
        return _strategies_in(source)
    if isinstance(source, Mapping):
        return _strategies(source.values())
    if isinstance(source, Iterable):
        return [one for part in source for one in _strategies(part)]
    return []


def _given(strategies: Iterable[Any]) -> list[Any]:
    return [part for one in strategies for part in (_strategies(one) if isinstance(one, str | ModuleType) else [one])]


def _strategies_in(module: ModuleType) -> list[Any]:
    """Its strategies; a class only if it was defined there, for it may be a base that was imported."""
    found: list[Any] = [value for value in vars(module).values() if _is_strategy(value)]
    instances = [one for one in found if not isinstance(one, type)]
    named = {one.id for one in instances}
    own = [one for one in found if isinstance(one, type) and one.__module__ == module.__name__ and _needs_nothing(one)]
    return instances + [kind for kind in own if kind.id and kind.id not in named]  # type: ignore[attr-defined]


def _is_strategy(value: Any) -> bool:
    """An instance or a subclass of `RecoveryStrategy`, or an object that has what a strategy needs."""
    if isinstance(value, RecoveryStrategy):
        return True
    if isinstance(value, type):
        return issubclass(value, RecoveryStrategy) and value is not RecoveryStrategy
    if isinstance(value, str | ModuleType | Mapping | list | tuple) or inspect.isroutine(value):
        return False
    try:
        return isinstance(value.id, str) and callable(value.execute) and hasattr(value, "applicable_errors")
    except Exception:  # an object of the user's that does not like to be asked
        return False


def _needs_nothing(kind: type) -> bool:
    needed = [one for one in inspect.signature(kind).parameters.values() if one.default is one.empty]
    return all(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in needed)


def _place(one: Task[..., Any]) -> str:
    return f"{getattr(one.fn, '__module__', '?')}.{getattr(one.fn, '__qualname__', repr(one.fn))}"
