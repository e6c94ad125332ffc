"""The words of the example: facilities, shipments and what is said about them. Data only."""

from dataclasses import dataclass, field
from datetime import date
from enum import Enum

import msgspec


class Handling(Enum):
    """How a shipment wants to be treated on its way."""

    STANDARD = "standard"
    FRAGILE = "fragile"
    COLD = "cold"
    HAZARD = "hazard"


class Service(Enum):
    """What is ordered from the carrier."""

    ECONOMY = "economy"
    EXPRESS = "express"


class Verdict(Enum):
    """What an inspection ends with: it may travel, it may with a remark, it stays."""

    CLEARED = "cleared"
    NOTED = "noted"
    HELD = "held"


@dataclass(frozen=True)
class Facility:
    """A site that ships. Its code begins its tracking numbers and is its natural key."""

    code: str
    name: str
    city: str
    docks: int
    max_piece_kg: float


class Shipment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One valid row of the CSV. `un_number` names a dangerous good; without one nobody may carry it."""

    id: str
    facility: str
    origin: str
    destination: str
    weight_kg: float
    value_eur: float
    contents: str
    handling: Handling
    insured: bool
    pickup_date: date
    un_number: str | None = None


class Rejection(msgspec.Struct, frozen=True):
    """A row that is no shipment, with the reason in words. `line` is the file's, counted from 1."""

    line: int
    shipment: str
    reason: str


@dataclass(frozen=True)
class InspectionRules:
    """When a shipment is looked at, and what is wrong with it then. The plan sets them, these are the usual values."""

    sample_one_in: int = 12
    near_limit: float = 0.9
    fragile_value_eur: float = 10_000
    cold_transit_days: int = 2
    value_per_kg_eur: float = 600


@dataclass(frozen=True)
class Finding:
    """What an inspector wrote down about one shipment. `cause` is the rule that chose it."""

    shipment: str
    cause: str
    verdict: Verdict
    remarks: list[str] = field(default_factory=list)
