"""Where things are: the cities that the example ships between, and how far apart they lie. Pure."""

from itertools import pairwise
from math import asin, ceil, cos, radians, sin, sqrt
from typing import Final

CITIES: Final[dict[str, tuple[float, float]]] = {
    "Amsterdam": (52.37, 4.90),
    "Antwerp": (51.22, 4.40),
    "Barcelona": (41.39, 2.17),
    "Berlin": (52.52, 13.40),
    "Bilbao": (43.26, -2.93),
    "Bologna": (44.49, 11.34),
    "Bratislava": (48.15, 17.11),
    "Bremen": (53.08, 8.80),
    "Brno": (49.20, 16.61),
    "Bydgoszcz": (53.12, 18.01),
    "Clermont-Ferrand": (45.78, 3.09),
    "Copenhagen": (55.68, 12.57),
    "Dijon": (47.32, 5.04),
    "Elbląg": (54.16, 19.40),
    "Gdańsk": (54.35, 18.65),
    "Gdynia": (54.52, 18.53),
    "Geneva": (46.20, 6.15),
    "Göteborg": (57.71, 11.97),
    "Grenoble": (45.19, 5.72),
    "Hamburg": (53.55, 9.99),
    "Hanover": (52.37, 9.73),
    "Helsinki": (60.17, 24.94),
    "Kaunas": (54.90, 23.90),
    "Kiel": (54.32, 10.14),
    "Kraków": (50.06, 19.94),
    "Lille": (50.63, 3.07),
    "Lübeck": (53.87, 10.69),
    "Lyon": (45.76, 4.84),
    "Malmö": (55.60, 13.00),
    "Marseille": (43.30, 5.37),
    "Milan": (45.46, 9.19),
    "Munich": (48.14, 11.58),
    "Nantes": (47.22, -1.55),
    "Olsztyn": (53.78, 20.49),
    "Oslo": (59.91, 10.75),
    "Paris": (48.86, 2.35),
    "Poznań": (52.41, 16.93),
    "Prague": (50.09, 14.42),
    "Riga": (56.95, 24.11),
    "Rotterdam": (51.92, 4.48),
    "Saint-Étienne": (45.44, 4.39),
    "Stockholm": (59.33, 18.07),
    "Stuttgart": (48.78, 9.18),
    "Tallinn": (59.44, 24.75),
    "Toulouse": (43.60, 1.44),
    "Turin": (45.07, 7.69),
    "Vienna": (48.21, 16.37),
    "Vilnius": (54.69, 25.28),
    "Warsaw": (52.23, 21.01),
    "Zürich": (47.38, 8.54),
}
"""Latitude and longitude in degrees."""

EARTH_RADIUS_KM: Final = 6371.0
DETOUR: Final = 1.22
"""Roads are longer than great circles: the usual factor for Europe."""
KM_PER_DRIVING_DAY: Final = 620
"""What one driver covers in the nine hours a day that the law allows."""


def road_km(*stops: str) -> int:
    """The length of the road through the named cities, in kilometres. An unknown city is a KeyError."""
    return round(sum(_great_circle_km(a, b) for a, b in pairwise(stops)) * DETOUR)


def transit_days(distance_km: int) -> int:
    """Working days on the road; one at least."""
    return max(1, ceil(distance_km / KM_PER_DRIVING_DAY))


def _great_circle_km(start: str, end: str) -> float:
    (lat_a, lon_a), (lat_b, lon_b) = CITIES[start], CITIES[end]
    half_lat, half_lon = radians(lat_b - lat_a) / 2, radians(lon_b - lon_a) / 2
    chord = sin(half_lat) ** 2 + cos(radians(lat_a)) * cos(radians(lat_b)) * sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_KM * asin(sqrt(chord))
