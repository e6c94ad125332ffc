"""What stands outside an executor, made of plain lists: messages that are delivered at least once, dispatches, timers, a log.

Nothing happens by itself. Every read, write and answer of an executor is an `Operation` that waits until somebody lets it arrive,
and then lets its answer arrive; between the two the executor may die, and either may happen again or too late.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from esexec.domain import commands as c
from esexec.domain import effects as fx
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo
from esexec.domain.messages import Answer, ImageSignal
from esexec.executor.envelope import Content, Envelope
from esexec.executor.port import Done, StillOpen
from esexec.log.memory import MemoryLog
from esexec.log.port import Appended, Stored
from tests.simulation.workers import Attempt, read_dispatch

if TYPE_CHECKING:
    from tests.simulation.world import Node


class Message:
    """One stored message of COMMANDS or INBOX. `held`: a delivery is out and not answered. `known`: commits when it was sent.
    `place`: where it stands in its stream."""

    def __init__(self, entity: str, verb: str, content: Content, time: datetime, step: str = "", attempt: str = "") -> None:
        self.entity, self.verb, self.content, self.time = entity, verb, content, time
        self.step, self.attempt = step, attempt
        self.deliveries = self.known = self.place = 0
        self.held: SimulatedEnvelope | None = None
        self.acked = False

    def about(self, attempt: Attempt) -> bool:
        """Whether it is a report on this attempt."""
        return (self.entity, self.step, self.attempt) == (attempt.execution, attempt.step, attempt.id)

    def __repr__(self) -> str:
        return f"{self.verb} {type(self.content).__name__} {self.entity} {self.step} {self.attempt}".strip()


class SimulatedEnvelope(Envelope):
    """A delivery of a message to a node, which answers for it unless it is dead."""

    __slots__ = ("message", "node")

    def __init__(self, node: "Node", message: Message) -> None:
        self.node, self.message = node, message
        self.entity, self.verb, self.data, self.time = message.entity, message.verb, b"{}", message.time
        self.deliveries, self.content, self.ready = message.deliveries, message.content, False
        self.in_line_mono = 0.0
        self.queue, self.step, self.attempt = "default", message.step, message.attempt

    @property
    def sequence(self) -> int:
        return self.message.place

    async def ack(self) -> None:
        await self.node.hesitate()
        if self.node.alive:
            self.node.world.let_go(self)

    async def nak(self, delay_s: float) -> None:
        assert delay_s > 0
        await self.node.hesitate()
        if self.node.alive and self.message.held is self:
            self.message.held = None


class Operation:
    """Something an executor asked of the outside. `arrive` makes it so and keeps what is to be answered."""

    def __init__(self, name: str, arrive: Callable[[], Any], answer: Callable[[Any], Awaitable[None]]) -> None:
        self.name, self._arrive, self._answer = name, arrive, answer
        self.arrived = False
        self.result: Any = None

    def arrive(self) -> None:
        """Once, or again: an unknown outcome is resolved by sending the identical message again."""
        self.result = self._arrive()
        self.arrived = True

    async def answer(self) -> None:
        await self._answer(self.result)

    def __repr__(self) -> str:
        return f"{self.name}{' arrived' if self.arrived else ''}"


class SlowLog:
    """`log.port.Log` over the world's log, one operation for each call."""

    def __init__(self, node: "Node") -> None:
        self._node, self._log = node, node.world.log

    async def append(self, entity: str, n: int, data: bytes, after: int, done: Appended) -> None:
        self._node.ask(f"append {entity} {n}", lambda: stored_at(self._log, entity, n, data, after), done)

    async def load(self, entity: str, after: int = 0) -> list[Stored]:
        behind = self._node.world.behind

        def some() -> list[Stored]:
            """A follower may not know the last commits yet."""
            history = self._log.histories.get(entity, [])
            return history[after : max(after, len(history) - behind)]

        found: list[Stored] = await self._node.wait_for(f"load {entity}", some)
        return list(found)

    async def read(self, entity: str, n: int) -> Stored | None:
        found: Stored | None = await self._node.wait_for(
            f"read {entity} {n}", lambda: _nth(self._log.histories.get(entity, []), n)
        )
        return found


def _nth(history: list[Stored], n: int) -> Stored | None:
    return history[n - 1] if 0 < n <= len(history) else None


def stored_at(log: MemoryLog, entity: str, n: int, data: bytes, after: int) -> int | None:
    """An append to the log in memory, which answers before it returns."""
    answers: list[int | None] = []

    async def done(position: int | None) -> None:
        answers.append(position)

    try:
        log.append(entity, n, data, after, done).send(None)
    except StopIteration:
        return answers[0]
    raise AssertionError("the log in memory waits for nothing")


