"""What a start says: what is run, with which settings, when; and what it inherits inside a handler."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

import esexec
from esexec.client.commands import encode_command, start_command
from esexec.domain import commands as c
from esexec.domain.errors import ValidationError
from esexec.domain.messages import Dispatch
from esexec.domain.settings import EMPTY_CONFIG, PRESETS, ExecutionConfig
from esexec.tasks import current_context
from esexec.tasks.context import Context, make_current
from esexec.world import now

SOON = datetime(2027, 1, 31, 8, tzinfo=UTC)


def said(what: Any = "greet", *, waits: bool = False, **options: Any) -> c.StartExecution:
    """The command of a start, as it arrives."""
    _, command = start_command(what, None, options, None, waits=waits)  # type: ignore[arg-type]
    return msgspec.json.decode(encode_command(command), type=c.StartExecution)


def refused(**options: Any) -> str:
    with pytest.raises(ValidationError) as error:
        said(**options)
    return error.value.code


# What ------------------------------------------------------------------------------------------------------------------


def test_a_plan_s_id_is_no_task() -> None:
    """64 hexadecimal digits name a plan that the namespace keeps; anything else that is text names a task."""
    assert (said("a" * 64).plan_id, said("a" * 64).task) == ("a" * 64, None)
    for name in ("a" * 63, "A" * 64, "g" * 64):
        assert (said(name).plan_id, said(name).task) == (None, name)


@pytest.mark.parametrize("execution_id", ["_mine", "a.b", "x" * 65, "a b", 5])
def test_ids_that_cannot_be(execution_id: Any) -> None:
    """An id that could not stand in a subject is refused before anything is sent."""
    assert refused(execution_id=execution_id) == "bad_execution_id"


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.start("greet"),
        lambda client: client.wait("e1"),
        lambda client: client.resources.pools(),
        lambda client: client.resources.allocate({"gpu": 1}),
        lambda client: esexec.Engine(client=client).execute("greet"),
        lambda client: anext(client.monitor("e1")),
        lambda client: client.subscribe("e1", print),
        lambda client: client.monitor.start("e1"),
        lambda client: client.monitor.metrics("e1"),
        lambda client: client.executions.list(),
    ],
)
async def test_a_client_that_is_not_open_says_so(call: Any) -> None:
    """Used without `async with` it says how it is used."""
    with pytest.raises(ValidationError) as error:
        await call(esexec.connect("nats://127.0.0.1:1"))
    assert error.value.code == "not_open"
    assert "async with" in str(error.value.hint)


# Settings --------------------------------------------------------------------------------------------------------------


def test_nothing_said_costs_nothing() -> None:
    """Without settings the config is the shared empty one."""
    _, command = start_command("greet", None, {"execution_id": "e1", "config": None}, None)
    assert command.config is EMPTY_CONFIG
    assert command.parent is None
    assert command.deadline is None


def test_settings_of_the_lifecycle() -> None:
    """Every setting of an execution can be given by name; bare numbers are seconds."""
    config = said(
        execution_timeout="1h",
        queue_timeout=5,
        timeout_growth=2.0,
        checkpoint_interval=timedelta(minutes=5),
        checkpoint_every="task",
        on_missing_compensation="fail",
    ).config
    assert config == ExecutionConfig(
        execution_timeout_ms=3_600_000,
        queue_timeout_ms=5_000,
        timeout_growth=2.0,
        checkpoint_interval_ms=300_000,
        checkpoint_every="task",
        on_missing_compensation="fail",
    )


def test_what_is_said_by_name_wins() -> None:
    """A preset is the weakest, then `config`, then what is given by name, also under another name for the same."""
    config = said(preset="bulk", config={"max_retries": 7, "timeout_ms": 5}, timeout="3s", retry_delay=1).config
    assert config == msgspec.structs.replace(PRESETS["bulk"], max_retries=7, timeout_ms=3_000, initial_retry_delay_ms=1_000)
    assert said(preset="bulk", max_retries=7).config.max_retries == 7


def test_a_config_may_be_an_object() -> None:
    """`config` takes a mapping, or an `ExecutionConfig` as presets are."""
    config = said(config=ExecutionConfig.preset("critical"), max_retries=1).config
    assert config == msgspec.structs.replace(PRESETS["critical"], max_retries=1)


def test_a_preset_that_is_none() -> None:
    """An unknown preset is refused with those there are."""
    assert refused(preset="bluk") == "unknown_preset"


# Times -----------------------------------------------------------------------------------------------------------------


def test_times_carry_their_offset() -> None:
    """`start_at` and `deadline` are sent in UTC, wherever they were said."""
    paris = timezone(timedelta(hours=1))
    command = said(start_at=SOON.astimezone(paris), deadline=SOON + timedelta(hours=1))
    assert (command.start_at, command.deadline) == (SOON, SOON + timedelta(hours=1))
    assert b'"start_at":"2027-01-31T08:00:00Z"' in encode_command(command)


@pytest.mark.parametrize("option", ["start_at", "deadline"])
def test_naive_times_are_refused(option: str) -> None:
    """A time without an offset could mean two moments: it is refused, with the way out."""
    with pytest.raises(ValidationError) as error:
        said(**{option: SOON.replace(tzinfo=None)})
    assert error.value.code == "naive_time"
    assert "astimezone" in (error.value.hint or "")


def test_durations_count_from_now() -> None:
    """A delay is left to the server's clock; a deadline that is a duration is a time from now."""
    before = now()
    command = said(delay="90s", deadline=timedelta(minutes=5))
    assert command.delay_ms == 90_000
    assert command.deadline is not None
    assert before + timedelta(minutes=5) <= command.deadline <= now() + timedelta(minutes=5)


