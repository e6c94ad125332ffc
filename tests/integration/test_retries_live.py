"""Retries on a running engine: which errors, how often, when, and what of it is seen from outside."""

import time
from datetime import UTC, datetime, timedelta

import pytest

import esexec
from esexec import ExecutionStatus, TaskStatus
from esexec.domain.events import TaskFailed, TaskRetryScheduled
from tests.integration.engine import KINDS, Engine, until

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)


def of_type(events: list, kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


@everywhere
async def test_a_transient_error_is_retried_until_it_works(engine: Engine) -> None:
    """F095, F115: attempts are counted, `retries` is one less, each failure stands in the history."""

    @esexec.task
    async def flaky(ctx: esexec.Context) -> int:
        if ctx.attempt < 3:
            raise ConnectionError("not yet")
        return ctx.attempt

    await engine.worker(flaky)
    result = await engine.execute("flaky")
    assert (result.result, result.results[0].retries, result.results[0].attempt) == (3, 2, 3)
    events = await engine.events(result.id)
    assert [(event.will_retry, event.error.code) for event in of_type(events, TaskFailed)] == [
        (True, "CONNECTION_ERROR"),
        (True, "CONNECTION_ERROR"),
    ]
    assert (await engine.types(result.id)).count("task_started") == 3


@everywhere
async def test_after_the_last_retry_it_has_failed(engine: Engine) -> None:
    """F101: `max_retries` re-attempts after the first, then `retries_exhausted`; the default is 3."""
    keys: set[str] = set()

    @esexec.task
    async def broken(ctx: esexec.Context) -> None:
        keys.add(ctx.idempotency_key)
        raise OSError(f"attempt {ctx.attempt}{' is the last' if ctx.is_last_attempt else ''}")

    await engine.worker(broken)
    result = await engine.execute("broken")
    assert result.status == ExecutionStatus.FAILED
    assert result.error is not None
    assert (result.error.message, result.error.attempt, result.results[0].retries) == ("attempt 4 is the last", 4, 3)
    failures = of_type(await engine.events(result.id), TaskFailed)
    assert [event.retries_exhausted for event in failures] == [False, False, False, True]
    assert len(keys) == 1  # what to hand to systems that remove duplicates
    assert (await engine.execute("broken", max_retries=1)).results[0].attempt == 2
    assert (await engine.execute("broken", max_retries=0)).results[0].attempt == 1


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (ValueError("unknown errors are retried"), 2),
        (TimeoutError("slow"), 2),
        (ConnectionResetError("reset"), 2),
        (esexec.ExecutionError("yes", retry=True), 2),
        (esexec.ExecutionError("no", retry=False), 1),
        (esexec.ExecutionError("nobody knows"), 2),
        (esexec.RateLimited("slow down", retry_after=0.01), 2),
        (esexec.ValidationError("bad"), 1),
        (TypeError("a mistake"), 1),
        (NameError("a mistake"), 1),
        (AssertionError("a mistake"), 1),
        (NotImplementedError("a mistake"), 1),
        (PermissionError("not allowed"), 1),
        (SyntaxError("what?"), 1),
    ],
    ids=lambda value: type(value).__name__ + str(value)[:12],
)
async def test_which_errors_are_retried(engine: Engine, error: Exception, attempts: int) -> None:
    """F102–F112, C12: what the error says, then the built-in lists, and unknown ones are retried."""

    @esexec.task
    async def raises() -> None:
        raise error

    await engine.worker(raises)
    result = await engine.execute("raises", max_retries=1)
    assert (result.status, result.results[0].attempt) == (ExecutionStatus.FAILED, attempts)


async def test_unknown_errors_are_not_retried_where_one_says_so(engine: Engine) -> None:
    """C12: `retry_unknown=False`."""

    @esexec.task
    async def odd() -> None:
        raise RuntimeError("odd")

    await engine.worker(odd)
    assert (await engine.execute("odd", retry_unknown=False)).results[0].attempt == 1


async def test_a_classifier_decides_before_the_lists(engine: Engine) -> None:
    """F102, F221: registered classifiers know the program's own errors; an explicit `retry=` still wins."""

    class OutOfStock(Exception):
        pass

    @esexec.classifier
    def stock(error: BaseException) -> esexec.Classification | None:
        return esexec.Classification(retry=False, code="OUT_OF_STOCK") if isinstance(error, OutOfStock) else None

    @esexec.task
    async def order() -> None:
        raise OutOfStock("none left")

    await engine.worker(order)
    try:
        result = await engine.execute("order")
    finally:
        esexec.remove_classifier(stock)
    assert result.error is not None
    assert (result.error.code, result.results[0].attempt) == ("OUT_OF_STOCK", 1)


