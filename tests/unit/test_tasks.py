"""Handlers: how they are declared, what they get, what they may return."""

from __future__ import annotations

import asyncio
import enum
import math
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

import esexec.tasks
from esexec.domain import limits
from esexec.domain.errors import ExecutionError, ValidationError
from esexec.domain.messages import Dispatch
from esexec.domain.reports import Completed
from esexec.domain.settings import TaskSettings
from esexec.tasks import AttemptCancelled, Task, collect, encode_with_output, task

if TYPE_CHECKING:
    from esexec.tasks import Context

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DISPATCH = Dispatch(execution_id="e1", step="s1", task="t", attempt=2, run=3, max_attempts=4, context={"tenant": "x"})
CONTEXT = esexec.tasks.Context(DISPATCH, NOW)


class Color(enum.Enum):
    RED = "red"


class Address(msgspec.Struct):
    city: str
    zip: int = 0


@dataclass
class Parcel:
    weight: float
    to: Address


class Even(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise RuntimeError("odd")


class Point(TypedDict):
    x: int


class Person(pydantic.BaseModel):
    name: str
    age: int = 0


class Pet(pydantic.BaseModel):
    barks: bool


class Household(msgspec.Struct):
    people: list[Person]


def bound(fn: Callable[..., Any], params: Any) -> dict[str, Any]:
    return task(fn).bind(params, CONTEXT)


def refusal(fn: Callable[..., Any], params: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        bound(fn, params)
    assert caught.value.code == "invalid_params"
    return caught.value


def bad_task(fn: Any, **settings: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        task(**settings)(fn)
    return caught.value


# Declaring -----------------------------------------------------------------------------------------------------------


def test_a_bare_decorator_makes_a_task() -> None:
    """`@task` names the task after the function, says nothing of settings and keeps the function callable."""

    @task
    def add(a: int, b: int = 2) -> int:
        """Add two
        numbers.

        More.
        """
        return a + b

    assert isinstance(add, Task)
    assert (add.name, add.description, add.is_async, add.settings) == ("add", "Add two numbers.", False, TaskSettings())
    assert add(1) == 3
    assert add.__name__ == "add"


async def test_an_async_task_is_awaited_as_before() -> None:
    """A decorated coroutine function still gives a coroutine."""

    @task(name="ns.double", description="Twice")
    async def double(a: int) -> int:
        await asyncio.sleep(0)
        return 2 * a

    assert (double.name, double.description, double.is_async) == ("ns.double", "Twice", True)
    assert await double(4) == 8


def test_the_settings_of_a_task() -> None:
    """Settings come as durations and numbers and are kept as milliseconds; what is not given stays unsaid."""

    @task(
        timeout="1m30s",
        retry_delay=0.5,
        max_retry_delay=timedelta(seconds=10),
        max_retry_after=60,
        max_retries=5,
        backoff_multiplier=1,
        jitter=0,
        retry_unknown=False,
        queue="slow",
        priority=9,
    )
    def fn() -> None: ...

    assert fn.settings == TaskSettings(
        timeout_ms=90_000,
        initial_retry_delay_ms=500,
        max_retry_delay_ms=10_000,
        max_retry_after_ms=60_000,
        max_retries=5,
        backoff_multiplier=1,
        jitter=0,
        retry_unknown=False,
        queue="slow",
        priority=9,
    )


def test_timeout_zero_is_said() -> None:
    """A timeout of 0 means none, which is not the same as saying nothing."""
    assert task(timeout=0)(lambda_named("fn")).settings.timeout_ms == 0
    assert task(initial_retry_delay=2)(lambda_named("fn")).settings.initial_retry_delay_ms == 2_000


def lambda_named(name: str) -> Callable[[], None]:
    def fn() -> None: ...

    fn.__name__ = name
    return fn


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": "3"}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"max_retries": 10**6}, "max_retries"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "30d"}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"jitter": 2}, "jitter"),
        ({"backoff_multiplier": 0.5}, "backoff_multiplier"),
        ({"priority": 11}, "priority"),
        ({"queue": "a.b"}, "queue"),
        ({"queue": "*"}, "queue"),
        ({"retry_delay": 1, "initial_retry_delay": 1}, "retry_delay"),
    ],
)
def test_bad_settings_are_refused_at_once(settings: dict[str, Any], named: str) -> None:
    """A setting out of its range is refused where it is written, by its name."""
    assert named in str(bad_task(lambda_named("fn"), **settings))


@pytest.mark.parametrize("name", ["", "a b", "a*", ".a", "a" * 129, "ä", "<lambda>", 7])
def test_bad_names_are_refused_at_once(name: Any) -> None:
    """A name that could not stand in a plan is refused where it is written."""
    assert bad_task(lambda_named("fn"), name=name).code == "invalid_task"


class Robot:
    def move(self, far: int) -> int:
        return far


def positional(a: int, /) -> None: ...
def starred(*args: int) -> None: ...
def generator() -> Iterator[int]:
    yield 1


async def agenerator() -> AsyncIterator[int]:
    yield 1


def twice(a: Context, b: Context) -> None: ...
def uncallable(call: Annotated[int, msgspec.Meta(pattern="a")]) -> None: ...


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (positional, "positional-only"),
        (starred, "positional"),
        (generator, "generator"),
        (agenerator, "generator"),
        (twice, "twice"),
        (uncallable, "`call`"),
        (lambda: None, "<lambda>"),
        (3, "no function"),
        (task(lambda_named("once")), "no function"),
    ],
)
def test_functions_that_no_worker_could_call_are_refused_at_once(fn: Any, reason: str) -> None:
    """What cannot be bound by name, or would not return an output, is refused at decoration with its reason."""
    error = bad_task(fn)
    assert error.code == "invalid_task"
    assert reason in str(error)


