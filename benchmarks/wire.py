"""What `raw` sends and takes messages with: pipelined publishes, callbacks, refilled pulls. As lean as nats-py can be."""

import itertools
from collections.abc import Awaitable, Callable

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.script import MARK, Template

_EXPIRES_NS = 30_000_000_000
Stored = Callable[[int], Awaitable[None]]


class _Ack(msgspec.Struct):
    seq: int = 0
    error: msgspec.Raw | None = None


_decode = msgspec.json.Decoder(_Ack).decode


async def connect(url: str) -> Client:
    return await nats.connect(url, skip_subject_validation=True)


async def on_every(client: Client, subject: str, cb: Callable[[Msg], Awaitable[None]]) -> None:
    await client.subscribe(subject, cb=cb, pending_msgs_limit=-1, pending_bytes_limit=-1)


class Form:
    """A template, ready to be filled in."""

    __slots__ = ("data", "headers", "subject")

    def __init__(self, template: Template) -> None:
        self.subject = template.subject.split(MARK)
        self.data = [part.encode() for part in template.data.split(MARK)]
        self.headers = {name: value.split(MARK) for name, value in template.headers.items()}

    def fill(self, execution: str) -> tuple[str, bytes]:
        return execution.join(self.subject), execution.encode().join(self.data)

    def fill_headers(self, execution: str) -> dict[str, str]:
        return {name: execution.join(parts) for name, parts in self.headers.items()}


class Publisher:
    """Publishes side by side, their acknowledgements on one inbox. `stored` is called with the sequence."""

    def __init__(self, client: Client) -> None:
        self.client, self._inbox, self._ids = client, client.new_inbox(), itertools.count(1)
        self._waiting: dict[str, Stored | None] = {}

    async def start(self) -> "Publisher":
        await on_every(self.client, f"{self._inbox}.*", self._acknowledged)
        return self

    async def send(self, subject: str, data: bytes, headers: dict[str, str] | None, stored: Stored | None) -> None:
        reply = f"{self._inbox}.{next(self._ids)}"
        self._waiting[reply] = stored
        await self.client.publish(subject, data, reply, headers)

    async def _acknowledged(self, message: Msg) -> None:
        stored = self._waiting.pop(message.subject)
        ack = _decode(message.data)
        assert ack.error is None, bytes(ack.error)
        if stored is not None:
            await stored(ack.seq)


class Puller:
    """Keeps a pull open on every consumer, over one subscription, and refills it when half is used."""

    def __init__(self, client: Client, handle: Callable[[Msg], Awaitable[None]]) -> None:
        self._client, self._handle, self._inbox = client, handle, client.new_inbox()
        self._left: dict[str, int] = {}
        self._batch: dict[str, int] = {}

    async def start(self, consumers: list[tuple[str, str, int]]) -> None:
        """`consumers`: stream, name, and how many messages to ask for."""
        await on_every(self._client, f"{self._inbox}.*.*", self._on_message)
        for stream, name, batch in consumers:
            self._batch[f"{stream}.{name}"] = batch
            await self._ask(f"{stream}.{name}", 0)

    async def _ask(self, consumer: str, left: int) -> None:
        batch = self._batch[consumer]
        self._left[consumer] = batch
        request = b'{"batch":%d,"expires":%d}' % (batch - left, _EXPIRES_NS)
        await self._client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{consumer}", request, f"{self._inbox}.{consumer}")

    async def _on_message(self, message: Msg) -> None:
        if not message.reply:  # the request has expired
            await self._ask(message.subject.removeprefix(f"{self._inbox}."), 0)
            return
        _, _, stream, name, _ = message.reply.split(".", 4)
        consumer = f"{stream}.{name}"
        left = self._left[consumer] = self._left[consumer] - 1
        await self._handle(message)
        if left < self._batch[consumer] // 2:
            await self._ask(consumer, left)
