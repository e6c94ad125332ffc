"""The log in memory, as the roles of a virtual engine share it: each new commit is repeated to whoever listens, and folded."""

from collections.abc import Callable

from esexec.domain.commit import Commit
from esexec.domain.evolve import fold
from esexec.domain.state import ExecutionState
from esexec.log import codec
from esexec.log.memory import MemoryLog
from esexec.log.port import Appended, Stored
from esexec.log.verify import verify
from esexec.nats.lean import header_block
from esexec.testing.objects import MemoryObjects
from esexec.testing.wire import Wire

Stands = Callable[[Commit], bool]
"""Hears of a commit that was stored just now, before whoever stored it does; False: that one has died meanwhile."""


class SharedLog(MemoryLog):
    """See the module."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire, self.objects = wire, MemoryObjects()
        self.states: dict[str, ExecutionState] = {}
        """Of executions, as of their last commit."""

    async def load_raw(self, entity: str) -> list[Stored]:
        """What `Client.verify` reads."""
        return await self.load(entity)

    async def size(self) -> int:
        return sum(map(len, self.histories.values()))

    def commits(self, entity: str) -> list[Commit]:
        return [codec.commit_of(one) for one in self.histories.get(entity, [])]

    async def append(self, entity: str, n: int, data: bytes, after: int, done: Appended) -> None:
        await self.store(entity, n, data, after, done, _goes_on)

    async def store(self, entity: str, n: int, data: bytes, after: int, done: Appended, stands: Stands) -> None:
        """`append` for somebody who may die once it stands."""
        before = self.position

        async def appended(position: int | None) -> None:
            if self.position == before or stands(self._repeat(entity, n, data)):
                await done(position)

        await super().append(entity, n, data, after, appended)

    def _repeat(self, entity: str, n: int, data: bytes) -> Commit:
        """A commit was stored: tell those who follow the execution."""
        stored = self.histories[entity][-1]
        if (ref := codec.plan_object_of(data)) is not None:
            stored = self.histories[entity][-1] = stored._replace(plan=self.objects.found(ref))
        commit = codec.commit_of(stored)
        if entity[0] != "_":
            state = self.states.setdefault(entity, ExecutionState(entity))
            fold(entity, (commit,), state)
            state.position = self.position
        self._wire.post(self._wire.subjects.commit(entity, n), data, headers=header_block({"Nats-Sequence": str(self.position)}))
        return commit

    def problems(self) -> list[str]:
        """What is wrong with the histories, all of them."""
        found = [verify(entity, history) for entity, history in self.histories.items()]
        return [f"{one.execution_id}: commit {one.commit}: {one.problem}" for one in found if not one.ok]


class LogOfNode:
    """`log.port.Log` for one executor, which may die once a commit stands."""

    def __init__(self, log: SharedLog, alive: Callable[[], bool], stands: Stands) -> None:
        self._log, self._alive, self._stands = log, alive, stands
        self.load, self.read, self.last, self.forget = log.load, log.read, log.last, log.forget
        self.entities = log.entities

    async def append(self, entity: str, n: int, data: bytes, after: int, done: Appended) -> None:
        if self._alive():
            await self._log.store(entity, n, data, after, done, self._stands)


def _goes_on(_: Commit) -> bool:
    return True
