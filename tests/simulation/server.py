"""What stands outside an executor, made of plain lists: messages that are delivered at least once, dispatches, timers, a log.

Nothing happens by itself. Every read, write and answer of an executor is an `Operation` that waits until somebody lets it arrive,
and then lets its answer arrive; between the two the executor may die, and either may happen again or too late.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from esexec.domain import effects as fx
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo
from esexec.domain.messages import Answer
from esexec.domain.state import ExecutionState
from esexec.executor.desk import Done
from esexec.executor.envelope import Content, Envelope
from esexec.log.memory import MemoryLog
from esexec.log.port import Appended, Stored

if TYPE_CHECKING:
    from tests.simulation.world import Node

Attempt = tuple[str, str, int]
"""Execution, step, attempt."""


class Message:
    """One stored message of COMMANDS or INBOX. `held`: a delivery is out and not answered."""

    def __init__(self, entity: str, verb: str, content: Content, time: datetime, step: str = "", attempt: str = "") -> None:
        self.entity, self.verb, self.content, self.time = entity, verb, content, time
        self.step, self.attempt = step, attempt
        self.deliveries = 0
        self.held: SimulatedEnvelope | None = None
        self.acked = False

    def __repr__(self) -> str:
        return f"{self.verb} {type(self.content).__name__} {self.entity} {self.step} {self.attempt}".strip()


class SimulatedEnvelope(Envelope):
    """A delivery of a message to a node, which answers for it unless it is dead."""

    __slots__ = ("message", "node")

    def __init__(self, node: "Node", message: Message) -> None:
        self.node, self.message = node, message
        self.entity, self.verb, self.data, self.time = message.entity, message.verb, b"{}", message.time
        self.deliveries, self.content, self.bound = message.deliveries, message.content, False
        self.queue, self.step, self.attempt = "default", message.step, message.attempt

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

    async def dispatch(self, state: ExecutionState, index: int, attempt: int, data: bytes, done: Done) -> None:
        key = (state.execution_id, state.graph.steps[index].id, attempt)
        self._send(f"dispatch {key}", lambda: self._world.queue.add(key), done)

    async def report(self, state: ExecutionState, index: int, attempt: int, report: r.Report, done: Done) -> None:
        key = (state.execution_id, state.graph.steps[index].id, attempt)
        self._send(f"report {key}", lambda: self._world.report(key, report), done)

    async def set_timer(self, state: ExecutionState, timer: fx.SetTimer, done: Done) -> None:
        key = (state.execution_id, str(timer.name))
        self._send(f"timer {key}", lambda: self._world.timers.update({key: timer.due}), done)

    async def clear_timer(self, state: ExecutionState, timer: fx.ClearTimer, done: Done) -> None:
        key = (state.execution_id, str(timer.name))
        self._send(f"clear {key}", lambda: self._world.timers.pop(key, None), done)

    async def withdraw(self, state: ExecutionState, index: int, attempt: int, done: Done) -> None:
        key = (state.execution_id, state.graph.steps[index].id, attempt)

        def arrive() -> None:
            if self._world.queue.withdraw(key):
                self._world.report(key, r.Withdrawn())

        self._send(f"withdraw {key}", arrive, done)

    async def continue_later(self, state: ExecutionState, after: int, done: Done) -> None:
        entity = state.execution_id
        self._send(f"continue {entity} {after}", lambda: self._world.send(entity, "continue", r.Continue(after)), done)

    async def answer(self, answer: Answer) -> None:
        await self._node.hesitate()
        if self._node.alive:
            self._world.answers.setdefault(answer.command_id, []).append(answer)

    async def stop_attempt(self, execution: str, step: str, attempt: str) -> None:
        await self._node.hesitate()
        self._world.queue.tell((execution, step, int(attempt.partition("-")[2])))

    async def bury(self, envelope: Envelope, reason: ErrorInfo) -> None:
        def arrive() -> None:
            self._world.dead.append((envelope.message, reason))  # type: ignore[attr-defined]

        self._send(f"bury {envelope.verb} {envelope.entity}", arrive, envelope.ack)


class Queue:
    """TASKS and its workers: a dispatch stands until it is acknowledged or withdrawn, and is delivered as often as need be."""

    def __init__(self) -> None:
        self.waiting: list[Attempt] = []
        self.held: list[Attempt] = []
        self.deliveries: dict[Attempt, int] = {}
        self.dispatched: dict[Attempt, int] = {}
        self.told: set[Attempt] = set()
        self.withdrawn: set[Attempt] = set()

    def add(self, attempt: Attempt) -> None:
        """A dispatch, unless it stands already."""
        if attempt not in self.waiting and attempt not in self.held:
            self.waiting.append(attempt)
            self.deliveries[attempt] = 0
            self.dispatched[attempt] = self.dispatched.get(attempt, 0) + 1

    def take(self, attempt: Attempt) -> int:
        """A worker gets it; how many had it before."""
        self.waiting.remove(attempt)
        self.held.append(attempt)
        self.deliveries[attempt] += 1
        return self.deliveries[attempt] - 1

    def lose(self, attempt: Attempt) -> None:
        """Its worker is silent for too long: another will get it, unless it was taken back."""
        self.held.remove(attempt)
        if attempt not in self.withdrawn:
            self.waiting.append(attempt)

    def acknowledge(self, attempt: Attempt) -> None:
        if attempt in self.held:
            self.held.remove(attempt)

    def withdraw(self, attempt: Attempt) -> bool:
        """Take it back and tell whoever has it; whether nobody ever had it."""
        self.tell(attempt)
        if attempt in self.held:
            self.withdrawn.add(attempt)
        if attempt in self.waiting:
            self.waiting.remove(attempt)
            return not self.deliveries[attempt]
        return False

    def tell(self, attempt: Attempt) -> None:
        self.told.add(attempt)
