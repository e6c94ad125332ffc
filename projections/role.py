"""The process that keeps read models: a runner per projection over one source, and the answers to questions.

Any number may run: of each projection one process does the work, all of them answer.
"""

import asyncio
import importlib
import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from esexec.domain.errors import ValidationError
from esexec.log.jetstream import JetStreamLog
from esexec.nats.connection import Auth, Connection, connect
from esexec.nats.direct import DirectReader
from esexec.nats.publisher import Publisher
from esexec.nats.services import Services, serve
from esexec.nats.streams import ensure_streams
from esexec.nats.subjects import Subjects
from esexec.role import Role
from projections.executions import ExecutionsProjection
from projections.projection import Projection
from projections.runner import ProjectionFailed, Runner
from projections.service import Questions
from projections.source import JetStreamSource
from projections.view import Store

logger = logging.getLogger("esexec.projections")

BUILT_IN: tuple[type[Projection], ...] = (ExecutionsProjection,)
_DIRECTORY = Path(".esexec") / "projections"


def open_store(where: str | Path | None, namespace: str) -> Store:
    """The database of a namespace's views: a file of SQLite (default `.esexec/projections/<namespace>.sqlite`), or
    `postgresql://…`. Raises ValidationError (`no_psycopg`) where that needs what is not installed."""
    if not str(where or "").startswith(("postgresql://", "postgres://")):
        from projections.sqlite import SqliteStore

        return SqliteStore(where or _DIRECTORY / f"{namespace}.sqlite")
    try:
        from projections.postgres import PostgresStore
    except ImportError as error:
        raise ValidationError(
            f"PostgreSQL needs a package that is not here: {error}", code="no_psycopg", hint="pip install 'esexec[postgres]'"
        ) from error
    return PostgresStore(str(where), namespace)


def projections_in(module: str) -> list[type[Projection]]:
    """The projections that a module defines. Raises ValidationError (`no_module`, `no_projection`)."""
    try:
        found = vars(importlib.import_module(module)).values()
    except ImportError as error:
        raise ValidationError(f"{module} cannot be imported: {error}", code="no_module", hint="is it on the path?") from error
    kinds = [one for one in found if inspect.isclass(one) and issubclass(one, Projection) and not inspect.isabstract(one)]
    kinds = [one for one in kinds if one.__module__ == module]
    if not kinds:
        raise ValidationError(f"{module} defines no projection", code="no_projection", hint="a subclass of esexec.Projection")
    return kinds


class Projector(Role):
    """See the module. `store`: see `open_store`. `include`: projections besides the built-in ones. `only`: these names.

    Raises `Unavailable` on entry if no server answers, and ValidationError for projections of the same name.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "default",
        store: str | Path | Store | None = None,
        include: Iterable[type[Projection]] = (),
        only: Sequence[str] = (),
        **auth: Unpack[Auth],
    ) -> None:
        self._url, self._auth = url, auth
        self._subjects = Subjects(namespace)
        self._where = store
        kinds = [*BUILT_IN, *include]
        names = [kind.name for kind in kinds]
        if len(set(names)) < len(names):
            raise ValidationError(f"two projections have one name: {sorted(names)}", code="name_taken", hint="rename yours")
        if unknown := set(only) - set(names):
            raise ValidationError(f"no projection is named {sorted(unknown)}", code="no_projection", hint=f"there are {names}")
        self._kinds = [kind for kind in kinds if not only or kind.name in only]
        self._runners: dict[str, Runner] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._services: Services | None = None

    @property
    def runners(self) -> Mapping[str, Runner]:
        """By the projection's name."""
        return self._runners

    async def start(self) -> None:
        connection = await connect(self._url, name="esexec-projections", **self._auth)
        try:
            await ensure_streams(connection, self._subjects)
            self._publisher = await Publisher(connection).start()
            reader = await DirectReader(connection).start()
            log = JetStreamLog(connection, self._subjects, self._publisher, reader)
            source = await JetStreamSource(connection, self._subjects, reader).start()
            self._store = await asyncio.to_thread(self._opened_store)
            for kind in self._kinds:
                self._runners[kind.name] = await asyncio.to_thread(Runner, kind, self._store, source, log)
            await self._serve(connection)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        self._tasks = [asyncio.create_task(_run(runner), name=f"projection-{name}") for name, runner in self._runners.items()]

    def _opened_store(self) -> Store:
        return self._where if isinstance(self._where, Store) else open_store(self._where, self._subjects.namespace)

    async def _serve(self, connection: Connection) -> None:
        namespace = self._subjects.namespace
        self._services = await serve(connection, "esexec", f"read models of the namespace {namespace}", "0.1.0")
        await self._services.serve(self._subjects.queries, Questions(self._runners).endpoints())
        await connection.flush()  # from now on there is an answer

    async def stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._services is not None:
            await self._services.stop()
        await self._publisher.close()
        await connection.close()
        if not isinstance(self._where, Store):
            await asyncio.to_thread(self._store.close)
        self._runners = {}


async def _run(runner: Runner) -> None:
    try:
        await runner.run()
    except ProjectionFailed:
        pass  # it is told; the others go on
    except Exception:
        logger.exception("%s has ended", runner.name)
        raise
