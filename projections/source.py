"""The log as projections read it: commits in the order of their positions, from any position on, a page at a time.

What is new is heard once for all of them (`hearing`) and kept for a while; what is not among that is read from the log. So all
that are up to date cost the server together one delivery, and whoever is behind reads pages.
"""

import asyncio
import logging
from contextlib import suppress
from typing import NamedTuple, Protocol

from esexec.domain.commit import Commit, hash_of
from esexec.domain.errors import CorruptHistory, ValidationError
from esexec.log import codec
from esexec.nats.connection import Connection
from esexec.nats.direct import DirectReader, Message, first_from, read_leader, stored_at
from esexec.nats.objects import Objects
from esexec.nats.subjects import Subjects
from projections.hearing import ALL_THERE_IS, PAGE_BYTES, Hearing
from projections.view import Witness

logger = logging.getLogger("esexec.projections")

EVENTS_PER_POSITION = 1000
"""A notification id is a position times this, and the event's place in its commit: no commit has as many events."""
_PLANS_BYTES = 32_000_000
"""Plans that are kept as objects, of one page."""
_REPLICA_S = 0.05
"""So long a replica is left to come to where the leader is."""
_LOOK_AGAIN_S = 2.0
"""What is heard may get lost: so the log is asked now and then."""


def _now() -> float:
    return asyncio.get_running_loop().time()


class Recorded(NamedTuple):
    """A commit as it stands in the log. `entity` and `n` are those of its subject."""

    position: int
    entity: str
    n: int
    commit: Commit
    data: bytes

    @property
    def last_id(self) -> int:
        """The notification id of its last event."""
        return self.position * EVENTS_PER_POSITION + len(self.commit.events) - 1


class Rewound(Exception):
    """The log is not the one that was read before: it was restored to an earlier moment, or replaced."""


class Page(NamedTuple):
    """What follows upon a position: commits, and the position that it goes up to. What is no commit is not in it, but told."""

    commits: list[Recorded]
    end: int


class Source(Protocol):
    """See the module."""

    async def page(self, after: int, most: int) -> Page:
        """What is behind a position, at most so many commits; waits until there is something, or `losses` have
        become more. Raises `Unavailable`, `Rewound`."""
        ...

    async def head(self) -> int:
        """The last position of the log. Raises `Unavailable`."""
        ...

    async def knows(self, witness: Witness) -> bool:
        """Whether that commit stands where it stood. Raises `Unavailable`."""
        ...

    @property
    def heard(self) -> int:
        """The last position that is known of."""
        ...

    def hurry(self) -> None:
        """Somebody waits for what is new."""
        ...

    async def make_sure(self) -> None:
        """What was heard is of the log that is there now; or it is forgotten, and counts as a loss. For whoever looks where to
        go on: that another log is there may not have been heard yet. Raises `Unavailable`."""
        ...

    @property
    def losses(self) -> int:
        """How often the server was lost, or the log went on from an earlier place. What is read after one more may be of another
        log."""
        ...


