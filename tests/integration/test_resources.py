"""WorkerResources of a worker on a real server: one handler at a time has an item, and it comes back however the handler ends."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import esexec
from esexec import Worker, WorkerResource
from esexec.domain.errors import ValidationError
from tests.integration.engine import Engine, until


class Items:
    """A resource whose items know who has them."""

    def __init__(self, size: int) -> None:
        self.made = self.closed = self.lent = self.most = 0

        async def factory() -> AsyncIterator["Items"]:
            self.made += 1
            yield self
            self.closed += 1

        self.resource = WorkerResource("db", factory, size)

    def __enter__(self) -> None:
        self.lent += 1
        self.most = max(self.most, self.lent)

    def __exit__(self, *_: object) -> None:
        self.lent -= 1


@esexec.task(uses=["db"], max_retries=0)
async def on_loop(ctx: esexec.Context) -> None:
    with ctx.resources["db"]:
        await asyncio.sleep(0.002)


@esexec.task(uses=["db"], max_retries=0)
def in_thread(ctx: esexec.Context) -> None:
    with ctx.resources["db"]:
        threading.Event().wait(0.002)


@esexec.task(max_retries=0)
async def free() -> str:
    return "free"


@pytest.mark.parametrize("task", [on_loop, in_thread], ids=["async", "sync"])
async def test_no_more_handlers_than_items_run_at_once(engine: Engine, task: Any) -> None:
    """F031: a pool of three for ten slots; made when needed, used again, closed with the worker."""
    items = Items(3)
    worker = Worker(engine.url, tasks=[task], namespace=engine.namespace, resources=[items.resource])
    async with worker:
        results = await asyncio.gather(*(engine.execute(task) for _ in range(30)))
        assert all(one.ok for one in results)
        assert (items.most, items.made, items.closed) == (3, 3, 0)
    assert items.closed == 3


async def test_a_resource_is_declared_on_a_worker(engine: Engine) -> None:
    """`@worker.resource("db", size=10)` above a factory; one that no task of the worker has is told when it starts."""
    worker = Worker(engine.url, tasks=[get_answer], namespace=engine.namespace)
    with pytest.raises(ValidationError) as refused:
        await worker.start()
    assert refused.value.code == "unknown_resource"

    @worker.resource("answer", size=10)
    def answer() -> int:
        return 42

    async with worker:
        assert (await engine.execute(get_answer)).result == 42
    with pytest.raises(ValidationError) as refused:
        worker.resource("answer")(lambda: 1)
    assert refused.value.code == "duplicate_resource"


@esexec.task(uses=["answer"])
async def get_answer(ctx: esexec.Context) -> Any:
    return ctx.resources["answer"]


@esexec.task(uses=["db"], timeout=0.1, max_retries=0)
async def badly(ctx: esexec.Context, how: str) -> None:
    match how:
        case "fails":
            raise ValueError("no")
        case "exits":
            raise SystemExit(1)
        case "late":
            await asyncio.sleep(60)
        case "discards":
            ctx.resources.discard("db")


@pytest.mark.parametrize("how", ["fails", "exits", "late", "discards", "bad params"])
async def test_an_item_comes_back_however_the_handler_ends(engine: Engine, how: str) -> None:
    """Failed, timed out, refused its params: the next has the item; one that was called broken is replaced."""
    items = Items(1)
    await engine.worker(badly, on_loop, resources=[items.resource])
    plan = esexec.Plan(
        "p", steps=[esexec.Step(badly, id="a", params="${input.given}")]
    )  # of which only the worker sees what it is
    await engine.execute(plan, {"given": {"what": 1} if how == "bad params" else {"how": how}})
    assert (await engine.execute(on_loop)).ok
    assert (items.made, items.closed) == ((2, 1) if how == "discards" else (1, 0))


async def test_who_waits_for_an_item_can_be_cancelled_and_holds_up_nobody(engine: Engine) -> None:
    """Waiting is not running: no start is told, others run meanwhile, and a cancel ends it at once."""
    holding, go = asyncio.Event(), asyncio.Event()

    @esexec.task(uses=["db"], timeout=0)
    async def hold() -> None:
        holding.set()
        await go.wait()

    items = Items(1)
    await engine.worker(hold, on_loop, free, resources=[items.resource])
    first = await engine.client.start(hold)
    await asyncio.wait_for(holding.wait(), 10)
    second = await engine.client.start(on_loop)
    assert (await engine.execute(free)).result == "free"
    await second.cancel()
    result = await second.wait(wait_timeout=5)
    assert (result.status, result.started_at is not None) == ("cancelled", True)
    assert "task_started" not in await engine.types(second.id)
    go.set()
    assert (await first.wait(wait_timeout=10)).ok
    assert (await engine.execute(on_loop)).ok
    assert items.made == 1


async def test_a_thread_that_is_left_to_itself_keeps_its_item(engine: Engine) -> None:
    """It still uses it, so nobody else may have it before the thread has really ended."""
    go = threading.Event()

    @esexec.task(uses=["db"], timeout=0.05, max_retries=0)
    def deaf() -> None:
        go.wait(20)

    items = Items(1)
    await engine.worker(deaf, on_loop, resources=[items.resource])
    assert (await engine.execute(deaf)).error.code == "task_timeout"
    handle = await engine.client.start(on_loop)
    assert (await engine.types(handle.id))[-1] == "task_scheduled"
    go.set()
    assert (await handle.wait(wait_timeout=10)).ok
    assert items.made == 1


async def test_a_worker_that_drains_hands_back_who_waits(engine: Engine) -> None:
    """An attempt that had no item yet goes to another worker at once, and is not reported."""
    holding = threading.Event()

    @esexec.task(uses=["db"], timeout=0)
    async def hold() -> None:
        holding.set()
        await asyncio.sleep(60)

    first = Worker(engine.url, tasks=[hold, on_loop], namespace=engine.namespace, resources=[Items(1).resource], drain_s=0.05)
    async with first:
        await engine.client.start(hold)
        await until(holding.is_set)
        handle = await engine.client.start(on_loop)
        await until(lambda: len(first._attempts) == 2)
    await engine.worker(on_loop, resources=[Items(1).resource])
    result = await handle.wait(wait_timeout=10)
    assert result.ok


async def test_a_factory_that_fails_is_the_failure_of_the_attempt(engine: Engine) -> None:
    """By its own error, so that it is tried again as that error says."""
    left = ["down"]

    @esexec.task(uses=["db"], retry_delay="1ms")
    async def use(ctx: esexec.Context) -> Any:
        return ctx.resources["db"]

    async def factory() -> str:
        if left:
            raise ConnectionError(left.pop())
        return "up"

    await engine.worker(use, resources={"db": factory})
    result = await engine.execute(use)
    assert (result.result, result.step("use").retries) == ("up", 1)


async def test_a_module_s_resources_come_with_its_tasks(engine: Engine, tmp_path: Path) -> None:
    """As `esexec worker --tasks` has them."""
    file = tmp_path / "with_resources.py"
    file.write_text(
        "import esexec\n"
        "@esexec.resource('greeting', size=2)\n"
        "def greeting() -> str:\n"
        "    return 'hello'\n"
        "@esexec.task(uses=['greeting'])\n"
        "def greet(ctx: esexec.Context, name: str) -> str:\n"
        "    return f\"{ctx.resources['greeting']} {name}\"\n"
    )
    async with Worker(engine.url, tasks=str(file), namespace=engine.namespace):
        assert (await engine.execute("greet", {"name": "ada"})).result == "hello ada"
