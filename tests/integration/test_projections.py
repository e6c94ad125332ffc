"""Read models on a real server: they come to hold what the log holds, once, whatever happens; and they are asked over NATS."""

import asyncio
import uuid
from pathlib import Path
from typing import Any, ClassVar

import pytest
from eventsourcing.persistence import OperationalError, Tracking

import esexec
from esexec import Plan, Step, Unavailable, ValidationError
from esexec.domain import events as e
from esexec.log import codec
from esexec.nats.connection import Connection
from esexec.nats.streams import delete_streams, ensure_streams
from projections.asks import ListExecutions
from projections.memory import MemoryStore, MemoryView
from projections.projection import Projection, RecordedEvent
from projections.role import Projector
from projections.sqlite import SqliteStore
from projections.tables import Table
from tests.integration.engine import Engine, until

COUNTS = Table("counts", key=("type",), columns={"type": str, "count": int})


class Counting(Projection):
    """Counts events by type: an event that came twice, or not at all, shows."""

    name = "counting"
    tables = (COUNTS,)
    fails_on: ClassVar[Any] = None

    def process_event(self, domain_event: RecordedEvent, tracking: Tracking) -> None:
        kind = e.type_of(domain_event.event)
        if self.fails_on is not None and self.fails_on(domain_event):
            raise ZeroDivisionError("on purpose")
        row = self.view.get(COUNTS, kind) or COUNTS.row(kind, 0)
        self.view.put(COUNTS, [row._replace(count=row.count + 1)])


@esexec.task
async def fine(number: int) -> int:
    return number * 2


@esexec.task(max_retries=0)
async def bad() -> None:
    raise esexec.ExecutionError("no", retry=False)


TWO = Plan(
    "two", steps=[Step("fine", id="a", params={"number": 1}), Step("fine", id="b", params={"number": "${steps.a.output}"})]
)


async def counted(engine: Engine) -> dict[str, int]:
    """What the log holds, by a count of one's own."""
    counts: dict[str, int] = {}
    for entity in await engine.client.list_ids(shared=True):
        for commit in await engine.client._log.load(entity):
            for event in codec.decode(commit.data).events:
                counts[e.type_of(event)] = counts.get(e.type_of(event), 0) + 1
    return counts


def told(projector: Projector) -> dict[str, int]:
    return {row.type: row.count for row in projector.runners["counting"].view.select(COUNTS)}


@pytest.fixture
async def site(engine: Engine) -> Engine:
    await engine.worker(fine, bad)
    return engine


async def test_lists_hold_what_was_started(site: Engine) -> None:
    """By status, plan, metadata and time, newest first, page by page; each answer says what it is as of."""
    await site.projector()
    client, ids = site.client, []
    for number in range(7):
        result = await client.execute(TWO, metadata={"batch": "x" if number % 2 else "y", "n": number})
        ids.append(result.execution_id)
    failed = await client.execute("bad", execution_id="oh-no")
    newest = list(reversed(ids))

    page = await client.executions.list(after=failed.position)
    assert [one.execution_id for one in page] == ["oh-no", *newest]
    assert page.as_of.position >= failed.position
    assert page.as_of.time is not None
    assert page.items[0].status == "failed"
    assert page.items[0].error is not None
    assert [one.id for one in await client.executions.list(status="failed")] == ["oh-no"]
    assert [one.id for one in await client.executions.list(status=["failed", "completed"], limit=3)] == ["oh-no", *newest[:2]]
    assert [one.id for one in await client.executions.list(name="two", metadata={"batch": "x"})] == newest[1::2]
    assert [one.id for one in await client.executions.list(metadata={"batch": "x", "n": 3})] == [ids[3]]
    assert [one.id for one in await client.executions.list(metadata={"batch": "x"}, status="failed")] == []
    first = await client.get_or_raise(ids[2])
    assert first.created_at is not None
    assert [one.id for one in await client.executions.list(since=first.created_at, name="two")] == newest[:-2]
    assert [one.id for one in await client.executions.list(until=first.created_at)] == newest[-2:]
    assert [one.id for one in await client.executions.by_plan(first.plan_id)] == newest
    assert [one.id for one in await client.executions.recent(2)] == ["oh-no", newest[0]]

    seen, cursor = [], None
    while True:
        page = await client.executions.list(limit=3, cursor=cursor)
        seen += [one.id for one in page]
        cursor = page.cursor
        if cursor is None:
            break
        assert len(page) == 3
    assert seen == ["oh-no", *newest]


