"""Writes `shipments.csv`: 600 rows, the same ones at every run, ten of them wrong in ten ways.

Run it as `python -m examples.logistics.make_shipments`.
"""

import csv
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Final

from examples.logistics.manifest import COLUMNS

ROWS: Final = 600
SEED: Final = 20260302
FIRST_PICKUP: Final = date(2026, 3, 2)
TARGET: Final = Path(__file__).with_name("shipments.csv")

# Where each facility collects, where it delivers to, and its share of all shipments.
NETWORK: Final = {
    "Lyon": (
        0.38,
        ["Lyon", "Grenoble", "Saint-Étienne", "Clermont-Ferrand", "Dijon", "Geneva", "Marseille"],
        ["Paris", "Barcelona", "Bilbao", "Milan", "Turin", "Bologna", "Toulouse", "Nantes", "Zürich", "Stuttgart", "Lille"],
    ),
    "Hamburg": (
        0.35,
        ["Hamburg", "Bremen", "Lübeck", "Kiel", "Hanover"],
        ["Amsterdam", "Rotterdam", "Antwerp", "Copenhagen", "Malmö", "Göteborg", "Oslo", "Berlin", "Munich", "Prague", "Paris"],
    ),
    "Gdańsk": (
        0.27,
        ["Gdańsk", "Gdynia", "Elbląg", "Olsztyn", "Bydgoszcz"],
        ["Warsaw", "Poznań", "Kraków", "Brno", "Bratislava", "Vienna", "Vilnius", "Kaunas", "Riga", "Tallinn", "Stockholm"],
    ),
}

# Contents, handling, UN number, median weight in kg, median value in € per kg, how often.
GOODS: Final = [
    ("machine parts", "standard", "", 620, 14, 14),
    ("printed catalogues", "standard", "", 340, 4, 9),
    ("cotton textiles", "standard", "", 260, 19, 11),
    ("timber panels", "standard", "", 1400, 2, 8),
    ("steel fasteners", "standard", "", 980, 6, 9),
    ("cast pump housings", "standard", "", 2100, 11, 4),
    ("office furniture", "standard", "", 410, 12, 8),
    ("bottled wine", "fragile", "", 520, 16, 8),
    ("ceramic tiles", "fragile", "", 1100, 3, 6),
    ("laboratory glassware", "fragile", "", 90, 85, 5),
    ("medical monitors", "fragile", "", 120, 240, 4),
    ("camera lenses", "fragile", "", 24, 720, 3),
    ("cheese wheels", "cold", "", 430, 13, 5),
    ("smoked salmon", "cold", "", 180, 28, 4),
    ("vaccines", "cold", "", 35, 610, 3),
    ("lithium batteries", "hazard", "UN 3480", 160, 62, 4),
    ("solvent-based paint", "hazard", "UN 1263", 380, 8, 4),
    ("aerosol cans", "hazard", "UN 1950", 210, 9, 3),
]


def rows(random: Random) -> list[dict[str, str]]:
    """All rows, the wrong ones included, in the order of the file."""
    shipments = [_shipment(random, 1000 + number) for number in range(ROWS)]
    _spoil(shipments)
    return shipments


def _shipment(random: Random, number: int) -> dict[str, str]:
    facility = random.choices(list(NETWORK), [share for share, _, _ in NETWORK.values()])[0]
    _, origins, destinations = NETWORK[facility]
    contents, handling, un_number, weight, per_kg, _ = random.choices(GOODS, [often for *_, often in GOODS])[0]
    weight_kg = weight * random.lognormvariate(0, 0.45)
    value_eur = weight_kg * per_kg * random.lognormvariate(0, 0.3)
    if un_number and random.random() < 0.12:
        un_number = ""  # The shipper forgot it: a valid row that the inspection must hold.
    return {
        "id": f"SHP-{number}",
        "facility": facility,
        "origin": random.choice(origins),
        "destination": random.choice(destinations),
        "weight_kg": f"{weight_kg:.1f}",
        "value_eur": f"{value_eur:.2f}",
        "contents": contents,
        "handling": handling,
        "un_number": un_number,
        "insured": "yes" if random.random() < min(0.95, 0.35 + value_eur / 20_000) else "no",
        "pickup_date": (FIRST_PICKUP + timedelta(days=random.choice([0, 1, 2, 3, 4, 7, 8, 9, 10, 11]))).isoformat(),
    }


def _spoil(shipments: list[dict[str, str]]) -> None:
    """Ten of the mistakes that arrive in real files."""
    shipments[37]["weight_kg"] = "n/a"
    shipments[82]["weight_kg"] = "-14.0"
    shipments[141]["destination"] = ""
    shipments[188]["pickup_date"] = "04/03/2026"
    shipments[233]["pickup_date"] = "2026-02-30"
    shipments[304]["id"] = shipments[290]["id"]
    shipments[359]["value_eur"] = "1.250,00"
    shipments[412]["facility"] = "Rotterdam"
    shipments[476]["pickup_date"] = "2025-03-09"
    shipments[551]["destination"] = "Atlantis"


def main() -> None:
    with TARGET.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows(Random(SEED)))
    print(f"{TARGET.name}: {ROWS} rows")


if __name__ == "__main__":
    main()
