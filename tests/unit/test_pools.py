"""The resources of a worker: made when needed, lent to one at a time, given back whatever happens, closed at the end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from esexec.domain.errors import ExecutionError, ValidationError
from esexec.domain.flow import Resource
from esexec.domain.messages import Dispatch
from esexec.tasks import Context, WorkerResource, collect, collect_resources, resource, task
from esexec.worker.pools import Lent, Pools


class Thing:
    """What is lent; counts those that were made and closed."""

    made = closed = 0

    def __init__(self) -> None:
        Thing.made += 1
        self.number = Thing.made


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Thing.made = Thing.closed = 0


async def async_function() -> Thing:
    return Thing()


def sync_function() -> Thing:
    assert threading.current_thread() is not threading.main_thread()
    return Thing()


async def async_generator() -> AsyncIterator[Thing]:
    yield Thing()
    Thing.closed += 1


def sync_generator() -> Iterator[Thing]:
    assert threading.current_thread() is not threading.main_thread()
    yield Thing()
    assert threading.current_thread() is not threading.main_thread()
    Thing.closed += 1


@asynccontextmanager
async def async_manager() -> AsyncIterator[Thing]:
    yield Thing()
    Thing.closed += 1


@contextmanager
def sync_manager() -> Iterator[Thing]:
    yield Thing()
    Thing.closed += 1


FACTORIES = [async_function, sync_function, async_generator, sync_generator, async_manager, sync_manager, Thing]


def pools(factory: Any = async_generator, size: int = 1) -> Pools:
    return Pools([WorkerResource("db", factory, size)])


async def lend(pools: Pools, timeout_s: float | None = None) -> Lent:
    return await pools.lend(["db"], timeout_s)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)
async def test_every_kind_of_factory_makes_items_and_closes_what_it_can(factory: Any) -> None:
    """Async and sync, functions and generators; what is sync runs in a thread. An item is used again, and closed at the end."""
    all_ = pools(factory)
    first = await lend(all_)
    first.give_back()
    second = await lend(all_)
    assert first.resources["db"] is second.resources["db"]
    assert Thing.made == 1
    second.give_back()
    await all_.close()
    assert Thing.closed == (1 if "generator" in factory.__name__ or "manager" in factory.__name__ else 0)


async def test_nothing_is_made_before_it_is_needed() -> None:
    """A worker whose tasks never use a resource never makes it; and no more are made than are used at once."""
    all_ = pools(size=10)
    assert Thing.made == 0
    lent = [await lend(all_) for _ in range(3)]
    assert (Thing.made, len({one.resources["db"].number for one in lent})) == (3, 3)


async def test_who_comes_when_all_are_lent_waits_in_line() -> None:
    """First come first served; the loop goes on meanwhile."""
    all_ = pools()
    held = await lend(all_)
    waiting = [asyncio.create_task(lend(all_)) for _ in range(3)]
    await turns()
    assert not any(one.done() for one in waiting)
    for one in waiting:
        held.give_back()
        held = await one
    assert Thing.made == 1


async def test_who_stops_waiting_loses_no_item() -> None:
    """Also where it was given an item in the same moment: then the next in line has it."""
    all_ = pools()
    held = await lend(all_)
    first, second, third = (asyncio.create_task(lend(all_)) for _ in range(3))
    await turns()
    first.cancel()
    await turns()
    held.give_back()
    second.cancel()
    got = await third
    assert first.cancelled()
    assert second.cancelled()
    got.give_back()
    (await lend(all_)).give_back()
    assert Thing.made == 1


async def test_an_item_that_is_broken_is_closed_and_replaced() -> None:
    """`discard` says so; who waits gets a new one."""
    all_ = pools()
    broken = await lend(all_)
    waiting = asyncio.create_task(lend(all_))
    await turns()
    broken.resources.discard("db")
    broken.give_back()
    assert (await waiting).resources["db"].number == 2
    assert Thing.closed == 1


async def test_a_factory_that_fails_fails_who_asked_and_nobody_else() -> None:
    """Its error is that of the attempt; the place is free for the next, who tries again."""
    failing = [ConnectionError("down"), SystemExit(3)]

    async def factory() -> Thing:
        if failing:
            raise failing.pop(0)
        return Thing()

    all_ = pools(factory)
    first, second = asyncio.create_task(lend(all_)), asyncio.create_task(lend(all_))
    with pytest.raises(ConnectionError):
        await first
    with pytest.raises(ExecutionError, match="SystemExit"):
        await second
    assert (await lend(all_)).resources["db"].number == 1


async def test_a_factory_that_takes_too_long_is_not_waited_for() -> None:
    """The attempt fails with a code; what is made all the same is for the next."""
    go = asyncio.Event()

    async def factory() -> Thing:
        await go.wait()
        return Thing()

    all_ = pools(factory)
    with pytest.raises(ExecutionError) as late:
        await lend(all_, 0.01)
    assert (late.value.code, late.value.info.retryable) == ("resource_timeout", True)
    next_ = asyncio.create_task(lend(all_))
    await turns()
    go.set()
    assert (await next_).resources["db"].number == 1


async def test_who_is_cancelled_while_its_item_is_made_leaves_it_to_others() -> None:
    """Nothing leaks: the item is made once, and lent to the next."""
    go = asyncio.Event()

    async def factory() -> Thing:
        await go.wait()
        return Thing()

    all_ = pools(factory)
    first = asyncio.create_task(lend(all_))
    await turns()
    first.cancel()
    await turns()
    go.set()
    assert (await lend(all_)).resources["db"].number == 1


async def test_of_several_resources_none_is_kept_if_one_cannot_be_had() -> None:
    """What was taken is given back when another fails."""

    async def broken() -> None:
        raise OSError("no")

    all_ = Pools([WorkerResource("a", async_generator), WorkerResource("b", broken)])
    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            await all_.lend(["a", "b"], None)
    assert (await all_.lend(["a"], None)).resources["a"].number == 1


async def test_what_is_given_back_after_the_end_is_closed_then() -> None:
    """A handler that is left to itself keeps its item until it ends."""
    all_ = pools(size=2)
    abandoned, other = await lend(all_), await lend(all_)
    other.give_back()
    await all_.close()
    assert Thing.closed == 1
    abandoned.give_back()
    await turns()
    assert Thing.closed == 2


async def test_an_item_that_cannot_be_closed_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The others are closed all the same."""

    async def factory() -> AsyncIterator[Thing]:
        yield Thing()
        Thing.closed += 1
        raise OSError("stuck")

    all_ = pools(factory, 2)
    for one in [await lend(all_), await lend(all_)]:
        one.give_back()
    await all_.close()
    assert Thing.closed == 2
    assert caplog.text.count("could not be closed") == 2


