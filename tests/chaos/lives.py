"""Lives by chance, always the same for the same seed: plans that fail, recover, fall back and are undone; and who meddles."""

import random
from dataclasses import dataclass, field
from typing import Any

import esexec

VERBS = ("pause", "resume", "checkpoint", "restore", "retry", "rollback", "cancel")


@dataclass
class Life:
    """An execution to start. `meddling`: when (seconds after its start) which verb is said, by whoever."""

    number: int
    plan: esexec.Plan
    options: dict[str, Any]
    meddling: list[tuple[float, str]] = field(default_factory=list)


def life(rng: random.Random, number: int, *, spread_s: float) -> Life:
    """One execution. What is said to it is spread over so many seconds."""
    count = rng.randint(3, 9)
    shape = rng.choice(["row", "row", "fan", "mix"])
    trouble = rng.choice(["none", "none", "hopeless", "hopeless", "advise", "advise", "partial", "deadline", "fallback"])
    at = rng.randrange(1, count)
    steps = [_step(rng, index, shape, trouble if index == at else "none", partial=trouble == "partial") for index in range(count)]
    plan = esexec.Plan(f"life-{number}", steps=steps)
    options: dict[str, Any] = {
        "max_retries": 4,
        "initial_retry_delay": rng.choice([0.02, 0.2, 1.1]),
        "parallel_execution_limit": rng.choice([1, 3, 10]),
    }
    if rng.random() < 0.4:
        options["checkpoint_every"] = "task"
    elif rng.random() < 0.3:
        options["checkpoint_interval"] = 0.3
    if trouble == "deadline":
        options["execution_timeout"] = rng.uniform(0.5, 4)
    if rng.random() < 0.1:
        options["delay"] = rng.uniform(0.1, 2)
    if rng.random() < 0.2:
        options |= {"continue_on_error": True, "enable_rollback": True}
    if rng.random() < 0.1:
        options["on_missing_compensation"] = "fail"
    meddling = []
    if rng.random() < 0.8:
        times = sorted(rng.uniform(0, spread_s) for _ in range(rng.randint(1, 8)))
        meddling = [(time, rng.choice(VERBS)) for time in times]
    return Life(number, plan, options, meddling)


def _step(rng: random.Random, index: int, shape: str, trouble: str, *, partial: bool) -> esexec.Step:
    earlier = [f"s{number}" for number in range(index)]
    if shape == "row":
        needs = earlier[-1:]
    elif shape == "fan":
        needs = earlier[:1]
    else:
        needs = rng.sample(earlier, min(len(earlier), rng.randint(0, 2)))
    params: dict[str, Any] = {"ms": rng.choice([0, 20, 200, 600, 1000]), "fail_first": rng.choice([0, 0, 0, 0, 1])}
    more: dict[str, Any] = {}
    if rng.random() < 0.3:
        params["image"] = True
    if rng.random() < 0.1:
        params["slow_first"] = 900
        more["timeout"] = 0.8
    if rng.random() < 0.1:
        more["queue_timeout"] = 1.5
    if partial and rng.random() < 0.3:
        params["undo_hopeless"] = True
    if trouble in ("hopeless", "partial"):
        params["hopeless"] = True
    elif trouble == "advise":
        params["advise"] = rng.choice(["retry", "skip", "fallback", "abort", "checkpoint_restore", "checkpoint_restore", "throw"])
        if params["advise"] == "fallback":
            more["fallback"] = "make_elsewhere"
    elif trouble == "fallback":
        params["hopeless"] = True
        more["fallback"] = "make_elsewhere"
    return esexec.Step("make", id=f"s{index}", params=params, depends_on=needs, parallel=shape != "row", **more)
