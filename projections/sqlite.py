"""Views in an SQLite file: the default. Any number of processes may read; each view is written by one at a time."""

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from eventsourcing.persistence import OperationalError, Tracking
from eventsourcing.sqlite import SQLiteConnection, SQLiteConnectionPool, SQLiteCursor, SQLiteDatastore, SQLiteTrackingRecorder

from projections.sql import SqlView
from projections.tables import Table
from projections.view import Store, View

_LOCK_S = 30
"""So long one waits for another who writes."""
_AGAIN_S = 0.05
_AT_IT_S = 30.0
"""So long a statement may go on when the database is closed."""


class _Pool(SQLiteConnectionPool):
    """Connections that do not wait for the disk at each commit: what a power loss takes is read from the log once more."""

    def _create_connection(self) -> SQLiteConnection:
        connection = super()._create_connection()
        for pragma in ("synchronous = NORMAL", "cache_size = -65536", "temp_store = MEMORY"):
            connection.cursor().execute(f"PRAGMA {pragma}")
        return connection


class _Datastore(SQLiteDatastore):
    """Closed once nobody is at it any more: a connection that is closed under a statement ends the process."""

    def __init__(self, file: str) -> None:
        self._at_it, self._is_closed = 0, False
        self._changed, self._writing, self._makes = threading.Condition(), threading.Lock(), threading.local()
        super().__init__(file, originator_id_type="text")
        self.pool.close()
        self.pool = _Pool(db_name=file, lock_timeout=_LOCK_S, pool_size=5, max_overflow=20)

    def made(self, make: Callable[[], None]) -> None:
        """Have it made what is not there. Nobody is waited for where all is; behind somebody who made some it is tried again."""
        give_up_at = time.monotonic() + _LOCK_S
        while True:
            self._makes.all = True
            try:
                make()
            except OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > give_up_at:
                    raise
                time.sleep(_AGAIN_S)
            else:
                return
            finally:
                self._makes.all = False

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[SQLiteCursor]:
        with self._changed:
            if self._is_closed:
                raise OperationalError("the database was closed")
            self._at_it += 1
        try:
            with self._written() if commit else nullcontext(), super().transaction(commit=commit) as cursor:
                if commit and not getattr(self._makes, "all", False):
                    # Else who has read, and then writes behind another, is refused at once, however long he would wait.
                    cursor.execute("COMMIT")
                    cursor.execute("BEGIN IMMEDIATE")
                yield cursor
        finally:
            with self._changed:
                self._at_it -= 1
                self._changed.notify_all()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Of several processes one looks again and again whether another has done; in this one they need not."""
        if not self._writing.acquire(timeout=_LOCK_S):
            raise OperationalError(f"nobody else could write for {_LOCK_S} s")
        try:
            yield
        finally:
            self._writing.release()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            if not self._changed.wait_for(lambda: not self._at_it, _AT_IT_S):
                return  # who is at it keeps it: the process ends sooner or later
        super().close()


class SqliteView(SqlView, SQLiteTrackingRecorder):
    """See `View`."""

    def __init__(self, datastore: SQLiteDatastore, name: str, tables: Sequence[Table]) -> None:
        self._begin_view(name, tables)
        super().__init__(datastore)

    def is_failure(self, error: Exception) -> bool:
        if isinstance(error, sqlite3.OperationalError | sqlite3.InternalError):
            return error.sqlite_errorcode != sqlite3.SQLITE_ERROR  # which is a statement that cannot be: a table is missing
        return super().is_failure(error)

    def construct_create_table_statements(self) -> list[str]:
        return super().construct_create_table_statements() + self._statements_to_make()

    def _transaction(self, *, commit: bool) -> AbstractContextManager[Any]:
        return self.datastore.transaction(commit=commit)

    def _track(self, cursor: Any, tracking: Tracking) -> None:
        self._insert_tracking(cursor, tracking)


class SqliteStore(Store):
    """See `Store`. `file`: where it is kept; its directory is made. Locks are taken on files beside it."""

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._datastore = _Datastore(str(self.file))
        self._locks: dict[str, int] = {}
        self._guard, self._is_closed = threading.Lock(), False
        self._datastore.made(self._make)

    def _make(self) -> None:
        with self._datastore.transaction(commit=True) as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS esexec_live (projection TEXT PRIMARY KEY, view TEXT NOT NULL)")

    def view(self, name: str, tables: Sequence[Table]) -> View:
        view = SqliteView(self._datastore, name, tables)
        self._datastore.made(view.create_table)
        return view

    def live(self, projection: str) -> str:
        with self._datastore.transaction(commit=False) as cursor:
            cursor.execute("SELECT view FROM esexec_live WHERE projection = ?", (projection,))
            row = cursor.fetchone()
            return str(row[0]) if row is not None else projection

    def swap(self, projection: str, view: str) -> None:
        with self._datastore.transaction(commit=True) as cursor:
            cursor.execute("INSERT OR REPLACE INTO esexec_live VALUES (?, ?)", (projection, view))

    def drop(self, view: View) -> None:
        assert isinstance(view, SqliteView)
        with self._datastore.transaction(commit=True) as cursor:
            view.drop(cursor)

    def lock(self, name: str) -> bool:
        with self._guard:
            return name in self._locks or (not self._is_closed and self._lock(name))

    def _lock(self, name: str) -> bool:
        file = os.open(f"{self.file}.{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._locks[name] = file
        return True

    def unlock(self, name: str) -> None:
        with self._guard:
            if (file := self._locks.pop(name, None)) is not None:
                os.close(file)

    def close(self) -> None:
        with self._guard:  # a thread that nobody waits for any more may be about to take one
            self._is_closed = True
            for file in self._locks.values():
                os.close(file)
            self._locks.clear()
        self._datastore.close()
