"""How long an execution will take still: what is left of its plan, by how long its steps took in the past. Pure.

The steps that are left are scheduled once more, with no clock: by the same rules and limit of what runs side by side, each as
long as its mean. The time at which the last one ends is the estimate, so it follows the critical path, or the limit where that
binds.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Final

from esexec.domain.state import SETTLED, ExecutionState, StepState
from esexec.views import Durations

_MS: Final = timedelta(milliseconds=1)
_OVERRUN: Final = 0.1
"""A step that takes longer than it used to is taken to need so much of its mean still."""
_TOLD_ENOUGH: Final = 0.05
"""From here on what a handler tells of its progress is believed more than the past."""
_REST_MS_PER_STEP: Final = 0.1
"""A plan is not scheduled again before so much time has passed for each step that is left: for large plans that is the cost."""


class Estimator:
    """Estimates one execution again and again; between two schedules the last one stands."""

    def __init__(self, durations: Durations) -> None:
        self._durations = durations
        self._at: datetime | None = None
        self._end: datetime | None = None

    def remaining_ms(self, state: ExecutionState, now: datetime, fractions: Mapping[str, float] | None = None) -> int | None:
        """As `remaining_ms` of this module."""
        if state.ended or _is_unknown(state):
            self._at = None
            return 0 if state.ended else None
        rest = _MS * (_REST_MS_PER_STEP * state.unsettled)
        if self._at is None or not timedelta() <= now - self._at < rest:
            found = remaining_ms(state, self._durations, now, fractions)
            self._at, self._end = now, None if found is None else now + timedelta(milliseconds=found)
        return None if self._end is None else max(0, round((self._end - now) / _MS))


def remaining_ms(
    state: ExecutionState, durations: Durations, now: datetime, fractions: Mapping[str, float] | None = None
) -> int | None:
    """How long it will take from `now` on, in milliseconds; 0 once it has ended. `fractions`: how far the steps that run say
    they are, 0 to 1.

    None: nobody can know, because it is paused, ends early, is undone, waits for a slot, or nothing like it ever ran.
    """
    if state.ended:
        return 0
    if _is_unknown(state):
        return None
    means = _Means(state, durations)
    if not means.known:
        return None
    ends = [(_left(state, index, means, now, fractions or {}), index) for index in state.in_flight]
    start = state.created.start_at if state.started_at is None else None
    return round(_ms_until(start, now) + _scheduled(state, means, ends))


def _is_unknown(state: ExecutionState) -> bool:
    waits_for_slot = state.slot is not None and not state.slot.granted
    return not state.exists or state.paused or state.ending or waits_for_slot or state.phase not in ("queued", "executing")


class _Means:
    """How long each step takes."""

    def __init__(self, state: ExecutionState, durations: Durations) -> None:
        self._state, self._durations = state, durations
        known = [*durations.steps.values()] or [*durations.tasks.values()]
        self.known = bool(known)
        self._any = sum(known) / len(known) if known else 0.0
        self.overhead_ms = durations.overhead_ms

    def of(self, index: int) -> float:
        spec, durations = self._state.graph.steps[index], self._durations
        found = durations.steps.get(spec.id)
        if found is None:
            found = durations.tasks.get(self._state.task_of(index), self._any)
        return max(0.0, found)


def _left(state: ExecutionState, index: int, means: _Means, now: datetime, fractions: Mapping[str, float]) -> float:
    """What is left of a step in flight, in milliseconds."""
    step, mean = state.steps[index], means.of(index)
    if step.first_started_at is None:
        return means.overhead_ms + mean
    elapsed = max(0.0, (now - step.first_started_at) / _MS)
    told = fractions.get(state.graph.steps[index].id, 0.0)
    if step.status == "running" and told >= _TOLD_ENOUGH:
        return max(0.0, elapsed * (1 - told) / told)
    left = max(mean - elapsed, _OVERRUN * mean)
    if step.open or step.next_retry_at is None:
        return left
    return max(left, _ms_until(step.next_retry_at, now) + means.overhead_ms)


def _ms_until(time: datetime | None, now: datetime) -> float:
    return 0.0 if time is None else max(0.0, (time - now) / _MS)


def _scheduled(state: ExecutionState, means: _Means, ends: list[tuple[float, int]]) -> float:
    """When the last step ends, if those in flight end so, and the others take their turns (see `advance`)."""
    graph, time = state.graph, 0.0
    waiting: dict[int, int] = {}
    parallel, serial = ([i for i in heap if _is_left(state.steps[i])] for heap in (state.ready, state.serial))
    free, serial_busy = state.execution_policy.parallel_execution_limit - len(ends), state.serial_busy
    heapify(ends)
    heapify(parallel)
    heapify(serial)
    while True:
        while free > 0 and (parallel or (serial and not serial_busy)):
            takes_serial = bool(serial) and not serial_busy and (not parallel or serial[0] < parallel[0])
            index = heappop(serial if takes_serial else parallel)
            serial_busy = serial_busy or takes_serial
            free -= 1
            heappush(ends, (time + means.overhead_ms + means.of(index), index))
        if not ends:
            return time
        time, index = heappop(ends)
        free += 1
        serial_busy = serial_busy and graph.parallel[index]
        for behind in graph.dependents[index]:
            left = waiting.get(behind, state.steps[behind].waiting) - 1
            waiting[behind] = left
            if not left and _is_left(state.steps[behind]):
                heappush(parallel if graph.parallel[behind] else serial, behind)


def _is_left(step: StepState) -> bool:
    return not step.attempt and step.status not in SETTLED
