"""The place of tasks, or of projections, on the command line → the module, or what of it is meant.

Imports what has not been imported yet.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from esexec.domain.errors import ValidationError


def at_place(place: str, code: str = "tasks_not_found") -> Any:
    """What stands at `pkg.mod` or `path/file.py`: the module, or with `:attribute` behind it that attribute.

    Raises ValidationError (`code`). What a module raises while it is imported is not touched.
    """
    where, _, attribute = place.partition(":")
    module = _module_of_file(where, code) if where.endswith(".py") else _module_of_name(where, code)
    if not attribute:
        return module
    if not hasattr(module, attribute):
        raise ValidationError(f"module {module.__name__} has no `{attribute}`", code=code)
    return getattr(module, attribute)


_HINT = "give pkg.module, pkg.module:attribute or path/file.py"


def _module_of_name(name: str, code: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        what = "a directory" if name and Path(name).is_dir() else "no name of a module"
        raise ValidationError(f"`{name}` is {what}", code=code, hint=_HINT)
    # A console script does not have the working directory on its path, `python -m` does: both shall find the same.
    _make_findable(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # The module is there; what it imports is not.
        raise ValidationError(f"there is no module `{name}`", code=code, hint=_HINT) from error


def _module_of_file(place: str, code: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise ValidationError(f"there is no file {place}", code=code)
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
