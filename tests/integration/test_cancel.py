"""Cancelling: queued attempts are withdrawn, running ones told, and the end comes at the latest with the grace."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

import esexec
from esexec import ExecutionStatus, Plan, Step, TaskStatus
from esexec.nats.connection import Msg
from tests.integration.engine import KINDS, Engine, until
from tests.integration.raw import RawClient

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)
FAST_S = 3.0
"""Far below the grace of 10 s."""


class Sleeper:
    """An async task that runs until it is cancelled."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0

        @esexec.task(name="sleeper", timeout=0)
        async def sleeper() -> None:
            self.started += 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

        self.task = sleeper


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> float:
    """The grace in seconds, for tests that wait for its end. No shorter: a timer below 1 s takes another path."""
    monkeypatch.setattr("esexec.domain.limits.cancel_grace_ms", 1_000)
    return 1.0


@everywhere
async def test_a_running_handler_is_told_and_ends(engine: Engine, sleeper: Sleeper) -> None:
    """F021, F145, C22: True; the handler is cancelled; the execution is `cancelled` once it has stopped."""
    await engine.worker(sleeper.task)
    plan = Plan("p", steps=[Step("sleeper", id="a"), Step("sleeper", id="b", depends_on=["a"])])
    handle = await engine.client.start(plan)
    await until(lambda: sleeper.started)
    assert await handle.cancel("enough") is True
    result = await handle.wait(wait_timeout=FAST_S)
    assert (result.status, sleeper.cancelled) == (ExecutionStatus.CANCELLED, 1)
    assert [task.status for task in result.results] == [TaskStatus.CANCELLED, TaskStatus.CANCELLED]
    requested = next(event for event in await engine.events(handle.id) if type(event).__name__ == "ExecutionCancelRequested")
    assert (requested.reason, requested.grace_ms) == ("enough", 10_000)
    with pytest.raises(esexec.ExecutionCancelled):
        await handle.result()
    assert isinstance(await handle.poll(), esexec.Err)


@everywhere
async def test_what_waits_in_a_queue_is_withdrawn_at_once(engine: Engine) -> None:
    """An attempt that no worker has is taken back and the execution ends at once, not after the grace."""
    plan = Plan("wide", steps=[Step("nobody_has_this", id=f"s{n}") for n in range(5)], parallel=True)
    handle = await engine.client.start(plan)
    assert await handle.cancel() is True
    assert (await handle.wait(wait_timeout=FAST_S)).status == ExecutionStatus.CANCELLED
    await until(lambda: no_dispatches(engine))


async def no_dispatches(engine: Engine) -> bool:
    connection = engine.client._connection
    assert connection is not None
    info = await connection.api(f"STREAM.INFO.{engine.subjects.tasks_stream}")
    return int(info["state"]["messages"]) == 0


@everywhere
async def test_what_waits_behind_a_busy_worker_is_withdrawn_at_once(engine: Engine, sleeper: Sleeper) -> None:
    """Also where the lane has delivered before: only the attempt that waits is withdrawn, and never runs."""
    await engine.worker(sleeper.task, queues={"default": 1})
    first = await engine.client.start("sleeper")
    await until(lambda: sleeper.started)
    second = await engine.client.start("sleeper")
    third = await engine.client.start("sleeper")
    assert await second.cancel() is True
    assert (await second.wait(wait_timeout=FAST_S)).status == ExecutionStatus.CANCELLED
    assert await first.status() == ExecutionStatus.RUNNING
    assert await first.cancel() is True
    await until(lambda: sleeper.started == 2)  # the third, not the second
    assert await third.cancel() is True
    assert (await third.wait(wait_timeout=FAST_S)).status == ExecutionStatus.CANCELLED


async def test_an_attempt_that_was_handed_back_ends_with_the_grace(engine: Engine, short_grace: float) -> None:
    """Delivered once, to a worker that drained, and waiting again: nobody can say who has it, so the grace decides."""
    gate = threading.Event()

    @esexec.task(timeout=0)
    def stubborn() -> None:
        gate.wait(10)

    worker = await engine.worker(stubborn, drain_s=0.05)
    handle = await engine.client.start("stubborn")
    await until(handle.worker_id)
    await worker.stop()
    gate.set()
    assert await handle.cancel() is True
    result = await handle.wait(wait_timeout=12)
    assert result.status == ExecutionStatus.CANCELLED


