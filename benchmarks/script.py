"""An execution's messages as templates: everything literal but the execution's id, so a copy has the same bytes.

A `Turn` is one commit: it is appended once `needs` messages have come in for the execution, and followed by its dispatches.
"""

from pathlib import Path

import msgspec

MARK = "<<execution>>"


class Template(msgspec.Struct):
    """A message with `MARK` wherever the execution's id stood. `headers` are as they were sent."""

    subject: str
    data: str
    headers: dict[str, str] = {}


class Turn(msgspec.Struct):
    """See the module."""

    needs: int
    commit: Template
    dispatches: list[Template]


class Script(msgspec.Struct):
    """An execution: its start, its commits, and the report of each step by the step's id."""

    start: Template
    turns: list[Turn]
    reports: dict[str, Template]


def save(script: Script, path: Path) -> None:
    path.write_bytes(msgspec.json.encode(script))


def load(path: Path) -> Script:
    return msgspec.json.decode(path.read_bytes(), type=Script)
