"""What an attempt is for decides what is called: a task, what undoes it, or a strategy; and what each report carries."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo
from esexec.domain.messages import Dispatch, ImageSignal, RecoveryRequest
from esexec.domain.plan import plan_of_task
from esexec.tasks import (
    AttemptCancelled,
    Context,
    RecoveryAction,
    RecoveryContext,
    RecoveryResult,
    RecoveryStrategy,
    current_context,
    recovery,
    task,
)
from esexec.worker.attempt import Attempt
from esexec.worker.images import Images
from esexec.worker.running import Runner

ASKED = RecoveryRequest(
    error=ErrorInfo(type="execution_error", code="X", message="x"),
    failed_attempt=1,
    recoveries=1,
    plan=msgspec.Raw(msgspec.json.encode(plan_of_task("t", "s"))),
    state={},
)


class Worker:
    """A runner with what a worker has around it: its reports as they come, and the before-images that it sent."""

    def __init__(self, *handlers: Any, strategies: tuple[RecoveryStrategy, ...] = (), repeat_s: float = 60.0) -> None:
        self.got: list[r.Report] = []
        self.sent: list[tuple[str, r.Report]] = []
        self.images = Images("w", self.send, repeat_s=repeat_s)
        tasks = {one.name: one for one in map(task, handlers)}
        self.runner = Runner("w", tasks, self.take, strategies={one.id: one for one in strategies}, images=self.images)

    async def take(self, attempt: Attempt, data: bytes) -> None:
        self.got.append(msgspec.json.decode(data, type=r.Report))

    async def send(self, subject: str, data: bytes) -> None:
        self.sent.append((subject, msgspec.json.decode(data, type=r.Report)))

    def answer(self, image: Any, *, attempt: int = 1) -> None:
        self.images.answered(msgspec.json.encode(ImageSignal(execution_id="e", step="s", attempt=attempt, image=image)))

    async def begin(self, name: str, **fields: Any) -> Attempt:
        attempt = Attempt(Dispatch(execution_id="e", step="s", task=name, **fields), "e/s/1-1", "default", "ack", "subject")
        await self.runner.begin(attempt, time.monotonic())
        return attempt

    async def run(self, name: str, **fields: Any) -> Any:
        """The report of an attempt that is run to its end."""
        await self.begin(name, **fields)
        return await self.report()

    async def report(self) -> Any:
        await until(lambda: bool(self.got))
        (report,) = self.got
        return report


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 8
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


# Purposes --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", ["task", "fallback"])
async def test_the_work_of_a_step_is_bound_strictly(purpose: str) -> None:
    """A task, and one in its stead, refuse params that they do not know."""

    def create(city: str) -> str:
        return city

    assert (await Worker(create).run("create", purpose=purpose, params={"city": "Lyon"})).output == "Lyon"
    report = await Worker(create).run("create", purpose=purpose, params={"city": "Lyon", "more": 1})
    assert report.error.code == "invalid_params"


async def test_a_compensation_is_bound_loosely() -> None:
    """It gets of params and output what it has parameters for, and its context knows what it is for."""

    async def drop(id: int, ctx: Context) -> list[Any]:
        return [id, ctx.purpose, ctx.output, ctx.before_image]

    report = await Worker(drop).run(
        "drop", purpose="compensation", params={"id": 7, "city": "Lyon"}, output={"id": 7}, before={"a": 1}
    )
    assert report.output == [7, "compensation", {"id": 7}, {"a": 1}]


@pytest.mark.parametrize("sync", [False, True])
async def test_a_recovery_asks_the_strategy(sync: bool) -> None:
    """Its result is the output of the attempt; an async one on the loop, a sync one in a thread, both within a context."""
    threads: list[tuple[threading.Thread, Context | None]] = []

    def say(ctx: RecoveryContext) -> RecoveryResult:
        threads.append((threading.current_thread(), current_context()))
        return RecoveryResult(True, RecoveryAction.SKIP, message="ok")

    async def say_later(ctx: RecoveryContext) -> RecoveryResult:
        return say(ctx)

    strategy = recovery(id="mine")(say if sync else say_later)
    report = await Worker(strategies=(strategy,)).run("mine", purpose="recovery", recovery=ASKED)
    assert report.output == {"success": True, "action": "skip", "message": "ok"}
    ((thread, context),) = threads
    assert (thread is threading.main_thread()) is not sync
    assert context is not None
    assert context.purpose == "recovery"


async def test_a_strategy_that_raises_fails_its_attempt() -> None:
    """As a handler does, with the code of its error; what follows is the core's to say."""

    async def broken(ctx: RecoveryContext) -> RecoveryResult:
        raise ValueError("no idea")

    report = await Worker(strategies=(recovery(broken),)).run("broken", purpose="recovery", recovery=ASKED)
    assert (type(report), report.error.code, report.error.message) == (r.Failed, "VALUE_ERROR", "no idea")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