class SlowOutbox:
    """`desk.Outbox`: each effect changes the world when it arrives, and is told to be done when its answer does."""

    def __init__(self, node: "Node") -> None:
        self._node, self._world = node, node.world

    def _send(self, name: str, arrive: Callable[[], Any], done: Done) -> None:
        async def answered(_: Any) -> None:
            await done()

        self._node.ask(name, arrive, answered)

    async def dispatch(self, entity: str, to: fx.DispatchAttempt, data: bytes, done: Done, still_open: StillOpen) -> None:
        attempt, message = _attempt(entity, to), read_dispatch(data)

        def send() -> None:
            self._send(f"dispatch {attempt}", lambda: self._world.hand_in(attempt, message), done)

        if to.again:
            self._ask_whether_needed(attempt, send, done, still_open, to.in_hand)
        else:
            send()

    def _ask_whether_needed(
        self, attempt: Attempt, hand_out: Callable[[], None], done: Done, still_open: StillOpen, in_hand: bool
    ) -> None:
        """It is handed out if it is neither in TASKS nor reported nor closed; asked in this order, for so attempts go. And if no
        worker has it whose dispatch was deleted: that one asks before all it may have done meanwhile, and so twice."""
        ask, world, entity = self._node.ask, self._world, attempt.execution

        async def looked_in_tasks(number: int) -> None:
            if number:
                await done()
            else:
                look_in_inbox(in_hand)

        def look_in_inbox(first: bool) -> None:
            ask(f"look for {attempt}", lambda: world.is_reported(attempt), partial(looked_in_inbox, first))

        async def looked_in_inbox(first: bool, reported: bool) -> None:
            if reported:
                await done()
            else:
                self._node.spawn(look_in_log(first))

        async def look_in_log(first: bool) -> None:
            if not await still_open():
                await done()
            elif first:
                ask(f"who has {attempt}", lambda: world.queue.in_hand(attempt), asked)
            else:
                hand_out()

        async def asked(somebody: bool) -> None:
            if somebody:
                self._look_later(entity, done)
            else:
                look_in_inbox(False)

        ask(f"number of {attempt}", lambda: world.queue.number_of(attempt), looked_in_tasks)

    async def look_later(self, entity: str, done: Done) -> None:
        self._look_later(entity, done)

    def _look_later(self, entity: str, done: Done) -> None:
        """A timer that belongs to no event, one for each execution."""
        key = (entity, r.LOOK)
        self._send(f"timer {key}", lambda: self._world.timers.update({key: self._world.now()}), done)

    async def report(self, entity: str, about: fx.DispatchAttempt, report: r.Report, done: Done) -> None:
        attempt = _attempt(entity, about)
        self._send(f"report {attempt}", lambda: self._world.report(attempt, report), done)

    async def set_timer(self, entity: str, timer: fx.SetTimer, done: Done) -> None:
        key = (entity, str(timer.name))
        self._send(f"timer {key}", lambda: self._world.timers.update({key: timer.due}), done)

    async def clear_timer(self, entity: str, timer: fx.ClearTimer, done: Done) -> None:
        key = (entity, str(timer.name))
        self._send(f"clear {key}", lambda: self._world.timers.pop(key, None), done)

    async def take_back(self, entity: str, what: fx.TakeBack, done: Done, still_open: StillOpen) -> None:
        """Found, deleted by its number if nobody had it, then told, one call after the other as in `executor.outbox`: workers and
        other executors act in between, this one can die, and a late delete hits nothing newer."""
        attempt, world = _attempt(entity, what), self._world
        ask, queue, told = self._node.ask, world.queue, what.why in ("stop", "over")
        again = what.again

        async def found(number: int) -> None:
            if number:
                ask(f"deliveries of {attempt}", lambda: queue.had(number), partial(looked, number))
            else:
                await nothing()

        async def nothing() -> None:
            if again is None or isinstance(again.message, ErrorInfo):
                await done()
            else:
                put = partial(world.hand_in, attempt, again.message)
                self._ask_whether_needed(attempt, lambda: ask(f"dispatch {attempt}", put, stands), done, still_open, True)

        async def stands(_: Any) -> None:
            await self.take_back(entity, what._replace(again=None), done, still_open)

        async def looked(number: int, had: bool) -> None:
            if had and not told:
                await done()
            else:
                ask(f"delete {attempt}", lambda: queue.delete(attempt, number), partial(deleted, number, had))

        async def deleted(number: int, had: bool, gone: bool) -> None:
            ask(f"deliveries of {attempt} now", lambda: queue.had(number), partial(checked, had, gone))

        async def checked(had_before: bool, gone: bool, had: bool) -> None:
            if gone and not had and not had_before:
                if what.why == "over":
                    await done()
                else:
                    self._send(f"withdrawn {attempt}", lambda: world.report(attempt, r.Withdrawn(pause=what.pause)), done)
            elif told:
                queue.tell(attempt)
                await done()
            elif not gone:
                await nothing()
            else:
                self._look_later(entity, done)

        if told:
            queue.tell(attempt)
        ask(f"take back {attempt}", lambda: queue.number_of(attempt), found)

    async def continue_later(self, entity: str, after: int, done: Done) -> None:
        self._send(f"continue {entity} {after}", lambda: self._world.send(entity, "continue", r.Continue(after)), done)

    async def start(self, entity: str, command: c.StartExecution, done: Done) -> None:
        self._send(f"start {entity}", lambda: self._world.send(entity, "start", command), done)

    async def answer(self, answer: Answer) -> None:
        await self._node.hesitate()
        if self._node.alive:
            self._world.tell(answer)

    async def tell_image(self, signal: ImageSignal) -> None:
        await self._node.hesitate()
        self._world.tell_image(Attempt(signal.execution_id, signal.step, signal.attempt, signal.run), signal.image)

    async def stop_attempt(self, execution: str, step: str, attempt: str) -> None:
        await self._node.hesitate()
        run, _, number = attempt.partition("-")
        self._world.queue.tell(Attempt(execution, step, int(number), int(run)))

    async def bury(self, envelope: Envelope, reason: ErrorInfo) -> None:
        def arrive() -> None:
            self._world.dead.append((envelope.message, reason))  # type: ignore[attr-defined]

        self._send(f"bury {envelope.verb} {envelope.entity}", arrive, envelope.ack)


def _attempt(entity: str, of: fx.DispatchAttempt | fx.TakeBack) -> Attempt:
    return Attempt(entity, of.step, of.attempt, of.run)
