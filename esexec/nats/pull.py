"""A pull consumer's loop: keeps requests open for as many messages as may come, and refills them when half is used.

One `Puller` serves many consumers over one subscription. A `Tap` is one consumer's share: `capacity` messages at most are
held at a time (delivered and not yet `release`d) or asked for. nats-py's `fetch` is not used: it costs ten times as much
and leaves requests behind when it is cancelled.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from nats.aio.msg import Msg

from esexec.nats.connection import Connection, OutboundBufferLimitError

Handle = Callable[[Msg, "Tap"], Awaitable[None]]

_EXPIRES_S = 30
_SILENCE_S = _EXPIRES_S + 5
_RETRY_S = 0.25
_DRAIN_S = 2.0


class Tap:
    """One consumer's messages. `capacity` may be changed at any time; `wake` makes a change take effect at once."""

    __slots__ = ("asked", "capacity", "handle", "heard", "held", "missing", "not_before", "on_end", "paused", "puller", "reply",
                 "subject")  # fmt: skip

    def __init__(self, puller: "Puller", key: str, stream: str, consumer: str, capacity: int, handle: Handle) -> None:
        self.puller, self.handle, self.capacity = puller, handle, capacity
        self.held = 0
        """Delivered and not yet released."""
        self.asked = 0
        """Requested and not yet delivered."""
        self.heard = 0.0
        self.not_before = 0.0
        self.missing = False
        """The last request met nobody: the consumer is gone, or JetStream is not there."""
        self.paused = False
        """No request is made by itself."""
        self.on_end: Callable[[], None] | None = None
        """Told when a request ended without having brought all it asked for."""
        self.subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self.reply = f"{puller.inbox}.{key}"

    def release(self) -> bool:
        """A held message is dealt with. True if a new request is due: then `await refill()`."""
        self.held -= 1
        return self.asked < self.capacity - self.held - self.asked

    async def refill(self) -> None:
        """Ask for as many messages as may still come, if that is worth a request now."""
        wanted = self.capacity - self.held - self.asked
        if wanted <= self.asked or wanted <= 0 or self.paused or self.not_before > self.puller.now:
            return
        await self.ask(wanted)

    async def ask(self, batch: int, *, no_wait: bool = False) -> None:
        """Ask for `batch` messages: those that are there now, or (unless `no_wait`) those that come within half a minute."""
        self.asked += batch
        self.heard = self.puller.now
        try:
            self.puller.post(self.subject, self.puller.request(batch, no_wait), self.reply)
        except OutboundBufferLimitError:
            self.asked = 0  # disconnected; the reconnect refills

    @property
    def delay_s(self) -> float:
        """How long not to ask again, because the last request met nobody."""
        return max(0.0, self.not_before - self.puller.now)

    def forget(self) -> None:
        """What was asked for is gone without a word."""
        self.asked = 0
        if self.on_end is not None:
            self.on_end()

    def status(self, code: str, pending: int | None) -> None:
        """A request ended: expired (408), nothing there (404), consumer changed (409), JetStream not there (503)."""
        self.asked = 0 if pending is None else max(0, self.asked - pending)
        self.missing = code == "503"
        if code not in ("408", "404"):
            self.not_before = self.puller.now + _RETRY_S
        if self.on_end is not None:
            self.on_end()


