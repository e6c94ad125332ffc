"""Whole random stories, each from one number."""

from collections.abc import Callable
from random import Random

from tests.simulation.dramas import CALM, DRAMAS, Drama
from tests.simulation.plans import PLANS, STRATEGIES
from tests.simulation.story import FAULTS, HARMLESS, Story, small_world
from tests.simulation.world import World

CONTROLS = [
    "cancel",
    "pause",
    "pause",
    "resume",
    "retry",
    "retry step",
    "retry as_new",
    "rollback",
    "checkpoint",
    "checkpoint",
    "restore",
    "restore unknown",
]


def tell(seed: int, *, sizes: list[int], faults: bool, room: int = 500, length: int = 60) -> Story:
    """A whole random story, from one number."""
    chance = Random(seed)
    with small_world(room):
        world = World(sizes, seed)
        story = Story(world)
        clients = _clients(story, chance, DRAMAS if faults else CALM)
        try:
            if seed % 3:
                story.prepare(chance.randrange(len(STRATEGIES) + 1))
            for execution in ("e0", "e1"):
                story.start(execution, chance.randrange(len(PLANS)))
            for _ in range(length):
                dice = chance.random()
                if dice < 0.3:
                    chance.choice(clients)()
                elif dice < 0.45:
                    story.misfortune(chance.choice(HARMLESS + FAULTS if faults else HARMLESS), chance)
                else:
                    world.go_on(chance.randrange(1, 8))
                story.check()
            story.end()
        finally:
            world.close()
    return story


def _clients(story: Story, chance: Random, dramas: list[Drama]) -> list[Callable[[], object]]:
    """What clients may do at any time."""
    world = story.world

    def plan() -> int:
        return chance.randrange(len(PLANS))

    def somewhere() -> str:
        """An execution, each situation being as likely as any other."""
        known = sorted(world.auditor.laws.items())
        one_of_each = {law.situation: entity for entity, law in chance.sample(known, len(known))}
        return chance.choice([*one_of_each.values(), "e9"])

    def wish(execution: str) -> None:
        law = world.auditor.law(execution)
        if law.situation == "partial" and law.checkpoints and chance.random() < 0.5:
            story.some_control(execution, "restore", chance)
            return
        often = {
            "restore": bool(law.checkpoints),
            "pause": law.situation == "rolling_back",
            "retry step": law.situation == "failing",
        }
        verbs = [verb for verb, fits in often.items() if fits and chance.random() < 0.2]
        story.some_control(execution, verbs[0] if verbs else chance.choice(CONTROLS), chance)

    def spree() -> None:
        """Wishes one after the other while nothing else happens, so that each meets the execution as the client saw it."""
        world.rest()
        execution = somewhere()
        for _ in range(chance.randrange(1, 4)):
            wish(execution)
            world.rest()

    def rivals() -> None:
        """Clients want different things of the same execution, all at once."""
        execution = somewhere()
        for _ in range(chance.randrange(1, 4)):
            wish(execution)

    def in_time() -> None:
        execution = f"e{chance.randrange(6)}"
        story.start_in_time(execution, plan(), chance)
        if chance.random() < 0.5:
            world.rest()
            wish(execution)
            world.rest()
            wish(execution)

    return [
        lambda: story.start(f"e{chance.randrange(5)}", plan()),
        lambda: story.start(f"e{chance.randrange(5)}", chance.randrange(2), f"k{chance.randrange(2)}"),
        in_time,
        in_time,
        lambda: story.start_badly(f"e{chance.randrange(3)}"),
        lambda: story.put_plan(chance.randrange(3)),
        lambda: story.start_kept(f"e{chance.randrange(5)}", chance.randrange(3)),
        lambda: story.configure(chance.randrange(3)),
        lambda: story.announce(chance.choice([None, "a", "b"])),
        lambda: story.strategy(chance.randrange(2 * len(STRATEGIES))),
        *[spree] * 5,
        *[rivals] * 5,
        *[lambda: chance.choice(dramas)(story, chance)] * 4,
    ]
