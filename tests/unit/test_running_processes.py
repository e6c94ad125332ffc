"""A process that was lent to one attempt and is lent to the next: neither disturbs the other."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from esexec.domain import reports as r
from esexec.domain.messages import Dispatch
from esexec.worker.attempt import Attempt
from esexec.worker.processes import Processes
from esexec.worker.running import Runner
from tests import process_tasks as tasks
from tests.slow_objects import SlowObjects


class Desk:
    """A runner with one process, and its reports as they come."""

    def __init__(self) -> None:
        self.objects, self.processes = SlowObjects(), Processes(1)
        self.got: dict[str, r.Report] = {}
        known = {task.name: task for task in (tasks.say_much, tasks.spin, tasks.leave_a_thread)}
        self.runner = Runner("w", known, self.take, processes=self.processes, objects=cast(Any, self.objects))

    async def take(self, attempt: Attempt, data: bytes) -> None:
        self.got[attempt.key] = msgspec.json.decode(data, type=r.Report)

    async def begin(self, task: str, **params: Any) -> Attempt:
        key = f"e/{task}/1-{len(self.got) + 1}"
        attempt = Attempt(Dispatch(execution_id="e", step=task, task=task, params=params), key, "default", "ack", "report")
        await self.runner.begin(attempt, time.monotonic())
        return attempt

    async def ended(self, attempt: Attempt) -> Any:
        async with asyncio.timeout(30):
            while attempt.key not in self.got:
                await asyncio.sleep(0.005)
        return self.got[attempt.key]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    await desk.processes.close()


async def test_a_cancel_while_an_output_is_stored_stops_no_other_handler(desk: Desk) -> None:
    """The process is lent on as soon as the handler is over, and is then none of the attempt's whose output is on its way."""
    first = await desk.begin("say_much")
    await desk.objects.asked.wait()
    second = await desk.begin("spin", seconds=0.5)
    async with asyncio.timeout(30):
        while second.started_at is None:
            await asyncio.sleep(0.005)
    first.stop("cancelled", time.monotonic())
    desk.runner.let_go(first, "cancelled")
    assert isinstance(await desk.ended(second), r.Completed)
    desk.objects.stored.set()
    assert (await desk.ended(first)).output_object is not None


async def test_what_a_thread_goes_on_telling_is_nobody_elses(desk: Desk) -> None:
    """A handler that leaves a thread behind which still logs does not make the next ones fail, which have the same process."""
    first = await desk.ended(await desk.begin("leave_a_thread"))
    for _ in range(20):
        assert (await desk.ended(await desk.begin("spin", seconds=0))).output == first.output
