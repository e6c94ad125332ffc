"""Executions by chance, always the same for the same seed, that share: rate limits, concurrency keys, resources, and mixes."""

import random
from typing import Any, Final

import esexec
from tests.chaos.plans import Trial

POOLS: Final = (
    esexec.ResourcePool("rack-1", "gpu", 3, cost_per_unit_second=1.0),
    esexec.ResourcePool("rack-2", "gpu", 2),
    esexec.ResourcePool("desk", "licence", 2),
)
KINDS: Final = ("rate", "rate", "steps", "executions", "queue", "skip", "replace", "resources", "resources", "mix", "mix")


def gated_trial(rng: random.Random, number: int) -> Trial:
    """One execution."""
    kind = KINDS[number % len(KINDS)]
    count = rng.randint(1, 5)
    shape = rng.choice(["row", "fan"])
    steps = [_step(rng, kind, index, shape) for index in range(count)]
    concurrency: Any = None
    ends = {"completed"}
    match kind:
        case "executions":
            concurrency = esexec.Key(f"tenant-{rng.randrange(4)}", limit=2, total=5, scope="tenants")
        case "queue" | "skip" | "replace":
            concurrency = esexec.Key.singleton(f"only-{rng.randrange(3)}", kind, scope=kind)
            ends |= set() if kind == "queue" else {"cancelled"}
    plan = esexec.Plan(f"gated-{number}", steps=steps, concurrency=concurrency)
    options: dict[str, Any] = {
        "max_retries": 6,
        "initial_retry_delay": rng.choice([0.02, 0.2]),
        "parallel_execution_limit": rng.choice([2, 5]),
        "priority": rng.randint(0, 10),
    }
    trial = Trial(number, plan, options, frozenset(ends))
    if rng.random() < 0.15:
        trial.cancel_after = rng.uniform(0, 6)
        trial.ends |= {"cancelled"}
    return trial


def _step(rng: random.Random, kind: str, index: int, shape: str) -> esexec.Step:
    more: dict[str, Any] = {}
    if kind in ("rate", "mix"):
        more["rate_limit"] = rng.choice(
            [
                {"max_executions": 8, "window": "1s", "key": "mail"},
                {"max_executions": 3, "window": "300ms", "key": "sms"},
            ]
        )
    if kind == "steps" or (kind == "mix" and rng.random() < 0.5):
        more["concurrency"] = esexec.Key(f"account-{rng.randrange(3)}", limit=2, scope="accounts")
    if kind == "resources" or (kind == "mix" and rng.random() < 0.5):
        more["resources"] = rng.choice([{"gpu": 1}, {"gpu": 2}, {"gpu": 1, "licence": 1}, {"licence": 2}])
    needs = [f"s{index - 1}"] if index and shape == "row" else []
    params = {"ms": rng.randint(0, 300), "fail_first": rng.choice([0, 0, 0, 1])}
    return esexec.Step("work", id=f"s{index}", params=params, depends_on=needs, parallel=shape == "fan", **more)
