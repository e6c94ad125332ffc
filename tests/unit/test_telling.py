"""What hooks hear of attempts: each handler that is called begins and ends for them, whatever becomes of it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest

from esexec import Context, RecoveryAction, RecoveryContext, RecoveryResult, Task, recovery, telemetry
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo
from esexec.domain.messages import Dispatch, RecoveryRequest
from esexec.domain.plan import plan_of_task
from esexec.tasks import current_context
from esexec.worker.attempt import Attempt
from esexec.worker.running import Runner

Heard = list[tuple[str, dict[str, Any], dict[str, Any]]]


class Worker:
    """A runner with its reports, and a hook that writes down what it hears."""

    def __init__(self, *handlers: Callable[..., Any], listen: bool = True) -> None:
        self.reports: list[r.Report] = []
        self.heard: Heard = []
        self.order: list[str] = []
        tasks = {one.name: one for one in map(Task, handlers)}
        self.runner = Runner("w", tasks, self.take, strategies={"advise": advise})
        if listen:
            telemetry.attach("heard", telemetry.EVENTS, self.hear)

    def hear(self, event: str, measurements: dict[str, Any], metadata: dict[str, Any], config: Any) -> None:
        self.heard.append((event, measurements, metadata))
        self.order.append(event)

    async def take(self, attempt: Attempt, data: bytes) -> None:
        self.reports.append(msgspec.json.decode(data, type=r.Report))
        self.order.append("report")

    async def begin(self, name: str, **fields: Any) -> Attempt:
        attempt = Attempt(Dispatch(execution_id="e", step="s", task=name, **fields), "e/s/1-1", "default", "ack", "subject")
        await self.runner.begin(attempt, time.monotonic())
        return attempt

    async def run(self, name: str, **fields: Any) -> Attempt:
        attempt = await self.begin(name, **fields)
        await until(lambda: bool(self.reports) and (not attempt.tale or not self.heard))
        return attempt

    @property
    def events(self) -> list[str]:
        return [event for event, _, _ in self.heard]

    def last(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.heard[-1][1:]


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Hooks belong to the process: none is left for the next test."""
    yield
    for id in list(telemetry._hooks):
        telemetry.detach(id)


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 8
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


@recovery("*", id="advise")
async def advise(ctx: RecoveryContext) -> RecoveryResult:
    return RecoveryResult(True, RecoveryAction.SKIP)


async def add(a: int, b: int = 1) -> int:
    return a + b


def add_in_thread(a: int, b: int = 1) -> int:
    return a + b


async def fail(a: int) -> None:
    raise ConnectionError("nobody there")


def fail_in_thread(a: int) -> None:
    raise ConnectionError("nobody there")


async def wait_long() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("handler", [add, add_in_thread])
async def test_a_handler_that_does_its_work_begins_and_stops(handler: Callable[..., Any]) -> None:
    """Its hook hears when, how long, and of which attempt; the same for what runs on the loop and in a thread."""
    before = time.time()
    worker = Worker(handler)
    await worker.run(handler.__name__, params={"a": 2}, attempt=3, run=2)
    (start, times, about), (stop, took, about_at_the_end) = worker.heard
    assert (start, stop) == ("exec.start", "exec.stop")
    assert before - 1 <= times["system_time"] <= time.time()
    assert 0 < times["monotonic_time"] <= time.monotonic()
    assert took["duration_ms"] == took["duration"] * 1000 >= 0
    assert about == about_at_the_end == {
        "task": handler.__name__, "action": handler.__name__, "params": {"a": 2}, "execution_id": "e", "step": "s",
        "attempt": 3, "run": 2, "worker": "w", "purpose": "task",
    }  # fmt: skip


@pytest.mark.parametrize("handler", [fail, fail_in_thread])
async def test_a_handler_that_raises_ends_with_its_error(handler: Callable[..., Any]) -> None:
    """The error is the one that is reported."""
    worker = Worker(handler)
    await worker.run(handler.__name__, params={"a": 2})
    took, about = worker.last()
    (report,) = worker.reports
    assert worker.events == ["exec.start", "exec.exception"]
    assert isinstance(report, r.Failed)
    assert about["error"] == report.error
    assert (about["kind"], about["error"].code, about["error"].exception) == ("error", "CONNECTION_ERROR", "ConnectionError")
    assert took["duration"] >= 0


