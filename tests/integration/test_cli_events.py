"""`esexec events`: the public feed on the command line."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from esexec.domain import events as e
from esexec.nats.connection import connect
from esexec.nats.subjects import Subjects
from tests.integration.cli import Cli
from tests.integration.feeding import FeedStage
from tests.server import NatsServer

pytestmark = pytest.mark.xdist_group("cli")


@pytest.fixture
async def stage(own_server: NatsServer) -> AsyncIterator[FeedStage]:
    async with await connect(own_server.url, name="test") as connection:
        stage = await FeedStage(connection, Subjects()).start()
        await stage.happens(["retried", "rolled_back"])
        stage.feed()
        await stage.all_told()
        yield stage
        await stage.close()


@pytest.fixture
def cli(own_server: NatsServer, tmp_path: Path) -> Iterator[Cli]:
    yield Cli(tmp_path)


async def test_all_that_is_kept(stage: FeedStage, cli: Cli, own_server: NatsServer) -> None:
    """In words, or as the CloudEvents that they are; narrowed down by type and execution."""
    server = ("--server", own_server.url)
    done = await cli.aside("events", *server)
    assert done.code == 0
    assert len(done.out.splitlines()) == len(await stage.told())
    assert any(all(word in line for word in ("e1", "task.failed", "failed: [")) for line in done.out.splitlines())
    documents = (await cli.aside("events", "--json", *server)).lines
    assert documents == [json.loads(message.data) for message in await stage.messages()]
    failed = (await cli.aside("events", "--json", "--type", "task.failed", *server)).lines
    assert failed == [one for one in documents if one["type"] == "task.failed"]
    of_e2 = ("--execution", "e2", "--type", "execution.created", "--type", "execution.rolled_back")
    assert [one["type"] for one in (await cli.aside("events", "--json", *of_e2, *server)).lines] == [
        "execution.created",
        "execution.rolled_back",
    ]


async def test_since(stage: FeedStage, cli: Cli, own_server: NatsServer) -> None:
    """A time, or how long ago; what is neither is refused (2), as is a type that there is not (2)."""
    server = ("--server", own_server.url)
    await stage.append("new", e.ExecutionStarted())
    await stage.all_told()
    assert [one["subject"] for one in (await cli.aside("events", "--json", "--since", "1h", *server)).lines] == ["new"]
    assert (await cli.aside("events", "--json", "--since", "2200-01-01T00:00:00Z", *server)).lines == []
    wrong = await cli.aside("events", "--since", "lately", *server)
    assert wrong.code == 2
    unknown = await cli.aside("events", "--type", "task.fialed", *server)
    assert (unknown.code, "task.failed" in unknown.err) == (2, True)


async def test_follow(stage: FeedStage, cli: Cli, own_server: NatsServer) -> None:
    """It goes on with what comes, until it is interrupted (130)."""
    import asyncio

    with cli.running("events", "--follow", "--server", own_server.url) as running:
        await asyncio.to_thread(running.until, "execution rolled back")
        await stage.append("new", e.ExecutionStarted())
        await asyncio.to_thread(running.until, "execution started")
        assert running.end().code in (0, 130, 143)
