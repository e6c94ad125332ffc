"""How handlers are begun and ended, whatever the moment at which they are told to stop."""

import asyncio
import gc
import threading
import time
from typing import Any, cast

import msgspec
import pytest

import esexec
from esexec.domain import reports as r
from esexec.domain.messages import Dispatch
from esexec.worker.attempt import Attempt, Why
from esexec.worker.images import Images
from esexec.worker.running import Runner
from tests.slow_objects import SlowObjects

begun: list[str] = []


@esexec.task
async def wait_long() -> None:
    begun.append("async")
    await asyncio.sleep(60)


@esexec.task
def work() -> None:
    begun.append("sync")


@esexec.task
async def be_quick(ctx: esexec.Context) -> str:
    return ctx.step


async def _unsent(subject: str, data: bytes) -> None:
    raise AssertionError("no handler here keeps an image")


class Reports:
    """A runner's reports as they come."""

    def __init__(self) -> None:
        self.got: list[r.Report] = []
        self.runner = Runner(
            "w", {"wait_long": wait_long, "work": work, "be_quick": be_quick}, self.take, images=Images("w", _unsent)
        )
        begun.clear()

    async def take(self, attempt: Attempt, data: bytes) -> None:
        self.got.append(msgspec.json.decode(data, type=r.Report))


def attempt_of(task: str) -> Attempt:
    return Attempt(Dispatch(execution_id="e", step="s", task=task), "e/s/1-1", "default", "ack", "report")


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_attempt_that_is_stopped_in_the_moment_it_begins_is_reported_at_once() -> None:
    """A cancel that comes before the handler's first step ends it all the same, and is not taken for a handler that hangs."""
    reports, attempt = Reports(), attempt_of("wait_long")
    await reports.runner.begin(attempt, time.monotonic())
    attempt.stop("cancelled", time.monotonic())
    await turns()
    assert [(type(report), report.ended) for report in reports.got if isinstance(report, r.Stopped)] == [(r.Stopped, "cancelled")]
    assert len(reports.got) == 1


@pytest.mark.parametrize("task", ["wait_long", "work"])
async def test_what_was_told_to_stop_before_it_began_does_not_begin(task: str) -> None:
    """A cancel that comes while the loss of an earlier worker is still being reported: the handler is not called."""
    reports, attempt = Reports(), attempt_of(task)
    attempt.stop("cancelled", time.monotonic())
    await reports.runner.begin(attempt, time.monotonic())
    await turns()
    assert (begun, reports.got) == ([], [r.Stopped(worker="w")])


async def test_a_handler_for_which_there_is_no_thread_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a further thread to give reports the attempt's failure, instead of holding it for ever."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    reports = Reports()
    await reports.runner.begin(attempt_of("work"), time.monotonic())
    assert [type(report) for report in reports.got] == [r.Failed]


async def test_an_attempt_that_is_over_leaves_nothing_to_the_collector() -> None:
    """A worker makes thousands of attempts a second: each goes away with its last reference, its handler's context as well."""
    reports = Reports()
    gc.collect()
    gc.disable()
    before = len(_attempts())
    try:
        await reports.runner.begin(attempt_of("be_quick"), time.monotonic())
        while not reports.got:
            await asyncio.sleep(0)
        await turns()
        left = _attempts()[before:]
    finally:
        gc.enable()
    assert not left


def _attempts() -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, Attempt | esexec.Context)]


@esexec.task
async def say_much() -> str:
    return "x" * 300_000


@pytest.mark.parametrize(("why", "kinds"), [("cancelled", [r.Completed]), ("timeout", [r.Completed]), ("draining", [])])
async def test_who_is_told_to_stop_while_the_output_is_stored_is_done(why: Why, kinds: list[type]) -> None:
    """The handler has returned: its output counts, unless the attempt was handed back, and then it is not told twice."""
    objects, got = SlowObjects(), list[r.Report]()

    async def take(attempt: Attempt, data: bytes) -> None:
        got.append(msgspec.json.decode(data, type=r.Report))

    runner, attempt = Runner("w", {"say_much": say_much}, take, objects=cast(Any, objects)), attempt_of("say_much")
    await runner.begin(attempt, time.monotonic())
    await objects.asked.wait()
    attempt.stop(why, time.monotonic())
    await turns()
    assert got == []
    objects.stored.set()
    await turns()
    assert [type(one) for one in got] == kinds
