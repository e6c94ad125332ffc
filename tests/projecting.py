"""Projections over histories, without a server: what the runner does, a page at a time, in order."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from eventsourcing.persistence import Tracking

from esexec.log import codec
from esexec.log.memory import MemoryLog
from esexec.log.port import append_and_wait
from projections.memory import MemoryStore
from projections.projection import Projection
from projections.source import Recorded
from projections.view import Store

P = TypeVar("P", bound=Projection)
HISTORIES = Path(__file__).parent / "histories"


def golden(kind: str) -> list[bytes]:
    """The commits of a golden history."""
    return (HISTORIES / f"{kind}.jsonl").read_bytes().splitlines()


def renamed(commits: Iterable[bytes], entity: str) -> list[bytes]:
    """The same history, of another entity."""
    return [codec.encode(msgspec.structs.replace(codec.decode(one), execution_id=entity)) for one in commits]


class Stage:
    """A log in memory, and what is recorded in it so far."""

    def __init__(self) -> None:
        self.log, self.recorded = MemoryLog(), list[Recorded]()

    async def add(self, data: bytes) -> None:
        """The next commit of an entity."""
        commit = codec.decode(data)
        last = await self.log.last(commit.execution_id)
        position = await append_and_wait(self.log, commit.execution_id, commit.n, data, last.position if last else 0)
        assert position is not None
        self.recorded.append(Recorded(position, commit.execution_id, commit.n, commit, data))

    def add_all(self, commits: Iterable[bytes]) -> "Stage":
        async def added() -> None:
            for data in commits:
                await self.add(data)

        asyncio.run(added())
        return self


async def apply(projection: Projection, commits: Sequence[Recorded], stage: Stage) -> None:
    """One page."""
    await projection.prepare(commits, stage.log)
    with projection.view.change(Tracking(projection.view.name, commits[-1].last_id)):
        for recorded in commits:
            projection.process_commit(recorded)
        projection.finish()
    await projection.settled()


def project(kind: type[P], stage: Stage, cuts: Sequence[int] = (), crashes: Sequence[int] = (), store: Store | None = None) -> P:
    """A projection of all that is recorded; pages end at `cuts`, and behind `crashes` a new process goes on."""
    projection = kind((store or MemoryStore()).view(kind.name, kind.tables))
    ends = sorted({*cuts, *crashes, len(stage.recorded)} - {0})

    async def applied() -> P:
        nonlocal projection
        begin = 0
        for end in ends:
            if page := stage.recorded[begin:end]:
                await apply(projection, page, stage)
            if end in crashes:
                projection = kind(projection.view)
            begin = end
        return projection

    return asyncio.run(applied())
