"""Namespaces on one server: the same names in both, and nothing of one is in the other."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

import esexec
from esexec import Alert, AlertCondition, Cache, Client
from esexec.nats.connection import Connection, Msg, connect
from esexec.nats.streams import delete_streams
from esexec.nats.subjects import Subjects
from projections import alerts, looking
from projections.memory import MemoryStore
from tests.integration.engine import Engine, until

FAILED = AlertCondition("execution_failed", "gte", 1)


class House:
    """A namespace with all that there is: executor, worker, projections, a client; and what its handlers were called with."""

    def __init__(self, engine: Engine, color: str) -> None:
        self.engine, self.color = engine, color
        self.calls: list[str] = []
        self.heard: list[Alert] = []
        self.opened = asyncio.Event()

    @property
    def client(self) -> Client:
        return self.engine.client

    async def furnish(self) -> "House":
        color, calls, opened = self.color, self.calls, self.opened

        @esexec.task(cache=Cache(ttl="1h"))
        async def cached(x: int) -> str:
            calls.append("cached")
            return color

        @esexec.task
        async def paint(ctx: esexec.Context) -> str:
            calls.append("paint")
            ctx.log.info(color)
            ctx.vars["color"] = color
            return color

        @esexec.task(max_retries=0)
        async def bad() -> None:
            calls.append("bad")
            raise esexec.ExecutionError(color, code="BROKEN", retry=False)

        @esexec.task
        async def waits() -> str:
            calls.append("waits")
            await opened.wait()
            return color

        await self.engine.worker(cached, paint, bad, waits, queues={"default": 20}, sample_ms=50)
        await self.engine.projector(store=MemoryStore())
        return self

    async def _told_by(self, execution_id: str) -> AsyncIterator[str]:
        async for update in self.client.monitor(execution_id):
            for message in update.messages:
                yield message.message

    async def live(self) -> dict[str, Any]:
        """Use everything that a namespace has, under the same names in every house; what came of it."""
        client, told, color = self.client, dict[str, Any](), self.color
        await client.configure(max_retries=7 if self.color == "red" else 8)
        await client.resources.declare({"id": "brush", "type": "brush", "capacity": 1})
        await client.alerts.set(FAILED, self.heard.append, id="failures")
        kept = await client.plans.put({"name": "kept", "steps": [{"task": "paint"}]})
        told["plan"] = (await client.plans.get(kept.plan_id)).created_at
        told["same id"] = await client.run("paint", execution_id="same", idempotency_key="key", metadata={"color": self.color})
        told["same key"] = (await client.start("paint", idempotency_key="key")).id
        told["cached"] = await client.run("cached", {"x": 1})
        told["failed"] = (await client.execute("bad", execution_id="broken")).error
        told["kept"] = await client.run(kept.plan_id)
        waiting = await client.start("waits", execution_id="waiting", concurrency={"key": "only", "limit": 1})
        await until(lambda: "waits" in self.calls)
        async with client.resources.hold({"brush": 1}):
            told["free"] = (await client.resources.pools())[0].free
        await client.start("waits", execution_id="living", metadata={"living": color})
        told["strategy"] = await client.strategies.add(esexec.NetworkTimeoutRecovery())
        told["live"] = [line async for line in self._told_by("same")]
        await client.checkpoints.create("living", {"color": color})
        told["checkpoints"] = [one.metadata for one in await client.checkpoints.list("living")]
        await client.cancel("living")
        self.opened.set()
        told["waited"] = await waiting.result()
        told["history"] = [commit.execution_id for commit in await client.history("same")]
        await until(lambda: self.heard)
        page = await client.executions.list(metadata={"color": self.color}, after=(await client.get_or_raise("waiting")).position)
        told["listed"] = [one.execution_id for one in page]
        told["events"] = {event.source async for event in client.events("beginning", follow=False)}
        return told


@pytest.fixture
async def houses(engine: Engine, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[House, House]]:
    """A red one and a blue one, on the same server."""
    monkeypatch.setattr(alerts.AlertsProjection, "tick_s", 0.05)
    monkeypatch.setattr(alerts, "_BEHIND", timedelta(0))
    monkeypatch.setattr(looking, "_EVERY_S", 0.1)
    blue = Engine(engine.url, f"{engine.namespace}b")
    async with blue.stack:
        await blue.executor()
        blue.client = await blue.another_client()
        yield await House(engine, "red").furnish(), await House(blue, "blue").furnish()
        await blue.check()
    async with await connect(engine.url, name="test-cleanup") as again:
        await delete_streams(again, Subjects(blue.namespace))


async def test_the_same_names_are_different_things(houses: tuple[House, House]) -> None:
    """Both live at once, by the same execution ids, keys, tasks, queues, pools, alerts and plans; each has its own answers."""
    red, blue = houses
    both = await asyncio.gather(red.live(), blue.live())
    for house, told in zip(houses, both, strict=True):
        assert [told[name] for name in ("same id", "cached", "kept", "waited")] == [house.color] * 4
        assert (told["live"], told["checkpoints"]) == ([house.color], [{"color": house.color}])
        assert (told["same key"], told["failed"].message, told["free"]) == ("same", house.color, 0)
        assert (told["listed"], told["events"]) == (["same"], {f"esexec/{house.engine.namespace}"})
        assert sorted(house.calls) == ["bad", "cached", "paint", "paint", "waits", "waits"]
        assert {alert.execution_id for alert in house.heard} == {"broken"}
        assert (await house.client.configuration()).max_retries == (7 if house.color == "red" else 8)
        assert (await house.client.stats()).total == 6
    assert both[0]["plan"] != both[1]["plan"]


async def test_what_one_does_the_other_never_hears(houses: tuple[House, House], connection: Connection) -> None:
    """While one lives, nothing at all is said on a subject of the other, and none of its streams changes."""
    red, blue = houses
    await blue.live()
    await until(lambda: _has_seen_all(connection, blue))
    said: list[str] = []

    async def hear(message: Msg) -> None:
        said.append(message.subject)

    before = await _streams(connection, blue.engine.subjects)
    commits = await blue.client.histories.size()
    subscription = await connection.subscribe(f"esexec.{blue.engine.namespace}.>", hear)
    await red.live()
    await connection.flush()
    await subscription.unsubscribe()
    assert set(said) <= {blue.engine.subjects.samples}, said  # how its workers do, which they tell by themselves
    assert await _streams(connection, blue.engine.subjects) == before
    assert await blue.client.histories.size() == commits


async def test_a_start_can_name_another_instance(houses: tuple[House, House]) -> None:
    """`instance=` leads one call, of whatever kind, to that namespace; the client's own is untouched."""
    red, blue = houses
    there = blue.engine.namespace
    assert await red.client.run("paint", instance=there) == "blue"
    assert await red.client.run("paint", instance=red.engine.namespace) == "red"
    handle = await red.client.start("paint", instance=there, execution_id="sent")
    assert await handle.result() == "blue"
    assert await red.client.map("paint", [{}, {}], instance=there) == ["blue", "blue"]
    chain = await red.client.chain(["paint"], instance=there)
    assert await red.client.closure("paint", instance=there)() == chain.value == "blue"
    assert await red.client.get("sent") is None
    assert (await blue.client.get_or_raise("sent")).owner == red.client.owner
    assert red.calls == ["paint"]
    with pytest.raises(esexec.ValidationError) as refused:
        await red.client.run("paint", instance="no.namespace")
    assert refused.value.code == "namespace_invalid"


async def _streams(connection: Connection, subjects: Subjects) -> dict[str, tuple[int, int]]:
    """How many messages each stream has had, and has."""
    found = {}
    for name in subjects.stream_names:
        state = (await connection.api(f"STREAM.INFO.{name}")).get("state", {})
        found[name] = (state.get("last_seq"), state.get("messages"))
    return found


async def _has_seen_all(connection: Connection, house: House) -> bool:
    """Whether every projection of a house has come to the end of its log."""
    end, _ = (await _streams(connection, house.engine.subjects))[house.engine.subjects.log_stream]
    return all(one.position == end for one in (await house.client.queries.projections()).projections)
