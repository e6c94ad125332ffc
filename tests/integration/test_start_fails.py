"""A role that cannot start takes everything back that it had begun."""

import asyncio
import threading
from typing import Any

import pytest

import esexec
from esexec.domain.errors import Unavailable
from tests.integration.engine import until
from tests.server import NatsServer


@esexec.task
async def nothing() -> None: ...


def fails(*_: Any, **__: Any) -> None:
    raise Unavailable("not now")


def running() -> set[str]:
    tasks = {str(task.get_coro()) for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    return tasks | {thread.name for thread in threading.enumerate() if thread.name.startswith("esexec")}


@pytest.mark.parametrize("fault", ["worker.worker.lane_names", "executor.executor.Puller", "worker.worker.ensure_streams"])
async def test_a_role_that_cannot_start_leaves_nothing_behind(
    nats_server: NatsServer, namespace: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections are closed, its threads and tasks end: who tries again for days does not run out of anything."""
    before = running()
    monkeypatch.setattr(f"esexec.{fault}", fails)
    role: Any = esexec.Worker(nats_server.url, tasks=[nothing], namespace=namespace)
    if fault.startswith("executor"):
        role = esexec.Executor(nats_server.url, namespace=namespace)
    with pytest.raises(Unavailable):
        await role.start()
    await until(lambda: running() - before == set())
