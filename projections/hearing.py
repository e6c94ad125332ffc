"""What is new in the log, as a process hears of it: each commit as it is stored; or, where much is, by reading what is new now
and then, for then hundreds share one answer of the server, and one waking up here.

It is heard on a connection of its own, which rests for a moment after something came. What was heard last is kept, for all that
read it. No consumer is made on the server.
"""

import asyncio
import logging
from collections import OrderedDict
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from esexec.domain.errors import Unavailable
from esexec.nats.connection import Connection
from esexec.nats.direct import DirectReader, Message
from esexec.nats.lean import Message as Heard
from esexec.nats.subjects import Subjects

logger = logging.getLogger("esexec.projections")


class _Read(Protocol):
    @property
    def entity(self) -> str: ...
    @property
    def data(self) -> bytes: ...


T = TypeVar("T", bound=_Read)

ALL_THERE_IS = ">"
"""Of a narrower pattern, though it is that of all that is there, the server would count what is left, at each page anew."""
PAGE_BYTES = 8_000_000
_KEPT, _KEPT_BYTES = 20_000, 64_000_000
"""So many that were heard last are kept, unless they are large."""
_GATHER_S = 0.003
"""What comes comes in pieces: so long it is heard after the first."""
_REST_S = 0.02
"""So long nothing is heard then."""
_MUCH = 20
"""More than so many at once, and what follows is read now and then."""
_READ_EACH_S = 0.3
_LITTLE = 100
"""Fewer than so many then, and it is heard again as it is stored."""
_PAGE = 200
_GAPS = 1_000
"""So many gaps are remembered."""
_BACK_S = 0.1
"""Between two looks whether the server is back."""


def _now() -> float:
    return asyncio.get_running_loop().time()


