"""What the core may not ask for itself: the time, fresh ids, chance. The only module that reads a clock or dice.

Within `inside(world)` all of it comes from that world instead: so time is virtual where users test their plans.

`new_id()` is a UUIDv7 in 32 hexadecimal digits: time-ordered, so that listings by id are listings by age (RFC 9562, 5.7).
"""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, Protocol

VERSION: Final = "0.1.0"
"""Of esexec: what its processes tell of themselves."""


class World(Protocol):
    """Another time and chance than those of this machine."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...
    def new_id(self) -> str: ...
    def chance(self) -> float: ...


_other: ContextVar[World | None] = ContextVar("esexec_world", default=None)
_elsewhere = _other.get


@contextmanager
def inside(world: World) -> Iterator[None]:
    """What runs in this block, and in tasks and handlers that it begins, has the time and chance of `world`."""
    token = _other.set(world)
    try:
        yield
    finally:
        _other.reset(token)


def now() -> datetime:
    """The current time, aware, in UTC."""
    world = _elsewhere()
    return datetime.now(UTC) if world is None else world.now()


def monotonic() -> float:
    """Seconds of a clock that only goes forward: for what is measured, or ends in time, where handlers run."""
    world = _elsewhere()
    return time.monotonic() if world is None else world.monotonic()


_VERSION_AND_VARIANT = 0xF << 76 | 0x3 << 62
_SEVEN = 0x7 << 76 | 0x2 << 62

_random = random.Random(os.urandom(32))
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))


def new_id() -> str:
    """A fresh id: 48 bits of milliseconds, then 74 random bits, as RFC 9562 lays out version 7.

    The random bits come from a generator seeded by the system, again after a fork: ids need be unique, not unguessable.
    """
    world = _elsewhere()
    return id_of(time.time_ns() // 1_000_000, _random) if world is None else world.new_id()


def id_of(milliseconds: int, dice: random.Random) -> str:
    """The id of a moment since 1970, with chance from these dice."""
    return f"{(milliseconds & 0xFFFFFFFFFFFF) << 80 | dice.getrandbits(80) & ~_VERSION_AND_VARIANT | _SEVEN:032x}"


def chance() -> float:
    """A uniform random number in [0, 1)."""
    world = _elsewhere()
    return random.random() if world is None else world.chance()
