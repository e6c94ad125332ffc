"""The report's bar charts: what the shipments weigh per facility, and how heavy single ones are. Pure.

Colours are names of CSS classes (`site-0`, `cold`, …); the page's style gives them their values, by day and by night.
"""

from bisect import bisect_right
from itertools import pairwise
from typing import Final

from examples.logistics import svg
from examples.logistics.figures import Site
from examples.logistics.model import Handling

BINS_KG: Final = [0, 25, 50, 100, 200, 400, 800, 1600, 3200]
"""Each bin is twice as wide as the last: weights spread over two orders of magnitude. The last one is open."""


def weight_by_facility(sites: list[Site]) -> str:
    """One bar per facility, parted by how the shipments are to be handled, with a legend below."""
    left, top, row, width = 76, 4, 48, 560
    scale = (width - left - 66) / max(site.weight_kg for site in sites)
    content = []
    for number, site in enumerate(sites):
        x, y = float(left), top + number * row
        content.append(svg.text(site.city, left - 12, y + 21, "end", "name"))
        for handling in Handling:
            weight = site.weight_by_handling.get(handling, 0.0)
            bar = svg.element("rect", x=x, y=y, width=max(weight * scale - 1, 0.0), height=32, rx=3, class_=handling.value)
            content.append(svg.titled(bar, f"{site.city}, {handling.value}: {tonnes(weight)}"))
            x += weight * scale
        content.append(svg.text(tonnes(site.weight_kg), x + 8, y + 21))
    bottom = top + len(sites) * row + 10
    for number, handling in enumerate(Handling):
        x = left + number * 104
        content.append(svg.element("rect", x=x, y=bottom - 10, width=11, height=11, rx=3, class_=handling.value))
        content.append(svg.text(handling.value, x + 17, bottom))
    return svg.picture(width, bottom + 4, "Weight per facility and handling", content)


def weight_distribution(weights_kg: list[float]) -> str:
    """How many shipments weigh how much."""
    counts = [0] * len(BINS_KG)
    for weight in weights_kg:
        counts[bisect_right(BINS_KG, weight) - 1] += 1
    width, height, base = 560, 290, 266
    step = width / len(counts)
    content = [svg.element("line", x1=0, x2=width, y1=base, y2=base, class_="axis")]
    names = [f"{low} to {high} kg" for low, high in pairwise(BINS_KG)] + [f"more than {BINS_KG[-1]} kg"]
    for number, (count, name) in enumerate(zip(counts, names, strict=True)):
        tall = count / max(counts) * (base - 28)
        bar = svg.element("rect", x=number * step + 3, y=base - tall, width=step - 6, height=tall, rx=3, class_="bar")
        content.append(svg.titled(bar, f"{count} shipments of {name}"))
        content.append(svg.text(str(count), (number + 0.5) * step, base - tall - 7, "middle", "name"))
        content.append(svg.text(f"{BINS_KG[number]:,}", number * step, base + 19, "middle" if number else "start"))
    return svg.picture(width, height, "Weight of single shipments", content)


def tonnes(weight_kg: float) -> str:
    return f"{weight_kg / 1000:,.1f} t"
