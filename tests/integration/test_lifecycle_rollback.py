"""Rollback on a running engine: in reverse order of completion, each undoing with retries, whoever is restarted meanwhile."""

import asyncio
from typing import Any

import pytest

import esexec
from esexec import Plan, Step
from tests.integration.engine import KINDS, QUICK, Engine, until
from tests.integration.site import WAIT_S, Shaker, Site, has, phase

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)


class Shop:
    """A table of rows outside. Tasks of every name that is undone by convention, each undoing written down."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.undone: list[str] = []

        @esexec.task
        async def create_row(name: str) -> dict[str, str]:
            self.rows[name] = "new"
            return {"name": name, "receipt": f"r-{name}"}

        @esexec.task
        async def delete_row(name: str, ctx: esexec.Context) -> None:
            await ctx.before({"name": name, "value": self.rows[name]})
            del self.rows[name]
            self.undone.append(f"delete {name} ({ctx.purpose})")

        @esexec.task
        async def update_row(name: str, value: str, ctx: esexec.Context) -> None:
            await ctx.before({"value": self.rows[name]})
            self.rows[name] = value
            self.undone.append(f"update {name} to {value} ({ctx.purpose})")

        @esexec.task
        async def recreate_row(name: str, value: str) -> None:
            self.rows[name] = value
            self.undone.append(f"recreate {name} as {value}")

        @esexec.task
        async def book(place: str) -> dict[str, str]:
            self.rows[place] = "booked"
            return {"booking": f"b-{place}"}

        @book.compensate
        async def unbook(place: str, booking: str) -> None:
            del self.rows[place]
            self.undone.append(f"unbook {place} ({booking})")

        @esexec.task(max_retries=0)
        async def fail() -> None:
            raise esexec.ExecutionError("no", code="NO", retry=False)

        self.tasks = [create_row, delete_row, update_row, recreate_row, book, fail]


@everywhere
async def test_the_three_ways_to_name_what_undoes(engine: Engine) -> None:
    """F230-F232: by the task's own compensation, by the step, by the inverse name; params with the output's fields over them."""
    shop = Shop()
    await engine.worker(*shop.tasks)
    steps = [
        Step("create_row", id="created", params={"name": "a"}),
        Step("book", id="booked", params={"place": "dock"}),
        Step("book", id="other", params={"place": "ship"}, compensate="delete_place"),
    ]
    undone: list[tuple[str, str]] = []

    @esexec.task
    async def delete_place(place: str, booking: str) -> None:
        del shop.rows[place]
        undone.append((place, booking))

    await engine.worker(delete_place, *shop.tasks, queues={"undo": 1})
    plan = Plan("p", steps=[*steps, Step("fail", id="failed", depends_on=["created", "booked", "other"])])
    result = await engine.execute(plan, queue="undo")
    assert (result.status, result.rollback_status, shop.rows) == ("rolled_back", "completed", {})
    assert undone == [("ship", "b-ship")]
    assert shop.undone == ["unbook dock (b-dock)", "delete a (compensation)"]
    assert result.error is not None
    assert result.error.code == "NO"


@everywhere
async def test_what_was_is_put_back_from_its_image(engine: Engine) -> None:
    """F237-F239: an update is undone by an update to the image, a deletion by the step's own recreation from it."""
    shop = Shop()
    shop.rows = {"a": "old", "b": "here"}
    await engine.worker(*shop.tasks)
    steps = [
        Step("update_row", id="updated", params={"name": "a", "value": "new"}),
        Step("delete_row", id="deleted", params={"name": "b"}, compensate="recreate_row", depends_on=["updated"]),
        Step("fail", id="failed", depends_on=["deleted"]),
    ]
    handle = await engine.client.start(Plan("p", steps=steps))
    result = await handle.wait(wait_timeout=WAIT_S)
    assert result.status in ("rolled_back", "failed")
    assert shop.rows["a"] == "old"


