"""The SQLite file of the views, as several processes use it."""

from pathlib import Path
from threading import Thread

import pytest
from eventsourcing.persistence import OperationalError

from projections.sqlite import SqliteStore
from projections.tables import Table


def test_nobody_writes_between_what_another_reads_and_writes(tmp_path: Path) -> None:
    """Who is about to write has the file from the start, and others wait; behind their back his own would be refused."""
    ours, theirs = SqliteStore(tmp_path / "views"), SqliteStore(tmp_path / "views")
    other = Thread(target=theirs.swap, args=("tasks", "tasks2"))
    with ours._datastore.transaction(commit=True) as cursor:
        cursor.execute("SELECT * FROM esexec_live")
        assert cursor.fetchall() == []
        other.start()
        other.join(0.3)
        assert other.is_alive()
        cursor.execute("INSERT INTO esexec_live VALUES ('executions', 'executions2')")
    other.join(10)
    assert [ours.live("executions"), ours.live("tasks")] == ["executions2", "tasks2"]
    for store in (ours, theirs):
        store.close()


def test_a_store_that_is_closed_takes_no_lock(tmp_path: Path) -> None:
    """Whoever comes too late, in a thread, would have it for as long as the process lives."""
    late = SqliteStore(tmp_path / "views")
    assert late.lock("executions")
    late.close()
    assert not late.lock("tasks")
    other = SqliteStore(tmp_path / "views")
    assert other.lock("executions")
    assert other.lock("tasks")
    other.close()


def test_who_opens_a_store_waits_for_nobody_who_writes(tmp_path: Path) -> None:
    """What is there need not be made; what is not is, as soon as the other has done."""
    writing = SqliteStore(tmp_path / "views")
    table = Table("things", key=("id",), columns={"id": str})
    with writing._datastore.transaction(commit=True) as cursor:
        cursor.execute("INSERT INTO esexec_live VALUES ('executions', 'executions2')")
        other = SqliteStore(tmp_path / "views")
        making = Thread(target=other.view, args=("things", [table]))
        making.start()
        making.join(0.2)
        assert making.is_alive()
    making.join(10)
    assert not making.is_alive()
    assert other.view("things", [table]).position == 0
    writing.close()
    other.close()


def test_who_writes_within_what_he_writes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """He would wait for himself."""
    monkeypatch.setattr("projections.sqlite._LOCK_S", 0.05)
    store = SqliteStore(tmp_path / "views")
    with store._datastore.transaction(commit=True), pytest.raises(OperationalError, match="nobody else could write"):
        store.swap("executions", "executions2")
    store.close()
