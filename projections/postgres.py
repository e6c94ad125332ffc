"""Views in PostgreSQL, in a schema of the namespace's own. Needs the extra `esexec[postgres]`."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, ClassVar

import psycopg
from eventsourcing.persistence import OperationalError, Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import StrDumperUnknown

from projections.sql import SqlView
from projections.tables import Column, Table
from projections.view import Store, View

_CONNECTIONS = 8
_NAME_CHARS = 63
_MAKING = "/making"
"""The lock of who makes tables; not the name of a view."""


class PostgresView(SqlView, PostgresTrackingRecorder):
    """See `View`."""

    _marker: ClassVar[str] = "%s"
    _tracking: ClassVar[str] = "esexec_tracking"
    _types: ClassVar[dict[Column, str]] = {
        str: 'TEXT COLLATE "C"',
        int: "BIGINT",
        float: "DOUBLE PRECISION",
        bytes: "BYTEA",
    }

    def __init__(self, datastore: PostgresDatastore, name: str, tables: Sequence[Table]) -> None:
        self._schema = f'"{datastore.schema}".'
        self._begin_view(name, tables)
        super().__init__(datastore, tracking_table_name=self._tracking)
        self.sql_create_statements += [sql.SQL(one).format() for one in self._statements_to_make()]

    def is_failure(self, error: Exception) -> bool:
        its_own = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | psycopg.InternalError)
        return its_own or super().is_failure(error)

    @contextmanager
    def _transaction(self, *, commit: bool) -> Iterator[Any]:
        with self.datastore.transaction(commit=True) if commit else _of_one_moment(self.datastore) as cursor:
            cursor.adapters.register_dumper(str, _WithoutNul)
            yield cursor

    def _track(self, cursor: Any, tracking: Tracking) -> None:
        self._insert_tracking(cursor, tracking)

    @staticmethod
    def _values(row: Any) -> Iterable[Any]:
        return tuple(row.values())


class _WithoutNul(StrDumperUnknown):
    """PostgreSQL's text holds no NUL, and anybody can have put one into a name: it is kept, and looked for, as its symbol."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\u2400") if "\0" in obj else obj)


@contextmanager
def _of_one_moment(datastore: PostgresDatastore) -> Iterator[Any]:
    """A transaction in which everything is read as of one moment."""
    with datastore.transaction(commit=False) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield cursor


def schema_of(namespace: str) -> str:
    """The schema of a namespace: another one for each, though PostgreSQL takes no names as long as ours may be."""
    name = f"esexec_{namespace}"
    return name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 17]}_{sha256(name.encode()).hexdigest()[:16]}"


class PostgresStore(Store):
    """See `Store`. `url`: as libpq takes it. `namespace`: its schema is that of `schema_of`, made if it is missing."""

    def __init__(self, url: str, namespace: str) -> None:
        self._url, self._schema = url, schema_of(namespace)
        given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
        self._make_schema()
        self._datastore = PostgresDatastore(
            dbname=given.get("dbname", "postgres"),
            host=given.get("host", "localhost"),
            port=given.get("port", "5432"),
            user=given.get("user", "postgres"),
            password=given.get("password", ""),
            schema=self._schema,
            pool_size=1,
            max_overflow=_CONNECTIONS - 1,
            originator_id_type="text",
            pre_ping=True,  # connections that were cut are not handed out
        )
        self._holder: psycopg.Connection[Any] | None = None
        """Of all locks; one thread at a time."""
        self._holding = threading.Lock()

    def _make_schema(self) -> None:
        schema = sql.Identifier(self._schema)
        live = "CREATE TABLE IF NOT EXISTS {}.esexec_live (projection TEXT PRIMARY KEY, view TEXT NOT NULL)"
        with self._making() as connection:
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
            connection.execute(sql.SQL(live).format(schema))

    @contextmanager
    def _making(self) -> Iterator[psycopg.Connection[Any]]:
        """Nobody else makes anything in this schema meanwhile: `IF NOT EXISTS` does not hold between two who do so at once."""
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                connection.execute("SELECT pg_advisory_lock(%s)", (self._number_of(_MAKING),))
                yield connection
        except psycopg.Error as error:
            raise OperationalError(error) from error

    def _number_of(self, lock: str) -> int:
        return int.from_bytes(sha256(f"{self._schema}/{lock}".encode()).digest()[:8], "big", signed=True)

    def view(self, name: str, tables: Sequence[Table]) -> View:
        view = PostgresView(self._datastore, name, tables)
        with self._making():
            view.create_table()
        return view

    def live(self, projection: str) -> str:
        with self._datastore.transaction(commit=False) as cursor:
            cursor.execute(f'SELECT view FROM "{self._schema}".esexec_live WHERE projection = %s', (projection,))
            row = cursor.fetchone()
            return str(row["view"]) if row is not None else projection

    def swap(self, projection: str, view: str) -> None:
        with self._datastore.transaction(commit=True) as cursor:
            cursor.execute(
                f'INSERT INTO "{self._schema}".esexec_live VALUES (%s, %s) '
                "ON CONFLICT (projection) DO UPDATE SET view = excluded.view",
                (projection, view),
            )

    def drop(self, view: View) -> None:
        assert isinstance(view, PostgresView)
        with self._datastore.transaction(commit=True) as cursor:
            view.drop(cursor)

    def lock(self, name: str) -> bool:
        try:
            with self._holding:
                if self._holder is None or self._holder.closed:
                    self._holder = psycopg.connect(self._url, autocommit=True)
                row = self._holder.execute("SELECT pg_try_advisory_lock(%s)", (self._number_of(name),)).fetchone()
        except psycopg.Error as error:
            raise OperationalError(error) from error
        return bool(row is not None and row[0])

    def unlock(self, name: str) -> None:
        try:
            with self._holding:
                while self._holder is not None and not self._holder.closed:  # it is held as often as it was taken
                    row = self._holder.execute("SELECT pg_advisory_unlock(%s)", (self._number_of(name),)).fetchone()
                    if row is None or not row[0]:
                        break
        except psycopg.Error as error:
            raise OperationalError(error) from error

    def close(self) -> None:
        if self._holder is not None:
            self._holder.close()
        self._datastore.close()
