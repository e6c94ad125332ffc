"""Cached results on a real server: found by other executions and workers, and lost without harm."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

import esexec
from esexec import Cache, Plan, Step
from esexec.domain import events as e
from esexec.domain.cached import CachedResult
from esexec.nats.connection import Connection
from esexec.nats.direct import read_leader
from tests.integration.engine import Engine, until


class Calls:
    """A task with a cache that counts its calls."""

    def __init__(self, cache: Cache | None, **options: Any) -> None:
        self.count = 0

        @esexec.task(name="work", cache=cache, max_retries=0, **options)
        async def work(ctx: esexec.Context, n: int, do: str = "") -> Any:
            self.count += 1
            if do == "fail":
                raise ValueError("no")
            if do == "vars":
                ctx.vars["n"] = n
            if do == "before":
                await ctx.before({"n": n})
            if do == "large":
                return "x" * 100_000
            ctx.quality(0.9)
            ctx.cost(2)
            return {"n": n}

        self.task = work


async def kept(engine: Engine, connection: Connection) -> dict[str, int]:
    info = await connection.api(f"STREAM.INFO.{engine.subjects.cache_stream}", {"subjects_filter": ">"})
    return info["state"].get("subjects") or {}


async def kept_one(engine: Engine, connection: Connection, count: int = 1) -> list[str]:
    async def there() -> list[str]:
        found = await kept(engine, connection)
        return [*found] if len(found) >= count else []

    return await until(there)  # type: ignore[no-any-return]


async def test_a_result_serves_other_executions_on_other_workers(engine: Engine, connection: Connection) -> None:
    """F299: the handler is not called; the history says where the output is from, and that nothing started."""
    calls, others = Calls(Cache(key=["n"])), Calls(Cache(key=["n"]))
    first = await engine.worker(calls.task)
    one = await engine.execute("work", {"n": 1})
    await kept_one(engine, connection)
    await first.stop()
    await engine.worker(others.task)
    two = await engine.execute("work", {"n": 1, "do": "not part of the key"})
    assert (calls.count, others.count, one.result, two.result) == (1, 0, {"n": 1}, {"n": 1})
    hit = next(event for event in await engine.events(two.id) if isinstance(event, e.TaskCacheHit))
    assert (hit.source_execution, hit.source_step, hit.age_ms >= 0) == (one.id, "work", True)
    assert await engine.types(two.id) == [
        "execution_created",
        "execution_started",
        "task_scheduled",
        "task_cache_hit",
        "task_completed",
        "execution_completed",
    ]
    task = two.step("work")
    assert (task.cached_from, task.quality, task.cost) == (f"{one.id}/work", 0.9, 0.0)
    assert (await engine.execute("work", {"n": 2})).step("work").cached_from is None
    assert others.count == 1


@pytest.mark.parametrize("do", ["fail", "vars", "before", "large"])
async def test_what_does_not_serve_again_is_not_kept(engine: Engine, connection: Connection, do: str) -> None:
    """Failures, outputs beside which the handler did something else, and those that are too large."""
    calls = Calls(Cache(key=["n", "do"]))
    await engine.worker(calls.task)
    for _ in range(2):
        await engine.execute("work", {"n": 1, "do": do})
    await engine.execute("work", {"n": 2})
    await kept_one(engine, connection)  # it was published behind the others
    assert len(await kept(engine, connection)) == 1
    assert calls.count == 3


async def test_a_result_that_is_too_old_does_not_serve(engine: Engine, connection: Connection) -> None:
    """Its age is looked at, whatever the server still has; the newer one takes its place."""
    calls = Calls(Cache(ttl="10m"))
    await engine.worker(calls.task)
    await engine.execute("work", {"n": 1})
    [subject] = await kept_one(engine, connection)
    message = await read_leader(connection, engine.subjects.cache_stream, subject)
    assert message is not None
    result = msgspec.json.decode(message.data, type=CachedResult)
    old = msgspec.structs.replace(result, time=datetime.now(UTC) - timedelta(minutes=11), output="old")
    await connection.publish(subject, msgspec.json.encode(old))
    await connection.flush()
    assert (await engine.execute("work", {"n": 1})).result == {"n": 1}
    assert calls.count == 2


async def test_the_server_ends_what_has_a_ttl(engine: Engine, connection: Connection) -> None:
    """Nothing has to be swept: the message has the cache's TTL, at least a second."""
    calls = Calls(Cache(ttl="500ms"))
    await engine.worker(calls.task)
    await engine.execute("work", {"n": 1})
    await kept_one(engine, connection)

    async def gone() -> bool:
        return not await kept(engine, connection)

    await until(gone)


