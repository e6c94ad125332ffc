"""Hooks on a running engine: what they hear of executions that succeed, fail, are retried, undone, handed back."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import esexec
from esexec import Plan, Step, telemetry
from tests.integration.engine import Engine, WorkerThread, until


@esexec.task
async def reserve(dock: int) -> dict[str, int]:
    telemetry.execute("my_app.reserved", {"docks": dock}, {"by": "reserve"})
    return {"dock": dock}


@reserve.compensate
def release(dock: int) -> None: ...


@esexec.task
def load(ctx: esexec.Context) -> None:
    if ctx.attempt == 1:
        raise ConnectionError("the ramp is busy")
    raise esexec.ExecutionError("the ramp is broken", code="BROKEN", retry=False)


class Hook:
    """Writes down what it hears, from whichever thread."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    def __call__(self, event: str, measurements: dict[str, Any], metadata: dict[str, Any], config: Any) -> None:
        self.heard.append((event, measurements, metadata))

    def told(self, *fields: str) -> list[tuple[Any, ...]]:
        return [(event, *(metadata.get(field) for field in fields)) for event, _, metadata in self.heard]


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A hook for all events of this file."""
    hook = Hook()
    telemetry.attach("test", [*telemetry.EVENTS, "my_app.reserved"], hook)
    yield hook
    telemetry.detach("test")


async def test_hooks_hear_every_handler_of_an_execution(engine: Engine, hook: Hook) -> None:
    """Retries and compensations as well, in their order, with times that agree with the history; and what handlers tell."""
    worker = await engine.worker(reserve, load)
    plan = Plan("p", steps=[Step(reserve, id="a", params={"dock": 7}), Step(load, id="b", depends_on=["a"])])
    result = await engine.execute(plan, enable_rollback=True)
    assert result.status == "rolled_back"
    await until(lambda: len(hook.heard) == 9)
    assert hook.told("step", "task", "purpose", "attempt", "kind") == [
        ("exec.start", "a", "reserve", "task", 1, None),
        ("my_app.reserved", None, None, None, None, None),
        ("exec.stop", "a", "reserve", "task", 1, None),
        ("exec.start", "b", "load", "task", 1, None),
        ("exec.exception", "b", "load", "task", 1, "error"),
        ("exec.start", "b", "load", "task", 2, None),
        ("exec.exception", "b", "load", "task", 2, "error"),
        ("exec.start", "a", "reserve.compensate", "compensation", 2, None),
        ("exec.stop", "a", "reserve.compensate", "compensation", 2, None),
    ]
    assert {about["worker"] for event, _, about in hook.heard if event != "my_app.reserved"} == {worker.name}
    assert {about["execution_id"] for event, _, about in hook.heard if event != "my_app.reserved"} == {result.id}
    assert hook.heard[1][1:] == ({"docks": 7}, {"by": "reserve"})
    assert hook.heard[6][2]["error"] == result.step("b").error
    started_at = result.step("a").started_at
    assert abs(hook.heard[0][1]["system_time"] - started_at.timestamp()) < 0.001


async def test_what_a_hook_does_to_what_it_hears_stays_with_it(engine: Engine, hook: Hook) -> None:
    """Also deep inside: neither the next hook, nor the end of the attempt, nor the handler sees anything of it."""

    def spoil(event: str, measurements: dict[str, Any], metadata: dict[str, Any], config: Any) -> None:
        metadata["params"]["dock"]["number"] = "spoilt"
        metadata["params"]["list"].append("spoilt")
        if "error" in metadata:
            metadata["error"].context["spoilt"] = True
            metadata["error"].code = "SPOILT"

    @esexec.task(max_retries=0)
    async def look(dock: dict[str, Any], list: list[Any]) -> None:
        raise esexec.ExecutionError(str([dock, list]), code="SEEN", context={"a": 1})

    telemetry.detach("test")
    telemetry.attach("spoils", telemetry.EVENTS, spoil)
    try:
        telemetry.attach("test", telemetry.EVENTS, hook)
        await engine.worker(look)
        params = {"dock": {"number": 7}, "list": [1]}
        result = await engine.execute(look, params)
        await until(lambda: len(hook.heard) == 2)
    finally:
        telemetry.detach("spoils")
    assert [about["params"] for _, _, about in hook.heard] == [params, params]
    assert hook.heard[1][2]["error"] == result.error
    assert (result.error.code, result.error.message) == ("SEEN", "[{'number': 7}, [1]]")


async def test_a_timeout_and_a_cancel_are_heard(engine: Engine, hook: Hook) -> None:
    """Each as an exception of its kind."""

    @esexec.task(max_retries=0)
    async def wait_long() -> None:
        await asyncio.Event().wait()

    await engine.worker(wait_long)
    await engine.execute(wait_long, timeout=0.05)
    handle = await engine.client.start(wait_long)
    await until(lambda: len(hook.heard) == 3)
    await handle.cancel()
    await until(lambda: len(hook.heard) == 4)
    assert [event[1] for event in hook.told("kind")] == [None, "timeout", None, "cancelled"]


@pytest.mark.usefixtures("quick_leases")
async def test_a_handler_that_blocks_its_loop_past_its_timeout_is_heard_to_end(engine: Engine, hook: Hook) -> None:
    """Its attempt is closed over the loop's head; once the loop turns again hooks hear so, once."""
    release = threading.Event()

    @esexec.task(timeout=0.3, max_retries=0)
    async def block() -> None:
        release.wait(20)

    async with WorkerThread(engine, block):
        result = await engine.execute(block)
        assert result.error.code == "task_timeout"
        assert hook.told("kind") == [("exec.start", None)]
        release.set()
        await until(lambda: len(hook.heard) == 2)
    assert hook.told("kind") == [("exec.start", None), ("exec.exception", "timeout")]


async def test_what_a_worker_hands_back_is_heard(engine: Engine, hook: Hook) -> None:
    """The worker that ends says that its handler is over there, the next one begins it and ends it."""
    hold = asyncio.Event()

    @esexec.task
    async def wait_once() -> str:
        if not hold.is_set():
            await asyncio.Event().wait()
        return "done"

    first = await engine.worker(wait_once, drain_s=0.0, name="first")
    handle = await engine.client.start(wait_once)
    await until(lambda: len(hook.heard) == 1)
    hold.set()
    await first.stop()
    await engine.worker(wait_once, name="second")
    assert await handle.result(wait_timeout=20) == "done"
    await until(lambda: len(hook.heard) == 4)
    assert hook.told("worker", "kind") == [
        ("exec.start", "first", None),
        ("exec.exception", "first", "handed_back"),
        ("exec.start", "second", None),
        ("exec.stop", "second", None),
    ]


async def test_a_hook_that_throws_does_not_fail_an_execution(engine: Engine) -> None:
    """It is warned of once and detached; the execution completes in one attempt."""
    engine.errors_expected = True  # its traceback belongs to the warning

    def throw(*_: Any) -> None:
        raise RuntimeError(time.time())

    telemetry.attach("bad", telemetry.EVENTS, throw)
    await engine.worker(reserve)
    result = await engine.execute(reserve, {"dock": 1})
    assert (result.status, result.results[0].attempt) == ("completed", 1)
    assert len([line for line in engine.complaints.lines if line.startswith("hook 'bad' threw at exec.start")]) == 1
    assert not telemetry.detach("bad")