class JetStreamSource:
    """See `Source`. `start` before use, and `close`. `hearing`: a connection for nothing else, as it rests."""

    def __init__(self, connection: Connection, hearing: Connection, subjects: Subjects, reader: DirectReader) -> None:
        self._connection, self._subjects, self._reader = connection, subjects, reader
        self._hearing: Hearing[Recorded] = Hearing(hearing, subjects, reader)
        self._objects = Objects(connection, subjects, reader)

    async def start(self) -> "JetStreamSource":
        await self._hearing.start()
        self._connection.on_disconnect(self._hearing.lost)
        self._connection.on_reconnect(self._hearing.tell)
        return self

    async def close(self) -> None:
        """Nothing is read by itself any more."""
        await self._hearing.close()

    @property
    def heard(self) -> int:
        return max(self._hearing.heard, self._hearing.head)

    @property
    def losses(self) -> int:
        return self._hearing.losses

    def hurry(self) -> None:
        self._hearing.hurry()

    async def page(self, after: int, most: int) -> Page:
        look_at, losses, hearing = _now() + _LOOK_AGAIN_S, self.losses, self._hearing
        is_behind = after < (hearing.heard or hearing.head)
        while True:
            news = hearing.news
            if losses != hearing.losses:
                return Page([], after)  # who reads has to look whether this is still the log
            if after + 1 in hearing.kept or after in hearing.gaps:
                return await self._with_plans(self._of_kept(after, most))
            if is_behind or after < hearing.heard:
                is_behind = False
                if (page := await self._read(after, most)) is not None:
                    return await self._with_plans(page)
            try:
                async with asyncio.timeout_at(look_at):
                    await news.wait()
            except TimeoutError:
                is_behind = await self._look(after) > after
                look_at = _now() + _LOOK_AGAIN_S

    def _of_kept(self, after: int, most: int) -> Page:
        commits: list[Recorded] = []
        position, kept, gaps = after, self._hearing.kept, self._hearing.gaps
        while len(commits) < most:
            if (one := kept.get(position + 1)) is None:
                if position not in gaps:
                    break
                position = gaps[position]
                continue
            position += 1
            if isinstance(one, Message):
                recorded = self._decoded(one)
                if recorded is None:
                    continue
                kept[position] = one = recorded
            commits.append(one)
        return Page(commits, position)

    async def _read(self, after: int, most: int) -> Page | None:
        found = await self._reader.from_first(
            self._subjects.log_stream, ALL_THERE_IS, most, first=after + 1, most_bytes=PAGE_BYTES
        )
        if found:
            return Page([one for one in map(self._decoded, found) if one is not None], found[-1].sequence)
        head = await self._look(after)
        if head <= after:
            return None
        first = await first_from(self._connection, self._subjects.log_stream, ALL_THERE_IS, after + 1)
        if first is None:
            return Page([], head)  # what was there is compacted
        await asyncio.sleep(_REPLICA_S)  # it was a replica that answered, and is not as far as the leader
        return Page([], first - 1)

    async def _look(self, after: int) -> int:
        """Where the log ends, which is not before `after`."""
        heard = self._hearing.heard
        head = await self.head()
        if head < heard:  # the log goes on from an earlier place
            self._hearing.lost()
            self._hearing.head = head
        if head < after:
            raise Rewound(f"the log ends at {head}, and {after} was read")
        return head

    async def _with_plans(self, page: Page) -> Page:
        """With the plans that are kept as objects, as many as may be in memory: the page ends there. Where one cannot be had,
        whoever folds its execution says so."""
        size = 0
        for index, one in enumerate(page.commits):
            if one.n == 1 and (ref := codec.lacking(one.commit)) is not None:
                size += ref.bytes
                if index and size > _PLANS_BYTES:
                    return Page(page.commits[:index], page.commits[index - 1].position)
                with suppress(CorruptHistory):
                    page.commits[index] = one._replace(commit=codec.with_plan(one.commit, await self._objects.get(ref)))
        return page

    def _decoded(self, message: Message) -> Recorded | None:
        try:
            entity, n = self._subjects.parse_commit(message.subject)
            return Recorded(message.sequence, entity, n, codec.decode(message.data), message.data)
        except (CorruptHistory, ValidationError) as error:
            logger.error("%s at position %d of the log is passed over: %s", message.subject, message.sequence, error)
            return None

    async def make_sure(self) -> None:
        if (known := self._hearing.last_for_good()) is None:
            return
        position, data = known
        there = await stored_at(self._connection, self._subjects.log_stream, position)
        if there is None or there[0].data != data:
            self._hearing.lost()
            self._hearing.tell()

    async def head(self) -> int:
        answer = await self._connection.api(f"STREAM.INFO.{self._subjects.log_stream}")
        self._hearing.head = head = int(answer["state"]["last_seq"])
        return head

    async def knows(self, witness: Witness) -> bool:
        subject = f"{self._subjects.log_prefix}.{witness.entity}.{witness.n}"
        found = await read_leader(self._connection, self._subjects.log_stream, subject)
        return found is not None and found.sequence == witness.position and hash_of(found.data) == witness.hash
