"""What happens in a world: what clients wish, what goes wrong; and what must hold when all has come to rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import msgspec

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.kept_plans import PLANS_ENTITY
from esexec.domain.namespace import SETTINGS_ENTITY
from esexec.domain.settings import TaskInfo
from tests.given import at, start, step
from tests.simulation import checker
from tests.simulation.answers import Wish, objection, out_of_turn
from tests.simulation.law import Law
from tests.simulation.plans import PLANS, STRATEGIES, TASKS
from tests.simulation.server import Message
from tests.simulation.world import World

_SHARED = (SETTINGS_ENTITY, PLANS_ENTITY)
_SMALL = {"losses_per_attempt": 2, "checkpoints_per_execution": 6, "recoveries_per_step": 2}
"""Limits that a short story can reach."""


@contextmanager
def small_decisions(events: int = 500, **others: int) -> Iterator[None]:
    """Decisions have room for so many events only; and whatever other limits."""
    wanted = {"events_per_commit": events, **others}
    before = {name: getattr(limits, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(limits, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(limits, name, value)


def small_world(events: int = 500) -> Any:
    """As `small_decisions`, with few losses, checkpoints and recoveries."""
    return small_decisions(events, **_SMALL)


class Story:
    """What clients do in a world, and what they may expect for it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.wishes = 0
        self.quiet = True
        """Nobody did anything that may make a handler run twice."""
        self.nobody_lost = True
        """No executor and no worker."""

    def _id(self) -> str:
        self.wishes += 1
        return f"c{self.wishes}"

    def _send(self, entity: str, verb: str, content: Any) -> Message:
        return self.world.send(entity, verb, content)

    # What clients do ---------------------------------------------------------------------------------------------------

    def start(self, execution: str, plan: int, key: str | None = None, **fields: Any) -> Message:
        """A start; of the same execution as another one it is a rival's."""
        steps, plan_fields, config = PLANS[plan % len(PLANS)]
        command = start(*steps, id=self._id(), plan_fields=plan_fields, config=config, idempotency_key=key, **fields)
        return self._send(execution, "start", command)

    def start_in_time(self, execution: str, plan: int, chance: Random) -> Message:
        """A start that is delayed, or must end by a deadline, or both."""
        soon = self.world.clock + chance.randrange(1, 30)
        when: list[dict[str, Any]] = [
            {"start_at": at(soon)},
            {"delay_ms": 5000},
            {"deadline": at(soon)},
            {"delay_ms": 5000, "deadline": at(soon)},
            {"delay_ms": 50_000, "deadline": at(soon)},
            {"deadline": at(10**8)},
        ]
        return self.start(execution, plan, **chance.choice(when))

    def start_badly(self, execution: str) -> Message:
        return self._send(execution, "start", start(step("a", "nobody"), id=self._id()))

    def start_kept(self, execution: str, plan: int) -> Message:
        """A start of a plan that the namespace keeps, perhaps."""
        return self._send(execution, "start", c.StartExecution(id=self._id(), plan_id=self.plan_id(plan)))

    def plan_id(self, plan: int) -> str:
        from esexec.domain.compiled import graph_of

        return graph_of(bytes(self._plan(plan))).plan_id

    def _plan(self, plan: int) -> msgspec.Raw:
        steps, plan_fields, _ = PLANS[plan % len(PLANS)]
        return start(*steps, plan_fields=plan_fields).plan

    def put_plan(self, plan: int) -> Message:
        return self._send(PLANS_ENTITY, "put_plan", c.PutPlan(id=self._id(), plan=self._plan(plan)))

    def control(self, execution: str, verb: str, **fields: Any) -> Message:
        return self._send(execution, verb, c.VERBS[verb](id=self._id(), **fields))

    def cancel(self, execution: str) -> Message:
        return self.control(execution, "cancel")

    def some_control(self, execution: str, verb: str, chance: Random) -> Message:
        """A command on an execution, with whatever it can say."""
        fields: dict[str, Any] = {}
        law = self.world.auditor.law(execution)
        match verb:
            case "retry step":
                fields = {"step": chance.choice([*law.failed * 3, *law.steps, "nobody"])}
            case "retry as_new":
                fields = {"as_new": True, "new_id": chance.choice(["f0", "f1", "f2", execution, None])}
            case "restore":
                fields = {"checkpoint_id": chance.choice([*law.checkpoints] or ["e9.9"])}
            case "restore unknown":
                fields = {"checkpoint_id": f"{execution}.999"}
        return self.control(execution, verb.split()[0], **fields)

    def nudge(self, execution: str) -> Message:
        return self._send(execution, "nudge", r.Nudge())

    def configure(self, value: int) -> Message:
        return self._send(SETTINGS_ENTITY, "configure", c.ConfigureNamespace(id=self._id(), config={"priority": value}))

    def announce(self, name: str | None = None) -> Message:
        tasks = {name: TaskInfo(priority=1)} if name is not None else TASKS
        return self._send(SETTINGS_ENTITY, "announce", c.AnnounceTasks(id=self._id(), tasks=tasks, worker="w"))

    def strategy(self, number: int) -> Message:
        """Adds a strategy, or takes one away."""
        strategy = STRATEGIES[number % len(STRATEGIES)]
        if number < len(STRATEGIES):
            return self._send(SETTINGS_ENTITY, "add_strategy", c.AddStrategy(id=self._id(), strategy=strategy))
        return self._send(SETTINGS_ENTITY, "remove_strategy", c.RemoveStrategy(id=self._id(), strategy_id=strategy.id))

    def prepare(self, strategies: int) -> None:
        """A namespace in which workers and strategies are known from the beginning."""
        self.announce()
        for number in range(strategies):
            self.strategy(number)
        self.world.rest()
        for node in self.world.nodes:
            node.hear_news()

    # What goes wrong ----------------------------------------------------------------------------------------------------

    def again(self, message: Message) -> None:
        """The very same message is stored twice: a client's retry beyond any window, a late report."""
        world = self.world
        copy = Message(message.entity, message.verb, message.content, world.now(), message.step, message.attempt)
        copy.known = message.known
        world.store(copy)

    def misfortune(self, kind: str, chance: Random, of: Any = None) -> None:
        """One fault of a kind, if there is occasion for it; of this executor, message or attempt, or of any."""
        world = self.world
        self.quiet = self.quiet and kind in HARMLESS
        self.nobody_lost = self.nobody_lost and kind not in LOSSES
        held = [message for message in world.messages if message.held is not None]
        arrived = [one for node in world.alive for one in node.operations if one.arrived]
        match kind:
            case "crash":
                world.crash(of or chance.choice(world.alive))
            case "expire" if held:
                world.expire(of or chance.choice(held))
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
                attempt = of or chance.choice(world.queue.held)
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
            case "news":
                chance.choice(world.alive).hear_news()
            case "rest":
                world.rest()
                self.check_rest()
            case "nonsense":
                world.send("e1", "report", r.Withdrawn(), "nobody", "1-1")

    # What must hold --------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """What must hold at any moment."""
        auditor = self.world.auditor
        auditor.look(self.world.log.histories)
        assert not auditor.all_problems(), auditor.all_problems()
        assert not self.nobody_lost or not self.world.queue.at_once, f"at once, by two workers: {self.world.queue.at_once}"

    def check_rest(self) -> None:
        """What must hold whenever no message is under way: nobody waits in vain."""
        self.check()
        world = self.world
        for entity, law in world.auditor.laws.items():
            timers = {name for of, name in world.timers if of == entity}
            problems = checker.stuck(law, world.queue.stands, timers)
            problems += self._wrong_forks(law)
            assert not problems, problems
        if self.quiet:
            left = {*world.queue.waiting} - world.auditor.open_attempts()
            if len(world.nodes) > 1:  # one executor may hand out what another has gone back behind
                left -= world.auditor.abandoned()
            assert not left, f"handed out, and nobody waits for it any more: {left}"

    def _wrong_forks(self, law: Law) -> list[str]:
        found: list[str] = []
        for new_id, kept in law.forks.items():
            created = self.world.auditor.law(new_id).created
            if not created:
                found.append(f"{law.entity} was forked as {new_id}, which nobody started")
            elif created.get("forked_from") == law.entity and created.get("kept", {}) not in kept:
                found.append(f"{new_id} did not take along what {law.entity} had completed")
        return found

    def end(self) -> None:
        """Let everything come to rest, wake what is paused, and hold the world against what was promised."""
        world = self.world
        while True:
            world.rest()
            self.check_rest()
            world.drain()
            self.check_rest()
            paused = [entity for entity, law in world.auditor.laws.items() if law.paused]
            if not paused:
                break
            for entity in paused:
                self.control(entity, "resume")
        too_often = [law.entity for law in world.auditor.laws.values() if law.recoveries_most > limits.recoveries_per_step]
        assert not too_often, f"recovered more often than it may: {too_often}"
        histories = world.histories()
        problems = checker.unlike_the_world(histories, world.reported) + checker.applied_twice(histories)
        assert not problems, problems
        assert not checker.without_end(histories), f"stuck: {checker.without_end(histories)}"
        assert not checker.doubled_keys(histories), checker.doubled_keys(histories)
        assert not [node.operations for node in world.alive if node.operations]
        assert all(node.desk.idle for node in world.alive)
        buried = [(message, reason) for message, reason in world.dead if reason.code != "unknown_attempt"]
        assert not buried, f"nothing here is poison: {buried}"
        self._check_answers()
        self._check_turns()
        if self.quiet:
            self._check_once()

    def _check_once(self) -> None:
        queue = self.world.queue
        twice = {attempt for attempt, times in queue.dispatched.items() if times > 1}
        assert not twice, f"dispatched twice without any fault: {twice}"
        done = queue.delivered_attempts & self.world.auditor.untouched()
        assert not done, f"closed because nobody had them, and done all the same: {done}"

    def _check_turns(self) -> None:
        """What sets the course of an execution is decided in the order in which it was stored, whoever decides it."""
        world = self.world
        wishes: dict[str, list[Wish]] = {}
        first = {answer.command_id: (answer, told_at) for answer, _, told_at in reversed(world.judged)}
        for command, places in world.places.items():
            message = world.asked[command]
            if len(places) == 1 and message.verb in COURSE and not getattr(message.content, "as_new", False):
                answer, told_at = first.get(command, (None, 0))
                wish = Wish(places[0], message.verb, command, message.known, answer, told_at)
                wishes.setdefault(message.entity, []).append(wish)
        for entity, told in wishes.items():
            problem = out_of_turn(world.auditor.law(entity), told)
            assert problem is None, problem

    def _check_answers(self) -> None:
        """Whoever was told that a wish was granted finds it in the log; every other answer was right at some moment meanwhile."""
        world = self.world
        applied = checker.applied_commands(world.histories())
        for answer, message, told_at in world.judged:
            if answer.execution_id in _SHARED or message is None:
                continue
            law = world.auditor.law(answer.execution_id)
            time = message.time.isoformat().replace("+00:00", "Z")
            verb = "retry as_new" if getattr(message.content, "as_new", False) else message.verb
            problem = objection(law, verb, answer, sent_at=message.known, told_at=told_at, time=time)
            assert problem is None, problem
            if verb == "retry as_new" and answer.error is not None and answer.error.code == "conflict":
                new_id = getattr(message.content, "new_id", None) or answer.command_id
                assert world.commits_of(new_id), f"{answer.error.message}, but it does not exist"
            assert not self.quiet or answer.status != "refused" or answer.command_id not in applied, f"{answer} is in the log"


COURSE = {"cancel", "pause", "resume", "retry", "rollback", "restore"}
"""Commands that set the course of an execution."""
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
LOSSES = {"crash", "expire to the same", "worker lost"}
HARMLESS = ["started", "together", "nonsense", "news", "rest"]
