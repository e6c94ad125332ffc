"""Runs one projection: a page of commits → one transaction → the next.

A database that fails is tried again with back-off. A projection that fails stops, and says upon which commit: nothing is ever
skipped. Of several processes with the same projection one works, by a lock; another one goes on within seconds. Should two work
all the same (a lock was lost), the position in the transaction lets only one of them through.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from eventsourcing.persistence import IntegrityError, PersistenceError, Tracking

from esexec.domain.commit import hash_of
from esexec.domain.errors import EsexecError, Unavailable
from esexec.log.port import Log
from esexec.nats.connection import ApiError
from projections.asks import ProjectionStatus
from projections.projection import Outside, Projection
from projections.source import EVENTS_PER_POSITION, Page, Recorded, Rewound, Source
from projections.view import Store, View, Witness

logger = logging.getLogger("esexec.projections")

PAGE = 1_000
"""So many commits are in a transaction at most."""
_LOOK_FOR_LOCK_S = 1.0
_LOOK_FOR_POSITION_S = 0.05
_LOOK_FOR_SWAP_S = 1.0
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 15.0

State = Literal["starting", "standby", "working", "retrying", "failed"]


HOST = f"{socket.gethostname()}/{os.getpid()}"
"""How this process calls itself."""


class ProjectionFailed(EsexecError):
    """A projection's code threw upon a commit (code `projection_failed`). It is stopped; the view is as it was before."""


