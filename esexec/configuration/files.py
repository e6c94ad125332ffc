"""The file of a project: `esexec.toml`, or `[tool.esexec]` in `pyproject.toml`, here or in a directory above.

It says which server is given our credentials and what a worker imports, so that one of somebody else's is not believed: above
a directory of ours there may be one where anybody may write.
"""

import logging
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from esexec.configuration.keys import KEYS
from esexec.domain.errors import ValidationError
from esexec.domain.explain import did_you_mean

logger = logging.getLogger("esexec.configuration")

OWN, SHARED = "esexec.toml", "pyproject.toml"
_HINT = "docs/reference/configuration.md lists all"


class Found(NamedTuple):
    """What a file says. `table`: the one that is ours, `[]` or `[tool.esexec]`."""

    path: Path
    text: str
    said: Mapping[str, Any]
    table: tuple[str, ...] = ()

    def place(self, key: str) -> str:
        """`file:line` of a key, or the file."""
        line = line_of(self.text, self.table, key)
        return f"{shown(self.path)}:{line}" if line else shown(self.path)


def shown(path: Path) -> str:
    """A path as one would write it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def find(directory: Path) -> Found | None:
    """The nearest file that says something to us; None: there is none. One that belongs neither to us, nor to root, nor to whom
    `directory` belongs to is passed over with a warning.

    Raises ValidationError: `bad_settings_file` (cannot be read, no TOML), `unknown_setting`.
    """
    for place in (directory, *directory.parents):
        for name, table in ((OWN, ()), (SHARED, ("tool", "esexec"))):
            found = _read(place / name, table) if _is_believed(place / name, directory) else None
            if found is not None:
                return _known(found)
    return None


def _is_believed(path: Path, directory: Path) -> bool:
    owners = _owners(path)
    if owners <= {0, *_owners(directory), *_ourselves()}:
        return True
    if path.name == OWN:
        logger.warning("%s is passed over: it belongs to somebody else", path)
    return False


def _owners(path: Path) -> set[int]:
    """Whom it belongs to, and also the link to it; nobody if it is not there."""
    try:
        return {path.lstat().st_uid, path.stat().st_uid}
    except OSError:
        return set()


def _ourselves() -> set[int]:
    return {os.geteuid()} if hasattr(os, "geteuid") else set()


def _read(path: Path, table: tuple[str, ...]) -> Found | None:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        if table:  # not ours alone
            return None
        raise ValidationError(f"{shown(path)}: cannot be read: {error}", code="bad_settings_file", file=str(path)) from None
    if table and "esexec" not in text:
        return None
    try:
        said: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        place = f"{shown(path)}:{line[1]}" if line else shown(path)
        context: dict[str, Any] = {"file": str(path)} | ({"line": int(line[1])} if line else {})
        raise ValidationError(f"{place}: no TOML: {error}", code="bad_settings_file", **context) from None
    for name in table:
        said = said.get(name) if isinstance(said, Mapping) else None
    return Found(path, text, said, table) if isinstance(said, Mapping) else None


def _known(found: Found) -> Found:
    for key in found.said:
        if key not in KEYS:
            hint = f"in {OWN} settings stand at the top, without [tool.esexec]" if key == "tool" else did_you_mean(key, KEYS)
            line = line_of(found.text, found.table, key)
            context: dict[str, Any] = {"file": str(found.path)} | ({"line": line} if line else {})
            raise ValidationError(
                f"{found.place(key)}: `{key[:80]}` is no setting", code="unknown_setting", hint=hint or _HINT, **context
            )
    return found


def line_of(text: str, table: tuple[str, ...], key: str) -> int | None:
    """The line on which a key of a table begins."""
    wanted = (*table, key)
    here: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if head := re.match(r"\s*\[{1,2}([^\]]+)\]", line):
            here = _parts(head[1])
            if here[: len(wanted)] == wanted:
                return number
        elif (said := re.match(r"\s*([\w\-\"'. ]+?)\s*=", line)) and (*here, *_parts(said[1]))[: len(wanted)] == wanted:
            return number
    return None


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in name.split("."))