def test_a_method_without_its_object_is_refused_when_it_is_collected() -> None:
    """It may stand in a class of `Handlers`, which binds it; by itself no worker could call it."""
    with pytest.raises(ValidationError, match="method"):
        collect([task(Robot.move)])


async def test_other_callables_can_be_tasks() -> None:
    """Bound methods, partials and objects with `__call__` are handlers too, async where their call is."""

    class Caller:
        async def __call__(self, a: int) -> int:
            return a

    assert task(Robot().move).bind({"far": 3}) == {"far": 3}
    fixed = task(name="fixed")(partial(Robot().move, far=1))
    assert fixed.fn(**fixed.bind({})) == 1
    caller = task(name="caller")(Caller())
    assert caller.is_async
    assert await caller(3) == 3


# Parameters ----------------------------------------------------------------------------------------------------------


def typed(  # type: ignore[no-untyped-def]
    when: datetime,
    day: date,
    color: Color,
    address: Address,
    parcel: Parcel,
    point: Point,
    amount: Decimal,
    key: UUID,
    where: Path,
    choice: Literal["a", "b"],
    either: int | str | None,
    maybe: Optional[Address],  # noqa: UP045
    many: list[Address],
    table: dict[str, list[int]],
    tags: set[str],
    pair: tuple[int, str],
    ratio: float,
    anything: Any,
    untyped,
) -> None: ...


def test_parameters_are_converted_to_their_types() -> None:
    """Each parameter gets its value by name, in the type that it is annotated with."""
    arguments = bound(
        typed,
        {
            "when": "2026-01-02T03:04:05Z",
            "day": "2026-01-02",
            "color": "red",
            "address": {"city": "Lyon"},
            "parcel": {"weight": 2, "to": {"city": "Lyon", "zip": 1}},
            "point": {"x": 1},
            "amount": "1.10",
            "key": "12345678-1234-5678-1234-567812345678",
            "where": "/tmp/x",
            "choice": "b",
            "either": "x",
            "maybe": None,
            "many": [{"city": "Oslo"}],
            "table": {"a": [1]},
            "tags": ["a", "a"],
            "pair": [1, "x"],
            "ratio": 1,
            "anything": {"a": [None]},
            "untyped": 3,
        },
    )
    assert arguments == {
        "when": NOW,
        "day": date(2026, 1, 2),
        "color": Color.RED,
        "address": Address("Lyon"),
        "parcel": Parcel(2.0, Address("Lyon", 1)),
        "point": {"x": 1},
        "amount": Decimal("1.10"),
        "key": UUID("12345678-1234-5678-1234-567812345678"),
        "where": Path("/tmp/x"),
        "choice": "b",
        "either": "x",
        "maybe": None,
        "many": [Address("Oslo")],
        "table": {"a": [1]},
        "tags": {"a"},
        "pair": (1, "x"),
        "ratio": 1.0,
        "anything": {"a": [None]},
        "untyped": 3,
    }


