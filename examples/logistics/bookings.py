"""What a facility adds to a shipment when it takes it on: tracking number, pallets, distance, delivery date.

All of it follows from the shipment and the facility alone, so that a second booking is the same one.
"""

import sqlite3
from datetime import date, timedelta
from math import ceil
from typing import Any, Final

import msgspec

from examples.logistics.carrier import Consignment
from examples.logistics.geography import road_km, transit_days
from examples.logistics.model import Shipment

PALLET_KG: Final = 700

_COLUMNS: Final = (
    "id", "tracking", "batch", "facility", "origin", "destination", "weight_kg", "value_eur", "contents", "handling",
    "un_number", "insured", "pallets", "distance_km", "transit_days", "pickup_date", "delivery_date",
)  # fmt: skip
# A shipment that an earlier file announced is brought up to date: the newer file knows better.
_UPSERT: Final = (
    f"INSERT INTO shipments ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])}"
)
_TOTAL: Final = """
SELECT count(*) AS shipments, round(total(weight_kg), 1) AS weight_kg,
       round(total(weight_kg * distance_km) / 1000, 1) AS tonne_km, count(*) FILTER (WHERE handling = 'hazard') AS hazardous
FROM shipments WHERE batch = ? AND facility = ?
"""


def book_all(db: sqlite3.Connection, batch: str, facility: str) -> None:
    """Book everything that the batch's manifest holds for the facility with this code."""
    db.executemany(_UPSERT, _bookings(db, batch, facility))


class Before(msgspec.Struct):
    """What the shipments of a booking were before it: those that stay as they are, and the rows of those that it changes."""

    same: list[str]
    changed: list[dict[str, Any]]


def before_booking(db: sqlite3.Connection, batch: str, facility: str) -> Before:
    """What `book_all` finds, for its undoing."""
    same, changed = [], []
    for booking in _bookings(db, batch, facility):
        row = db.execute("SELECT * FROM shipments WHERE id = ?", [booking["id"]]).fetchone()
        if row is None:
            continue
        if dict(row) == booking:
            same.append(row["id"])
        else:
            changed.append(dict(row))
    return Before(same, changed)


def put_back(db: sqlite3.Connection, batch: str, facility: str, before: Before) -> None:
    """Undo `book_all`: what it added is gone, what it changed is what it was."""
    booked = db.execute("SELECT id FROM shipments WHERE batch = ? AND facility = ?", [batch, facility]).fetchall()
    stay = {*before.same, *(row["id"] for row in before.changed)}
    db.executemany("DELETE FROM shipments WHERE id = ?", [[row["id"]] for row in booked if row["id"] not in stay])
    db.executemany(_UPSERT, before.changed)


def _bookings(db: sqlite3.Connection, batch: str, facility: str) -> list[dict[str, Any]]:
    """The rows that a booking writes."""
    city = db.execute("SELECT city FROM facilities WHERE code = ?", [facility]).fetchone()["city"]
    waiting = db.execute("SELECT body FROM manifest WHERE batch = ? AND facility = ?", [batch, city]).fetchall()
    shipments = (msgspec.json.decode(row["body"], type=Shipment) for row in waiting)
    return [_booking(shipment, batch, facility, city) for shipment in shipments]


def consignment(db: sqlite3.Connection, batch: str, facility: str) -> Consignment:
    """What the facility wants carried: the sum of its bookings of this batch."""
    return Consignment(facility=facility, **dict(db.execute(_TOTAL, [batch, facility]).fetchone()))


def tracking_number(facility: str, shipment: str) -> str:
    """The facility's code, the shipment's digits and a check digit, which finds one wrong digit or two swapped ones."""
    digits = "".join(filter(str.isdigit, shipment)).zfill(8)
    check = sum(weight * int(digit) for weight, digit in enumerate(digits, start=2)) % 11
    return f"{facility}{digits}{'X' if check == 10 else check}"


def after_working_days(start: date, days: int) -> date:
    """The date `days` working days after `start`; trucks rest on Saturday and Sunday."""
    end = start
    while days:
        end += timedelta(days=1)
        days -= end.weekday() < 5
    return end


def _booking(shipment: Shipment, batch: str, facility: str, city: str) -> dict[str, Any]:
    """A row of the shipments table: collected at the origin, through the facility, to the destination."""
    distance_km = road_km(shipment.origin, city, shipment.destination)
    days = transit_days(distance_km)
    return {
        **msgspec.to_builtins(shipment),
        "tracking": tracking_number(facility, shipment.id),
        "batch": batch,
        "facility": facility,
        "pallets": ceil(shipment.weight_kg / PALLET_KG),
        "distance_km": distance_km,
        "transit_days": days,
        "delivery_date": after_working_days(shipment.pickup_date, days).isoformat(),
    }
