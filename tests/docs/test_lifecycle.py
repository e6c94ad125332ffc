"""The page about the lifecycle says of every command what the hand-written table of the tests says."""

import re

import pytest

from tests.docs.pages import ROOT
from tests.unit.test_commands_in_states import cells, events_of

STATES = {
    "before its start time": ("scheduled",),
    "running or failing": ("running", "recovering", "failing"),
    "paused": ("paused",),
    "cancelling": ("cancelling",),
    "rolling back": ("rolling back",),
    "ended": ("completed", "failed", "failed, partial", "cancelled", "rolled_back"),
}
COMMANDS = ("pause", "resume", "cancel", "checkpoint", "restore", "retry", "rollback")


def page() -> dict[tuple[str, str], set[str]]:
    """Command and column → what the page says of them: ✓, no effect, codes of refusals."""
    text = (ROOT / "docs/explanation/lifecycle.md").read_text(encoding="utf-8")
    table = text.partition("## What can be asked when")[2].partition("\n| | ")[2].splitlines()
    columns = [cell.strip() for cell in table[0].strip("| ").split("|")]
    said: dict[tuple[str, str], set[str]] = {}
    for line in table[2:]:
        if not line.startswith("| "):
            break
        command, *row = [cell.strip() for cell in line.strip("| ").split("|")]
        for column, cell in zip(columns, row, strict=True):
            said[command, column] = set(re.findall(r"✓|no effect|(?<=`)\w+(?=`)", cell))
    return said


def test_the_page_tells_every_command_in_every_situation() -> None:
    """No cell is left out, and none is empty."""
    assert page().keys() == {(command, column) for command in COMMANDS for column in STATES}
    assert all(page().values())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_says_what_the_table_says(command: str) -> None:
    """Each cell of the page names exactly what can come of the command in the states that it stands for."""
    table = cells()
    for column, states in STATES.items():
        known = {_in_short(table[state, command]) for state in states}
        assert page()[command, column] == known, column


def _in_short(cell: str) -> str:
    if events_of(cell) is not None:
        return "✓"
    return cell[1:] if cell.startswith("!") else "no effect"
