"""The tables of a read model, declared once for every database.

CITIES = Table("cities", key=("city",), columns={"city": str, "count": int})
CITIES.row(city="Oslo", count=3)
"""

import re
from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

Column = type[str] | type[int] | type[float] | type[bytes]
Row = Any
"""A named tuple of the table's columns, made by `Table.row`."""
Op = Literal["=", "<", "<=", ">", ">="]


class Where(NamedTuple):
    """A condition on one column."""

    column: str
    op: Op
    value: str | int | float


_NAME = re.compile(r"[a-z][a-z0-9_]{0,23}\Z")
NAMES = "a to z first, then also 0 to 9 and _, at most 24"
"""What names of views, tables and columns are. PostgreSQL cuts longer ones than 63: a view's and its table's, and what is put
to them, stay below that together."""


def is_name(word: str) -> bool:
    """Whether a view, a table or a column can be called that."""
    return _NAME.match(word) is not None


class Table:
    """A table: its columns by name and kind, those that are its key, and what it is looked up by besides.

    `indexes`: each a sequence of columns; what is selected by equality on the first ones comes in the order of the next.
    Every value but a key's may be None. Raises ValueError for names that no database would take, or a key that is no column.
    """

    __slots__ = ("columns", "indexes", "key", "name", "row")

    def __init__(
        self, name: str, *, key: Sequence[str], columns: Mapping[str, Column], indexes: Sequence[Sequence[str]] = ()
    ) -> None:
        self.name, self.key, self.columns = name, tuple(key), dict(columns)
        self.indexes = tuple(tuple(one) for one in indexes)
        for word in (name, *self.columns):
            if not is_name(word):
                raise ValueError(f"{word!r} is no name for a table or a column: {NAMES}")
        for word in (*self.key, *(word for index in self.indexes for word in index)):
            if word not in self.columns:
                raise ValueError(f"{word!r} is no column of {name}")
        if not self.key:
            raise ValueError(f"{name} has no key")
        self.row: Any = namedtuple(name.title().replace("_", ""), self.columns)  # type: ignore[misc]

    def key_of(self, row: Row) -> tuple[Any, ...]:
        """The key of a row."""
        return tuple(getattr(row, column) for column in self.key)

    def check(self, columns: Sequence[str]) -> None:
        """Raises ValueError if one of these is not a column."""
        for column in columns:
            if column not in self.columns:
                raise ValueError(f"{self.name} has no column {column!r}")


def ordered(order: Sequence[str]) -> list[tuple[str, bool]]:
    """The columns of an order, and whether each goes down: `-position` does."""
    return [(column.removeprefix("-"), column.startswith("-")) for column in order]
