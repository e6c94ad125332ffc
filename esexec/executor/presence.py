"""Which of several versions of a task workers still have: asked for only while there are several.

Nobody has to answer. What nobody has told of is thought to be there as long as nobody tells of another version either; and one
that was told of is there until it was asked for in vain several times, for a worker may be slow to answer.
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
_IN_VAIN = 3
"""A version of which nobody tells after so many questions has no worker."""


class Presence:
    """See the module. `follow` hears of the versions that are left, whenever these are others."""

    def __init__(self, connection: Connection, subjects: Subjects, follow: Callable[[Versions], None]) -> None:
        self._connection, self._subjects, self._follow = connection, subjects, follow
        self._announced: Versions = {}
        self._left: Versions | None = None
        self._vain: dict[tuple[str, str], int] = {}
        """How often a version (of a task, its id) was asked for since somebody told of it: those that have others beside them."""
        self._asking: asyncio.Task[None] | None = None

    def announced(self, versions: Versions) -> None:
        """What is announced now. Until workers were asked, all of it counts."""
        self._announced = versions
        several = [(task, one.id) for task, known in versions.items() if len(known) > 1 for one in known]
        self._vain = {one: self._vain.get(one, 0) for one in several}
        self._tell()
        if several and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask(), name="esexec-presence")

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        while self._vain:
            with suppress(Unavailable):  # what was known before counts
                self.answered(await workers_there(self._connection, self._subjects, _ANSWERS_S))
            await asyncio.sleep(_ASK_EVERY_S - _ANSWERS_S)

    def answered(self, workers: Iterable[WorkerPresence]) -> None:
        """These told what they have, when all were asked. Nothing is kept of what was not announced."""
        told = _pairs(workers)
        self._vain = {one: 0 if one in told else times + 1 for one, times in self._vain.items()}
        self._tell()

    def _tell(self) -> None:
        left = _left(self._announced, {one for one, times in self._vain.items() if times < _IN_VAIN})
        if left != self._left:
            self._left = left
            self._follow(left)


def left_of(announced: Versions, workers: Iterable[WorkerPresence]) -> Versions:
    """Of each task the versions that some worker has; all of them, if nobody has any."""
    return _left(announced, _pairs(workers))


def _pairs(workers: Iterable[WorkerPresence]) -> set[tuple[str, str]]:
    return {pair for one in workers for pair in one.tasks.items()}


def _left(announced: Versions, there: set[tuple[str, str]]) -> Versions:
    return {task: tuple(one for one in known if (task, one.id) in there) or known for task, known in announced.items()}
