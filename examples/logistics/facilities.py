"""Facilities in the database."""

import sqlite3
from dataclasses import asdict
from typing import Any

from examples.logistics.model import Facility

_UPSERT = """
INSERT INTO facilities (code, name, city, docks, max_piece_kg, created_by)
VALUES (:code, :name, :city, :docks, :max_piece_kg, :created_by)
ON CONFLICT (code) DO UPDATE SET name = :name, city = :city, docks = :docks, max_piece_kg = :max_piece_kg
"""


def create(db: sqlite3.Connection, facility: Facility, key: str) -> str:
    """Create the facility, or bring it up to date; the key of whoever created it first."""
    db.execute(_UPSERT, {**asdict(facility), "created_by": key})
    found = db.execute("SELECT created_by FROM facilities WHERE code = ?", [facility.code])
    return str(found.fetchone()["created_by"])


def find(db: sqlite3.Connection, code: str) -> dict[str, Any] | None:
    """The row of a facility, if there is one."""
    found = db.execute("SELECT * FROM facilities WHERE code = ?", [code]).fetchone()
    return dict(found) if found is not None else None


def put_back(db: sqlite3.Connection, code: str, before: dict[str, Any] | None) -> None:
    """Undo `create`: the row is what it was, or is gone."""
    if before is None:
        db.execute("DELETE FROM facilities WHERE code = ?", [code])
    else:
        db.execute(_UPSERT, before)
