"""Tasks by name: gathered from what a program has, or from a module that the command line names."""

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from esexec.domain.errors import ValidationError
from esexec.tasks.task import Task

Tasks = str | ModuleType | Task[..., Any] | Callable[..., Any] | Iterable["Task[..., Any] | Callable[..., Any]"]
"""What `collect` takes: tasks or functions, a module, or the place of one.

A place is `pkg.mod` or `path/file.py`, with `:attribute` behind it where only that is meant.
"""


def collect(source: Tasks) -> dict[str, Task[..., Any]]:
    """The tasks of `source` by name, ready to be bound; plain functions become tasks, but those of a module do not.

    Raises ValidationError: `tasks_not_found`, `duplicate_task` (two different tasks of one name), `invalid_task`.
    What a module raises while it is imported is not touched.
    """
    found: dict[str, Task[..., Any]] = {}
    for one in _tasks(source):
        known = found.setdefault(one.name, one)
        if known is not one and known.fn is not one.fn:
            raise ValidationError(
                f"two tasks are called `{one.name}`: {_place(known)} and {_place(one)}",
                code="duplicate_task",
                hint="give one of them another name: @task(name=…)",
            )
        one.prepare()
    return found


def _tasks(source: Any) -> list[Task[..., Any]]:
    if isinstance(source, Task):
        return [source]
    if isinstance(source, str):
        return _tasks_at(source)
    if isinstance(source, ModuleType):
        return _tasks_in(source)
    if isinstance(source, Mapping):
        return _tasks(source.values())
    if isinstance(source, Iterable):
        return [one for part in source for one in _tasks(part)]
    return [Task(source)]


def _tasks_in(module: ModuleType) -> list[Task[..., Any]]:
    found = [value for value in vars(module).values() if isinstance(value, Task)]
    if not found:
        raise ValidationError(
            f"module {module.__name__} has no tasks", code="tasks_not_found", hint="decorate functions with @esexec.task"
        )
    return found


def _tasks_at(place: str) -> list[Task[..., Any]]:
    where, _, attribute = place.partition(":")
    module = _module_of_file(where) if where.endswith(".py") else _module_of_name(where)
    if not attribute:
        return _tasks_in(module)
    if not hasattr(module, attribute):
        raise ValidationError(f"module {module.__name__} has no `{attribute}`", code="tasks_not_found")
    return _tasks(getattr(module, attribute))


def _module_of_name(name: str) -> ModuleType:
    # A console script does not have the working directory on its path, `python -m` does: both shall find the same.
    _make_findable(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # The module is there; what it imports is not.
        raise ValidationError(
            f"there is no module `{name}`", code="tasks_not_found", hint="give pkg.module, pkg.module:attribute or path/file.py"
        ) from error


def _module_of_file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise ValidationError(f"there is no file {place}", code="tasks_not_found")
    root, names = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        root, names = root.parent, [root.name, *names]
    _make_findable(str(root))
    if len(names) > 1:
        return importlib.import_module(".".join(names))
    return _loaded(path)


def _loaded(path: Path) -> ModuleType:
    """The module of a file outside packages, under its own name unless that belongs to another module."""
    name = path.stem
    if (known := sys.modules.get(name)) is not None and _file_of(known) == path:
        return known
    spec = None if known is not None else importlib.util.find_spec(name)
    if known is not None or spec is None or spec.origin is None or Path(spec.origin).resolve() != path:
        name = f"{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()


def _make_findable(directory: str) -> None:
    """Put a directory at the end of the path, where it hides nothing."""
    if directory not in sys.path:
        sys.path.append(directory)


def _place(one: Task[..., Any]) -> str:
    return f"{getattr(one.fn, '__module__', '?')}.{getattr(one.fn, '__qualname__', repr(one.fn))}"
