"""Deaths at chosen points: the process kills itself with SIGKILL, as nothing can be caught or flushed then.

Points of an executor: `loaded` a history, `decided` a commit, `appended` it (sent, perhaps not stored), about to `dispatch`
(stored, no effect), about to `ack` (all effects stand). Of a worker: about to `begin` a handler, about to `report` its
outcome, about to `ack` its dispatch (the report is stored). `POINT:N` dies at the N-th time.
"""

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from esexec.executor.envelope import Envelope
from esexec.executor.outbox import NatsOutbox
from esexec.log.jetstream import JetStreamLog
from esexec.worker.running import Runner
from esexec.worker.worker import Worker

EXECUTOR_POINTS = ("loaded", "decided", "appended", "dispatch", "ack")
WORKER_POINTS = ("begin", "report", "ack_dispatch")


def arm(point: str) -> None:
    """Die at this point."""
    name, _, number = point.partition(":")
    owner, method, after = {
        "loaded": (JetStreamLog, "load", True),
        "decided": (JetStreamLog, "append", False),
        "appended": (JetStreamLog, "append", True),
        "dispatch": (NatsOutbox, "dispatch", False),
        "ack": (Envelope, "ack", False),
        "begin": (Runner, "begin", False),
        "report": (Worker, "_report", False),
        "ack_dispatch": (Worker, "_acknowledge", False),
    }[name]
    _patch(owner, method, after=after, at=int(number or 1))


def _patch(owner: Any, method: str, *, after: bool, at: int) -> None:
    original: Callable[..., Awaitable[Any]] = getattr(owner, method)
    times = 0

    async def deadly(self: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal times
        if arguments and arguments[0] == "_settings":  # the announcement of tasks, which every start of a worker repeats
            return await original(self, *arguments, **more)
        times += 1
        if times >= at and not after:
            die()
        result = await original(self, *arguments, **more)
        if times >= at:
            if owner is JetStreamLog and method == "append":
                await self._connection.flush()
            die()
        return result

    setattr(owner, method, deadly)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
