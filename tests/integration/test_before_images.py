"""What handlers leave for others, on a running engine: before-images, variables, and what undoes them."""

import asyncio
import threading
from typing import Any

import pytest

import esexec
from esexec import ExecutionStatus, Plan, Step
from esexec.domain.events import BeforeImageRecorded, TaskCompleted, TaskFailed
from tests.integration.engine import KINDS, Engine, until

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)


async def images(engine: Engine, execution_id: str) -> list[Any]:
    return [event.image for event in await engine.events(execution_id) if isinstance(event, BeforeImageRecorded)]


class Table:
    """Rows that handlers change, as a database outside would hold them."""

    def __init__(self, **rows: Any) -> None:
        self.rows = rows
        self.seen: list[Any] = []


# Before-images -------------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_retry_gets_the_first_image(engine: Engine) -> None:
    """The second attempt would take what the first one wrote for what was before: it gets what truly was, at once."""
    table = Table(a=1)

    @esexec.task
    async def change(ctx: esexec.Context) -> int:
        table.seen.append((ctx.has_before_image, await ctx.before({"a": table.rows["a"]})))
        table.rows["a"] += 1
        if ctx.attempt == 1:
            raise ConnectionError("after the change")
        return int(table.rows["a"])

    await engine.worker(change)
    result = await engine.execute("change")
    assert (result.result, table.seen) == (3, [(False, {"a": 1}), (True, {"a": 1})])
    assert await images(engine, result.id) == [{"a": 1}]


async def test_another_worker_gets_the_first_image(engine: Engine) -> None:
    """An attempt that is handed out again, with the dispatch of old, hears from the executor which image stands."""
    table = Table(a=1)
    changed = asyncio.Event()

    @esexec.task
    async def change(ctx: esexec.Context) -> str:
        table.seen.append(await ctx.before(table.rows["a"]))
        table.rows["a"] += 1
        changed.set()
        if len(table.seen) == 1:
            await asyncio.sleep(60)
        return f"attempt {ctx.attempt}"

    first = await engine.worker(change, drain_s=0.0)
    handle = await engine.client.start("change")
    await asyncio.wait_for(changed.wait(), 8)
    await first.stop()
    await engine.worker(change)
    result = await handle.wait(wait_timeout=8)
    assert (result.result, table.seen) == ("attempt 1", [1, 1])
    assert await images(engine, result.id) == [1]


async def test_another_run_gets_the_first_image(engine: Engine) -> None:
    """Retried as a whole, the step that failed after its change still knows what was before."""
    table = Table(a=1)

    @esexec.task(max_retries=0)
    def change(ctx: esexec.Context) -> int:
        table.seen.append(ctx.before_sync({"a": table.rows["a"]}))
        table.rows["a"] += 1
        if ctx.run == 1:
            raise ValueError("no")
        return int(table.rows["a"])

    await engine.worker(change)
    result = await engine.execute("change", enable_rollback=False)
    assert result.status == ExecutionStatus.FAILED
    handle = await engine.client.retry(result.id)
    assert (await handle.wait(wait_timeout=8)).result == 3
    assert table.seen == [{"a": 1}, {"a": 1}]


@everywhere
async def test_a_compensation_puts_the_image_back(engine: Engine) -> None:
    """F230-F235: what undoes the step gets params and output by name, and the image; it is announced with the task."""
    table = Table(a="old")

    @esexec.task
    async def change(row: str, value: str, ctx: esexec.Context) -> dict[str, Any]:
        await ctx.before({"value": table.rows[row]})
        table.rows[row] = value
        return {"value": value, "receipt": 7}

    @change.compensate(max_retries=1, retry_delay="10ms")
    async def put_back(row: str, receipt: int, ctx: esexec.Context) -> None:
        table.seen.append((ctx.purpose, receipt, ctx.output, ctx.before_image, ctx.idempotency_key.rpartition("/")[2]))
        if len(table.seen) == 1:
            raise ConnectionError("not now")
        table.rows[row] = ctx.before_image["value"]

    @esexec.task(max_retries=0)
    def fail() -> None:
        raise ValueError("no")

    await engine.worker(change, fail)
    steps = [Step("change", id="one", params={"row": "a", "value": "new"}), Step("fail", id="two", depends_on=["one"])]
    result = await engine.execute(Plan("p", steps=steps))
    assert (result.status, result.rollback_status) == (ExecutionStatus.ROLLED_BACK, "completed")
    assert table.rows == {"a": "old"}
    assert table.seen == [("compensation", 7, {"value": "new", "receipt": 7}, {"value": "old"}, "undo")] * 2


