"""The tasks of `examples/logistics` as plain functions, on a real SQLite file and the real carrier over HTTP.

No engine runs here. Every task is called twice where a redelivery could call it twice.
"""

import asyncio
import json
import os
import sqlite3
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from xml.etree import ElementTree

import msgspec
import pytest

import esexec
from esexec.domain.messages import Dispatch
from esexec.domain.references import resolve
from esexec.failures import describe
from esexec.plans import Plan
from esexec.tasks import collect
from examples.logistics import database, facilities, make_shipments, tasks
from examples.logistics.bookings import after_working_days, tracking_number
from examples.logistics.carrier import Carrier, Consignment
from examples.logistics.model import Facility, InspectionRules, Service
from examples.logistics.quoting import Prices

EXAMPLE = Path(make_shipments.__file__).parent
CSV = EXAMPLE / "shipments.csv"
INPUT: dict[str, Any] = json.loads((EXAMPLE / "input.json").read_text(encoding="utf-8"))
FACILITIES = {name: Facility(**facility) for name, facility in INPUT["facilities"].items()}
CITIES = [facility.city for facility in FACILITIES.values()]
PLANNING_DATE = date.fromisoformat(INPUT["planning_date"])
TABLES = ("manifest", "rejections", "facilities", "shipments", "inspections")

REASONS = {
    39: "weight_kg 'n/a' is not a number",
    84: "weight_kg -14.0 is not above zero",
    143: "destination is missing",
    190: "pickup date '04/03/2026' is not of the form YYYY-MM-DD",
    235: "pickup date 2026-02-30 is not in the calendar",
    306: "id SHP-1290 was already used by an earlier row",
    361: "value_eur '1.250,00' is not a number",
    414: "facility 'Rotterdam' is none of ours",
    478: "pickup date 2025-03-09 lies before the planning date 2026-03-02",
    553: "destination 'Atlantis' is not on the map",
}


def context(step: str, attempt: int = 1, execution: str = "monday") -> esexec.Context:
    return esexec.Context(Dispatch(execution_id=execution, step=step, task=step, attempt=attempt))


