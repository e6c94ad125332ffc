"""Plans by chance, always the same for the same seed: 5 to 20 steps, in a row, side by side, or a mix of both."""

import random
from dataclasses import dataclass
from typing import Any

import esexec


@dataclass
class Trial:
    """An execution to start. `ends`: how it may end. `cancel_after`: seconds until it is cancelled."""

    number: int
    plan: esexec.Plan
    options: dict[str, Any]
    ends: frozenset[str]
    cancel_after: float | None = None
    twice: bool = False
    """Started by two clients at once, with one idempotency key."""


def trial(rng: random.Random, number: int, slowest_ms: int = 500) -> Trial:
    """One execution."""
    count = rng.randint(5, 20)
    shape = rng.choice(["row", "fan", "mix"])
    goes_on = rng.random() < 0.3
    hopeless = {rng.randrange(count)} if rng.random() < (0.6 if goes_on else 0.1) else set()
    steps = [_step(rng, index, shape, index in hopeless, slowest_ms) for index in range(count)]
    plan = esexec.Plan(f"trial-{number}", steps=steps)
    options: dict[str, Any] = {
        "max_retries": 6,
        "initial_retry_delay": rng.choice([0.02, 0.2, 1.2]),
        "parallel_execution_limit": rng.choice([2, 5, 10]),
        "continue_on_error": goes_on,
    }
    if rng.random() < 0.2:
        options["idempotency_key"] = f"order-{number}"
    trial = Trial(number, plan, options, frozenset({"failed"} if hopeless else {"completed"}))
    if rng.random() < 0.12:
        trial.cancel_after = rng.uniform(0, 8)
        trial.ends |= {"cancelled"}
    trial.twice = "idempotency_key" in options and rng.random() < 0.5
    return trial


def _step(rng: random.Random, index: int, shape: str, hopeless: bool, slowest_ms: int) -> esexec.Step:
    earlier = [f"s{number}" for number in range(index)]
    if shape == "row":
        needs = earlier[-1:]
    elif shape == "fan":
        needs = earlier[:1]
    else:
        needs = rng.sample(earlier, min(len(earlier), rng.randint(0, 3)))
    referred = [need for need in needs if rng.random() < 0.5]
    fails = rng.choice([0, 0, 0, 0, 1, 2])
    return esexec.Step(
        rng.choice(["work", "work", "work_sync"]),
        id=f"s{index}",
        params={
            "ms": rng.randint(0, slowest_ms),
            "fail_first": fails,
            "hopeless": hopeless,
            "before": [f"${{steps.{need}.output}}" for need in referred],
        },
        depends_on=needs,
        parallel=shape != "row",
    )
