"""W1: single-step executions per second, 200 in flight, one worker with 100 slots, every result awaited."""

from statistics import median
from typing import Any, NamedTuple

from benchmarks.rounds import Options, Round, by_turns, pair_of_stacks, share, traffic
from benchmarks.rounds import Pair as Pair
from benchmarks.stack import Stack

_IN_FLIGHT = 200
_SLOTS = 100


class _Measured(NamedTuple):
    per_s: float
    round: Round


def w1(options: Options) -> dict[str, Any]:
    executions = options.executions or (2000 if options.sync == "always" else 8000)
    rounds = options.rounds or 8
    each = max(executions // rounds, 1)

    def measure(stack: Stack) -> _Measured:
        with stack.cost() as costs:
            seconds = stack.client.ask("flood", executions=each, concurrency=_IN_FLIGHT)
        return _Measured(each / seconds, share(costs[0], each))

    with pair_of_stacks("w1", options.sync, slots=_SLOTS, warm_up=400) as stacks:
        pairs = by_turns(stacks, rounds, measure)
    return {
        "w": "w1",
        "sync": options.sync,
        "per_s": round(median(pair.engine.per_s for pair in pairs)),
        "raw_per_s": round(median(pair.raw.per_s for pair in pairs)),
        "ratio": round(median(pair.engine.per_s / pair.raw.per_s for pair in pairs), 3),
        "ratios": [round(pair.engine.per_s / pair.raw.per_s, 2) for pair in pairs],
        "executions": each * rounds,
        "rounds": rounds,
        **traffic([Pair(pair.engine.round, pair.raw.round) for pair in pairs]),
    }