async def test_an_output_that_cannot_be_kept_is_an_exception() -> None:
    """What counts is what is reported, not whether the handler returned."""

    async def give_nothing_of_json() -> object:
        return object()

    worker = Worker(give_nothing_of_json)
    await worker.run("give_nothing_of_json")
    assert worker.events == ["exec.start", "exec.exception"]
    assert worker.last()[1]["error"].code == "output_not_serializable"


@pytest.mark.parametrize(
    ("why", "kind", "code"), [("timeout", "timeout", "task_timeout"), ("cancelled", "cancelled", "cancelled")]
)
async def test_a_handler_that_is_told_to_stop_ends_as_an_exception(why: Any, kind: str, code: str) -> None:
    """A timeout and a cancel are no stop, and are told apart."""
    worker = Worker(wait_long)
    attempt = await worker.begin("wait_long")
    attempt.stop(why, time.monotonic())
    await until(lambda: len(worker.heard) == 2)
    _, about = worker.last()
    assert worker.events == ["exec.start", "exec.exception"]
    assert (about["kind"], about["error"].code, about["error"].task_id) == (kind, code, "s")


async def test_a_thread_that_does_not_end_is_told_once() -> None:
    """It is left to itself: that is its end, and what it does later is not heard."""
    release = threading.Event()
    ended = threading.Event()

    def hang() -> None:
        release.wait(10)
        ended.set()

    worker = Worker(hang)
    attempt = await worker.begin("hang", timeout_ms=1)
    await worker.runner.look_after(attempt, attempt.started_mono + 1)
    await worker.runner.look_after(attempt, attempt.started_mono + 100)
    release.set()
    await asyncio.to_thread(ended.wait)
    await asyncio.sleep(0)
    assert worker.events == ["exec.start", "exec.exception"]
    assert worker.last()[1]["kind"] == "timeout"


async def test_what_a_worker_hands_back_ends_for_hooks() -> None:
    """It has no outcome, and is not reported: but who heard it begin hears that it is over here."""
    worker = Worker(wait_long)
    attempt = await worker.begin("wait_long")
    await until(lambda: bool(worker.heard))
    attempt.stop("draining", time.monotonic())
    worker.runner.let_go(attempt, "draining")
    await until(lambda: not worker.runner._running)
    assert (worker.events, worker.reports) == (["exec.start", "exec.exception"], [])
    assert (worker.last()[1]["kind"], worker.last()[1]["error"].code) == ("handed_back", "handed_back")


@pytest.mark.parametrize("purpose", ["task", "fallback", "compensation"])
async def test_the_purpose_is_told(purpose: str) -> None:
    """A hook can tell the work of a step from what undoes it."""
    worker = Worker(add)
    await worker.run("add", purpose=purpose, params={"a": 1})
    assert {about["purpose"] for _, _, about in worker.heard} == {purpose}


async def test_a_question_to_a_strategy_is_told() -> None:
    """The task is the strategy's id."""
    asked = RecoveryRequest(
        error=ErrorInfo(type="execution_error", code="X", message="x"), failed_attempt=1, recoveries=1,
        plan=msgspec.Raw(msgspec.json.encode(plan_of_task("t", "s"))), state={},
    )  # fmt: skip
    worker = Worker()
    await worker.run("advise", purpose="recovery", recovery=asked)
    assert worker.events == ["exec.start", "exec.stop"]
    assert (worker.last()[1]["task"], worker.last()[1]["purpose"]) == ("advise", "recovery")


@pytest.mark.parametrize(("name", "params"), [("unknown", {}), ("add", {"c": 1})])
async def test_a_handler_that_is_not_called_is_not_told(name: str, params: dict[str, Any]) -> None:
    """An unknown task, and params that do not fit, fail the attempt before there is anything to tell."""
    worker = Worker(add)
    await worker.run(name, params=params)
    assert [type(report) for report in worker.reports] == [r.Rejected if name == "unknown" else r.Failed]
    assert worker.heard == []


async def test_the_report_does_not_wait_for_hooks() -> None:
    """How an attempt ended is on its way before it is told."""
    worker = Worker(add)
    await worker.run("add", params={"a": 1})
    assert worker.order == ["exec.start", "report", "exec.stop"]


async def test_the_end_is_told_although_the_report_cannot_be_sent() -> None:
    """A worker whose connection is gone still tells what its handlers did."""
    worker = Worker(add)

    async def lost(attempt: Attempt, data: bytes) -> None:
        raise ConnectionError

    worker.runner._report = lost
    await worker.begin("add", params={"a": 1})
    (running,) = worker.runner._running
    with pytest.raises(ConnectionError):
        await running
    assert worker.events == ["exec.start", "exec.stop"]


