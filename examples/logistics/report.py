"""The HTML report: figures in, one self-contained page out; and how it reaches the disk."""

from collections.abc import Iterable
from datetime import date
from html import escape
from pathlib import Path
from string import Template
from typing import Final
from uuid import uuid4

from examples.logistics import charts, routes
from examples.logistics.charts import tonnes
from examples.logistics.figures import Figures, Reported
from examples.logistics.model import Verdict
from examples.logistics.quoting import Prices

_PAGE: Final = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))


def render(figures: Figures, prices: Prices, title: str) -> str:
    """The page, well-formed as XML too. The same figures make the same page."""
    verdicts = [finding.verdict for finding in figures.findings]
    return _PAGE.substitute(
        title=escape(title),
        span=f"Collected from {_day(figures.first_pickup)}, all delivered by {_day(figures.last_delivery)}",
        cards=_cards(figures, prices),
        routes=routes.draw(figures),
        weight_by_facility=charts.weight_by_facility(figures.sites),
        weight_distribution=charts.weight_distribution(figures.weights_kg),
        facilities=_facilities(figures, prices),
        inspection=f"{len(verdicts)} looked at, {verdicts.count(Verdict.CLEARED)} cleared",
        findings=_findings(figures),
        rejection=f"{len(figures.rejections)} of {figures.shipments + len(figures.rejections)}",
        rejected=_rejected(figures),
        batch=figures.batch,
        carrier=escape(prices.carrier),
    )


def replace_file(target: Path, content: str) -> None:
    """Put `content` where `target` is; who reads it sees the old file or the new one, never half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{uuid4().hex}.part")
    part.write_text(content, encoding="utf-8")
    part.replace(target)


def _cards(figures: Figures, prices: Prices) -> str:
    held = sum(finding.verdict is Verdict.HELD for finding in figures.findings)
    shown = {
        "shipments": f"{figures.shipments:,}",
        "weight": tonnes(figures.weight_kg),
        "value": f"{figures.value_eur / 1e6:,.2f} M€",
        "freight": _euros(sum(quote.price_eur for quote in prices.quotes)),
        "held back": str(held),
        "rows rejected": str(len(figures.rejections)),
    }
    return "".join(f'<div class="card figure"><b>{value}</b><span>{name}</span></div>' for name, value in shown.items())


def _facilities(figures: Figures, prices: Prices) -> str:
    price = {quote.facility: quote.price_eur for quote in prices.quotes}
    rows = []
    for number, site in enumerate(figures.sites):
        name = f'<span class="dot site-{number}"></span>{escape(site.city)}'
        counts = [f"{site.shipments:,}", f"{site.pallets:,}", tonnes(site.weight_kg), _euros(site.value_eur), str(site.held)]
        rows.append([name, escape(site.name), *counts, _euros(price[site.code])])
    total = [
        "Total", "", f"{figures.shipments:,}", f"{sum(site.pallets for site in figures.sites):,}", tonnes(figures.weight_kg),
        _euros(figures.value_eur), str(sum(site.held for site in figures.sites)), _euros(sum(price.values())),
    ]  # fmt: skip
    head = ["City", "Facility", "Shipments", "Pallets", "Weight", "Value", "Held back", "Freight"]
    return _table(head, ["", "", "n", "n", "n", "n", "n", "n"], rows, total)


def _findings(figures: Figures) -> str:
    """What is held stands open, what was merely noted is folded away."""
    held = _remarks(finding for finding in figures.findings if finding.verdict is Verdict.HELD)
    noted = [finding for finding in figures.findings if finding.verdict is Verdict.NOTED]
    return f"{held}<details><summary>{len(noted)} may leave with a remark</summary>{_remarks(noted)}</details>"


def _remarks(findings: Iterable[Reported]) -> str:
    rows = [
        [
            f'<span class="tag {finding.verdict.value}">{finding.verdict.value}</span>',
            finding.shipment,
            escape(finding.contents),
            finding.cause,
            escape("; ".join(finding.remarks)),
        ]
        for finding in findings
    ]
    return _table(["Verdict", "Shipment", "Contents", "Chosen for", "Remarks"], ["", "", "", "", "wide"], rows)


def _rejected(figures: Figures) -> str:
    rows = [[str(row.line), escape(row.shipment), escape(row.reason)] for row in figures.rejections]
    return _table(["Line", "Shipment", "Reason"], ["n", "", "wide"], rows)


def _table(head: list[str], classes: list[str], rows: Iterable[list[str]], total: list[str] | None = None) -> str:
    body = "".join(f"<tr>{_cells('td', row, classes)}</tr>" for row in rows)
    foot = f'<tr class="total">{_cells("td", total, classes)}</tr>' if total else ""
    return f"<table><thead><tr>{_cells('th', head, classes)}</tr></thead><tbody>{body}{foot}</tbody></table>"


def _cells(tag: str, cells: list[str], classes: list[str]) -> str:
    return "".join(f'<{tag} class="{kind}">{cell}</{tag}>' for cell, kind in zip(cells, classes, strict=True))


def _euros(amount: float) -> str:
    return f"{amount:,.0f} €"


def _day(day: date) -> str:
    return f"{day.day} {day:%B %Y}"
