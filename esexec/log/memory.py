"""The log in memory: for tests, simulation, and as the plainest statement of what a log does."""

from collections.abc import AsyncIterator

from esexec.log.port import Appended, Stored


class MemoryLog:
    """A log in a dict. `done` is called before `append` returns."""

    def __init__(self) -> None:
        self.histories: dict[str, list[Stored]] = {}
        self.position = 0

    async def append(self, entity: str, n: int, data: bytes, after: int, done: Appended) -> None:
        history = self.histories.get(entity, [])
        there, last = self._at(entity, n), history[-1] if history else Stored(0, 0, b"")
        if there is not None and there.data == data:
            await done(there.position)
        elif n != last.n + 1 or after != last.position:
            await done(None)
        else:
            self.position += 1
            self.histories.setdefault(entity, []).append(Stored(n, self.position, data))
            await done(self.position)

    async def load(self, entity: str, after: int = 0) -> list[Stored]:
        return [one for one in self.histories.get(entity, []) if one.n > after]

    async def read(self, entity: str, n: int) -> Stored | None:
        return self._at(entity, n)

    def _at(self, entity: str, n: int) -> Stored | None:
        history = self.histories.get(entity, [])
        place = n - history[0].n if history else -1
        return history[place] if 0 <= place < len(history) else None

    async def last(self, entity: str) -> Stored | None:
        history = self.histories.get(entity, [])
        return history[-1] if history else None

    async def forget(self, entity: str, first: Stored) -> None:
        self.histories[entity] = await self.load(entity, first.n - 1)

    async def entities(self) -> AsyncIterator[str]:
        for entity in list(self.histories):
            yield entity
