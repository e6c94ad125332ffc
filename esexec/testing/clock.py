"""The world of a virtual engine: its time is its loop's, its ids are the same in every run of a test, its chance is none."""

import random
from datetime import UTC, datetime, timedelta

from esexec.testing.loop import VirtualLoop
from esexec.world import id_of

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""When every test begins, unless it says otherwise."""


class VirtualWorld:
    """`esexec.world.World` for tests. With a `seed` delays have their jitter, the same for the same seed; without, none."""

    def __init__(self, loop: VirtualLoop, beginning: datetime, seed: int | None) -> None:
        self._loop, self._beginning = loop, beginning
        self._ids = random.Random(seed or 0)
        self._jitter = None if seed is None else random.Random(seed)

    def now(self) -> datetime:
        return self._beginning + timedelta(seconds=self._loop.moment)

    def monotonic(self) -> float:
        return self._loop.moment + 1.0  # never 0, which means "not begun" where attempts are measured

    def new_id(self) -> str:
        return id_of(round(self.now().timestamp() * 1000), self._ids)

    def chance(self) -> float:
        return 0.0 if self._jitter is None else self._jitter.random()

    def seconds(self, time: datetime) -> float:
        """When that is, in the loop's time."""
        return (time - self._beginning).total_seconds()
