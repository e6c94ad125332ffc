"""JetStream publishes in flight side by side, their acknowledgements on one inbox. Nothing here waits for one message.

`send` returns as soon as the message is handed to the connection; `done` is called once, when the server has stored the
message or refused it. Until then the outcome is unknown, and unknown outcomes are resolved by sending the identical
message again: after `resend_after` seconds of silence, after a reconnect, or when the server says "not now". So a message
may be stored twice; every receiver of ours takes that, and the log's expected sequence refuses the second copy.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from nats.aio.msg import Msg

from esexec.domain.errors import Unavailable
from esexec.nats.connection import Connection, OutboundBufferLimitError


class ErrorDetail(msgspec.Struct):
    """The server's reason for refusing a message."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct):
    """The server's answer to a publish: `seq` if stored, else `error`."""

    seq: int = 0
    duplicate: bool = False
    error: ErrorDetail | None = None


Done = Callable[[Ack], Awaitable[None]]

WRONG_SEQUENCE = frozenset({10071, 10164})
"""Another message stands where this one was to go."""
TOO_LARGE = 10054
"""More than the server, or the stream, takes in one message."""
STARTING = 10008
"""JetStream is not there yet, or has no leader: it comes by itself."""
TOO_MANY_REQUESTS = 10167
"""The server has more to store than it gets done, and stores no more of it now."""
STREAM_FULL = 10077
"""A limit of the stream: of all messages, or of one subject."""

_decode = msgspec.json.Decoder(Ack).decode
_TICK = 0.25
_TELL_AGAIN_S = 10.0

logger = logging.getLogger("esexec.nats")


class _Flight(msgspec.Struct, gc=False):
    """A message whose outcome is unknown."""

    subject: str
    data: bytes
    headers: bytes | None
    done: Done | None
    sent: float


def _closed() -> Unavailable:
    return Unavailable("the connection was closed, and it is not known what was stored", code="closed")


class Publisher:
    """See the module. `async with`, or `start` and `close`."""

    def __init__(self, connection: Connection, *, resend_after: float = 5.0) -> None:
        self._connection = connection
        self.client = connection.client
        self._inbox = self.client.new_inbox()
        self._tokens = itertools.count(1)
        self._flights: dict[str, _Flight] = {}
        self._storing: set[asyncio.Future[Ack]] = set()
        self._is_closed = False
        self._not_now: list[str] = []
        self._told_mono = -_TELL_AGAIN_S
        self._resend_after = resend_after
        self._ticker: asyncio.Task[None] | None = None
        self._subscription: Any = None
        self._now = time.monotonic()
        self._max_payload = connection.max_payload

    async def start(self) -> "Publisher":
        self._subscription = await self._connection.listen(f"{self._inbox}.*", self._acknowledged)
        self._connection.on_reconnect(self._resend_all)
        self._ticker = asyncio.create_task(self._tick(), name="esexec-publisher")
        return self

    async def close(self) -> None:
        """Stop resending. Messages in flight keep their unknown outcome; `done` is not called for them, and `store` raises."""
        if self._ticker is not None:
            self._ticker.cancel()
        self._flights.clear()
        self._is_closed = True
        for future in self._storing:
            if not future.done():
                future.set_exception(_closed())

    async def __aenter__(self) -> "Publisher":
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    def room(self) -> int:
        """How many bytes the server takes, headers included."""
        return self._max_payload

    async def send(self, subject: str, data: bytes, headers: bytes | None = None, done: Done | None = None) -> None:
        """Publish and return; `done` hears what became of it. `headers` as `lean.header_block` makes them.

        What is too large is refused here: the server would close the connection over it, again and again.
        """
        if len(data) + (len(headers) if headers else 0) > self._max_payload:
            if done is not None:
                await done(Ack(error=ErrorDetail(400, TOO_LARGE, "message size exceeds maximum allowed")))
            return
        token = f"{self._inbox}.{next(self._tokens)}"
        self._flights[token] = _Flight(subject, data, headers, done, self._now)
        try:
            self.client.post(subject, data, token, headers)
        except OutboundBufferLimitError:
            pass  # disconnected; it is sent after the reconnect

    async def store(self, subject: str, data: bytes, headers: bytes | None = None) -> Ack:
        """Publish and wait for the outcome: for paths where a message is not one of many. Raises Unavailable (`closed`)."""
        if self._is_closed:
            raise _closed()
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._storing.add(future)
        future.add_done_callback(self._storing.discard)

        async def done(ack: Ack) -> None:
            if not future.done():
                future.set_result(ack)

        await self.send(subject, data, headers, done)
        return await future

    async def _acknowledged(self, message: Msg) -> None:
        token = message.subject
        flight = self._flights.get(token)
        if flight is None:
            return  # a second answer to a message that was sent twice
        data = message.data
        if not data:  # no responders: JetStream is not there (yet)
            self._not_now.append(token)
            return
        ack = _decode(data)
        error = ack.error
        if error is not None and error.code >= 500 and error.err_code != STREAM_FULL:
            self._not_now.append(token)
            if error.err_code != STARTING:
                self._tell(error)
            return
        del self._flights[token]
        if flight.done is not None:
            await flight.done(ack)

    def _tell(self, error: ErrorDetail) -> None:
        """The disk or a quota is full, most likely: it goes on once an operator has made room, so one must hear of it."""
        if self._now - self._told_mono >= _TELL_AGAIN_S:
            self._told_mono = self._now
            logger.error("the server does not store now, and is asked again: %s (%d)", error.description, error.err_code)

    async def _tick(self) -> None:
        while not self._connection.is_closed:
            await asyncio.sleep(_TICK)
            self._now = time.monotonic()
            if not self._connection.is_connected:
                continue
            late = self._now - self._resend_after
            again, self._not_now = self._not_now, []
            for token, flight in self._flights.items():
                if flight.sent > late:
                    break  # insertion order is the order of sending; resent ones are moved to the end
                again.append(token)
            await self._resend(again)

    async def _resend_all(self) -> None:
        self._not_now.clear()
        await self._resend(list(self._flights))

    async def _resend(self, tokens: list[str]) -> None:
        for token in tokens:
            flight = self._flights.pop(token, None)
            if flight is None:
                continue
            flight.sent = self._now
            self._flights[token] = flight
            try:
                self.client.post(flight.subject, flight.data, token, flight.headers)
            except OutboundBufferLimitError:
                return
