"""The worker of a virtual engine: takes every dispatch there is, at once; the engine's own runner runs the user's handlers.

What is synchronous runs in a thread, one after the other, so that what ends first is the same each time.
"""

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from typing import Any, NamedTuple, cast

import msgspec

from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.messages import CancelSignal, Dispatch, WorkerPresence
from esexec.nats.connection import Connection
from esexec.nats.direct import DirectReader
from esexec.nats.lean import LeanClient, Message
from esexec.nats.objects import Objects
from esexec.nats.publisher import Publisher
from esexec.nats.subjects import Subjects
from esexec.tasks import RecoveryStrategy, Task
from esexec.tasks.handlers import ANY_TASK
from esexec.testing.faults import Fault
from esexec.testing.loop import VirtualLoop
from esexec.testing.wire import Wire
from esexec.worker import Worker
from esexec.worker.attempt import Attempt, key_of
from esexec.worker.images import Images
from esexec.worker.outlet import LiveOutlet
from esexec.worker.pools import Pools
from esexec.worker.results import CachedResults
from esexec.worker.running import Runner
from esexec.world import monotonic, now

_decode = msgspec.json.Decoder(Dispatch).decode
_LOOK_S = 0.02
_A_MOMENT_S = 0.000_01
"""What is shorter may be lost in rounding."""


class Handed(NamedTuple):
    """An attempt that the worker was handed: of what, for what, with which params."""

    execution_id: str
    step: str
    task: str
    purpose: str
    attempt: int
    run: int
    params: Any
    again: bool = False
    """It had begun before, with a worker that was lost."""

    @property
    def words(self) -> str:
        """As `Then.attempts` has it."""
        verbs = {"task": "", "fallback": "fallback ", "compensation": "undo ", "recovery": "recover "}
        return f"{verbs[self.purpose]}{self.step}"


