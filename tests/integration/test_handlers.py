"""What goes into a handler and what comes out of it, over the wire: parameters by type, outputs, errors."""

import asyncio
import dataclasses
import enum
import threading
from datetime import UTC, datetime
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

import esexec
from esexec import ExecutionStatus, Plan, Step
from esexec.domain import limits
from tests.integration.engine import KINDS, QUICK, Engine

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Point(msgspec.Struct):
    x: int
    y: int = 0


@dataclasses.dataclass
class Box:
    size: Size
    points: list[Point]


class Address(TypedDict):
    city: str


class Order(pydantic.BaseModel):
    id: int
    note: str = "none"


async def outcome(engine: Engine, task: esexec.Task, params: Any = None) -> esexec.ExecutionResult:
    await engine.worker(task)
    return await engine.execute(task, params)


async def test_every_kind_of_parameter_comes_through(engine: Engine) -> None:
    """By name, converted by type: Struct, dataclass, TypedDict, datetime, enum, pydantic, optional, defaults, the context."""

    @esexec.task
    async def everything(
        point: Point,
        ctx: esexec.Context,
        box: Box,
        address: Address,
        when: datetime,
        size: Size,
        order: Order,
        maybe: int | None = None,
        many: tuple[int, ...] = (1, 2),
        *,
        by: str = "default",
    ) -> list[str]:
        assert isinstance(address, dict)
        return [type(value).__name__ for value in (point, ctx, box, box.points[0], when, size, order, maybe, many, by)]

    params = {
        "point": {"x": 1},
        "box": {"size": "large", "points": [{"x": 2, "y": 3}]},
        "address": {"city": "Lyon"},
        "when": "2024-05-01T12:00:00Z",
        "size": "small",
        "order": {"id": 7},
    }
    result = await outcome(engine, everything, params)
    assert result.result == [
        "Point", "Context", "Box", "Point", "datetime", "Size", "Order", "NoneType", "tuple", "str",
    ]  # fmt: skip


async def test_python_values_may_be_given_as_they_are(engine: Engine) -> None:
    """A caller may give the very objects: they travel as JSON and arrive as their types."""

    @esexec.task
    async def same(point: Point, box: Box, when: datetime, order: Order) -> bool:
        return (point, box.size, when.year, order.id) == (Point(1, 2), Size.LARGE, 2024, 7)

    params = {"point": Point(1, 2), "box": Box(Size.LARGE, []), "when": datetime(2024, 5, 1, tzinfo=UTC), "order": Order(id=7)}
    assert (await outcome(engine, same, params)).result is True


async def test_a_sync_handler_runs_in_a_thread_of_its_own(engine: Engine) -> None:
    """The loop goes on while it works."""

    @esexec.task
    def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert (await outcome(engine, where)).result is False


async def test_the_context_tells_which_attempt_it_is(engine: Engine) -> None:
    """Execution, step, task, attempt, run, queue, priority: as in the plan."""

    @esexec.task
    async def who(ctx: esexec.Context) -> list[Any]:
        return [ctx.execution_id, ctx.step, ctx.task, ctx.attempt, ctx.run, ctx.max_attempts, ctx.queue, ctx.priority]

    await engine.worker(who)
    plan = Plan("who", steps=[Step(who, id="me", priority=7, max_retries=1)])
    result = await engine.execute(plan, execution_id="e-1")
    assert result.result == ["e-1", "me", "who", 1, 1, 2, "default", 7]


@pytest.mark.parametrize(
    "params",
    [{"numbr": 1}, {}, {"number": "1"}, {"number": 1.5}, {"number": None}, {"number": 1, "ctx": {}}, [1], "1", 7],
    ids=str,
)
@everywhere
async def test_wrong_params_are_a_validation_error_and_not_retried(engine: Engine, params: Any) -> None:
    """F049, F109: one attempt, `validation_error`, which parameter and what was expected; the handler never runs."""
    calls: list[int] = []

    @esexec.task
    async def strict(number: int, ctx: esexec.Context) -> None:
        calls.append(number)

    await engine.worker(strict)
    plan = Plan("p", steps=[Step(strict, id="strict", params="${input.given}")])
    result = await engine.execute(plan, {"given": params})  # what a reference gives only the worker sees
    assert result.error is not None
    assert (result.status, result.error.type, result.error.code) == ("failed", "validation_error", "invalid_params")
    assert result.error.hint == "expected number: int"
    assert (result.results[0].attempt, calls) == (1, [])
    assert (result.error.task_id, result.error.attempt) == ("strict", 1)
    assert result.error.timestamp == result.results[0].completed_at is not None
    assert "task_started" not in await engine.types(result.id)
    with pytest.raises(esexec.ValidationError) as refused:
        await engine.execute(strict, params)
    assert (refused.value.code, refused.value.hint) == ("invalid_params", "expected number: integer")


