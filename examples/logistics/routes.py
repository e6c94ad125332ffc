"""The report's map: an arc from each facility to each city that it serves, as wide as what travels there is heavy. Pure."""

from math import cos, radians, sqrt
from typing import Final, NamedTuple

from examples.logistics import svg
from examples.logistics.charts import tonnes
from examples.logistics.figures import Figures, Lane
from examples.logistics.geography import CITIES

_SOUTH, _NORTH, _WEST, _EAST = 40.7, 60.7, -5.2, 28.2
_NARROW: Final = cos(radians((_SOUTH + _NORTH) / 2))
"""A degree of longitude, in degrees of latitude, in the middle of the map."""
_SCALE: Final = 29.0
_WIDTH, _HEIGHT = round((_EAST - _WEST) * _NARROW * _SCALE), round((_NORTH - _SOUTH) * _SCALE)
_CHARACTER, _LINE = 6.3, 13.0
"""About how wide and how high a letter of a town's name is."""


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "_Box") -> bool:
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom


class _Label(NamedTuple):
    """Words beside a point: where they begin, end or are centred, and the room they take."""

    x: float
    y: float
    anchor: str
    box: _Box


def draw(figures: Figures) -> str:
    """The map of a batch. Facilities have the colours `site-0`, `site-1`, …, in their order."""
    heaviest = max(lane.weight_kg for lane in figures.lanes)
    site = {found.city: number for number, found in enumerate(figures.sites)}
    served_from = {lane.destination: lane.city for lane in reversed(figures.lanes) if lane.destination not in site}
    taken = [_label(city, "right", 14).box for city in site] + [_dot(city) for city in [*site, *served_from]]
    return svg.picture(
        _WIDTH,
        _HEIGHT,
        "Map of the routes",
        [
            *(_arc(lane, site[lane.city], heaviest) for lane in reversed(figures.lanes)),
            *(_town(city, hub, taken) for city, hub in sorted(served_from.items())),
            *(_hub(city, number) for city, number in site.items()),
        ],
    )


def _place(city: str) -> tuple[float, float]:
    """A city's spot: plain degrees, longitudes narrowed as they are in the middle of the map."""
    latitude, longitude = CITIES[city]
    return (longitude - _WEST) * _NARROW * _SCALE, (_NORTH - latitude) * _SCALE


def _arc(lane: Lane, site: int, heaviest: float) -> str:
    (x1, y1), (x2, y2) = _place(lane.city), _place(lane.destination)
    bend_x, bend_y = (x1 + x2) / 2 + (y2 - y1) * 0.18, (y1 + y2) / 2 - (x2 - x1) * 0.18
    path = f"M{x1:.1f} {y1:.1f}Q{bend_x:.1f} {bend_y:.1f} {x2:.1f} {y2:.1f}"
    line = svg.element("path", d=path, class_=f"route site-{site}", stroke_width=1 + 7 * sqrt(lane.weight_kg / heaviest))
    return svg.titled(line, f"{lane.city} → {lane.destination}: {lane.shipments} shipments, {tonnes(lane.weight_kg)}")


def _hub(city: str, site: int) -> str:
    x, y = _place(city)
    return svg.element("circle", cx=x, cy=y, r=9, class_=f"hub site-{site}") + svg.text(city, x + 14, y + 5, class_="hub-name")


def _town(city: str, hub: str, taken: list[_Box]) -> str:
    """A dot with the city's name on the first side that nothing else has taken, away from the hub's arc if that can be."""
    x, y = _place(city)
    away = ("right", "left") if x > _place(hub)[0] else ("left", "right")
    sides = [_label(city, side, 7) for side in (*away, "below", "above")]
    free = next((side for side in sides if not any(side.box.overlaps(box) for box in taken)), sides[0])
    taken.append(free.box)
    name = svg.text(city, free.x, free.y, free.anchor, "town-name")
    return svg.element("circle", cx=x, cy=y, r=3, class_="town") + name


def _label(city: str, side: str, gap: float) -> _Label:
    x, y = _place(city)
    long = len(city) * _CHARACTER
    left = {"right": x + gap, "left": x - gap - long}.get(side, x - long / 2)
    middle = {"below": y + gap + _LINE / 2, "above": y - gap - _LINE / 2}.get(side, y)
    anchor = {"right": "start", "left": "end"}.get(side, "middle")
    start = {"start": left, "end": left + long}.get(anchor, x)
    return _Label(start, middle + 4, anchor, _Box(left, middle - _LINE / 2, left + long, middle + _LINE / 2))


def _dot(city: str) -> _Box:
    x, y = _place(city)
    return _Box(x - 4, y - 4, x + 4, y + 4)