async def test_a_strategy_that_ends_the_program_fails_its_attempt(error: type[BaseException]) -> None:
    """The worker that asked it lives on, and nobody else is given that question."""

    async def leaves(ctx: RecoveryContext) -> RecoveryResult:
        raise error("bye")

    report = await Worker(strategies=(recovery(leaves),)).run("leaves", purpose="recovery", recovery=ASKED)
    assert (type(report), report.error.message) == (r.Failed, "bye")


async def test_a_strategy_that_takes_too_long_times_out() -> None:
    """It is cancelled as a handler is, and its attempt timed out."""

    async def slow(ctx: RecoveryContext) -> RecoveryResult:
        await asyncio.sleep(60)
        raise AssertionError

    worker = Worker(strategies=(recovery(slow),))
    attempt = await worker.begin("slow", purpose="recovery", recovery=ASKED, timeout_ms=1_000)
    await worker.runner.look_after(attempt, time.monotonic() + 2)
    report = await worker.report()
    assert (type(report), report.ended) == (r.TimedOut, "cancelled")


@pytest.mark.parametrize("sync", [False, True])
async def test_code_in_a_handler_finds_its_context(sync: bool) -> None:
    """`current_context` is that of the attempt, and nothing is left of it on the worker's loop."""

    def look(ctx: Context) -> bool:
        return current_context() is ctx

    async def look_async(ctx: Context) -> bool:
        return look(ctx)

    name = "look" if sync else "look_async"
    assert (await Worker(look, look_async).run(name)).output is True
    assert current_context() is None


# Variables -------------------------------------------------------------------------------------------------------------------


async def test_variables_travel_with_the_outcome() -> None:
    """Of a completed attempt and of a failed one; only what was changed."""

    def good(ctx: Context) -> int:
        ctx.vars["n"] = ctx.vars["n"] + 1
        return 1

    async def bad(ctx: Context) -> None:
        ctx.vars["why"] = "x"
        raise ValueError

    assert (await Worker(good).run("good", vars={"n": 1, "m": 2})).vars == {"n": 2}
    report = await Worker(bad).run("bad", vars={"n": 1})
    assert (type(report), report.vars) == (r.Failed, {"why": "x"})


async def test_variables_that_cannot_be_kept_fail_the_attempt() -> None:
    """Where it would have completed; where it failed its own error says more."""

    def grow(fail: bool, ctx: Context) -> None:
        grown = ctx.vars["grown"] = []
        grown.append("x" * limits.vars_bytes)
        if fail:
            raise ValueError("first")

    report = await Worker(grow).run("grow", params={"fail": False})
    assert (report.error.code, report.error.retryable, report.vars) == ("vars_too_large", False, {})
    report = await Worker(grow).run("grow", params={"fail": True})
    assert (report.error.message, report.vars) == ("first", {})


# Before-images ---------------------------------------------------------------------------------------------------------------


def change_sync(ctx: Context) -> Any:
    return ctx.before_sync({"n": 1})


async def change(ctx: Context) -> Any:
    return await ctx.before({"n": 1})


