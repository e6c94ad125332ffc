"""Everything in one process, on the embedded server: for trying, for tests, for small programs.

The roles exchange nothing but NATS messages, exactly as they do in processes of their own.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from esexec.client import Client, Planner
from esexec.client.sync import SyncClient
from esexec.domain.ids import namespace_named
from esexec.executor import Executor
from esexec.nats.connection import Auth
from esexec.nats.embedded import EmbeddedServer
from esexec.tasks import Tasks, WorkerResource
from esexec.worker import Worker

if TYPE_CHECKING:
    from projections.projection import Projection


def connect(
    url: str | None = None,
    *,
    namespace: str | None = None,
    instance: str | None = None,
    actor: str | None = None,
    owner: str | None = None,
    patience: float = 0.0,
    planner: Planner | None = None,
    **auth: Unpack[Auth],
) -> Client:
    """A client of the server at `url`. Use with `async with`.

    Without a `url` whatever is not given here is what `esexec config show` tells: from `ESEXEC_*`, `NATS_URL` and `NATS_CREDS`,
    from `esexec.toml` or `[tool.esexec]` in `pyproject.toml` in the working directory or above, from the selected context of the
    `nats` program; else nats://127.0.0.1:4222. Raises ValidationError for what is wrong there (`bad_setting`, `unknown_setting`,
    `bad_settings_file`, `unknown_context`, `bad_context`).
    """
    return Client(
        url, namespace=namespace, instance=instance, actor=actor, owner=owner, patience=patience, planner=planner, **auth
    )


def connect_sync(
    url: str | None = None,
    *,
    namespace: str | None = None,
    instance: str | None = None,
    actor: str | None = None,
    owner: str | None = None,
    patience: float = 0.0,
    planner: Planner | None = None,
    **auth: Unpack[Auth],
) -> SyncClient:
    """As `connect`, for callers without a loop: `with esexec.connect_sync(url) as client: client.run("task", {…})`.

    Everything that is awaited of the other is simply called; a loop runs in a thread of its own. Without a block: `open()`, and
    `close()` in the end.
    """
    return SyncClient(
        url, namespace=namespace, instance=instance, actor=actor, owner=owner, patience=patience, planner=planner, **auth
    )


@asynccontextmanager
async def local(
    *,
    tasks: Tasks = (),
    strategies: Iterable[Any] = (),
    resources: Mapping[str, Any] | Iterable[WorkerResource] = (),
    queues: Mapping[str, int] | None = None,
    namespace: str = "default",
    instance: str | None = None,
    store: str | Path = ".esexec",
    sync: Literal["always", "2m", "100ms"] = "always",
    url: str | None = None,
    actor: str | None = None,
    planner: Planner | None = None,
    projections: bool = True,
    include: "Iterable[type[Projection]]" = (),
    **auth: Unpack[Auth],
) -> AsyncIterator[Client]:
    """A client beside an embedded server, an executor, projections, and a worker with `tasks`, `strategies` and `resources`, all
    ended with the block.

    `store`: where the server keeps its files; a server that runs on them already is used. `url`: use that server instead,
    `auth` says who we are to it. `actor`: as of `Client`. `planner`: makes plans from queries (`client.plans.create`).
    `projections`: whether read models are kept, in the store's directory, so that lists and statistics can be asked for.
    `include`: read models of your own besides.
    """
    namespace = namespace_named(namespace, instance)
    async with AsyncExitStack() as stack:
        if url is None:
            server = await stack.enter_async_context(EmbeddedServer(Path(store), sync=sync))
            url = server.url
        await stack.enter_async_context(Executor(url, namespace=namespace, **auth))
        if projections:
            from projections.role import Projector  # not needed by whoever only imports this module

            views = Path(store) / "projections" / f"{namespace}.sqlite"
            await stack.enter_async_context(Projector(url, namespace=namespace, store=views, include=include, **auth))
        if tasks or strategies:
            worker = Worker(
                url, tasks=tasks, strategies=strategies, resources=resources, queues=queues, namespace=namespace, **auth
            )
            await stack.enter_async_context(worker)
        yield await stack.enter_async_context(Client(url, namespace=namespace, actor=actor, planner=planner, **auth))
