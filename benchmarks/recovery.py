"""W5: `kill -9` of the worker with 100 one-second executions in flight, restarted at once: seconds until all are done."""

import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.rounds import Options
from benchmarks.stack import Stack

_STARTED_S = 20.0


def w5(options: Options) -> dict[str, Any]:
    executions = options.executions or 100
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="esexec-bench-")))
        file = folder / "started"
        file.touch()
        engine = Stack("engine", "w5", options.sync, executions, None, stack)
        engine.client.ask("start seconds", executions=executions, file=str(file))
        give_up = time.monotonic() + _STARTED_S
        while len(file.read_text().split()) < executions:
            if time.monotonic() > give_up:
                raise RuntimeError("the executions did not start")
            time.sleep(0.005)
        killed = time.monotonic()
        engine.restart_worker()
        completed = engine.client.ask("wait for seconds")
        seconds = time.monotonic() - killed
        starts = Counter(file.read_text().split())
    return {
        "w": "w5",
        "sync": options.sync,
        "seconds": round(seconds, 2),
        "lost": executions - completed,
        "started_twice": sum(count > 1 for count in starts.values()),
        "executions": executions,
    }
