"""The recovery strategies of a namespace: who adds, replaces and removes them, and that every executor hears of it."""

import asyncio

import pytest

import esexec
from esexec.domain import limits
from esexec.domain.strategies import Strategy
from esexec.tasks.recovery import RecoveryStrategy
from tests.integration.engine import KINDS, Engine, until

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)


class Patient(RecoveryStrategy):
    id = "patient"
    applicable_errors = ("NETWORK_*",)


async def heard(engine: Engine, *ids: str) -> None:
    """Wait until every executor offers failures to exactly these."""
    await until(lambda: all([one.id for one in it._desk.surroundings.strategies] == list(ids) for it in engine.executors))


@everywhere
async def test_strategies_come_and_go(engine: Engine) -> None:
    """F261, F262: objects, classes and descriptions, by both names of the verbs; executors follow, also a fresh one."""
    client = engine.client
    assert await client.strategies.add(Patient) == "patient"
    assert await client.add_recovery_strategy(Strategy(id="second", queue="q")) == "second"
    await heard(engine, "patient", "second")
    assert await client.strategies.add(Strategy(id="patient", applicable_errors=("*",))) == "patient"
    assert [(one.id, one.applicable_errors) for one in await client.strategies.list()] == [
        ("patient", ("*",)),
        ("second", ("*",)),
    ]
    assert await client.remove_recovery_strategy("patient") is True
    assert await client.strategies.remove("patient") is False
    await heard(engine, "second")
    await engine.executor()
    await heard(engine, "second")
    assert (await client.verify("_settings")).ok


@pytest.mark.parametrize("engine", ["two executors"], indirect=True)
async def test_rivals_add_side_by_side(engine: Engine) -> None:
    """Twenty clients' calls at the same instant, over two executors: every strategy is there once, in one order for all."""
    names = [f"s{number}" for number in range(20)]
    clients = [await engine.another_client() for _ in range(4)]
    await asyncio.gather(*(clients[n % 4].strategies.add(Strategy(id=name)) for n, name in enumerate(names)))
    listed = [one.id for one in await engine.client.strategies.list()]
    assert sorted(listed) == sorted(names)
    await heard(engine, *listed)


async def test_too_many_are_refused(engine: Engine) -> None:
    """`limits.strategies`, by type and with a hint."""
    for number in range(0, limits.strategies, 20):
        await asyncio.gather(*(engine.client.strategies.add(Strategy(id=f"s{n}")) for n in range(number, number + 20)))
    with pytest.raises(esexec.Refused) as raised:
        await engine.client.strategies.add(Patient)
    assert (raised.value.code, bool(raised.value.hint)) == ("too_many_strategies", True)
    await engine.client.strategies.remove("s7")
    assert await engine.client.strategies.add(Patient) == "patient"


async def test_what_is_no_strategy_is_refused(engine: Engine) -> None:
    """Before anything is sent, by type."""
    with pytest.raises(esexec.ValidationError):
        await engine.client.strategies.add(object())
    with pytest.raises(esexec.ValidationError) as raised:
        await engine.client.strategies.add(Strategy(id="no id"))
    assert raised.value.code == "bad_strategy_id"
    assert await engine.client.strategies.list() == []


async def test_the_configuration_can_be_read(engine: Engine) -> None:
    """What was configured, and nothing that was not; a preset is the settings that it stands for."""
    assert await engine.client.configuration() == esexec.NamespaceConfig()
    await engine.client.configure(preset="bulk", max_retries=7)
    configured = await engine.client.configuration()
    assert (configured.max_retries, configured.continue_on_error, configured.timeout_ms) == (7, True, None)
