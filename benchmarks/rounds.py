"""Engine and raw by turns, A B B A …, so that whatever else the machine does meets both alike."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Generic, NamedTuple, TypeVar

from benchmarks.server import Sync
from benchmarks.stack import Cost, Stack

T = TypeVar("T")


class Options(NamedTuple):
    """`executions`: of the engine, over all rounds (None: the workload's own number)."""

    sync: Sync
    executions: int | None = None
    rounds: int | None = None
    raw: bool = True


class Pair(NamedTuple, Generic[T]):
    """One round of each."""

    engine: T
    raw: T


class Round(NamedTuple):
    """Per execution: messages and bytes through the server, and processor time in µs by process."""

    messages: float
    bytes: float
    cpu_us: dict[str, float]


@contextlib.contextmanager
def pair_of_stacks(workload: str, sync: Sync, *, slots: int = 100, recorded: int = 1, warm_up: int = 0) -> Iterator[Pair[Stack]]:
    """Both stacks, warm. Raw replays the one of `recorded` executions that has the median number of commits."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="esexec-bench-")))
        engine = Stack("engine", workload, sync, slots, None, stack)
        engine.client.ask("flood", executions=max(warm_up, 5), concurrency=1 if warm_up < 100 else 100)
        engine.client.ask("capture", path=str(folder / "script.json"), times=recorded)
        raw = Stack("raw", workload, sync, slots, folder / "script.json", stack)
        raw.client.ask("flood", executions=max(warm_up, 5), concurrency=1 if warm_up < 100 else 100)
        yield Pair(engine, raw)


def by_turns(stacks: Pair[Stack], rounds: int, measure: Callable[[Stack], T]) -> list[Pair[T]]:
    """`measure` on both, `rounds` times; which comes first alternates."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            raw = measure(stacks.raw)
            pairs.append(Pair(measure(stacks.engine), raw))
        else:
            engine = measure(stacks.engine)
            pairs.append(Pair(engine, measure(stacks.raw)))
    return pairs


def share(cost: Cost, executions: int) -> Round:
    """A cost per execution."""
    cpu_us = {role: seconds / executions * 1e6 for role, seconds in cost.cpu_s.items()}
    return Round(cost.messages / executions, cost.bytes / executions, cpu_us)


def traffic(pairs: list[Pair[Round]]) -> dict[str, object]:
    """The figures that show that both moved the same messages, and what each process worked for them."""
    found: dict[str, object] = {}
    for kind in ("engine", "raw"):
        prefix = "raw_" if kind == "raw" else ""
        rounds: list[Round] = [getattr(pair, kind) for pair in pairs]
        found[f"{prefix}messages_per_execution"] = round(median(one.messages for one in rounds), 2)
        found[f"{prefix}bytes_per_execution"] = round(median(one.bytes for one in rounds))
    engine, raw = found["messages_per_execution"], found["raw_messages_per_execution"]
    bytes_, raw_bytes = found["bytes_per_execution"], found["raw_bytes_per_execution"]
    found["same_messages"] = _alike(engine, raw) and _alike(bytes_, raw_bytes)
    for kind in ("engine", "raw"):
        prefix = "raw_" if kind == "raw" else ""
        rounds = [getattr(pair, kind) for pair in pairs]
        found[f"{prefix}cpu_us"] = {role: round(median(one.cpu_us[role] for one in rounds)) for role in rounds[0].cpu_us}
    return found


def _alike(one: object, other: object) -> bool:
    assert isinstance(one, int | float)
    assert isinstance(other, int | float)
    return abs(one - other) <= 0.02 * max(one, other)


def percentile(values: list[float], share_below: float) -> float:
    """The value that so great a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share_below))]
