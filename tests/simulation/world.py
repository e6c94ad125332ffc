"""Executors, workers and clients around one server, all under one hand: what happens next is always somebody's choice.

`World.choices` are the things that may happen now without any fault; the faults are methods of their own.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec

from esexec.domain import commands as c
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo
from esexec.domain.kept_plans import PLANS_ENTITY
from esexec.domain.messages import Answer, Dispatch
from esexec.domain.namespace import SETTINGS_ENTITY, NamespaceState, fold_namespace
from esexec.executor.desk import Desk
from esexec.executor.envelope import Content
from esexec.executor.plans import PlansDesk
from esexec.executor.settings import SettingsDesk
from esexec.log import codec
from esexec.log.memory import MemoryLog
from tests.given import T0
from tests.simulation.checker import Auditor
from tests.simulation.server import Message, Operation, SimulatedEnvelope, SlowLog, SlowOutbox
from tests.simulation.workers import Attempt, Queue, report_of, some_outcome

_DRAINED = 20_000


class Node:
    """One executor: the real desks over slow fakes. Dead, nothing it still does counts."""

    def __init__(self, world: "World", name: str, cache_size: int) -> None:
        self.world, self.name, self.alive = world, name, True
        self.operations: list[Operation] = []
        self.outside: set[asyncio.Task[None]] = set()
        """What the outbox does in tasks of its own."""
        log, outbox = SlowLog(self), SlowOutbox(self)
        self.plans = PlansDesk(name, log, outbox)  # type: ignore[arg-type]
        self.desk = Desk(
            name,
            log,  # type: ignore[arg-type]
            outbox,
            cache_size=cache_size,
            plan_of=self.plans.plan_of,
            first_command=self._first_command,
        )
        self.settings = SettingsDesk(name, log, outbox, self._follow)  # type: ignore[arg-type]
        self.hear_news()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        return [*self.desk._tasks, *self.settings._tasks, *self.plans._tasks, *self.outside]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self.outside.add(task)
        task.add_done_callback(self.outside.discard)

    def hear_news(self) -> None:
        """What others committed to `_settings`, as an executor hears it sooner or later."""
        commits = [codec.decode(one.data) for one in self.world.log.histories.get(SETTINGS_ENTITY, [])]
        self._follow(fold_namespace(commits))

    def _follow(self, state: NamespaceState) -> None:
        self.desk.surroundings = state.surroundings

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

    async def _first_command(self, entity: str, place: int) -> int | None:
        found: int | None = await self.wait_for(f"turn {entity} {place}", lambda: self.world.first_command(entity, place))
        return found

    async def hesitate(self) -> None:
        """Let others run: no call to the outside is atomic."""
        await asyncio.sleep(0)

    async def take(self, envelope: SimulatedEnvelope) -> None:
        desks = {SETTINGS_ENTITY: self.settings.take, PLANS_ENTITY: self.plans.take}
        await desks.get(envelope.entity, self.desk.take)(envelope)


class Loop(asyncio.SelectorEventLoop):
    """Its time stands still, until somebody lets those wake up who sleep."""

    moment = 0.0

    def time(self) -> float:
        return self.moment

    @property
    def sleepers(self) -> list[float]:
        return [one.when() for one in self._scheduled if not one.cancelled()]  # type: ignore[attr-defined]


class World:
    """See the module. `sizes`: the executors' cache sizes. `behind`: how many commits a follower may lack."""

    def __init__(self, sizes: list[int], seed: int = 0) -> None:
        self.random = Random(seed)
        self.loop = Loop()
        self.failures: list[BaseException] = []
        self.loop.set_exception_handler(self._failed)
        self.log, self.queue = MemoryLog(), Queue()
        self.messages: list[Message] = []
        self.timers: dict[tuple[str, str], datetime] = {}
        self.answers: dict[str, list[Answer]] = {}
        self.auditor = Auditor()
        self.judged: list[tuple[Answer, Message | None, int]] = []
        """Each answer, the message that it answers, and how many commits there were when it was given."""
        self.asked: dict[str, Message] = {}
        self.places: dict[str, list[int]] = {}
        """Where each command stands in COMMANDS; it may be stored several times."""
        self.last_place = 0
        self.dead: list[tuple[Message, ErrorInfo]] = []
        self.reported: dict[Attempt, list[r.Report]] = {}
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
        message.known = self.commits_of(entity)
        self.sent[type(content).__name__] += 1
        self.store(message)
        if (command := getattr(content, "id", None)) is not None:
            self.asked.setdefault(command, message)
        return message

    def store(self, message: Message) -> None:
        """A message comes to its stream."""
        self.messages.append(message)
        if isinstance(message.content, c.AnyCommand):
            self.last_place += 1
            message.place = self.last_place
            self.places.setdefault(message.content.id, []).append(message.place)

    def first_command(self, entity: str, place: int) -> int | None:
        """The place of the first command of an execution that stands in COMMANDS, there or behind it."""
        return min((one.place for one in self.messages if one.entity == entity and one.place >= place), default=None)

    def commits_of(self, entity: str) -> int:
        return len(self.log.histories.get(entity, ()))

    def report(self, attempt: Attempt, report: r.Report) -> None:
        self.reported.setdefault(attempt, []).append(report)
        self.send(attempt.execution, "report", report, attempt.step, attempt.id)

    def reports_on(self, attempt: Attempt) -> bool:
        """Whether INBOX holds a report on it."""
        return any(one.about(attempt) for one in self.messages)

    def is_reported(self, attempt: Attempt) -> bool:
        """Whether INBOX holds an outcome of it; what a pause took back may be handed out again."""
        reports = [one.content for one in self.messages if one.about(attempt)]
        no_outcomes = r.Started | r.Lost | r.Before
        return any(not isinstance(one, no_outcomes) and not getattr(one, "pause", 0) for one in reports)

    def hand_in(self, attempt: Attempt, message: Dispatch) -> None:
        """A dispatch comes to TASKS."""
        self.auditor.look(self.log.histories)
        self.auditor.dispatched(attempt, message)
        self.queue.add(attempt, message)

    def tell(self, answer: Answer) -> None:
        self.answers.setdefault(answer.command_id, []).append(answer)
        self.judged.append((answer, self.asked.get(answer.command_id), self.commits_of(answer.execution_id)))

    def tell_image(self, attempt: Attempt, image: Any) -> None:
        """A handler that waits for its image to be kept may go on."""
        self.auditor.look(self.log.histories)
        self.auditor.told_image(attempt, image)
        if attempt in self.queue.asking:
            self.queue.asking.remove(attempt)
            self.queue.images[attempt] = image

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
            envelope.message.held = None
            return
        envelope.message.acked = True
        if envelope.message in self.messages:
            self.messages.remove(envelope.message)

    def advance(self, node: Node, operation: Operation) -> None:
        """One step of an operation: it arrives, or its answer does."""
        if operation.arrived:
            node.operations.remove(operation)
            self.run(operation.answer())
        else:
            operation.arrive()

    def work(self, attempt: Attempt, outcome: str) -> None:
        """The worker that holds a dispatch reports what came of it, and acknowledges it behind that."""
        self.report_outcome(attempt, outcome)
        self.queue.acknowledge(attempt)

    def report_outcome(self, attempt: Attempt, outcome: str) -> None:
        at = self.now()
        self.begun[attempt] += 1
        self.report(attempt, report_of(outcome, attempt, at, self.begun[attempt]))

    def ask_for_image(self, attempt: Attempt) -> None:
        """The handler wants what it is about to change to be kept: it waits until it hears that it is, and asks until then."""
        self.queue.asking.add(attempt)
        self.begun[attempt] += 1
        image = {"was": f"{attempt.step} {attempt.id} {self.begun[attempt]}"}
        self.send(attempt.execution, "report", r.Before(image=image), attempt.step, attempt.id)

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
        late = [one for one in node.operations if not one.arrived and self.random.random() < 0.5]
        for one in late:
            if one.name.startswith("delete"):
                one.arrive()  # what is in flight arrives long before the messages of the dead are delivered again
            else:
                self.zombies.append(one)
        node.operations.clear()
        for task in node.tasks:
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

    def wake(self) -> None:
        """Time goes on to when the first of those who sleep wakes up."""
        self.loop.moment = max(self.loop.moment, min(self.loop.sleepers))
        self.run()

    def finish(self, node: Node, *names: str) -> None:
        """Let the operations of these names, of whatever is asked now and by their answers, arrive and be answered."""
        moved = True
        while moved:
            moved = False
            for one in list(node.operations):
                if not names or one.name.startswith(names):
                    while one in node.operations:
                        self.advance(node, one)
                    moved = True

    def choices_of_executors(self) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = [self.wake] if self.loop.sleepers else []
        for node in self.alive:
            found += [lambda node=node, one=one: self.advance(node, one) for one in node.operations]  # type: ignore[misc]
        found += [lambda one=one: self.deliver(one) for one in self.available]  # type: ignore[misc]
        return found

    def choices(self) -> list[Callable[[], None]]:
        """What may happen next, if nothing goes wrong and everybody does something."""
        found = self.choices_of_executors()
        found += [lambda one=one: self.hand_out(one) for one in self.queue.waiting]  # type: ignore[misc]
        found += [lambda one=one: self.handle(one) for one in self.queue.held]  # type: ignore[misc]
        found += [lambda one=one: self.fire(one) for one in self.timers]  # type: ignore[misc]
        return found

    def handle(self, attempt: Attempt) -> None:
        """A worker goes on with what it holds."""
        queue, message = self.queue, self.queue.messages[attempt]
        if attempt in queue.told:
            self.work(attempt, self.random.choice(["stopped", "stopped", "stopped early"]))
        elif attempt in queue.asking:
            if not self.reports_on(attempt):
                self.ask_for_image(attempt)
        elif self._wants_image(attempt, message) and self.random.random() < 0.7:
            self.ask_for_image(attempt)
        else:
            self.work(attempt, self.outcome(attempt))

    def _wants_image(self, attempt: Attempt, message: Dispatch) -> bool:
        changes = message.task.startswith(("update_", "delete_")) and message.purpose == "task"
        return changes and message.before is msgspec.UNSET and attempt not in self.queue.images

    def outcome(self, attempt: Attempt) -> str:
        return some_outcome(self.random, self.queue.messages[attempt].purpose)

    def go_on(self, steps: int) -> None:
        """Let `steps` things happen."""
        for _ in range(steps):
            if not (choices := self.choices()):
                return
            self.random.choice(choices)()

    def rest(self) -> None:
        """Let the executors finish what they have in hand; workers, timers and clients do nothing meanwhile."""
        self._until_nothing_moves(self.choices_of_executors)

    def drain(self) -> None:
        """Let everything come to its end, without further faults: the server only delivers again what nobody answered for."""
        self._until_nothing_moves(self.choices)

    def _until_nothing_moves(self, choices_now: Callable[[], list[Callable[[], None]]]) -> None:
        self.behind, self.ack_is_lost = 0, False
        for zombie in self.zombies:
            zombie.arrive()
        self.zombies.clear()
        for _ in range(_DRAINED):
            if choices := choices_now():
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
            for task in node.tasks:
                task.cancel()
        self.run()
        self.loop.close()

    def histories(self) -> dict[str, list[bytes]]:
        """The raw bytes of the log."""
        return {entity: [one.data for one in history] for entity, history in self.log.histories.items()}