class _Reader:
    """Finds cached results again."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def last_of_each(self, stream: str, subjects: list[str], timeout: float = 0.0) -> list[Message]:
        return [self._wire.last[one] for one in subjects if one in self._wire.last]


class VirtualWorker:
    """See the module. `equip` may be called again, while nothing runs."""

    name = "worker"

    def __init__(self, loop: VirtualLoop, wire: Wire, subjects: Subjects, objects: Objects) -> None:
        self._loop, self._wire, self._subjects, self._objects = loop, wire, subjects, objects
        self.tasks: dict[str, Task[..., Any]] = {}
        self.presence: list[WorkerPresence] = []
        """What it tells of itself to whoever asks which versions of tasks there are."""
        self.faults: list[Fault] = []
        self.handed: list[Handed] = []
        """Every attempt, in the order in which they began."""
        self.in_hand: dict[str, Attempt] = {}
        self._waiting: dict[str, bytes] = {}
        """Dispatches that nobody has, by subject, in the order in which they came."""
        self._strategies: Mapping[str, RecoveryStrategy] = {}
        self._in_thread: set[str] = set()
        self._lost: set[str] = set()
        """Attempts that end without a word, as the worker that has them is lost."""
        self._leases: dict[str, asyncio.TimerHandle] = {}
        """Dispatches of those, until they are handed out again."""
        self._turns: dict[str, asyncio.Event] = {}
        """Wakes up who looks after an attempt."""
        self._others = set(threading.enumerate())
        self._pools = Pools(())

    async def open(self) -> None:
        connection = cast(Connection, self._wire)
        self._images = Images(self.name, self._wire.send)
        self._outlet = LiveOutlet(cast(LeanClient, self._wire), self._subjects, self.name)
        self._results = CachedResults(connection, cast(DirectReader, _Reader(self._wire)), self._subjects, self.name)
        await self._wire.listen(self._subjects.live("*", "before"), self._on_before)
        await self.equip(Worker(tasks=(), namespace=self._subjects.namespace, name=self.name), {})

    async def equip(self, like: Worker, stubs: Mapping[str, Task[..., Any]]) -> None:
        """From now on it has what this one has, which is not started but announces its tasks; with stubs in the place of some."""
        like._check_uses()
        like._callable |= stubs
        like._publisher = cast(Publisher, self._wire)
        await self._pools.close()
        self._pools, self._strategies = Pools(like.resources.values()), like.strategies
        self.tasks = {name: _in_this_process(task) for name, task in like._callable.items()}
        self._runner = self._runner_of(self.tasks)
        self.presence = [msgspec.json.decode(like._presence, type=WorkerPresence)]
        await like._announce(cast(Connection, self._wire))
        self._serve_soon()

    def _runner_of(self, tasks: dict[str, Task[..., Any]]) -> Runner:
        return Runner(
            self.name,
            tasks,
            self._report,
            strategies=self._strategies,
            images=self._images,
            outlet=self._outlet,
            pools=self._pools,
            results=self._results,
            objects=self._objects,
            say_begun=self._say_begun,
        )

    async def close(self) -> None:
        """End it. Threads that work still are left to themselves."""
        self._in_thread.clear()
        self._others.update(threading.enumerate())
        for attempt in self.in_hand.values():
            attempt.stop("draining", monotonic())
        await self._pools.close()

    # What is waiting -------------------------------------------------------------------------------------------------------

    def put(self, subject: str, data: bytes) -> None:
        """A dispatch."""
        if not self.has(subject):
            self._waiting[subject] = data
            self._serve_soon()

    def has(self, subject: str) -> bool:
        return subject in self._waiting or subject in self._leases or self._key_of(subject) in self.in_hand

    def withdraw(self, subject: str) -> bool:
        """Take back a dispatch that nobody has; False: there is none."""
        return self._waiting.pop(subject, None) is not None

    @property
    def at_work(self) -> bool:
        """Whether it has anything that will end."""
        return bool(self.in_hand or self._leases)

    @property
    def busy(self) -> bool:
        """Whether a thread of ours works."""
        if any(self.in_hand[key].started_at is not None for key in self._in_thread):
            return True
        return any(one.name.startswith("esexec ") and one not in self._others for one in threading.enumerate())

    def _key_of(self, subject: str) -> str:
        about = self._subjects.parse_task(subject)
        return key_of(about.execution, about.step, f"{about.run}-{about.attempt}")

    def _serve_soon(self) -> None:
        self._wire.spawn(self._serve())

    async def _serve(self) -> None:
        for subject in list(self._waiting):
            if self._in_thread:
                return
            if subject not in self._waiting:
                continue
            dispatch = _decode(self._waiting[subject])
            if dispatch.purpose != "recovery" or dispatch.task in self._strategies:  # else another worker may have it
                del self._waiting[subject]
                await self._begin(subject, dispatch)

    # Running ---------------------------------------------------------------------------------------------------------------

    async def _begin(self, subject: str, dispatch: Dispatch, losses: int = 0) -> None:
        about, now_s = self._subjects.parse_task(subject), monotonic()
        key = self._key_of(subject)
        report = self._subjects.report(about.execution, about.queue, about.step, about.run, about.attempt)
        attempt = self.in_hand[key] = Attempt(dispatch, key, about.queue, subject, report)
        attempt.losses = losses
        if losses:
            self._wire.keep(report, msgspec.json.encode(r.Lost(worker=self.name, losses=losses)))
        if losses >= limits.losses_per_attempt:
            self._end(attempt)
            return
        self.handed.append(_handed(dispatch, again=losses > 0))
        fault = next((one for one in self.faults if one.strikes(dispatch, self._loop.time())), None)
        task = self.tasks.get(dispatch.task) or self.tasks.get(ANY_TASK)
        if fault is not None:
            fault.hits += 1
            if fault.lost:
                self._lost.add(key)
                fault = None
            else:
                task = fault.instead_of(dispatch.task)
        if task is not None and not task.is_async and dispatch.purpose != "recovery":
            self._in_thread.add(key)
        runner = self._runner if fault is None else self._runner_of({dispatch.task: task} if task is not None else {})
        self._wire.spawn(self._look_after(attempt, runner))
        if attempt.is_last_chance and not runner.prepares(dispatch):
            await self._say_begun(attempt)
        await runner.begin(attempt, now_s)

    async def _say_begun(self, attempt: Attempt) -> None:
        """As `Worker` does of what has its last chance: its start is known before its handler is called."""
        attempt.started_told = True
        self._wire.keep(attempt.report_subject, msgspec.json.encode(r.Started(worker=self.name, started_at=now())))

    async def _look_after(self, attempt: Attempt, runner: Runner) -> None:
        """What `Worker` does every few milliseconds, at the moments at which there is something to be done."""
        turn = self._turns[attempt.key] = asyncio.Event()
        while not attempt.over:
            now_s = monotonic()
            if attempt.started_at is not None:
                await self._tell_started(attempt, now_s)
                await runner.look_after(attempt, now_s)
            turn.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_next_look_s(attempt, now_s)):
                    await turn.wait()
        self._turns.pop(attempt.key, None)

    async def _tell_started(self, attempt: Attempt, now_s: float) -> None:
        if not attempt.started_told and now_s - attempt.started_mono >= limits.started_report_after_ms / 1000:
            attempt.started_told = True
            assert attempt.started_at is not None
            self._wire.keep(
                attempt.report_subject, msgspec.json.encode(r.Started(worker=self.name, started_at=attempt.started_at))
            )

    async def _report(self, attempt: Attempt, data: bytes) -> None:
        if attempt.key in self._lost:
            self._lose(attempt)
        else:
            self._wire.keep(attempt.report_subject, data)
        self._end(attempt)

    def _lose(self, attempt: Attempt) -> None:
        """Its worker is lost: once the lease is over it is handed out again."""
        subject = attempt.ack
        self._lost.discard(attempt.key)

        def hand_out() -> None:
            del self._leases[subject]
            self._wire.spawn(self._begin(subject, attempt.dispatch, attempt.losses + 1))

        self._leases[subject] = self._loop.call_later(limits.lease_ms / 1000, hand_out)

    def _end(self, attempt: Attempt) -> None:
        attempt.over = True
        self.in_hand.pop(attempt.key, None)
        self._in_thread.discard(attempt.key)
        self._wake(attempt.key)
        self._serve_soon()

    def stop_attempt(self, signal: CancelSignal) -> None:
        """Somebody told it to stop an attempt."""
        key = key_of(signal.execution_id, signal.step, f"{signal.run}-{signal.attempt}")
        if (attempt := self.in_hand.get(key)) is not None:
            attempt.stop("cancelled", monotonic())
            self._wake(key)

    def _wake(self, key: str) -> None:
        if (turn := self._turns.get(key)) is not None:
            turn.set()

    async def _on_before(self, message: Message) -> None:
        self._images.answered(message.data)


def _in_this_process(task: Task[..., Any]) -> Task[..., Any]:
    """A process has a clock of its own: what is to run in one runs in a thread here."""
    if task.run_in is None:
        return task
    copied = copy(task)
    vars(copied).update(run_in=None, is_prepared=bool(task.uses) or task.cache is not None)
    return copied


def _handed(dispatch: Dispatch, *, again: bool) -> Handed:
    named = dispatch.execution_id, dispatch.step, dispatch.task, dispatch.purpose
    return Handed(*named, dispatch.attempt, dispatch.run, dispatch.params, again)


def _next_look_s(attempt: Attempt, now_s: float) -> float | None:
    """In how many seconds there is something to be done for an attempt; None: never."""
    if attempt.started_at is None or attempt.why is not None:
        return _LOOK_S
    if not attempt.started_told:
        return max(_A_MOMENT_S, attempt.started_mono + limits.started_report_after_ms / 1000 - now_s)
    return None if attempt.deadline_mono == float("inf") else max(_A_MOMENT_S, attempt.deadline_mono - now_s)
