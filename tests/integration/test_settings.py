"""Settings: built-in < namespace < task < plan < step < call, proven by what really runs."""

import asyncio
from typing import Any

import pytest

import esexec
from esexec import Plan, Step
from esexec.domain.events import ExecutionCreated
from tests.integration.engine import KINDS, Engine, until
from tests.integration.raw import RawClient

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)

LEVELS = ["built-in", "namespace", "task", "plan", "step", "call"]


@esexec.task(name="said")
async def said_nothing(ctx: esexec.Context) -> int:
    return ctx.max_attempts - 1


@esexec.task(name="said", max_retries=12)
async def said(ctx: esexec.Context) -> int:
    return ctx.max_attempts - 1


@everywhere
@pytest.mark.parametrize("highest", LEVELS)
async def test_the_later_level_wins(engine: Engine, highest: str) -> None:
    """F118, design §4: with everything up to `highest` said, the attempt is made as `highest` says."""
    up_to = LEVELS[: LEVELS.index(highest) + 1]
    await engine.worker(said if "task" in up_to else said_nothing)
    if "namespace" in up_to:
        await engine.client.configure(max_retries=11)
        await heard(engine, 11)
    step: dict[str, Any] = {"max_retries": 14} if "step" in up_to else {}
    config = {"max_retries": 13} if "plan" in up_to else None
    call: dict[str, Any] = {"max_retries": 15} if "call" in up_to else {}
    result = await engine.client.execute(Plan("p", steps=[Step("said", id="s", **step)], config=config), wait_timeout=8, **call)
    expected = {"built-in": 3, "namespace": 11, "task": 12, "plan": 13, "step": 14, "call": 15}
    assert result.result == expected[highest]


async def heard(engine: Engine, max_retries: int) -> None:
    """Wait until every executor follows the namespace's new settings."""
    await until(lambda: all(one._desk.surroundings.namespace.max_retries == max_retries for one in engine.executors))


async def test_what_is_not_said_stays_with_the_level_below(engine: Engine) -> None:
    """A level says only what it says: timeout from the task, retries from the call, the rest built in."""

    @esexec.task(timeout="7s")
    async def mixed(ctx: esexec.Context) -> list[float]:
        assert ctx.deadline is not None
        return [ctx.max_attempts, round((ctx.deadline - esexec.world.now()).total_seconds())]

    await engine.worker(mixed)
    assert (await engine.execute("mixed", max_retries=1)).result == [2, 7]


async def test_what_is_configured_stays_until_it_is_changed(engine: Engine) -> None:
    """Fields that are not given keep their value; a fresh executor knows them; the history explains itself."""
    await engine.worker(said_nothing)
    await engine.client.configure(max_retries=8)
    await engine.client.configure(timeout="9s")
    await engine.executors[0].stop()
    await engine.executor()
    result = await engine.client.execute("said", wait_timeout=8)
    assert result.result == 8
    created = (await engine.events(result.id))[0]
    assert isinstance(created, ExecutionCreated)
    assert (created.namespace.max_retries, created.namespace.timeout_ms) == (8, 9_000)


async def test_an_execution_keeps_the_settings_it_was_started_with(engine: Engine) -> None:
    """What is configured later is for later starts."""
    await engine.client.configure(max_retries=5)
    await heard(engine, 5)
    handle = await engine.client.start("said")
    await engine.client.configure(max_retries=6)
    await heard(engine, 6)
    await engine.worker(said_nothing)
    assert await handle.result(wait_timeout=8) == 5
    assert (await engine.client.execute("said", wait_timeout=8)).result == 6


async def test_queues_have_settings_of_their_own(engine: Engine) -> None:
    """F126: short for people who wait, long for what runs in the background; an attempt has what its queue says."""

    @esexec.task
    async def budget(ctx: esexec.Context) -> list[float]:
        assert ctx.deadline is not None
        return [ctx.max_attempts - 1, round((ctx.deadline - esexec.world.now()).total_seconds())]

    await engine.worker(budget, queues={"default": 5, "background": 5})
    queues = {"default": {"timeout": 5}, "background": {"timeout": "10m", "max_retries": 9}}
    await engine.client.configure(max_retries=1, queues=queues)
    await heard(engine, 1)
    assert (await engine.execute("budget")).result == [1, 5]
    assert (await engine.execute("budget", queue="background")).result == [9, 600]
    await engine.client.configure(max_retries=2, queues={"default": None, "background": {"max_retries": None}})
    await heard(engine, 2)
    assert (await engine.execute("budget")).result == [2, 30]
    assert (await engine.execute("budget", queue="background")).result == [2, 600]


