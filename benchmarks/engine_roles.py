"""The engine's processes, made of its public face; and what makes the streams that raw uses."""

import asyncio
import time
from collections.abc import Iterator
from itertools import cycle, repeat
from pathlib import Path
from typing import Any, Self

import esexec
from benchmarks import script, tasks
from benchmarks.capture import capture
from benchmarks.load import Load
from benchmarks.workloads import POOL, SPREAD, gated, startable
from esexec.nats.connection import connect
from esexec.nats.streams import ensure_lane, ensure_streams
from esexec.nats.subjects import Subjects


async def engine_executor(url: str) -> None:
    await esexec.Executor(url, patience=10).start()


async def engine_worker(url: str, slots: int) -> None:
    await esexec.Worker(url, tasks=tasks.ALL, queues={"default": slots}, patience=10).start()


async def engine_streams(url: str) -> None:
    """Make the streams and consumers, also that of the lane, and leave."""
    async with await connect(url, name="esexec-benchmark", patience=10) as connection:
        await ensure_streams(connection, Subjects())
        await ensure_lane(connection, Subjects(), "default", 5)


class EngineClient:
    """Runs executions of one workload through `esexec.connect`."""

    def __init__(self, url: str, workload: str) -> None:
        self._url, self._what = url, startable(workload)
        self._client = esexec.connect(url, patience=10)
        self._input: Iterator[Any] = repeat(None)
        self._load = Load(self._run)
        self._stamps: dict[str, int] = {}
        self._seconds: list[asyncio.Task[bool]] = []

    async def start(self) -> Self:
        await self._client.__aenter__()
        return self

    async def _run(self) -> tuple[str, int]:
        submitted = time.monotonic_ns()
        result = await self._client.execute(self._what, next(self._input))
        output = result.unwrap()
        if isinstance(output, int):
            self._stamps[result.execution_id] = output
        return result.execution_id, submitted

    async def answer(self, request: dict[str, Any]) -> Any:
        match request["op"]:
            case "capture":
                recorded = [await capture(self._url, self._execute_one) for _ in range(request["times"])]
                recorded.sort(key=lambda one: len(one.turns))
                script.save(recorded[len(recorded) // 2], Path(request["path"]))
                return None
            case "stamps":
                return self._stamps
            case "gate":
                await self._client.resources.declare(POOL)
                self._what = gated()[request["kind"]]
                self._input = cycle([{"key": f"key-{number}"} for number in range(SPREAD)])
                return None
            case "start seconds":
                return await self._start_seconds(request["executions"], request["file"])
            case "wait for seconds":
                return sum(await asyncio.gather(*self._seconds))
        return await self._load.answer(request)

    async def _execute_one(self) -> str:
        return (await self._run())[0]

    async def _start_seconds(self, executions: int, file: str) -> None:
        """Start executions that take a second each, and wait for them in the background."""

        async def one(handle: esexec.Handle) -> bool:
            return (await handle.wait(wait_timeout=60)).ok

        for handle in await asyncio.gather(*(self._client.start("second", {"file": file}) for _ in range(executions))):
            self._seconds.append(asyncio.create_task(one(handle)))
