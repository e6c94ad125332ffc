"""What is due when: an agenda that may name a thing twice, or in vain; whoever looks sees for himself."""

import heapq
from collections.abc import Iterator
from datetime import datetime, timedelta
from math import ceil, floor, inf
from typing import NamedTuple

from esexec.domain.alerts import AlertCondition

_ROOM = 1_000
_FAR_MS = 10**14
"""Later than any time that can be written."""


class Due(NamedTuple):
    """At this instant something may change for this alert; `about`: of which execution, worker, queue or projection."""

    at: datetime
    alert_id: str
    about: str


class Dues:
    """See the module."""

    def __init__(self) -> None:
        self._heap: list[Due] = []
        self._filled = 0

    def clear(self) -> None:
        """To be filled again."""
        self._heap.clear()
        self._filled = 0

    def add(self, at: datetime | None, alert_id: str, about: str = "") -> None:
        """Look then; None: there is nothing to look at."""
        if at is not None:
            heapq.heappush(self._heap, Due(at, alert_id, about))

    def until(self, at: datetime) -> Iterator[Due]:
        """Those that are due at this instant or before, in order; what is added meanwhile among them."""
        last: Due | None = None
        while self._heap and self._heap[0].at <= at:
            due = heapq.heappop(self._heap)
            if due != last:
                yield due
            last = due

    @property
    def crowded(self) -> bool:
        """Whether most of it may be in vain, and filling it again is worth its while."""
        if not self._filled:
            self._filled = len(self._heap)
        return len(self._heap) > 2 * self._filled + _ROOM


def turn_of(condition: AlertCondition, began_at: datetime, at: datetime) -> datetime | None:
    """When a duration that is counted from `began_at`, in whole milliseconds, next begins or ceases to hold, after `at`."""
    threshold = min(max(condition.threshold, -1.0), float(_FAR_MS))
    match condition.operator:
        case "gt" | "lte":
            turns: list[float] = [floor(threshold) + 1]
        case "gte" | "lt":
            turns = [ceil(threshold)]
        case _:
            turns = [threshold, threshold + 1] if threshold == floor(threshold) else []
    passed_ms = (at - began_at) / timedelta(milliseconds=1)
    next_ms = min((turn for turn in turns if turn > passed_ms), default=inf)
    try:
        return began_at + timedelta(milliseconds=next_ms)
    except OverflowError:
        return None
