"""`kill -9` of the process that tells the public feed, anywhere, and of the server: each event once, in order."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from esexec.nats.connection import connect
from esexec.nats.subjects import Subjects
from tests.chaos.rig import ROOT
from tests.integration.engine import until
from tests.integration.feeding import FeedStage
from tests.server import NatsServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]
NAMESPACE = "fed"


class Feeding:
    """Such processes."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self.log, self.processes = url, log, list[subprocess.Popen[bytes]]()

    def start(self, page: int, point: str = "") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.chaos.feeding", self.url, NAMESPACE, str(page), *([point] if point else [])]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    async def dead(self, process: subprocess.Popen[bytes]) -> None:
        """It has killed itself."""
        await until(lambda: process.poll() is not None, 20)
        assert process.returncode == -9, self.log.read_text()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
async def stage(own_server: NatsServer) -> AsyncIterator[FeedStage]:
    async with await connect(own_server.url, name="test") as connection:
        stage = await FeedStage(connection, Subjects(NAMESPACE)).start()
        yield stage
        await stage.close()


@pytest.fixture
def feeding(own_server: NatsServer, tmp_path: Path) -> Iterator[Feeding]:
    feeding = Feeding(own_server.url, tmp_path / "feeding.log")
    yield feeding
    feeding.close()


@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize("point", ["sent", "stored"])
async def test_it_may_die_at_a_batch(stage: FeedStage, feeding: Feeding, point: str, nth: int) -> None:
    """When it is sent, and when it is stored and not known to be."""
    await stage.happens()
    await feeding.dead(feeding.start(6, f"{point}:{nth}"))
    await stage.happens()
    feeding.start(6)
    await stage.all_told()


async def test_it_may_die_at_any_moment(stage: FeedStage, feeding: Feeding, own_server: NatsServer) -> None:
    """Two of them, killed again and again, while things happen and the server is killed as well."""
    chance = random.Random(5)

    async def happening() -> None:
        for _ in range(25):
            await stage.happens()

    happens = asyncio.create_task(happening())
    running, told = [feeding.start(5), feeding.start(5)], 0
    for round_ in range(8):
        enough = told + chance.randint(1, 60)
        await until(lambda enough=enough: stage.has_told(enough), 30)
        told = len(await stage.told())
        victim = running.pop(chance.randrange(2))
        victim.kill()
        victim.wait()
        if round_ in (3, 6):
            await asyncio.to_thread(own_server.restart)
        running.append(feeding.start(chance.randint(1, 20)))
    await happens
    await stage.all_told()