async def test_who_was_attached_later_does_not_hear_the_end() -> None:
    """A hook hears an attempt wholly or not at all: no end of what it did not hear begin."""
    worker = Worker(wait_long)
    late: list[str] = []
    attempt = await worker.begin("wait_long")
    await until(lambda: bool(worker.heard))
    telemetry.attach("late", telemetry.EVENTS, lambda event, *_: late.append(event))
    attempt.stop("cancelled", time.monotonic())
    await until(lambda: len(worker.heard) == 2)
    assert late == []


async def test_who_was_detached_hears_nothing_more() -> None:
    """Also not the end of what it heard begin."""
    worker = Worker(wait_long)
    attempt = await worker.begin("wait_long")
    await until(lambda: bool(worker.heard))
    telemetry.detach("heard")
    attempt.stop("cancelled", time.monotonic())
    await until(lambda: bool(worker.reports))
    await asyncio.sleep(0)
    assert worker.events == ["exec.start"]


async def test_who_hears_only_of_other_events_costs_attempts_nothing() -> None:
    """Where nobody listens to attempts, nothing is made to tell."""
    worker = Worker(wait_long, listen=False)
    telemetry.attach("mine", "my_app.sent", lambda *_: None)
    attempt = await worker.begin("wait_long")
    await asyncio.sleep(0)
    assert telemetry.of_attempts == ()
    assert attempt.tale is None
    attempt.stop("cancelled", time.monotonic())
    await until(lambda: bool(worker.reports))


@pytest.mark.parametrize("handler", [add, add_in_thread])
async def test_a_hook_that_throws_changes_no_attempt(handler: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """The attempt completes, the other hooks hear it, and there is one warning for all events of the hook."""

    def throw(*_: Any) -> None:
        raise RuntimeError("hook")

    telemetry.attach("bad", telemetry.EVENTS, throw)
    worker = Worker(handler)
    await worker.run(handler.__name__, params={"a": 1})
    assert [type(report) for report in worker.reports] == [r.Completed]
    assert worker.events == ["exec.start", "exec.stop"]
    assert [record.getMessage() for record in caplog.records if record.name == "esexec.telemetry"] == [
        "hook 'bad' threw at exec.start, and is detached: RuntimeError('hook')"
    ]


@pytest.mark.parametrize("threaded", [False, True])
async def test_params_are_the_hook_s_own(threaded: bool) -> None:
    """What a hook does to the params does not reach the handler, and what the handler does to them does not reach the hook."""

    async def take(items: list[Any]) -> list[Any]:
        items.append("handler")
        return items

    def take_in_thread(items: list[Any]) -> list[Any]:
        items.append("handler")
        return items

    worker = Worker(take, take_in_thread)
    telemetry.attach("meddler", "exec.start", lambda event, measurements, metadata, _: metadata["params"]["items"].append("hook"))
    await worker.run("take_in_thread" if threaded else "take", params={"items": [1]})
    (report,) = worker.reports
    assert isinstance(report, r.Completed)
    assert msgspec.json.decode(msgspec.json.encode(report.output)) == [1, "handler"]
    assert worker.last()[1]["params"] == {"items": [1]}


SPAN: ContextVar[str | None] = ContextVar("span", default=None)


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_handler_sees_what_a_hook_sets_around_it(threaded: bool) -> None:
    """Context variables that are set at `exec.start` are the handler's, and nobody else's: spans nest without more ado."""
    seen: list[str | None] = []

    async def look() -> None:
        seen.append(SPAN.get())

    def look_in_thread() -> None:
        seen.append(SPAN.get())

    contexts: list[Context | None] = []

    def begin(event: str, measurements: Any, metadata: dict[str, Any], config: Any) -> None:
        SPAN.set(f"span of {metadata['task']}")
        contexts.append(current_context())

    telemetry.attach("spans", "exec.start", begin)
    name = "look_in_thread" if threaded else "look"
    worker = Worker(look, look_in_thread)
    await worker.run(name)
    assert seen == [f"span of {name}"]
    assert SPAN.get() is None
    assert contexts[0] is not None
    assert contexts[0].task == name


async def test_an_attempt_without_a_thread_begins_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has no further thread fails the attempt, and hooks hear that as well."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    worker = Worker(add_in_thread)
    await worker.run("add_in_thread", params={"a": 1})
    assert worker.events == ["exec.start", "exec.exception"]