async def test_what_was_configured_can_be_taken_back(engine: Engine) -> None:
    """None takes a setting back, also beside a preset; what is not given stays."""
    await engine.client.configure(max_retries=8, timeout="9s", queues={"q": {"priority": 1}})
    await engine.client.configure(max_retries=None, queues=None)
    assert await engine.client.configuration() == esexec.NamespaceConfig(timeout_ms=9_000)
    await engine.client.configure(preset="critical", max_retries=None, timeout_ms=None)
    config = await engine.client.configuration()
    assert (config.max_retries, config.timeout_ms, config.parallel_execution_limit) == (None, None, 1)


async def test_bare_messages_configure_too(engine: Engine, raw: RawClient) -> None:
    """`config` is a merge patch; what cannot be is refused by type, with the place."""
    answer = await raw.ask("_settings", "configure", config={"queues": {"slow": {"timeout_ms": 5}}, "max_retries": 4})
    assert (answer.status, answer.effective) == ("accepted", True)
    answer = await raw.ask("_settings", "configure", config={"queues": {"slow": None}, "max_retries": None})
    assert (answer.status, await engine.client.configuration()) == ("accepted", esexec.NamespaceConfig())
    answer = await raw.ask("_settings", "configure", config={"queues": {"slow": {"queue": "q"}}})
    assert answer.error is not None
    assert (answer.status, "queues" in answer.error.message) == ("refused", True)
    answer = await raw.ask("r1", "start", task="said", config={"queues": {"slow": {"timeout_ms": 5}}})
    assert (answer.status, answer.error is not None) == ("refused", True)


@pytest.mark.parametrize("wrong", [{"max_retries": -1}, {"priority": 11}, {"timeout": "soon"}, {"nonsense": 1}], ids=str)
async def test_wrong_settings_are_refused(engine: Engine, wrong: dict[str, Any]) -> None:
    """By type, with the setting's name, and nothing is changed."""
    with pytest.raises(esexec.ValidationError) as raised:
        await engine.client.configure(**wrong)
    assert next(iter(wrong)) in str(raised.value)
    assert "_settings" not in await engine.client.list_ids(shared=True)


async def test_workers_announce_what_they_have(engine: Engine) -> None:
    """A start that follows a worker's beginning finds its tasks' settings; the same announcement changes nothing."""
    await engine.worker(said)
    first = await engine.client.execute("said", wait_timeout=8)
    created = (await engine.events(first.id))[0]
    assert created.tasks["said"].max_retries == 12
    commits = await shared_commits(engine)
    await engine.worker(said)
    await engine.worker(said)
    assert await shared_commits(engine) == commits


async def shared_commits(engine: Engine) -> int:
    verification = await engine.client.verify("_settings")
    assert verification.ok
    return verification.commits


@pytest.mark.parametrize("engine", ["two executors"], indirect=True)
async def test_rivals_configure_side_by_side(engine: Engine) -> None:
    """Ten clients set different things at the same instant, over two executors: nothing is lost, one history."""
    names = ["max_retries", "timeout", "jitter", "backoff_multiplier", "retry_unknown", "queue", "priority", "max_retry_delay"]
    values: list[Any] = [7, 11, 0.5, 3.0, False, "q", 6, 13]
    clients = [await engine.another_client() for _ in names]
    await asyncio.gather(*(client.configure(**{name: value}) for client, name, value in zip(clients, names, values, strict=True)))
    assert await shared_commits(engine) == len(names)
    await until(lambda: all(one._desk.surroundings.namespace.priority == 6 for one in engine.executors))
    later = await engine.client.start("said")
    config = (await engine.events(later.id))[0].namespace
    assert (config.max_retries, config.timeout_ms, config.jitter, config.backoff_multiplier) == (7, 11_000, 0.5, 3.0)
    assert (config.retry_unknown, config.queue, config.priority, config.max_retry_delay_ms) == (False, "q", 6, 13_000)
