"""Which shipments are looked at, and what is found. The rules are pure: the same shipment is always judged alike."""

import hashlib
import json
import sqlite3
from typing import Any, NamedTuple

from examples.logistics.model import Finding, Handling, InspectionRules, Verdict


class Inspected(NamedTuple):
    """What an inspector must know of a shipment. `max_piece_kg` is what its facility can lift."""

    id: str
    handling: Handling
    un_number: str | None
    insured: bool
    weight_kg: float
    value_eur: float
    transit_days: int
    max_piece_kg: float


def inspect(shipment: Inspected, rules: InspectionRules) -> Finding | None:
    """The finding on one shipment, or None when no rule chose it."""
    cause = _cause(shipment, rules)
    if cause is None:
        return None
    holds, notes = _holds(shipment, rules), _notes(shipment, rules)
    verdict = Verdict.HELD if holds else Verdict.NOTED if notes else Verdict.CLEARED
    return Finding(shipment.id, cause, verdict, [*holds, *notes])


def _cause(shipment: Inspected, rules: InspectionRules) -> str | None:
    """The first rule that chooses the shipment. The sample goes by a hash, so that a second run draws the same one."""
    if shipment.handling is Handling.HAZARD:
        return "hazard"
    if shipment.weight_kg >= rules.near_limit * shipment.max_piece_kg:
        return "weight"
    if shipment.handling is Handling.COLD and shipment.transit_days > 1:
        return "cold chain"
    if shipment.value_eur / shipment.weight_kg >= rules.value_per_kg_eur:
        return "value"
    if shipment.handling is Handling.FRAGILE and shipment.value_eur >= rules.fragile_value_eur:
        return "fragile"
    digest = int.from_bytes(hashlib.sha256(shipment.id.encode()).digest()[:8])
    return "sample" if digest % rules.sample_one_in == 0 else None


def _holds(shipment: Inspected, rules: InspectionRules) -> list[str]:
    """What forbids the shipment to leave."""
    holds = []
    if shipment.handling is Handling.HAZARD and shipment.un_number is None:
        holds.append("dangerous good without a UN number")
    if shipment.weight_kg > shipment.max_piece_kg:
        holds.append(f"{shipment.weight_kg:,.0f} kg is over the limit of {shipment.max_piece_kg:,.0f} kg")
    if shipment.handling is Handling.COLD and shipment.transit_days > rules.cold_transit_days:
        holds.append(f"cold chain for {shipment.transit_days} days, {rules.cold_transit_days} allowed")
    return holds


def _notes(shipment: Inspected, rules: InspectionRules) -> list[str]:
    """What the carrier should know."""
    notes = []
    if shipment.handling is Handling.FRAGILE and not shipment.insured and shipment.value_eur >= rules.fragile_value_eur:
        notes.append(f"fragile, worth {shipment.value_eur:,.0f} €, not insured")
    if shipment.value_eur / shipment.weight_kg >= rules.value_per_kg_eur:
        notes.append(f"{shipment.value_eur / shipment.weight_kg:,.0f} € per kg: needs a sealed box")
    return notes


def candidates(db: sqlite3.Connection, batch: str) -> list[Inspected]:
    """All shipments of a batch, as an inspector sees them."""
    rows = db.execute(
        "SELECT shipments.id, handling, un_number, insured, weight_kg, value_eur, transit_days, max_piece_kg "
        "FROM shipments JOIN facilities ON facilities.code = shipments.facility WHERE batch = ?",
        [batch],
    )
    return [Inspected(**{**dict(row), "handling": Handling(row["handling"]), "insured": bool(row["insured"])}) for row in rows]


def record(db: sqlite3.Connection, batch: str, findings: list[Finding]) -> None:
    """Put the findings down in the place of any earlier ones on this batch."""
    rows = [[row.shipment, row.cause, row.verdict.value, json.dumps(row.remarks, ensure_ascii=False)] for row in findings]
    put_back(db, batch, rows)


def recorded(db: sqlite3.Connection, batch: str) -> list[list[Any]]:
    """The rows of all findings on a batch."""
    rows = db.execute("SELECT inspections.* FROM inspections JOIN shipments ON id = shipment WHERE batch = ?", [batch])
    return [[*row] for row in rows]


def put_back(db: sqlite3.Connection, batch: str, before: list[list[Any]]) -> None:
    """Let the findings on a batch be these rows."""
    db.execute("DELETE FROM inspections WHERE shipment IN (SELECT id FROM shipments WHERE batch = ?)", [batch])
    db.executemany("INSERT INTO inspections (shipment, cause, verdict, remarks) VALUES (?, ?, ?, ?)", before)
