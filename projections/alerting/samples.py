"""What somebody looked at, for it is in no history: a worker at its machine, the projections at queues and at themselves."""

import msgspec

from esexec.domain import limits
from esexec.domain.messages import WorkerSample

STALE_MS = 15_000
"""What was not heard of for so long is not known any more. Samples come every 5 s."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """`source`: the worker, queue or projection. `executions`: what a worker is at, as far as it says."""

    metric: str
    source: str
    value: float
    executions: frozenset[str] = frozenset()


def samples_of(told: WorkerSample) -> list[Sample]:
    """What a worker says of itself, one by one."""
    at = frozenset(told.executions)
    values = {"cpu_usage": told.cpu_usage, "memory_usage": told.memory_usage}
    name = told.worker[: limits.name_chars]
    return [Sample(metric=metric, source=name, value=value, executions=at) for metric, value in values.items()]
