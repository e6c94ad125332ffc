"""The list of verbs that `esexec --help` shows."""

from typer.testing import CliRunner

from esexec.cli.app import app


def test_every_verb_stands_under_a_heading_of_ours() -> None:
    """Nobody has to find one of thirty verbs in one list, and what was added later is not left over."""
    said = CliRunner().invoke(app, ["--help"]).output
    assert all(heading in said for heading in ("─ Run ─", "─ Look ─", "─ Plans and tasks ─", "─ Processes ─", "─ Operate ─"))
    assert "─ Commands ─" not in said
