"""The example's SQLite database: its tables, and the transactions that the tasks write in.

A handler may run twice, also at the same time as its double. So every write is an upsert by a natural key inside one
immediate transaction: the second one finds what the first one left and changes nothing.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOCK_TIMEOUT_S: Final = 10.0
"""How long a writer waits for the others: three steps write at the same time."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS manifest (           -- what the CSV held: valid rows, as JSON, per facility
    batch TEXT NOT NULL, shipment TEXT NOT NULL, facility TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (batch, shipment)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejections (
    batch TEXT NOT NULL, line INTEGER NOT NULL, shipment TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (batch, line)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facilities (         -- created_by: the idempotency key of the step that created it
    code TEXT PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL, docks INTEGER NOT NULL,
    max_piece_kg REAL NOT NULL, created_by TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shipments (
    id TEXT PRIMARY KEY, tracking TEXT NOT NULL UNIQUE, batch TEXT NOT NULL,
    facility TEXT NOT NULL REFERENCES facilities (code),
    origin TEXT NOT NULL, destination TEXT NOT NULL, weight_kg REAL NOT NULL, value_eur REAL NOT NULL,
    contents TEXT NOT NULL, handling TEXT NOT NULL, un_number TEXT, insured INTEGER NOT NULL,
    pallets INTEGER NOT NULL, distance_km INTEGER NOT NULL, transit_days INTEGER NOT NULL,
    pickup_date TEXT NOT NULL, delivery_date TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shipments_of_batch ON shipments (batch, facility);
CREATE TABLE IF NOT EXISTS inspections (
    shipment TEXT PRIMARY KEY REFERENCES shipments (id),
    cause TEXT NOT NULL, verdict TEXT NOT NULL, remarks TEXT NOT NULL
) WITHOUT ROWID;
"""


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A write transaction on the database at `path`, made with its directory when it is not there: all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = _connect(path)
    try:
        connection.executescript(SCHEMA)
        connection.execute("BEGIN IMMEDIATE")
        with connection:  # Commits, or rolls back when the body raises.
            yield connection
    finally:
        connection.close()


def counts(path: Path) -> dict[str, int]:
    """How many rows each table has; where there is no database, none."""
    if not path.exists():
        return {}
    with transaction(path) as db:
        tables = [row["name"] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rootpage")]
        return {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The database as it is at one moment. Rows are read by column name."""
    connection = _connect(path)
    try:
        connection.execute("BEGIN")
        yield connection
    finally:
        connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