def modelled(
    person: Person,
    people: list[Person],
    household: Household,
    pet_or_person: Person | Pet,
    maybe: Person | None = None,
    size: Annotated[int, pydantic.Field(gt=3)] = 4,
) -> None: ...


def test_pydantic_models_are_validated_by_pydantic() -> None:
    """Models are made wherever they stand: alone, in lists, unions and Structs; `Field` metadata counts."""
    ann = {"name": "Ann", "age": "7"}
    params = {"person": ann, "people": [ann], "household": {"people": [ann]}, "pet_or_person": {"barks": True}}
    expected = Person(name="Ann", age=7)
    assert bound(modelled, params) == {
        "person": expected,
        "people": [expected],
        "household": Household([expected]),
        "pet_or_person": Pet(barks=True),
        "maybe": None,
        "size": 4,
    }
    assert "person: age: Input should be" in str(refusal(modelled, {**params, "person": {"name": "a", "age": "old"}}))
    assert "size: Input should be greater than 3" in str(refusal(modelled, {**params, "size": 3}))
    assert "household.people[0]: name: Field required" in str(refusal(modelled, {**params, "household": {"people": [{}]}}))


def test_defaults_are_the_functions_own() -> None:
    """A parameter that is not given gets the very default that a plain call would get, whatever it is."""
    sentinel = object()
    kept: list[int] = [1]

    def fn(a: int = sentinel, b: list[int] = kept, *, c: str | None = None) -> None: ...  # type: ignore[assignment]

    arguments = bound(fn, {})
    assert arguments["a"] is sentinel
    assert arguments["b"] is kept
    assert arguments["c"] is None


def test_no_params_are_an_empty_object() -> None:
    """A task without parameters runs with `{}` and with null."""
    assert bound(lambda_named("fn"), {}) == bound(lambda_named("fn"), None) == {}


def test_further_parameters_go_to_kwargs() -> None:
    """`**rest` takes what no parameter is named after, converted if it is annotated."""

    def fn(a: int, **rest: date) -> None: ...

    assert bound(fn, {"a": 1, "b": "2026-01-02"}) == {"a": 1, "b": date(2026, 1, 2)}
    assert "a further parameter" in str(refusal(fn, {"a": 1, "b": "soon"}))


def create(name: str, city: str = "Lyon", *, address: Address | None = None, ctx: Context) -> None: ...


@pytest.mark.parametrize(
    ("params", "reason", "field"),
    [
        ({}, "missing parameter `name`", None),
        ({"nmae": "x"}, "unexpected parameter `nmae`, did you mean `name`?; missing parameter `name`", None),
        ({"name": "x", "zzz": 1}, "unexpected parameter `zzz`", None),
        ({"name": 3}, "name: Expected `str`, got `int`", "name"),
        ({"name": None}, "name: Expected `str`, got `null`", "name"),
        ({"name": "x", "address": {"zip": 1}}, "address: Object missing required field `city`", "address"),
        ({"name": "x", "address": {"city": 1}}, "address.city: Expected `str`, got `int`", "address.city"),
        ({"name": "x", "ctx": {}}, "unexpected parameter `ctx`", None),
        ([1], "params must be an object, got an array", None),
        ("x", "params must be an object, got a string", None),
        (True, "params must be an object, got a boolean", None),
        (7, "params must be an object, got a number", None),
    ],
)
def test_wrong_params_are_refused_with_their_place(params: Any, reason: str, field: str | None) -> None:
    """Missing, unexpected and mistyped parameters are a validation error that names task, place and what was expected."""
    info = refusal(create, params).info
    assert (info.type, info.message) == ("validation_error", f"task `create`: {reason}")
    assert info.hint == "expected name: str, city: str = 'Lyon', address: Address | None = None"
    assert info.context == ({"task": "create", "field": field} if field else {"task": "create"})