def rows(store: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(store)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def everything(store: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {table: rows(store, f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES}


def read(store: Path) -> tasks.ManifestRead:
    return tasks.read_manifest(CSV, store, CITIES, PLANNING_DATE, context("manifest"))


def book(facility: str, batch: str, store: Path) -> Consignment:
    return tasks.create_shipments(facility, batch, store, context(f"{facility}-shipments"))


async def consign(store: Path) -> list[Consignment]:
    """All up to the inspection: what the plan's first seven steps do."""
    batch = read(store).batch
    for name, facility in FACILITIES.items():
        await tasks.create_facility(facility, store, context(name))
    return [book(facility.code, batch, store) for facility in FACILITIES.values()]


async def quote(consignments: list[Consignment], execution: str) -> Prices:
    """The carrier's prices, retried as the engine would, but without the waits."""
    for attempt in (1, 2):
        with pytest.raises(HTTPError, match="503"):
            await tasks.quote_carrier(consignments, Service.EXPRESS, None, context("quote", attempt, execution))
    return await tasks.quote_carrier(consignments, Service.EXPRESS, None, context("quote", 3, execution))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "shipments.db"


def test_the_shipped_csv_is_the_generated_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CSV in the repository is byte for byte what its script writes."""
    monkeypatch.setattr(make_shipments, "TARGET", tmp_path / "shipments.csv")
    make_shipments.main()
    assert (tmp_path / "shipments.csv").read_bytes() == CSV.read_bytes()


def test_wrong_rows_are_reported_with_line_and_reason(store: Path) -> None:
    """Each wrong row is rejected for its own reason, under its line in the file; all others are accepted."""
    found = read(store)
    assert {row.line: row.reason for row in found.rejected} == REASONS
    assert found.rows == 600
    assert sum(found.accepted.values()) == 590
    assert rows(store, "SELECT count(*) FROM rejections") == [(10,)]
    lines = CSV.read_text(encoding="utf-8").splitlines()
    assert all(lines[row.line - 1].startswith(row.shipment) for row in found.rejected)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "there is no file"),
        (b"id,weight\nSHP-1000,3\n", "should have the columns"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"", "should have the columns"),
        (CSV.read_bytes().splitlines()[0], "no valid shipment among 0 rows"),
    ],
)
def test_a_file_that_is_no_manifest_fails_for_good(tmp_path: Path, store: Path, content: bytes | None, complaint: str) -> None:
    """A missing, foreign or empty file fails the step with a reason and without retries."""
    file = tmp_path / "other.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(esexec.ExecutionError, match=complaint) as raised:
        tasks.read_manifest(file, store, CITIES, PLANNING_DATE, context("manifest"))
    assert raised.value.retry is False
    assert raised.value.code == "manifest_unreadable"


def test_rows_of_another_length_are_rejected(tmp_path: Path, store: Path) -> None:
    """A row with too few or too many values is rejected like any other wrong one."""
    lines = CSV.read_text(encoding="utf-8").splitlines()[:4]
    file = tmp_path / "ragged.csv"
    file.write_text("\n".join([*lines, "SHP-7000,Lyon", lines[1].replace("SHP-1000", "SHP-7001") + ",more"]), encoding="utf-8")
    found = tasks.read_manifest(file, store, CITIES, PLANNING_DATE, context("manifest"))
    assert [row.reason for row in found.rejected] == ["origin is missing", "more values than columns"]


async def test_a_facility_is_created_once(store: Path) -> None:
    """Who created a facility says so at every attempt; another execution brings it up to date and did not create it."""
    lyon = FACILITIES["lyon"]
    first = await tasks.create_facility(lyon, store, context("lyon"))
    again = await tasks.create_facility(lyon, store, context("lyon", attempt=2))
    wider = msgspec.convert({**INPUT["facilities"]["lyon"], "docks": 20}, Facility)
    other = await tasks.create_facility(wider, store, context("lyon", execution="tuesday"))
    assert (first["created"], again["created"], other["created"]) == (True, True, False)
    assert rows(store, "SELECT code, docks FROM facilities") == [("LYS", 20)]


async def test_every_valid_row_becomes_a_shipment_of_its_facility(store: Path) -> None:
    """The consignments, the shipments table and the manifest agree in number and weight."""
    consignments = await consign(store)
    booked = rows(store, "SELECT facility, count(*), round(sum(weight_kg), 1) FROM shipments GROUP BY facility")
    assert sorted(booked) == sorted((found.facility, found.shipments, found.weight_kg) for found in consignments)
    assert sum(found.shipments for found in consignments) == 590
    assert rows(store, "SELECT count(DISTINCT tracking) FROM shipments") == [(590,)]
    assert rows(store, "SELECT count(*) FROM shipments WHERE delivery_date <= pickup_date") == [(0,)]


async def test_doubles_at_the_same_time_change_nothing(store: Path) -> None:
    """Two workers that run the same steps at once, as after a lost lease, both succeed and leave one set of rows."""

    async def first_steps() -> list[Consignment]:
        batch = (await asyncio.to_thread(read, store)).batch
        await asyncio.gather(*(tasks.create_facility(FACILITIES[name], store, context(name)) for name in FACILITIES))
        return await asyncio.gather(*(asyncio.to_thread(book, code, batch, store) for code in ("LYS", "HAM", "GDN")))

    first, second, third = await asyncio.gather(first_steps(), first_steps(), first_steps())
    assert first == second == third
    assert rows(store, "SELECT count(*) FROM shipments") == [(590,)]


def test_a_facility_without_shipments_is_an_empty_consignment(store: Path) -> None:
    """Nothing to ship is no failure."""
    batch = read(store).batch
    with database.transaction(store) as db:
        facilities.create(db, Facility("OSL", "Oslo", "Oslo", 2, 1000), "x")
    assert book("OSL", batch, store) == Consignment("OSL", 0, 0.0, 0.0, 0)


async def test_the_inspection_holds_what_may_not_leave(store: Path) -> None:
    """Every dangerous good without a UN number and every piece over its facility's limit is held, and nothing else here."""
    await consign(store)
    result = tasks.inspect_shipments(read(store).batch, store, InspectionRules(**INPUT["rules"]), context("inspection"))
    wrong = rows(
        store,
        "SELECT id FROM shipments JOIN facilities ON code = facility "
        "WHERE (handling = 'hazard' AND un_number IS NULL) OR weight_kg > max_piece_kg "
        "OR (handling = 'cold' AND transit_days > 2) ORDER BY id",
    )
    assert result.held == [shipment for (shipment,) in wrong]
    assert 10 < len(result.held) < 30
    assert sum(result.verdicts.values()) == sum(result.causes.values()) == result.inspected
    assert rows(store, "SELECT count(*) FROM inspections") == [(result.inspected,)]


async def test_the_carrier_is_busy_twice_and_says_for_how_long() -> None:
    """Two requests are answered 503 with Retry-After, both of which the engine sees; the third has the price."""
    consignments = [Consignment("LYS", 2, 1000.0, 500.0)]
    with Carrier() as carrier:
        for attempt in (1, 2):
            with pytest.raises(HTTPError) as raised:
                await tasks.quote_carrier(consignments, Service.EXPRESS, carrier.url, context("quote", attempt))
            seen = describe(raised.value, task_id="quote", attempt=attempt, timestamp=datetime.now(UTC))
            assert (seen.code, seen.retryable, seen.retry_after_ms) == ("HTTP_503", True, 1000)
        prices = await tasks.quote_carrier(consignments, Service.EXPRESS, carrier.url, context("quote", 3))
    assert [price.facility for price in prices.quotes] == ["LYS"]
    assert prices.quotes[0].price_eur == pytest.approx((38 * 2 + 0.142 * 500) * 1.35, abs=0.01)


async def test_without_a_url_the_example_asks_its_own_carrier() -> None:
    """Each execution meets a busy carrier of its own and gets the same price."""
    consignments = [Consignment("LYS", 2, 1000.0, 500.0)]
    assert await quote(consignments, execution="a") == await quote(consignments, execution="b")


async def test_what_the_carrier_refuses_is_not_retried() -> None:
    """A 4xx is final: asking again would not help."""
    with Carrier() as carrier, pytest.raises(HTTPError) as raised:
        await tasks.quote_carrier([], Service.ECONOMY, f"{carrier.url}/elsewhere", context("quote"))
    seen = describe(raised.value, task_id="quote", attempt=1, timestamp=datetime.now(UTC))
    assert (seen.code, seen.retryable) == ("HTTP_404", False)


async def test_no_carrier_at_all_is_retried() -> None:
    """A refused connection may be gone at the next try."""
    with Carrier() as carrier:
        url = carrier.url
    with pytest.raises(URLError) as raised:
        await tasks.quote_carrier([], Service.ECONOMY, url, context("quote"))
    assert describe(raised.value, task_id="quote", attempt=1, timestamp=datetime.now(UTC)).retryable


async def test_the_plan_fills_every_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Walked from step to step, `plan.yaml` with `input.json` binds every task's parameters and ends with the report."""
    given = {**INPUT, "csv": str(CSV), "store": str(tmp_path / "s.db"), "report": str(tmp_path / "r.html")}
    plan = Plan.from_file(EXAMPLE / "plan.yaml")
    known = collect(tasks)
    outputs: dict[str, Any] = {}
    monkeypatch.setattr("examples.logistics.carrier.BUSY_ANSWERS", 0)
    for step, template in zip(plan.spec.steps, plan.graph.templates, strict=True):
        assert template is not None
        params = resolve(template, input=given, context={}, output_of=outputs.__getitem__)
        result: Any = known[step.task](**known[step.task].bind(params, context(step.id)))
        outputs[step.id] = msgspec.to_builtins(await result if known[step.task].is_async else result, enc_hook=str)
    assert outputs["report"]["shipments"] == 590
    assert ElementTree.parse(tmp_path / "r.html").findtext(".//h1") == INPUT["title"]


def test_the_plan_runs_side_by_side_what_can_be() -> None:
    """Facilities wait for the manifest alone, shipments for theirs, the report for all; only the first and last are alone."""
    graph = Plan.from_file(EXAMPLE / "plan.yaml").graph
    after = {
        step.id: {graph.steps[other].id for other in waits_for}
        for step, waits_for in zip(graph.steps, graph.dependencies, strict=True)
    }
    created = {f"{name}-shipments" for name in FACILITIES}
    assert all(after[name] == {"manifest"} for name in FACILITIES)
    assert all(after[f"{name}-shipments"] == {"manifest", name} for name in FACILITIES)
    assert after["quote"] == created
    assert after["inspection"] == created | {"manifest"}
    assert after["report"] == {"manifest", "inspection", "quote"}
    alone = [step.id for step, parallel in zip(graph.steps, graph.parallel, strict=True) if not parallel]
    assert alone == ["manifest", "report"]


async def test_a_second_run_of_each_task_changes_nothing(store: Path, tmp_path: Path) -> None:
    """All tasks, run twice, give the same outputs, leave the same database and write the same report."""

    async def run(execution: str) -> tuple[Any, ...]:
        consignments = await consign(store)
        batch = read(store).batch
        inspected = tasks.inspect_shipments(batch, store, InspectionRules(**INPUT["rules"]), context("inspection"))
        prices = await quote(consignments, execution)
        result = tasks.write_report(tmp_path / "report.html", "Twice", batch, store, prices, context("report"))
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        return consignments, inspected, prices, result, page, everything(store)

    assert await run("first") == await run("second")
    assert sorted(os.listdir(tmp_path)) == ["deep", "report.html"]


async def test_the_report_is_well_formed_and_its_totals_are_right(store: Path, tmp_path: Path) -> None:
    """The page parses as XML, draws three charts, shows the database's totals, and escapes what it was given."""
    consignments = await consign(store)
    batch = read(store).batch
    inspected = tasks.inspect_shipments(batch, store, InspectionRules(), context("inspection"))
    prices = await quote(consignments, "report")
    result = tasks.write_report(tmp_path / "new" / "report.html", "Lyon <& more>", batch, store, prices, context("report"))

    page = ElementTree.parse(result["report"]).getroot()
    assert page.findtext(".//h1") == "Lyon <& more>"
    assert len(page.findall(".//svg")) == 3
    total = ["".join(cell.itertext()) for cell in page.findall(".//tr[@class='total']/td")]
    assert total[2] == f"{sum(found.shipments for found in consignments)}" == "590"
    assert total[4] == f"{sum(found.weight_kg for found in consignments) / 1000:,.1f} t"
    assert total[6] == str(len(inspected.held)) == str(result["held"])
    assert total[7] == f"{sum(price.price_eur for price in prices.quotes):,.0f} €"
    words = "\n".join(page.itertext())
    assert all(reason in words for reason in REASONS.values())
    assert (result["shipments"], result["rejected"]) == (590, 10)


@pytest.mark.parametrize("slip", ["SHP-1235", "SHP-9234", "SHP-2134", "SHP-1324", "SHP-1243"])
def test_the_check_digit_finds_a_slip_of_the_pen(slip: str) -> None:
    """One wrong digit, or two neighbours swapped, make another check digit."""
    assert tracking_number("LYS", slip)[-1] != tracking_number("LYS", "SHP-1234")[-1]


def test_trucks_rest_at_weekends() -> None:
    """A working day after a Friday is the Monday."""
    assert after_working_days(date(2026, 3, 6), 1) == date(2026, 3, 9)
    assert after_working_days(date(2026, 3, 2), 0) == date(2026, 3, 2)
