"""A process of a benchmark: `python -m benchmarks.role '<settings as JSON>'`.

It says one line when it is ready, then answers each line on its input with one line, and ends with its input: so none is left
behind, however the process that started it ended.
"""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks.engine_roles import EngineClient, engine_executor, engine_streams, engine_worker
from benchmarks.load import Load
from benchmarks.raw_roles import raw_client, raw_executor, raw_worker
from benchmarks.reading_roles import Asker, Keeper
from benchmarks.role_settings import Settings
from benchmarks.script import load
from esexec import process

Answer = Callable[[dict[str, Any]], Awaitable[Any]]


async def _nothing(request: dict[str, Any]) -> None:
    return None


async def _begin(settings: Settings) -> Answer:
    if settings.kind == "engine":
        match settings.role:
            case "executor":
                await engine_executor(settings.url)
            case "worker":
                await engine_worker(settings.url, settings.slots)
            case "streams":
                await engine_streams(settings.url)
            case "projector":
                return Keeper(settings.url).answer
            case "asker":
                return (await Asker(settings.url).start()).answer
            case _:
                return (await EngineClient(settings.url, settings.workload).start()).answer
        return _nothing
    script = load(Path(settings.script))
    match settings.role:
        case "executor":
            await raw_executor(settings.url, script)
            return _nothing
        case "worker":
            worker = await raw_worker(settings.url, script, settings.slots)

            async def stamps(request: dict[str, Any]) -> dict[str, int]:
                return worker.stamps

            return stamps
        case _:
            client = await raw_client(settings.url, script)
            return Load(client.run).answer


async def _main(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    answer = await _begin(settings)
    _say({"ready": True})
    while line := await lines.readline():
        _say(await answer(msgspec.json.decode(line)))


def _say(content: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(content) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    # A client is the user's program; the others run as `esexec executor` and `esexec worker` do. The same for raw.
    with contextlib.suppress(BrokenPipeError):  # whoever started it has ended
        (uvloop.run if settings.role in ("client", "asker") else process.run)(_main(settings))
