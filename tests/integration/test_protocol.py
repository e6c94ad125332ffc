"""What travels on a real server is what is published as the protocol: on its subjects, with its fields, and with no others."""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import esexec
from esexec import AlertCondition, Plan, Step
from esexec.domain import limits
from esexec.domain.strategies import Strategy
from esexec.executor import outbox
from esexec.nats.connection import Connection
from esexec.protocol import CHANNELS, questions
from tests.integration.engine import Engine, until
from tests.integration.raw import RawClient
from tests.integration.told import Told
from tests.schemas import problems

NOT_HERE = {
    "due",  # the server moves a timer that fired without publishing it
    "dead",  # any bytes
}
"""Channels of which this hears nothing; their messages are held against the schemas as examples of the page."""


@esexec.task(
    max_retries=1, retry_delay="10ms", rate_limit=esexec.RateLimit(100, 1000), concurrency=esexec.Key("params.n", limit=3)
)
async def build(n: int, ctx: esexec.Context) -> dict[str, int]:
    ctx.progress(0.5, "half")
    ctx.log.info("building", n=n)
    ctx.vars["n"] = n
    ctx.metric("built", n)
    await ctx.before({"n": 0})
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    return {"n": n}


@build.compensate
async def demolish(n: int) -> None: ...


@esexec.task(cache=esexec.Cache(ttl="1m"), resources=[esexec.ResourceRequirement("crane", 1)])
async def lift(n: int) -> int:
    return n


@esexec.task
async def wait(ctx: esexec.Context) -> None:
    await asyncio.sleep(60)


@esexec.task(max_retries=0)
async def fail() -> None:
    raise esexec.ExecutionError("no", code="NO", retry=False)


SITE = Plan("site", [Step(build, id="build", params={"n": 1}), Step(lift, id="lift", params={"n": 2}, depends_on=["build"])])


@pytest.fixture
async def told(engine: Engine, connection: Connection) -> Told:
    return await Told().listen(connection, engine.namespace)


async def everything(engine: Engine, connection: Connection, raw: RawClient, told: Told) -> None:
    """Each verb once, and work of every kind."""
    client = engine.client
    await client.configure(max_retries=2, queues={"slow": {"timeout_ms": 1000}})
    await client.strategies.add(Strategy(id="advice", applicable_errors=("OTHER",)))
    await client.strategies.remove("advice")
    await client.resources.declare({"id": "crane-1", "type": "crane", "capacity": 1.0})
    async with client.resources.hold([esexec.ResourceRequirement("crane", 1)], lease=1.0):
        await until(lambda: "cmd.renew" in told.channels)
    await client.plans.put(SITE)
    await client.alerts.set(AlertCondition("error_rate", "gt", 0.9), id="hot")
    await client.alerts.remove("hot")
    await client.alerts.set(AlertCondition("execution_failed", "gte", 1), id="failed")
    built = await client.start(SITE, idempotency_key="key-1", metadata={"ticket": 17})
    done = await built.wait()
    assert done.status == "completed", done.error
    again = await client.execute(SITE)
    assert again.step("lift").result == 2
    checkpoint = await client.checkpoints.create((await _waiting(engine)).id, {"why": "test"})
    waiting = checkpoint.execution_id
    await client.pause(waiting, "a moment")
    await client.resume(waiting)
    await client.checkpoints.restore(checkpoint.id)
    await client.cancel(waiting, reason="enough")
    await client.wait(waiting)
    await client.rollback(built.id, "not signed")
    await until(lambda: _is(engine, built.id, "rolled_back"))
    failed = await client.execute(fail)
    await client.retry(failed.id)
    await client.retry(failed.id, new_id="forked-1")
    await client.start(fail, start_at=datetime.now(UTC) + timedelta(seconds=0.2), deadline=datetime.now(UTC) + timedelta(hours=1))
    await client.resources.remove("crane-1")
    many = await client.start(
        Plan("many", [Step(wait, id=f"s{n}") for n in range(limits.events_per_commit + 50)], config={"queue": "nobody"})
    )
    await client.cancel(many.id)
    held = await client.start(wait, queue="raw")
    dispatch = await raw.pull("raw")
    await client.pause(held.id)
    await connection.api(f"STREAM.PURGE.{engine.subjects.tasks_stream}", {"filter": dispatch.subject})
    await client.resume(held.id)
    await connection.publish(engine.subjects.nudge_in(failed.id), b"")


async def _waiting(engine: Engine) -> esexec.Handle:
    handle = await engine.client.start(wait)
    await until(lambda: _is(engine, handle.id, "running"))
    return handle


async def _is(engine: Engine, execution_id: str, status: str) -> bool:
    return (await engine.client.status(execution_id)) == status


async def test_every_message_is_as_the_schemas_say(
    engine: Engine, connection: Connection, raw: RawClient, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command, report, dispatch, commit, signal, grant and event of a busy engine is valid, with no field beyond."""
    monkeypatch.setattr(outbox, "_ANSWER_S", 0.1)
    await engine.projector()
    await engine.worker(build, demolish, lift, wait, fail, sample_ms=50)
    await everything(engine, connection, raw, told)
    assert len(await engine.client.workers.present()) == 1
    stored = {one.name for one in CHANNELS if one.address is not None and not one.name.startswith("query.")}
    with suppress(AssertionError):
        await until(lambda: stored - told.channels <= NOT_HERE)
    told.verify()
    assert stored - told.channels <= NOT_HERE


async def test_every_question_is_answered_as_the_schemas_say(engine: Engine, connection: Connection) -> None:
    """Each question of a read model gets an answer of its schema, and a bad one an error of the schema of errors."""
    await engine.projector()
    await engine.worker(fail)
    done = await engine.client.execute(fail)
    after = (await engine.client.executions.list()).as_of.position
    assert done.status == "failed"
    answers = {one.name: one.messages[0].name for one in CHANNELS if one.name.endswith(".answer")}
    for question, (asked, _) in questions().items():
        body: dict[str, Any] = {"after": after} | ({"plan_id": done.plan_id} if question == "durations" else {})
        assert problems(asked.__name__, body) == []
        answer = await connection.request(engine.subjects.query(question), json.dumps(body).encode())
        assert problems(answers[f"query.{question}.answer"], json.loads(answer.data)) == [], answer.data
        refused = await connection.request(engine.subjects.query(question), b'{"nobody": 1}')
        assert problems("QueryError", json.loads(refused.data)) == [], refused.data
        assert problems(asked.__name__, {"nobody": 1}) != []
