"""Reads the shippers' CSV: every row becomes a shipment or a rejection with its reason, none is lost.

A wrong row is the normal case and never an exception; a file that is no manifest at all is one (`ManifestUnreadable`).
"""

import csv
import hashlib
import io
import re
import sqlite3
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from examples.logistics.geography import CITIES
from examples.logistics.model import Handling, Rejection, Shipment

COLUMNS: Final = [
    "id", "facility", "origin", "destination", "weight_kg", "value_eur",
    "contents", "handling", "un_number", "insured", "pickup_date",
]  # fmt: skip

_ID: Final = re.compile(r"SHP-\d{4}")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")
_HANDLING: Final = {handling.value: handling for handling in Handling}
_INSURED: Final = {"yes": True, "no": False}
_T = TypeVar("_T")


class ManifestUnreadable(Exception):
    """There is no such file, it is no UTF-8, has other columns than a manifest, or not one valid row."""


class Manifest(NamedTuple):
    """What a file held. `batch` is made from its bytes: the same file is the same batch, however often it is read."""

    batch: str
    shipments: list[Shipment]
    rejections: list[Rejection]


def read(path: Path, cities: Collection[str], planning_date: date) -> Manifest:
    """The manifest in `path`. Only the facilities in these cities ship; pickups before `planning_date` are too late."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ManifestUnreadable(f"there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise ManifestUnreadable(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
    reader = csv.DictReader(io.StringIO(text), restval="")
    if reader.fieldnames != COLUMNS:
        raise ManifestUnreadable(f"{path} should have the columns {', '.join(COLUMNS)}; it has {reader.fieldnames}")
    shipments: dict[str, Shipment] = {}
    rejections = []
    for row in reader:
        try:
            shipment = _shipment(row, cities, planning_date)
            _refuse(shipment.id in shipments, f"id {shipment.id} was already used by an earlier row")
        except _Wrong as wrong:
            rejections.append(Rejection(reader.line_num, row["id"], str(wrong)))
        else:
            shipments[shipment.id] = shipment
    if not shipments:
        raise ManifestUnreadable(f"{path} has no valid shipment among {len(rejections)} rows")
    return Manifest(hashlib.sha256(content).hexdigest()[:12], list(shipments.values()), rejections)


class _Wrong(Exception):
    """A row that is no shipment; its text is the reason."""


def _shipment(row: dict[str, str], cities: Collection[str], planning_date: date) -> Shipment:
    _refuse(None in row, "more values than columns")
    for column in ("id", "facility", "origin", "destination", "contents"):
        _refuse(not row[column].strip(), f"{column} is missing")
    _refuse(not _ID.fullmatch(row["id"]), f"id {row['id']!r} is not of the form SHP-1234")
    _refuse(row["facility"] not in cities, f"facility {row['facility']!r} is none of ours")
    for column in ("origin", "destination"):
        _refuse(row[column] not in CITIES, f"{column} {row[column]!r} is not on the map")
    pickup = _date(row["pickup_date"])
    _refuse(pickup < planning_date, f"pickup date {pickup} lies before the planning date {planning_date}")
    return Shipment(
        id=row["id"],
        facility=row["facility"],
        origin=row["origin"],
        destination=row["destination"],
        weight_kg=_positive("weight_kg", row["weight_kg"]),
        value_eur=_positive("value_eur", row["value_eur"]),
        contents=row["contents"],
        handling=_one_of("handling", row["handling"], _HANDLING),
        insured=_one_of("insured", row["insured"], _INSURED),
        pickup_date=pickup,
        un_number=row["un_number"] or None,
    )


def _refuse(condition: bool, reason: str) -> None:
    if condition:
        raise _Wrong(reason)


def _positive(column: str, text: str) -> float:
    # float() would take "nan", "1e9" and "1_0"; a shipper means none of them.
    _refuse(not _NUMBER.fullmatch(text), f"{column} {text!r} is not a number")
    _refuse(float(text) <= 0, f"{column} {text} is not above zero")
    return float(text)


def _date(text: str) -> date:
    _refuse(not _DATE.fullmatch(text), f"pickup date {text!r} is not of the form YYYY-MM-DD")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _Wrong(f"pickup date {text} is not in the calendar") from None


def _one_of(column: str, text: str, known: Mapping[str, _T]) -> _T:
    _refuse(text not in known, f"{column} {text!r} is none of {', '.join(known)}")
    return known[text]


def is_kept(db: sqlite3.Connection, batch: str) -> bool:
    """Whether the database holds this batch."""
    return db.execute("SELECT 1 FROM manifest WHERE batch = ?", [batch]).fetchone() is not None


def forget(db: sqlite3.Connection, batch: str) -> None:
    """Undo `keep`."""
    db.execute("DELETE FROM manifest WHERE batch = ?", [batch])
    db.execute("DELETE FROM rejections WHERE batch = ?", [batch])


def keep(db: sqlite3.Connection, found: Manifest) -> None:
    """Put the manifest down in the database, under its batch; once more is no more."""
    db.executemany(
        "INSERT INTO manifest (batch, shipment, facility, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(found.batch, row.id, row.facility, msgspec.json.encode(row).decode()) for row in found.shipments],
    )
    db.executemany(
        "INSERT INTO rejections (batch, line, shipment, reason) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(found.batch, row.line, row.shipment, row.reason) for row in found.rejections],
    )
