"""How executions are started: so many side by side, one after the other, or so many a second. For the engine and for raw."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

_PACE_S = 0.001
Run = Callable[[], Awaitable[tuple[str, int]]]
"""One execution to its end; returns its id and when it was submitted (monotonic, ns)."""


class Load:
    """Answers a client process's questions by running executions."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def answer(self, request: dict[str, Any]) -> Any:
        match request["op"]:
            case "flood":
                return await self._flood(request["executions"], request["concurrency"])
            case "single":
                return await self._single(request["executions"], request["pause_s"])
            case "paced":
                return await self._paced(request["executions"], request["per_s"])
        raise ValueError(request)

    async def _flood(self, executions: int, concurrency: int) -> float:
        """Seconds for so many executions, `concurrency` in flight."""
        left = iter(range(executions))

        async def one_after_the_other() -> None:
            for _ in left:
                await self._run()

        begin = time.perf_counter()
        await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
        return time.perf_counter() - begin

    async def _single(self, executions: int, pause_s: float) -> list[tuple[str, int, int]]:
        """Id, submitted, ended (ns) of executions, one at a time."""
        done = []
        for _ in range(executions):
            await asyncio.sleep(pause_s)
            execution, submitted = await self._run()
            done.append((execution, submitted, time.monotonic_ns()))
        return done

    async def _paced(self, executions: int, per_s: int) -> list[float]:
        """The ms of executions that are offered at this pace, whatever becomes of those before: from when each was due to its
        known end."""
        begin = time.perf_counter() + 0.01

        async def one(number: int) -> float:
            await self._run()
            return (time.perf_counter() - (begin + number / per_s)) * 1000

        going: list[asyncio.Task[float]] = []
        while len(going) < executions:
            due = min(executions, int((time.perf_counter() - begin) * per_s) + 1)
            going += [asyncio.create_task(one(number)) for number in range(len(going), due)]
            await asyncio.sleep(_PACE_S)
        return await asyncio.gather(*going)