@pytest.mark.parametrize(
    "stored", [b"", b"\xff", b"{}", b'{"task":"other","execution_id":"e","step":"s","time":"2026-01-01T00:00:00Z"}']
)
async def test_what_cannot_be_read_is_not_there(engine: Engine, connection: Connection, stored: bytes) -> None:
    """Whatever somebody puts there: the handler is called, and its result takes that place."""
    calls = Calls(Cache())
    await engine.worker(calls.task)
    await engine.execute("work", {"n": 1})
    [subject] = await kept_one(engine, connection)
    await connection.publish(subject, stored)
    await connection.flush()
    assert (await engine.execute("work", {"n": 1})).result == {"n": 1}
    assert calls.count == 2


async def test_without_its_stream_everything_is_computed(engine: Engine, connection: Connection) -> None:
    """The cache is not the truth: losing all of it costs time, and nothing else."""
    calls = Calls(Cache())
    await engine.worker(calls.task)
    await engine.execute("work", {"n": 1})
    await connection.api(f"STREAM.DELETE.{engine.subjects.cache_stream}")
    result = await engine.execute("work", {"n": 1})
    assert (result.result, calls.count) == ({"n": 1}, 2)


async def test_a_key_that_cannot_be_is_the_failure_of_its_attempt(engine: Engine) -> None:
    """Also what a key function raises; the handler is not called, so the history has no start of it."""
    broken = Calls(Cache(key=lambda params: params["nothing"]))
    await engine.worker(broken.task)
    result = await engine.execute("work", {"n": 1})
    assert (result.error.code, broken.count) == ("KEY_ERROR", 0)
    assert "task_started" not in await engine.types(result.id)


async def test_params_that_do_not_fit_are_refused_as_ever(engine: Engine) -> None:
    """A cache changes nothing about what a task takes."""
    calls = Calls(Cache(key=lambda n: n))
    await engine.worker(calls.task)
    plan = Plan("p", steps=[Step("work", id="a", params="${input.given}")])
    result = await engine.execute(plan, {"given": {"n": "many"}})
    assert result.error.code == "invalid_params"


async def test_compensations_do_their_work_each_time(engine: Engine, connection: Connection) -> None:
    """What undoes something is called even if it has a cache; a step that came from the cache is not undone."""
    calls, undone = Calls(Cache(key=["n"]), compensate="undo"), []

    @esexec.task(name="undo", cache=Cache(key=["n"]))
    async def undo(n: int) -> None:
        undone.append(n)

    @esexec.task(max_retries=0)
    async def fail() -> None:
        raise ValueError("no")

    await engine.worker(calls.task, undo, fail)
    plan = Plan("p", steps=[Step("work", id="a", params={"n": "${input.n}"}), Step(fail, id="b", depends_on=["a"])])
    options: dict[str, Any] = {"enable_rollback": True}
    assert (await engine.execute(plan, {"n": 1}, **options)).status == "rolled_back"
    await kept_one(engine, connection)
    second = await engine.execute(plan, {"n": 1}, **options)
    assert (second.status, second.step("a").cached_from is not None) == ("failed", True)
    assert (calls.count, undone) == (1, [1])


async def test_many_at_once_all_get_the_output(engine: Engine) -> None:
    """Those that begin before there is a result compute it, each for itself: nobody waits for another."""
    calls = Calls(Cache(key=[]))
    await engine.worker(calls.task)
    results = await asyncio.gather(*(engine.execute("work", {"n": 1}) for _ in range(20)))
    assert [one.result for one in results] == [{"n": 1}] * 20
    assert 1 <= calls.count <= 20
