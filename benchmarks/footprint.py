"""W6: memory (proportional share, MB) of server, executor and worker, idle after 2000 executions of W1."""

import time
from contextlib import ExitStack
from typing import Any

from benchmarks.processes import pss_mb
from benchmarks.rounds import Options
from benchmarks.stack import Stack

_IDLE_S = 3.0


def w6(options: Options) -> dict[str, Any]:
    executions = options.executions or 2000
    with ExitStack() as stack:
        engine = Stack("engine", "w1", options.sync, 100, None, stack)
        engine.client.ask("flood", executions=executions, concurrency=200)
        time.sleep(_IDLE_S)
        found = {role: round(pss_mb(pid), 1) for role, pid in engine.pids.items() if role != "client"}
    return {"w": "w6", "sync": options.sync, "mb": round(sum(found.values()), 1), **found, "executions": executions}
