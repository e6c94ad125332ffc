"""Random stories told in a world: what clients wish, what goes wrong; and what must hold when all has come to rest."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.namespace import SETTINGS_ENTITY
from esexec.domain.settings import ExecutionConfig, TaskSettings
from tests.given import start, step
from tests.simulation import checker
from tests.simulation.server import Message
from tests.simulation.world import World

QUICK = {"initial_retry_delay_ms": 100, "jitter": 0.0, "max_retries": 1}

PLANS: list[tuple[list[Any], dict[str, Any], dict[str, Any]]] = [
    (["a"], {}, QUICK),
    (["a", step("b", "a", params={"x": "${steps.a.output}"})], {}, {"max_retries": 1}),
    (["a", "b", "c"], {"parallel": True}, QUICK),
    (["a", step("b", "a"), step("c", "a"), step("d", "b", "c")], {"parallel": True}, QUICK | {"continue_on_error": True}),
    (["a", "b", step("c", "a"), step("d", "c"), "e"], {}, QUICK | {"continue_on_error": True, "max_retries": 0}),
    ([f"s{n}" for n in range(8)], {"parallel": True}, QUICK | {"parallel_execution_limit": 8}),
    (["a", step("b", "a", params={"x": "${steps.a.output.missing}"}), "c"], {"parallel": True}, QUICK),
]


@contextmanager
def small_decisions(events: int) -> Iterator[None]:
    """Decisions have room for so many events only."""
    before = limits.events_per_commit
    limits.events_per_commit = events  # type: ignore[misc]
    try:
        yield
    finally:
        limits.events_per_commit = before  # type: ignore[misc]


class Story:
    """What clients do in a world, and what they may expect for it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.wishes = 0
        self.quiet = True
        """Nobody did anything that may make a handler run twice."""

    def _id(self) -> str:
        self.wishes += 1
        return f"c{self.wishes}"

    def _send(self, entity: str, verb: str, content: Any) -> Message:
        return self.world.send(entity, verb, content)

    # What clients do ---------------------------------------------------------------------------------------------------

    def start(self, execution: str, plan: int, key: str | None = None) -> Message:
        """A start; of the same execution as another one it is a rival's."""
        steps, fields, config = PLANS[plan % len(PLANS)]
        command = start(*steps, id=self._id(), plan_fields=fields, config=config, idempotency_key=key)
        return self._send(execution, "start", command)

    def start_badly(self, execution: str) -> Message:
        return self._send(execution, "start", start(step("a", "nobody"), id=self._id()))

    def cancel(self, execution: str) -> Message:
        return self._send(execution, "cancel", c.CancelExecution(id=self._id()))

    def nudge(self, execution: str) -> Message:
        return self._send(execution, "nudge", r.Nudge())

    def configure(self, value: int) -> Message:
        return self._send(
            SETTINGS_ENTITY, "configure", c.ConfigureNamespace(id=self._id(), config=ExecutionConfig(priority=value))
        )

    def announce(self, name: str) -> Message:
        tasks = {name: TaskSettings(priority=1)}
        return self._send(SETTINGS_ENTITY, "announce", c.AnnounceTasks(id=self._id(), tasks=tasks, worker="w"))

    # What goes wrong ----------------------------------------------------------------------------------------------------

    def again(self, message: Message) -> None:
        """The very same message is stored twice: a client's retry beyond any window, a late report."""
        world = self.world
        world.messages.append(Message(message.entity, message.verb, message.content, world.now(), message.step, message.attempt))

    def misfortune(self, kind: str, chance: Random) -> None:
        """One fault of a kind, if there is occasion for it."""
        world = self.world
        self.quiet = self.quiet and kind in HARMLESS
        held = [message for message in world.messages if message.held is not None]
        arrived = [one for node in world.alive for one in node.operations if one.arrived]
        match kind:
            case "crash":
                world.crash(chance.choice(world.alive))
            case "expire" if held:
                world.expire(chance.choice(held))
            case "expire to the same" if held:
                message = chance.choice(held)
                assert message.held is not None
                node = message.held.node
                world.expire(message)
                world.deliver(message, node=node)
                if chance.random() < 0.5:
                    world.crash(node)
            case "double" if world.messages:
                self.again(chance.choice(world.messages))
            case "ack lost":
                world.ack_is_lost = True
            case "arrives again" if arrived:
                chance.choice(arrived).arrive()
            case "zombie" if world.zombies:
                world.zombies.pop(chance.randrange(len(world.zombies))).arrive()
            case "worker lost" if world.queue.held:
                attempt = chance.choice(world.queue.held)
                if chance.random() < 0.5:
                    world.report_outcome(attempt, world.outcome(attempt))
                world.queue.lose(attempt)
            case "follower behind":
                world.behind = chance.randrange(3)
            case "timer twice" if world.timers:
                world.send((timer := chance.choice(list(world.timers)))[0], "due", r.Due(timer[1]))
            case "started" if world.queue.held:
                world.report_outcome(chance.choice(world.queue.held), "started")
            case "together" if len(world.available) > 1:
                entity = chance.choice(world.available).entity
                together = [one for one in world.available if one.entity == entity]
                world.deliver(*chance.sample(together, len(together)))
            case "nudge":
                self.nudge(f"e{chance.randrange(3)}")
            case "nonsense":
                world.send("e1", "report", r.Withdrawn(), "nobody", "1-1")

    # What must hold --------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """What must hold at any moment."""
        histories = self.world.histories()
        problems = checker.broken_chains(histories) + checker.broken_rules(histories)
        problems += checker.unlike_the_world(histories, self.world.reported)
        assert not problems, problems

    def end(self) -> None:
        """Let everything come to rest, and hold the world against what was promised."""
        world = self.world
        world.drain()
        self.check()
        histories = world.histories()
        assert not checker.without_end(histories), f"stuck: {checker.without_end(histories)}"
        assert not checker.doubled_keys(histories), checker.doubled_keys(histories)
        assert not [node.operations for node in world.alive if node.operations]
        assert all(node.desk.idle for node in world.alive)
        buried = [message for message, reason in world.dead if reason.code != "unknown_attempt"]
        assert not buried, f"nothing here is poison: {buried}"
        self._check_answers()
        if self.quiet:
            twice = {attempt for attempt, times in world.queue.dispatched.items() if times > 1}
            assert not twice, f"dispatched twice without any fault: {twice}"

    def _check_answers(self) -> None:
        """Whoever was told that a wish was granted finds it in the log; whoever was refused does not, unless it came again."""
        applied = checker.applied_commands(self.world.histories())
        for command, answers in self.world.answers.items():
            for answer in answers:
                granted = answer.status == "accepted" and answer.effective and answer.execution_id != SETTINGS_ENTITY
                assert not granted or command in applied, f"{answer} is not in the log"
                assert not self.quiet or answer.status != "refused" or command not in applied, f"{answer} is in the log"


