"""The public feed: every event of the log as a message of its own in EVENTS, in the order of the log, each exactly once.

It keeps nothing of its own. How far it has come stands in EVENTS itself, in a message that never expires, stored in one batch
with the events that it speaks of: so both are there or neither, after whatever crash. A batch is only taken behind the position
that it was made for: of two feeds at once, or of one that was believed dead, one batch is stored, and the other finds out.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec
from eventsourcing.persistence import PersistenceError

from esexec import cloudevents
from esexec.cloudevents import Position
from esexec.domain.commit import hash_of
from esexec.domain.errors import Unavailable
from esexec.domain.events import Event, type_of
from esexec.nats.batch import MOST, Part, store_batch
from esexec.nats.connection import ApiError, Connection
from esexec.nats.direct import Message, first_since, read_leader, stored_at
from esexec.nats.publisher import WRONG_SEQUENCE
from esexec.nats.subjects import Subjects
from esexec.world import now
from projections.asks import ProjectionStatus
from projections.runner import HOST, PAGE, State, lag_of
from projections.source import Recorded, Rewound, Source
from projections.timeline import Teller
from projections.view import Store

logger = logging.getLogger("esexec.projections")

NAME = "feed"
_BATCH_BYTES = 4_000_000
_HEADER_BYTES = 512
"""More than the headers of any message here take."""
_LOOK_FOR_LOCK_S, _AFTER_ANOTHER_S = 1.0, 1.0
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 15.0
_MARKS = 100
"""So many positions are left behind before the old ones are removed."""
_TELLERS = 10_000
"""Of so many executions at once it is remembered when their attempts began."""
_ENDS = {"execution_completed", "execution_failed", "execution_cancelled", "execution_rolled_back"}
_EVENT_HEADERS = {"content-type": cloudevents.CONTENT_TYPE}


_position = msgspec.json.Decoder(Position).decode
_encode = msgspec.json.Encoder().encode


class Overtaken(Exception):
    """The stream goes on behind another position: another feed was there, or somebody emptied it."""


class EventFeed:
    """See the module. `run` until cancelled. `store`: of several feeds that share it one works; others come to no harm."""

    name = NAME

    def __init__(self, connection: Connection, subjects: Subjects, source: Source, store: Store, *, page: int = PAGE) -> None:
        self._connection, self._subjects, self._source, self._store, self._page = connection, subjects, source, store, page
        self.state: State = "starting"
        self.position, self._events, self._error = 0, 0, ""
        self._time: datetime | None = None
        self._known = False
        """The position is one that this process has come to."""
        self._sequence, self._marks, self._losses = 0, _MARKS, 0
        self._words = Words()
        self._changed = asyncio.Event()

    def status(self) -> ProjectionStatus:
        """How it is now."""
        lag, lag_ms = lag_of(self._source, self.position, self._time)
        return ProjectionStatus(
            name=self.name,
            view=self._subjects.events_stream,
            state=self.state,
            position=self.position,
            time=self._time,
            lag=lag,
            lag_ms=lag_ms,
            events=self._events,
            error=self._error,
            host=HOST,
        )

    async def head(self) -> int:
        """The last position of the log. Raises `Unavailable`."""
        return await self._source.head()

    async def reached(self, position: int) -> None:
        """Returns once all events up to this position have been told; or another process tells them, or none can be told now."""
        while self.position < position and self.state in ("starting", "working"):
            self._source.hurry()
            await self._changed.wait()

    def _is(self, state: State) -> None:
        self.state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # The loop --------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """See the class."""
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                await self._locked()
                await self._go_on()
                while True:
                    await self._step()
                    backoff_s, self._error = _FIRST_BACKOFF_S, ""
            except Overtaken:
                self._is("standby")
                logger.info("the feed goes on elsewhere, or its stream was emptied")
                await asyncio.sleep(_AFTER_ANOTHER_S)
            except Rewound as error:
                logger.warning("the feed finds another log than it has told of: %s", error)
                self._known = False
            except (Unavailable, ApiError, PersistenceError) as error:
                self._error = str(error) or repr(error)
                self._is("retrying")
                logger.warning("the feed tries again in %g s: %s", backoff_s, error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
            except Exception as error:
                self._error = repr(error)
                logger.exception("the feed has failed")
                self._is("failed")
                raise

    async def _locked(self) -> None:
        while not await asyncio.to_thread(self._store.lock, self.name):
            self._is("standby")
            await self._find_place()  # to tell how far the other has come
            await asyncio.sleep(_LOOK_FOR_LOCK_S)

    async def _step(self) -> None:
        self._is("working")
        page = await self._source.page(self.position, self._page)
        if self._source.losses != self._losses:  # a server that went and came may have another log, and be beyond us in it
            await self._go_on()
            return
        for batch in self._batches(page.commits):
            await self._store_events(*batch)
        self.position = page.end
        self._is("working")

    # Where to go on --------------------------------------------------------------------------------------------------------

    async def _go_on(self) -> None:
        await self._source.make_sure()
        await self._find_place()

    async def _find_place(self) -> None:
        """Behind what the stream holds. Without any position in it: where this process was, or with what is no older than the
        stream keeps."""
        self._losses = self._source.losses
        found = await read_leader(self._connection, self._subjects.events_stream, self._subjects.event_position)
        if found is None:
            self._sequence = 0
            if not self._known:
                self.position = await self._not_too_old()
        else:
            said = self._read(found)
            self._sequence, self._time = found.sequence, said.time
            self.position = said.position if await self._is_of_this_log(said) else await self._behind(found.sequence)
        self._known, self._error = True, ""

    def _read(self, found: Message) -> Position:
        try:
            return _position(found.data)
        except msgspec.MsgspecError:
            raise Unavailable(
                f"message {found.sequence} of {self._subjects.events_stream} is no position of the feed",
                code="bad_position",
                hint="somebody else published it: delete it, and the feed goes on behind the one before",
            ) from None

    async def _not_too_old(self) -> int:
        """The position behind which everything is that happened within the time that EVENTS keeps."""
        config = (await self._connection.api(f"STREAM.INFO.{self._subjects.events_stream}"))["config"]
        kept = timedelta(microseconds=config.get("max_age", 0) / 1000)
        return await self._stored_before(now() - kept) if kept else 0

    async def _is_of_this_log(self, said: Position) -> bool:
        if said.position > await self._source.head():
            return False
        there = await stored_at(self._connection, self._subjects.log_stream, said.position)
        return there is None or hash_of(there[0].data) == said.hash  # what executions share is compacted, and then not there

    async def _behind(self, sequence: int) -> int:
        """The log was restored to an earlier moment, or replaced. What was in it at that moment has been told, as far as it is
        told at all; so it goes on with what was stored since the last position was."""
        logger.warning("the log is not the one that the feed has told of; it goes on with what has been stored since")
        there = await stored_at(self._connection, self._subjects.events_stream, sequence)
        return await self._stored_before(there[1]) if there is not None else await self._not_too_old()

    async def _stored_before(self, time: datetime) -> int:
        first = await first_since(self._connection, self._subjects.log_stream, time)
        return first - 1 if first is not None else await self._source.head()

    # Telling ---------------------------------------------------------------------------------------------------------------

    def _batches(self, commits: list[Recorded]) -> Iterator[tuple[Recorded, list[Part]]]:
        """The events of whole commits, as many as go into one batch; and the last of these commits."""
        parts: list[Part] = []
        size, last = 0, None
        for recorded in commits:
            told = self._told(recorded)
            of_these = sum(len(part.data) for part in told)
            if last is not None and (len(parts) + len(told) >= MOST or size + of_these > _BATCH_BYTES):
                yield last, parts
                parts, size = [], 0
            parts += told
            size += of_these
            last = recorded
        if last is not None:
            yield last, parts

    def _told(self, recorded: Recorded) -> list[Part]:
        source, room = f"esexec/{self._subjects.namespace}", self._connection.max_payload - _HEADER_BYTES
        parts = []
        for index, event in enumerate(recorded.commit.events):
            words, event_type = self._words.of(recorded.entity, event), type_of(event)
            if event_type not in cloudevents.UNTOLD:
                data = cloudevents.encode(source, recorded.entity, recorded.position, recorded.commit, index, words, room)
                parts.append(Part(self._subjects.event(event_type, recorded.entity), data, _EVENT_HEADERS))
        return parts

    async def _store_events(self, last: Recorded, parts: list[Part]) -> None:
        """One batch: the events, and the position that they go up to, behind the one that stands there. Raises `Overtaken`."""
        said = Position(last.position, hash_of(last.data), last.commit.time)
        headers = {"Nats-Expected-Last-Subject-Sequence": str(self._sequence), "Nats-TTL": "never"}
        ack = await store_batch(self._connection, [*parts, Part(self._subjects.event_position, _encode(said), headers)])
        if ack.error is not None:
            if ack.error.err_code in WRONG_SEQUENCE:
                raise Overtaken
            raise ApiError(ack.error.code, ack.error.err_code, ack.error.description)
        self._sequence, self._time = ack.seq, said.time
        self._events += len(parts)
        self.position = last.position
        await self._tidied()

    async def _tidied(self) -> None:
        """Remove the positions before the last, now and then."""
        self._marks += 1
        if self._marks >= _MARKS:
            body = {"filter": self._subjects.event_position, "keep": 1}
            await self._connection.api(f"STREAM.PURGE.{self._subjects.events_stream}", body)
            self._marks = 0


class Words:
    """Puts the events of many executions into words; remembers of the last of them when their attempts began."""

    def __init__(self) -> None:
        self._tellers: OrderedDict[str, Teller] = OrderedDict()

    def of(self, entity: str, event: Event) -> str:
        """What happened to that entity, in one line."""
        teller = self._tellers.get(entity)
        if teller is None:
            teller = self._tellers[entity] = Teller()
            if len(self._tellers) > _TELLERS:
                self._tellers.popitem(last=False)
        else:
            self._tellers.move_to_end(entity)
        if type_of(event) in _ENDS:
            del self._tellers[entity]
        return teller.describe(event)