class Runner:
    """See the module. `run` until cancelled; raises `ProjectionFailed`."""

    def __init__(
        self,
        kind: type[Projection],
        store: Store,
        source: Source,
        log: Log,
        *,
        page: int = PAGE,
        outside: Outside | None = None,
    ) -> None:
        self._kind, self._store, self._source, self._log, self._page = kind, store, source, log, page
        self._outside = outside
        self.projection = self._opened()
        self.state: State = "starting"
        self.position, self._events, self._error, self._losses = 0, 0, "", 0
        self._moved, self._swap_looked_for = asyncio.Event(), 0.0
        self._stands_at, self._tick_at = 0, 0.0
        self._coming: asyncio.Task[Page] | None = None
        self._seen: tuple[int, datetime | None] = (0, None)
        """The position that was told last, and its time."""
        self._rewound = False
        """The view is of another log, and to be emptied."""

    def _opened(self) -> Projection:
        projection = self._kind(self._store.view(self._live(), self._kind.tables))
        projection.outside = self._outside
        return projection

    @property
    def name(self) -> str:
        return self._kind.name

    @property
    def view(self) -> View:
        """Where it stands: for whoever asks."""
        return self.projection.view

    def status(self) -> ProjectionStatus:
        """How it is now, by what the view says; where its database does not answer, by what that said last."""
        if self.state != "retrying":
            with suppress(PersistenceError):
                witness = self.view.witness
                time = datetime.fromisoformat(witness.time) if witness is not None else None
                self._seen = self.view.position // EVENTS_PER_POSITION, time
        position, time = self._seen
        lag, lag_ms = lag_of(self._source, position, time)
        return ProjectionStatus(
            name=self.name,
            view=self.view.name,
            state=self.state,
            position=position,
            time=time,
            lag=lag,
            lag_ms=lag_ms,
            events=self._events,
            error=self._error,
            host=HOST,
        )

    async def head(self) -> int:
        """The last position of the log. Raises `Unavailable`."""
        return await self._source.head()

    async def reached(self, position: int) -> None:
        """Returns once the view has this position in it; or where it has failed, and no other process has come there."""
        while self.position < position:
            if self.state == "working":
                self._source.hurry()
                await self._moved.wait()
                continue
            await asyncio.sleep(_LOOK_FOR_POSITION_S)
            with suppress(PersistenceError):  # another process may work
                self.position = await asyncio.to_thread(lambda: self.view.position) // EVENTS_PER_POSITION
            if self.state == "failed":
                return

    # The loop --------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """See the class."""
        try:
            await self._go_on()
        finally:
            self._let_go()
            await self.projection.end()

    async def _go_on(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            self._let_go()
            try:
                await self._locked()
                if self._rewound:
                    await _whole(asyncio.to_thread(self.view.clear))
                    self._rewound = False
                await self._checked()
                await self.projection.begin()
                while True:
                    await self._step()
                    backoff_s, self._error = _FIRST_BACKOFF_S, ""
            except Rewound as error:
                logger.warning("%s is made anew: %s", self.name, error)
                self.projection.forget()
                self._rewound = True
            except Swapped:
                pass
            except IntegrityError:
                logger.warning("%s: another process went on with it meanwhile", self.name)
                self._stumble("starting")
            except (PersistenceError, Unavailable, ApiError) as error:
                self._error = str(error) or repr(error)
                logger.warning("%s: tried again in %g s: %s", self.name, backoff_s, self._error)
                self._stumble("retrying")
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
            except Exception as error:
                self._error = str(error) if isinstance(error, ProjectionFailed) else repr(error)
                logger.error("%s: %s", self.name, self._error, exc_info=error.__cause__ or error)
                self._stumble("failed")
                with suppress(PersistenceError):
                    await asyncio.to_thread(self._store.unlock, self._kind.view_name())  # perhaps another has better code
                raise

    def _stumble(self, state: State) -> None:
        """It does not work for now; who waits for a position looks for itself."""
        self.state = state
        self.projection.forget()
        self._come_to(self.position)

    async def _locked(self) -> None:
        while not await asyncio.to_thread(self._store.lock, self._kind.view_name()):
            await self._follow_swap()
            self.state, self._error = "standby", ""
            await asyncio.sleep(_LOOK_FOR_LOCK_S)

    async def _checked(self) -> None:
        """Where to go on; and whether this is still the log that the view was made from."""
        await self._source.make_sure()
        self._losses = self._source.losses
        self._stands_at = await asyncio.to_thread(lambda: self.view.position)
        self._come_to(self._stands_at // EVENTS_PER_POSITION)
        witness = await asyncio.to_thread(lambda: self.view.witness)
        if self.position > await self._source.head() or (
            witness is not None and witness.entity and not await self._source.knows(witness)
        ):
            raise Rewound(f"the log is not the one that was read up to {self.position}")
        self.state = "working"

    async def _step(self) -> None:
        page = await self._next_page()
        if self._source.losses != self._losses:  # a server that went and came may have another log, and be beyond us in it
            self._let_go()
            await self._checked()
            return
        await self._follow_swap()
        if page is not None:
            await self._take(page)
        if self._kind.tick_s and asyncio.get_running_loop().time() >= self._tick_at:
            self._tick_at = asyncio.get_running_loop().time() + self._kind.tick_s
            await self._tick(caught_up=await self._is_caught_up())

    async def _tick(self, *, caught_up: bool) -> None:
        try:
            if self.projection.tick(caught_up=caught_up):
                await _whole(asyncio.to_thread(self._amend))
                await self.projection.settled()
        except (PersistenceError, EsexecError):
            raise
        except Exception as error:
            raise ProjectionFailed(
                f"projection {self.name} failed upon the clock, behind position {self.position}: {error!r}",
                code="projection_failed",
                hint="mend it and start it again: it goes on there",
            ) from error

    async def _next_page(self) -> Page | None:
        """What follows; None: nothing yet, and it is time for a tick, or to look whether another view answers."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._source.page(self.position, self._page))
        timeout_s = _LOOK_FOR_SWAP_S
        if self._kind.tick_s:
            timeout_s = min(timeout_s, max(0.0, self._tick_at - asyncio.get_running_loop().time()))
        await asyncio.wait([self._coming], timeout=timeout_s)
        if not self._coming.done():
            return None
        coming, self._coming = self._coming, None
        return coming.result()

    async def _is_caught_up(self) -> bool:
        try:
            return self.position >= await self._source.head()
        except EsexecError:
            return False

    def _let_go(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
            self._coming = None

    async def _take(self, page: Page) -> None:
        if page.commits:
            await self.projection.prepare(page.commits, self._log)
            await _whole(asyncio.to_thread(self._apply, page))
            self._stands_at = page.commits[-1].last_id
        self._come_to(page.end)
        self._events += sum(len(one.commit.events) for one in page.commits)
        await self.projection.settled()

    def _come_to(self, position: int) -> None:
        self.position = position
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _apply(self, page: Page) -> None:
        apply(self.projection, page.commits)

    def _amend(self) -> None:
        with self.view.amend(self._stands_at):
            self.projection.finish()

    async def _follow_swap(self) -> None:
        """Another view may have been made to answer for it."""
        now = asyncio.get_running_loop().time()
        if now < self._swap_looked_for + _LOOK_FOR_SWAP_S:
            return
        self._swap_looked_for = now
        live = await asyncio.to_thread(self._live)
        if live != self.view.name:
            logger.info("%s: %s answers for it now", self.name, live)
            await self.projection.end()
            self.projection = await asyncio.to_thread(self._opened)
            raise Swapped

    def _live(self) -> str:
        return live_view(self._kind, self._store)


def lag_of(source: Source, position: int, time: datetime | None) -> tuple[int, int]:
    """How many positions the log is known to be ahead of one; and, if it is, how many milliseconds ago its commit's time was."""
    lag = max(0, source.heard - position)
    ago = datetime.now(UTC) - time if time is not None and lag else timedelta()
    return lag, max(0, round(ago.total_seconds() * 1000))


def live_view(kind: type[Projection], store: Store) -> str:
    """The name of the view that answers for a projection."""
    return store.live(kind.view_name())


def apply(projection: Projection, commits: Sequence[Recorded]) -> None:
    """A page, in one transaction. Raises `ProjectionFailed`, and what `View.change` raises; then nothing of it is kept."""
    view, recorded = projection.view, commits[0]
    before = view.witness
    with view.change(Tracking(view.name, commits[-1].last_id)):
        try:
            for recorded in commits:
                projection.process_commit(recorded)
            projection.finish()
        except Exception as error:
            if view.is_failure(error):
                raise
            raise ProjectionFailed(
                f"projection {projection.name} failed on commit {recorded.n} of {recorded.entity} "
                f"(position {recorded.position}): {error!r}",
                code="projection_failed",
                hint="mend it and start it again: it goes on with this commit",
            ) from error
        view.see(_witness(commits, before))


class Swapped(Exception):
    """Another view answers for the projection: go on where that one is."""


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Until it is done, also if we are cancelled meanwhile: a thread cannot be."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("not kept, as nobody waits for it any more: %r", error)
        raise


def _witness(commits: Sequence[Recorded], before: Witness | None) -> Witness:
    time = commits[-1].commit.time.isoformat()
    for one in reversed(commits):
        if one.entity[0] != "_":  # what executions share may be compacted, and is no witness
            return Witness(one.position, one.entity, one.n, hash_of(one.data), time)
    return before._replace(time=time) if before is not None else Witness(0, "", 0, "", time)
