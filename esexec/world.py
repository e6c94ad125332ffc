"""What the core may not ask for itself: the time, fresh ids, chance. The only module that reads a clock or dice.

`new_id()` is a UUIDv7 in 32 hexadecimal digits: time-ordered, so that listings by id are listings by age (RFC 9562, 5.7).
"""

import os
import random
import time
from datetime import UTC, datetime
from typing import Final

VERSION: Final = "0.1.0"
"""Of esexec: what its processes tell of themselves."""


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


_VERSION_AND_VARIANT = 0xF << 76 | 0x3 << 62
_SEVEN = 0x7 << 76 | 0x2 << 62

_random = random.Random(os.urandom(32))
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))


def new_id() -> str:
    """A fresh id: 48 bits of milliseconds, then 74 random bits, as RFC 9562 lays out version 7.

    The random bits come from a generator seeded by the system, again after a fork: ids need be unique, not unguessable.
    """
    milliseconds = time.time_ns() // 1_000_000
    return f"{milliseconds & 0xFFFFFFFFFFFF:012x}{_random.getrandbits(80) & ~_VERSION_AND_VARIANT | _SEVEN:020x}"


def chance() -> float:
    """A uniform random number in [0, 1)."""
    return random.random()