class Hearing(Generic[T]):
    """See the module. `start` before use, and `close`. `connection`: for nothing else, as it rests.

    `heard`: the last position that was heard of, `head`: that the log was seen to end at; 0: none is known. `losses`: how often
    the server was lost, or the log went on from an earlier place: what is heard after one more may be of another log. `kept`:
    messages by their positions, which whoever reads them may replace by what they say. `gaps`: positions behind which the log has
    nothing, up to the given one (it was compacted). `news` is set, and another one put in its place, whenever there is something.
    """

    def __init__(self, connection: Connection, subjects: Subjects, reader: DirectReader) -> None:
        self._connection, self._subjects, self._reader = connection, subjects, reader
        self.kept: OrderedDict[int, Message | T] = OrderedDict()
        self.gaps: OrderedDict[int, int] = OrderedDict()
        self._size = self.heard = self.head = self.losses = 0
        self.news = asyncio.Event()
        self._many = 0
        """What was heard since it was told that there is something."""
        self._rests_until = 0.0
        self._hurried = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._is_closed = False

    async def start(self) -> None:
        await self._listen()
        self._connection.on_disconnect(self.lost)
        self._connection.on_reconnect(self.tell)

    async def close(self) -> None:
        self._is_closed = True
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def hurry(self) -> None:
        """Somebody waits for what is new."""
        self._hurried.set()

    def lost(self) -> None:
        """What is known may be of another log."""
        self.losses += 1
        self.heard = self.head = 0
        self.kept.clear()
        self.gaps.clear()
        self._size = 0

    def last_for_good(self) -> tuple[int, bytes] | None:
        """Where the last commit stands that was heard and is never compacted, and its bytes."""
        for position, one in reversed(self.kept.items()):
            entity = one.subject.split(".")[-2] if isinstance(one, Message) else one.entity
            if entity[:1] != "_":
                return position, one.data
        return None

    def tell(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()

    def _take(self, message: Message) -> None:
        self.heard = max(self.heard, message.sequence)
        self.kept[message.sequence] = message
        self._size += len(message.data)
        while len(self.kept) > _KEPT or self._size > _KEPT_BYTES:
            _, oldest = self.kept.popitem(last=False)
            self._size -= len(oldest.data)

    # As it is stored ----------------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._subscription = await self._connection.listen(self._subjects.commits_all, self._hear)
        await self._connection.flush()

    async def _hear(self, message: Heard) -> None:
        position = message.number(b"Nats-Sequence")
        if not position:
            return  # somebody published it; the server repeated nothing
        if position <= self.heard:
            known = self.kept.get(position)
            if known is not None and known.data == message.data:
                return  # it was read, too
            if any(behind < position <= last for behind, last in self.gaps.items()):
                return  # and was compacted before it was heard
            self.lost()  # the log goes on from an earlier place
        self._take(Message(message.subject, position, message.data))
        if not self._many:
            asyncio.get_running_loop().call_later(_GATHER_S, self._heard_all)
        self._many += 1

    def _heard_all(self) -> None:
        """What was there has been heard."""
        many, self._many = self._many, 0
        self.tell()
        if many > _MUCH and self._reading is None and not self._is_closed:
            self._reading = asyncio.create_task(self._read_along(), name="esexec-hearing")
        elif _now() >= self._rests_until:
            self._connection.rest(_REST_S)
            self._rests_until = _now() + _REST_S

    # Where much is ------------------------------------------------------------------------------------------------------------

    async def _read_along(self) -> None:
        """Until there is little again, or the server is lost. What nobody hears meanwhile is looked for in the log."""
        try:
            if not self._connection.is_closed:
                await self._subscription.unsubscribe()
            while not await self._is_little():
                pass
        except Unavailable as error:
            logger.debug("what is new cannot be read: %s", error)
        except Exception:
            logger.exception("a fault of ours")
        try:
            await self._listen_again()
        finally:
            self._reading = None

    async def _listen_again(self) -> None:
        heard = self.heard
        while not self._connection.is_closed:
            if self._connection.is_connected:
                try:
                    await self._listen()
                    break
                except Unavailable as error:
                    logger.debug("not yet heard again: %s", error)
                except Exception:
                    logger.exception("a fault of ours")
            await asyncio.sleep(_BACK_S)
        with suppress(Unavailable):
            if heard and heard <= self.heard:
                await self._read_new(heard)  # what was stored until it was listened again

    async def _is_little(self) -> bool:
        """Rests, reads what is new by then, and tells how much that was."""
        begun = _now()
        await asyncio.sleep(_REST_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(_READ_EACH_S - _REST_S):
                await self._hurried.wait()
        self._hurried.clear()
        if not self.heard:  # it was lost meanwhile
            return True
        took_s = _now() - begun
        return await self._read_new(self.heard) * _READ_EACH_S < _LITTLE * took_s

    async def _read_new(self, last: int) -> int:
        """What is behind a position that was heard; how many there were. That itself is read once more: if another commit stands
        there, this is another log."""
        losses, many = self.losses, 0
        while True:
            found = await self._reader.from_first(
                self._subjects.log_stream, ALL_THERE_IS, _PAGE + 1, first=last, most_bytes=PAGE_BYTES
            )
            if losses != self.losses:
                return many
            if found and found[0].sequence == last:
                known = self.kept.get(last)
                if known is not None and known.data != found[0].data:
                    self.lost()
                    self.tell()
                    return many
                del found[0]
            size = sum(len(message.data) for message in found)
            for message in found:
                if message.sequence > last + 1:
                    self._skip(last, message.sequence - 1)
                last = message.sequence
                if last not in self.kept:
                    self._take(Message(message.subject, last, message.data))
            many += len(found)
            if found:
                self.tell()
            if len(found) < _PAGE and size < PAGE_BYTES // 2:
                return many

    def _skip(self, behind: int, last: int) -> None:
        self.gaps[behind] = last
        if len(self.gaps) > _GAPS:
            self.gaps.popitem(last=False)