async def test_a_handler_that_needs_a_while_to_end_is_waited_for(engine: Engine) -> None:
    """Within the grace it may clean up, and even complete: the execution ends when it has."""
    cleaned: list[float] = []

    @esexec.task(timeout=0)
    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(2)
            cleaned.append(time.monotonic())

    await engine.worker(slow_to_end)
    handle = await engine.client.start("slow_to_end")
    await until(handle.worker_id)
    assert await handle.cancel() is True
    assert (await handle.wait(wait_timeout=8)).status == ExecutionStatus.CANCELLED
    assert cleaned
    ended = next(event for event in await engine.events(handle.id) if type(event).__name__ == "TaskCancelled")
    assert ended.ended == "cancelled"


async def test_a_sync_handler_that_ignores_it_is_given_up(engine: Engine, short_grace: float) -> None:
    """A thread cannot be ended: flagged, and abandoned with a warning; the execution is cancelled before the grace is over."""
    gate = threading.Event()
    flagged: list[bool] = []

    @esexec.task(timeout=0)
    def deaf(ctx: esexec.Context) -> None:
        gate.wait(10)
        flagged.append(ctx.cancelled)

    await engine.worker(deaf)
    handle = await engine.client.start("deaf")
    await until(handle.worker_id)
    began = time.monotonic()
    assert await handle.cancel() is True
    result = await handle.wait(wait_timeout=10)
    assert result.status == ExecutionStatus.CANCELLED
    assert time.monotonic() - began < 5
    assert any("does not end although it was told to" in line for line in engine.complaints.lines)
    ended = next(event for event in await engine.events(handle.id) if type(event).__name__ == "TaskCancelled")
    assert ended.ended == "abandoned"
    gate.set()
    await until(lambda: flagged == [True])


async def test_a_sync_handler_that_looks_ends_itself(engine: Engine) -> None:
    """`ctx.check_cancelled()` ends a thread that cooperates."""

    @esexec.task(timeout=0)
    def polite(ctx: esexec.Context) -> None:
        while True:
            ctx.check_cancelled()
            time.sleep(0.01)

    await engine.worker(polite)
    handle = await engine.client.start("polite")
    await until(handle.worker_id)
    assert await handle.cancel() is True
    assert (await handle.wait(wait_timeout=FAST_S)).status == ExecutionStatus.CANCELLED
    ended = next(event for event in await engine.events(handle.id) if type(event).__name__ == "TaskCancelled")
    assert ended.ended == "cancelled"


async def test_the_grace_ends_it_when_nobody_answers(engine: Engine, raw: RawClient, short_grace: float) -> None:
    """A worker that was told and says nothing (here: it lost the signal) is waited for until the grace is over."""
    handle = await engine.client.start("foreign")
    dispatch = await raw.pull()
    began = time.monotonic()
    assert await handle.cancel() is True
    assert await handle.status() == ExecutionStatus.RUNNING
    assert (await handle.snapshot()).current_phase == "cancelling"
    result = await handle.wait(wait_timeout=8)
    assert result.status == ExecutionStatus.CANCELLED
    assert time.monotonic() - began >= short_grace * 0.9
    assert (await engine.events(handle.id))[-1].abandoned == ("foreign",)
    late = {"type": "completed", "started_at": "2024-01-01T00:00:00Z", "ended_at": "2024-01-01T00:00:01Z", "output": 1}
    await raw.report(handle.id, "foreign", data=late)
    await dispatch.respond(b"")
    await until(lambda: inbox_is_empty(engine))
    assert await handle.status() == ExecutionStatus.CANCELLED


async def test_who_begins_after_the_cancel_is_told_again(engine: Engine, raw: RawClient) -> None:
    """A worker that missed the signal and reports its start is told to stop then; its answer ends the execution."""
    handle = await engine.client.start("foreign")
    dispatch = await raw.pull()
    assert await handle.cancel() is True
    told: list[bytes] = []

    async def on_signal(message: Msg) -> None:
        told.append(message.data)

    await raw.connection.subscribe(engine.subjects.live(handle.id, "cancel"), on_signal)
    await raw.connection.flush()
    await raw.report(handle.id, "foreign", data={"type": "started", "started_at": "2024-01-01T00:00:00Z"})
    await until(lambda: told)
    await raw.report(handle.id, "foreign", data={"type": "stopped", "ended": "cancelled"})
    await dispatch.respond(b"")
    assert (await handle.wait(wait_timeout=FAST_S)).status == ExecutionStatus.CANCELLED


