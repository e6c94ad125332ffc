"""What pauses, cancels and timeouts do to attempts that change hands in that very moment: none runs twice, none is lost."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import msgspec
import pytest

import esexec
from esexec import ExecutionStatus, Plan, Refused, Step, Worker
from esexec.domain import effects as fx
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.commands import CancelExecution
from esexec.domain.events import ExecutionCancelRequested, TaskCancelled, TaskScheduled
from esexec.domain.messages import Dispatch
from esexec.executor import outbox
from esexec.executor.outbox import NatsOutbox
from esexec.executor.port import Done
from tests.integration.engine import Engine, until
from tests.integration.raw import RawClient
from tests.integration.site import WAIT_S, Site, has

LOOK_S = 0.4
"""After so long an attempt is looked for in the tests below."""
Key = tuple[str, str, int, int]


class Ledger:
    """Which attempts handlers have begun, by execution, step, run and attempt; and how often."""

    def __init__(self, takes_s: float) -> None:
        self.begun: Counter[Key] = Counter()

        @esexec.task(name="short")
        async def short(ctx: esexec.Context) -> None:
            self.begun[ctx.execution_id, ctx.step, ctx.run, ctx.attempt] += 1
            await asyncio.sleep(takes_s)

        self.task = short

    @property
    def twice(self) -> list[Key]:
        return [key for key, times in self.begun.items() if times > 1]


def wide(width: int) -> Plan:
    return Plan("wide", steps=[Step("short", id=f"s{n}") for n in range(width)], parallel=True, parallel_execution_limit=width)


async def is_empty(engine: Engine, stream: str) -> bool:
    connection = engine.client._connection
    assert connection is not None
    return not (await connection.api(f"STREAM.INFO.{stream}"))["state"]["messages"]


# Pauses and resumes --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["one executor", "two executors"], indirect=True)
async def test_pauses_over_and_over_have_no_attempt_done_twice(engine: Engine) -> None:
    """Three workers at many short steps: whatever changes hands while it is taken back, each handler begins once."""
    ledger = Ledger(0.03)
    for _ in range(3):
        await engine.worker(ledger.task, queues={"default": 2})
    handles = [await engine.client.start(wide(40)) for _ in range(6)]

    async def churn(handle: esexec.Handle) -> None:
        with suppress(Refused):  # it has ended
            while True:
                await handle.pause()
                await handle.resume()

    await asyncio.gather(*map(churn, handles))
    results = [await handle.wait(wait_timeout=WAIT_S) for handle in handles]
    assert [result.status for result in results] == [ExecutionStatus.COMPLETED] * 6
    assert ledger.twice == []
    assert len(ledger.begun) == 240
    held = [kind for handle in handles for kind in await engine.types(handle.id) if kind == "task_held"]
    assert held, "no pause ever took anything back"


@pytest.mark.usefixtures("short_ack_wait")
async def test_a_pause_that_others_repeat_beside_a_resume_loses_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its executor died before it took anything back; another one does, slowly, while a third one has the resume."""
    take_back = NatsOutbox._take_back
    slowly: set[str] = set()

    async def hangs(self: NatsOutbox, entity: str, *more: Any) -> None:
        await asyncio.Event().wait()

    async def is_slow(self: NatsOutbox, entity: str, *more: Any) -> None:
        slowly.add(entity)
        await asyncio.sleep(0.5)
        await take_back(self, entity, *more)

    monkeypatch.setattr(NatsOutbox, "_take_back", hangs)
    ledger = Ledger(0.0)
    handles = [await engine.client.start("short") for _ in range(10)]
    pauses = [asyncio.create_task(handle.pause()) for handle in handles]
    for handle in handles:
        await has(engine, handle.id, "execution_paused")
    await engine.executors.pop().stop(0.0)
    monkeypatch.setattr(NatsOutbox, "_take_back", is_slow)
    for _ in range(2):
        await engine.executor()
    await until(lambda: len(slowly) == len(handles))
    assert all(await asyncio.gather(*(handle.resume() for handle in handles)))
    for stream in (engine.subjects.commands_stream, engine.subjects.inbox_stream):
        await until(lambda stream=stream: is_empty(engine, stream))
    await engine.worker(ledger.task)  # now that nobody takes anything back any more
    assert all([(await handle.wait(wait_timeout=WAIT_S)).ok for handle in handles])
    assert (len(ledger.begun), ledger.twice) == (10, [])
    await asyncio.gather(*pauses, return_exceptions=True)


# A dispatch that is deleted in a worker's hands -----------------------------------------------------------------------


