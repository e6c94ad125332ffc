"""What stands between the roles, in memory: messages that are heard, messages that are kept until somebody has dealt with them,
timers. It takes the place of a connection and of a publisher, for those parts of the engine that need one.

Commands and what comes to INBOX are kept as the server keeps them: delivered, acknowledged, delivered again. Whoever reads them
is the engine's own intake.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec

from esexec.domain import limits
from esexec.domain.errors import Unavailable
from esexec.nats.lean import LeanClient, Message
from esexec.nats.publisher import Ack
from esexec.nats.subjects import Subjects
from esexec.testing.clock import VirtualWorld

Listener = Callable[[Any], Awaitable[None]]
Deliver = Callable[["Parcel"], Awaitable[None]]


class Parcel:
    """A message that is kept. Of a delivery `reply` says where it stands, how often it was delivered, and when it was stored."""

    __slots__ = ("data", "deliveries", "key", "reply", "sequence", "subject", "time_ns")

    def __init__(self, subject: str, data: bytes) -> None:
        self.subject, self.data = subject, data
        self.reply, self.sequence, self.deliveries, self.time_ns, self.key = "", 0, 0, 0, ""


class _Subscription:
    def __init__(self, wire: "Wire", subject: str, listener: Listener) -> None:
        self.tokens, self.listener, self._wire = subject.split("."), listener, wire

    async def unsubscribe(self) -> None:
        if self in self._wire.subscriptions:
            self._wire.subscriptions.remove(self)


class Wire:
    """See the module. `deliver` takes a kept message to the executor that is alive."""

    is_connected, is_closed, max_payload = True, False, limits.message_bytes
    in_flight = 0

    def __init__(self, loop: asyncio.AbstractEventLoop, world: VirtualWorld, subjects: Subjects) -> None:
        self.loop, self.world, self.subjects = loop, world, subjects
        self.subscriptions: list[_Subscription] = []
        self.kept: dict[int, Parcel] = {}
        """Commands, reports and the like that nobody has acknowledged, by their place; in the order in which they were stored."""
        self.resting: dict[int, asyncio.TimerHandle] = {}
        """Those that were handed back, to be delivered again later."""
        self.timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self.last: dict[str, Message] = {}
        """What is found again by its subject: results that are cached."""
        self.deliver: Deliver = _nowhere
        self.failures: list[BaseException] = []
        """Faults of the engine itself, or of this kit."""
        self._sequence = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def client(self) -> "Wire":
        return self

    def spawn(self, work: Any) -> None:
        """Do it as soon as what came before has had its turn."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    # Heard, or not ---------------------------------------------------------------------------------------------------------

    async def listen(self, subject: str, listener: Listener) -> _Subscription:
        subscription = _Subscription(self, subject, listener)
        self.subscriptions.append(subscription)
        return subscription

    async def subscribe(self, subject: str, cb: Listener, *, queue: str = "") -> _Subscription:
        return await self.listen(subject, cb)

    def on_reconnect(self, callback: object) -> None:
        """It never breaks."""

    async def request(self, subject: str, data: bytes, timeout: float = 5.0, headers: dict[str, str] | None = None) -> Any:
        raise Unavailable(f"nobody answers on {subject}", hint="in a virtual engine no projections run")

    async def gather(self, subject: str, data: bytes, timeout: float = 5.0, quiet_s: float = 0.25) -> list[Any]:
        return [await self.request(subject, data)]

    def post(self, subject: str, data: bytes, reply: str = "", headers: bytes | None = None) -> None:
        """A word on a delivery, or something that whoever listens hears."""
        if subject.startswith("$JS.ACK."):
            self._answered(subject, data)
            return
        message = Message(cast(LeanClient, self), subject, reply, data, headers)
        if subject.startswith(self.subjects.cache("")):
            self.last[subject] = message
        else:
            tokens = subject.split(".")
            for one in self.subscriptions:
                if _matches(one.tokens, tokens):
                    self.spawn(one.listener(message))

    # Kept ------------------------------------------------------------------------------------------------------------------

    async def send(self, subject: str, data: bytes, headers: bytes | None = None, done: Any = None) -> None:
        """`Publisher.send`."""
        ack = await self.store(subject, data, headers)
        if done is not None:
            await done(ack)

    async def store(self, subject: str, data: bytes, headers: bytes | None = None) -> Ack:
        """`Publisher.store`: keep a command, or what is for INBOX, and deliver it."""
        self.keep(subject, data)
        return Ack(self._sequence)

    def keep(self, subject: str, data: bytes) -> None:
        product, namespace, kind, *rest = subject.split(".")
        stored = {"cmd": "commands", "in": "inbox"}[kind]
        parcel = Parcel(".".join([product, namespace, stored, "0", *rest]), data)
        self._sequence += 1
        parcel.sequence, parcel.time_ns, parcel.key = self._sequence, round(self.world.now().timestamp() * 1e9), stored
        self.kept[parcel.sequence] = parcel
        self._deliver(parcel)

    def deliver_again(self) -> None:
        """The executor that had them died: each that is not resting comes once more."""
        for parcel in list(self.kept.values()):
            if parcel.sequence not in self.resting:
                self._deliver(parcel)

    def _deliver(self, parcel: Parcel) -> None:
        self.resting.pop(parcel.sequence, None)
        parcel.deliveries += 1
        place = f"{parcel.sequence}.{parcel.sequence}.{parcel.time_ns}.0"
        parcel.reply = f"$JS.ACK.{parcel.key}.p0.{parcel.deliveries}.{place}"
        self.spawn(self._hand_over(parcel, parcel.reply))

    async def _hand_over(self, parcel: Parcel, reply: str) -> None:
        if parcel.reply == reply:  # else it was delivered again before it came there
            await self.deliver(parcel)

    def _answered(self, reply: str, word: bytes) -> None:
        parcel = self.kept.get(int(reply.split(".")[5]))
        if parcel is None or parcel.reply != reply:  # it was delivered again since
            return
        if word.startswith(b"-NAK"):
            delay_s = msgspec.json.decode(word[5:])["delay"] / 1e9
            self.resting[parcel.sequence] = self.loop.call_later(delay_s, self._deliver, parcel)
        else:
            del self.kept[parcel.sequence]

    def first_command(self, entity: str, place: int) -> int | None:
        """See `executor.turns.FirstCommand`."""
        return min((one.sequence for one in self._commands(entity) if one.sequence >= place), default=None)

    def start_waits(self, entity: str) -> bool:
        return any(one.subject.endswith(".start") for one in self._commands(entity))

    def _commands(self, entity: str) -> list[Parcel]:
        return [one for one in self.kept.values() if one.key == "commands" and one.subject.split(".")[4] == entity]

    # Timers ----------------------------------------------------------------------------------------------------------------

    def set_timer(self, entity: str, name: str, at_s: float) -> None:
        """Set again it takes the place of the one before."""
        self.clear_timer(entity, name)

        def fire() -> None:
            del self.timers[entity, name]
            self.keep(self.subjects.due_in(entity, name), b"")

        self.timers[entity, name] = self.loop.call_at(max(at_s, self.loop.time()), fire)

    def clear_timer(self, entity: str, name: str) -> None:
        if (timer := self.timers.pop((entity, name), None)) is not None:
            timer.cancel()


def _matches(wanted: list[str], tokens: list[str]) -> bool:
    if wanted[-1] == ">":
        return len(tokens) >= len(wanted) and all(a in ("*", b) for a, b in zip(wanted[:-1], tokens, strict=False))
    return len(wanted) == len(tokens) and all(a in ("*", b) for a, b in zip(wanted, tokens, strict=True))


async def _nowhere(parcel: Parcel) -> None:
    """Nobody reads yet."""
