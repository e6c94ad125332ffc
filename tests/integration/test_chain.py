"""Chains: what flows from link to link, what interrupts them, and how they fail."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

import esexec
from esexec import ChainError, Continue, Err, ExecutionError, Halt, link
from tests.integration.engine import Engine, until

LINKS = ["validate", ("process", {"format": "json"}), "save"]
INTERRUPTS: dict[str, Any] = {
    "a task": "guard",
    "a function": lambda result, context: guarded(result, context),
    "an async function": None,
}


def guarded(result: dict[str, Any], context: Mapping[str, Any]) -> Halt | Continue:
    """What is asked between two links, whoever asks it."""
    if result.get("blocked"):
        return Halt(Err("User blocked"))
    if result.get("enough") or context.get("stop"):
        return Halt({"early": result["data"]})
    return Continue({**result, "seen": result.get("seen", 0) + 1})


async def guarded_later(result: dict[str, Any], context: Mapping[str, Any]) -> Halt | Continue:
    await asyncio.sleep(0)
    return guarded(result, context)


INTERRUPTS["an async function"] = guarded_later


@pytest.fixture
async def calls(engine: Engine) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """A worker with the tasks of a chain; what each was called with, and its context."""
    calls: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    @esexec.task
    async def validate(ctx: esexec.Context, **params: Any) -> dict[str, Any]:
        calls.append(("validate", params, dict(ctx.context)))
        return {**params, "valid": True}

    @esexec.task(max_retries=0)
    async def process(ctx: esexec.Context, **params: Any) -> dict[str, Any]:
        calls.append(("process", params, dict(ctx.context)))
        if params.get("bad"):
            raise ExecutionError("it cannot be processed", code="bad_data", retry=False, field="bad")
        return {**params, "processed": True}

    @esexec.task
    async def save(ctx: esexec.Context, **params: Any) -> dict[str, Any]:
        calls.append(("save", params, dict(ctx.context)))
        return {"saved": sorted(params)}

    @esexec.task(max_retries=0)
    async def guard(result: dict[str, Any], ctx: esexec.Context) -> Halt | Continue:
        return guarded(result, ctx.context)

    await engine.worker(validate, process, save, guard)
    return calls


async def test_each_link_gets_what_the_one_before_gave(engine: Engine, calls: list[Any]) -> None:
    """Params of a link win over those that flow; all have the same context; it is one execution."""
    result = await engine.client.chain(
        LINKS, {"data": [1], "format": "xml"}, context={"user": "u"}, execution_id="one", wait_timeout=10
    )
    assert calls == [
        ("validate", {"data": [1], "format": "xml"}, {"user": "u"}),
        ("process", {"data": [1], "format": "json", "valid": True}, {"user": "u"}),
        ("save", {"data": [1], "format": "json", "valid": True, "processed": True}, {"user": "u"}),
    ]
    assert result.value == {"saved": ["data", "format", "processed", "valid"]}
    assert (result.halted, result.halted_after, result.executions) == (False, None, ("one",))
    assert [*result.results] == ["validate", "process", "save"]


async def test_links_are_written_in_several_ways(engine: Engine, calls: list[Any]) -> None:
    """By name, as a task, with `link`; the same task may come twice; params of links may refer to the context."""

    @esexec.task
    async def validate(**params: Any) -> None: ...

    links = [validate, link("validate", user="${context.user}", again=True), "save"]
    result = await engine.client.chain(links, context={"user": "u"}, wait_timeout=10)
    assert [*result.results] == ["validate", "validate_2", "save"]
    assert result.value == {"saved": ["again", "user", "valid"]}


async def test_a_failed_link_tells_which_and_what_there_was(engine: Engine, calls: list[Any]) -> None:
    """The error has the link, the error itself and the results before; nothing after it is done."""
    with pytest.raises(ChainError) as failed:
        await engine.client.chain(LINKS, {"bad": True}, wait_timeout=10)
    error = failed.value
    assert (error.action, error.error.code, error.error.context) == ("process", "bad_data", {"field": "bad"})
    assert (error.code, error.message) == ("bad_data", "it cannot be processed")
    assert error.partial_results == {"validate": {"bad": True, "valid": True}}
    assert isinstance(error, ExecutionError)
    assert [name for name, _, _ in calls] == ["validate", "process"]


@pytest.mark.parametrize("who", INTERRUPTS)
async def test_an_interrupt_changes_what_flows(engine: Engine, calls: list[Any], who: str) -> None:
    """`Continue(value)` is what the next link gets, whoever is asked."""
    result = await engine.client.chain(LINKS, {"data": 1}, interrupt=INTERRUPTS[who], wait_timeout=10)
    assert [params.get("seen") for _, params, _ in calls] == [None, 1, 2]
    assert result.value == {"saved": ["data", "format", "processed", "seen", "valid"]}
    assert len(result.executions) == (1 if who == "a task" else 3)


@pytest.mark.parametrize("who", INTERRUPTS)
async def test_an_interrupt_halts_with_a_value(engine: Engine, calls: list[Any], who: str) -> None:
    """The chain has completed, with that value; no further link is called."""
    result = await engine.client.chain(LINKS, {"data": 1, "enough": True}, interrupt=INTERRUPTS[who], wait_timeout=10)
    assert (result.value, result.halted, result.halted_after) == ({"early": 1}, True, "validate")
    assert [*result.results] == [name for name, _, _ in calls] == ["validate"]
    assert [await engine.client.status(one) for one in result.executions] == ["completed"]


@pytest.mark.parametrize("who", INTERRUPTS)
async def test_an_interrupt_halts_with_an_error(engine: Engine, calls: list[Any], who: str) -> None:
    """The chain fails with it, behind the link that gave what was not to be."""
    with pytest.raises(ChainError, match="User blocked") as failed:
        await engine.client.chain(LINKS, {"blocked": True}, interrupt=INTERRUPTS[who], wait_timeout=10)
    assert (failed.value.action, failed.value.code) == ("validate", "halted")
    assert [*failed.value.partial_results] == [name for name, _, _ in calls] == ["validate"]


@pytest.mark.parametrize("who", INTERRUPTS)
async def test_an_interrupt_has_the_context(engine: Engine, calls: list[Any], who: str) -> None:
    """It is that of the chain."""
    result = await engine.client.chain(LINKS, {"data": 2}, interrupt=INTERRUPTS[who], context={"stop": True}, wait_timeout=10)
    assert (result.value, result.halted_after) == ({"early": 2}, "validate")


@pytest.mark.parametrize(
    ("interrupt", "params", "after"),
    [
        ("${result.blocked}", {"blocked": True}, "validate"),
        ("${result.blocked}", {}, None),
        (" not ${result.go}", {"go": True}, None),
        ("not ${result.go}", {}, "validate"),
        ("${result.processed}", {}, "process"),
        (lambda result, context: bool(result.get("processed")), {}, "process"),
    ],
)
async def test_a_condition_interrupts(
    engine: Engine, calls: list[Any], interrupt: Any, params: dict[str, Any], after: str | None
) -> None:
    """Where it holds for what a link gave, the chain halts with that; also where a function only says so."""
    result = await engine.client.chain(LINKS, params, interrupt=interrupt, wait_timeout=10)
    assert (result.halted, result.interrupted, result.halted_after) == (after is not None, after is not None, after)
    assert result.value == (result.results[after] if after else result.results["save"])


async def test_a_durable_chain_goes_on_without_its_caller(engine: Engine, calls: list[Any]) -> None:
    """Who began it may go away: the links and what is asked between them are the execution's own."""
    client = await engine.another_client()
    task = asyncio.create_task(client.chain(LINKS, {"data": 1}, interrupt="guard", execution_id="alone"))
    await until(lambda: calls)
    task.cancel()
    await client.__aexit__(None, None, None)
    assert (await engine.client.wait("alone", wait_timeout=10)).ok
    result = await engine.client.chain(LINKS, {"data": 1}, interrupt="guard", execution_id="alone", wait_timeout=10)
    assert result.value == {"saved": ["data", "format", "processed", "seen", "valid"]}
    assert len(calls) == 3


