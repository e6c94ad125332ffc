"""Which of several versions of a task workers still have: asked for only while there are several.

Nobody has to answer. What nobody has told of is thought to be there as long as nobody tells of another version either.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from esexec.domain.errors import Unavailable
from esexec.domain.messages import WorkerPresence
from esexec.executor.params import Versions
from esexec.nats.connection import Connection
from esexec.nats.presence import workers_there
from esexec.nats.subjects import Subjects

logger = logging.getLogger("esexec.executor")

_ASK_EVERY_S = 10.0
_ANSWERS_S = 1.0


class Presence:
    """See the module. `follow` hears of the versions that are left, whenever that may have changed."""

    def __init__(self, connection: Connection, subjects: Subjects, follow: Callable[[Versions], None]) -> None:
        self._connection, self._subjects, self._follow = connection, subjects, follow
        self._announced: Versions = {}
        self._asking: asyncio.Task[None] | None = None

    def announced(self, versions: Versions) -> None:
        """What is announced now. Until workers were asked, all of it counts."""
        self._announced = versions
        self._follow(versions)
        several = any(len(known) > 1 for known in versions.values())
        if several and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask(), name="esexec-presence")

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        while any(len(known) > 1 for known in self._announced.values()):
            with suppress(Unavailable):  # what was known before counts
                there = await workers_there(self._connection, self._subjects, _ANSWERS_S)
                self._follow(left_of(self._announced, there))
            await asyncio.sleep(_ASK_EVERY_S - _ANSWERS_S)


def left_of(announced: Versions, workers: Iterable[WorkerPresence]) -> Versions:
    """Of each task the versions that some worker has; all of them, if nobody has any."""
    there, left = list(workers), {}
    for task, known in announced.items():
        live = {one.tasks[task] for one in there if task in one.tasks}
        left[task] = tuple(one for one in known if one.id in live) or known
    return left