async def inbox_is_empty(engine: Engine) -> bool:
    connection = engine.client._connection
    assert connection is not None
    info = await connection.api(f"STREAM.INFO.{engine.subjects.inbox_stream}")
    return int(info["state"]["messages"]) == 0


@everywhere
async def test_while_a_retry_is_waited_for_it_ends_at_once(engine: Engine) -> None:
    """The timer is cleared and no further attempt is made."""
    calls: list[int] = []

    @esexec.task(initial_retry_delay="30s")
    async def flaky() -> None:
        calls.append(1)
        raise ConnectionError("not now")

    await engine.worker(flaky)
    handle = await engine.client.start("flaky")
    await until(lambda: waits_for_retry(handle))
    assert await handle.cancel() is True
    result = await handle.wait(wait_timeout=FAST_S)
    assert (result.status, len(calls)) == (ExecutionStatus.CANCELLED, 1)
    assert result.results[0].next_retry_at is None
    await until(lambda: no_timers(engine))


async def waits_for_retry(handle: esexec.Handle) -> bool:
    return (await handle.snapshot()).results[0].next_retry_at is not None


async def no_timers(engine: Engine) -> bool:
    connection = engine.client._connection
    assert connection is not None
    info = await connection.api(f"STREAM.INFO.{engine.subjects.timers_stream}")
    return int(info["state"]["messages"]) == 0


@everywhere
async def test_true_false_or_an_error(engine: Engine, sleeper: Sleeper) -> None:
    """C22, F203: True if it took effect, False for what has ended, `NotFound` for what nobody knows."""

    @esexec.task
    async def quick() -> int:
        return 1

    await engine.worker(sleeper.task, quick)
    handle = await engine.client.start("sleeper")
    first, second = await asyncio.gather(handle.cancel(), handle.cancel())
    assert first or second  # the other may have come when all was over
    await handle.wait(wait_timeout=FAST_S)
    assert await handle.cancel() is False
    done = await engine.execute("quick")
    before = await engine.client.history(done.id)
    assert await engine.client.executions.cancel(done.id) is False
    assert await engine.client.history(done.id) == before
    with pytest.raises(esexec.NotFound):
        await engine.client.cancel("nobody")


@pytest.mark.parametrize("engine", ["two executors"], indirect=True)
async def test_an_executor_that_missed_the_end_does_not_say_true(engine: Engine, sleeper: Sleeper) -> None:
    """Of two executors one ends the execution while the other still remembers it as cancelling: its answer is False, too."""
    await engine.worker(sleeper.task, queues={"default": 30})
    handles = [await engine.client.start("sleeper") for _ in range(30)]
    await until(lambda: sleeper.started == 30)
    assert any(await asyncio.gather(*(handle.cancel() for handle in handles for _ in range(3))))
    for handle in handles:
        await handle.wait(wait_timeout=8)
    again = await asyncio.gather(*(handle.cancel() for handle in handles for _ in range(4)))
    assert set(again) == {False}


async def test_a_handler_that_swallows_the_cancellation_is_recorded_as_it_ended(engine: Engine) -> None:
    """C22: cooperative; a handler that finishes its work after it was told has completed, the execution is cancelled."""
    told = asyncio.Event()
    began = asyncio.Event()

    @esexec.task(timeout=0)
    async def finishes() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.set()
        return "done all the same"

    await engine.worker(finishes)
    handle = await engine.client.start("finishes")
    await asyncio.wait_for(began.wait(), 5)
    assert await handle.cancel() is True
    result = await handle.wait(wait_timeout=FAST_S)
    assert told.is_set()
    assert result.status == ExecutionStatus.CANCELLED
    assert result.results[0].status in (TaskStatus.COMPLETED, TaskStatus.CANCELLED)


async def test_thirty_at_once(engine: Engine, sleeper: Sleeper) -> None:
    """Thirty executions, ten running and twenty queued, cancelled together: all end fast and nothing is left behind."""
    await engine.worker(sleeper.task, queues={"default": 10})
    handles = [await engine.client.start("sleeper") for _ in range(30)]
    await until(lambda: sleeper.started == 10)
    assert all(await asyncio.gather(*(handle.cancel() for handle in handles)))
    results = await asyncio.gather(*(handle.wait(wait_timeout=8) for handle in handles))
    assert {result.status for result in results} == {ExecutionStatus.CANCELLED}
    await until(lambda: no_dispatches(engine))


def test_the_grace_is_ten_seconds() -> None:
    """The documented grace."""
    assert "cancel_grace_ms: Final = 10_000" in Path(esexec.domain.limits.__file__).read_text()