async def test_an_image_waits_for_an_executor(engine: Engine) -> None:
    """While no executor is there the handler waits; the report is durable, and the next executor answers it."""
    ready, go = threading.Event(), threading.Event()

    @esexec.task
    def change(ctx: esexec.Context) -> Any:
        ready.set()
        go.wait(8)
        return ctx.before_sync({"n": 1})

    await engine.worker(change)
    handle = await engine.client.start("change")
    await until(ready.is_set)
    for executor in engine.executors:
        await executor.stop()
    go.set()
    await engine.executor()
    assert (await handle.wait(wait_timeout=8)).result == {"n": 1}


async def test_a_handler_that_waits_for_an_image_times_out(engine: Engine) -> None:
    """No executor is no reason to hang: the attempt ends at its timeout, and nothing was changed."""
    ready, go, changed = threading.Event(), threading.Event(), list[int]()

    @esexec.task(timeout="1s", max_retries=0)
    def change(ctx: esexec.Context) -> None:
        ready.set()
        go.wait(8)
        ctx.before_sync({"n": 1})
        changed.append(1)

    worker = await engine.worker(change)
    handle = await engine.client.start("change")
    await until(ready.is_set)
    for executor in engine.executors:
        await executor.stop()
    go.set()
    await until(lambda: not worker._attempts)
    await engine.executor()
    result = await handle.wait(wait_timeout=8)
    assert (result.status, result.step("change").timed_out, changed) == (ExecutionStatus.FAILED, 1, [])


# Variables -----------------------------------------------------------------------------------------------------------------


@everywhere
async def test_variables_flow_from_step_to_step(engine: Engine) -> None:
    """What a handler sets, the steps after it see, and the result shows; the history holds only what each one changed."""

    @esexec.task
    def begin(ctx: esexec.Context) -> None:
        ctx.vars["seen"] = ["begin"]
        ctx.vars["city"] = "Lyon"

    @esexec.task
    async def go_on(ctx: esexec.Context) -> str:
        ctx.vars["seen"].append("go_on")
        return str(ctx.vars["city"])

    await engine.worker(begin, go_on)
    result = await engine.execute(Plan("p", steps=[Step("begin", id="a"), Step("go_on", id="b", depends_on=["a"])]))
    assert result.step("b").output == "Lyon"
    assert result.variables == {"seen": ["begin", "go_on"], "city": "Lyon"}
    completed = [event.vars for event in await engine.events(result.id) if isinstance(event, TaskCompleted)]
    assert completed == [{"seen": ["begin"], "city": "Lyon"}, {"seen": ["begin", "go_on"]}]


@everywhere
async def test_a_failed_attempt_leaves_its_variables_to_the_next(engine: Engine) -> None:
    """So a handler can keep how far it came."""

    @esexec.task
    def in_parts(ctx: esexec.Context) -> int:
        part = ctx.vars["part"] = ctx.vars.get("part", 0) + 1
        if part < 3:
            raise ConnectionError("later")
        return part

    await engine.worker(in_parts)
    result = await engine.execute("in_parts")
    assert (result.result, result.variables) == (3, {"part": 3})
    failed = [event.vars for event in await engine.events(result.id) if isinstance(event, TaskFailed)]
    assert failed == [{"part": 1}, {"part": 2}]


async def test_steps_that_overlap_cannot_outgrow_the_limit_together(engine: Engine) -> None:
    """Each alone has room, both have not: the one that ends last fails, for good, and says why."""
    both = asyncio.Barrier(2)

    @esexec.task
    async def fill(name: str, ctx: esexec.Context) -> None:
        ctx.vars[name] = "x" * 40_000
        await both.wait()

    await engine.worker(fill)
    steps = [Step("fill", id=name, params={"name": name}, parallel=True) for name in "ab"]
    result = await engine.execute(Plan("p", steps=steps))
    assert result.status == ExecutionStatus.FAILED
    assert result.error is not None
    assert (result.error.code, len(result.variables)) == ("vars_too_large", 1)
