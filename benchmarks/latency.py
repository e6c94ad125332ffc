"""W2: ms per sequential step. W3: ms of a fan-out and back. W4: ms from submission to the handler, and back, on an idle system.

One execution at a time. "Per step" is an execution's time from submission to its end, divided by its steps.
"""

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from benchmarks.rounds import Options, Pair, Round, by_turns, pair_of_stacks, percentile, share, traffic
from benchmarks.stack import Stack
from benchmarks.workloads import CHAIN, FAN

_PAUSE_S = 0.01
Single = tuple[str, int, int]
"""An execution: its id, when it was submitted, when its end was known (ns)."""


class _Measured(NamedTuple):
    ms: list[float]
    round: Round


def _measure(executions: int, pause_s: float, ms: Callable[[Single], float]) -> Callable[[Stack], _Measured]:
    def measure(stack: Stack) -> _Measured:
        with stack.cost() as costs:
            done = stack.client.ask("single", executions=executions, pause_s=pause_s)
        return _Measured([ms(one) for one in done], share(costs[0], executions))

    return measure


def _duration_ms(one: Single) -> float:
    return (one[2] - one[1]) / 1e6


def _figures(name: str, options: Options, pairs: list[Pair[_Measured]]) -> dict[str, Any]:
    engine = [value for pair in pairs for value in pair.engine.ms]
    raw = [value for pair in pairs for value in pair.raw.ms]
    ratios = [median(pair.engine.ms) / median(pair.raw.ms) for pair in pairs]
    return {
        "w": name,
        "sync": options.sync,
        "ms_p50": round(median(engine), 3),
        "ms_p99": round(percentile(engine, 0.99), 3),
        "raw_ms_p50": round(median(raw), 3),
        "raw_ms_p99": round(percentile(raw, 0.99), 3),
        "ratio": round(median(ratios), 3),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "executions": len(engine),
        "rounds": len(pairs),
        **traffic([Pair(pair.engine.round, pair.raw.round) for pair in pairs]),
    }


def w2(options: Options) -> dict[str, Any]:
    rounds = options.rounds or 6
    each = max((options.executions or 60) // rounds, 1)
    with pair_of_stacks("w2", options.sync, warm_up=20) as stacks:
        pairs = by_turns(stacks, rounds, _measure(each, 0, lambda one: _duration_ms(one) / CHAIN))
    return _figures("w2", options, pairs)


def w3(options: Options) -> dict[str, Any]:
    rounds = options.rounds or 6
    each = max((options.executions or 30) // rounds, 1)
    with pair_of_stacks("w3", options.sync, slots=FAN, recorded=5, warm_up=10) as stacks:
        pairs = by_turns(stacks, rounds, _measure(each, _PAUSE_S, _duration_ms))
    return _figures("w3", options, pairs)


def w4(options: Options) -> dict[str, Any]:
    rounds = options.rounds or 5
    each = max((options.executions or 300) // rounds, 1)
    round_trips: list[Pair[_Measured]]
    with pair_of_stacks("w4", options.sync, warm_up=50) as stacks:
        ids: dict[Stack, list[Single]] = {stacks.engine: [], stacks.raw: []}

        def measure(stack: Stack) -> _Measured:
            with stack.cost() as costs:
                done = stack.client.ask("single", executions=each, pause_s=_PAUSE_S)
            ids[stack] += done
            return _Measured([_duration_ms(one) for one in done], share(costs[0], each))

        round_trips = by_turns(stacks, rounds, measure)
        stamps = {stacks.engine: stacks.engine.client.ask("stamps"), stacks.raw: stacks.raw.worker.ask("stamps")}
        first_lines = {
            stack: [(stamps[stack][execution] - submitted) / 1e6 for execution, submitted, _ in done]
            for stack, done in ids.items()
        }
    pairs = [
        Pair(
            _Measured(first_lines[stacks.engine][start : start + each], pair.engine.round),
            _Measured(first_lines[stacks.raw][start : start + each], pair.raw.round),
        )
        for start, pair in zip(range(0, each * rounds, each), round_trips, strict=True)
    ]
    back = _figures("w4", options, round_trips)
    keys = ("ms_p50", "ms_p99", "raw_ms_p50", "raw_ms_p99", "ratio")
    return _figures("w4", options, pairs) | {f"round_trip_{key}": back[key] for key in keys}
