"""The process that keeps read models and tells the feed: a runner per projection over one source, and answers to questions.

Any number may run: of each projection one process does the work, all of them answer.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, Unpack

from eventsourcing.persistence import PersistenceError

from esexec.domain.errors import Unavailable, ValidationError
from esexec.log.jetstream import JetStreamLog
from esexec.log.port import Log
from esexec.nats.address import redacted
from esexec.nats.connection import Auth, Connection, connect
from esexec.nats.direct import DirectReader
from esexec.nats.presence import SERVICES
from esexec.nats.publisher import Ack, Publisher
from esexec.nats.services import Services, serve
from esexec.nats.streams import ensure_streams
from esexec.nats.subjects import Subjects
from esexec.role import Role
from projections.alerts import AlertsProjection
from projections.executions import ExecutionsProjection
from projections.feed import NAME as FEED
from projections.feed import EventFeed
from projections.including import check_projection
from projections.nudging import SILENT_S, Nudger
from projections.projection import Outside, Projection
from projections.runner import HOST, Runner, live_view
from projections.service import STATUS, Questions
from projections.source import JetStreamSource, Source
from projections.statistics import StatisticsProjection
from projections.view import Store, View
from projections.webhooks import Webhooks

logger = logging.getLogger("esexec.projections")

BUILT_IN: tuple[type[Projection], ...] = (ExecutionsProjection, StatisticsProjection, AlertsProjection)
_DIRECTORY = Path(".esexec") / "projections"


def open_store(where: str | Path | None, namespace: str) -> Store:
    """The database of a namespace's views: a file of SQLite (default `.esexec/projections/<namespace>.sqlite`), or
    `postgresql://…`.

    Raises ValidationError (`no_psycopg`) where that needs what is not installed, and Unavailable (`no_database`).
    """
    with _usable(where):
        return _store_of(where or _DIRECTORY / f"{namespace}.sqlite", namespace)


@contextmanager
def _usable(where: str | Path | Store | None) -> Iterator[None]:
    """Whatever goes wrong with the database is told as that."""
    try:
        yield
    except (PersistenceError, OSError) as error:
        shown = "the database of the views" if where is None or isinstance(where, Store) else str(where)
        what = redacted(shown) if "://" in shown else shown
        raise Unavailable(f"{what} cannot be used: {error}", code="no_database", hint="--database says which") from error


def _store_of(where: str | Path, namespace: str) -> Store:
    if not str(where).startswith(("postgresql://", "postgres://")):
        from projections.sqlite import SqliteStore

        return SqliteStore(where)
    try:
        from projections.postgres import PostgresStore
    except ImportError as error:
        raise ValidationError(
            f"PostgreSQL needs a package that is not here: {error}", code="no_psycopg", hint="pip install 'esexec[postgres]'"
        ) from error
    return PostgresStore(str(where), namespace)


@contextmanager
def view_of(kind: type[Projection], where: str | Path | None = None, *, namespace: str = "default") -> Iterator[View]:
    """The view that answers for a projection, to be read by any program. `where`: the file or URL, as of a `Projector`.

    Raises ValidationError (`no_psycopg`), Unavailable (`no_database`).
    """
    store = open_store(where, namespace)
    try:
        yield store.view(live_view(kind, store), kind.tables)
    finally:
        store.close()


class Reading(NamedTuple):
    """What projections are made from, and where they are kept."""

    connection: Connection
    source: Source
    log: Log
    store: Store
    publisher: Publisher


@asynccontextmanager
async def reading(
    url: str, subjects: Subjects, where: str | Path | Store | None = None, **auth: Unpack[Auth]
) -> AsyncIterator[Reading]:
    """Open for as long as the block. Raises `Unavailable` if no server answers, and what `open_store` raises."""
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await connect(url, name="esexec-projections", **auth))
        await ensure_streams(connection, subjects)
        publisher = await stack.enter_async_context(Publisher(connection))
        reader = await DirectReader(connection).start()
        log = JetStreamLog(connection, subjects, publisher, reader)
        hearing = await stack.enter_async_context(await connect(url, name="esexec-projections-hearing", **auth))
        source = await JetStreamSource(connection, hearing, subjects, reader).start()
        stack.push_async_callback(source.close)
        if isinstance(where, Store):
            store = where
        else:
            store = await asyncio.to_thread(open_store, where, subjects.namespace)
            stack.push_async_callback(asyncio.to_thread, store.close)
        yield Reading(connection, source, log, store, publisher)


class Projector(Role):
    """Keeps read models, and answers what they are asked. Use with `async with`, or `await projector.run()`.

    `store`: a file of SQLite (default `.esexec/projections/<namespace>.sqlite`), or `postgresql://…`. `include`: projections
    besides the built-in ones. `only`: these names. `silent_s`: executions of which nothing was heard for so long are nudged.

    Raises `Unavailable` on entry if no server answers, or the database cannot be used (`no_database`), and ValidationError for
    names that are taken, or not there (`name_taken`, `no_projection`), for what can be no projection (`bad_projection`), or where
    PostgreSQL is not installed (`no_psycopg`).
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "default",
        store: str | Path | Store | None = None,
        include: Iterable[type[Projection]] = (),
        only: Sequence[str] = (),
        silent_s: float = SILENT_S,
        **auth: Unpack[Auth],
    ) -> None:
        self._silent_s = silent_s
        self._url, self._auth, self._where = url, auth, store
        self._subjects = Subjects(namespace)
        wanted = [name for name in only if name != FEED]
        self._kinds = kinds_of(include, wanted, besides=[FEED]) if wanted or not only else []
        self._tells = not only or FEED in only
        self.feed: EventFeed | None = None
        self._stack = AsyncExitStack()
        self.runners: dict[str, Runner] = {}
        """By the projection's name."""

    @property
    def name(self) -> str:
        """How this process calls itself."""
        return HOST

    @property
    def kept(self) -> list[str]:
        """The names of all that it keeps, and `feed` if it tells that."""
        return [*self.runners, *([FEED] if self._tells else [])]

    async def start(self) -> None:
        """Connect, go on where the views are, and answer from now on."""
        await self._stopped()
        async with AsyncExitStack() as stack:
            room = await stack.enter_async_context(reading(self._url, self._subjects, self._where, **self._auth))
            outside = Outside(room.connection, self._subjects, room.publisher, partial(_lags, self.runners, room.source))
            for kind in self._kinds:
                with _usable(self._where):
                    runner = await asyncio.to_thread(Runner, kind, room.store, room.source, room.log, outside=outside)
                self.runners[kind.name] = runner
            for name, runner in self.runners.items():
                task = asyncio.create_task(_run(runner), name=f"projection-{name}")
                stack.push_async_callback(_ended, task)
            if (executions := self.runners.get("executions")) is not None:
                nudger = Nudger(executions, partial(_nudge, room.publisher, self._subjects), self._silent_s)
                stack.push_async_callback(_ended, asyncio.create_task(nudger.run(), name="nudger"))
            if "alerts" in self.runners:
                webhooks = await Webhooks(room.connection, self._subjects, room.log).start()
                stack.push_async_callback(webhooks.stop)
            if self._tells:
                self.feed = EventFeed(room.connection, self._subjects, room.source, room.store)
                stack.push_async_callback(_ended, asyncio.create_task(_run(self.feed), name=f"projection-{FEED}"))
            services = await self._serving(room.connection)
            stack.push_async_callback(services.stop)
            self._connection, self._stack = room.connection, stack.pop_all()

    async def _serving(self, connection: Connection) -> Services:
        what = f"read models of the namespace {self._subjects.namespace}"
        services = await serve(
            connection, SERVICES["projections"], what, {"namespace": self._subjects.namespace, "name": self.name}
        )
        questions = Questions(self.runners, self.feed)
        await services.serve(self._subjects.queries, questions.endpoints(), by_each=[STATUS])
        await connection.flush()  # from now on there is an answer
        return services

    async def _drain(self, connection: Connection) -> None:
        """Let what is in hand come to its end, and close."""
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    async def caught_up(self) -> None:
        """Returns once all projections that work here have in them what is in the log now, or have failed; the feed as well."""

        async def reached(runner: Runner | EventFeed) -> None:
            await runner.reached(await runner.head())

        all_: list[Runner | EventFeed] = [*self.runners.values()]
        await asyncio.gather(*(reached(one) for one in (all_ if self.feed is None else [*all_, self.feed])))


