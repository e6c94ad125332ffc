"""Executors, workers and clients around one server, all under one hand: what happens next is always somebody's choice.

`World.choices` are the things that may happen now without any fault; the faults are methods of their own.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from random import Random
from typing import Any

from esexec.domain import reports as r
from esexec.domain.decider import Surroundings
from esexec.domain.errors import ErrorInfo
from esexec.domain.messages import Answer
from esexec.domain.namespace import SETTINGS_ENTITY
from esexec.executor.desk import Desk
from esexec.executor.envelope import Content
from esexec.executor.settings import SettingsDesk
from esexec.log.memory import MemoryLog
from tests.given import T0
from tests.simulation.server import Attempt, Message, Operation, Queue, SimulatedEnvelope, SlowLog, SlowOutbox

_DRAINED = 20_000


class Node:
    """One executor: the real desks over slow fakes. Dead, nothing it still does counts."""

    def __init__(self, world: "World", name: str, cache_size: int) -> None:
        self.world, self.name, self.alive = world, name, True
        self.operations: list[Operation] = []
        log, outbox = SlowLog(self), SlowOutbox(self)
        self.desk = Desk(name, log, outbox, cache_size=cache_size)  # type: ignore[arg-type]
        self.settings = SettingsDesk(name, log, outbox, self._follow)  # type: ignore[arg-type]

    def _follow(self, surroundings: Surroundings) -> None:
        self.desk.surroundings = surroundings

    def ask(self, name: str, arrive: Callable[[], Any], answer: Callable[[Any], Awaitable[None]]) -> None:
        if self.alive:
            self.operations.append(Operation(name, arrive, answer))

    async def wait_for(self, name: str, arrive: Callable[[], Any]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def answer(result: Any) -> None:
            if not future.done():
                future.set_result(result)

        self.ask(name, arrive, answer)
        return await future

    async def hesitate(self) -> None:
        """Let others run: no call to the outside is atomic."""
        await asyncio.sleep(0)

    async def take(self, envelope: SimulatedEnvelope) -> None:
        await (self.settings if envelope.entity == SETTINGS_ENTITY else self.desk).take(envelope)


class World:
    """See the module. `sizes`: the executors' cache sizes. `behind`: how many commits a follower may lack."""

    def __init__(self, sizes: list[int], seed: int = 0) -> None:
        self.random = Random(seed)
        self.loop = asyncio.new_event_loop()
        self.failures: list[BaseException] = []
        self.loop.set_exception_handler(self._failed)
        self.log, self.queue = MemoryLog(), Queue()
        self.messages: list[Message] = []
        self.timers: dict[tuple[str, str], datetime] = {}
        self.answers: dict[str, list[Answer]] = {}
        self.dead: list[tuple[Message, ErrorInfo]] = []
        self.reported: dict[Attempt, list[Any]] = {}
        self.begun: Counter[Attempt] = Counter()
        self.sent: Counter[str] = Counter()
        self.zombies: list[Operation] = []
        self.behind = 0
        self.clock = 0
        self.ack_is_lost = False
        self.sizes, self.nodes = sizes, [Node(self, f"x{number}", size) for number, size in enumerate(sizes)]

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(context.get("exception") or RuntimeError(context["message"]))

    # Doing -------------------------------------------------------------------------------------------------------------

    def run(self, *work: Coroutine[Any, Any, Any]) -> None:
        """Begin these side by side, and go on until nothing moves."""

        async def everything() -> None:
            tasks = [asyncio.ensure_future(one) for one in work]
            await asyncio.sleep(0)
            while self.loop._ready:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            for task in tasks:
                assert task.done(), "a message is taken without waiting for the outside"
                task.result()

        self.loop.run_until_complete(everything())
        if self.failures:
            raise self.failures[0]

    def now(self) -> datetime:
        self.clock += 1
        return T0 + timedelta(seconds=self.clock)

    def send(self, entity: str, verb: str, content: Content, step: str = "", attempt: str = "") -> Message:
        message = Message(entity, verb, content, self.now(), step, attempt)
        self.sent[type(content).__name__] += 1
        self.messages.append(message)
        return message

    def report(self, attempt: Attempt, report: r.Report) -> None:
        entity, step, number = attempt
        if isinstance(report, r.Completed):
            self.reported.setdefault(attempt, []).append(report.output)
        self.send(entity, "report", report, step, f"1-{number}")

    def deliver(self, *messages: Message, node: Node | None = None) -> None:
        """Hand messages to an executor, all at once."""
        node = node or self.random.choice(self.alive)
        envelopes = []
        for message in messages:
            message.deliveries += 1
            message.held = SimulatedEnvelope(node, message)
            envelopes.append(message.held)
        self.run(*(node.take(envelope) for envelope in envelopes))

    def let_go(self, envelope: SimulatedEnvelope) -> None:
        if self.ack_is_lost:
            self.ack_is_lost = False
            return
        envelope.message.acked = True
        if envelope.message in self.messages:
            self.messages.remove(envelope.message)

    def advance(self, node: Node, operation: Operation) -> None:
        """One step of an operation: it arrives, or its answer does."""
        if operation.arrived:
            node.operations.remove(operation)
            self.run(operation.answer())  # type: ignore[arg-type]
        else:
            operation.arrive()

    def work(self, attempt: Attempt, outcome: str) -> None:
        """The worker that holds a dispatch reports what came of it, and acknowledges it behind that."""
        self.report_outcome(attempt, outcome)
        self.queue.acknowledge(attempt)

    def report_outcome(self, attempt: Attempt, outcome: str) -> None:
        at = self.now()
        self.begun[attempt] += 1
        match outcome:
            case "ok":
                self.report(
                    attempt, r.Completed(started_at=at, ended_at=at, output=f"{attempt[1]} {self.begun[attempt]}", worker="w")
                )
            case "fail":
                self.report(
                    attempt,
                    r.Failed(error=ErrorInfo(type="execution_error", code="BROKEN", message="m"), started_at=at, ended_at=at),
                )
            case "fatal":
                self.report(
                    attempt,
                    r.Failed(error=ErrorInfo(type="execution_error", code="FATAL", message="m", retryable=False), started_at=at),
                )
            case "timeout":
                self.report(attempt, r.TimedOut(started_at=at, ended_at=at, ended="cancelled"))
            case "stopped":
                self.report(attempt, r.Stopped(started_at=at, ended_at=at, ended="cancelled"))
            case "started":
                self.report(attempt, r.Started(started_at=at, worker="w"))

    def hand_out(self, attempt: Attempt) -> None:
        """A worker takes a dispatch; if others lost it before, it says so."""
        if losses := self.queue.take(attempt):
            self.report(attempt, r.Lost(losses=losses))

    def fire(self, timer: tuple[str, str]) -> None:
        """A timer fires: now, whatever the clock says."""
        self.timers.pop(timer, None)
        self.send(timer[0], "due", r.Due(timer[1]))

    # Faults --------------------------------------------------------------------------------------------------------------

    def crash(self, node: Node) -> None:
        """Kill an executor. What it had sent may still arrive; what it held is delivered again; another takes its place."""
        node.alive = False
        self.zombies += [one for one in node.operations if not one.arrived and self.random.random() < 0.5]
        node.operations.clear()
        for task in [*node.desk._tasks, *node.settings._tasks]:
            task.cancel()
        self.run()
        for message in self.messages:
            if message.held is not None and message.held.node is node:
                message.held = None
        index = self.nodes.index(node)
        self.nodes[index] = Node(self, f"{node.name}'", self.sizes[index])

    def expire(self, message: Message) -> None:
        """The server has waited long enough for an answer: the message is delivered again, though its executor lives."""
        message.held = None

    # Going on ---------------------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.alive]

    @property
    def available(self) -> list[Message]:
        return [message for message in self.messages if message.held is None]

    def choices(self) -> list[Callable[[], None]]:
        """What may happen next, if nothing goes wrong and everybody does something."""
        found: list[Callable[[], None]] = []
        for node in self.alive:
            found += [lambda node=node, one=one: self.advance(node, one) for one in node.operations]  # type: ignore[misc]
        found += [lambda one=one: self.deliver(one) for one in self.available]  # type: ignore[misc]
        found += [lambda one=one: self.hand_out(one) for one in self.queue.waiting]  # type: ignore[misc]
        found += [lambda one=one: self.work(one, self.outcome(one)) for one in self.queue.held]  # type: ignore[misc]
        found += [lambda one=one: self.fire(one) for one in self.timers]  # type: ignore[misc]
        return found

    def outcome(self, attempt: Attempt) -> str:
        """Mostly it works."""
        if attempt in self.queue.told:
            return "stopped"
        return self.random.choice(["ok", "ok", "ok", "ok", "fail", "fatal", "timeout"])

    def go_on(self, steps: int) -> None:
        """Let `steps` things happen."""
        for _ in range(steps):
            if not (choices := self.choices()):
                return
            self.random.choice(choices)()

    def drain(self) -> None:
        """Let everything come to its end, without further faults: the server only delivers again what nobody answered for."""
        self.behind, self.ack_is_lost = 0, False
        for zombie in self.zombies:
            zombie.arrive()
        self.zombies.clear()
        for _ in range(_DRAINED):
            if choices := self.choices():
                self.random.choice(choices)()
            elif held := [message for message in self.messages if message.held is not None]:
                for message in held:
                    assert message.deliveries < 60, f"nobody ever lets go of: {message!r}"
                    message.held = None
            else:
                return
        raise AssertionError(f"it goes on for ever: {self.messages} {[node.operations for node in self.nodes]}")

    def close(self) -> None:
        for node in self.nodes:
            for task in [*node.desk._tasks, *node.settings._tasks]:
                task.cancel()
        self.run()
        self.loop.close()

    def histories(self) -> dict[str, list[bytes]]:
        """The raw bytes of the log."""
        return {entity: [one.data for one in history] for entity, history in self.log.histories.items()}
