"""`load`: what projections cost those whose executions they follow: ms of executions offered at a steady pace, and throughput at
saturation, without projections, with those of read models in a process beside, and with the feed of events in it as well; how far
these lag behind, and how long they take to catch up. The three take turns, on one engine.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple, TypeVar

from benchmarks.catchup import ALL
from benchmarks.processes import Process, cpu_s
from benchmarks.rounds import Options, percentile
from benchmarks.stack import Stack
from projections.role import BUILT_IN

PER_S = 1_000
_IN_FLIGHT = 200


T = TypeVar("T")
VIEWS: Final = [kind.name for kind in BUILT_IN]
KINDS: Final[dict[str, list[str] | None]] = {"without": None, "views": VIEWS, "all": ALL}
"""What is beside the executions: nothing; the projections that keep read models; these and the feed of events."""


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
    rounds = options.rounds or 9
    each = max((options.executions or 108_000) // 2 // rounds // len(KINDS), 100)
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="esexec-bench-")))
        stack = Stack("engine", "w1", options.sync, 100, None, exits)
        keeper = stack.reader("projector")
        stack.client.ask("flood", executions=400, concurrency=100)
        where = str(folder / "views")
        paced = [_in_turn(number, stack, keeper, where, _paced, each) for number in range(rounds)]
        flooded = [_in_turn(number, stack, keeper, where, _flooded, each) for number in range(rounds)]
    return _figures(options, rounds, paced, flooded)


def _in_turn(
    number: int, stack: Stack, keeper: Process, where: str, measure: Callable[[Stack, Process | None, int], T], executions: int
) -> dict[str, T]:
    """Each kind once; each round begins with another."""
    found = {}
    order = [*KINDS]
    for kind in order[number % len(order) :] + order[: number % len(order)]:
        with _projecting(keeper, where, KINDS[kind]) as there:
            found[kind] = measure(stack, there, executions)
    return found


@contextmanager
def _projecting(keeper: Process, where: str, only: list[str] | None) -> Iterator[Process | None]:
    """These work, and are up to date at the beginning."""
    if only is None:
        yield None
        return
    keeper.ask("open", where=where, only=only)
    keeper.ask("catch up")
    try:
        yield keeper
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


def _figures(options: Options, rounds: int, paced: list[dict[str, _Paced]], flooded: list[dict[str, _Flooded]]) -> dict[str, Any]:
    ms = {kind: [one for each in paced for one in each[kind].ms] for kind in KINDS}
    waits_s = [lag[0] for each in paced for lag in each["all"].lags]
    ratios = {kind: [median(each[kind].ms) / median(each["without"].ms) for each in paced] for kind in KINDS}
    return {
        "w": "load",
        "sync": options.sync,
        "offered_per_s": PER_S,
        **{f"{kind}_ms_p50": round(median(ms[kind]), 2) for kind in KINDS},
        **{f"{kind}_ms_p99": round(percentile(ms[kind], 0.99), 2) for kind in KINDS},
        "ratio": round(median(ratios["all"]), 3),
        "ratios": [round(ratio, 2) for ratio in ratios["all"]],
        "views_ratio": round(median(ratios["views"]), 3),
        "lag_s_p50": round(median(waits_s), 3),
        "lag_s_max": round(max(waits_s), 3),
        "cpu_us": round(median(each["all"].cpu_us for each in paced)),
        "views_cpu_us": round(median(each["views"].cpu_us for each in paced)),
        **{f"{kind}_per_s": round(median(each[kind].per_s for each in flooded)) for kind in KINDS},
        "saturated_ratio": round(median(each["all"].per_s / each["without"].per_s for each in flooded), 3),
        "commits_behind": max(each["all"].lag for each in flooded),
        "catch_up_s": round(max(each["all"].catch_up_s for each in flooded), 2),
        "executions": sum(map(len, ms.values())),
        "rounds": rounds,
    }
