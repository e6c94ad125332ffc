"""A running engine for one test: executors, workers and clients on a namespace of its own, all ended with the test."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from inspect import isawaitable
from typing import Any, Unpack

from esexec import Client, Executor, Task, Worker
from esexec.client import StartOptions
from esexec.domain.events import type_of
from esexec.nats.subjects import Subjects
from projections.memory import MemoryStore
from projections.role import Projector

KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "one executor": (1, {}),
    "two executors": (2, {}),
    "three executors": (3, {}),
    "no cache": (1, {"cache_size": 0}),
    "two without cache": (2, {"cache_size": 0}),
}
"""Number of executors, and their settings: with every one of these the engine must behave the same."""

QUICK = {"initial_retry_delay": 0.01, "jitter": 0.0}
"""Options of a start that keep a test of retries short."""


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], seconds: float = 8.0) -> Any:
    """The first true value of `condition` (a function, or a coroutine function); fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < end, f"this did not come true within {seconds} s"
        await asyncio.sleep(0.005)


class Complaints(logging.Handler):
    """What was logged as an error, by us or by asyncio on behalf of a task that nobody looked after."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    def of_level(self, level: int) -> list[str]:
        return [
            record.getMessage() + (f"\n{record.exc_info[1]!r}" if record.exc_info else "")
            for record in self.records
            if record.levelno >= level
        ]

    @property
    def tracebacks(self) -> list[str]:
        return [record.getMessage() for record in self.records if record.exc_info or "Traceback" in record.getMessage()]


class Engine:
    """`client` is ready to use; executors are started with the engine, workers by the test."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url, self.namespace, self.subjects = url, namespace, Subjects(namespace)
        self.stack = AsyncExitStack()
        self.complaints = Complaints()
        self.errors_expected = False
        """Set by a test that provokes errors in the log."""
        self.broken: set[str] = set()
        """Executions whose history a test broke."""
        self.executors: list[Executor] = []
        self.client: Client

    async def executor(self, **options: Any) -> Executor:
        executor = await self.stack.enter_async_context(Executor(self.url, namespace=self.namespace, **options))
        self.executors.append(executor)
        return executor

    async def worker(self, *tasks: Task[..., Any], **options: Any) -> Worker:
        return await self.stack.enter_async_context(Worker(self.url, tasks=tasks, namespace=self.namespace, **options))

    async def projector(self, **options: Any) -> Projector:
        """A process of projections, with its views in memory unless `store` says otherwise."""
        options.setdefault("store", MemoryStore())
        return await self.stack.enter_async_context(Projector(self.url, namespace=self.namespace, **options))

    async def another_client(self, **options: Any) -> Client:
        return await self.stack.enter_async_context(Client(self.url, namespace=self.namespace, **options))

    async def execute(self, what: Any, input: Any = None, *, wait: float = 10.0, **options: Unpack[StartOptions]) -> Any:
        """As `client.execute`, but never for ever, and with short delays between attempts."""
        return await self.client.execute(what, input, wait_timeout=wait, **{**QUICK, **options})  # type: ignore[typeddict-item]

    async def events(self, execution_id: str) -> list[Any]:
        """All events of an execution, in order."""
        return [event for commit in await self.client.history(execution_id) for event in commit.events]

    async def types(self, execution_id: str, *, steps: bool = False) -> list[str]:
        """The types of its events, in order; with `steps` as `task_started:a`."""
        return [
            f"{type_of(event)}:{event.step}" if steps and hasattr(event, "step") else type_of(event)
            for event in await self.events(execution_id)
        ]

    async def check(self) -> None:
        """What holds after every test: each history is whole and lawful, and nobody complained unexpectedly."""
        for execution_id in await self.client.list_ids():
            verification = await self.client.verify(execution_id)
            assert verification.ok or execution_id in self.broken, verification
        if not self.errors_expected:
            assert self.complaints.of_level(logging.ERROR) == []
            assert self.complaints.tracebacks == []


class WorkerThread(threading.Thread):
    """A worker on a loop of its own, as in a process of its own: so that a test survives a handler that blocks it."""

    def __init__(self, engine: Engine, *tasks: Task[..., Any], **options: Any) -> None:
        super().__init__(daemon=True)
        self.engine, self.tasks, self.options = engine, tasks, options
        self.ready, self.end = threading.Event(), threading.Event()

    def run(self) -> None:
        asyncio.run(self._work())

    async def _work(self) -> None:
        async with Worker(self.engine.url, tasks=self.tasks, namespace=self.engine.namespace, drain_s=0.5, **self.options):
            self.ready.set()
            await asyncio.to_thread(self.end.wait)

    async def __aenter__(self) -> "WorkerThread":
        self.start()
        await until(self.ready.is_set)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end.set()
        await until(lambda: not self.is_alive())
