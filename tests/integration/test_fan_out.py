"""Many at once, and whose a start is: map, gather, blocks that cancel, handles that nobody keeps, closures."""

import asyncio
import gc
import warnings
from dataclasses import dataclass

import pytest

import esexec
from esexec import Err, ExecutionCancelled, ExecutionError, Ok
from tests.integration.engine import QUICK, Engine, until


@dataclass
class Point:
    x: int
    y: int = 0


class Gauge:
    """How many calls run at once, and which were made."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.called: list[int] = []

    async def __aenter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    async def __aexit__(self, *_: object) -> None:
        self.now -= 1


@pytest.fixture
async def gauge(engine: Engine) -> Gauge:
    """A worker with the tasks `double`, `strict`, `shifted` and `stuck`."""
    gauge = Gauge()

    @esexec.task
    async def double(x: int) -> int:
        async with gauge:
            gauge.called.append(x)
            await asyncio.sleep(0.01 * (x % 3))
            return 2 * x

    @esexec.task(max_retries=0)
    async def strict(x: int, ctx: esexec.Context) -> int:
        gauge.called.append(x)
        if x == 2:
            raise ExecutionError("two is not taken", code="two", retry=False)
        return x + int(ctx.context.get("more", 0))

    @esexec.task
    async def shifted(x: int) -> Point:
        return Point(x + 1)

    @esexec.task
    async def stuck(x: int = 0) -> None:
        gauge.called.append(x)
        await asyncio.Event().wait()

    await engine.worker(double, strict, shifted, stuck, queues={"default": 50})
    return gauge


@pytest.mark.parametrize("rows", [0, 1, 150])
async def test_a_map_is_one_execution_with_its_outputs_in_order(engine: Engine, gauge: Gauge, rows: int) -> None:
    """However its calls end, the outputs stand as the rows stood; of no rows nothing is made."""
    answer = await engine.client.map("double", [{"x": row} for row in range(rows)], concurrency=20, wait_timeout=20)
    assert answer == [2 * row for row in range(rows)]
    assert len(await engine.client.list_ids()) == (1 if rows else 0)
    assert gauge.most <= 20
    assert sorted(gauge.called) == [*range(rows)]


async def test_the_concurrency_of_a_map_is_kept(engine: Engine, gauge: Gauge) -> None:
    """Of 30 calls three run at once, never more."""
    await engine.client.map("double", ({"x": 2} for _ in range(30)), concurrency=3, wait_timeout=20)
    assert gauge.most == 3


async def test_a_map_raises_what_a_row_failed_with(engine: Engine, gauge: Gauge) -> None:
    """The error is the handler's own, and says in which row; the execution goes on no further."""
    with pytest.raises(ExecutionError, match="two is not taken") as raised:
        await engine.client.map("strict", [{"x": x} for x in range(6)], concurrency=1, execution_id="failing", wait_timeout=10)
    assert raised.value.code == "two"
    assert "row-2" in "".join(raised.value.__notes__)
    assert gauge.called == [0, 1, 2]
    assert await engine.client.status("failing") == "failed"


async def test_a_map_gives_errors_in_their_place(engine: Engine, gauge: Gauge) -> None:
    """With `return_errors` the others go on, and each row has its own outcome; the context reaches all of them."""
    answer = await engine.client.map(
        "strict", [{"x": x} for x in range(4)], return_errors=True, context={"more": 10}, wait_timeout=10
    )
    assert answer[:2] == [Ok(10), Ok(11)]
    assert answer[3] == Ok(13)
    match answer[2]:
        case Err(error):
            assert (error.code, error.message) == ("two", "two is not taken")
        case _:
            pytest.fail("it was to fail")


async def test_a_cancelled_map_tells_of_each_row(engine: Engine, gauge: Gauge) -> None:
    """What did not end is an error that says so, also what never began."""
    mapping = asyncio.create_task(
        engine.client.map("stuck", [{"x": x} for x in range(3)], concurrency=1, return_errors=True, execution_id="stopped")
    )
    await until(lambda: gauge.called)
    await engine.client.cancel("stopped")
    outcomes = await asyncio.wait_for(mapping, 10)
    assert [type(one) for one in outcomes] == [Err] * 3
    assert all(isinstance(one, Err) and isinstance(one.error, ExecutionCancelled) for one in outcomes)


async def test_the_same_map_again_gives_the_same(engine: Engine, gauge: Gauge) -> None:
    """With an idempotency key it may be called again after whatever went wrong: the calls are not made twice."""
    for _ in range(2):
        assert await engine.client.map("double", [{"x": 1}, {"x": 2}], idempotency_key="m", wait_timeout=10) == [2, 4]
    assert len(gauge.called) == 2


