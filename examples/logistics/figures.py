"""What a report tells, gathered from the database in one reading transaction. Read only."""

import json
import sqlite3
from datetime import date
from typing import NamedTuple

from examples.logistics.model import Handling, Rejection, Verdict


class Site(NamedTuple):
    """One facility and the sums of what it ships; weights in kg per handling."""

    code: str
    name: str
    city: str
    shipments: int
    weight_kg: float
    value_eur: float
    pallets: int
    held: int
    weight_by_handling: dict[Handling, float]


class Lane(NamedTuple):
    """What one facility sends to one city."""

    city: str
    destination: str
    shipments: int
    weight_kg: float


class Reported(NamedTuple):
    """A finding, with what its shipment contains."""

    shipment: str
    contents: str
    cause: str
    verdict: Verdict
    remarks: list[str]


class Figures(NamedTuple):
    """A batch as it stands in the database."""

    batch: str
    first_pickup: date
    last_delivery: date
    sites: list[Site]
    lanes: list[Lane]
    weights_kg: list[float]
    findings: list[Reported]
    rejections: list[Rejection]

    @property
    def shipments(self) -> int:
        return sum(site.shipments for site in self.sites)

    @property
    def weight_kg(self) -> float:
        return sum(site.weight_kg for site in self.sites)

    @property
    def value_eur(self) -> float:
        return sum(site.value_eur for site in self.sites)


_SITES = """
SELECT code, name, city, count(*) AS shipments, total(weight_kg) AS weight_kg, total(value_eur) AS value_eur,
       sum(pallets) AS pallets, count(*) FILTER (WHERE verdict = 'held') AS held
FROM shipments JOIN facilities ON code = facility LEFT JOIN inspections ON shipment = id
WHERE batch = ? GROUP BY code ORDER BY weight_kg DESC
"""
_HANDLING = "SELECT facility, handling, total(weight_kg) AS weight_kg FROM shipments WHERE batch = ? GROUP BY 1, 2"
_LANES = """
SELECT city, destination, count(*) AS shipments, total(weight_kg) AS weight_kg
FROM shipments JOIN facilities ON code = facility WHERE batch = ? GROUP BY 1, 2 ORDER BY weight_kg DESC, 1, 2
"""
_FINDINGS = """
SELECT shipment, contents, cause, verdict, remarks
FROM inspections JOIN shipments ON id = shipment WHERE batch = ? ORDER BY shipment
"""
_SPAN = "SELECT min(pickup_date), max(delivery_date) FROM shipments WHERE batch = ?"


def collect(db: sqlite3.Connection, batch: str) -> Figures:
    """The figures of a batch that has at least one shipment."""
    weights = db.execute("SELECT weight_kg FROM shipments WHERE batch = ? ORDER BY 1", [batch])
    rejections = db.execute("SELECT line, shipment, reason FROM rejections WHERE batch = ? ORDER BY line", [batch])
    first, last = db.execute(_SPAN, [batch]).fetchone()
    return Figures(
        batch=batch,
        first_pickup=date.fromisoformat(first),
        last_delivery=date.fromisoformat(last),
        sites=_sites(db, batch),
        lanes=[Lane(*row) for row in db.execute(_LANES, [batch])],
        weights_kg=[row["weight_kg"] for row in weights],
        findings=[_finding(row) for row in db.execute(_FINDINGS, [batch])],
        rejections=[Rejection(*row) for row in rejections],
    )


def _sites(db: sqlite3.Connection, batch: str) -> list[Site]:
    weights: dict[str, dict[Handling, float]] = {}
    for row in db.execute(_HANDLING, [batch]):
        weights.setdefault(row["facility"], {})[Handling(row["handling"])] = row["weight_kg"]
    return [Site(**dict(row), weight_by_handling=weights[row["code"]]) for row in db.execute(_SITES, [batch])]


def _finding(row: sqlite3.Row) -> Reported:
    return Reported(row["shipment"], row["contents"], row["cause"], Verdict(row["verdict"]), json.loads(row["remarks"]))
