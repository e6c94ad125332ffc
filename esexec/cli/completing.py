"""What the shell offers while one types: ids, tasks, plans, namespaces and contexts, as they are now.

Whoever presses a key does not want to hear of errors, and does not wait: what cannot be had in a moment is not offered. Nothing
is started for it, and nothing is made.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import typer

from esexec.nats.connection import Connection
from esexec.nats.subjects import Subjects

_PATIENCE_S: Final = 1.0
_OFFERED: Final = 100
_FEW: Final = 5_000
"""Where no projections answer, ids are read off the log if it has no more subjects than this."""
Offers = list[tuple[str, str]]
"""What can stand there, and what it is."""


def execution_ids(ctx: typer.Context, incomplete: str) -> Offers:
    return _offered(ctx, incomplete, _executions)


def task_names(ctx: typer.Context, incomplete: str) -> Offers:
    return _offered(ctx, incomplete, _tasks)


def plan_ids(ctx: typer.Context, incomplete: str) -> Offers:
    return _offered(ctx, incomplete, _plans)


def namespace_names(ctx: typer.Context, incomplete: str) -> Offers:
    return _offered(ctx, incomplete, _namespaces)


def context_names(incomplete: str) -> Offers:
    try:
        import os

        from esexec.configuration.contexts import directory

        names = sorted(one.stem for one in (directory(os.environ) / "context").glob("*.json"))
    except Exception:
        return []
    return [(name, "context") for name in names if name.startswith(incomplete)]


# Asking ------------------------------------------------------------------------------------------------------------------


async def _executions(connection: Connection, subjects: Subjects) -> Offers:
    from esexec.client.queries import Queries
    from esexec.domain.errors import Unavailable
    from projections.asks import ExecutionsPage, ListExecutions

    queries = Queries(connection, subjects)
    try:
        page = await queries.ask("executions.list", ListExecutions(limit=_OFFERED), ExecutionsPage, timeout=_PATIENCE_S / 2)
    except Unavailable:
        return await _of_log(connection, subjects)
    return [(one.execution_id, f"{one.status} {one.name}") for one in page.items]


async def _of_log(connection: Connection, subjects: Subjects) -> Offers:
    from esexec.nats.direct import subjects_of

    state = (await connection.api(f"STREAM.INFO.{subjects.log_stream}"))["state"]
    if state.get("num_subjects", 0) > _FEW:
        return []
    first = await subjects_of(connection, subjects.log_stream, subjects.log("*", 1))
    found = (subjects.parse_commit(one.replace(".log.", ".commit.", 1))[0] for one in first)
    return [(one, "execution") for one in found if not one.startswith("_")]


async def _tasks(connection: Connection, subjects: Subjects) -> Offers:
    from esexec.nats.presence import workers_there

    there = await workers_there(connection, subjects)
    return [(name, "task") for name in sorted({task for one in there for task in one.tasks if ":" not in task})]


async def _plans(connection: Connection, subjects: Subjects) -> Offers:
    from esexec.client.entities import news_of
    from esexec.domain.kept_plans import PLANS_ENTITY, fold_plans
    from esexec.log.jetstream import JetStreamLog
    from esexec.nats.direct import DirectReader
    from esexec.nats.publisher import Publisher

    reader = await DirectReader(connection).start()
    log = JetStreamLog(connection, subjects, Publisher(connection), reader)
    kept = fold_plans(await news_of(log, PLANS_ENTITY)).plans
    return [(plan_id, f"{one.status} {one.name}") for plan_id, one in kept.items() if one.status != "archived"]


async def _namespaces(connection: Connection, subjects: Subjects) -> Offers:
    from esexec.nats.streams import namespaces

    return [(name, "namespace") for name in await namespaces(connection)]


def _offered(ctx: typer.Context, incomplete: str, ask: Callable[[Connection, Subjects], Awaitable[Offers]]) -> Offers:
    logging.disable(logging.CRITICAL)
    try:
        found = asyncio.run(_asked(ctx, ask))
    except (Exception, asyncio.CancelledError):
        return []
    finally:
        logging.disable(logging.NOTSET)
    return [one for one in found if one[0].startswith(incomplete)][:_OFFERED]


async def _asked(ctx: typer.Context, ask: Callable[[Connection, Subjects], Awaitable[Offers]]) -> Offers:
    from esexec.configuration import configuration
    from esexec.nats.connection import connect
    from esexec.nats.embedded import running

    said = configuration(_said(ctx))
    async with asyncio.timeout(_PATIENCE_S):
        url = await asyncio.to_thread(running, said["store"]) if said.embeds else said["server"]
        if url is None:
            return []
        auth = {} if said.embeds else said.auth
        async with await connect(url, name="esexec-completion", **auth) as connection:
            return await ask(connection, Subjects(said["namespace"]))


def _said(ctx: typer.Context) -> dict[str, Any]:
    """What the line says so far of where to ask, behind the verb before what stands in front of it."""
    said: dict[str, Any] = {}
    for one in _upwards(ctx):
        for name in ("server", "context", "namespace", "store"):
            if said.get(name) is None:
                said[name] = one.params.get(name)
    return said


def _upwards(ctx: Any) -> Iterator[Any]:
    while ctx is not None:
        yield ctx
        ctx = ctx.parent
