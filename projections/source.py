"""The log as projections read it: commits in the order of their positions, from any position on, a page at a time.

What is new is heard on `commit.` and kept for a while; what is not among that is read from the log. So whoever is up to date
costs the server one delivery, and whoever is behind reads pages. No consumer is made on the server.

It is heard on a connection of its own, which rests for a while after something came: where much happens, much is heard at once.
Waking up for every commit would cost more than most of what is done with it.
"""

import asyncio
import logging
from collections import OrderedDict
from contextlib import suppress
from typing import NamedTuple, Protocol

from esexec.domain.commit import Commit, hash_of
from esexec.domain.errors import CorruptHistory, ValidationError
from esexec.log import codec
from esexec.nats.connection import Connection
from esexec.nats.direct import DirectReader, Message, read_leader
from esexec.nats.lean import Message as Heard
from esexec.nats.objects import Objects
from esexec.nats.subjects import Subjects
from projections.view import Witness

logger = logging.getLogger("esexec.projections")

EVENTS_PER_POSITION = 1000
"""A notification id is a position times this, and the event's place in its commit: no commit has as many events."""
_KEPT = 20_000
"""So many commits that were heard last are kept."""
_PAGE_BYTES = 8_000_000
_PLANS_BYTES = 32_000_000
"""Plans that are kept as objects, of one page."""
_ALL_THERE_IS = ">"
_GATHER_S = 0.003
"""What comes comes in pieces: so long it is heard after the first."""
_REST_S = 0.02
"""So long nothing is heard then."""
_MUCH, _LONGER_REST_S = 20, 0.2
"""So long after more than so many at once: each transaction costs the same, and what began and ended is written once."""
_FLOOD_BYTES = 400_000
"""Where more came at once, more is there already."""
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

    @property
    def losses(self) -> int:
        """How often the server was lost, or the log went on from an earlier place. What is read after one more may be of another
        log."""
        ...


class JetStreamSource:
    """See `Source`. `start` before use; it ends with the connections. `hearing`: a connection for nothing else, as it rests."""

    def __init__(self, connection: Connection, hearing: Connection, subjects: Subjects, reader: DirectReader) -> None:
        self._connection, self._hearing, self._subjects, self._reader = connection, hearing, subjects, reader
        self._kept: OrderedDict[int, Message | Recorded] = OrderedDict()
        self._heard, self._head, self._news = 0, 0, asyncio.Event()
        self._many = self._size = 0
        """What was heard since it was told that there is something."""
        self._rests_until = 0.0
        self._losses = 0
        self._objects = Objects(connection, subjects, reader)

    async def start(self) -> "JetStreamSource":
        await self._hearing.listen(self._subjects.commits_all, self._hear)
        await self._hearing.flush()
        for connection in (self._connection, self._hearing):
            connection.on_disconnect(self._lost)
            connection.on_reconnect(self._tell)
        return self

    @property
    def heard(self) -> int:
        return max(self._heard, self._head)

    @property
    def losses(self) -> int:
        return self._losses

    def _lost(self) -> None:
        """What is known may be of another log."""
        self._losses += 1
        self._heard = self._head = 0
        self._kept.clear()

    async def _hear(self, message: Heard) -> None:
        position = message.number(b"Nats-Sequence")
        if not position:
            return  # somebody published it; the server repeated nothing
        if position <= self._heard:
            self._lost()  # the log goes on from an earlier place
        self._heard = position
        self._kept[position] = Message(message.subject, position, message.data)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        if not self._many:
            asyncio.get_running_loop().call_later(_GATHER_S, self._heard_all)
        self._many += 1
        self._size += len(message.data)

    def _heard_all(self) -> None:
        """What was there has been heard."""
        many, size, self._many, self._size = self._many, self._size, 0, 0
        if _now() >= self._rests_until and size < _FLOOD_BYTES:
            rest_s = _LONGER_REST_S if many > _MUCH else _REST_S
            self._hearing.rest(rest_s)
            self._rests_until = _now() + rest_s
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def page(self, after: int, most: int) -> Page:
        look_at, losses = _now() + _LOOK_AGAIN_S, self._losses
        while True:
            news = self._news
            if losses != self._losses:
                return Page([], after)  # who reads has to look whether this is still the log
            if after + 1 in self._kept:
                return await self._with_plans(self._of_kept(after, most))
            if after < self.heard and (page := await self._read(after, most)) is not None:
                return await self._with_plans(page)
            try:
                await asyncio.wait_for(news.wait(), look_at - _now())
            except TimeoutError:
                await self._look(after)
                look_at = _now() + _LOOK_AGAIN_S

    def _of_kept(self, after: int, most: int) -> Page:
        commits, position = [], after
        while position < after + most and (one := self._kept.get(position + 1)) is not None:
            position += 1
            if isinstance(one, Message):
                recorded = self._decoded(one)
                if recorded is None:
                    continue
                self._kept[position] = one = recorded
            commits.append(one)
        return Page(commits, position)

    async def _read(self, after: int, most: int) -> Page | None:
        # Of a narrower pattern, though it is that of all that is there, the server would count what is left, at each page anew.
        found = await self._reader.from_first(
            self._subjects.log_stream, _ALL_THERE_IS, most, first=after + 1, most_bytes=_PAGE_BYTES
        )
        if found:
            return Page([one for one in map(self._decoded, found) if one is not None], found[-1].sequence)
        head = await self._look(after)
        return Page([], head) if head > after else None  # what was there is compacted

    async def _look(self, after: int) -> int:
        """Where the log ends, which is not before `after`."""
        heard = self._heard
        head = await self.head()
        if head < heard:  # the log goes on from an earlier place
            self._lost()
            self._head = head
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

    async def head(self) -> int:
        answer = await self._connection.api(f"STREAM.INFO.{self._subjects.log_stream}")
        self._head = int(answer["state"]["last_seq"])
        return self._head

    async def knows(self, witness: Witness) -> bool:
        subject = f"{self._subjects.log_prefix}.{witness.entity}.{witness.n}"
        found = await read_leader(self._connection, self._subjects.log_stream, subject)
        return found is not None and found.sequence == witness.position and hash_of(found.data) == witness.hash
