"""What many tests share: a real server, a namespace of one's own, a connection."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from esexec.nats.connection import Connection, connect
from esexec.nats.streams import delete_streams
from esexec.nats.subjects import Subjects
from tests.postgres import postgres_server
from tests.server import NatsServer

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
"""So that the many processes that tests start need not compile everything anew, each half a second."""


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests of this process. Not to be killed: see `own_server`."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server for one test alone, which may do to it what it likes."""
    server = NatsServer(tmp_path_factory.mktemp("own-nats"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server for all tests of this process, begun when one first asks for it."""
    with postgres_server() as url:
        yield url


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    """A connection to `nats_server`."""
    async with await connect(nats_server.url, name="test") as connection:
        yield connection


@pytest.fixture
async def namespace(nats_server: NatsServer) -> AsyncIterator[str]:
    """A fresh namespace on `nats_server`; what the test puts there is deleted afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    yield name
    async with await connect(nats_server.url, name="test-cleanup") as connection:
        await delete_streams(connection, Subjects(name))


@pytest.fixture
def subjects(namespace: str) -> Subjects:
    """The names of `namespace`."""
    return Subjects(namespace)
