"""The library's `AggregateRecorder` in a stream of its own: any stored events, one message each. Snapshots are kept so.

Several events go in as one atomic batch. A message begins with a token of its insertion, so that what was stored although nobody
heard of it is recognised, and an identical event that somebody else stored is not taken for ours.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    DataError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    StoredEvent,
)

from esexec.domain.errors import Unavailable
from esexec.domain.ids import is_token
from esexec.eventsourcing.bridge import Bridge
from esexec.nats.batch import INCOMPLETE, MOST, Part, store_batch, store_one
from esexec.nats.connection import Connection
from esexec.nats.direct import Message, read_leader, subjects_of
from esexec.nats.publisher import WRONG_SEQUENCE, Ack
from esexec.nats.streams import ensure_stored
from esexec.world import new_id

_TRIES = 5
_AGAIN_S = 0.5


class StreamRecorder(AggregateRecorder):
    """See the module. `purpose`: a word, of which each has a stream. Beyond `max_bytes` (-1: no bound) the oldest give way.

    An originator is called as an id of ours may be, as all UUIDs are. Raises the library's `IntegrityError` where an event of
    that version exists, `OperationalError` when the server does not answer in time, `DataError` for too large or too many.
    """

    def __init__(self, bridge: Bridge, purpose: str = "events", max_bytes: int = -1) -> None:
        if not is_token(purpose):
            raise ProgrammingError(f"{purpose!r} cannot stand in a subject")
        self._bridge, self._purpose = bridge, purpose
        self._stream = bridge.subjects.stored_stream(purpose)
        bridge.call(ensure_stored(bridge.connection, bridge.subjects, purpose, max_bytes))

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        self._insert(stored_events)
        return None

    def _insert(self, stored_events: Sequence[StoredEvent]) -> int:
        """The sequence of the last one; 0 if there is none."""
        if not stored_events:
            return 0
        token = new_id()
        messages = {self._subject(event): _written(token, event) for event in stored_events}
        if len(messages) < len(stored_events):
            raise IntegrityError("two of these events have the same version")
        self._check_sizes(list(messages.values()))
        return self._bridge.call(self._store(list(messages.items())))

    def _check_sizes(self, written: list[bytes]) -> None:
        if len(written) > MOST:
            raise DataError(f"{len(written)} events at once: at most {MOST}")
        largest = self._bridge.connection.max_payload - 512  # headers
        if (size := max(map(len, written))) > largest:
            raise DataError(f"an event of {size} bytes: at most {largest}")

    def _subject(self, event: StoredEvent) -> str:
        originator = str(event.originator_id)
        if not is_token(originator) or event.originator_version < 0 or "\n" in event.topic:
            raise ProgrammingError(f"{originator[:80]!r}, version {event.originator_version}, cannot stand in a subject")
        return self._bridge.subjects.stored(self._purpose, originator, event.originator_version)

    async def _store(self, messages: list[tuple[str, bytes]]) -> int:
        subject, data = messages[-1]
        for _ in range(_TRIES):
            try:
                ack = await _store_first(self._bridge.connection, messages)
            except Unavailable:
                await asyncio.sleep(_AGAIN_S)  # perhaps they were stored: then they are refused now
                continue
            if ack.error is None:
                return ack.seq
            stands = await read_leader(self._bridge.connection, self._stream, subject)
            if stands is not None and stands.data == data:
                return stands.sequence
            if ack.error.err_code == INCOMPLETE:
                continue  # a part was lost on the way, with a connection or a server: nothing was stored
            if ack.error.err_code in WRONG_SEQUENCE:
                raise IntegrityError("an event of that version is stored already")
            raise OperationalError(f"the server refused it: {ack.error.description}")
        raise OperationalError("the server did not answer; whether it was stored is not known")

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        if not is_token(str(originator_id)):
            return []
        found = self._bridge.call(self._read(str(originator_id), gt, lte, desc, limit))
        return [_read(originator_id, message) for message in found]

    async def _read(self, originator: str, gt: int | None, lte: int | None, desc: bool, limit: int | None) -> list[Message]:
        """First which versions there are, then only what is wanted of them: a snapshot is large."""
        connection, subjects = self._bridge.connection, self._bridge.subjects
        names = await subjects_of(connection, self._stream, subjects.stored(self._purpose, originator, "*"))
        versions = sorted((_version(name) for name in names), reverse=desc)
        wanted = [one for one in versions if (gt is None or one > gt) and (lte is None or one <= lte)][:limit]
        names = [subjects.stored(self._purpose, originator, one) for one in wanted]
        found = {one.subject: one for one in await self._bridge.reader.all_of(self._stream, names)}
        for name in names:
            if name not in found and (late := await read_leader(connection, self._stream, name)) is not None:
                found[name] = late  # the replica that answered did not have it yet
        return [found[name] for name in names if name in found]


async def _store_first(connection: Connection, messages: list[tuple[str, bytes]]) -> Ack:
    """Store these together, each as the first on its subject."""
    parts = [Part(subject, data, {"Nats-Expected-Last-Subject-Sequence": "0"}) for subject, data in messages]
    return await (store_batch(connection, parts) if len(parts) > 1 else store_one(connection, parts[0]))


def _written(token: str, event: StoredEvent) -> bytes:
    return f"{token} {event.topic}\n".encode() + event.state


def _read(originator_id: UUID | str, message: Message) -> StoredEvent:
    head, _, state = message.data.partition(b"\n")
    return StoredEvent(originator_id, _version(message.subject), head.partition(b" ")[2].decode(), state)


def _version(subject: str) -> int:
    return int(subject.rpartition(".")[2])
