"""Reads of stored messages, many at a time: direct gets (any replica, fast) and leader reads (certain).

`multi_last` stops silently at 64 MB and refuses over 1024 subjects; a read is complete only when the last message's
`Nats-Num-Pending` is 0. Both are seen here, so callers get everything or an exception.
"""

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from esexec.domain.errors import Unavailable
from esexec.nats.connection import ApiError, Connection, OutboundBufferLimitError
from esexec.nats.lean import Message as Heard
from esexec.nats.lean import read_headers

_TIMEOUT_S = 5.0
_PAGE = 1000
"""Messages that are asked for by name at once: the server takes 1024."""
_SILENCE_S = 2.0
"""An answer of which nothing more comes for so long is lost; one that is long in coming is not."""


_NOT_THERE: Final = frozenset({10037, 10043})
"""No message found, by its subject or by its sequence."""


_NO_HEADERS: Final[Mapping[str, str]] = {}
_CONTENT: Final = b"NATS/1.0\r\n"
"""How the headers of a stored message begin; those of a message that only says how it went have a status there."""


class Message(NamedTuple):
    """A stored message. `raw_headers`: its own, and those that the server adds to an answer; empty where they are not known."""

    subject: str
    sequence: int
    data: bytes
    raw_headers: bytes = b""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, read."""
        return read_headers(self.raw_headers) if self.raw_headers else _NO_HEADERS


class TooMany(Exception):
    """The request matches more than one answer may hold. `messages`: what it held, the first in stream order; perhaps none."""

    def __init__(self, messages: list[Message]) -> None:
        super().__init__("more than one answer may hold")
        self.messages = messages


class _Collector:
    __slots__ = ("future", "messages")

    def __init__(self, future: "asyncio.Future[list[Message]]") -> None:
        self.future, self.messages = future, list[Message]()


class DirectReader:
    """Direct gets over one inbox. Create with `await DirectReader(connection).start()`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.client.new_inbox()
        self._tokens = itertools.count(1)
        self._collectors: dict[str, _Collector] = {}

    async def start(self) -> "DirectReader":
        await self._connection.listen(f"{self._inbox}.*", self._on_message)
        return self

    async def last_of_each(self, stream: str, subjects: list[str], timeout: float = _TIMEOUT_S) -> list[Message]:
        """The last message of every subject that matches, complete, in stream order.

        Raises `TooMany` over 1024 subjects or 64 MB, `Unavailable` if nobody answers. An outage during the call is waited out.
        """
        body = msgspec.json.encode({"multi_last": subjects, "batch": 1024})
        return await self._ask(f"$JS.API.DIRECT.GET.{stream}", body, timeout)

    async def all_of(self, stream: str, subjects: list[str]) -> list[Message]:
        """The same for subjects by name, however many and however large, in no particular order."""
        if len(subjects) <= _PAGE:
            try:
                return await self.last_of_each(stream, subjects) if subjects else []
            except TooMany:
                pass
        half = len(subjects) // 2
        return await self.all_of(stream, subjects[:half]) + await self.all_of(stream, subjects[half:])

    async def from_first(
        self,
        stream: str,
        pattern: str,
        most: int,
        *,
        first: int | datetime = 1,
        most_bytes: int = 0,
        timeout: float = _TIMEOUT_S,
    ) -> list[Message]:
        """The first `most` messages that match, from sequence `first` on (or from what was stored at that time), in stream order;
        `most_bytes` may end them sooner.

        Raises `Unavailable` if nobody answers.
        """
        start = {"start_time": first.astimezone(UTC).isoformat()} if isinstance(first, datetime) else {"seq": first}
        body = msgspec.json.encode(
            start | {"next_by_subj": pattern, "batch": most} | ({"max_bytes": most_bytes} if most_bytes else {})
        )
        try:
            return await self._ask(f"$JS.API.DIRECT.GET.{stream}", body, timeout)
        except TooMany as more:
            return more.messages

    async def _ask(self, subject: str, body: bytes, timeout: float) -> list[Message]:
        async with self._connection.questions:
            return await self._answered(subject, body, timeout)

    async def _answered(self, subject: str, body: bytes, timeout: float) -> list[Message]:
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            token = f"{self._inbox}.{next(self._tokens)}"
            collector = _Collector(asyncio.get_running_loop().create_future())
            self._collectors[token] = collector
            try:
                self._connection.client.post(subject, body, token)
                return await _collected(collector)
            except (TimeoutError, OutboundBufferLimitError, _NotNow):
                if self._connection.is_closed:
                    raise Unavailable("the connection is closed", code="closed") from None
                if asyncio.get_running_loop().time() > deadline:
                    raise Unavailable(f"no answer from the log ({subject}) in {timeout:g} s", code="log_unavailable") from None
                await asyncio.sleep(0.05)
            finally:
                self._collectors.pop(token, None)

    async def _on_message(self, message: Heard) -> None:
        collector = self._collectors.get(message.subject) or self._collectors.get(message.reply)
        if collector is None or collector.future.done():
            return
        raw = message.raw_headers or b""
        if raw.startswith(_CONTENT):
            subject = message.header(b"Nats-Subject") or ""
            collector.messages.append(Message(subject, message.number(b"Nats-Sequence"), message.data, raw))
            return
        headers = read_headers(raw)
        status = headers.get("Status", "")
        if status == "204":
            collector.messages.sort(key=lambda m: m.sequence)
            if int(headers.get("Nats-Num-Pending", "0")):
                collector.future.set_exception(TooMany(collector.messages))
            else:
                collector.future.set_result(collector.messages)
        elif status == "404":
            collector.future.set_result([])
        elif status == "413":
            collector.future.set_exception(TooMany([]))
        else:
            collector.future.set_exception(_NotNow(status))


