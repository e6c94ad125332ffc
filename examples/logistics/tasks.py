"""The example's tasks: what `plan.yaml` calls. Each may run twice and then changes nothing the second time.

Large data stays in the database under the batch's name; what goes through the log is small enough to be read there.
"""

import asyncio
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

import esexec
from examples.logistics import bookings, database, facilities, figures, inspection, manifest, report
from examples.logistics.carrier import Consignment, QuoteRequest, own_carrier_url
from examples.logistics.model import Facility, InspectionRules, Rejection, Service, Verdict
from examples.logistics.quoting import Prices, ask


class ManifestRead(msgspec.Struct, frozen=True):
    """`accepted`: valid rows per facility's city."""

    batch: str
    rows: int
    accepted: dict[str, int]
    rejected: list[Rejection]


@esexec.task
def read_manifest(csv: Path, store: Path, cities: list[str], planning_date: date) -> ManifestRead:
    """Read and validate the CSV: valid rows wait in the database, wrong ones are reported with their reason."""
    try:
        found = manifest.read(csv, cities, planning_date)
    except manifest.ManifestUnreadable as error:
        # The file will be as wrong in a second: no retry.
        raise esexec.ExecutionError(str(error), code="manifest_unreadable", retry=False) from None
    with database.transaction(store) as db:
        manifest.keep(db, found)
    return ManifestRead(
        batch=found.batch,
        rows=len(found.shipments) + len(found.rejections),
        accepted={city: sum(shipment.facility == city for shipment in found.shipments) for city in cities},
        rejected=found.rejections,
    )


@esexec.task
async def create_facility(facility: Facility, store: Path, ctx: esexec.Context) -> dict[str, Any]:
    """Create one facility, or bring it up to date. `created` is true for the step that did, however often it runs."""

    def create() -> str:
        with database.transaction(store) as db:
            return facilities.create(db, facility, ctx.idempotency_key)

    created_by = await asyncio.to_thread(create)
    return {"code": facility.code, "city": facility.city, "created": created_by == ctx.idempotency_key}


@esexec.task
def create_shipments(facility: str, batch: str, store: Path) -> Consignment:
    """Book the batch's shipments of the facility with this code; the result is what a carrier needs to know of them."""
    with database.transaction(store) as db:
        bookings.book_all(db, batch, facility)
        return bookings.consignment(db, batch, facility)


class InspectionResult(msgspec.Struct, frozen=True):
    """`causes`: how many each rule chose. `held`: the shipments that may not leave."""

    inspected: int
    causes: dict[str, int]
    verdicts: dict[Verdict, int]
    held: list[str]


@esexec.task
def inspect_shipments(batch: str, store: Path, rules: InspectionRules) -> InspectionResult:
    """Look at the shipments that the rules choose, and record what is wrong with them."""
    with database.transaction(store) as db:
        findings = [
            finding
            for shipment in inspection.candidates(db, batch)
            if (finding := inspection.inspect(shipment, rules)) is not None
        ]
        inspection.record(db, batch, findings)
    causes = [finding.cause for finding in findings]
    verdicts = [finding.verdict for finding in findings]
    return InspectionResult(
        inspected=len(findings),
        causes={cause: causes.count(cause) for cause in sorted(set(causes))},
        verdicts={verdict: verdicts.count(verdict) for verdict in Verdict},
        held=sorted(finding.shipment for finding in findings if finding.verdict is Verdict.HELD),
    )


@esexec.task
async def quote_carrier(
    consignments: list[Consignment], service: Service, carrier_url: str | None, ctx: esexec.Context
) -> Prices:
    """Ask the carrier what it takes. Without a URL the example's own service is asked, which is busy twice."""
    return await ask(carrier_url or own_carrier_url(), QuoteRequest(service, consignments), ctx.idempotency_key)


@esexec.task
def write_report(target: Path, title: str, batch: str, store: Path, prices: Prices) -> dict[str, Any]:
    """Write the HTML report of a batch and give its figures in short."""
    with database.reading(store) as db:
        facts = figures.collect(db, batch)
    page = report.render(facts, prices, title)
    report.replace_file(target, page)
    return {
        "report": target,
        "shipments": facts.shipments,
        "weight_kg": round(facts.weight_kg, 1),
        "value_eur": round(facts.value_eur, 2),
        "rejected": len(facts.rejections),
        "held": sum(finding.verdict is Verdict.HELD for finding in facts.findings),
        "freight_eur": round(sum(quote.price_eur for quote in prices.quotes), 2),
    }
