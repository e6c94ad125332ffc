"""The hot path through nats-py's client: messages out without a coroutine each, messages in without a queue and a task each.

`post` is `publish` without its checks: subjects here are made of checked ids. `listen` is `subscribe` whose callback runs in the
reader itself. Such a callback must never wait for another message of the same connection: the reader cannot read it.
Both use methods and fields that nats-py keeps for itself (docs/adr has the figures); `test_connection.py` fails if a new
version no longer has them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.subscription import Subscription
from nats.errors import OutboundBufferLimitError

from esexec.nats.patience import PatientClient

logger = logging.getLogger("esexec.nats")


class _Flushed:
    """Stands where nats-py's flusher expects somebody who waits for the flush: nobody does."""

    @staticmethod
    def done() -> bool:
        return True


_NOBODY: Any = _Flushed()


class Message:
    """A message as `listen` hands it over: what nats-py's `Msg` has, headers read only if somebody asks for them."""

    __slots__ = ("_client", "_raw_headers", "data", "reply", "subject")

    def __init__(self, client: "LeanClient", subject: str, reply: str, data: bytes, raw_headers: bytes | None) -> None:
        self._client, self.subject, self.reply, self.data, self._raw_headers = client, subject, reply, data, raw_headers

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers; the status line of a message without content is under `Status` and `Description`."""
        return None if self._raw_headers is None else read_headers(self._raw_headers)

    async def respond(self, data: bytes) -> None:
        """Publish to `reply`. Nothing happens while the server is away."""
        try:
            self._client.post(self.reply, data)
        except OutboundBufferLimitError:
            logger.debug("no answer sent, no server: %s", self.reply)


Listener = Callable[[Any], Awaitable[None]]
"""Takes a `Message`, or a `Msg` of nats-py, which it can be used like."""


class LeanClient(PatientClient):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: dict[int, Listener] = {}

    def post(self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Put a message into the buffer that is written next. Raises OutboundBufferLimitError while the server is away."""
        if self._status != self.CONNECTED or self._flush_queue is None:
            raise OutboundBufferLimitError
        if headers is None:
            command = b"%b%b\r\n" % (f"PUB {subject} {reply} {len(data)}\r\n".encode(), data)
        else:
            head = _header_block(headers)
            sizes = f"HPUB {subject} {reply} {len(head)} {len(head) + len(data)}\r\n".encode()
            command = b"%b%b%b\r\n" % (sizes, head, data)
        self._pending.append(command)
        self._pending_data_size += len(command)
        if self._flusher_task is None or self._flusher_task.done():
            # nats-py's flusher ends in a reconnect and is not made anew: it then writes in each `publish` itself.
            self._flusher_task = asyncio.get_running_loop().create_task(self._flusher())
        if self._flush_queue.empty():
            self._flush_queue.put_nowait(_NOBODY)

    async def listen(self, subject: str, listener: Listener) -> Subscription:
        """Call `listener` for each message, in the reader."""
        subscription = await self.subscribe(subject, cb=listener, pending_msgs_limit=-1, pending_bytes_limit=-1)
        self._listeners[subscription._id] = listener
        return subscription

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._listeners.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        listener = self._listeners.get(sid)
        if listener is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        try:
            await listener(Message(self, subject.decode(), reply.decode(), data, headers))
        except Exception as error:  # one bad message must not stop the reader
            await self._error_cb(error)


def _header_block(headers: dict[str, str]) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a header's value is one line")
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def read_headers(raw: bytes) -> dict[str, str]:
    """Headers from the wire, first line included."""
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    headers = {}
    status = first[8:].strip()
    if status:
        headers["Status"], _, headers["Description"] = status.partition(" ")
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers
