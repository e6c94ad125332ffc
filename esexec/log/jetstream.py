"""The log in JetStream: one message per commit on `log.<entity>.<n>`, appended by compare-and-set.

The expected sequence is that of the commit before, over `log.<entity>.*`: so a commit is stored only right behind the one
it was decided upon. 10071, 10164 and 10077 all mean that another commit stands there (`nats-server` err_codes).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

from esexec.domain.errors import CorruptHistory, Unavailable
from esexec.log import codec
from esexec.log.port import Appended, Stored
from esexec.nats.connection import ApiError, Connection
from esexec.nats.direct import DirectReader, Message, TooMany, messages_in, read_leader, subject_pages, subjects_of
from esexec.nats.objects import Objects
from esexec.nats.publisher import WRONG_SEQUENCE, Ack, ErrorDetail, Publisher
from esexec.nats.subjects import Subjects

logger = logging.getLogger("esexec.log")

_PAGE = 1000
"""Commits that are asked for by name at once: the server takes 1024."""
_PAGE_BYTES = 8_000_000
"""Of commits of all entities that are read at once."""
_PLANS_BYTES = 32_000_000
"""Plans that are kept as objects, of one page."""
_NEWS = 8
"""Commits that are asked for first by who looks what is new: mostly there is none, and every name is a few dozen bytes."""
_ASK_AGAIN_S = 0.25


class JetStreamLog:
    """See `port.Log`."""

    def __init__(self, connection: Connection, subjects: Subjects, publisher: Publisher, reader: DirectReader) -> None:
        self._connection, self._subjects, self._publisher, self._reader = connection, subjects, publisher, reader
        self.objects = Objects(connection, subjects, reader)
        """Where the large values are that histories refer to."""
        self._prefix = subjects.log_prefix
        self._stream = subjects.log_stream
        self._tasks: set[asyncio.Task[None]] = set()

    async def append(self, entity: str, n: int, data: bytes, after: int, done: Appended) -> None:
        headers = (
            f"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {after}\r\n"
            f"Nats-Expected-Last-Subject-Sequence-Subject: {self._prefix}.{entity}.*\r\n\r\n"
        ).encode()
        answered = partial(self._answered, entity, n, data, after, done)
        await self._publisher.send(f"{self._prefix}.{entity}.{n}", data, headers, answered)

    async def _answered(self, entity: str, n: int, data: bytes, after: int, done: Appended, ack: Ack) -> None:
        if ack.error is None:
            await done(ack.seq)
            return
        # Not here: this is called by whoever hears all acknowledgements, and the answer may be long in coming.
        task = asyncio.create_task(self._refused(entity, n, data, after, done, ack.error))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _refused(self, entity: str, n: int, data: bytes, after: int, done: Appended, error: ErrorDetail) -> None:
        """Whose commit stands there? Asked until it is known: before, nothing can be decided for this entity.

        Where none stands the log itself is full or shut: that ends when an operator acts, and until then it is tried again.
        """
        while not self._connection.is_closed:
            try:
                stored = await self.read(entity, n)
            except (Unavailable, ApiError):
                await asyncio.sleep(_ASK_AGAIN_S)
                continue
            if stored is None and error.err_code not in WRONG_SEQUENCE:
                logger.error("the log refuses commit %s of %s, and is asked again: %s", n, entity, error.description)
                await asyncio.sleep(4 * _ASK_AGAIN_S)
                await self.append(entity, n, data, after, done)
            else:
                await done(stored.position if stored is not None and stored.data == data else None)
            return

    async def load(self, entity: str, after: int = 0) -> list[Stored]:
        commits: list[Stored] = []
        names = [f"{self._prefix}.{entity}.*"] if after == 0 else self._names(entity, after + 1, _NEWS)
        while True:
            try:
                found = await self._reader.last_of_each(self._stream, names)
                more = len(found) == len(names) and names[0][-1] != "*"
            except TooMany as part:
                found, more = part.messages, True
            first = after + len(commits) + 1
            if first == 1 and found and entity[0] == "_":  # what was before may have been compacted
                first = after = _number(found[0].subject)
                after -= 1
            commits += self._in_order(entity, found, first)
            if not more:
                if after == 0 and commits:
                    commits[0] = await self._with_plan(commits[0])
                return commits
            names = self._names(entity, after + len(commits) + 1, _PAGE)

    async def _with_plan(self, first: Stored) -> Stored:
        """A first commit, with its plan if that is kept as an object. Raises `CorruptHistory`, `Unavailable`."""
        ref = codec.plan_object_of(first.data)
        return first if ref is None else first._replace(plan=await self.objects.get(ref))

    def _names(self, entity: str, first: int, count: int) -> list[str]:
        return [f"{self._prefix}.{entity}.{n}" for n in range(first, first + count)]

    async def load_raw(self, entity: str) -> list[Stored]:
        """What is stored, in the order of its numbers, gaps and all: for `verify`, which says what is missing."""
        subjects = await subjects_of(self._connection, self._stream, f"{self._prefix}.{entity}.*")
        found = {message.subject: message for message in await self._reader.all_of(self._stream, subjects)}
        stored = [Stored(_number(subject), one.sequence, one.data) for subject, one in found.items()]
        stored.sort(key=lambda one: (one.n, one.position))
        if stored and stored[0].n == 1:
            with suppress(CorruptHistory):  # which is for `verify` to say
                stored[0] = await self._with_plan(stored[0])
        return stored

    def _in_order(self, entity: str, messages: list[Message], first: int = 1) -> list[Stored]:
        commits = [Stored(_number(message.subject), message.sequence, message.data) for message in messages]
        for expected, commit in enumerate(commits, first):
            if commit.n != expected:
                raise CorruptHistory(f"{entity}: commit {expected} is missing, {commit.n} is stored")
        return commits

    async def read(self, entity: str, n: int) -> Stored | None:
        found = await read_leader(self._connection, self._stream, f"{self._prefix}.{entity}.{n}")
        if found is None:
            return None
        stored = Stored(n, found.sequence, found.data)
        return await self._with_plan(stored) if n == 1 else stored

    async def last(self, entity: str) -> Stored | None:
        found = await read_leader(self._connection, self._stream, f"{self._prefix}.{entity}.*")
        return None if found is None else Stored(_number(found.subject), found.sequence, found.data)

    async def forget(self, entity: str, first: Stored) -> None:
        body = {"filter": f"{self._prefix}.{entity}.*", "seq": first.position}
        await self._connection.api(f"STREAM.PURGE.{self._stream}", body)

    async def entities(self) -> AsyncIterator[str]:
        # All subjects are asked for, not only those of first commits: a history whose first was dropped is to be found as well.
        seen: set[str] = set()
        async for page in subject_pages(self._connection, self._stream, f"{self._prefix}.*.*"):
            for subject in page:
                entity = subject.rsplit(".", 2)[1]
                if entity not in seen:
                    seen.add(entity)
                    yield entity

    async def page(self, after: int, most: int) -> list[tuple[str, Stored]]:
        """Up to `most` commits of all entities, with whose they are, in the order of their positions, which are above `after`.

        None: there are none yet (a follower may answer). Raises `Unavailable`.
        """
        found = await self._reader.from_first(self._stream, f"{self._prefix}.*.*", most, first=after + 1, most_bytes=_PAGE_BYTES)
        page: list[tuple[str, Stored]] = []
        size = 0
        for one in found:
            stored = Stored(_number(one.subject), one.sequence, one.data)
            if stored.n == 1:
                with suppress(CorruptHistory):  # of one execution, which whoever folds it finds out; the others go on
                    stored = await self._with_plan(stored)
            size += len(stored.plan)
            if page and size > _PLANS_BYTES:
                break
            page.append((one.subject.split(".")[-2], stored))
        return page

    async def newest(self) -> Stored | None:
        """The last commit of all, as the leader knows it now."""
        found = await read_leader(self._connection, self._stream, f"{self._prefix}.*.*")
        return None if found is None else Stored(_number(found.subject), found.sequence, found.data)

    async def size(self) -> int:
        """How many commits there are, of all entities."""
        return await messages_in(self._connection, self._stream)


def _number(subject: str) -> int:
    """The number of a commit from its subject; 0 for a subject that is none of ours."""
    n = subject.rsplit(".", 1)[1]
    return int(n) if n.isascii() and n.isdecimal() and len(n) < 19 else 0
