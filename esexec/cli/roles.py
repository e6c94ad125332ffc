"""`esexec dev`, `executor`, `worker`: processes that stay up until they are told to end, and then drain.

They say `ready` once they are; a server that is not up yet is waited for.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Annotated, Any

import typer

from esexec.cli.call import Call, Server
from esexec.cli.exits import Exit
from esexec.cli.given import ConcurrencyOption, QueueOption, TasksOption, load_tasks, read_queues
from esexec.cli.verb import verb
from esexec.executor import Executor
from esexec.worker import Worker

_FOR_EVER_S = 10.0 * 365 * 24 * 3600
_SILENT_S = 1.0
"""How long a server may take before we say that we wait for it."""


def register(app: typer.Typer) -> None:
    for body in (dev, executor, worker):
        verb(app, drains=True, interrupted=Exit.OK)(body)


async def executor(call: Call) -> None:
    """Run an executor: it decides what comes next. As many as you like; SIGTERM drains it."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(call.reach())
        role = await _started_executor(call, server, stack)
        _ready(call, server, {"executor": role.name})
        await asyncio.Event().wait()


async def worker(call: Call, tasks: TasksOption, queue: QueueOption = None, concurrency: ConcurrencyOption = 10) -> None:
    """Run a worker: it runs the tasks of a module. As many as you like; SIGTERM drains it."""
    found, queues = load_tasks(tasks), read_queues(queue, concurrency)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(call.reach())
        role = Worker(server.url, tasks=found.values(), queues=queues, namespace=call.namespace, patience=_FOR_EVER_S)
        await _waiting(call, server, stack.enter_async_context(role))
        _ready(call, server, {"worker": role.name, "tasks": sorted(found), "queues": queues})
        await asyncio.Event().wait()


async def dev(
    call: Call,
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", metavar="MODULE", help="Tasks for a worker: pkg.mod, file.py. Repeatable.")
    ] = None,
    queue: QueueOption = None,
    concurrency: ConcurrencyOption = 10,
) -> None:
    """Run everything for development: the embedded server, an executor, and a worker if there are --tasks."""
    found, queues = load_tasks(tasks or ()), read_queues(queue, concurrency)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(call.reach())
        roles: dict[str, Any] = {"executor": (await _started_executor(call, server, stack)).name}
        if found:
            role = Worker(server.url, tasks=found.values(), queues=queues, namespace=call.namespace, patience=_FOR_EVER_S)
            await _waiting(call, server, stack.enter_async_context(role))
            roles |= {"worker": role.name, "tasks": sorted(found), "queues": queues}
        _ready(call, server, roles)
        _what_to_try(call, server, sorted(found))
        await asyncio.Event().wait()


async def _started_executor(call: Call, server: Server, stack: AsyncExitStack) -> Executor:
    role = Executor(server.url, namespace=call.namespace, patience=_FOR_EVER_S)
    await _waiting(call, server, stack.enter_async_context(role))
    return role


async def _waiting(call: Call, server: Server, starting: Coroutine[Any, Any, Any]) -> None:
    """Wait for a role to be up; say so once if the server lets it wait."""
    task = asyncio.ensure_future(starting)
    try:
        done, _ = await asyncio.wait({task}, timeout=_SILENT_S)
        if not done:
            call.note(f"waiting for the NATS server at {server.place}")
        await task
    finally:
        task.cancel()


def _ready(call: Call, server: Server, roles: dict[str, Any]) -> None:
    if call.json:
        call.line({"ready": True, "url": server.shown_url, "namespace": call.namespace, **roles})
    call.say(f"server     {server.place}")
    for role, said in roles.items():
        words = ", ".join(f"{name}={slots}" for name, slots in said.items()) if isinstance(said, dict) else said
        call.say(f"{role:<10} {', '.join(words) if isinstance(words, list) else words}")
    call.say(f"ready in namespace {call.namespace}; Ctrl-C drains and ends")


def _what_to_try(call: Call, server: Server, tasks: list[str]) -> None:
    where = (
        f" --server {server.shown_url}"
        if server.store is None
        else ""
        if str(server.store) == ".esexec"
        else f" --store {server.store}"
    )
    call.say("\ntry in another terminal:")
    if tasks:
        call.say(f"  esexec{where} start --task {tasks[0]} --input '{{…}}' --wait")
    else:
        call.say(f"  esexec{where} worker --tasks MODULE")
    call.say(f"  esexec{where} start PLAN.yaml --wait")
    call.say(f"  esexec{where} verify --all")