@pytest.mark.parametrize("rows", [[{"x": 1}, 7], "abc", [[1]]])
async def test_what_is_no_row_is_refused(engine: Engine, rows: list[object]) -> None:
    """Rows are params by name; anything else is refused before anything is started."""
    with pytest.raises(esexec.ValidationError) as refused:
        await engine.client.map("double", rows)
    assert refused.value.code == "bad_row"


async def test_text_in_rows_is_never_a_reference(engine: Engine) -> None:
    """Rows are data, whatever stands in them."""

    @esexec.task
    async def same(text: str) -> str:
        return text

    await engine.worker(same)
    text = "${input[1].text} $${x} ${"
    assert await engine.client.map(same, [{"text": text}, {"text": "secret"}], wait_timeout=10) == [text, "secret"]


async def test_gather_keeps_the_order_of_the_handles(engine: Engine, gauge: Gauge) -> None:
    """Outputs of executions that end in any order stand as their handles stood; ids will do as well."""
    handles = [await engine.client.start("double", {"x": x}) for x in (2, 0, 1)]
    assert await engine.client.gather([handles[0], handles[1].id, handles[2]], wait_timeout=10) == [4, 0, 2]
    assert await engine.client.gather([]) == []


async def test_gather_raises_the_first_error_and_cancels_nothing(engine: Engine, gauge: Gauge) -> None:
    """Who gathers stops to wait; the other executions go on."""
    bad, long = await engine.client.start("strict", {"x": 2}), await engine.client.start("stuck")
    with pytest.raises(ExecutionError, match="two is not taken"):
        await engine.client.gather([long, bad])
    assert not (await long.status()).is_final
    answer = await engine.client.gather([bad, long], return_errors=True, wait_timeout=0.2)
    assert [type(one.error) for one in answer if isinstance(one, Err)] == [ExecutionError, esexec.AwaitTimeout]
    await long.cancel()


# Blocks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaving", [None, KeyError, asyncio.CancelledError])
async def test_a_block_that_is_left_early_cancels(engine: Engine, gauge: Gauge, leaving: type[BaseException] | None) -> None:
    """Whether it comes to its end, raises or is cancelled: an execution that has not ended is not left behind."""
    with pytest.raises(leaving) if leaving else warnings.catch_warnings():
        async with engine.client.start("stuck") as handle:
            await until(lambda: gauge.called)
            if leaving:
                raise leaving
    assert (await handle.wait(wait_timeout=10)).status == "cancelled"


async def test_a_block_whose_execution_ended_cancels_nothing(engine: Engine, gauge: Gauge) -> None:
    """Whether its end was waited for or not, what completed stays completed."""
    async with engine.client.start("double", {"x": 4}) as handle:
        assert await handle.result() == 8
    assert await handle.status() == "completed"
    async with engine.client.start("double", {"x": 5}) as handle:
        await until(lambda: 5 in gauge.called)
    assert (await handle.wait()).status in ("completed", "cancelled")


async def test_a_timeout_within_a_block_cancels(engine: Engine, gauge: Gauge) -> None:
    """Who waits only so long, and has nobody go on for nothing, waits in a block."""
    with pytest.raises(esexec.AwaitTimeout):
        async with engine.client.start("stuck") as handle:
            await handle.result(wait_timeout=0.1)
    assert (await handle.wait(wait_timeout=10)).status == "cancelled"


async def test_what_is_not_the_block_s_is_left_alone(engine: Engine, gauge: Gauge) -> None:
    """Neither what was detached, nor what another start had begun, is cancelled."""
    async with engine.client.start("stuck", idempotency_key="k") as handle:
        handle.detach()
    async with engine.client.start("stuck", idempotency_key="k") as again:
        assert (again.id, again.duplicate) == (handle.id, True)
    assert not (await handle.status()).is_final
    await handle.cancel()


@pytest.mark.parametrize("engine", [None], indirect=True)
async def test_a_start_that_is_given_up_is_cancelled(engine: Engine) -> None:
    """A block that never began, since nobody confirmed its start, leaves nothing behind either."""
    client = await engine.another_client(confirm_s=0.2)
    with pytest.raises(esexec.NotConfirmed) as unsure:
        async with client.start("nothing"):
            pytest.fail("nobody has confirmed it")
    await engine.executor()
    assert (await unsure.value.handle.wait(wait_timeout=10)).status == "cancelled"


