"""The logistics example whose last step fails: all that the plan wrote is undone, and the database is what it was."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import esexec
from esexec.domain.messages import Dispatch
from esexec.plans import Plan
from examples.logistics import __main__ as program
from examples.logistics import database, tasks
from examples.logistics.model import Facility

TABLES = ("manifest", "rejections", "facilities", "shipments", "inspections")
INPUT: dict[str, Any] = json.loads((program.HERE / "input.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def carrier_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The carrier answers at once: how it is retried is another test's."""
    monkeypatch.setattr("examples.logistics.carrier.BUSY_ANSWERS", 0)


def rows(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    connection = sqlite3.connect(file)
    try:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES}
    finally:
        connection.close()


def change(file: Path, *statements: str) -> None:
    connection = sqlite3.connect(file)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


async def run(store: Path, *, fails: bool) -> int:
    return await program.main(program.read(program.HERE / "input.json", store), store, fails=fails)


async def test_a_failure_at_the_end_leaves_an_empty_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten steps completed, the last one fails: rolled back, no row is left in any table, and no report."""
    assert await run(tmp_path, fails=True) == 0
    assert rows(tmp_path / "logistics" / "shipments.db") == {table: [] for table in TABLES}
    assert not (tmp_path / "logistics" / "report.html").exists()
    printed = capsys.readouterr().out
    assert "execution rolled back: 9 steps undone; nothing undoes quote" in printed
    assert "rows after:  none" in printed
    assert "history verified" in printed


async def test_what_was_there_before_is_what_it_was(tmp_path: Path) -> None:
    """Rows and a report of an earlier run, some of them changed since, are given back as they were, not deleted."""
    file, report = tmp_path / "logistics" / "shipments.db", tmp_path / "logistics" / "report.html"
    assert await run(tmp_path, fails=False) == 0
    change(
        file,
        "UPDATE facilities SET docks = 99 WHERE code = 'LYS'",
        "UPDATE shipments SET contents = 'repacked' WHERE facility = 'HAM' AND handling = 'fragile'",
        "DELETE FROM inspections WHERE shipment IN (SELECT id FROM shipments WHERE facility = 'GDN')",
        "DELETE FROM shipments WHERE facility = 'GDN' AND handling = 'cold'",
        "UPDATE inspections SET remarks = '[\"by hand\"]'",
    )
    report.write_text("an earlier report", encoding="utf-8")
    before = rows(file)
    assert await run(tmp_path, fails=True) == 0
    assert rows(file) == before
    assert report.read_text(encoding="utf-8") == "an earlier report"


def test_what_changed_nothing_is_not_undone(tmp_path: Path) -> None:
    """A handler that was stopped before it had recorded anything had changed nothing: its undoing does not touch the database."""
    store = tmp_path / "s.db"
    lyon = Facility(**INPUT["facilities"]["lyon"])
    with database.transaction(store) as db:
        db.execute("INSERT INTO facilities VALUES ('LYS', 'old', 'Lyon', 1, 1, 'somebody')")
    undoing = esexec.Context(Dispatch(execution_id="e", step="lyon", task="x", purpose="compensation"))
    tasks.delete_facility(lyon, store, undoing)
    assert database.counts(store)["facilities"] == 1


def test_the_plan_that_fails_is_the_plan_and_one_step_more() -> None:
    """The two files cannot drift apart."""
    good, fails = (Plan.from_file(program.HERE / name).spec for name in ("plan.yaml", "plan-fails.yaml"))
    assert fails.steps[:-1] == good.steps
    assert fails.config == good.config
    assert fails.steps[-1].task == "order_carrier"
