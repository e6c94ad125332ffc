"""Answering requests as a NATS service (ADR-32): listed by `nats micro ls`, and shared by all processes that serve it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any
from uuid import uuid4

import msgspec
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import Service

from esexec.domain.errors import EsexecError, InternalError
from esexec.nats.connection import Connection
from esexec.world import VERSION

logger = logging.getLogger("esexec.nats")

Answerer = Callable[[bytes], Awaitable[bytes]]
"""From a request's content to its answer's. What it raises is answered as an error."""

AT_ONCE = 200
"""So many requests are worked on at once; more wait in line."""
_STOP_S = 2.0
_IN_HAND_S = 5.0
"""So long after that an answer may still take."""


class Services:
    """Endpoints of one service. `stop` lets what is in hand come to its end."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def serve(self, prefix: str, endpoints: Mapping[str, Answerer], by_each: Collection[str] = ()) -> None:
        """Answer requests on `<prefix>.<name>`: one of all processes does. `by_each`: to these names every one answers."""
        group, own = self._service.add_group(name=prefix), uuid4().hex
        for name, answer in endpoints.items():
            queue = own if name in by_each else None
            handler = self._handler(answer)
            await group.add_endpoint(name=name.replace(".", "-"), subject=name, handler=handler, queue_group=queue)

    def _handler(self, answer: Answerer) -> Callable[[Request], Awaitable[None]]:
        async def handle(request: Request) -> None:
            await self._places.acquire()
            task = asyncio.create_task(self._answer(request, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return handle

    async def _answer(self, request: Request, answer: Answerer) -> None:
        try:
            data = await answer(request.data)
        except EsexecError as error:
            await _respond_error(request, error)
        except Exception as error:
            logger.exception("a query failed")
            await _respond_error(request, InternalError(f"the query failed: {error!r}"))
        else:
            await _respond(request, data)
        finally:
            self._places.release()

    async def stop(self) -> None:
        """Take no more requests. A server that is silent is not waited for, nor is an answer that takes long."""
        stopping = asyncio.ensure_future(self._service.stop())
        stopping.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await asyncio.wait({stopping}, timeout=_STOP_S)
        finally:
            stopping.cancel()  # within its flush nats-py's reader may die of it: the connection is closed next
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_IN_HAND_S)
            for task in self._tasks:
                task.cancel()


async def serve(connection: Connection, name: str, description: str, metadata: dict[str, str] | None = None) -> Services:
    """A service, yet without endpoints."""
    adding = add_service(connection.client, name=name, version=VERSION, description=description, metadata=metadata)
    return Services(await asyncio.shield(adding))  # it flushes: nats-py's reader dies of a pong for a future that was cancelled


async def _respond(request: Request, data: bytes, headers: dict[str, str] | None = None) -> None:
    if request._msg.reply:
        await request.respond(data, headers)


async def _respond_error(request: Request, error: EsexecError) -> None:
    if not request._msg.reply:
        return
    info: Any = error.info
    said = error.info.message.replace("\r", " ").replace("\n", " ")[:500]
    await request.respond_error(info.code, said, msgspec.json.encode({"error": info}))
