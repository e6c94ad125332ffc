"""The test kit tells the truth: what happens in it happens on a server, event by event."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import esexec
from esexec import Context, ExecutionError, Plan, RateLimit, Step
from esexec.domain.commit import Commit
from esexec.domain.events import type_of
from esexec.testing import VirtualEngine
from tests.integration.engine import QUICK, Engine


@esexec.task
async def reserve(sku: str) -> dict[str, str]:
    return {"reservation": f"r-{sku}"}


@reserve.compensate
def give_back(reservation: str) -> None: ...


@esexec.task
def charge(cents: int, ctx: Context) -> str:
    if ctx.attempt <= ctx.context.get("failures", 0):
        raise ExecutionError("the gateway is down", code="DOWN", retry=ctx.context.get("retry"))
    ctx.vars["paid"] = cents
    return f"receipt-{cents}"


@esexec.task
async def cash(cents: int) -> str:
    return "cash"


@esexec.task
def update_stock(reservation: str, ctx: Context) -> Any:
    return ctx.before_sync({"stock": 3})


@esexec.task(timeout="200ms", max_retries=0)
async def hang() -> None:
    await asyncio.sleep(3600)


TASKS = [reserve, charge, cash, update_stock, hang]


def plan(*more: Step, fallback: str | None = None) -> Plan:
    return Plan(
        "order",
        steps=[
            Step(reserve, params={"sku": "${input.sku}"}),
            Step(charge, params={"cents": 990}, depends_on=["reserve"], fallback=fallback),
            Step(
                update_stock,
                id="stock",
                params={"reservation": "${steps.reserve.output.reservation}"},
                depends_on=["charge"],
            ),
            *more,
        ],
    )


SCENARIOS: dict[str, tuple[Plan, dict[str, Any]]] = {
    "completes": (plan(), {}),
    "is tried again": (plan(), {"context": {"failures": 2}}),
    "is rolled back": (plan(), {"context": {"failures": 9, "retry": False}}),
    "falls back": (plan(fallback="cash"), {"context": {"failures": 2}, "max_retries": 1}),
    "goes on with errors": (plan(), {"context": {"failures": 9}, "max_retries": 1, "continue_on_error": True}),
    "times out": (plan(Step(hang, depends_on=["stock"])), {}),
    "calls what nobody has": (plan(Step("nobody", id="last", depends_on=["stock"])), {}),
    "calls it wrongly": (plan(Step(cash, id="last", params={"cents": "${input.sku}"}, depends_on=["stock"])), {}),
    "is rate limited": (plan(), {"rate_limit": RateLimit(1, 100, key="all")}),
    "has a key": (plan(), {"concurrency": {"key": "k", "limit": 1}}),
    "begins later": (plan(), {"delay": "50ms"}),
}


def told(history: list[Commit]) -> list[tuple[str, str | None, int | None]]:
    """Type, step and attempt of each event."""
    events = [event for commit in history for event in commit.events]
    return [(type_of(event), getattr(event, "step", None), getattr(event, "attempt", None)) for event in events]


def outcome(result: esexec.ExecutionResult) -> tuple[Any, ...]:
    codes = [(step.status, step.output, step.error.code if step.error is not None else None) for step in result.results]
    return result.status, result.result, result.variables, codes


def in_the_kit(
    what: Plan, options: dict[str, Any], prepare: Callable[[VirtualEngine], None]
) -> tuple[list[Commit], esexec.ExecutionResult]:
    with VirtualEngine() as engine:
        engine.given(TASKS)
        prepare(engine)
        then = engine.when(what, {"sku": "tea"}, **QUICK | options)
        return then.history, then.result


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_kit_and_a_server_tell_the_same(name: str, engine: Engine) -> None:
    """The same plan with the same handlers has the same events and the same result, with crashes of executors in the kit too."""
    what, options = SCENARIOS[name]
    await engine.worker(*TASKS)
    result = await engine.execute(what, {"sku": "tea"}, **options)
    real = told(await engine.client.history(result.id))
    for prepare in (lambda kit: None, lambda kit: kit.crash_after()):
        history, virtual = await asyncio.to_thread(in_the_kit, what, options, prepare)  # type: ignore[misc]
        assert told(history) == real
        assert (virtual.status, virtual.result) == (result.status, result.result)
        assert [one.error and one.error.code for one in virtual.results] == [
            one.error and one.error.code for one in result.results
        ]