def test_none_of_the_times() -> None:
    """0 is no delay and no deadline, as everywhere."""
    for nothing in (0, "0s", timedelta(0)):
        command = said(delay=nothing, deadline=nothing)
        assert (command.delay_ms, command.deadline) == (0, None)


def test_start_at_or_delay() -> None:
    """Both at once could mean the earlier or the later: refused."""
    assert refused(start_at=SOON, delay=1) == "start_at_and_delay"
    assert refused(start_at="tomorrow") == "invalid_time"
    assert refused(delay="-1s") == "invalid_duration"


# Inside a handler --------------------------------------------------------------------------------------------------------


@pytest.fixture
def handler() -> Any:
    """Runs what follows as a handler of an attempt: begun at SOON, a minute long, of an execution with an hour to go."""

    def begin(**fields: Any) -> None:
        dispatch = Dispatch(execution_id="e1", step="s1", task="t", **{"timeout_ms": 60_000, **fields})
        make_current(Context(dispatch, SOON))

    yield begin
    make_current(None)


def test_a_nested_start_names_its_parent(handler: Any) -> None:
    """What a handler starts says whose it is, and may not outlive that execution."""
    handler(deadline=SOON + timedelta(hours=1))
    command = said(deadline=SOON + timedelta(hours=2))
    assert (command.parent, command.deadline) == ("e1/s1", SOON + timedelta(hours=1))
    assert said(deadline=SOON + timedelta(minutes=1)).deadline == SOON + timedelta(minutes=1)


def test_who_waits_for_a_nested_execution(handler: Any) -> None:
    """A handler that waits for what it starts has no use for it once its own attempt is over."""
    handler(deadline=SOON + timedelta(hours=1))
    assert said(waits=True).deadline == SOON + timedelta(minutes=1)
    assert said(waits=False).deadline == SOON + timedelta(hours=1)


def test_a_handler_without_limits_hands_none_on(handler: Any) -> None:
    """Without a timeout and a deadline of its own, a nested start has none."""
    handler(timeout_ms=0)
    assert (said(waits=True).parent, said(waits=True).deadline) == ("e1/s1", None)


def test_outside_of_handlers_nothing_is_inherited() -> None:
    """A start of a program has no parent and no deadline."""
    assert current_context() is None
    assert (said(waits=True).parent, said(waits=True).deadline) == (None, None)
