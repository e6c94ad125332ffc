"""Sums that statistics are made of. Pure: what was added can be taken away again, and in whatever order, the sum is the same.

Durations are counted in buckets: those below 64 ms each in one of their own, longer ones in 32 buckets for each doubling. So a
percentile is at most `PRECISION` away from the true one, relatively, and exact below 64 ms.
"""

from typing import Final, TypeVar

import msgspec

PRECISION: Final = 1 / 64
_EXACT_BITS: Final = 6
K = TypeVar("K")


def bucket_of(duration_ms: int) -> int:
    """The bucket that a duration, not negative, is counted in."""
    beyond = duration_ms.bit_length() - _EXACT_BITS
    return duration_ms if beyond <= 0 else (beyond << (_EXACT_BITS - 1)) + (duration_ms >> beyond)


def middle_of(bucket: int) -> int:
    """The duration in the middle of a bucket."""
    beyond = (bucket >> (_EXACT_BITS - 1)) - 1
    if beyond <= 0:
        return bucket
    least = (bucket - (beyond << (_EXACT_BITS - 1))) << beyond
    return least + ((1 << beyond) - 1) // 2


class Histogram(msgspec.Struct, omit_defaults=True, gc=False):
    """Many durations: `sum_ms`, and how many there are in each bucket."""

    sum_ms: int = 0
    buckets: dict[int, int] = {}

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.buckets.values())

    @property
    def mean_ms(self) -> float | None:
        """Their mean; None: there are none."""
        count = self.count
        return self.sum_ms / count if count else None

    def note(self, duration_ms: int, times: int = 1) -> None:
        """Count a duration; `times` -1: take it away."""
        self.sum_ms += duration_ms * times
        add_to(self.buckets, bucket_of(duration_ms), times)

    def add(self, other: "Histogram") -> None:
        """Add all of another's."""
        self.sum_ms += other.sum_ms
        for bucket, count in other.buckets.items():
            add_to(self.buckets, bucket, count)

    def percentiles_ms(self, *percents: int) -> list[int | None]:
        """For each, in rising order: the smallest duration that so many per cent are not longer than; None: there are none."""
        count, passed, found = self.count, 0, list[int | None]()
        if not count:
            return [None] * len(percents)
        buckets = iter(sorted(self.buckets.items()))
        bucket = 0
        for percent in percents:
            while 100 * passed < percent * count:
                bucket, many = next(buckets)
                passed += many
            found.append(middle_of(bucket))
        return found


class Figures(msgspec.Struct, omit_defaults=True, gc=False):
    """Of executions, or of their steps: how many there are by status, and how long they took.

    `retries`: how often steps were tried again. Of executions: `steps`, those of their plans; `reruns`, runs behind the first;
    `rollbacks`, by how far they undid what was to be undone; `overheads`, how often, and for how many microseconds in all
    (`overhead_us`), a step took longer than its handler. `undoings`: compensations of steps by how they ended. Of steps: `tried`,
    those with an attempt; `cached`, those whose output was found; `answers`, how long attempts took that completed.
    """

    by_status: dict[str, int] = {}
    durations: Histogram = msgspec.field(default_factory=Histogram)
    retries: int = 0
    steps: int = 0
    reruns: int = 0
    rollbacks: dict[str, int] = {}
    overheads: int = 0
    overhead_us: int = 0
    tried: int = 0
    cached: int = 0
    undoings: dict[str, int] = {}
    answers: Histogram = msgspec.field(default_factory=Histogram)

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.by_status.values())

    def add(self, other: "Figures") -> None:
        """Add all of another's."""
        for mine, others in (
            (self.by_status, other.by_status),
            (self.rollbacks, other.rollbacks),
            (self.undoings, other.undoings),
        ):
            for name, count in others.items():
                add_to(mine, name, count)
        self.durations.add(other.durations)
        self.answers.add(other.answers)
        self.retries += other.retries
        self.steps += other.steps
        self.reruns += other.reruns
        self.overheads += other.overheads
        self.overhead_us += other.overhead_us
        self.tried += other.tried
        self.cached += other.cached

    def encoded(self) -> bytes:
        """As JSON: the same figures always as the same bytes."""
        for durations in (self.durations, self.answers):
            durations.buckets = dict(sorted(durations.buckets.items()))
        self.by_status, self.rollbacks, self.undoings = (
            dict(sorted(counts.items())) for counts in (self.by_status, self.rollbacks, self.undoings)
        )
        return _encode(self)


def add_to(counts: dict[K, int], key: K, many: int) -> None:
    """Add to a count; none is kept that is 0."""
    count = counts.get(key, 0) + many
    if count:
        counts[key] = count
    elif key in counts:
        del counts[key]


_encode = msgspec.json.Encoder().encode
decoded = msgspec.json.Decoder(Figures).decode
"""Figures that were `encoded`."""
