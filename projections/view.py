"""What a projection keeps: tables, and how far in the log it has come, changed in one transaction or not at all.

A view is a `TrackingRecorder` of the `eventsourcing` library. There are three kinds, which pass the same tests: in memory (for
tests), SQLite (the default) and PostgreSQL. A `Store` is a database with the views of a namespace in it.

    with view.change(Tracking(view.name, 17_003)):
        row = view.get(CITIES, "Oslo") or CITIES.row("Oslo", 0)
        view.put(CITIES, [row._replace(count=row.count + 1)])
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from typing import NamedTuple

import msgspec
from eventsourcing.persistence import IntegrityError, PersistenceError, Tracking, TrackingRecorder

from projections.tables import Row, Table, Where


class Witness(NamedTuple):
    """The last commit of an execution that a view has in it: where it stood, and the hash of its bytes. Whoever finds another one
    there, or none, looks at another log than the view was made from. `time`: of the very last commit that it has in it."""

    position: int
    entity: str
    n: int
    hash: str
    time: str


class View(TrackingRecorder, ABC):
    """The tables of a projection, and how far in the log it has come. One thread changes it at a time; any number read.

    `name`: of its tables, and what its position is tracked under.
    """

    name: str
    tables: Sequence[Table]

    @property
    def position(self) -> int:
        """The notification id that it has come to; 0: none yet."""
        return self.max_tracking_id(self.name) or 0

    @abstractmethod
    def change(self, tracking: Tracking) -> AbstractContextManager[None]:
        """One transaction: all that is changed within, and the position. On an exception nothing of it is kept.

        Raises the library's `IntegrityError` if the position is not beyond the present one (somebody else was there), and its
        other `PersistenceError`s if the database fails.
        """

    def is_failure(self, error: Exception) -> bool:
        """Whether this was thrown because the database fails, and not because of how it is used."""
        return isinstance(error, PersistenceError)

    @abstractmethod
    def amend(self, position: int) -> AbstractContextManager[None]:
        """As `change`, for what comes of time alone: at the position that it has. Raises `IntegrityError` if that is another."""

    @abstractmethod
    def put(self, table: Table, rows: Iterable[Row]) -> None:
        """Add rows, or replace those with the same key. Only within `change` or `amend`."""

    @abstractmethod
    def delete(self, table: Table, keys: Iterable[Sequence[str | int]]) -> None:
        """Take rows away, by their keys. Only within `change` or `amend`."""

    @abstractmethod
    def get(self, table: Table, *key: str | int) -> Row | None:
        """The row with this key; within `change` as it is by now."""

    @abstractmethod
    def get_all(self, table: Table, keys: Sequence[Sequence[str | int]]) -> list[Row]:
        """The rows with these keys that there are, in any order: for many of them quicker than one `get` after the other."""

    @abstractmethod
    def select(
        self, table: Table, where: Sequence[Where] = (), *, order: Sequence[str] = (), limit: int | None = None
    ) -> list[Row]:
        """The rows that meet all conditions, in order (`-column`: from the largest down)."""

    @abstractmethod
    def count(self, table: Table, where: Sequence[Where] = ()) -> int:
        """How many rows meet all conditions."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[None]:
        """What is read within is all of one moment, and of this thread only."""

    @abstractmethod
    def clear(self) -> None:
        """Empty: no rows, no position, no witness."""

    @property
    @abstractmethod
    def witness(self) -> Witness | None:
        """The last that was given to `see`."""

    @abstractmethod
    def see(self, witness: Witness) -> None:
        """Remember it. Only within `change`."""

    @contextmanager
    def _checked(self, table: Table) -> Iterator[None]:
        if table not in self.tables:
            raise ValueError(f"{table.name} is no table of {self.name}")
        yield

    def content_hash(self) -> str:
        """A hash of all rows: of two views with the same content it is the same, whatever the database."""
        digest = sha256()
        for table in sorted(self.tables, key=lambda one: one.name):
            digest.update(table.name.encode() + b"\n")
            for row in self.select(table, order=table.key):
                digest.update(msgspec.json.encode([value if type(value) is not float else repr(value) for value in row]) + b"\n")
        return digest.hexdigest()


def check_position(view: View, position: int) -> None:
    """Raises `IntegrityError` if the view is not at this position."""
    if (now := view.position) != position:
        raise IntegrityError(f"{view.name} is at {now}, and not at {position}")


class Store(ABC):
    """A database with the views of one namespace in it. Closed by whoever opened it.

    Which view answers for a projection in its present form (`Projection.view_name`) is written down there, so that one that was
    made anew can take the place of the old.
    """

    @abstractmethod
    def view(self, name: str, tables: Sequence[Table]) -> View:
        """A view; its tables are made if they are missing."""

    @abstractmethod
    def live(self, projection: str) -> str:
        """The name of the view that answers for a projection; its own name if nothing else was said."""

    @abstractmethod
    def swap(self, projection: str, view: str) -> None:
        """From now on this view answers for the projection."""

    @abstractmethod
    def drop(self, view: View) -> None:
        """Remove a view's tables, and what it has come to."""

    @abstractmethod
    def lock(self, name: str) -> bool:
        """Take a lock that one process has at a time, until it closes the store or ends: whether we have it (by now)."""

    @abstractmethod
    def unlock(self, name: str) -> None:
        """Give a lock back that we have; others may have it."""

    @abstractmethod
    def close(self) -> None: ...