async def test_retry_after_is_honoured(engine: Engine) -> None:
    """F103, C13: the delay that the error asks for replaces the back-off, without jitter; capped by `max_retry_after`."""
    started: list[float] = []

    @esexec.task(initial_retry_delay="10s")
    async def limited(ctx: esexec.Context) -> int:
        started.append(time.monotonic())
        if ctx.attempt == 1:
            raise esexec.RateLimited("slow down", retry_after=0.3)
        if ctx.attempt == 2:
            raise esexec.RateLimited("slow down", retry_after=3600)
        return ctx.attempt

    await engine.worker(limited)
    result = await engine.client.execute("limited", wait_timeout=8, max_retry_after=0.2)
    assert result.result == 3
    delays = [event.delay_ms for event in of_type(await engine.events(result.id), TaskRetryScheduled)]
    assert delays == [200, 200]
    result = await engine.client.execute("limited", wait_timeout=8, max_retry_after=1)
    assert started[4] - started[3] >= 0.29


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.4, 1.2])
async def test_short_and_long_delays_are_kept(engine: Engine, delay: float) -> None:
    """Durable timers of a second and more, shorter ones in process: never early, and not much late."""
    started: list[float] = []

    @esexec.task
    async def again(ctx: esexec.Context) -> int:
        started.append(time.monotonic())
        if ctx.attempt == 1:
            raise OSError("once")
        return ctx.attempt

    await engine.worker(again)
    result = await engine.execute("again", initial_retry_delay=delay)
    assert result.result == 2
    assert delay * 0.98 <= started[1] - started[0] <= delay + 1.5


async def test_the_next_retry_can_be_seen(engine: Engine) -> None:
    """F114, F162: while a retry is waited for, the step is pending with `next_retry_at` and its last error."""

    @esexec.task
    async def later() -> None:
        raise OSError("not now")

    await engine.worker(later)
    before = datetime.now(UTC)
    handle = await engine.client.start("later", initial_retry_delay=30, jitter=0.0)

    async def waiting() -> bool:
        return (await handle.snapshot()).results[0].next_retry_at is not None

    await until(waiting)
    step = (await handle.snapshot()).results[0]
    assert (step.status, step.retries) == (TaskStatus.PENDING, 0)
    assert step.error is not None
    assert step.error.message == "not now"
    assert timedelta(seconds=25) < step.next_retry_at - before < timedelta(seconds=35)
    assert await handle.status() == ExecutionStatus.RUNNING
    await handle.cancel()
    await handle.wait()


async def test_delays_grow_with_jitter_on_top(engine: Engine) -> None:
    """F096–F100: min(initial × multiplier^(n−1), max) × (1 + U(0, jitter))."""

    @esexec.task(max_retries=4, initial_retry_delay=0.01, backoff_multiplier=2, max_retry_delay=0.04, jitter=0.25)
    async def growing() -> None:
        raise OSError("always")

    await engine.worker(growing)
    result = await engine.client.execute("growing", wait_timeout=8)
    delays = [event.delay_ms for event in of_type(await engine.events(result.id), TaskRetryScheduled)]
    for delay, base in zip(delays, [10, 20, 40, 40], strict=True):
        assert base <= delay <= base * 1.25 + 1


@pytest.mark.parametrize("engine", ["one executor", "no cache"], indirect=True)
@pytest.mark.parametrize("delay", [0.5, 1.5])
async def test_a_retry_outlives_the_executor(engine: Engine, delay: float) -> None:
    """F113: the timer is durable; the executor that set it is gone when it fires, and another one goes on."""

    @esexec.task
    async def again(ctx: esexec.Context) -> int:
        if ctx.attempt == 1:
            raise OSError("once")
        return ctx.attempt

    await engine.worker(again)
    handle = await engine.client.start("again", initial_retry_delay=delay, jitter=0.0)

    async def waiting() -> bool:
        return (await handle.snapshot()).results[0].next_retry_at is not None

    await until(waiting)
    await engine.executors[0].stop()
    await engine.executor()
    assert await handle.result(wait_timeout=8) == 2


async def test_retries_of_many_at_once(engine: Engine) -> None:
    """A hundred executions, each retried twice, side by side: each gets its attempts, none is lost or doubled."""
    calls: list[str] = []

    @esexec.task
    async def flaky(n: int, ctx: esexec.Context) -> int:
        calls.append(f"{n}/{ctx.attempt}")
        if ctx.attempt < 3:
            raise OSError("not yet")
        return n

    await engine.worker(flaky, queues={"default": 50})
    handles = [await engine.client.start("flaky", {"n": n}, initial_retry_delay=0.02) for n in range(100)]
    assert [await handle.result(wait_timeout=20) for handle in handles] == list(range(100))
    assert sorted(calls) == sorted(f"{n}/{attempt}" for n in range(100) for attempt in (1, 2, 3))
