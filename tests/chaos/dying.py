"""Deaths at chosen points: the process kills itself with SIGKILL, as nothing can be caught or flushed then.

Points of an executor: `loaded` a history, `decided` a commit, `appended` it (sent, perhaps not stored), about to `dispatch`
(stored, no effect), about to `continue` a decision that was too large for a commit, or having `continued` it (sent, perhaps not
stored), about to `ack` (all effects stand). Of a worker: about to `begin` a handler, about to `report` its
outcome, about to `ack` its dispatch (the report is stored). Of projections: once a page is `read`, once its rows are
`processed` and once its position is `tracked`, both in the open transaction, and once that is `committed`, before anything
else. `POINT:N` dies at the N-th time.

`effects/TYPE/K`: at the first commit that holds an event of this type, before its effect K (from 0) is carried out, those before
it having been sent; with K `last` when all of them stand, before any message is let go.
"""

import asyncio
import inspect
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from esexec.domain.events import type_of
from esexec.executor.desk import Desk
from esexec.executor.envelope import Envelope
from esexec.executor.mailbox import Batch, Mailbox
from esexec.executor.outbox import NatsOutbox
from esexec.log.jetstream import JetStreamLog
from esexec.worker.running import Runner
from esexec.worker.worker import Worker
from projections import runner as projecting
from projections.source import JetStreamSource
from projections.sqlite import SqliteView

EXECUTOR_POINTS = ("loaded", "decided", "appended", "dispatch", "ack")
WORKER_POINTS = ("begin", "report", "ack_dispatch")
PROJECTION_POINTS = ("read", "processed", "tracked", "committed")


def arm(point: str) -> None:
    """Die at this point."""
    if point.startswith("effects/"):
        _, kind, number = point.split("/")
        _arm_effects(kind, number)
        return
    name, _, number = point.partition(":")
    owner, method, after = {
        "loaded": (JetStreamLog, "load", True),
        "decided": (JetStreamLog, "append", False),
        "appended": (JetStreamLog, "append", True),
        "dispatch": (NatsOutbox, "dispatch", False),
        "continue": (NatsOutbox, "continue_later", False),
        "continued": (NatsOutbox, "continue_later", True),
        "ack": (Envelope, "ack", False),
        "begin": (Runner, "begin", False),
        "report": (Worker, "_report", False),
        "ack_dispatch": (Worker, "_acknowledge", False),
        "read": (JetStreamSource, "page", True),
        "processed": (SqliteView, "see", False),
        "tracked": (SqliteView, "_track", True),
        "committed": (projecting.Runner, "_apply", True),
    }[name]
    patch = _patch if inspect.iscoroutinefunction(getattr(owner, method)) else _patch_plain
    patch(owner, method, after=after, at=int(number or 1))


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
                await die_once_sent()
            die()
        return result

    setattr(owner, method, deadly)


def _patch_plain(owner: Any, method: str, *, after: bool, at: int) -> None:
    original: Callable[..., Any] = getattr(owner, method)
    times = 0

    def deadly(self: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal times
        times += 1
        if times >= at and not after:
            die()
        result = original(self, *arguments, **more)
        if times >= at:
            die()
        return result

    setattr(owner, method, deadly)


def _arm_effects(kind: str, number: str) -> None:
    carry_out, one_done = Desk.carry_out, Mailbox.one_done
    carried = 0

    def is_meant(batch: Batch) -> bool:
        return batch.commit is not None and any(type_of(event) == kind for event in batch.commit.events)

    async def deadly_carry_out(self: Desk, mailbox: Mailbox, batch: Batch, effect: Any) -> None:
        nonlocal carried
        if is_meant(batch):
            if number == str(carried):
                await die_once_sent()
            carried += 1
        await carry_out(self, mailbox, batch, effect)

    async def deadly_one_done(self: Mailbox, batch: Batch) -> None:
        if is_meant(batch) and batch.open == 1 and (number == "last" or carried <= int(number)):
            die()  # all effects stand, or there are no more
        await one_done(self, batch)

    Desk.carry_out, Mailbox.one_done = deadly_carry_out, deadly_one_done  # type: ignore[method-assign]


async def die_once_sent() -> None:
    """What was sent before is to reach the server; nothing else happens here any more. No flush: this may be the reader."""
    asyncio.get_running_loop().call_later(0.05, die)
    await asyncio.Event().wait()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
