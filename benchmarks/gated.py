"""`gated`: executions per second of one step behind what executions share, against the same step behind nothing.

Nothing ever has to wait: what is measured is what asking costs, one commit of what is shared and the messages to it and back.
`cpu_us` is the processor time of all processes per execution, the server's included.
"""

from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.rounds import Options, share
from benchmarks.stack import Stack
from benchmarks.workloads import gated as kinds

_IN_FLIGHT = 200
_SLOTS = 100
_UNGATED = "none"


def gated(options: Options) -> dict[str, Any]:
    rounds = options.rounds or 3
    each = max((options.executions or 21_000) // rounds // len(kinds()), 50)
    per_s: dict[str, list[float]] = {kind: [] for kind in kinds()}
    cpu_us: dict[str, list[float]] = {kind: [] for kind in kinds()}
    with ExitStack() as exits:
        stack = Stack("engine", "w1", options.sync, _SLOTS, None, exits)
        stack.client.ask("flood", executions=400, concurrency=100)
        for number in range(rounds):
            for kind in [*per_s] if number % 2 == 0 else reversed([*per_s]):
                stack.client.ask("gate", kind=kind)
                stack.client.ask("flood", executions=50, concurrency=50)
                with stack.cost() as costs:
                    seconds = stack.client.ask("flood", executions=each, concurrency=_IN_FLIGHT)
                per_s[kind].append(each / seconds)
                cpu_us[kind].append(sum(share(costs[0], each).cpu_us.values()))
    ratios, cpu_ratios = _to_ungated(per_s), _to_ungated(cpu_us)
    return {
        "w": "gated",
        "sync": options.sync,
        "per_s": round(median(per_s[_UNGATED])),
        "cpu_us": round(median(cpu_us[_UNGATED])),
        "gated": {
            kind: {
                "per_s": round(median(per_s[kind])),
                "ratio": round(ratios[kind], 2),
                "cpu_us": round(median(cpu_us[kind])),
                "cpu_ratio": round(cpu_ratios[kind], 2),
            }
            for kind in per_s
            if kind != _UNGATED
        },
        "ratio": round(min(ratios.values()), 3),
        "executions": each * rounds * len(per_s),
        "rounds": rounds,
    }


def _to_ungated(found: dict[str, list[float]]) -> dict[str, float]:
    return {
        kind: median(one / ungated for one, ungated in zip(each, found[_UNGATED], strict=True)) for kind, each in found.items()
    }