class _NotNow(Exception):
    """The stream has no leader, or there is no JetStream, at this moment."""


async def _collected(collector: _Collector) -> list[Message]:
    """What was asked for. Raises TimeoutError once nothing of it has come for `_SILENCE_S`."""
    heard = -1
    while len(collector.messages) > heard:
        heard = len(collector.messages)
        if (await asyncio.wait({collector.future}, timeout=_SILENCE_S))[0]:
            return collector.future.result()
    raise TimeoutError


async def read_leader(connection: Connection, stream: str, subject: str) -> Message | None:
    """The last message on a subject as the stream's leader knows it; None: there is none, for certain, at this moment."""
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    except ApiError as error:
        if error.err_code == 10037:  # no message found
            return None
        raise
    return _message(answer["message"])


def _message(found: dict[str, Any]) -> Message:
    """A message from an answer of the leader."""
    raw_headers = base64.b64decode(found.get("hdrs", ""))
    return Message(found["subject"], found["seq"], base64.b64decode(found.get("data", "")), raw_headers)


async def first_from(connection: Connection, stream: str, pattern: str, sequence: int) -> int | None:
    """The sequence of the first message on a subject that matches, at this one or after it, as the leader knows it."""
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", {"seq": sequence, "next_by_subj": pattern})
    except ApiError as error:
        if error.err_code == 10037:
            return None
        raise
    found: int = answer["message"]["seq"]
    return found


async def waits_since(connection: Connection, stream: str, subject: str) -> datetime | None:
    """When the first message on a subject was stored, by the server's clock; None: there is none, for certain, at this moment."""
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", {"seq": 1, "next_by_subj": subject})
    except ApiError as error:
        if error.err_code == 10037:
            return None
        raise
    return datetime.fromisoformat(answer["message"]["time"]).astimezone(UTC)


async def stored_at(connection: Connection, stream: str, sequence: int) -> tuple[Message, datetime] | None:
    """The message of a sequence, and when the server stored it; None: it is not there (any more)."""
    try:
        found: dict[str, Any] = (await connection.api(f"STREAM.MSG.GET.{stream}", {"seq": sequence}))["message"]
    except ApiError as error:
        if error.err_code in _NOT_THERE:
            return None
        raise
    return _message(found), msgspec.convert(found["time"], datetime)


async def first_since(connection: Connection, stream: str, time: datetime) -> int | None:
    """The sequence of the first message that was stored at that time or later."""
    try:
        found = await connection.api(f"STREAM.MSG.GET.{stream}", {"start_time": time.astimezone(UTC).isoformat()})
    except ApiError as error:
        if error.err_code in _NOT_THERE:
            return None
        raise
    return int(found["message"]["seq"])


async def subjects_of(connection: Connection, stream: str, pattern: str) -> list[str]:
    """Every subject of a stream that matches."""
    return [subject async for page in subject_pages(connection, stream, pattern) for subject in page]


async def subject_pages(connection: Connection, stream: str, pattern: str) -> AsyncIterator[list[str]]:
    """The same in pages of up to 100,000: there may be more than one wants to hold."""
    seen = 0
    while True:
        body = {"subjects_filter": pattern, "offset": seen}
        answer = await connection.api(f"STREAM.INFO.{stream}", body)
        page = list(answer["state"].get("subjects") or ())
        seen += len(page)
        if page:
            yield page
        if not page or seen >= answer.get("total", seen):
            return


async def messages_in(connection: Connection, stream: str) -> int:
    """How many messages a stream holds."""
    answer = await connection.api(f"STREAM.INFO.{stream}")
    return int(answer["state"]["messages"])


async def last_in(connection: Connection, stream: str) -> int:
    """The sequence of the last message of a stream, also if it is gone; 0: there never was one."""
    answer = await connection.api(f"STREAM.INFO.{stream}")
    return int(answer["state"]["last_seq"])