class Deleted:
    """The engine's next pause deletes dispatches in the moment in which a worker gets them; `worker` has them then.

    The moment is made by starting the worker after the lane was asked what it has delivered, and before the deletion.
    """

    def __init__(self, engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.site = engine, site
        self.asked: Counter[bool] = Counter()
        """How often it was asked who has an attempt, by whether somebody had it."""
        self.worker: Worker
        delete, somebody_has = NatsOutbox._delete_dispatch, NatsOutbox._somebody_has

        async def just_too_late(outbox: NatsOutbox, sequence: int) -> bool:
            monkeypatch.setattr(NatsOutbox, "_delete_dispatch", delete)
            self.worker = await engine.worker(*site.tasks, drain_s=0.1)
            await site.at("a")
            return await delete(outbox, sequence)

        async def counted(outbox: NatsOutbox, *about: Any) -> bool:
            found = await somebody_has(outbox, *about)
            self.asked[found] += 1
            return found

        monkeypatch.setattr(NatsOutbox, "_delete_dispatch", just_too_late)
        monkeypatch.setattr(NatsOutbox, "_somebody_has", counted)
        monkeypatch.setattr(outbox, "_LOOK_AGAIN_S", LOOK_S)
        monkeypatch.setattr(outbox, "_ANSWER_S", 0.3)

    async def paused(self) -> esexec.Handle:
        """An execution that is paused, whose attempt a worker has of which no dispatch is left."""
        self.site.shut("a")
        handle = await self.engine.client.start(self.site.row("a"), timeout=0)
        assert await handle.pause() is True
        assert self.site.hands == {"a"}
        assert await is_empty(self.engine, self.engine.subjects.tasks_stream)
        assert "task_held" not in await self.engine.types(handle.id)
        return handle

    async def kill(self) -> None:
        """As if its process were gone: it says nothing any more, and answers nothing."""
        await self.worker._leases.stop()
        connection = self.worker._connection
        assert connection is not None
        await connection.close()


@pytest.fixture
def site() -> Site:
    """Without a worker, which comes later."""
    return Site()


@pytest.fixture
def deleted(engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch) -> Deleted:
    return Deleted(engine, site, monkeypatch)


async def test_who_has_it_is_left_alone_however_long_it_takes(engine: Engine, deleted: Deleted, site: Site) -> None:
    """Resumed, looked for again and again: while its worker says that it has it nobody else gets it, and it counts once."""
    handle = await deleted.paused()
    assert await handle.resume() is True
    await engine.worker(*site.tasks)
    await until(lambda: deleted.asked[True] >= 5)
    assert len(site.calls) == 1
    site.open("a")
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert site.done == ["build a"]
    assert deleted.asked[False] == 0


async def test_who_has_it_and_dies_is_replaced(engine: Engine, deleted: Deleted, site: Site) -> None:
    """Without a lease nobody would hear of it: it is looked for, and another worker does it."""
    handle = await deleted.paused()
    assert await handle.resume() is True
    await until(lambda: deleted.asked[True] >= 2)
    await deleted.kill()
    await engine.worker(*site.tasks)
    await until(lambda: len(site.calls) == 2)
    site.open("a")
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert [call["attempt"] for call in site.calls] == [1, 1]


async def test_who_has_it_and_dies_during_the_pause_is_replaced_after_it(engine: Engine, deleted: Deleted, site: Site) -> None:
    """The resume looks for whatever is open, and not only for what was held."""
    handle = await deleted.paused()
    await deleted.kill()
    await engine.worker(*site.tasks)
    assert await handle.resume() is True
    await until(lambda: len(site.calls) == 2)
    site.open("a")
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert deleted.asked[True] == 0


async def test_who_has_it_and_is_done_just_when_it_is_asked_has_done_it(
    engine: Engine, deleted: Deleted, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its report is stored after INBOX was looked into, and before the question: it is not done again."""
    handle = await deleted.paused()
    somebody_has = NatsOutbox._somebody_has

    async def just_too_late(outbox: NatsOutbox, *about: Any) -> bool:
        site.open("a")
        await until(lambda: not deleted.worker._attempts)
        return await somebody_has(outbox, *about)

    monkeypatch.setattr(NatsOutbox, "_somebody_has", just_too_late)
    assert await handle.resume() is True
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    await until(lambda: deleted.asked)
    assert (await engine.execute("build")).ok  # the same queue: had it been handed out again, that would have come first
    assert site.done == ["build a", "build build"]


async def test_who_has_it_hears_of_a_cancel(engine: Engine, deleted: Deleted, site: Site) -> None:
    """That no dispatch is left keeps nobody from telling it: the execution ends long before the grace."""
    handle = await deleted.paused()
    began = time.monotonic()
    assert await handle.cancel() is True
    assert (await handle.wait(wait_timeout=WAIT_S)).status == "cancelled"
    assert time.monotonic() - began < limits.cancel_grace_ms / 2000
    assert not site.hands


# Cancel --------------------------------------------------------------------------------------------------------------


async def test_a_cancel_in_full_swing_ends_well_before_the_grace(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cancel's own commit scheduled was never handed out: it is not waited for, and nobody is called abandoned."""
    desk = engine.executors[0]._desk
    turns = desk.preparation._turns
    assert turns is not None
    append, first_command = desk.log.append, turns._first_command
    in_line = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    def waits(kind: type) -> bool:
        return any(isinstance(one.content, kind) for one in desk._mailboxes[handle.id].waiting)

    async def is_let_in(*where: Any) -> int | None:
        in_line.set()
        await until(lambda: tasks and waits(r.Completed))
        return await first_command(*where)

    async def until_it_waits(*what: Any) -> None:
        await until(lambda: waits(CancelExecution))
        await append(*what)

    async def is_held_up(*what: Any) -> None:  # so that reports gather, and then the cancel, and are decided together
        if in_line.is_set() and not tasks:
            tasks.add(asyncio.create_task(until_it_waits(*what)))
        else:
            await append(*what)

    monkeypatch.setattr(turns, "_first_command", is_let_in)
    monkeypatch.setattr(desk.log, "append", is_held_up)
    ledger = Ledger(0.005)
    await engine.worker(ledger.task, queues={"default": 100})
    steps = [
        Step("short", id=f"c{chain}-{number}", depends_on=[f"c{chain}-{number - 1}"] if number else [])
        for chain in range(10)
        for number in range(40)
    ]
    handle = await engine.client.start(Plan("chains", steps=steps, parallel=True, parallel_execution_limit=10))
    await until(lambda: len(ledger.begun) > 20)
    began = time.monotonic()
    assert await handle.cancel() is True
    assert (await handle.wait(wait_timeout=2 * WAIT_S)).status == "cancelled"
    assert time.monotonic() - began < limits.cancel_grace_ms / 2000
    await asyncio.gather(*tasks)
    commits = [list(map(type, commit.events)) for commit in await engine.client.history(handle.id)]
    together = next(kinds for kinds in commits if ExecutionCancelRequested in kinds)
    assert TaskScheduled in together, "nothing was decided with the cancel"
    ends = [event for event in await engine.events(handle.id) if isinstance(event, TaskCancelled)]
    assert [event.step for event in ends if event.ended == "abandoned"] == []


@pytest.mark.usefixtures("short_ack_wait")
async def test_what_a_dead_executor_did_not_take_back_is_gone_after_the_end(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died after it set the grace's timer: the grace ends the execution, and no worker that comes later runs its attempt."""
    take_back = NatsOutbox.take_back
    due = asyncio.Event()

    async def hangs(self: NatsOutbox, *more: Any) -> None:
        due.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(limits, "cancel_grace_ms", 1_000)
    monkeypatch.setattr(NatsOutbox, "take_back", hangs)
    ledger = Ledger(0.0)
    handle = await engine.client.start("short")
    cancel = asyncio.create_task(handle.cancel())
    await asyncio.wait_for(due.wait(), 5)
    await engine.executors.pop().stop(0.0)
    monkeypatch.setattr(NatsOutbox, "take_back", take_back)
    await engine.executor()
    result = await handle.wait(wait_timeout=WAIT_S)
    assert result.status == "cancelled"
    for stream in (engine.subjects.commands_stream, engine.subjects.inbox_stream, engine.subjects.tasks_stream):
        await until(lambda stream=stream: is_empty(engine, stream))
    await engine.worker(ledger.task)
    other = await engine.execute("short")  # the same queue: what waited before it would have begun
    assert {key[0] for key in ledger.begun} == {other.id}
    await asyncio.gather(cancel, return_exceptions=True)


# Queue timeout -------------------------------------------------------------------------------------------------------


async def test_an_attempt_that_has_begun_is_not_closed_for_waiting(
    engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proven that nobody had it, and then handed out by a rival before that was reported: who began it goes on."""
    reported, proven = asyncio.Event(), asyncio.Event()
    nobody_had_it = NatsOutbox._nobody_had_it

    async def is_slow(self: NatsOutbox, entity: str, what: fx.TakeBack, done: Done) -> None:
        if what.why == "overdue" and what.again is not None and not proven.is_set():
            message = what.again.message
            assert isinstance(message, Dispatch)
            connection = engine.client._connection
            assert connection is not None
            subject = engine.subjects.task(what.queue, what.priority, entity, what.step, what.run, what.attempt)
            await connection.request(subject, msgspec.json.encode(message), 5.0)  # as a rival does that repeats it
            proven.set()
            await reported.wait()
        await nobody_had_it(self, entity, what, done)

    monkeypatch.setattr(NatsOutbox, "_nobody_had_it", is_slow)
    site.shut("a")
    handle = await engine.client.start(site.row("a"), queue_timeout="300ms", max_retries=0, timeout=0)
    await asyncio.wait_for(proven.wait(), 5)
    await engine.worker(*site.tasks)
    await has(engine, handle.id, "task_started:a")
    reported.set()
    await until(lambda: is_empty(engine, engine.subjects.inbox_stream))
    assert await handle.status() == "running"
    site.open("a")
    assert (await handle.wait(wait_timeout=WAIT_S)).ok
    assert len(site.calls) == 1


# Names that cannot be -------------------------------------------------------------------------------------------------

_BAD = "x\n"
_DOCUMENT = {"name": "p", "steps": [{"id": "a", "task": "short", "queue": _BAD}]}


@pytest.mark.parametrize(
    ("entity", "verb", "body"),
    [
        ("e1", "start", {"task": "short", "config": {"queue": _BAD}}),
        ("e1", "start", {"plan": _DOCUMENT}),
        ("_settings", "configure", {"config": {"queue": _BAD}}),
        ("_settings", "announce", {"tasks": {"other": {"queue": _BAD}}}),
        ("_settings", "add_strategy", {"strategy": {"id": "s", "queue": _BAD}}),
    ],
)
async def test_a_queue_with_a_line_break_in_its_name_is_refused(
    engine: Engine, raw: RawClient, entity: str, verb: str, body: dict[str, Any]
) -> None:
    """It could not stand in a subject: whoever says it hears a code, and the executor goes on with what others ask."""
    ledger = Ledger(0.0)
    await engine.worker(ledger.task)
    answer = await raw.ask(entity, verb, **body)
    assert answer.status == "refused"
    assert answer.error is not None
    assert answer.error.code
    assert answer.error.message
    for _ in range(3):
        assert (await engine.execute("short")).ok


# What nobody knows ---------------------------------------------------------------------------------------------------


async def test_what_may_have_been_handed_out_when_it_was_taken_back_is_asked_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy lane its deliveries do not tell whether a worker got it. If no worker says so, nobody is waited for."""
    delivered, times = NatsOutbox._delivered, 0

    async def at_work(self: NatsOutbox, queue: str, priority: int) -> Any:
        nonlocal times
        times += 1
        found = await delivered(self, queue, priority)
        return found if times % 2 else found._replace(up_to=1 << 60, times=found.times + 1)

    monkeypatch.setattr(NatsOutbox, "_delivered", at_work)
    monkeypatch.setattr(outbox, "_ANSWER_S", 0.3)
    handle = await engine.client.start(Plan("nobody", steps=[Step("short", id="s", queue="elsewhere")]))
    await has(engine, handle.id, "task_scheduled")
    asked = time.monotonic()
    await handle.cancel()
    result = await handle.wait(wait_timeout=WAIT_S)
    assert result.status == ExecutionStatus.CANCELLED
    assert time.monotonic() - asked < limits.cancel_grace_ms / 2000
    assert times == 2
    (ended,) = [event for event in await engine.events(handle.id) if isinstance(event, TaskCancelled)]
    assert ended.ended is None


async def test_a_word_to_stop_that_comes_before_its_attempt_is_remembered(engine: Engine) -> None:
    """The attempt is handed back as stopped, and its handler does not begin; the next one does."""
    attempts: list[int] = []

    @esexec.task(name="short", max_retries=1, initial_retry_delay=0)
    async def short(ctx: esexec.Context) -> None:
        attempts.append(ctx.attempt)

    worker = await engine.worker(short)
    connection = engine.client._connection
    assert connection is not None
    word = {"execution_id": "early", "step": "s", "attempt": 1}
    await connection.publish(engine.subjects.live("early", "cancel"), msgspec.json.encode(word))
    await until(lambda: worker._told)
    assert (await engine.client.execute(Plan("late", steps=[Step("short", id="s")]), execution_id="early")).ok
    assert attempts == [2]
