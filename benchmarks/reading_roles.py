"""The processes that read: one that keeps projections, as `esexec projections` does, and one that asks them."""

import asyncio
import time
from typing import Any, Self

import esexec
from esexec.client.client import Client
from esexec.process import yield_to_others
from projections.feed import EventFeed
from projections.role import Projector
from projections.runner import Runner

_LOOK_S = 0.05


class Keeper:
    """Keeps projections from `open` to `close`, the views in a file or at a URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._projector: Projector
        self._opened = 0.0
        self._watching: asyncio.Task[None] | None = None
        self._lags: list[tuple[float, int]] = []

    async def answer(self, request: dict[str, Any]) -> Any:
        match request["op"]:
            case "open":
                self._opened = time.perf_counter()
                yield_to_others()
                self._projector = Projector(self._url, store=request["where"], only=request["only"])
                await self._projector.start()
            case "catch up":
                await self._projector.caught_up()
                return self._caught_up(time.perf_counter() - self._opened)
            case "reach":
                begun = time.perf_counter()
                await self._projector.caught_up()
                return time.perf_counter() - begun
            case "watch":
                self._lags = []
                self._watching = asyncio.create_task(self._watch())
            case "watched":
                return await self._watched()
            case "close":
                await self._projector.stop()
        return None

    def _caught_up(self, seconds: float) -> dict[str, Any]:
        found = [runner.status() for runner in self._projector.runners.values()]
        assert all(one.state in ("starting", "working") for one in found), found
        return {"seconds": seconds, "events": {one.name: one.events for one in found}}

    async def _watch(self) -> None:
        """Looks, again and again, for how long the slowest projection has not had in it what is in the log."""
        heads: list[tuple[float, int]] = []
        runners: list[Runner | EventFeed] = [*self._projector.runners.values()]
        if self._projector.feed is not None:
            runners.append(self._projector.feed)
        while True:
            heads.append((time.perf_counter(), await runners[0].head()))
            slowest = min(runner.position for runner in runners)
            heads = [(at, head) for at, head in heads if head > slowest] or heads[-1:]
            waits_s = time.perf_counter() - heads[0][0] if heads[0][1] > slowest else 0.0
            self._lags.append((waits_s, heads[-1][1] - slowest))
            await asyncio.sleep(_LOOK_S)

    async def _watched(self) -> list[tuple[float, int]]:
        """Each time that it was looked: how long the oldest commit had not been processed, and how many had not been."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
            if not self._watching.cancelled():
                self._watching.result()
        return self._lags


class Asker:
    """Asks one question after the other."""

    def __init__(self, url: str) -> None:
        self._client = esexec.connect(url, patience=10)

    async def start(self) -> Self:
        await self._client.__aenter__()
        return self

    async def answer(self, request: dict[str, Any]) -> Any:
        match request["op"]:
            case "cursor":
                return await self._cursor(request["pages"])
            case "ask":
                return await self._ask(request["model"], request["each"], request["times"])

    async def _cursor(self, pages: int) -> str | None:
        """That of so many full pages on."""
        cursor = None
        for _ in range(pages):
            cursor = (await self._client.executions.list(limit=1000, cursor=cursor)).cursor
        return cursor

    async def _ask(self, model: str, each: list[dict[str, Any]], times: int) -> dict[str, Any]:
        """The latency of each of so many questions (ms), and how many items the answers had in the middle."""
        ask = ASKED[model]
        ms, items = [], []
        for number in range(times):
            conditions = each[number % len(each)]
            begun = time.perf_counter()
            items.append(await ask(self._client, conditions))
            ms.append((time.perf_counter() - begun) * 1000)
        return {"ms": ms, "items": sorted(items)[len(items) // 2]}


async def _executions(client: Client, conditions: dict[str, Any]) -> int:
    return len(await client.executions.list(**conditions))


async def _tasks(client: Client, conditions: dict[str, Any]) -> int:
    return len(await client.tasks.list(**conditions))


async def _get(client: Client, conditions: dict[str, Any]) -> int:
    return int(await client.executions.get(**conditions) is not None)


async def _stats(client: Client, conditions: dict[str, Any]) -> int:
    return (await client.stats(**conditions)).total


ASKED = {"executions": _executions, "tasks": _tasks, "get": _get, "stats": _stats}
