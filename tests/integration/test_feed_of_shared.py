"""The feed tells what executions share, though that is compacted: nothing is let go before it has been told."""

import asyncio

import pytest

import esexec
from esexec import cloudevents
from esexec.domain import limits
from esexec.domain.events import type_of
from esexec.log import codec
from esexec.nats.connection import Connection
from esexec.nats.direct import DirectReader, Message
from esexec.nats.lean import Message as Heard
from tests.integration.engine import Engine, until


@esexec.task(concurrency=esexec.Key("params.user", limit=2))
async def serve(user: str) -> None: ...


@pytest.mark.parametrize("engine", ["one executor", "three executors"], indirect=True)
async def test_what_is_compacted_has_been_told(engine: Engine, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what was compacted, many times over, while no feed ran; and in the end it is let go."""
    monkeypatch.setattr(limits, "commits_before_compaction", 5)
    reader = await DirectReader(connection).start()
    happened: list[str] = []

    async def heard(message: Heard) -> None:
        commit = codec.decode(message.data)
        happened.extend(
            f"{commit.execution_id}/{version}"
            for version, event in enumerate(commit.events, commit.version)
            if type_of(event) not in cloudevents.UNTOLD
        )

    async def told() -> list[str]:
        found: list[Message] = []
        stream, pattern = engine.subjects.events_stream, engine.subjects.events_all
        while page := await reader.from_first(stream, pattern, 500, first=found[-1].sequence + 1 if found else 1):
            found += page
        return [cloudevents.decode(one.data).id for one in found]

    async def all_told() -> bool:
        return sorted(await told()) == sorted(happened)

    async def kept() -> int:
        """How many commits of the key are in the log."""
        body = {"subjects_filter": f"{engine.subjects.log_prefix}.{key}.*"}
        info = await connection.api(f"STREAM.INFO.{engine.subjects.log_stream}", body)
        return len(info["state"]["subjects"])

    await connection.listen(engine.subjects.commits_all, heard)
    await connection.flush()
    await engine.worker(serve, queues={"default": 20})
    await until(lambda: all("serve" in one._desk.surroundings.tasks for one in engine.executors))
    first = await engine.projector(only=["feed"])
    await engine.execute(serve, {"user": "ada"})
    (key,) = [one for one in await engine.client.list_ids(shared=True) if one.startswith("_slots")]
    await until(all_told)
    await first.stop()
    await asyncio.gather(*(engine.execute(serve, {"user": "ada"}, wait=30) for _ in range(60)))
    untold = await kept()
    await engine.projector(only=["feed"])
    await until(all_told, 20)
    await asyncio.gather(*(engine.execute(serve, {"user": "ada"}, wait=30) for _ in range(30)))
    await until(all_told, 20)
    await asyncio.gather(*(engine.execute(serve, {"user": "ada"}, wait=30) for _ in range(30)))
    await until(all_told, 20)
    assert await kept() < untold
