"""`load`: what projections cost those whose executions they follow: ms of executions offered at a steady pace, and throughput at
saturation, without and with all projections in a process beside; how far these lag behind, and how long they take to catch up.

Without and with take turns, on one engine.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Generic, NamedTuple, TypeVar

from benchmarks.catchup import ALL
from benchmarks.processes import Process, cpu_s
from benchmarks.rounds import Options, percentile
from benchmarks.stack import Stack

PER_S = 1_000
_IN_FLIGHT = 200


T = TypeVar("T")


class _Both(NamedTuple, Generic[T]):
    """What was measured without projections, and with them there."""

    without: T
    there: T


class _Paced(NamedTuple):
    ms: list[float]
    lags: list[tuple[float, int]]
    cpu_us: float
    """Of the projections' process, per execution."""


class _Flooded(NamedTuple):
    per_s: float
    lag: int
    catch_up_s: float


def load(options: Options) -> dict[str, Any]:
    rounds = options.rounds or 3
    paced_each = max((options.executions or 24_000) // 2 // rounds, 100)
    flooded_each = max((options.executions or 24_000) // 2 // rounds, 100)
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="esexec-bench-")))
        stack = Stack("engine", "w1", options.sync, 100, None, exits)
        keeper = stack.reader("projector")
        stack.client.ask("flood", executions=400, concurrency=100)
        where = str(folder / "views")
        with _projecting(keeper, where):
            keeper.ask("catch up")
        paced = [_by_turns(number, stack, keeper, where, _paced, paced_each) for number in range(rounds)]
        flooded = [_by_turns(number, stack, keeper, where, _flooded, flooded_each) for number in range(rounds)]
    return _figures(options, rounds, paced, flooded)


def _by_turns(
    number: int, stack: Stack, keeper: Process, where: str, measure: Callable[[Stack, Process | None, int], T], executions: int
) -> _Both[T]:
    """Without and with, or the other way round."""

    def with_them() -> T:
        with _projecting(keeper, where):
            return measure(stack, keeper, executions)

    if number % 2:
        there = with_them()
        return _Both(measure(stack, None, executions), there)
    without = measure(stack, None, executions)
    return _Both(without, with_them())


@contextmanager
def _projecting(keeper: Process, where: str) -> Iterator[None]:
    """All projections work, and are up to date at the beginning."""
    keeper.ask("open", where=where, only=ALL)
    keeper.ask("catch up")
    try:
        yield
    finally:
        keeper.ask("close")


def _paced(stack: Stack, keeper: Process | None, executions: int) -> _Paced:
    stack.client.ask("paced", executions=PER_S // 4, per_s=PER_S)
    if keeper is None:
        return _Paced(stack.client.ask("paced", executions=executions, per_s=PER_S), [], 0)
    keeper.ask("watch")
    before = cpu_s(keeper.pid)
    ms = stack.client.ask("paced", executions=executions, per_s=PER_S)
    used = cpu_s(keeper.pid) - before
    return _Paced(ms, [(lag[0], lag[1]) for lag in keeper.ask("watched")], used / executions * 1e6)


def _flooded(stack: Stack, keeper: Process | None, executions: int) -> _Flooded:
    if keeper is None:
        return _Flooded(executions / stack.client.ask("flood", executions=executions, concurrency=_IN_FLIGHT), 0, 0)
    keeper.ask("watch")
    seconds = stack.client.ask("flood", executions=executions, concurrency=_IN_FLIGHT)
    caught_up = keeper.ask("reach")
    lags = keeper.ask("watched")
    return _Flooded(executions / seconds, max(lag[1] for lag in lags), caught_up)


def _figures(options: Options, rounds: int, paced: list[_Both[_Paced]], flooded: list[_Both[_Flooded]]) -> dict[str, Any]:
    without = [ms for both in paced for ms in both.without.ms]
    there = [ms for both in paced for ms in both.there.ms]
    waits_s = [lag[0] for both in paced for lag in both.there.lags]
    ratios = [median(both.there.ms) / median(both.without.ms) for both in paced]
    return {
        "w": "load",
        "sync": options.sync,
        "offered_per_s": PER_S,
        "ms_p50": round(median(there), 2),
        "ms_p99": round(percentile(there, 0.99), 2),
        "without_ms_p50": round(median(without), 2),
        "without_ms_p99": round(percentile(without, 0.99), 2),
        "ratio": round(median(ratios), 3),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "lag_s_p50": round(median(waits_s), 3),
        "lag_s_max": round(max(waits_s), 3),
        "cpu_us": round(median(both.there.cpu_us for both in paced)),
        "per_s": round(median(both.there.per_s for both in flooded)),
        "without_per_s": round(median(both.without.per_s for both in flooded)),
        "saturated_ratio": round(median(both.there.per_s / both.without.per_s for both in flooded), 3),
        "commits_behind": max(both.there.lag for both in flooded),
        "catch_up_s": round(max(both.there.catch_up_s for both in flooded), 2),
        "executions": len(there) + len(without),
        "rounds": rounds,
    }
