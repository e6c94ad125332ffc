"""Views in memory: for tests, and for what need not outlive its process."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter, eq, ge, gt, le, lt
from typing import Any

from eventsourcing.persistence import Tracking
from eventsourcing.popo import POPOTrackingRecorder

from projections.tables import Row, Table, Where, ordered
from projections.view import Store, View, Witness, check_position

_OPS = {"=": eq, "<": lt, "<=": le, ">": gt, ">=": ge}
_Rows = dict[tuple[Any, ...], Row]


class MemoryView(POPOTrackingRecorder, View):
    """See `View`. A change that fails is undone from copies of what it touched."""

    def __init__(self, name: str, tables: Sequence[Table]) -> None:
        super().__init__()
        self.name, self.tables = name, tables
        self._rows: dict[str, _Rows] = {table.name: {} for table in tables}
        self._witness: Witness | None = None
        self._before: dict[str, _Rows] | None = None

    @contextmanager
    def change(self, tracking: Tracking) -> Iterator[None]:
        with self._changed():
            yield
            self._assert_tracking_uniqueness(tracking)
            self._insert_tracking(tracking)

    @contextmanager
    def amend(self, position: int) -> Iterator[None]:
        with self._changed():
            yield
            check_position(self, position)

    @contextmanager
    def _changed(self) -> Iterator[None]:
        with self._database_lock:
            witness, self._before = self._witness, {}
            try:
                yield
            except BaseException:
                self._rows.update(self._before)
                self._witness = witness
                raise
            finally:
                self._before = None

    def _changing(self, table: Table) -> _Rows:
        if self._before is None:
            raise RuntimeError(f"{self.name} is changed outside of a transaction")
        with self._checked(table):
            self._before.setdefault(table.name, dict(self._rows[table.name]))
            return self._rows[table.name]

    def put(self, table: Table, rows: Iterable[Row]) -> None:
        kept = self._changing(table)
        kept.update({table.key_of(row): row for row in rows})

    def delete(self, table: Table, keys: Iterable[Sequence[str | int]]) -> None:
        kept = self._changing(table)
        for key in keys:
            kept.pop(tuple(key), None)

    def get(self, table: Table, *key: str | int) -> Row | None:
        with self._checked(table):
            return self._rows[table.name].get(key)

    def get_all(self, table: Table, keys: Sequence[Sequence[str | int]]) -> list[Row]:
        return [row for key in dict.fromkeys(map(tuple, keys)) if (row := self.get(table, *key)) is not None]

    def select(
        self, table: Table, where: Sequence[Where] = (), *, order: Sequence[str] = (), limit: int | None = None
    ) -> list[Row]:
        table.check([*(one.column for one in where), *(column for column, _ in ordered(order))])
        with self._checked(table), self._database_lock:
            found = [row for row in self._rows[table.name].values() if all(_meets(row, one) for one in where)]
        for column, down in reversed(ordered(order)):
            found.sort(key=attrgetter(column), reverse=down)
        return found[:limit]

    def count(self, table: Table, where: Sequence[Where] = ()) -> int:
        return len(self.select(table, where))

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self._database_lock:
            yield

    def clear(self) -> None:
        self._rows = {table.name: {} for table in self.tables}
        self._witness = None
        self._max_tracking_ids.pop(self.name, None)

    @property
    def witness(self) -> Witness | None:
        return self._witness

    def see(self, witness: Witness) -> None:
        self._witness = witness


def _meets(row: Row, where: Where) -> bool:
    value = getattr(row, where.column)
    return value is not None and _OPS[where.op](value, where.value)


class MemoryStore(Store):
    """See `Store`."""

    def __init__(self) -> None:
        self._views: dict[str, MemoryView] = {}
        self._live: dict[str, str] = {}

    def view(self, name: str, tables: Sequence[Table]) -> View:
        return self._views.setdefault(name, MemoryView(name, tables))

    def live(self, projection: str) -> str:
        return self._live.get(projection, projection)

    def swap(self, projection: str, view: str) -> None:
        self._live[projection] = view

    def drop(self, view: View) -> None:
        self._views.pop(view.name, None)

    def lock(self, name: str) -> bool:
        return True

    def unlock(self, name: str) -> None: ...

    def close(self) -> None: ...
