"""The example's tasks: what the plans call. Each may run twice and then changes nothing the second time.

Below each task that writes stands what undoes it. Such a task first records what it is going to change (`ctx.before`), so that
undoing gives back what was there, and not only takes away what was added. Where nothing was recorded, nothing was changed.

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
from examples.logistics.quoting import Prices, ask, order


class ManifestRead(msgspec.Struct, frozen=True):
    """`accepted`: valid rows per facility's city."""

    batch: str
    rows: int
    accepted: dict[str, int]
    rejected: list[Rejection]


@esexec.task
def read_manifest(csv: Path, store: Path, cities: list[str], planning_date: date, ctx: esexec.Context) -> ManifestRead:
    """Read and validate the CSV: valid rows wait in the database, wrong ones are reported with their reason."""
    try:
        found = manifest.read(csv, cities, planning_date)
    except manifest.ManifestUnreadable as error:
        # The file will be as wrong in a second: no retry.
        raise esexec.ExecutionError(str(error), code="manifest_unreadable", retry=False) from None
    with database.transaction(store) as db:
        known = manifest.is_kept(db, found.batch)
    ctx.before_sync({"batch": found.batch, "known": known})
    with database.transaction(store) as db:
        manifest.keep(db, found)
    return ManifestRead(
        batch=found.batch,
        rows=len(found.shipments) + len(found.rejections),
        accepted={city: sum(shipment.facility == city for shipment in found.shipments) for city in cities},
        rejected=found.rejections,
    )


@read_manifest.compensate
def forget_manifest(store: Path, ctx: esexec.Context) -> None:
    """Forget the batch, unless it was there before."""
    if ctx.has_before_image and not ctx.before_image["known"]:
        with database.transaction(store) as db:
            manifest.forget(db, ctx.before_image["batch"])


@esexec.task
async def create_facility(facility: Facility, store: Path, ctx: esexec.Context) -> dict[str, Any]:
    """Create one facility, or bring it up to date. `created` is true for the step that did, however often it runs."""

    def look() -> dict[str, Any] | None:
        with database.transaction(store) as db:
            return facilities.find(db, facility.code)

    def create() -> str:
        with database.transaction(store) as db:
            return facilities.create(db, facility, ctx.idempotency_key)

    await ctx.before(await asyncio.to_thread(look))
    created_by = await asyncio.to_thread(create)
    return {"code": facility.code, "city": facility.city, "created": created_by == ctx.idempotency_key}


@create_facility.compensate
def delete_facility(facility: Facility, store: Path, ctx: esexec.Context) -> None:
    """Delete the facility, or make it what it was."""
    if ctx.has_before_image:
        with database.transaction(store) as db:
            facilities.put_back(db, facility.code, ctx.before_image)


@esexec.task
def create_shipments(facility: str, batch: str, store: Path, ctx: esexec.Context) -> Consignment:
    """Book the batch's shipments of the facility with this code; the result is what a carrier needs to know of them."""
    with database.reading(store) as db:
        found = bookings.before_booking(db, batch, facility)
    ctx.before_sync(found)
    with database.transaction(store) as db:
        bookings.book_all(db, batch, facility)
        return bookings.consignment(db, batch, facility)


@create_shipments.compensate
def delete_shipments(facility: str, batch: str, store: Path, ctx: esexec.Context) -> None:
    """Delete the batch's shipments of the facility; those that were there before are what they were."""
    if ctx.has_before_image:
        before = msgspec.convert(ctx.before_image, bookings.Before)
        with database.transaction(store) as db:
            bookings.put_back(db, batch, facility, before)


class InspectionResult(msgspec.Struct, frozen=True):
    """`causes`: how many each rule chose. `held`: the shipments that may not leave."""

    inspected: int
    causes: dict[str, int]
    verdicts: dict[Verdict, int]
    held: list[str]


@esexec.task
def inspect_shipments(batch: str, store: Path, rules: InspectionRules, ctx: esexec.Context) -> InspectionResult:
    """Look at the shipments that the rules choose, and record what is wrong with them."""
    with database.reading(store) as db:
        earlier = inspection.recorded(db, batch)
    ctx.before_sync(earlier)
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


@inspect_shipments.compensate
def restore_inspections(batch: str, store: Path, ctx: esexec.Context) -> None:
    """Put back the findings of an earlier inspection of the batch, or none."""
    if ctx.has_before_image:
        with database.transaction(store) as db:
            inspection.put_back(db, batch, ctx.before_image)


@esexec.task
async def quote_carrier(
    consignments: list[Consignment], service: Service, carrier_url: str | None, ctx: esexec.Context
) -> Prices:
    """Ask the carrier what it takes. Without a URL the example's own service is asked, which is busy twice."""
    return await ask(carrier_url or own_carrier_url(), QuoteRequest(service, consignments), ctx.idempotency_key)


@esexec.task
async def order_carrier(prices: Prices, carrier_url: str | None, ctx: esexec.Context) -> None:
    """Order what the carrier quoted. The example's own service has no truck left, and says so in a way that allows no retry."""
    await order(carrier_url or own_carrier_url(), prices, ctx.idempotency_key)


@esexec.task
def write_report(target: Path, title: str, batch: str, store: Path, prices: Prices, ctx: esexec.Context) -> dict[str, Any]:
    """Write the HTML report of a batch and give its figures in short."""
    ctx.before_sync(target.read_text(encoding="utf-8") if target.exists() else None)
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


@write_report.compensate
def restore_report(target: Path, ctx: esexec.Context) -> None:
    """Put back the report that was there, or none."""
    if ctx.before_image is not None:
        report.replace_file(target, ctx.before_image)
    elif ctx.has_before_image:
        target.unlink(missing_ok=True)