async def test_tasks_are_listed(site: Engine) -> None:
    """By status, task and execution; one is had with its output, or by its history."""
    await site.projector()
    client = site.client
    result = await client.execute(TWO, execution_id="one")
    bad = await client.execute("bad", execution_id="two")
    page = await client.tasks.list(after=bad.position)
    assert [(one.id, one.status) for one in page] == [("two/bad", "failed"), ("one/b", "completed"), ("one/a", "completed")]
    assert [one.id for one in await client.tasks.list(status="failed")] == ["two/bad"]
    assert [one.id for one in await client.tasks.list(name="fine", limit=1)] == ["one/b"]
    rest = await client.tasks.list(name="fine", limit=1, cursor=(await client.tasks.list(name="fine", limit=1)).cursor)
    assert ([one.id for one in rest], rest.cursor) == (["one/a"], None)
    assert [one.id for one in await client.tasks.list(execution_id="one", after=result.position)] == ["one/b", "one/a"]
    one = await client.tasks.get("one/b")
    assert one is not None
    assert (one.output, one.status) == (4, "completed")
    assert await client.tasks.get("one/c") is None
    assert await client.tasks.get("nobody/c") is None
    assert [entry.type for entry in await client.tasks.history("one/b")] == ["task_scheduled", "task_started", "task_completed"]


@pytest.mark.slow
async def test_what_cannot_be_asked_is_answered(site: Engine, connection: Connection) -> None:
    """With a code, by whoever answers; and nobody being there is told as that."""
    with pytest.raises(Unavailable) as nobody:
        await site.client.executions.recent()
    assert nobody.value.code == "no_projections"
    await site.projector()
    for conditions, code in [
        ({"limit": 0}, "bad_limit"),
        ({"limit": 1_001}, "bad_limit"),
        ({"cursor": "1.2.3.4"}, "bad_cursor"),
        ({"cursor": "x.y"}, "bad_cursor"),
        ({"status": "finished"}, "bad_condition"),
        ({"mood": "fine"}, "bad_condition"),
    ]:
        with pytest.raises(ValidationError) as refused:
            await site.client.executions.list(**conditions)  # type: ignore[arg-type]
        assert refused.value.code == code
    for garbage in (b"{", b"\xff", b"[" * 100_000, b'{"limit":"x"}', b'{"no":1}'):
        answer = await connection.request(site.subjects.query("executions.list"), garbage)
        assert answer.headers is not None
        assert answer.headers["Nats-Service-Error-Code"] == "undecodable"
    with pytest.raises(Unavailable) as early:
        await site.client.queries.ask("executions.list", ListExecutions(after=10**9), dict)
    assert early.value.code == "not_yet"


async def test_every_event_is_counted_once(site: Engine, tmp_path: Path) -> None:
    """Also by a process that begins late, by one that goes on with the view of another, and by two at once."""
    await asyncio.gather(*(site.client.execute(TWO) for _ in range(20)))
    file = tmp_path / "views.sqlite"
    first = Projector(site.url, namespace=site.namespace, store=file, include=[Counting], only=["counting"])
    async with first:
        await asyncio.gather(*(site.client.execute(TWO) for _ in range(20)))
        await until(lambda: first.runners["counting"].position > 0)
    second = Projector(site.url, namespace=site.namespace, store=file, include=[Counting], only=["counting"])
    third = Projector(site.url, namespace=site.namespace, store=file, include=[Counting], only=["counting"])
    async with second:
        await until(lambda: second.runners["counting"].state == "working")
        async with third:
            await until(lambda: third.runners["counting"].state == "standby")
            await asyncio.gather(*(site.client.execute(TWO) for _ in range(20)))
            await second.stop()
            last = [await site.client.execute(TWO) for _ in range(3)][-1]
            await asyncio.wait_for(third.runners["counting"].reached(last.position), 5)
            assert third.runners["counting"].state == "working"
            assert told(third) == await counted(site)


