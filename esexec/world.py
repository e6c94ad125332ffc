"""What the core may not ask for itself: the time, fresh ids, chance. The only module that reads a clock or dice.

`new_id()` is a UUIDv7 in 32 hexadecimal digits: time-ordered, so that listings by id are listings by age (RFC 9562, 5.7).
"""

import os
import random
import time
from datetime import UTC, datetime


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A fresh id: 48 bits of milliseconds, then 74 random bits, as RFC 9562 lays out version 7."""
    milliseconds = time.time_ns() // 1_000_000
    random_bits = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & 0xFFFFFFFFFFFF) << 80 | random_bits
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


def chance() -> float:
    """A uniform random number in [0, 1)."""
    return random.random()