def change_in_a_loop_of_its_own(ctx: Context) -> Any:
    return asyncio.run(change(ctx))


WAYS = pytest.mark.parametrize("way", [change, change_sync, change_in_a_loop_of_its_own])


@WAYS
async def test_a_handler_goes_on_once_its_image_is_stored(way: Any) -> None:
    """The report goes where the attempt's reports go; the answer for it, and no other, lets the handler go on."""
    worker = Worker(way)
    await worker.begin(way.__name__)
    await until(lambda: bool(worker.sent))
    worker.answer({"n": -1}, attempt=2)
    worker.images.answered(b"?")
    await asyncio.sleep(0)
    assert worker.got == []
    worker.answer({"n": 0})
    assert (await worker.report()).output == {"n": 0}
    assert worker.sent == [("subject", r.Before(worker="w", image={"n": 1}))]
    worker.answer({"n": 0})


async def test_an_image_is_sent_again_until_it_is_answered() -> None:
    """An answer that was lost costs a moment, not the attempt."""
    worker = Worker(change, repeat_s=0.001)
    await worker.begin("change")
    await until(lambda: len(worker.sent) > 3)
    worker.answer({"n": 0})
    assert (await worker.report()).output == {"n": 0}
    assert {subject for subject, _ in worker.sent} == {"subject"}


@WAYS
@pytest.mark.parametrize("why", ["cancelled", "timeout"])
async def test_a_stopped_attempt_does_not_wait_for_an_image(way: Any, why: Any) -> None:
    """Whoever is told to stop while no executor answers ends at once, also in a thread."""
    worker = Worker(way)
    attempt = await worker.begin(way.__name__)
    await until(lambda: bool(worker.sent))
    attempt.stop(why, time.monotonic())
    report = await worker.report()
    assert report.ended == "cancelled"


async def test_who_asks_after_having_been_told_to_stop_gets_no_answer() -> None:
    """A thread that comes to its image late is stopped there."""
    asked, stopped = threading.Event(), threading.Event()

    def late(ctx: Context) -> Any:
        asked.set()
        stopped.wait(8)
        try:
            return ctx.before_sync(1)
        except AttemptCancelled:
            assert ctx.cancelled
            raise

    worker = Worker(late)
    attempt = await worker.begin("late")
    await until(asked.is_set)
    attempt.stop("cancelled", time.monotonic())
    stopped.set()
    assert type(await worker.report()) is r.Stopped
    assert worker.sent == []


async def test_two_images_at_once_are_one() -> None:
    """Both get the one that stands."""

    async def twice(ctx: Context) -> Any:
        return await asyncio.gather(ctx.before(1), ctx.before(2))

    worker = Worker(twice)
    await worker.begin("twice")
    await until(lambda: len(worker.sent) == 2)
    worker.answer(1)
    assert (await worker.report()).output == [1, 1]


async def test_the_sync_form_on_the_loop_is_refused() -> None:
    """It would wait for ever for the loop that it blocks."""

    async def wrong(ctx: Context) -> Any:
        return ctx.before_sync(1)

    report = await Worker(wrong).run("wrong")
    assert (report.error.code, report.error.hint) == ("before_sync_on_loop", "await ctx.before(…)")


async def test_a_handler_that_ended_in_the_moment_of_its_cancel_is_still_reported() -> None:
    """The cancel comes between the handler's end and its report: it must not take the report with it."""
    gate = asyncio.Event()
    stored: list[bytes] = []

    async def quick() -> int:
        await gate.wait()
        return 1

    async def slowly(attempt: Attempt, data: bytes) -> None:
        await asyncio.sleep(0.01)
        stored.append(data)

    worker = Worker()
    worker.runner = Runner("w", {"quick": task(quick)}, slowly)
    attempt = await worker.begin("quick")
    await asyncio.sleep(0)
    gate.set()
    attempt.stop("cancelled", time.monotonic())
    await until(lambda: bool(stored))
    assert len(stored) == 1