@everywhere
async def test_the_dry_run_says_what_is_done(engine: Engine, site: Site) -> None:
    """F236: the plan of a rollback names the same steps, tasks and params, in the same order, as the rollback itself."""
    result = await engine.execute(site.row("a", "b", "c"))
    said = await engine.client.rollback_plan(result.id)
    assert [(undo.step, undo.task) for undo in said] == [(name, "build.compensate") for name in "cba"]
    undone = await (await engine.client.rollback(result.id)).wait(wait_timeout=WAIT_S)
    assert (undone.status, site.done[3:]) == ("rolled_back", ["undo c", "undo b", "undo a"])
    assert [undo.params["id"] for undo in said if undo.params] == [call["id"] for call in site.calls if "undo" in call]


@everywhere
async def test_the_order_is_that_of_completion(engine: Engine, site: Site) -> None:
    """F229: steps that overlapped are undone in the reverse of the order in which they ended, not of the plan."""
    site.shut("a", "b", "c")
    steps = [Step("build", id=name) for name in "abc"]
    handle = await engine.client.start(
        Plan("p", steps=[*steps, Step("build", id="z", depends_on=["a", "b", "c"])], parallel=True)
    )
    site.hopeless.add("z")
    for name in "bca":
        await site.at(name)
        site.open(name)
        await has(engine, handle.id, f"task_completed:{name}")
    assert (await handle.wait(wait_timeout=WAIT_S)).status == "rolled_back"
    assert site.done == ["build b", "build c", "build a", "undo a", "undo c", "undo b"]


@everywhere
async def test_an_undoing_that_fails_is_tried_again(engine: Engine, site: Site) -> None:
    """F234: with the retries of its own; meanwhile nothing before it is undone."""
    site.hopeless.add("c")
    site.fails["undo b"] = 2
    result = await engine.execute(site.row("a", "b", "c"))
    assert result.status == "rolled_back"
    assert site.done == ["build a", "build b", "undo b", "undo a"]
    assert [(call["undo"], call["attempt"]) for call in site.calls if "undo" in call] == [("b", 2), ("b", 3), ("b", 4), ("a", 2)]


async def test_what_cannot_be_undone_leaves_it_partial(engine: Engine, site: Site) -> None:
    """F235: one undoing fails for good: the others are made, the end is `failed`, and a second rollback does the rest only."""
    site.hopeless |= {"d", "undo b"}
    handle = await engine.client.start(site.row("a", "b", "c", "d"), **QUICK)
    result = await handle.wait(wait_timeout=WAIT_S)
    assert (result.status, result.rollback_status) == ("failed", "partial")
    assert site.done[3:] == ["undo c", "undo a"]
    failed = (await engine.events(handle.id))[-1]
    assert failed.not_undone == ("b",)
    site.hopeless.clear()
    undone = await (await handle.rollback()).wait(wait_timeout=WAIT_S)
    assert (undone.status, site.done[3:]) == ("rolled_back", ["undo c", "undo a", "undo b"])


async def test_what_nothing_undoes_is_listed_or_makes_it_partial(engine: Engine, site: Site) -> None:
    """F240: `skip` lists the step; `fail` makes the end partial; with nothing to compensate there is no rollback at all."""
    site.hopeless.add("c")
    steps = [
        Step("build", id="a"),
        Step("fence", id="b", depends_on=["a"]),
        Step("build", id="c", depends_on=["b"]),
    ]
    skipped = await engine.execute(Plan("p", steps=steps))
    assert (skipped.status, (await engine.events(skipped.id))[-1].skipped) == ("rolled_back", ("b",))
    strict = await engine.execute(Plan("p", steps=steps), on_missing_compensation="fail")
    assert (strict.status, strict.rollback_status) == ("failed", "partial")
    bare = await engine.execute(Plan("p", steps=[Step("fence", id="b"), Step("build", id="c", depends_on=["b"])]))
    assert (bare.status, bare.rollback_status) == ("failed", None)
    assert not any(kind.startswith(("rollback", "compensation")) for kind in await engine.types(bare.id))


