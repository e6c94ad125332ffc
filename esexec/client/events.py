"""Reading the public feed: events as they stand in EVENTS, from any time on, as they come. No consumer is made on the server.

What is published is only a bell: a batch is heard before it is stored, and also when it is refused. So what is given is what
was read from the stream.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from datetime import datetime
from typing import Final, Literal

from esexec.client.commands import checked_id
from esexec.cloudevents import CloudEvent, decode, token_of
from esexec.domain.errors import ValidationError
from esexec.nats.connection import Connection
from esexec.nats.direct import DirectReader, Message
from esexec.nats.lean import Message as Heard
from esexec.nats.subjects import Subjects

logger = logging.getLogger("esexec.client")

Since = datetime | Literal["beginning"] | None

_PAGE: Final = 500
_PAGE_BYTES: Final = 4_000_000
_LOOK_AGAIN_S: Final = 2.0
_STORING_S: Final = 0.005
"""A batch that was heard is looked for after that long, then after twice as long, and so on."""


class EventReader:
    """Reads the feed of a namespace for one client."""

    def __init__(self, connection: Connection, reader: DirectReader, subjects: Subjects) -> None:
        self._connection, self._reader, self._subjects = connection, reader, subjects

    def events(
        self, since: Since, after: CloudEvent | None, types: str | Iterable[str], execution_id: str | None, follow: bool
    ) -> AsyncIterator[CloudEvent]:
        """See `Client.events`."""
        tokens = frozenset(token_of(one) for one in ([types] if isinstance(types, str) else types))
        entity = "*" if execution_id is None else checked_id(execution_id, ours=True)
        pattern = self._subjects.event(next(iter(tokens)) if len(tokens) == 1 else "*", entity)
        if isinstance(since, datetime) and since.utcoffset() is None:
            raise ValidationError("since has no time zone", code="naive_time", hint="datetime.now(UTC) - …, or .astimezone()")
        return self._events(pattern, after.time if after is not None else since, after, tokens, follow)

    async def _events(
        self, pattern: str, since: Since, after: CloudEvent | None, tokens: frozenset[str], follow: bool
    ) -> AsyncIterator[CloudEvent]:
        bell = Bell() if follow else None
        subscription = await self._connection.listen(pattern, bell.ring) if bell is not None else None
        try:
            async with aclosing(self._stored(pattern, since, bell)) as messages:
                async for message in messages:
                    event = _read(message)
                    if event is None or (tokens and message.subject.split(".")[3] not in tokens):
                        continue
                    if after is not None:  # by its place: what follows in the log may have happened a little before
                        if (event.position, event.version) > (after.position, after.version):
                            yield event
                    elif not isinstance(since, datetime) or event.time >= since:  # else it was told late
                        yield event
        finally:
            if subscription is not None and not self._connection.is_closed:
                await subscription.unsubscribe()

    async def _stored(self, pattern: str, since: Since, bell: "Bell | None") -> AsyncGenerator[Message, None]:
        """The messages; without a bell those that are there now."""
        stream = self._subjects.events_stream
        last = int((await self._connection.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"])
        first: int | datetime = last + 1
        if since is not None:
            first = since if isinstance(since, datetime) else 1
        while True:
            if bell is not None:
                bell.listen()
            found = await self._reader.from_first(stream, pattern, _PAGE, first=first, most_bytes=_PAGE_BYTES)
            for message in found:
                if bell is None and message.sequence > last:
                    return
                yield message
                first = message.sequence + 1
            if not found:
                if bell is None:
                    return
                await bell.rung()


class Bell:
    """Says when it is worth to look again: soon after something was published, and for a while until it is there."""

    def __init__(self) -> None:
        self._rung, self._pause_s = asyncio.Event(), _LOOK_AGAIN_S

    async def ring(self, _: Heard) -> None:
        self._rung.set()

    def listen(self) -> None:
        """What rings from now on is news."""
        if self._rung.is_set():
            self._rung.clear()
            self._pause_s = _STORING_S

    async def rung(self) -> None:
        """Returns when to look again."""
        if self._pause_s >= _LOOK_AGAIN_S:
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._rung.wait()
            except TimeoutError:
                return
            self._rung.clear()
            self._pause_s = _STORING_S
        await asyncio.sleep(self._pause_s)
        self._pause_s *= 2


def _read(message: Message) -> CloudEvent | None:
    try:
        return decode(message.data)
    except ValidationError as error:
        logger.warning("%s: %s", message.subject, error)
        return None
