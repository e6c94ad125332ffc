"""What one execution of each workload is."""

from typing import Final

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