FAULTS = [
    "crash",
    "crash",
    "crash",
    "expire",
    "expire to the same",
    "double",
    "ack lost",
    "arrives again",
    "zombie",
    "worker lost",
    "follower behind",
    "timer twice",
    "nudge",
]
HARMLESS = ["started", "together", "nonsense"]


def tell(seed: int, *, sizes: list[int], faults: bool, room: int = 500, length: int = 60) -> Story:
    """A whole random story, from one number."""
    chance = Random(seed)
    world = World(sizes, seed)
    story = Story(world)
    clients: list[Callable[[], object]] = [
        lambda: story.start(f"e{chance.randrange(3)}", chance.randrange(len(PLANS))),
        lambda: story.start(f"e{chance.randrange(5)}", chance.randrange(2), f"k{chance.randrange(2)}"),
        lambda: story.start_badly(f"e{chance.randrange(3)}"),
        lambda: story.cancel(f"e{chance.randrange(3)}"),
        lambda: story.configure(chance.randrange(3)),
        lambda: story.announce(chance.choice("ab")),
    ]
    with small_decisions(room):
        try:
            for _ in range(length):
                dice = chance.random()
                if dice < 0.15:
                    chance.choice(clients)()
                elif dice < 0.4:
                    story.misfortune(chance.choice(HARMLESS + FAULTS if faults else HARMLESS), chance)
                else:
                    world.go_on(chance.randrange(1, 8))
                story.check()
            story.end()
        finally:
            world.close()
    return story