def test_a_single_parameter_is_not_guessed() -> None:
    """Params that are no object are refused even where the function takes exactly one parameter."""

    def fn(a: list[int]) -> None: ...

    assert "must be an object" in str(refusal(fn, [1]))


def test_strings_are_not_numbers() -> None:
    """Conversion is that of JSON types: "1" is no int, 1.5 is none, true is none."""

    def fn(a: int) -> None: ...

    for wrong in ("1", 1.5, True):
        refusal(fn, {"a": wrong})


def test_a_type_that_refuses_its_value_is_a_wrong_parameter() -> None:
    """Whatever a type's own check raises, the params are what is wrong."""

    def fn(even: Even) -> None: ...

    assert "odd" in str(refusal(fn, {"even": {"n": 1}}))


# The context ---------------------------------------------------------------------------------------------------------


def context_plain(c: esexec.tasks.Context) -> None: ...
def context_string(c: Context) -> None: ...
def context_optional(c: Context | None = None) -> None: ...
def context_annotated(c: Annotated[Context, "x"]) -> None: ...
def context_keyword(*, c: Optional[Context]) -> None: ...  # noqa: UP045
async def context_async(c: Context) -> None: ...


@pytest.mark.parametrize(
    "fn", [context_plain, context_string, context_optional, context_annotated, context_keyword, context_async]
)
def test_the_context_is_recognised_by_its_annotation(fn: Callable[..., Any]) -> None:
    """A parameter annotated `Context` gets it, whatever its name, also where only the type checker imports it."""
    assert bound(fn, {}) == {"c": CONTEXT}


def test_a_context_by_name_only_is_a_parameter() -> None:
    """A parameter that is merely called `ctx` is a parameter like any other."""

    def fn(ctx) -> None: ...  # type: ignore[no-untyped-def]

    assert bound(fn, {"ctx": 1}) == {"ctx": 1}


def test_what_a_context_tells() -> None:
    """The context tells which attempt this is, its deadline, and a key that is the same for all attempts."""
    c = CONTEXT
    assert (c.execution_id, c.step, c.task, c.attempt, c.run, c.max_attempts) == ("e1", "s1", "t", 2, 3, 4)
    assert (c.idempotency_key, c.context, c.queue, c.priority) == ("e1/s1/3", {"tenant": "x"}, "default", 5)
    assert (c.is_last_attempt, c.deadline) == (False, NOW + timedelta(seconds=30))


def test_the_last_attempt_and_no_deadline() -> None:
    """The last attempt knows that it is; without timeout or start there is no deadline."""
    last = Dispatch(execution_id="e", step="s", task="t", attempt=4, max_attempts=4, timeout_ms=0)
    assert esexec.tasks.Context(last).is_last_attempt
    assert esexec.tasks.Context(last, NOW).deadline is None
    assert esexec.tasks.Context(DISPATCH).deadline is None


def test_cancelling_reaches_a_sync_handler() -> None:
    """A handler in a thread sees the flag and leaves through `check_cancelled`, also past `except Exception`."""
    context, left = esexec.tasks.Context(DISPATCH), threading.Event()

    def handler() -> None:
        try:
            while True:
                try:
                    context.check_cancelled()
                except Exception:
                    continue
        except AttemptCancelled:
            left.set()

    thread = threading.Thread(target=handler)
    thread.start()
    assert not context.cancelled
    context.cancel()
    assert left.wait(5)
    assert context.cancelled
    thread.join()