async def test_a_start_is_a_coroutine(engine: Engine, gauge: Gauge) -> None:
    """Whatever takes one takes it: tasks, groups of them, gather, a wait that is bounded."""
    async with asyncio.TaskGroup() as group:
        one = group.create_task(engine.client.start("double", {"x": 1}))
    two, three = await asyncio.gather(engine.client.start("double", {"x": 2}), engine.client.start("double", {"x": 3}))
    four = await asyncio.wait_for(engine.client.start("double", {"x": 4}), 10)
    assert await engine.client.gather([one.result(), two, three, four], wait_timeout=10) == [2, 4, 6, 8]


# Orphans ---------------------------------------------------------------------------------------------------------------


async def warned(start: object) -> list[str]:
    """What is warned of when the handle of a start is dropped."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await start  # type: ignore[misc]
        gc.collect()
    return [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)]


async def test_an_orphan_is_warned_of(engine: Engine, gauge: Gauge) -> None:
    """A handle that is dropped unused leaves an execution that nobody can name."""
    (text,) = await warned(engine.client.start("double", {"x": 1}))
    assert "handle is gone unused" in text
    assert text.split()[1] in await engine.client.list_ids()


async def test_who_knows_the_execution_is_not_warned(engine: Engine, gauge: Gauge) -> None:
    """An id or a key that the caller has, a look at the id, a wait, a block or `detach`: there is no orphan."""

    async def used(how: str) -> None:
        handle = await engine.client.start("double", {"x": 1})
        if how == "id":
            assert handle.id
        elif how == "detach":
            handle.detach()
        else:
            await getattr(handle, how)()

    assert await warned(engine.client.start("double", {"x": 1}, execution_id="mine")) == []
    assert await warned(engine.client.start("double", {"x": 1}, idempotency_key="mine")) == []
    for how in ("id", "wait", "cancel", "detach", "status"):
        assert await warned(used(how)) == [], how

    async def in_a_block() -> None:
        async with engine.client.start("double", {"x": 1}):
            pass

    assert await warned(in_a_block()) == []
    assert await warned(engine.client.run("double", {"x": 1})) == []


# Values and closures ---------------------------------------------------------------------------------------------------


async def test_try_run_gives_errors_as_values(engine: Engine, gauge: Gauge) -> None:
    """Failures and refusals are values; where there is no outcome as yet, that is raised."""
    assert await engine.client.try_run("double", {"x": 2}) == Ok(4)
    for outcome, kind in (
        (await engine.client.try_run("strict", {"x": 2}), ExecutionError),
        (await engine.client.try_run("no task?"), esexec.ValidationError),
    ):
        assert isinstance(outcome, Err) and isinstance(outcome.error, kind)
    with pytest.raises(esexec.AwaitTimeout):
        await engine.client.try_run("stuck", wait_timeout=0.1, execution_id="s")
    await engine.client.cancel("s")


async def test_a_closure_lays_params_over_its_own(engine: Engine, gauge: Gauge) -> None:
    """The call's params win key by key, its options likewise; the context is that of the closure."""
    strict = engine.client.closure("strict", {"x": 1}, context={"more": 5}, wait_timeout=10)
    assert [await strict(), await strict({"x": 3}), await strict({"x": 3}, context={"more": 1})] == [6, 8, 4]
    start = engine.client.async_closure("strict", {"x": 1}, **QUICK)
    handle = await start({"x": 4}, execution_id="by-closure")
    assert (handle.id, await handle.result()) == ("by-closure", 4)
    async with start() as handle:
        assert await handle.result() == 1
    with pytest.raises(esexec.ValidationError) as refused:
        engine.client.closure("strict", [1])
    assert refused.value.code == "bad_params"


async def test_the_output_of_a_task_has_its_type(engine: Engine, gauge: Gauge) -> None:
    """Who gives the task itself gets what it returns; who gives its name gets JSON."""

    @esexec.task
    async def shifted(x: int) -> Point:
        raise NotImplementedError

    assert await engine.client.run(shifted, {"x": 1}) == Point(2)
    assert await (await engine.client.start(shifted, {"x": 1})).result() == Point(2)
    assert await engine.client.map(shifted, [{"x": 1}], wait_timeout=10) == [Point(2)]
    assert await engine.client.map(shifted, [{"x": 1}], return_errors=True, wait_timeout=10) == [Ok(Point(2))]
    assert await engine.client.run("shifted", {"x": 1}) == {"x": 2, "y": 0}

    @esexec.task(name="double")
    async def changed(x: int) -> Point:
        raise NotImplementedError

    with pytest.raises(esexec.ValidationError) as unexpected:
        await engine.client.run(changed, {"x": 1})
    assert unexpected.value.code == "unexpected_output"
