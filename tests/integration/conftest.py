"""What the tests of the running engine share."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from esexec.client import Client
from esexec.nats import streams
from esexec.nats.connection import Connection
from tests.integration.engine import KINDS, Complaints, Engine
from tests.integration.raw import RawClient
from tests.integration.site import Shaker, Site
from tests.server import NatsServer


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """What is logged as a warning or worse during the test."""
    handler = Complaints()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.fixture
async def engine(
    nats_server: NatsServer, namespace: str, complaints: Complaints, request: pytest.FixtureRequest
) -> AsyncIterator[Engine]:
    """A running engine with a client. Parametrized indirectly it takes one of `KINDS`; None has no executor."""
    kind = getattr(request, "param", "one executor")
    engine = Engine(nats_server.url, namespace)
    engine.complaints = complaints
    count, options = KINDS[kind] if kind else (0, {})
    async with engine.stack:
        for _ in range(count):
            await engine.executor(**options)
        engine.client = await engine.another_client()
        yield engine
        async with Client(engine.url, namespace=namespace) as engine.client:
            await engine.check()


@pytest.fixture
def short_ack_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an executor had in hand when it died is handed to another one after 2 s. By `usefixtures`, before the engine."""
    monkeypatch.setattr(streams, "ACK_WAIT_MS", 2_000)


@pytest.fixture
async def raw(engine: Engine, connection: Connection) -> RawClient:
    """A client that speaks nothing but NATS."""
    return await RawClient(engine, connection).listen()


@pytest.fixture
async def site(engine: Engine) -> Site:
    """A worker that does and undoes what a test of the lifecycle says."""
    site = Site()
    await engine.worker(*site.tasks)
    return site


@pytest.fixture
async def alone(own_server: NatsServer, complaints: Complaints) -> AsyncIterator[Engine]:
    """A running engine on a server of its own, of which everything may be restarted."""
    engine = Engine(own_server.url, "alone")
    engine.complaints = complaints
    async with engine.stack:
        await engine.executor()
        engine.client = await engine.another_client(confirm_s=20.0)
        yield engine
        await engine.check()


@pytest.fixture(params=["executors", "server"])
def shake(alone: Engine, own_server: NatsServer, request: pytest.FixtureRequest) -> Shaker:
    """`await shake()` restarts the executors, or the server: a test that takes it runs once with each."""
    return Shaker(request.param, alone, own_server)


@pytest.fixture
def quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of leases, five times as fast."""
    for name, value in {"lease_ms": 1_000, "heartbeat_ms": 200, "timeout_grace_ms": 400}.items():
        monkeypatch.setattr(f"esexec.domain.limits.{name}", value)
    monkeypatch.setattr("esexec.worker.leases._BLOCKED_S", 0.3)
