"""The hot path through nats-py's client: messages out without a coroutine each, messages in without a queue and a task each.

`post` is `publish` without its checks: subjects here are made of checked ids. `listen` is `subscribe` whose callback runs in the
reader itself. Such a callback must never wait for another message of the same connection: the reader cannot read it.
Both use methods and fields that nats-py keeps for itself (docs/adr has the figures); `test_connection.py` fails if a new
version no longer has them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec
from nats.aio.subscription import Subscription
from nats.errors import OutboundBufferLimitError, ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from esexec.nats.patience import PatientClient

logger = logging.getLogger("esexec.nats")


_H = ord("H")


_DIGITS = 18
"""Longer numbers are no places in a stream."""


class Message(msgspec.Struct, gc=False):
    """A message as `listen` hands it over: what nats-py's `Msg` has, headers read only if somebody asks for them."""

    client: "LeanClient"
    subject: str
    reply: str
    data: bytes
    raw_headers: bytes | None

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers; the status line of a message without content is under `Status` and `Description`."""
        return None if self.raw_headers is None else read_headers(self.raw_headers)

    def header(self, name: bytes) -> str | None:
        """One header, without reading the others: the last of that name, as the server adds its own at the end."""
        raw = self.raw_headers
        at = raw.rfind(b"\r\n%b:" % name) if raw is not None else -1
        if raw is None or at < 0:
            return None
        return raw[at + 3 + len(name) : raw.find(b"\r\n", at + 2)].strip().decode("utf-8", "replace")

    def number(self, name: bytes) -> int:
        """One header that is a number; 0 if it is none. Anybody may have written it."""
        said = self.header(name) or ""
        return int(said) if said.isascii() and said.isdecimal() and len(said) <= _DIGITS else 0

    async def respond(self, data: bytes) -> None:
        """Publish to `reply`. Nothing happens while the server is away."""
        try:
            self.client.post(self.reply, data)
        except OutboundBufferLimitError:
            logger.debug("no answer sent, no server: %s", self.reply)


Listener = Callable[[Any], Awaitable[None]]
"""Takes a `Message`."""


class LeanClient(PatientClient):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = LeanParser(self)
        self._listeners: dict[int, Listener] = {}
        self.reading = False
        """Messages are being handed to listeners: what they post is written when the last has returned."""
        self._write_due = False
        self._resting: asyncio.TimerHandle | None = None

    def post(self, subject: str, data: bytes, reply: str = "", headers: bytes | None = None) -> None:
        """Put a message into the buffer that is written next; `headers` as `header_block` makes them.

        Raises OutboundBufferLimitError while the server is away.
        """
        if self._status != self.CONNECTED:
            raise OutboundBufferLimitError
        if headers is None:
            command = b"%b%b\r\n" % (f"PUB {subject} {reply} {len(data)}\r\n".encode(), data)
        else:
            sizes = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(data)}\r\n".encode()
            command = b"%b%b%b\r\n" % (sizes, headers, data)
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self.reading and not self._write_due:
            self._write_due = True
            asyncio.get_running_loop().call_soon(self.write_posted)

    def write_posted(self) -> None:
        """Hand what was posted to the socket: all of it in one call."""
        self._write_due = False
        if not self._pending or self._status != self.CONNECTED or self._transport is None:
            return
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        if writer is not None and writer.transport.is_closing():
            return  # the reader is about to see it; what is pending goes out after the reconnect
        posted, self._pending = self._pending, []
        self._pending_data_size = 0
        self._transport.writelines(posted)

    def rest(self, seconds: float) -> None:
        """Read nothing for so long; what comes waits in the socket. A new connection is not concerned."""
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        if writer is None or writer.transport.is_closing():
            return
        if self._resting is not None:
            self._resting.cancel()
        transport = cast(asyncio.Transport, writer.transport)
        transport.pause_reading()
        self._resting = asyncio.get_running_loop().call_later(seconds, _resume, transport)

    async def listen(self, subject: str, listener: Listener) -> Subscription:
        """Call `listener` for each message, in the reader."""
        subscription = await self.subscribe(subject, cb=listener, pending_msgs_limit=-1, pending_bytes_limit=-1)
        self._listeners[subscription._id] = listener
        return subscription

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._listeners.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """A message that nobody listens for, or that came in parts."""
        listener = self._listeners.get(sid)
        if listener is not None:
            self.count(1, len(data))
        try:
            if listener is None:
                subject, reply = as_text(subject).encode(), as_text(reply).encode()
                await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]
            else:
                await listener(Message(self, as_text(subject), as_text(reply), data, headers))
        except Exception as error:
            await self.went_wrong(error)

    def count(self, messages: int, size: int) -> None:
        """So many messages came, of `size` bytes without their headers."""
        self.stats["in_msgs"] += messages
        self.stats["in_bytes"] += size

    async def went_wrong(self, error: Exception) -> None:
        """A listener raised: one bad message must not stop the reader."""
        await self._error_cb(error)


def _resume(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.resume_reading()


def as_text(subject: bytes) -> str:
    """A subject: bytes that are no text, which anybody can put there, are written out, and so are no token of ours."""
    return subject.decode("utf-8", "backslashreplace")


class LeanParser(Parser):
    """nats-py's parser, with a short way for messages that lie whole in the buffer: nearly all of them."""

    async def parse(self, data: bytes = b"") -> None:
        if self.state != AWAITING_CONTROL_LINE:
            await super().parse(data)
            return
        if self.buf:
            data = bytes(self.buf) + data
            self.buf.clear()
        self.nc.reading = True
        try:
            rest = await self._hand_over(data)
        finally:
            self.nc.reading = False
        self.nc.write_posted()
        if rest.startswith((b"MSG ", b"HMSG ")):
            self.buf.extend(rest)  # the rest of it is on its way
        elif rest:
            await super().parse(rest)

    async def _hand_over(self, data: bytes) -> bytes:
        """Hand over the messages at the beginning of `data` that are whole, and give what follows."""
        client = self.nc
        listeners = client._listeners
        at = messages = heard = 0
        while data.startswith((b"MSG ", b"HMSG "), at):
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                break
            with_headers = data[at] == _H
            fields = data[at + 5 if with_headers else at + 4 : line_end].split()
            try:
                size, sid = int(fields[-1]), int(fields[1])
                start, headers_size = line_end + 2, int(fields[-2]) if with_headers else 0
            except (ValueError, IndexError):
                raise ProtocolError("nats: malformed MSG") from None
            end = start + size
            if len(data) < end + 2:
                break
            reply = fields[2] if len(fields) == (5 if with_headers else 4) else b""
            headers = data[start : start + headers_size] if with_headers else None
            at = end + 2
            listener = listeners.get(sid)
            if listener is None:
                await client._process_msg(sid, fields[0], reply, data[start + headers_size : end], headers)
                continue
            messages += 1
            heard += size - headers_size
            try:
                subject, answer_to = fields[0].decode(), reply.decode()
            except UnicodeDecodeError:
                subject, answer_to = as_text(fields[0]), as_text(reply)
            try:
                await listener(Message(client, subject, answer_to, data[start + headers_size : end], headers))
            except Exception as error:
                await client.went_wrong(error)
        client.count(messages, heard)
        return data[at:]


def header_block(headers: Mapping[str, str]) -> bytes:
    """The headers as they travel. Raises ValueError for a value of more than one line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a header's value is one line")
    return f"NATS/1.0\r\n{lines}\r\n".encode()


_OF_THE_FIRST_LINE = ("Status", "Description")


def read_headers(raw: bytes) -> dict[str, str]:
    """Headers from the wire, first line included, of which alone a status is taken: the others may be anybody's."""
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    headers = {}
    status = first[8:].strip()
    if status:
        headers["Status"], _, headers["Description"] = status.partition(" ")
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and (name := name.strip()) not in _OF_THE_FIRST_LINE:
            headers[name] = value.strip()
    return headers
