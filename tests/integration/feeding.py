"""A namespace whose log holds what a test puts there, and feeds that tell of it."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.log import codec
from esexec.log.jetstream import JetStreamLog
from esexec.log.port import append_and_wait
from esexec.nats.connection import Connection, connect
from esexec.nats.direct import DirectReader, Message
from esexec.nats.publisher import Publisher
from esexec.nats.streams import ensure_streams
from esexec.nats.subjects import Subjects
from esexec.world import now
from projections.feed import EventFeed
from projections.memory import MemoryStore
from projections.source import JetStreamSource
from tests.integration.engine import until
from tests.projecting import golden, renamed

HISTORIES = ("rolled_back", "retried", "recovered", "granted", "deadline", "measured")


class FeedStage:
    """See the module. `start` before use."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects
        self.feeds: list[asyncio.Task[None]] = []
        self.number = 0

    async def start(self) -> "FeedStage":
        await ensure_streams(self.connection, self.subjects)
        self.publisher = await Publisher(self.connection).start()
        self.reader = await DirectReader(self.connection).start()
        self.log = JetStreamLog(self.connection, self.subjects, self.publisher, self.reader)
        self.hearing = await connect(self.connection.url, name="hearing", patience=60)
        self.source = await JetStreamSource(self.connection, self.hearing, self.subjects, self.reader).start()
        return self

    async def close(self) -> None:
        for task in self.feeds:
            task.cancel()
        await asyncio.gather(*self.feeds, return_exceptions=True)
        await self.source.close()
        await self.publisher.close()
        await self.hearing.close()

    async def happens(self, kinds: Sequence[str] = HISTORIES, times: int = 1) -> None:
        """Golden histories, side by side, each of an entity of its own."""
        histories = []
        for kind in list(kinds) * times:
            self.number += 1
            histories.append((f"e{self.number}", renamed(golden(kind), f"e{self.number}")))
        last = {entity: 0 for entity, _ in histories}
        for index in range(max(len(commits) for _, commits in histories)):
            for entity, commits in histories:
                if index < len(commits):
                    position = await append_and_wait(self.log, entity, index + 1, commits[index], last[entity])
                    assert position is not None
                    last[entity] = position

    async def append(self, entity: str, *events: e.Event, at: datetime | None = None) -> None:
        """One commit that is an entity's first."""
        commit = Commit(v=1, execution_id=entity, n=1, version=1, time=at or now(), events=events)
        assert await append_and_wait(self.log, entity, 1, codec.encode(commit), 0) is not None

    def feed(self, **options: Any) -> EventFeed:
        """A feed that runs; of none that runs beside it does it know."""
        feed = EventFeed(self.connection, self.subjects, self.source, MemoryStore(), **options)
        self.feeds.append(asyncio.create_task(feed.run()))
        return feed

    async def dies(self) -> None:
        """The last feed that was started is gone."""
        task = self.feeds.pop()
        task.cancel()
        await asyncio.wait({task})

    async def happened(self) -> list[str]:
        """The ids of all events of the log, in its order, read by a way of its own."""
        commits = await self.commits()
        return [f"{one.execution_id}/{version}" for one in commits for version, _ in enumerate(one.events, one.version)]

    async def told(self) -> list[str]:
        """The ids of all events of the feed, in its order."""
        return [msgspec.json.decode(message.data)["id"] for message in await self.messages()]

    async def has_told(self, count: int) -> bool:
        return len(await self.told()) >= count

    async def commits(self) -> list[Commit]:
        """What the log holds."""
        return [codec.decode(message.data) for message in await self._all(self.subjects.log_stream, self.subjects.logs_all)]

    async def messages(self) -> list[Message]:
        return await self._all(self.subjects.events_stream, self.subjects.events_all)

    async def _all(self, stream: str, pattern: str) -> list[Message]:
        found: list[Message] = []
        while page := await self.reader.from_first(stream, pattern, 500, first=found[-1].sequence + 1 if found else 1):
            found += page
        return found

    async def all_told(self, before: Sequence[str] = ()) -> None:
        """Every event has been told (besides those that were told `before` and are gone), in order and once."""
        expected = [one for one in await self.happened() if one not in set(before)]

        async def complete() -> bool:
            return len(await self.told()) >= len(expected)

        await until(complete, 20)
        assert await self.told() == expected

    async def change(self, **settings: Any) -> None:
        """Other settings of the stream."""
        found = (await self.connection.api(f"STREAM.INFO.{self.subjects.events_stream}"))["config"]
        await self.connection.api(f"STREAM.UPDATE.{self.subjects.events_stream}", found | settings)

    async def state(self) -> dict[str, Any]:
        answer = await self.connection.api(f"STREAM.INFO.{self.subjects.events_stream}", {"subjects_filter": ">"})
        found: dict[str, Any] = answer["state"]
        return found