async def test_a_failing_database_is_waited_for(site: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With back-off, and nothing is lost or doubled."""
    projector = await site.projector(include=[Counting])
    runner = projector.runners["counting"]
    await until(lambda: runner.state == "working")
    apply, left = runner._apply, 3

    def broken(page: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OperationalError("disk on fire")
        apply(page)

    monkeypatch.setattr(runner, "_apply", broken)
    result = await site.client.execute(TWO)
    await asyncio.wait_for(runner.reached(result.position), 8)
    assert left < 0
    assert told(projector) == await counted(site)
    assert {one.state for one in (await site.client.queries.projections()).projections} == {"working"}


async def test_a_database_that_is_away_is_told(site: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the projections are can be asked all the same, with what was known last; a list is unavailable, which is no fault."""
    site.errors_expected = True
    projector = await site.projector()
    result = await site.client.execute(TWO)
    await site.client.executions.list(after=result.position)
    assert projector.runners["executions"].status().position == result.position

    def is_away(*_: Any, **__: Any) -> Any:
        raise OperationalError("the database is away")

    for name in ("position", "witness"):
        monkeypatch.setattr(MemoryView, name, property(is_away))
    for name in ("select", "change", "amend"):
        monkeypatch.setattr(MemoryView, name, is_away)
    await site.client.execute(TWO)

    async def told_so() -> bool:
        found = (await site.client.queries.projections()).projections
        [one] = [one for one in found if one.name == "executions"]
        return (one.state, one.position, one.error) == ("retrying", result.position, "the database is away")

    await until(told_so)
    with pytest.raises(Unavailable) as refused:
        await site.client.executions.recent()
    assert refused.value.code == "no_database"


async def test_a_failing_projection_stops_upon_the_commit(site: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which one, nothing of its page is kept, the others go on; mended, it goes on there."""
    site.errors_expected = True
    store = MemoryStore()
    monkeypatch.setattr(Counting, "fails_on", lambda _, event: event.execution_id == "evil")
    projector = await site.projector(include=[Counting], store=store)
    await site.client.execute(TWO, execution_id="good")
    await site.client.execute(TWO, execution_id="evil")
    result = await site.client.execute(TWO, execution_id="after")
    runner = projector.runners["counting"]
    await until(lambda: runner.state == "failed")
    status = next(one for one in (await site.client.queries.projections()).projections if one.name == "counting")
    assert status.state == "failed"
    assert "commit 1 of evil" in status.error
    assert [one.id for one in await site.client.executions.list(after=result.position)] == ["after", "evil", "good"]
    await projector.stop()
    monkeypatch.setattr(Counting, "fails_on", None)
    again = await site.projector(include=[Counting], store=store)
    await asyncio.wait_for(again.runners["counting"].reached(result.position), 5)
    assert told(again) == await counted(site)


async def test_another_process_goes_on_with_better_code(site: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that has failed keeps nobody else from the work, though it stays up: a mended process takes over, and both answer."""
    site.errors_expected = True
    file = tmp_path / "views.sqlite"
    monkeypatch.setattr(Counting, "fails_on", lambda _, event: event.execution_id == "evil")
    old = await site.projector(include=[Counting], store=file)
    await site.client.execute(TWO, execution_id="evil")
    await until(lambda: old.runners["counting"].state == "failed")
    monkeypatch.setattr(Counting, "fails_on", None)
    new = await site.projector(include=[Counting], store=file)
    result = await site.client.execute(TWO)
    await asyncio.wait_for(new.runners["counting"].reached(result.position), 5)
    assert [one.runners["counting"].state for one in (old, new)] == ["failed", "working"]
    await old.runners["counting"].reached(result.position)
    assert told(old) == told(new) == await counted(site)


async def test_what_fails_outside_of_a_transaction_is_told_as_well(site: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A projection whose preparation throws does not pass for one that works, and nobody waits for it."""
    site.errors_expected = True

    async def fails(*_: Any) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(Counting, "prepare", fails)
    projector = await site.projector(include=[Counting])
    runner = projector.runners["counting"]
    result = await site.client.execute(TWO)
    await asyncio.wait_for(runner.reached(result.position), 5)
    status = runner.status()
    assert (status.state, status.position) == ("failed", 0)
    assert "on purpose" in status.error


async def test_a_log_that_was_replaced_is_noticed(site: Engine, tmp_path: Path, connection: Connection) -> None:
    """Restored to before a position, or to another past: the view is made anew, and has nothing of what is no more."""
    file = tmp_path / "views.sqlite"
    for number in range(3):
        await site.client.execute(TWO, execution_id=f"old-{number}")
    async with Projector(site.url, namespace=site.namespace, store=file) as projector:
        await until(lambda: projector.runners["executions"].status().lag == 0 and projector.runners["executions"].position > 8)
        before = projector.runners["executions"].position
    await connection.api(f"STREAM.DELETE.{site.subjects.log_stream}")
    await ensure_streams(connection, site.subjects)
    other = site.client
    for number in range(5):
        result = await other.execute(TWO, execution_id=f"new-{number}")
    assert result.position > before, "else its being shorter would be what is noticed"
    async with Projector(site.url, namespace=site.namespace, store=file):
        page = await other.executions.list(after=result.position)
        assert [one.id for one in page] == [f"new-{number}" for number in reversed(range(5))]


async def test_a_log_that_becomes_shorter_meanwhile_is_noticed(site: Engine, connection: Connection) -> None:
    """By a process that goes on reading: it looks where the log ends."""
    projector = await site.projector()
    for number in range(3):
        result = await site.client.execute(TWO, execution_id=f"old-{number}")
    await site.client.executions.list(after=result.position)
    before = projector.runners["executions"].position
    await connection.api(f"STREAM.DELETE.{site.subjects.log_stream}")
    await ensure_streams(connection, site.subjects)
    result = await site.client.execute(TWO, execution_id="new")
    assert result.position < before

    async def is_new() -> bool:
        return [one.id for one in await site.client.executions.recent()] == ["new"]

    await until(is_new)
    await until(lambda: all(one.status().lag == 0 for one in projector.runners.values()))


async def test_a_log_that_is_replaced_meanwhile_and_has_grown_is_noticed(site: Engine, connection: Connection) -> None:
    """By what is heard: a position that there was already is one of another log."""
    projector = await site.projector()
    result = await site.client.execute(TWO, execution_id="old")
    await site.client.executions.list(after=result.position)
    before = projector.runners["executions"].position
    await connection.api(f"STREAM.DELETE.{site.subjects.log_stream}")
    await ensure_streams(connection, site.subjects)
    for number in range(5):
        result = await site.client.execute(TWO, execution_id=f"new-{number}")
    assert result.position > before

    async def is_new() -> bool:
        return [one.id for one in await site.client.executions.recent()] == [f"new-{number}" for number in reversed(range(5))]

    await until(is_new)


async def test_a_database_that_fails_while_a_view_is_emptied_is_waited_for(
    site: Engine, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine that is restored the database starts again, too: what is to be made anew is emptied once it can be."""
    site.errors_expected = True
    projector = await site.projector()
    runner = projector.runners["executions"]
    for number in range(3):
        result = await site.client.execute(TWO, execution_id=f"old-{number}")
    await site.client.executions.list(after=result.position)
    clear, failed = MemoryView.clear, list[str]()

    def fails_once(view: MemoryView) -> None:
        if view.name == runner.view.name and not failed:
            failed.append(view.name)
            raise OperationalError("the database is starting")
        clear(view)

    monkeypatch.setattr(MemoryView, "clear", fails_once)
    await connection.api(f"STREAM.DELETE.{site.subjects.log_stream}")
    await ensure_streams(connection, site.subjects)
    await site.client.execute(TWO, execution_id="new")

    async def is_new() -> bool:
        return [one.id for one in await site.client.executions.recent()] == ["new"]

    await until(is_new)
    assert failed


async def test_another_view_can_take_its_place(site: Engine, tmp_path: Path) -> None:
    """A process that works with the old one goes on with the new."""
    store = SqliteStore(tmp_path / "views.sqlite")
    projector = await site.projector(store=store, include=[Counting])
    runner = projector.runners["counting"]
    result = await site.client.execute(TWO)
    await asyncio.wait_for(runner.reached(result.position), 5)
    new = store.view("counting_b", Counting.tables)
    store.swap("counting", new.name)

    async def swapped() -> bool:
        await site.client.execute(TWO)
        return runner.view.name == "counting_b"

    await until(swapped)
    last = await site.client.execute(TWO)
    await asyncio.wait_for(runner.reached(last.position), 5)
    assert told(projector) == await counted(site)
    await projector.stop()
    store.close()


async def test_who_is_silent_is_nudged(engine: Engine, connection: Connection) -> None:
    """What was lost of an execution that nobody hears of is brought about again; who has ended is left alone."""
    engine.errors_expected = True
    handle = await engine.client.start("fine", {"number": 4})
    await until(lambda: _waiting(connection, engine))
    await connection.api(f"STREAM.PURGE.{engine.subjects.tasks_stream}")
    await engine.worker(fine)
    await engine.projector(silent_s=0.4)
    result = await handle.wait(wait_timeout=20)
    assert result.result == 8
    assert [one.id for one in await engine.client.executions.list(status="completed", after=result.position)] == [handle.id]


async def _waiting(connection: Connection, engine: Engine) -> bool:
    return bool((await connection.api(f"STREAM.INFO.{engine.subjects.tasks_stream}"))["state"]["messages"])


async def test_who_waits_is_told_where_nothing_is_new(site: Engine, tmp_path: Path) -> None:
    """A process that goes on with a view that is up to date has caught up at once."""
    file = tmp_path / "views.sqlite"
    await site.client.execute(TWO)
    for _ in range(2):
        async with Projector(site.url, namespace=site.namespace, store=file) as projector:
            await asyncio.wait_for(projector.caught_up(), 5)
            assert projector.runners["executions"].status().lag == 0


async def test_the_feed_is_one_that_can_be_named(site: Engine) -> None:
    """It is among what a process keeps, alone or beside others, and among what there is for whoever mistypes a name."""
    assert (await site.projector()).kept == ["executions", "statistics", "alerts", "feed"]
    assert (await site.projector(only=["feed"])).kept == ["feed"]
    with pytest.raises(esexec.ValidationError) as refused:
        await site.projector(only=["fed"])
    assert refused.value.hint == "there are executions, statistics, alerts, feed"


async def test_two_namespaces_keep_apart(site: Engine, connection: Connection) -> None:
    """Questions about one are not answered by the projections of the other."""
    await site.projector()
    result = await site.client.execute(TWO)
    other = Engine(site.url, f"t{uuid.uuid4().hex[:12]}")
    async with other.stack:
        other.client = await other.another_client()
        await other.projector()
        assert len(await other.client.executions.list()) == 0
        assert len(await site.client.executions.list(after=result.position)) == 1
    await delete_streams(connection, other.subjects)


class Ticking(Counting):
    """Counts what time brings about as well."""

    name = "ticking"
    tick_s = 0.02
    ticks: ClassVar[list[bool]] = []
    broken = False

    def tick(self, *, caught_up: bool) -> bool:
        self.ticks.append(caught_up)
        if Ticking.broken:
            raise ZeroDivisionError("on purpose")
        return caught_up

    def finish(self) -> None:
        row = self.view.get(COUNTS, "ticks") or COUNTS.row("ticks", 0)
        self.view.put(COUNTS, [row._replace(count=row.count + 1)])


async def test_time_is_told_to_a_projection_that_wants_to_know(site: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while nothing happens; what comes of it is kept, without a position of its own; one that throws is stopped."""
    site.errors_expected = True
    monkeypatch.setattr(Ticking, "ticks", [])
    projector = await site.projector(include=[Ticking], store=MemoryStore(), only=["ticking"])
    runner = projector.runners["ticking"]
    await until(lambda: len(Ticking.ticks) > 3 and Ticking.ticks[-1])
    position = (await site.client.execute(TWO, execution_id="one")).position
    await until(lambda: runner.position >= position)
    at = runner.view.position
    seen = runner.view.get(COUNTS, "ticks").count
    await until(lambda: runner.view.get(COUNTS, "ticks").count > seen + 3)
    assert (runner.view.position, runner.state) == (at, "working")
    monkeypatch.setattr(Ticking, "broken", True)
    await until(lambda: runner.state == "failed")
    assert "upon the clock" in runner.status().error
