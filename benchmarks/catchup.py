"""`catchup`: events per second of projections that catch up on an empty SQLite file with a log of many executions."""

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import past
from benchmarks.processes import cpu_s
from benchmarks.rounds import Options
from benchmarks.stack import Stack
from projections.role import BUILT_IN

ALL: list[str] = []
"""What `only` is for all projections."""


def catchup(options: Options) -> dict[str, Any]:
    executions, rounds = options.executions or 20_000, options.rounds or 2
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="esexec-bench-")))
        stack = Stack("engine", "w1", options.sync, 100, None, exits)
        samples = asyncio.run(past.record(stack.server.url))
        stack.end("client", "worker", "executor")
        written = asyncio.run(past.write(stack.server.url, samples, executions))
        alone, together = [], []
        for number in range(rounds):
            alone.append(caught_up(stack, str(folder / f"alone-{number}"), ["executions"]))
            together.append(caught_up(stack, str(folder / f"all-{number}"), ALL))
    return {
        "w": "catchup",
        "sync": options.sync,
        "executions": written.executions,
        "commits": written.commits,
        "events": written.events,
        "rounds": rounds,
        "per_s": round(median(one["per_s"] for one in alone)),
        "cpu_us_per_event": round(median(one["cpu_us"] for one in alone), 1),
        "all_per_s": round(median(one["per_s"] for one in together)),
        "all_cpu_us_per_event": round(median(one["cpu_us"] for one in together), 1),
        "projections": len(BUILT_IN),
    }


def caught_up(stack: Stack, where: str, only: list[str]) -> dict[str, float]:
    """Events of the log per second, until the slowest of these projections has them in it, and processor µs for each."""
    process = stack.reader("projector")
    try:
        before = cpu_s(process.pid)
        process.ask("open", where=where, only=only)
        found = process.ask("catch up")
        used = cpu_s(process.pid) - before
        events = max(found["events"].values())
        process.ask("close")
        return {"per_s": events / found["seconds"], "cpu_us": used / events * 1e6}
    finally:
        process.close()