# Annotations -----------------------------------------------------------------------------------------------------------


def test_types_of_the_enclosing_function_are_known() -> None:
    """A type that is defined beside the task, inside a function, is found though the annotation is a string."""

    class Local(msgspec.Struct):
        x: int

    @task
    def bare(value: Local) -> None: ...

    @task(max_retries=1)
    def configured(value: list[Local]) -> None: ...

    assert bare.bind({"value": {"x": 1}}) == {"value": Local(1)}
    assert configured.bind({"value": [{"x": 1}]}) == {"value": [Local(1)]}


def test_types_may_be_defined_further_down() -> None:
    """An annotation that names a type defined later in the module is resolved when the task is first needed."""

    @task
    def early(value: Later) -> None: ...

    assert early.bind({"value": {"x": 1}}) == {"value": Later(1)}


class Later(msgspec.Struct):
    x: int


def test_annotations_that_mean_nothing_are_refused_when_collected() -> None:
    """A name that is never defined is found before the first dispatch, not by it."""

    @task
    def lost(value: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for attempt in (lambda: collect([lost]), lambda: lost.bind({})):
        with pytest.raises(ValidationError, match="Nowhere") as caught:
            attempt()
        assert caught.value.code == "invalid_task"


# Outputs -------------------------------------------------------------------------------------------------------------


def encoded(output: Any) -> Any:
    report = Completed(started_at=NOW, ended_at=NOW, output=output)
    return msgspec.json.decode(encode_with_output(report, output)).get("output")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (None, None),
        ({"a": [1, 2.5, "x", None, True]}, {"a": [1, 2.5, "x", None, True]}),
        (NOW, "2026-01-02T03:04:05Z"),
        (Color.RED, "red"),
        (Address("Lyon", 1), {"city": "Lyon", "zip": 1}),
        (Parcel(1.5, Address("Lyon")), {"weight": 1.5, "to": {"city": "Lyon", "zip": 0}}),
        ([Person(name="Ann")], [{"name": "Ann", "age": 0}]),
        (Household([Person(name="Ann")]), {"people": [{"name": "Ann", "age": 0}]}),
        (Path("/tmp/x"), "/tmp/x"),
        ((1, "a"), [1, "a"]),
        ({3}, [3]),
        (Decimal("1.10"), "1.10"),
        (b"x", "eA=="),
        ({1: "a"}, {"1": "a"}),
    ],
)
def test_outputs_become_json(output: Any, expected: Any) -> None:
    """Plain values, Structs, dataclasses, models and the usual standard types can be returned."""
    assert encoded(output) == expected


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (object(), "builtins.object"),
        (iter([1]), "list_iterator"),
        ({"a": {(1, 2): 3}}, "`tuple` cannot be keys"),
        ("\ud800", "surrogates"),
        (CYCLE, "recursion"),
        (math.nan, "output is no finite number"),
        ({"a": [None, {"b": math.inf}]}, "output.a[1].b is no finite number"),
        ([Parcel(-math.inf, Address("x"))], "output[0].weight is no finite number"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_outputs_that_json_cannot_hold_are_refused(output: Any, reason: str) -> None:
    """An output that JSON cannot hold fails the attempt for good; NaN does not quietly become null."""
    with pytest.raises(ExecutionError) as caught:
        encoded(output)
    assert (caught.value.code, caught.value.info.retryable) == ("output_not_serializable", False)
    assert reason in str(caught.value)


def test_large_outputs_are_refused() -> None:
    """An output of exactly the limit of an object is kept, one byte more fails the attempt for good."""
    assert len(encoded("x" * (limits.object_bytes - 2))) == limits.object_bytes - 2
    with pytest.raises(ExecutionError, match="object_bytes") as caught:
        encoded("x" * (limits.object_bytes - 1))
    assert (caught.value.code, caught.value.info.retryable) == ("output_too_large", False)


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_deep_outputs_are_refused() -> None:
    """An output of exactly the limit's depth is kept, one level more fails the attempt for good; width is no depth."""
    assert encoded(nested(limits.nesting_depth)) == nested(limits.nesting_depth)
    assert encoded([[]] * 1_000) == [[]] * 1_000
    with pytest.raises(ExecutionError, match="nested too deeply") as caught:
        encoded(nested(limits.nesting_depth + 1))
    assert (caught.value.code, caught.value.info.retryable) == ("output_too_deep", False)


# Collecting ------------------------------------------------------------------------------------------------------------

MODULE = textwrap.dedent(
    """
    from esexec.tasks import task

    @task
    def first(a: int) -> int:
        return a

    @task(name="second")
    def other() -> None: ...

    again = first
    some = [first]

    def plain() -> None: ...
    """
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def refused_collection(source: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        collect(source)
    return caught.value


def test_collecting_tasks_and_functions() -> None:
    """Tasks and plain functions are collected by name; the same one twice is one."""

    @task(name="x")
    def fn() -> None: ...

    plain = lambda_named("plain")
    assert list(collect([fn, plain, fn, plain])) == ["x", "plain"]
    assert collect([fn])["x"] is fn
    assert collect(fn) == {"x": fn}
    assert collect([]) == {}


def test_two_tasks_of_one_name_are_refused() -> None:
    """Two different functions under one name are refused, and both are named."""
    error = refused_collection([lambda_named("same"), lambda_named("same")])
    assert error.code == "duplicate_task"
    assert "same" in error.message


@pytest.mark.parametrize(
    ("spelling", "names"),
    [
        ("mine_abc", ["first", "second"]),
        ("mine_abc:second_missing", None),
        ("mine_abc:other", ["second"]),
        ("mine_abc:some", ["first"]),
        ("mine_abc:plain", ["plain"]),
        ("mine_abc.py", ["first", "second"]),
        ("./mine_abc.py:other", ["second"]),
        ("no_such_module", None),
        ("mine_abc.sub", None),
        ("no_such_file.py", None),
    ],
)
def test_collecting_by_place(place: Path, spelling: str, names: list[str] | None) -> None:
    """A module of the working directory or a file is found by its place, an attribute of it after a colon."""
    (place / "mine_abc.py").write_text(MODULE)
    if names is None:
        assert refused_collection(spelling).code == "tasks_not_found"
    else:
        assert list(collect(spelling)) == names


def test_a_file_of_a_package_is_imported_as_its_module(place: Path) -> None:
    """A file inside a package may import its siblings."""
    package = place / "pack_abc" / "inner"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    (package / "things.py").write_text(MODULE)
    (package / "jobs.py").write_text("from .things import first\n")
    found = collect(str(package / "jobs.py"))
    assert list(found) == ["first"]
    assert "pack_abc.inner.jobs" in sys.modules


def test_a_file_never_takes_the_name_of_another_module(place: Path) -> None:
    """A file called like a module of the standard library neither hides it nor is hidden by it; loaded once only."""
    before = sys.modules.pop("sched", None)
    (place / "sched.py").write_text(MODULE)
    first = collect("sched.py")
    assert first == collect("sched.py")
    assert list(first) == ["first", "second"]
    assert "sched" not in sys.modules
    if before is not None:
        sys.modules["sched"] = before


def test_a_module_without_tasks_is_refused(place: Path) -> None:
    """A worker without tasks would be a mistake, so a module without any is refused."""
    (place / "empty_abc.py").touch()
    assert refused_collection("empty_abc").code == "tasks_not_found"


@pytest.mark.parametrize(("body", "error"), [("1 / 0", ZeroDivisionError), ("import nothing_abc", ModuleNotFoundError)])
@pytest.mark.parametrize("spelling", ["broken_abc", "broken_abc.py"])
def test_what_a_module_raises_is_not_touched(place: Path, body: str, error: type[Exception], spelling: str) -> None:
    """An exception of the user's module comes through as it is, and the module can be tried again."""
    (place / "broken_abc.py").write_text(body)
    for _ in range(2):
        with pytest.raises(error):
            collect(spelling)
