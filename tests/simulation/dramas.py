"""Scenes that chance alone would hardly ever play: what an executor, its rival and the workers must do at just these moments.

Each begins at rest, needs an execution that it fits (else nothing happens), and leaves the rest to the story.
"""

from collections.abc import Callable
from random import Random

from esexec.domain import reports as r
from tests.simulation.server import Message
from tests.simulation.story import Story
from tests.simulation.workers import Attempt
from tests.simulation.world import Node

_DECIDED = ("turn", "load", "append")
"""What an executor asks of the outside before the effects of a decision."""

Drama = Callable[[Story, Random], None]


def _going(story: Story, chance: Random, *, handed: list[Attempt], paused: bool = False) -> list[Attempt]:
    """Attempts of one execution that goes on, among these."""
    story.check()
    laws = {one.execution: story.world.auditor.law(one.execution) for one in handed}
    going = [entity for entity, law in laws.items() if not (law.ended or law.stopping) and law.paused is paused]
    return [one for one in handed if going and one.execution == going[0]] if chance.random() < 0.9 else []


def _decide(node: Node, message: Message) -> None:
    """The executor takes a message, and stores what it decides; the effects are to come."""
    node.world.deliver(message, node=node)
    node.world.finish(node, *_DECIDED)


def _some_of(node: Node, chance: Random, *names: str) -> None:
    """A few of the operations of these names go on, by a step each."""
    for _ in range(chance.randrange(6)):
        asked = [one for one in node.operations if one.name.startswith(names)]
        if not asked:
            return
        node.world.advance(node, chance.choice(asked))


def _end_without_answer(story: Story, chance: Random, node: Node, message: Message) -> None:
    """The executor dies, or the server only thinks so."""
    if message.held is None or chance.random() < 0.5:
        story.misfortune("crash", chance, of=node)
    else:
        story.misfortune("expire", chance, of=message)


def in_one_commit(story: Story, chance: Random) -> None:
    """While a commit is stored, reports gather, and what stops the execution: one commit tells of them all, in any order."""
    world = story.world
    world.rest()
    attempts = _going(story, chance, handed=world.queue.held)
    if len(attempts) < 2:
        return
    entity, node = attempts[0].execution, chance.choice(world.alive)
    law = world.auditor.law(entity)
    due = [(entity, str(version)) for version in (law.deadline, law.checkpoint_timer) if version]
    if due and due[0] in world.timers and chance.random() < 0.5:
        world.fire(due[0])
        stop = world.messages[-1]
    else:
        stop = story.some_control(entity, chance.choice(["cancel", "pause", "pause", "restore"]), chance)
        world.deliver(stop, node=node)
    first, *others = chance.sample(attempts, len(attempts))
    _report(story, chance, first, node)
    world.finish(node, "load")
    gathered = [*others, stop]
    chance.shuffle(gathered)
    for one in gathered:
        if isinstance(one, Attempt):
            _report(story, chance, one, node)
        elif stop.held is None:
            world.deliver(stop, node=node)
        else:
            world.finish(node, "turn")
    if chance.random() < 0.3 and law.situation != "scheduled":
        resume = story.control(entity, "resume")
        world.deliver(resume, node=node)
    world.finish(node, *_DECIDED)


def _report(story: Story, chance: Random, attempt: Attempt, node: Node) -> None:
    """What came of an attempt reaches this executor."""
    world = story.world
    if attempt in world.queue.held and attempt not in world.queue.asking:
        fine = "ok" if world.queue.messages[attempt].purpose != "recovery" else "retry"
        world.work(attempt, fine if chance.random() < 0.6 else world.outcome(attempt))
        world.deliver(world.messages[-1], node=node)