async def test_a_pydantic_model_says_what_is_wrong(engine: Engine) -> None:
    """The model's own words, as a `validation_error`."""

    @esexec.task
    async def book(order: Order) -> None: ...

    result = await outcome(engine, book, {"order": {"id": "seven"}})
    assert result.error is not None
    assert (result.error.type, "id" in result.error.message) == ("validation_error", True)


async def test_an_unknown_task_is_an_error(engine: Engine) -> None:
    """F052: a worker that does not have the task says so, with what it has; it is not retried."""

    @esexec.task
    async def known() -> None: ...

    await engine.worker(known)
    result = await engine.execute("unknown")
    assert result.error is not None
    assert (result.error.code, result.error.hint, result.results[0].attempt) == ("unknown_task", "it has: known", 1)
    with pytest.raises(esexec.ValidationError):
        result.unwrap()


OUTPUTS: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    (0, 0),
    (-1.5, -1.5),
    ("", ""),
    ("ünï 🗝 \u0000 \u2028", "ünï 🗝 \u0000 \u2028"),
    ([], []),
    ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
    (Point(1, 2), {"x": 1, "y": 2}),
    (Box(Size.SMALL, []), {"size": "small", "points": []}),
    (Order(id=1), {"id": 1, "note": "none"}),
    (datetime(2024, 5, 1, tzinfo=UTC), "2024-05-01T00:00:00Z"),
    ((1, 2), [1, 2]),
    (10**18, 10**18),
    (10**30, 10**30),
    (1e15, 1e15),
    ("x" * 200_000, "x" * 200_000),
]


async def test_every_kind_of_output_is_kept(engine: Engine) -> None:
    """F009, F154: any JSON value, and what becomes one; read again by anyone it is the same."""

    @esexec.task
    async def give(n: int) -> Any:
        return OUTPUTS[n][0]

    await engine.worker(give)
    for n, (_, kept) in enumerate(OUTPUTS):
        result = await engine.execute("give", {"n": n})
        assert result.status == ExecutionStatus.COMPLETED
        assert result.result == kept
        assert type(result.result) is type(kept)


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: object(), "output_not_serializable"),
        (lambda: {"f": lambda: 1}, "output_not_serializable"),
        (lambda: float("nan"), "output_not_serializable"),
        (lambda: [float("inf")], "output_not_serializable"),
        (lambda: "\ud800", "output_not_serializable"),
        (_cycle, "output_not_serializable"),
        (_deep, "output_too_deep"),
        (lambda: "x" * limits.object_bytes, "output_too_large"),
    ],
    ids=["object", "function", "nan", "inf", "surrogate", "cycle", "deep", "huge"],
)
async def test_an_output_that_cannot_be_kept_fails_for_good(engine: Engine, make: Any, code: str) -> None:
    """A further try would compute it in vain: one attempt, a clear code, a hint."""
    calls: list[int] = []

    @esexec.task
    async def bad() -> Any:
        calls.append(1)
        return make()

    result = await outcome(engine, bad)
    assert result.error is not None
    assert (result.status, result.error.code, bool(result.error.hint), len(calls)) == ("failed", code, True, 1)


@everywhere
async def test_an_exception_becomes_an_error_with_code_and_stack(engine: Engine) -> None:
    """F208–F220: type, code, message, task, attempt, time, stack from the handler on, causes, the exception's name."""

    class CardDeclined(Exception):
        pass

    @esexec.task
    async def pay() -> None:
        try:
            raise OSError("no line")
        except OSError as error:
            raise CardDeclined("try another") from error

    await engine.worker(pay)
    result = await engine.execute("pay", max_retries=0)
    error = result.error
    assert error is not None
    assert (error.type, error.code, error.message) == ("execution_error", "CARD_DECLINED", "try another")
    assert (error.task_id, error.attempt, error.recoverable) == ("pay", 1, True)
    assert error.timestamp is not None
    assert error.stack is not None
    assert error.stack.startswith("Traceback")
    assert "in pay" in error.stack
    assert "esexec/worker" not in error.stack
    assert error.context["causes"] == ["OSError: no line"]
    assert error.exception is not None
    assert error.exception.endswith("CardDeclined")
    with pytest.raises(esexec.ExecutionError) as raised:
        result.unwrap()
    assert (raised.value.code, raised.value.info) == (error.code, error)
    assert result.results[0].stack == error.stack


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit], ids=lambda kind: kind.__name__)
async def test_a_handler_may_raise_anything(engine: Engine, error: type[BaseException], sync: bool) -> None:
    """Also what would end a program is only the failure of its attempt, with its retries; the worker goes on."""
    calls: list[int] = []

    def leaves() -> None:
        calls.append(1)
        raise error("bye")

    async def leaves_later() -> None:
        await asyncio.sleep(0)
        leaves()

    @esexec.task
    async def fine() -> int:
        return 1

    named = esexec.task(name="leaves")
    await engine.worker(named(leaves) if sync else named(leaves_later), fine)
    result = await engine.execute("leaves", max_retries=1, **QUICK)
    assert result.error is not None
    assert (result.status, result.error.message, len(calls)) == (ExecutionStatus.FAILED, "bye", 2)
    assert (await engine.execute("fine")).result == 1


