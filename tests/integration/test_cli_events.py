"""`esexec events`: the public feed on the command line."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from esexec.domain import events as e
from esexec.nats.connection import connect
from esexec.nats.subjects import Subjects
from tests.integration.cli import Cli
from tests.integration.feeding import FeedStage
from tests.server import NatsServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli")]


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
def cli(own_server: NatsServer, tmp_path: Path) -> Cli:
    return Cli(tmp_path, own_server.url)


async def test_all_that_is_kept(stage: FeedStage, cli: Cli) -> None:
    """In words, or as the CloudEvents that they are; narrowed down by type and execution."""
    done = await asyncio.to_thread(cli, "events")
    assert done.code == 0
    assert len(done.out.splitlines()) == len(await stage.told())
    assert any(all(word in line for word in ("e1", "task.failed", "failed: [")) for line in done.out.splitlines())
    documents = (await asyncio.to_thread(cli, "events", "--json")).lines
    assert documents == [json.loads(message.data) for message in await stage.messages()]
    failed = (await asyncio.to_thread(cli, "events", "--json", "--type", "task.failed")).lines
    assert failed == [one for one in documents if one["type"] == "task.failed"]
    of_e2 = ("--execution", "e2", "--type", "execution.created", "--type", "execution.rolled_back")
    assert [one["type"] for one in (await asyncio.to_thread(cli, "events", "--json", *of_e2)).lines] == [
        "execution.created",
        "execution.rolled_back",
    ]


async def test_since(stage: FeedStage, cli: Cli) -> None:
    """A time, or how long ago; what is neither is refused (2), as is a type that there is not (2)."""
    await stage.append("new", e.ExecutionStarted())
    await stage.all_told()
    assert [one["subject"] for one in (await asyncio.to_thread(cli, "events", "--json", "--since", "1h")).lines] == ["new"]
    assert (await asyncio.to_thread(cli, "events", "--json", "--since", "2200-01-01T00:00:00Z")).lines == []
    wrong = await asyncio.to_thread(cli, "events", "--since", "lately")
    assert wrong.code == 2
    unknown = await asyncio.to_thread(cli, "events", "--type", "task.fialed")
    assert (unknown.code, "task.failed" in unknown.err) == (2, True)


async def test_follow(stage: FeedStage, cli: Cli) -> None:
    """It goes on with what comes, until it is interrupted (130)."""
    with cli.running("events", "--follow") as running:
        await asyncio.to_thread(running.until, "execution rolled back")
        await stage.append("new", e.ExecutionStarted())
        await asyncio.to_thread(running.until, "execution started")
        assert running.end().code in (0, 130, 143)