def pause_told_again(story: Story, chance: Random) -> None:
    """The executor of a pause dies, or is thought dead, before it has taken everything back; another repeats the pause; and
    somebody resumes."""
    world = story.world
    world.rest()
    attempts = _going(story, chance, handed=world.queue.waiting)
    if not attempts:
        return
    node = chance.choice(world.alive)
    pause = story.control(attempts[0].execution, "pause")
    _decide(node, pause)
    _some_of(node, chance, "take back", "deliveries", "delete")
    resume = story.control(attempts[0].execution, "resume")
    _end_without_answer(story, chance, node, pause)
    for one in attempts:
        if one in world.queue.waiting and chance.random() < 0.5:
            world.hand_out(one)
    rival = chance.choice(world.alive)
    if pause in world.available:
        world.deliver(pause, node=rival)
    if resume in world.available:
        world.deliver(resume, node=chance.choice(world.alive))
    world.go_on(chance.randrange(20))


def late_before_early(story: Story, chance: Random) -> None:
    """Several executors get commands of one execution, the last one first."""
    world = story.world
    world.rest()
    attempts = _going(story, chance, handed=[*world.queue.waiting, *world.queue.held])
    if not attempts:
        return
    verbs = [chance.choice(["pause", "resume", "checkpoint", "cancel", "restore"]) for _ in range(chance.randrange(2, 5))]
    wishes = [story.some_control(attempts[0].execution, verb, chance) for verb in ["pause", *verbs]]
    for wish in reversed(wishes):
        node = chance.choice(world.alive)
        world.deliver(wish, node=node)
        _some_of(node, chance, *_DECIDED)


def grace_without_taking_back(story: Story, chance: Random) -> None:
    """An executor sets the timer of the grace, and dies before it takes back what waits; the grace ends before its message is
    told again."""
    world = story.world
    world.rest()
    attempts = _going(story, chance, handed=world.queue.waiting)
    if not attempts:
        return
    entity, node = attempts[0].execution, chance.choice(world.alive)
    cancel = story.cancel(entity)
    _decide(node, cancel)
    story.check()
    world.finish(node, "timer")
    grace = (entity, str(world.auditor.law(entity).grace))
    story.misfortune("crash", chance, of=node)
    if grace in world.timers:
        world.fire(grace)
        rival = chance.choice(world.alive)
        _decide(rival, world.messages[-1])


def snatched(story: Story, chance: Random) -> None:
    """A worker gets a dispatch in the very moment in which it is deleted: its handler goes on without a lease."""
    if _snatch(story, chance):
        _resume_it(story, chance)


def snatched_and_lost(story: Story, chance: Random) -> None:
    """As above, and the worker is lost, before somebody has resumed or when it was found to be at work."""
    if held := _snatch(story, chance):
        early = chance.random() < 0.5
        if early:
            story.misfortune("worker lost", chance, of=held[0])
        _resume_it(story, chance)
        if not early and held[0] in story.world.queue.held:
            story.misfortune("worker lost", chance, of=held[0])


def _snatch(story: Story, chance: Random) -> list[Attempt]:
    world = story.world
    world.rest()
    attempts = _going(story, chance, handed=world.queue.waiting)
    if not attempts:
        return []
    entity, node = attempts[0].execution, chance.choice(world.alive)
    _decide(node, story.control(entity, "pause"))
    world.finish(node, "take back")
    for asked in [one for one in node.operations if one.name.startswith("deliveries")]:
        world.advance(node, asked)
        world.advance(node, asked)
    for one in attempts:
        if one in world.queue.waiting:
            world.hand_out(one)
    world.finish(node)
    if chance.random() < 0.5:
        world.rest()
    if (entity, r.LOOK) in world.timers and chance.random() < 0.7:
        world.fire((entity, r.LOOK))
    return [one for one in attempts if one in world.queue.held and one in world.queue.withdrawn]


def _resume_it(story: Story, chance: Random) -> None:
    world = story.world
    story.check()
    for entity, law in world.auditor.laws.items():
        if law.paused:
            story.control(entity, "resume")
    if chance.random() < 0.7:
        world.rest()  # the workers are still at it
    world.go_on(chance.randrange(20))


CALM: list[Drama] = [in_one_commit, late_before_early, snatched]
"""Those in which nobody is lost."""
DRAMAS: list[Drama] = [*CALM, pause_told_again, grace_without_taking_back, snatched_and_lost]