# What a handler sees -------------------------------------------------------------------------------------------------------


def test_a_handler_has_what_its_task_uses_and_nothing_else() -> None:
    """Whatever else it asks for is refused with a hint; in tests of a handler anything can be given."""
    ctx = Context(Dispatch(execution_id="e", step="s", task="t"), resources={"db": 7})
    assert (ctx.resources["db"], "db" in ctx.resources, [*ctx.resources], ctx.resources.get("x", 1)) == (7, True, ["db"], 1)
    for asked in (lambda: ctx.resources["x"], lambda: ctx.resources.discard("x"), lambda: _bare().resources["db"]):
        with pytest.raises(ExecutionError) as refused:
            asked()
        assert refused.value.code == "resource_not_used"
        assert "uses=" in (refused.value.hint or "")


@pytest.mark.parametrize("lent", [None, {"db": 1}])
def test_what_was_allocated_is_not_looked_for_among_the_resources_of_the_worker(lent: Any) -> None:
    """Both are called resources: the hint says where those of the pools are."""
    gpu = Resource("r1-1", "rack", "gpu", 1.0)
    ctx = Context(Dispatch(execution_id="e", step="s", task="t", allocated=(gpu,)), resources=lent)
    with pytest.raises(ExecutionError, match=r"ctx\.allocated"):
        ctx.resources["gpu"]
    with pytest.raises(ExecutionError, match="uses="):
        ctx.resources["x"]
    assert dict(ctx.resources) == (lent or {})


def _bare() -> Context:
    return Context(Dispatch(execution_id="e", step="s", task="t"))


def test_resources_are_found_beside_the_tasks() -> None:
    """Of a module or a list; a name has one resource."""

    @resource("db", size=3)
    def connect() -> int:
        return 5

    @task(uses=["db", "a", "db"])
    def work() -> None: ...

    assert (connect(), connect.name, connect.size, work.uses) == (5, "db", 3, ("a", "db"))
    assert [*collect([work, connect])] == ["work"]
    assert collect_resources([work, connect, connect]) == {"db": connect}
    assert collect_resources((), {"a": connect, "db": connect})["a"].factory is connect.factory
    with pytest.raises(ValidationError) as refused:
        collect_resources([connect], {"db": lambda: 1})
    assert refused.value.code == "duplicate_resource"


@pytest.mark.parametrize(
    "make",
    [
        lambda: WorkerResource("_db", Thing),
        lambda: WorkerResource("", Thing),
        lambda: WorkerResource("db", Thing, 0),
        lambda: WorkerResource("db", Thing, True),
        lambda: WorkerResource("db", Thing, 1001),
        lambda: WorkerResource("db", lambda url: url),
        lambda: WorkerResource("db", 7),  # type: ignore[arg-type]
        lambda: task(uses="db")(lambda: 1),
        lambda: task(uses=["a b"])(lambda: 1),
        lambda: task(uses=5)(lambda: 1),  # type: ignore[call-overload]
        lambda: task(cache="1h")(lambda: 1),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_refused_where_it_is_declared(make: Any) -> None:
    """With a code and a hint."""
    with pytest.raises(ValidationError) as refused:
        make()
    assert refused.value.code in ("invalid_resource", "invalid_task")
    assert refused.value.hint
