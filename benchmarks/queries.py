"""`queries`: ms from a question to its answer, over NATS, with the views of 100,000 executions in an SQLite file.

One question at a time, asked by a process of its own. Each kind goes round over other customers and statuses, so that no
answer is asked for twice in a row.
"""

import asyncio
import tempfile
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import past
from benchmarks.processes import Process
from benchmarks.rounds import Options, percentile
from benchmarks.stack import Stack

_TIMES = 400
_DEEP = 0.7
"""So far down the list, of all, the deep cursor is."""
STATUSES: Final = ("completed", "failed", "running")
Question = tuple[str, list[dict[str, Any]]]
"""What is asked, as `Asker` names it, and with which conditions, one after the other."""


def queries(options: Options) -> dict[str, Any]:
    executions = options.executions or 100_000
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="esexec-bench-")))
        stack = Stack("engine", "w1", options.sync, 100, None, exits)
        samples = asyncio.run(past.record(stack.server.url))
        stack.end("client", "worker", "executor")
        asyncio.run(past.write(stack.server.url, samples, executions))
        keeper, asker = stack.reader("projector"), stack.reader("asker")
        begun = time.monotonic()
        keeper.ask("open", where=str(folder / "views"), only=["executions", "statistics"])
        keeper.ask("catch up")
        seconds = time.monotonic() - begun
        asked = {name: _asked(asker, *question) for name, question in _questions(asker, executions).items()}
    return {
        "w": "queries",
        "sync": options.sync,
        "ms_p50": max(one["ms_p50"] for name, one in asked.items() if name != "page"),
        "asked": asked,
        "executions": executions,
        "seconds_to_catch_up": round(seconds, 1),
    }


def _questions(asker: Process, executions: int) -> dict[str, Question]:
    deep = asker.ask("cursor", pages=max(1, int(executions * _DEEP) // 1000))
    statuses: list[dict[str, Any]] = [{"status": status} for status in STATUSES]
    regions: list[dict[str, Any]] = [{"metadata": {"region": f"r{number}"}} for number in range(past.REGIONS)]
    customers = [{"metadata": {"customer": f"c{number}"}} for number in range(0, past.CUSTOMERS, 7)]
    both = [{"metadata": one["metadata"] | other["metadata"]} for one, other in product(customers, regions)]
    filtered = [status | where for where, status in product(regions, statuses)]
    return {
        "status": ("executions", statuses),
        "metadata": ("executions", customers),
        "status+metadata": ("executions", filtered),
        "status+2 metadata": ("executions", [{"status": "completed"} | where for where in both]),
        "deep cursor": ("executions", [{"cursor": deep}]),
        "status+metadata+deep cursor": ("executions", [one | {"cursor": deep} for one in filtered]),
        "page": ("executions", [{"limit": 1000}, {"limit": 1000, "cursor": deep}]),
        "tasks": ("tasks", [{"status": "failed"}, {"name": "flaky"}, {"status": "completed", "cursor": f"{deep}.0"}]),
        "tasks of one": ("tasks", [{"execution_id": f"past-{number}"} for number in range(0, executions, 97)]),
        "stats": ("stats", [{}, {"name": "noop"}, {"name": "order"}]),
        "get": ("get", [{"execution_id": f"past-{number}"} for number in range(0, executions, 97)]),
    }


def _asked(asker: Process, model: str, each: list[dict[str, Any]]) -> dict[str, Any]:
    asker.ask("ask", model=model, each=each, times=20)
    found = asker.ask("ask", model=model, each=each, times=_TIMES)
    ms = found["ms"]
    return {"ms_p50": round(median(ms), 2), "ms_p99": round(percentile(ms, 0.99), 2), "items": found["items"]}