def kinds_of(
    include: Iterable[type[Projection]] = (), only: Sequence[str] = (), *, besides: Sequence[str] = ()
) -> list[type[Projection]]:
    """The built-in projections and these, or of all of them those with these names. `besides`: what else could be named.

    Raises ValidationError (`bad_projection`, `name_taken`, `no_projection`).
    """
    kinds = [*BUILT_IN, *include]
    for kind in kinds:
        check_projection(kind)
    names = [kind.name for kind in kinds]
    if len({*names, FEED}) <= len(names):
        raise ValidationError(f"two projections have one name: {sorted(names)}", code="name_taken", hint="rename yours")
    if unknown := sorted(set(only) - set(names)):
        there = ", ".join([*names, *besides])
        raise ValidationError(f"no projection is named {', '.join(unknown)}", code="no_projection", hint=f"there are {there}")
    return [kind for kind in kinds if not only or kind.name in only]


async def _nudge(publisher: Publisher, subjects: Subjects, execution: str) -> None:
    async def stored(ack: Ack) -> None:
        if ack.error is not None:
            logger.warning("%s could not be nudged: %s", execution, ack.error.description)

    await publisher.send(subjects.nudge_in(execution), b"", None, stored)


def _lags(runners: Mapping[str, Runner], source: Source) -> dict[str, int]:
    """Of what this process works for."""
    working = {name: runner for name, runner in runners.items() if runner.state in ("working", "retrying", "failed")}
    return {name: max(0, source.heard - runner.position) for name, runner in working.items()}


async def _run(runner: Runner | EventFeed) -> None:
    try:
        await runner.run()
    except Exception as error:
        logger.debug("%s has ended: %r", runner.name, error)  # it has told what and why; the others go on


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
