"""`esexec dev`, `executor`, `worker`, `projections`: processes that stay up until they are told to end, and then drain.

They say `ready` once they are; a server that is not up yet is waited for.
"""

import asyncio
import inspect
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Any, TypedDict, TypeVar

import typer

from esexec.cli.call import Call, Server
from esexec.cli.exits import Exit
from esexec.cli.given import ConcurrencyOption, QueueOption, TasksOption, load_tasks, needed, read_queues
from esexec.cli.projection import DatabaseOption, IncludeOption, included
from esexec.cli.verb import verb
from esexec.executor import Executor
from esexec.nats.connection import connect
from esexec.process import yield_to_others
from esexec.role import Role
from esexec.tasks import ANY_TASK, RecoveryStrategy, Task, WorkerResource, collect_resources, collect_strategies
from esexec.worker import Worker

T = TypeVar("T")


class _BesideTasks(TypedDict):
    strategies: list[RecoveryStrategy]
    resources: list[WorkerResource]


_FOR_EVER_S = 10.0 * 365 * 24 * 3600
_SILENT_S = 1.0
"""How long somebody may take before we say that we wait for them."""


def register(app: typer.Typer) -> None:
    for body in (dev, executor, worker, projections):
        verb(app, drains=True, interrupted=Exit.OK)(body)


async def executor(call: Call) -> None:
    """Run an executor: it decides what comes next. As many as you like; SIGTERM drains it."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(call.reach())
        role = Executor(server.url, namespace=call.namespace, **server.auth)
        await _up(call, server, stack, role)
        _ready(call, server, {"executor": role.name})
        await asyncio.Event().wait()


async def worker(
    call: Call,
    tasks: TasksOption = None,
    queue: QueueOption = None,
    concurrency: ConcurrencyOption = 10,
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, help="Processes for tasks that run in one of their own. Default: one per processor."),
    ] = None,
) -> None:
    """Run a worker: it runs the tasks and recovery strategies of a module. As many as you like; SIGTERM drains it."""
    tasks = needed(tasks, call.tasks)
    found, queues = load_tasks(tasks), read_queues(queue, concurrency)
    others = _beside_tasks(tasks)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(call.reach())
        role = Worker(
            server.url,
            tasks=found.values(),
            queues=queues,
            namespace=call.namespace,
            processes=processes,
            **others,
            **server.auth,
        )
        await _up(call, server, stack, role)
        _ready(call, server, _said_of(role, found, queues))
        await asyncio.Event().wait()


async def projections(
    call: Call,
    database: DatabaseOption = None,
    include: IncludeOption = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="NAME", help="Only these projections. Repeatable.")] = None,
) -> None:
    """Keep the read models: lists, statistics, alerts. As many as you like: one works, the others stand by; all answer."""
    from projections.role import Projector

    yield_to_others()  # read models can wait a moment
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(call.reach())
        role = Projector(
            server.url,
            namespace=call.namespace,
            store=database or call.views,
            include=included(include),
            only=only or (),
            **server.auth,
        )
        await _up(call, server, stack, role, "the database of read models")
        _ready(call, server, {"projector": role.name, "projections": role.kept})
        await asyncio.Event().wait()


async def dev(
    call: Call,
    tasks: TasksOption = None,
    queue: QueueOption = None,
    concurrency: ConcurrencyOption = 10,
    include: IncludeOption = None,
) -> None:
    """Run everything for development: the embedded server, an executor, projections, and a worker if there are tasks."""
    from projections.role import Projector

    tasks = tasks or call.tasks
    found, queues = load_tasks(tasks), read_queues(queue, concurrency)
    others, kinds = _beside_tasks(tasks), included(include)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(call.reach())
        decider = Executor(server.url, namespace=call.namespace, **server.auth)
        await _up(call, server, stack, decider)
        keeper = Projector(server.url, namespace=call.namespace, store=call.views, include=kinds, **server.auth)
        await _up(call, server, stack, keeper, "the database of read models")
        roles: dict[str, Any] = {"executor": decider.name, "projections": keeper.kept}
        if found or others["strategies"]:
            role = Worker(server.url, tasks=found.values(), queues=queues, namespace=call.namespace, **others, **server.auth)
            await _up(call, server, stack, role)
            roles |= _said_of(role, found, queues)
        _ready(call, server, roles)
        _what_to_try(call, found)
        await asyncio.Event().wait()


def _beside_tasks(places: Iterable[str]) -> _BesideTasks:
    """What modules have for a worker besides their tasks."""
    return {"strategies": [*collect_strategies(places).values()], "resources": [*collect_resources(places).values()]}


async def _up(call: Call, server: Server, stack: AsyncExitStack, role: Role, waits_for: str = "an executor") -> None:
    """Start a role, and drain it with the stack. Waits for the server and says what else it waits for, each once."""
    if server.store is None:
        probe = connect(server.url, name="esexec-cli", patience=_FOR_EVER_S, **server.auth)
        connection = await _telling(call, f"waiting for the NATS server at {server.place}", probe)
        await connection.close()
    await _telling(call, f"waiting for {waits_for}", stack.enter_async_context(role))


async def _telling(call: Call, words: str, starting: Coroutine[Any, Any, T]) -> T:
    """What `starting` gives; if that takes a while, say so."""
    task = asyncio.ensure_future(starting)
    try:
        done, _ = await asyncio.wait({task}, timeout=_SILENT_S)
        if not done:
            call.note(words)
        return await task
    finally:
        task.cancel()


def _said_of(worker: Worker, tasks: Iterable[str], queues: Mapping[str, int]) -> dict[str, Any]:
    return {"worker": worker.name, "tasks": sorted(tasks), "strategies": sorted(worker.strategies), "queues": queues}


def _ready(call: Call, server: Server, roles: dict[str, Any]) -> None:
    if call.json:
        call.line({"ready": True, "url": server.shown_url, "namespace": call.namespace, **roles})
    call.say(f"server     {server.place}")
    for role, said in roles.items():
        words = ", ".join(f"{name}={slots}" for name, slots in said.items()) if isinstance(said, dict) else said
        call.say(f"{role:<10} {', '.join(words) if isinstance(words, list) else words}")
    call.say(f"ready in namespace {call.namespace}; Ctrl-C drains and ends")


def _what_to_try(call: Call, tasks: Mapping[str, Task[..., Any]]) -> None:
    esexec = call.esexec
    call.say("\ntry in another terminal:")
    if named := [name for name in tasks if name != ANY_TASK]:
        name = min(named)
        call.say(f"  {esexec} start --task {name} --input '{_sample(tasks[name])}' --wait")
    else:
        call.say(f"  {esexec} worker --tasks MODULE")
    call.say(f"  {esexec} start PLAN.yaml --wait")
    call.say(f"  {esexec} verify --all")


def _sample(task: Task[..., Any]) -> str:
    """What an input of a task looks like: the names that it needs."""
    parameters = inspect.signature(task.fn).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty and "Context" not in str(one.annotation)]
    return "{" + ", ".join(f'"{name}": …' for name in needed) + "}"
