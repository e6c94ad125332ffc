"""Following one execution from outside: its past, then an update per commit, and for what its handlers tell meanwhile."""

import asyncio
from collections.abc import AsyncIterator

from esexec.client.errors import not_found
from esexec.client.feed import Feed
from esexec.client.live import Live, LiveOf
from esexec.domain.commit import Commit
from esexec.domain.events import Event
from esexec.domain.evolve import fold
from esexec.domain.state import ExecutionState
from esexec.log import codec
from esexec.log.port import Log
from esexec.results import ExecutionUpdate, update_of


async def updates_of(execution_id: str, feed: Feed, log: Log, live_of: LiveOf) -> AsyncIterator[ExecutionUpdate]:
    """See `Client.monitor`."""
    watch = await feed.open(execution_id)
    news: asyncio.Queue[Commit | None] = asyncio.Queue()

    def told() -> None:
        if news.empty():  # else there will be an update anyway
            news.put_nowait(None)

    live: Live = live_of(execution_id, told)
    watch.heard.append(news.put_nowait)
    try:
        await live.listen()
        past = [codec.decode(stored.data) for stored in await log.load(execution_id)]
        if not past:
            raise not_found(execution_id)
        await live.read_past()
        state = ExecutionState(execution_id)
        yield live.tell(_advanced(state, past), state)
        await feed.catch_up(watch)
        while not state.ended:
            commits = await _following(log, state, await news.get())
            if commits or live.has_news:
                yield live.tell(_advanced(state, commits), state)
    finally:
        watch.heard.remove(news.put_nowait)
        await live.close()
        await feed.release(watch)


async def _following(log: Log, state: ExecutionState, commit: Commit | None) -> list[Commit]:
    """The commits that follow upon a state, as far as one that was heard of."""
    if commit is None or commit.n <= state.n:
        return []
    if commit.n == state.n + 1:
        return [commit]
    return [codec.decode(stored.data) for stored in await log.load(state.execution_id, after=state.n)]


def _advanced(state: ExecutionState, commits: list[Commit]) -> ExecutionUpdate:
    fold(state.execution_id, commits, state)
    events: list[Event] = [event for commit in commits for event in commit.events]
    return update_of(state, events)
