"""One execution in numbers: its commits in, metrics out. Pure, and incremental: a `Meter` takes one commit after the other.

What is kept beside the state is bounded by the steps in flight, not by the length of the history. What the numbers mean:
`ExecutionMetrics`.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.evolve import fold
from esexec.domain.flow import Resource, ResourceUsage, usage_of
from esexec.domain.state import ExecutionState
from esexec.views import ExecutionMetrics
from projections.attempts import NEW_RUNS, Attempt, Attempts

_SECOND: Final = timedelta(seconds=1)
_SPANS_MAX: Final = 1_000
"""So many separate times of activity are remembered while an attempt is open that may overlap with them."""


def metrics_of(commits: Iterable[Commit], now: datetime | None = None) -> ExecutionMetrics | None:
    """The metrics of a history as of `now` (by default its last commit); None if nothing happened."""
    meter: Meter | None = None
    for commit in commits:
        meter = meter or Meter(ExecutionState(commit.execution_id))
        meter.take(commit)
    return None if meter is None else meter.metrics(now)


class Meter:
    """Measures an execution while its history goes by. `take` every commit in order; `state` is the fold of what was taken.

    Give it the state of an execution that has not begun: it folds each commit itself, so that there is one fold.
    """

    def __init__(self, state: ExecutionState) -> None:
        self.state = state
        self._attempts, self._busy, self._held = Attempts(), _Busy(), Holdings()
        self._ended = self._failed = 0
        self._completions = self._completed = 0
        self._cost = 0.0
        self._qualities, self._quality_sum = 0, 0.0

    def take(self, commit: Commit) -> None:
        """The next commit of the history."""
        fold(commit.execution_id, (commit,), self.state)
        recount = False
        for event in commit.events:
            for attempt in self._attempts.take(commit.time, event):
                self._over(attempt)
            self._held.take(commit.time, event)
            if (measured := getattr(event, "measured", None)) is not None:
                self._cost += measured.cost
                if measured.quality is not None and not isinstance(event, e.CompensationCompleted | e.CompensationFailed):
                    self._qualities += 1
                    self._quality_sum += measured.quality
            if isinstance(event, e.TaskCompleted):
                self._completions += 1
                self._completed += 1
            elif isinstance(event, (e.ExecutionCreated, *NEW_RUNS)):
                recount = True
        if recount:  # some of its steps are kept as they were
            self._completed = sum(step.status == "completed" for step in self.state.steps)

    def _over(self, attempt: Attempt) -> None:
        if (ran := attempt.running) is not None and ran.end is not None:
            earliest = (one.earliest_start for one in self._attempts.open.values())
            self._busy.add(ran.start, ran.end, min((one for one in earliest if one is not None), default=None), self._running)
        if attempt.tried and attempt.purpose != "recovery" and attempt.outcome != "abandoned":
            self._ended += 1
            self._failed += attempt.outcome in ("failed", "timed_out")

    @property
    def _running(self) -> datetime | None:
        """Since when something has been running without an end."""
        return min((one.since for one in self._attempts.open.values() if one.doing == "running"), default=None)

    def metrics(self, now: datetime | None = None) -> ExecutionMetrics:
        """As of `now`; by default, and at the earliest, as of the last commit."""
        state = self.state
        assert state.time is not None, "nothing was taken"
        as_of = state.time if now is None else max(now, state.time)
        until = as_of if state.ended_at is None else state.ended_at
        total = until - state.started_at if state.started_at is not None else timedelta()
        busy = min(self._busy.of(until, self._running), total)
        held = self._held.usage(until, self._attempts)
        steps_ended = len(state.steps) - state.unsettled
        return ExecutionMetrics(
            as_of=as_of,
            total_duration_ms=_ms(total),
            effective_duration_ms=_ms(busy),
            total_cost=self._cost + self._held.cost + sum(one.cost for one in held),
            efficiency=busy / total if total else None,
            success_rate=self._completed / steps_ended if steps_ended else None,
            error_rate=self._failed / self._ended if self._ended else None,
            throughput=self._completions / (total / _SECOND) if total else None,
            resource_efficiency=self._held.efficiency(held),
            quality_score=self._quality_sum / self._qualities if self._qualities else None,
            attempts=self._ended,
            failed_attempts=self._failed,
        )


def _ms(time: timedelta) -> int:
    return max(0, round(time.total_seconds() * 1000))


class _Busy:
    """The union of intervals that come in any order, of which all later ones begin after a time that grows."""

    def __init__(self) -> None:
        self._settled = timedelta()
        self._before: datetime | None = None
        """What was before is settled."""
        self._spans: list[tuple[datetime, datetime]] = []
        """Disjoint, in order."""

    def add(self, start: datetime, end: datetime, earliest_next: datetime | None, running: datetime | None) -> None:
        """`earliest_next`: no later interval begins before; None: nor before the end of this one. `running`: since when something
        runs whose interval will come later."""
        if self._before is not None:
            start = max(start, self._before)
        if end > start:
            self._insert(start, end)
        if earliest_next is None:
            earliest_next = self._spans[-1][1] if self._spans else None
        while self._spans and earliest_next is not None and self._spans[0][1] <= earliest_next:
            self._settle()
        if len(self._spans) > _SPANS_MAX:
            covered = [span for span in self._spans if running is not None and span[0] >= running]
            if covered:  # what runs since then will fill the gaps
                self._spans[-len(covered) :] = [(covered[0][0], covered[-1][1])]
            while len(self._spans) > _SPANS_MAX:
                self._settle()

    def _insert(self, start: datetime, end: datetime) -> None:
        after: list[tuple[datetime, datetime]] = []
        while self._spans and self._spans[-1][1] >= start:
            last = self._spans.pop()
            if last[0] > end:
                after.append(last)
            else:
                start, end = min(start, last[0]), max(end, last[1])
        self._spans += [(start, end), *reversed(after)]

    def _settle(self) -> None:
        start, end = self._spans.pop(0)
        self._settled += end - start
        self._before = end

    def of(self, until: datetime, since: datetime | None) -> timedelta:
        """All of it until then; `since`: something has been going on without an end since that time."""
        total = self._settled
        bound = until if since is None else min(since, until)
        for start, end in self._spans:
            total += max(min(end, bound) - start, timedelta())
        if since is not None and until > since:
            total += until - (since if self._before is None else max(since, self._before))
        return total


class Holdings:
    """The resources of an execution: what was used, summed up, and what is held."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int, int], tuple[tuple[Resource, ...], datetime]] = {}
        self.cost = 0.0
        self._by_cost = 0.0
        self._by_time = self._time = 0.0

    def take(self, time: datetime, event: e.Event) -> None:
        if isinstance(event, e.ResourceAllocated):
            self._held[event.step, event.run, event.attempt] = event.resources, time
        elif isinstance(event, e.ResourceReleased):
            self._held.pop((event.step, event.run, event.attempt), None)
            for usage in event.usage:
                self._add(usage)

    def _add(self, usage: ResourceUsage) -> None:
        self.cost += usage.cost
        self._by_cost += usage.cost * usage.efficiency
        held_s = (usage.end_time - usage.start_time).total_seconds() if usage.end_time is not None else 0.0
        self._time += held_s
        self._by_time += held_s * usage.efficiency

    def usage(self, now: datetime, attempts: Attempts) -> list[ResourceUsage]:
        """The use of what is held, as of now."""
        used = []
        for (step, run, number), (resources, since) in self._held.items():
            attempt, busy_s = attempts.open.get(step), 0.0
            if attempt is not None and (attempt.run, attempt.attempt, attempt.doing) == (run, number, "running"):
                busy_s = (now - attempt.since).total_seconds()
            used += [usage_of(one, since, max(now, since), busy_s=busy_s) for one in resources]
        return used

    def efficiency(self, held: list[ResourceUsage]) -> float | None:
        """Weighed by cost; by time, if nothing cost anything. None: nothing was held for any time."""
        together = Holdings()
        together.cost, together._by_cost, together._time, together._by_time = self.cost, self._by_cost, self._time, self._by_time
        for usage in held:
            together._add(usage)
        if together.cost:
            return together._by_cost / together.cost
        return together._by_time / together._time if together._time else None