class Puller:
    """See the module. `tap` before or after `start`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.post = connection.client.post
        self.inbox = connection.client.new_inbox()
        self.now = time.monotonic()
        self._keys = itertools.count(1)
        self._taps: dict[str, Tap] = {}
        self._by_consumer: dict[str, Tap] = {}
        self._requests: dict[tuple[int, bool], bytes] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._subscription: Any = None
        self._draining: set[asyncio.Future[Any]] = set()

    def tap(self, stream: str, consumer: str, capacity: int, handle: Handle) -> Tap:
        """Take messages from a consumer from now on (once started)."""
        key = str(next(self._keys))
        tap = Tap(self, key, stream, consumer, capacity, handle)
        self._taps[tap.reply] = tap
        self._by_consumer[f"{stream}.{consumer}"] = tap
        return tap

    async def start(self) -> None:
        self._subscription = await self._connection.listen(f"{self.inbox}.*", self._on_message)
        self._connection.on_disconnect(self._disconnected)
        self._connection.on_reconnect(self._reconnected)
        self._ticker = asyncio.create_task(self._tick(), name="esexec-puller")
        for tap in list(self._taps.values()):
            await tap.refill()

    @property
    def missing(self) -> bool:
        """Whether a consumer seems to be gone."""
        return any(tap.missing for tap in self._taps.values())

    async def ask_again(self) -> None:
        """Forget all requests and make new ones: the consumers are new."""
        self.now = time.monotonic()
        for tap in self._taps.values():
            tap.not_before, tap.missing = 0.0, False  # else those that hear nothing would be made sure of again and again
            tap.forget()
            await tap.refill()

    async def stop(self) -> None:
        """Ask for nothing more, and take what the server has sent already: unread, it would come again only after a while."""
        for tap in self._taps.values():
            tap.paused = True
        if self._ticker is not None:
            self._ticker.cancel()
        subscription, self._subscription = self._subscription, None
        if subscription is not None and self._connection.is_connected:
            draining = asyncio.ensure_future(subscription.drain())
            draining.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.wait({draining}, timeout=_DRAIN_S)

    def request(self, batch: int, no_wait: bool) -> bytes:
        body = self._requests.get((batch, no_wait))
        if body is None:
            how = {"no_wait": True} if no_wait else {"expires": _EXPIRES_S * 1_000_000_000}
            body = self._requests[batch, no_wait] = msgspec.json.encode({"batch": batch, **how})
        return body

    async def _on_message(self, message: Msg) -> None:
        reply = message.reply
        if reply.startswith("$JS.ACK."):
            tokens = reply.split(".", 4)
            tap = self._by_consumer.get(f"{tokens[2]}.{tokens[3]}") or self._by_consumer.get(_in_domain(reply))
            if tap is None:
                return
            tap.held += 1
            tap.missing = False
            tap.asked -= 1
            if tap.asked < 0:
                tap.asked = 0
            await tap.handle(message, tap)
            if tap.asked < tap.capacity - tap.held - tap.asked:
                await tap.refill()
            return
        headers = message.headers or {}
        tap = self._taps.get(message.subject)
        if tap is not None and "Status" in headers:
            pending = headers.get("Nats-Pending-Messages")
            tap.status(headers["Status"], int(pending) if pending else None)
            await tap.refill()

    async def _tick(self) -> None:
        while not self._connection.is_closed:
            await asyncio.sleep(_RETRY_S)
            self.now = time.monotonic()
            if not self._connection.is_connected:
                continue
            for tap in list(self._taps.values()):
                if tap.asked and self.now - tap.heard > _SILENCE_S:
                    tap.forget()
                await tap.refill()

    async def _disconnected(self) -> None:
        """No inbox is heard again: the server may keep our requests, and would answer them beside the new ones."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.unsubscribe()

    async def _reconnected(self) -> None:
        await self._disconnected()
        await self._change_inbox()
        await self.ask_again()

    async def recall(self) -> None:
        """Take back every request: who listens on another inbox is sent nothing more. What was sent before still arrives."""
        subscription = self._subscription
        if subscription is None or not self._connection.is_connected:
            return
        await self._change_inbox()
        draining = asyncio.ensure_future(subscription.drain())
        self._draining.add(draining)
        draining.add_done_callback(self._drained)
        await self.ask_again()

    def _drained(self, task: "asyncio.Future[Any]") -> None:
        self._draining.discard(task)
        if not task.cancelled():
            task.exception()

    async def _change_inbox(self) -> None:
        self.inbox = self._connection.client.new_inbox()
        for tap in self._taps.values():
            tap.reply = f"{self.inbox}.{tap.reply.rsplit('.', 1)[1]}"
        self._taps = {tap.reply: tap for tap in self._taps.values()}
        self._subscription = await self._connection.listen(f"{self.inbox}.*", self._on_message)


def _in_domain(reply: str) -> str:
    """The consumer's key from the longer form of the acknowledgement subject, `$JS.ACK.<domain>.<account>.<stream>.…`."""
    tokens = reply.split(".")
    return f"{tokens[4]}.{tokens[5]}" if len(tokens) >= 11 else ""


def sequence_of(reply: str) -> int:
    """The message's place in its stream: see `delivery_of`."""
    tokens = reply.split(".")
    return int(tokens[5 if len(tokens) < 11 else 7])


def delivery_of(reply: str) -> tuple[int, int]:
    """How often the message was delivered, from 1, and when it was stored, in nanoseconds since 1970 by the server's clock.

    Both stand in the subject on which it is acknowledged: `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.
    <consumer sequence>.<time>.<pending>`, behind two more tokens where the server names its domain.
    """
    tokens = reply.split(".")
    at = 4 if len(tokens) < 11 else 6
    return int(tokens[at]), int(tokens[at + 3])