async def test_a_worker_that_ends_hands_its_undoing_on(engine: Engine) -> None:
    """Taken from it in the middle, another worker undoes the step; one outcome counts."""
    site = Site()
    site.hopeless.add("c")
    site.shut("undo b")
    first = await engine.worker(*site.tasks, drain_s=0.0)
    handle = await engine.client.start(site.row("a", "b", "c"))
    await site.at("undo b")
    await engine.worker(*site.tasks, queues={"default": 5})
    await first.stop()
    site.open("undo b")
    assert (await handle.wait(wait_timeout=WAIT_S)).status == "rolled_back"
    types = await engine.types(handle.id, steps=True)
    assert [kind for kind in types if kind.startswith("compensation_completed")] == [
        "compensation_completed:b",
        "compensation_completed:a",
    ]


async def test_a_rollback_outlives_everything(alone: Engine, shake: Shaker) -> None:
    """Commanded for a completed execution, interrupted between and within undoings: each is made once, in order."""
    site = Site()
    await alone.worker(*site.tasks, lease_ms=1_000)
    result = await alone.execute(site.row("a", "b", "c"))
    await shake()
    site.shut("undo b")
    site.fails["undo c"] = 1
    handle = await alone.client.rollback(result.id, "wrong site")
    await site.at("undo b")
    await shake()
    site.open("undo b")
    undone = await handle.wait(wait_timeout=WAIT_S)
    assert (undone.status, site.order[3:]) == ("rolled_back", ["undo c", "undo b", "undo a"])


async def test_a_rollback_that_is_cancelled_can_be_taken_up_again(engine: Engine, site: Site) -> None:
    """Given up in the middle it is `cancelled` and partial; rolled back again, only what stands is undone."""
    site.shut("undo b")
    result = await engine.execute(site.row("a", "b", "c"))
    handle = await engine.client.rollback(result.id)
    await site.at("undo b")
    assert await handle.cancel() is True
    given_up = await handle.wait(wait_timeout=WAIT_S)
    assert (given_up.status, given_up.rollback_status) == ("cancelled", "partial")
    site.open("undo b")
    await handle.rollback()
    assert (await handle.wait(wait_timeout=WAIT_S)).status == "rolled_back"
    assert site.done[3:] == ["undo c", "undo b", "undo a"]


@everywhere
async def test_a_fallback_and_the_attempt_before_it_are_both_undone(engine: Engine) -> None:
    """The task timed out, so it may have done its work: after the fallback's undoing it is undone as well, without an output."""
    undone: list[tuple[str, Any]] = []
    rooms: set[str] = set()

    @esexec.task(timeout="150ms", max_retries=0)
    async def book(room: str) -> dict[str, str]:
        rooms.add(room)
        await asyncio.sleep(60)
        return {"booking": "never"}

    @book.compensate
    async def unbook(room: str, booking: str | None = None) -> None:
        rooms.discard(room)
        undone.append(("book", booking))

    @esexec.task
    async def book_elsewhere(room: str) -> dict[str, str]:
        rooms.add(f"other {room}")
        return {"booking": "b-1"}

    @book_elsewhere.compensate
    async def unbook_elsewhere(room: str, booking: str) -> None:
        rooms.discard(f"other {room}")
        undone.append(("book_elsewhere", booking))

    @esexec.task(max_retries=0)
    async def fail() -> None:
        raise ValueError("no")

    await engine.worker(book, book_elsewhere, fail)
    steps = [Step("book", id="a", params={"room": "7"}, fallback="book_elsewhere"), Step("fail", id="b", depends_on=["a"])]
    handle = await engine.client.start(Plan("p", steps=steps))
    assert (await phase(handle, "rolled_back")).rollback_status == "completed"
    assert (undone, rooms) == ([("book_elsewhere", "b-1"), ("book", None)], set())


async def test_rivals_roll_it_back_once(engine: Engine, site: Site) -> None:
    """Ten clients ask for it at once: one rollback, each step undone once."""
    result = await engine.execute(site.row("a", "b"))
    clients = [await engine.another_client() for _ in range(5)]
    asked = await asyncio.gather(*(client.rollback(result.id) for client in clients * 2), return_exceptions=True)
    assert sum(isinstance(one, esexec.Handle) for one in asked) == 1
    await until(lambda: len(site.done) >= 4)
    assert (await engine.client.wait(result.id, wait_timeout=WAIT_S)).status == "rolled_back"
    assert site.done == ["build a", "build b", "undo b", "undo a"]