async def test_a_chain_that_is_cancelled_says_so(engine: Engine) -> None:
    """That is no failure of a link."""

    @esexec.task
    async def stuck() -> None:
        await asyncio.Event().wait()

    await engine.worker(stuck)
    chain = asyncio.create_task(engine.client.chain([stuck, "save"], execution_id="stopped"))
    await until(lambda: engine.client.get("stopped"))
    await engine.client.cancel("stopped")
    with pytest.raises(esexec.ExecutionCancelled):
        await asyncio.wait_for(chain, 10)


async def test_the_time_of_a_chain_is_that_of_all_its_links(engine: Engine, calls: list[Any]) -> None:
    """Also where the client goes from link to link itself; then no further link begins."""

    async def slow(result: Any, context: Any) -> None:
        await asyncio.sleep(0.3)

    with pytest.raises(esexec.AwaitTimeout):
        await engine.client.chain(LINKS, {"data": 1}, interrupt=slow, wait_timeout=0.25)
    assert [name for name, _, _ in calls] == ["validate"]


@pytest.mark.parametrize(
    ("links", "interrupt", "code"),
    [
        ([], None, "empty_chain"),
        ("validate", None, "empty_chain"),
        (["a", 7], None, "bad_link"),
        (["a", ("b", [1])], None, "bad_link"),
        (["a", "not a task"], None, "bad_link"),
        (["a", "b"], 7, "bad_interrupt"),
        (["a", "b"], "no task", "bad_interrupt"),
        (["a", "b"], "${input.x}", "bad_interrupt"),
        (["validate", "save"], lambda result, context: "stop", "bad_interrupt"),
    ],
)
async def test_what_is_no_chain_is_refused(engine: Engine, calls: list[Any], links: Any, interrupt: Any, code: str) -> None:
    """With a code and the way out."""
    with pytest.raises(esexec.ValidationError) as refused:
        await engine.client.chain(links, interrupt=interrupt, wait_timeout=10)
    assert refused.value.code == code
    assert refused.value.hint
