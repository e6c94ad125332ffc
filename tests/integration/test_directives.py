"""What a handler says beside its output or its error, and what becomes of a task that its worker does not have."""

import pytest

import esexec
from esexec.domain import events as esexec_events
from esexec.domain import limits
from tests.integration.engine import QUICK, Engine


async def test_a_directive_comes_with_the_output(engine: Engine) -> None:
    """F006: `Ok(value, directive=…)` gives the value as the output, and the directive in the history and in every result."""

    @esexec.task
    async def book(room: int) -> esexec.Ok:
        return esexec.Ok({"room": room}, directive={"notify": ["ada"]})

    await engine.worker(book)
    result = await engine.execute(book, {"room": 7})
    assert (result.result, result.directive, result.results[0].directive) == (
        {"room": 7},
        {"notify": ["ada"]},
        {"notify": ["ada"]},
    )
    events = await engine.events(result.id)
    assert [event.directive for event in events if isinstance(event, esexec_events.TaskCompleted)] == [{"notify": ["ada"]}]
    match await engine.client.try_run(book, {"room": 7}, wait_timeout=8):
        case esexec.Ok(value, directive):
            assert (value, directive) == ({"room": 7}, {"notify": ["ada"]})
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("returned", [True, False])
async def test_a_directive_comes_with_the_error(engine: Engine, returned: bool) -> None:
    """F005, F007: `Err` and `TaskError` fail the attempt alike; the directive stands in the history, and in the exception."""

    @esexec.task(max_retries=0)
    def pay() -> esexec.Err:
        error = esexec.TaskError("declined", code="DECLINED", directive={"ask": "another card"})
        if returned:
            return esexec.Err(esexec.TaskError("declined", code="DECLINED"), directive={"ask": "another card"})
        raise error

    await engine.worker(pay)
    result = await engine.execute(pay)
    assert (result.error.code, result.directive, result.results[0].directive) == ("DECLINED", *2 * ({"ask": "another card"},))
    events = await engine.events(result.id)
    assert [event.error.directive for event in events if isinstance(event, esexec_events.TaskFailed)] == [{"ask": "another card"}]
    match await engine.client.try_run(pay, wait_timeout=8):
        case esexec.Err(error, directive):
            assert (error.code, error.directive, directive) == ("DECLINED", *2 * ({"ask": "another card"},))
        case other:
            raise AssertionError(other)


async def test_a_directive_that_is_too_large_fails_the_attempt(engine: Engine) -> None:
    """What has no room beside the output is refused by name, and not tried again."""

    @esexec.task
    async def talk() -> esexec.Ok:
        return esexec.Ok(1, directive="x" * limits.directive_bytes)

    await engine.worker(talk)
    result = await engine.execute(talk)
    assert (result.error.code, result.results[0].attempt) == ("directive_too_large", 1)


async def test_a_start_that_is_refused_is_an_error_to_match_on(engine: Engine) -> None:
    """F005: `try_run` raises nothing that is an outcome."""
    match await engine.client.try_run("a task", wait_timeout=8):
        case esexec.Err(error):
            assert error.code == "bad_task_name"
        case other:
            raise AssertionError(other)


async def test_a_task_that_its_worker_does_not_have_is_rejected(engine: Engine) -> None:
    """F052: the attempt ends as `task_rejected`, with the code `unknown_task`; nothing is tried again."""

    @esexec.task
    async def known() -> None: ...

    await engine.worker(known)
    result = await engine.execute("unknown", **QUICK)
    assert (result.status, result.error.code, result.results[0].retries) == ("failed", "unknown_task", 0)
    assert "known" in result.error.hint
    types = [esexec_events.type_of(event) for event in await engine.events(result.id)]
    assert types[-2:] == ["task_rejected", "execution_failed"]
    assert "task_failed" not in types


async def test_the_fallback_of_a_rejected_task_is_tried(engine: Engine) -> None:
    """That a task is final does not end the failure order: what stands in for it runs."""

    @esexec.task
    async def other() -> int:
        return 2

    await engine.worker(other)
    plan = esexec.Plan("p", steps=[esexec.Step("unknown", id="a", fallback="other")])
    assert (await engine.execute(plan)).result == 2