async def test_a_step_gets_the_output_of_another_with_its_type(engine: Engine) -> None:
    """Design §5: a whole reference keeps its type, inside a text it is rendered; paths go into lists and objects."""

    @esexec.task
    async def make() -> dict[str, Any]:
        return {"list": [{"n": 7}], "text": "seven", "none": None}

    @esexec.task
    async def take(n: int, text: str, nothing: None, whole: dict[str, Any]) -> list[Any]:
        return [n, text, nothing, whole["text"]]

    await engine.worker(make, take)
    params = {
        "n": "${steps.make.output.list[0].n}",
        "text": "<${steps.make.output.list[0].n}|${input.who}>",
        "nothing": "${steps.make.output.none}",
        "whole": "${steps.make.output}",
    }
    result = await engine.execute(Plan("p", steps=[Step(make, id="make"), Step(take, id="take", params=params)]), {"who": "me"})
    assert result.result == [7, "<7|me>", None, "seven"]


async def test_a_reference_to_nothing_fails_its_step(engine: Engine) -> None:
    """What is not there at run time is that step's `validation_error`, not retried; params too large likewise."""

    @esexec.task
    async def make() -> dict[str, Any]:
        return {"large": "x" * 200_000}

    @esexec.task
    async def take(value: Any) -> None: ...

    await engine.worker(make, take)
    for value, code in (
        ("${steps.make.output.small}", "reference_unresolved"),
        ("${steps.make.output.large}" * 400, "params_too_large"),
    ):
        result = await engine.execute(Plan("p", steps=[Step(make, id="make"), Step(take, id="take", params={"value": value})]))
        assert result.error is not None
        assert (result.error.type, result.error.code, result.error.task_id) == ("validation_error", code, "take")
        assert (result.partial_results.keys(), result.step("take").attempt) == ({"make"}, 1)


@everywhere
async def test_continue_on_error_leaves_partial_results(engine: Engine) -> None:
    """F222–F224, C25: the others go on, dependents are skipped with their reason, the end is `failed` with counts."""

    @esexec.task
    async def good() -> int:
        return 1

    @esexec.task
    async def bad() -> None:
        raise esexec.ExecutionError("no", retry=False)

    await engine.worker(good, bad)
    plan = Plan(
        "p",
        steps=[
            Step(bad, id="bad"),
            Step(good, id="after", depends_on=["bad"]),
            Step(good, id="later", depends_on=["after"]),
            Step(good, id="free"),
        ],
    )
    result = await engine.execute(plan, continue_on_error=True)
    assert [str(task.status) for task in result.results] == ["failed", "skipped", "skipped", "completed"]
    assert (result.status, result.total_steps, result.completed_steps, result.failed_steps) == ("failed", 4, 1, 1)
    assert (result.step("after").skip_reason, result.partial_results) == ("dependency_failed", {"free": 1})
    stopped = await engine.execute(plan)
    assert [str(task.status) for task in stopped.results] == ["failed", "skipped", "skipped", "skipped"]


@esexec.task(name="elsewhere", max_retries=0)
def placed(fail: bool) -> str:
    if fail:
        raise ValueError("no")
    return "found"


async def test_a_task_is_found_by_where_its_function_is(engine: Engine) -> None:
    """A step may name `package.module:function` in place of the task's name, and the task's settings hold for it too."""
    await engine.worker(placed)
    place = placed.path
    assert place == f"{__name__}:placed"
    assert await engine.client.run(place, {"fail": False}, wait_timeout=5) == "found"
    failed = await engine.client.execute(place, {"fail": True}, wait_timeout=5)
    assert (failed.results[0].attempt, failed.results[0].name) == (1, place)


async def test_the_end_of_an_attempt_is_a_line_in_the_log(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """Failed at INFO, completed at DEBUG: with task, params, duration and code, as text and as fields."""
    caplog.set_level("DEBUG", logger="esexec.worker")
    await engine.worker(placed)
    for fail in (False, True):
        await engine.client.execute("elsewhere", {"fail": fail}, wait_timeout=5)
    done, failed = (record for record in caplog.records if getattr(record, "task", None) == "elsewhere")
    assert (done.levelname, failed.levelname) == ("DEBUG", "INFO")
    assert "completed after" in done.message
    assert "[VALUE_ERROR] no" in failed.message
    assert (failed.params, failed.attempt, failed.code) == ("{'fail': True}", 1, "VALUE_ERROR")  # type: ignore[attr-defined]
    assert failed.duration_ms >= 0  # type: ignore[attr-defined]
