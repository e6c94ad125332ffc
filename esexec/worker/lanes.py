"""Where attempts wait: one lane per queue and priority. The highest, then oldest waiting attempt starts when a slot frees.

The usual queue has one lane: a pull for the free slots stays open, and nothing is ever asked twice. As soon as a queue has
several, the lanes are swept: a freed slot asks them from the highest down, without waiting. Only when all are empty do
waiting pulls stay open on all of them; what then comes beyond the free slots is handed back at once.
"""

import asyncio
from collections.abc import Awaitable, Callable

from esexec.nats.connection import Msg
from esexec.nats.pull import Puller, Tap
from esexec.nats.subjects import Subjects

Take = Callable[[Msg, "Queue"], Awaitable[None]]


class Lane:
    """One priority of a queue."""

    __slots__ = ("ended", "priority", "queue", "tap")

    def __init__(self, queue: "Queue", priority: int, tap: Tap) -> None:
        self.queue, self.priority, self.tap = queue, priority, tap
        self.ended = asyncio.Event()
        tap.on_end = self.ended.set


class Queue:
    """A queue that a worker serves with `slots` attempts at a time. `take` gets each attempt that has a slot."""

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
            self._sweeper = asyncio.create_task(self._sweep(), name=f"esexec-lanes-{self.name}")
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
            if tap.asked == 0:
                self._lane_of(tap).ended.set()
        if self.used >= self.slots or self._stopped:
            await message.respond(b"-NAK")
            if self._sweeper is None:
                tap.release()
            return
        self.used += 1
        await self._take(message, self)

    def _lane_of(self, tap: Tap) -> Lane:
        return next(lane for lane in self._lanes if lane.tap is tap)

    async def stop(self) -> None:
        """Take nothing more."""
        self._stopped = True
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _sweep(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for lane in list(self._lanes):
                if self.free <= 0:
                    break
                if lane.tap.asked:
                    continue  # a waiting pull is open: the lane is empty
                lane.ended.clear()
                await lane.tap.ask(self.free, no_wait=True)
                await self._answered(lane)
            if self.free > 0 and not self._wake.is_set():
                for lane in self._lanes:
                    if not lane.tap.asked:
                        await lane.tap.ask(1)

    async def _answered(self, lane: Lane) -> None:
        """The lane has given what it has, or said that it is empty; a lost answer costs a second."""
        try:
            await asyncio.wait_for(lane.ended.wait(), 1.0)
        except TimeoutError:
            lane.tap.asked = 0
