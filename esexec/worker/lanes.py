"""Where attempts wait: one lane per queue and priority. The highest, then oldest waiting attempt starts when a slot frees.

The usual queue has one lane: a pull for the free slots stays open, and nothing is ever asked twice. As soon as a queue has
several, the lanes are swept: a freed slot asks them from the highest down, without waiting. Only when all are empty do
waiting pulls stay open on all of them. They are taken back when the last slot is used, because whatever came then would have
to be handed back, and each time that counts as a lost worker; the little that was under way is handed back at once.
"""

import asyncio
from collections.abc import Awaitable, Callable

from esexec.nats.connection import Msg
from esexec.nats.pull import Puller, Tap
from esexec.nats.subjects import Subjects

Take = Callable[[Msg, "Queue"], Awaitable[None]]


class Lane:
    """One priority of a queue."""

    __slots__ = ("empty", "ended", "priority", "queue", "tap", "waits")

    def __init__(self, queue: "Queue", priority: int, tap: Tap) -> None:
        self.queue, self.priority, self.tap = queue, priority, tap
        self.ended = asyncio.Event()
        """The last request has brought all it asked for, or will bring no more."""
        self.empty = False
        """It brought less than it asked for."""
        self.waits = False
        """A waiting pull is open."""
        tap.on_end = self._on_end

    def _on_end(self) -> None:
        self.empty = True
        self.ended.set()
        if self.waits:
            self.waits = False
            self.queue.look_again(self.tap.delay_s)


class Queue:
    """A queue that a worker serves with `slots` attempts at a time. `take` gets each attempt that has a slot.

    `puller` is its own: what it recalls is nobody else's.
    """

    def __init__(self, name: str, slots: int, subjects: Subjects, puller: Puller, take: Take) -> None:
        self.name, self.slots = name, slots
        self.used = 0
        self._subjects, self._puller, self._take = subjects, puller, take
        self._lanes: list[Lane] = []
        self._wake = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def free(self) -> int:
        return self.slots - self.used

    @property
    def missing(self) -> list[int]:
        """The priorities whose consumer seems to be gone."""
        return [lane.priority for lane in self._lanes if lane.tap.missing]

    async def add_lane(self, priority: int) -> None:
        """Serve this priority too. Called again for one that is served, it does nothing."""
        if self._stopped or any(lane.priority == priority for lane in self._lanes):
            return
        consumer = self._subjects.lane_consumer(self.name, priority)
        tap = self._puller.tap(self._subjects.tasks_stream, consumer, self.slots, self._arrived)
        self._lanes.append(Lane(self, priority, tap))
        self._lanes.sort(key=lambda lane: -lane.priority)
        if len(self._lanes) == 1:
            await tap.refill()
            return
        for lane in self._lanes:
            lane.tap.paused = True  # from now on only the sweeper asks
        if self._sweeper is None:
            for lane in self._lanes:
                lane.waits = lane.tap.asked > 0
            self._sweeper = asyncio.create_task(self._sweep(), name=f"esexec-lanes-{self.name}")
            await self._puller.recall()  # of what the single lane was asked for
        self._wake.set()

    async def freed(self) -> None:
        """An attempt has ended: its slot may be used again."""
        self.used -= 1
        if self._sweeper is not None:
            self._wake.set()
        elif self._lanes:
            tap = self._lanes[0].tap
            if tap.release() and not self._stopped:
                await tap.refill()

    async def _arrived(self, message: Msg, tap: Tap) -> None:
        if self._sweeper is not None:
            tap.held = 0  # the sweeper counts slots itself
            lane = self._lane_of(tap)
            if tap.asked == 0:
                lane.ended.set()
                if lane.waits:
                    lane.waits = False
                    self._wake.set()  # there may be more where this came from
        if self.used >= self.slots or self._stopped:
            await message.respond(b"-NAK")
            if self._sweeper is None:
                tap.release()
            return
        self.used += 1
        if self.used == self.slots and any(lane.waits for lane in self._lanes):
            await self._puller.recall()
        await self._take(message, self)

    def _lane_of(self, tap: Tap) -> Lane:
        return next(lane for lane in self._lanes if lane.tap is tap)

    async def stop(self) -> None:
        """Take nothing more."""
        self._stopped = True
        if self._sweeper is not None:
            self._sweeper.cancel()

    def look_again(self, delay_s: float) -> None:
        """A waiting pull is over: sweep again."""
        if delay_s > 0:
            asyncio.get_running_loop().call_later(delay_s, self._wake.set)
        else:
            self._wake.set()

    async def _sweep(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._fill_slots()
            if self.free > 0 and not self._wake.is_set():
                for lane in list(self._lanes):
                    if not lane.tap.asked:
                        lane.waits = True
                        await lane.tap.ask(1)

    async def _fill_slots(self) -> None:
        """Ask the lanes from the highest down. One that gave all it was asked for may have more, so then from the top again."""
        at = 0
        while at < len(self._lanes) and self.free > 0:
            lane = self._lanes[at]
            at += 1
            if lane.tap.asked:
                continue  # a waiting pull is open: the lane is empty
            lane.ended.clear()
            lane.empty = False
            await lane.tap.ask(self.free, no_wait=True)
            await self._answered(lane)
            if not lane.empty:
                at = 0

    async def _answered(self, lane: Lane) -> None:
        """The lane has given what it has, or said that it is empty; a lost answer costs a second."""
        try:
            async with asyncio.timeout(1.0):
                await lane.ended.wait()
        except TimeoutError:
            lane.tap.asked = 0
            lane.empty = True
