"""Views in an SQL database: the statements, written once. What differs between databases is in the subclasses."""

import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

from eventsourcing.persistence import Tracking

from projections.tables import Column, Row, Table, Where, ordered
from projections.view import View, Witness, check_position

_KEYS_AT_ONCE = 500


class SqlView(View):
    """See `View`. Each thread has its own transaction.

    `_marker`: how a parameter is written. `_types`: the column types. `_schema`: what stands before a table's name.
    `_tracking`: the library's table of positions.
    """

    _marker: ClassVar[str] = "?"
    _types: ClassVar[dict[Column, str]] = {str: "TEXT", int: "INTEGER", float: "REAL", bytes: "BLOB"}
    _schema = ""
    _tracking: ClassVar[str] = "tracking"

    def _begin_view(self, name: str, tables: Sequence[Table]) -> None:
        self.name, self.tables = name, tables
        self._open = threading.local()
        self._puts: dict[str, str] = {table.name: self._put_statement(table) for table in tables}
        self._gets: dict[str, str] = {table.name: self._get_statement(table) for table in tables}

    # The database ----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _transaction(self, *, commit: bool) -> AbstractContextManager[Any]:
        """A cursor in a transaction of its own."""

    @abstractmethod
    def _track(self, cursor: Any, tracking: Tracking) -> None: ...

    def _quoted(self, table: Table) -> str:
        return f'{self._schema}"{self.name}__{table.name}"'

    @property
    def _witnesses(self) -> str:
        return f"{self._schema}esexec_witnesses"

    def _statements_to_make(self) -> list[str]:
        made = [
            f"CREATE TABLE IF NOT EXISTS {self._witnesses} (view {self._types[str]} PRIMARY KEY, "
            f"position {self._types[int]}, entity {self._types[str]}, n {self._types[int]}, hash {self._types[str]}, "
            f"time {self._types[str]})"
        ]
        for table in self.tables:
            columns = ", ".join(
                f'"{column}" {self._types[kind]}{" NOT NULL" if column in table.key else ""}'
                for column, kind in table.columns.items()
            )
            key = ", ".join(f'"{column}"' for column in table.key)
            made.append(f"CREATE TABLE IF NOT EXISTS {self._quoted(table)} ({columns}, PRIMARY KEY ({key}))")
            for number, index in enumerate(table.indexes):
                on = ", ".join(f'"{column}"' for column in index)
                made.append(f'CREATE INDEX IF NOT EXISTS "{self.name}__{table.name}_{number}" ON {self._quoted(table)} ({on})')
        return made

    def _put_statement(self, table: Table) -> str:
        names = ", ".join(f'"{column}"' for column in table.columns)
        values = ", ".join(self._marker for _ in table.columns)
        key = ", ".join(f'"{column}"' for column in table.key)
        others = ", ".join(f'"{column}" = excluded."{column}"' for column in table.columns if column not in table.key)
        then = f"UPDATE SET {others}" if others else "NOTHING"
        return f"INSERT INTO {self._quoted(table)} ({names}) VALUES ({values}) ON CONFLICT ({key}) DO {then}"

    def _get_statement(self, table: Table) -> str:
        columns = ", ".join(f'"{column}"' for column in table.columns)
        key = " AND ".join(f'"{column}" = {self._marker}' for column in table.key)
        return f"SELECT {columns} FROM {self._quoted(table)} WHERE {key}"

    # Changing --------------------------------------------------------------------------------------------------------------

    @contextmanager
    def change(self, tracking: Tracking) -> Iterator[None]:
        with self._changed() as cursor:
            yield
            self._track(cursor, tracking)

    @contextmanager
    def amend(self, position: int) -> Iterator[None]:
        with self._changed():
            yield
            check_position(self, position)

    @contextmanager
    def _changed(self) -> Iterator[Any]:
        with self._transaction(commit=True) as cursor:
            self._open.cursor, self._open.changes = cursor, True
            try:
                yield cursor
            finally:
                self._open.cursor, self._open.changes = None, False

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self._transaction(commit=False) as cursor:
            self._open.cursor, self._open.changes = cursor, False
            try:
                yield
            finally:
                self._open.cursor = None

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        cursor = getattr(self._open, "cursor", None)
        if cursor is not None:
            yield cursor
            return
        with self._transaction(commit=False) as cursor:
            yield cursor

    def _changing(self) -> Any:
        if not getattr(self._open, "changes", False):
            raise RuntimeError(f"{self.name} is changed outside of a transaction")
        return self._open.cursor

    def put(self, table: Table, rows: Iterable[Row]) -> None:
        cursor = self._changing()
        with self._checked(table):
            cursor.executemany(self._puts[table.name], [tuple(row) for row in rows])

    def delete(self, table: Table, keys: Iterable[Sequence[str | int]]) -> None:
        cursor = self._changing()
        with self._checked(table):
            key = " AND ".join(f'"{column}" = {self._marker}' for column in table.key)
            cursor.executemany(f"DELETE FROM {self._quoted(table)} WHERE {key}", [tuple(key) for key in keys])

    def see(self, witness: Witness) -> None:
        marks = ", ".join(self._marker for _ in range(1 + len(witness)))
        others = ", ".join(f"{column} = excluded.{column}" for column in Witness._fields)
        self._changing().execute(
            f"INSERT INTO {self._witnesses} (view, {', '.join(Witness._fields)}) VALUES ({marks}) "
            f"ON CONFLICT (view) DO UPDATE SET {others}",
            (self.name, *witness),
        )

    def clear(self) -> None:
        with self._transaction(commit=True) as cursor:
            for table in self.tables:
                cursor.execute(f"DELETE FROM {self._quoted(table)}")
            self.forget(cursor)

    def forget(self, cursor: Any) -> None:
        """Its position and witness."""
        cursor.execute(f"DELETE FROM {self._witnesses} WHERE view = {self._marker}", (self.name,))
        cursor.execute(f"DELETE FROM {self._schema}{self._tracking} WHERE application_name = {self._marker}", (self.name,))

    def drop(self, cursor: Any) -> None:
        """All of it."""
        for table in self.tables:
            cursor.execute(f"DROP TABLE IF EXISTS {self._quoted(table)}")
        self.forget(cursor)

    # Reading ---------------------------------------------------------------------------------------------------------------

    def get(self, table: Table, *key: str | int) -> Row | None:
        with self._checked(table), self._reading() as cursor:
            cursor.execute(self._gets[table.name], key)
            row = cursor.fetchone()
            return table.row(*self._values(row)) if row is not None else None

    def get_all(self, table: Table, keys: Sequence[Sequence[str | int]]) -> list[Row]:
        lasts: dict[tuple[Any, ...], dict[Any, None]] = {}
        for *first, last in keys:
            lasts.setdefault(tuple(first), {})[last] = None
        found: list[Row] = []
        for before, some in lasts.items():  # SQLite looks through the whole table for pairs, not for the last of them alone
            for begin in range(0, len(some), _KEYS_AT_ONCE):
                values = [*some][begin : begin + _KEYS_AT_ONCE]
                *equal, one_of = (f'"{column}"' for column in table.key)
                said = [f"{column} = {self._marker}" for column in equal]
                said.append(f"{one_of} IN ({', '.join(self._marker for _ in values)})")
                found += self._selected(table, f" WHERE {' AND '.join(said)}", [*before, *values])
        return found

    def select(
        self, table: Table, where: Sequence[Where] = (), *, order: Sequence[str] = (), limit: int | None = None
    ) -> list[Row]:
        statement, values = self._conditions(table, where)
        by = ordered(order)
        table.check([column for column, _ in by])
        if by:
            statement += " ORDER BY " + ", ".join(f'"{column}" {"DESC" if down else "ASC"}' for column, down in by)
        if limit is not None:
            statement += f" LIMIT {int(limit)}"
        return self._selected(table, statement, values)

    def _selected(self, table: Table, statement: str, values: Sequence[Any]) -> list[Row]:
        columns = ", ".join(f'"{column}"' for column in table.columns)
        with self._checked(table), self._reading() as cursor:
            cursor.execute(f"SELECT {columns} FROM {self._quoted(table)}{statement}", values)
            return [table.row(*self._values(row)) for row in cursor.fetchall()]

    def count(self, table: Table, where: Sequence[Where] = ()) -> int:
        statement, values = self._conditions(table, where)
        with self._checked(table), self._reading() as cursor:
            cursor.execute(f"SELECT count(*) AS n FROM {self._quoted(table)}{statement}", values)
            return int(next(iter(self._values(cursor.fetchone()))))

    def _conditions(self, table: Table, where: Sequence[Where]) -> tuple[str, list[Any]]:
        table.check([one.column for one in where])
        if not where:
            return "", []
        said = " AND ".join(f'"{one.column}" {one.op} {self._marker}' for one in where)
        return f" WHERE {said}", [one.value for one in where]

    @property
    def position(self) -> int:
        of_view = f"SELECT notification_id FROM {self._schema}{self._tracking} WHERE application_name = {self._marker}"
        with self._reading() as cursor:
            cursor.execute(of_view, (self.name,))
            row = cursor.fetchone()
            return 0 if row is None else int(next(iter(self._values(row))))

    @staticmethod
    def _values(row: Any) -> Iterable[Any]:
        return tuple(row)

    @property
    def witness(self) -> Witness | None:
        with self._reading() as cursor:
            cursor.execute(
                f"SELECT {', '.join(Witness._fields)} FROM {self._witnesses} WHERE view = {self._marker}", (self.name,)
            )
            row = cursor.fetchone()
            return None if row is None else Witness(*self._values(row))
