"""Following one execution from outside: its past, then an update per commit, and for what its handlers tell meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec

from esexec.client.errors import not_found
from esexec.client.feed import Feed
from esexec.client.live import Live, LiveOf
from esexec.domain.commit import Commit
from esexec.domain.events import Event
from esexec.domain.state import ExecutionState
from esexec.log import codec
from esexec.log.port import Log
from esexec.results import ExecutionUpdate, update_of
from esexec.views import Durations
from esexec.world import now
from projections import metrics, progress

DurationsOf = Callable[[str], Awaitable[Durations | None]]
"""How long a plan (its id) took in the past; None: nobody knows."""


async def updates_of(
    execution_id: str, feed: Feed, log: Log, live_of: LiveOf, durations_of: DurationsOf
) -> AsyncGenerator[ExecutionUpdate, None]:
    """See `Monitor`."""
    watch = await feed.open(execution_id)
    news: asyncio.Queue[Commit | None] = asyncio.Queue()

    def told() -> None:
        if news.empty():  # else there will be an update anyway
            news.put_nowait(None)

    live: Live = live_of(execution_id, told)
    watch.heard.append(news.put_nowait)
    watch.at_close.append(told)
    try:
        await live.listen()
        past = [codec.commit_of(stored) for stored in await log.load(execution_id)]
        if not past:
            raise not_found(execution_id)
        await live.read_past()
        teller = _Teller(execution_id, live)
        teller.take(past)
        state = teller.state
        if not state.ended:
            teller.estimate_by(await durations_of(state.created.plan_id))
        yield teller.tell()
        await feed.catch_up(watch)
        while not state.ended:
            commit = await news.get()
            feed.check()
            commits = await _following(log, state, commit)
            if commits or live.has_news:
                teller.take(commits)
                yield teller.tell()
    finally:
        watch.heard.remove(news.put_nowait)
        watch.at_close.remove(told)
        await live.close()
        await feed.release(watch)


class _Teller:
    """Makes updates of commits: their events, and how the execution stands after them."""

    def __init__(self, execution_id: str, live: Live) -> None:
        self.state = ExecutionState(execution_id)
        self._meter = metrics.Meter(self.state)
        self._estimator: progress.Estimator | None = None
        self._live = live
        self._events: list[Event] = []

    def estimate_by(self, durations: Durations | None) -> None:
        self._estimator = None if durations is None else progress.Estimator(durations)

    def take(self, commits: list[Commit]) -> None:
        for commit in commits:
            self._meter.take(commit)
            self._events += commit.events

    def tell(self) -> ExecutionUpdate:
        """What is new since the last one."""
        state, time = self.state, now()
        events, self._events = self._events, []
        update = self._live.tell(update_of(state, events), state)
        update.metrics = self._meter.metrics(time)
        if self._estimator is not None:
            told = {step: one.fraction for step, one in update.task_progress.items()}
            remaining_ms = self._estimator.remaining_ms(state, time, told)
            update.progress = msgspec.structs.replace(update.progress, estimated_time_remaining_ms=remaining_ms)
        return update


async def _following(log: Log, state: ExecutionState, commit: Commit | None) -> list[Commit]:
    """The commits that follow upon a state, as far as one that was heard of."""
    if commit is None or commit.n <= state.n:
        return []
    if commit.n == state.n + 1:
        return [commit]
    return [codec.commit_of(stored) for stored in await log.load(state.execution_id, after=state.n)]
