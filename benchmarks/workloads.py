"""What one execution of each workload is."""

from typing import Any, Final

import esexec
from benchmarks.tasks import noop, stamp

CHAIN: Final = 20
"""Steps of W2."""
FAN: Final = 200
"""Parallel steps of W3."""


def chain() -> esexec.Plan:
    """W2: steps one after the other."""
    steps: list[esexec.Step] = []
    for i in range(CHAIN):
        steps.append(esexec.Step(noop, id=f"s{i:02}", depends_on=steps[-1:]))
    return esexec.Plan("chain", steps=steps)


def fan() -> esexec.Plan:
    """W3: one step, then many side by side, then one."""
    many = [esexec.Step(noop, id=f"m{i:03}", depends_on=["first"], parallel=True) for i in range(FAN)]
    last = esexec.Step(noop, id="last", depends_on=many)
    return esexec.Plan("fan", steps=[esexec.Step(noop, id="first"), *many, last], parallel_execution_limit=FAN)


SPREAD: Final = 16
"""So many different keys the executions of a gated kind have, where they have several."""
POOL: Final = esexec.ResourcePool("bench", "unit", 10_000)


def gated() -> dict[str, esexec.Plan]:
    """By its kind: one step that does nothing, behind something that executions share and that never makes it wait."""

    def one(**what: Any) -> esexec.Plan:
        of_execution = {"concurrency": what.pop("execution")} if "execution" in what else {}
        return esexec.Plan("gated", steps=[esexec.Step(noop, id="noop", **what)], **of_execution)

    most = {"max_executions": 10_000, "window": "1s"}
    return {
        "none": one(),
        "rate limit": one(rate_limit=most | {"key": "one"}),
        "rate limit, many keys": one(rate_limit=most | {"key": "${input.key}"}),
        "concurrency of steps": one(concurrency=esexec.Key("one", limit=1_000)),
        "concurrency of executions": one(execution=esexec.Key("one", limit=1_000)),
        "concurrency of executions, many keys": one(execution=esexec.Key("input.key", limit=1_000)),
        "resources": one(resources={"unit": 1}),
    }


def startable(workload: str) -> esexec.Plan | str:
    """What to start for a workload: a plan, or one task."""
    match workload:
        case "w2":
            return chain()
        case "w3":
            return fan()
        case "w4":
            return stamp.name
        case _:
            return noop.name
