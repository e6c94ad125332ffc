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
        if n <= len(history) and history[n - 1].data == data:
            await done(history[n - 1].position)
        elif n != len(history) + 1 or after != (history[-1].position if history else 0):
            await done(None)
        else:
            self.position += 1
            self.histories.setdefault(entity, []).append(Stored(n, self.position, data))
            await done(self.position)

    async def load(self, entity: str, after: int = 0) -> list[Stored]:
        return self.histories.get(entity, [])[after:]

    async def read(self, entity: str, n: int) -> Stored | None:
        history = self.histories.get(entity, [])
        return history[n - 1] if 0 < n <= len(history) else None

    async def entities(self) -> AsyncIterator[str]:
        for entity in list(self.histories):
            yield entity
