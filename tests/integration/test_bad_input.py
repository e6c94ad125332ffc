"""Whatever is published on whatever subject: an answer to who asked, a message among the dead otherwise; the loop lives on."""

import asyncio
import base64
import random
from typing import Any

import msgspec
import pytest

import esexec
from esexec.domain import limits
from esexec.domain.events import TaskFailed
from esexec.nats.connection import Connection
from tests.integration.engine import Engine, until
from tests.integration.raw import RawClient

DEEP = b'{"id":"deep","task":"t","input":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
RUBBISH = {
    "nothing": b"",
    "random": random.Random(7).randbytes(2_000),
    "bad utf-8": b'{"id":"\xff\xfe","task":"t"}',
    "half": b'{"id":"half","task":',
    "deep": DEEP,
    "a number": b"17",
    "a list": b'[{"id":"x"}]',
    "null": b"null",
    "nul": b"\x00" * 100,
    "surrogate": b'{"id":"x","task":"t","input":"\\ud800"}',
    "huge number": b'{"id":"x","task":"t","input":1e999}',
    "name": b'{"id":"x","task":"t","in\\r\\nput\\u0000":1}',
}
TOKENS = {
    "star": "*",
    "gt": ">",
    "dots": "a.b.c",
    "dollar": "$JS",
    "underscore": "_settings2",
    "key": "_key-0123",
    "umlaut": "ä",
    "long": "x" * 3_900,
    "as long as a line may be": "x" * 4_035,
    "just too long": "x" * 65,
}


@esexec.task
async def double(number: int) -> int:
    return 2 * number


@pytest.fixture(autouse=True)
def quick_burial(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no history knows is looked for twice only, and soon."""
    for module in ("desk", "preparation"):
        monkeypatch.setattr(f"esexec.executor.{module}.DELIVERIES_OF_UNKNOWN", 2)
    monkeypatch.setattr("esexec.executor.desk.backoff_s", lambda deliveries: 0.02)


@pytest.fixture(autouse=True)
async def worker(engine: Engine) -> None:
    """A worker, for the normal execution that must work afterwards. That something is buried is worth an error in the log."""
    engine.errors_expected = True
    await engine.worker(double)


async def still_works(engine: Engine) -> None:
    """A normal execution right after, in time, and nothing left behind that anybody would chew on again."""
    outputs = await asyncio.gather(*(engine.client.run("double", {"number": n}, wait_timeout=8) for n in range(20)))
    assert outputs == [2 * n for n in range(20)]
    assert engine.complaints.tracebacks == []
    await until(lambda: empty(engine))


async def empty(engine: Engine) -> bool:
    return [await depth(engine, name) for name in ("commands", "inbox", "tasks")] == [0, 0, 0]


async def depth(engine: Engine, stream: str) -> int:
    connection = engine.client._connection
    assert connection is not None
    info = await connection.api(f"STREAM.INFO.{getattr(engine.subjects, f'{stream}_stream')}")
    return int(info["state"]["messages"])


async def dead(engine: Engine, connection: Connection) -> dict[str, Any]:
    """The first dead message: its subject, data and headers."""
    await until(lambda: depth(engine, "dead"))
    found = await connection.api(f"STREAM.MSG.GET.{engine.subjects.dead_stream}", {"seq": 1})
    return dict(found["message"])


# Commands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entity", ["e-1", "_settings"])
@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH.keys())
async def test_rubbish_as_a_command(engine: Engine, raw: RawClient, entity: str, rubbish: bytes) -> None:
    """An answer if the id can be read, a dead message with the reason and one clear line otherwise; for every verb."""
    verbs = ["start", "cancel", "configure", "announce", "dance", "x" * 100]
    for verb in verbs:
        await raw.connection.publish(f"esexec.{engine.namespace}.cmd.{entity}.{verb}", rubbish)

    async def dealt_with() -> bool:
        return len(raw.answers) + await depth(engine, "dead") == len(verbs)

    await until(dealt_with)
    for answer in raw.answers:
        assert (answer.status, answer.command_id) == ("refused", "x")
        assert answer.error is not None
        assert (answer.error.type, bool(answer.error.code)) == ("validation_error", True)
        assert (bool(answer.error.message), bool(answer.error.hint)) == (True, True)
    assert len(engine.complaints.lines) == await depth(engine, "dead")
    assert not any("\n" in line for line in engine.complaints.lines)
    if not raw.answers:
        assert "Esexec-Reason" in await dead_headers(engine, raw.connection)
    await still_works(engine)


@pytest.mark.parametrize("where", ["cmd.e-1.start", "in.e-1.dance", "due.no%id.1", "task.default.5.no%id.s.1-1"])
async def test_rubbish_as_large_as_the_server_takes(engine: Engine, raw: RawClient, where: str) -> None:
    """With the reason beside it such a message is larger than the server takes: what fits is buried, and no connection breaks."""
    await raw.connection.publish(f"esexec.{engine.namespace}.{where}", b"x" * raw.connection.max_payload)
    assert "Esexec-Reason" in await dead_headers(engine, raw.connection)
    await still_works(engine)
    assert not any("lost" in line for line in engine.complaints.lines)


async def dead_headers(engine: Engine, connection: Connection) -> str:
    return base64.b64decode((await dead(engine, connection))["hdrs"]).decode()


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS.keys())
@pytest.mark.parametrize("where", ["cmd.{}.start", "cmd.{}.cancel", "cmd.e-1.{}"])
async def test_hostile_tokens_in_a_commands_subject(engine: Engine, raw: RawClient, where: str, token: str) -> None:
    """Ids and verbs that are none: the subject is never widened, and nobody's connection breaks over them."""
    subject = f"esexec.{engine.namespace}.{where.format(token)}"
    await raw.connection.publish(subject, b'{"id":"c-1","task":"double","input":{"number":1}}')
    await still_works(engine)
    assert not any("lost the NATS server" in line for line in engine.complaints.lines)
    assert len(await engine.client.list_ids()) in (20, 21)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"task": "t", "plan": {"name": "p", "steps": []}}, "plan_or_task"),
        ({}, "plan_or_task"),
        ({"task": "not a task > name"}, None),
        ({"plan": {"name": "p", "steps": [{"id": "a", "task": "t", "depends_on": ["b"]}]}}, None),
        ({"plan": {"name": "p", "steps": [{"id": "a", "task": "t", "tiemout": 1}]}}, None),
        ({"plan": 17}, None),
        ({"task": "t", "idempotencyKey": "k"}, None),
        ({"task": "t", "config": {"priority": 11}}, None),
        ({"task": "t", "config": {"timeout_ms": -1}}, None),
        ({"task": "t", "idempotency_key": ""}, None),
        ({"task": "t", "idempotency_key": "k" * 513}, None),
        ({"task": "t", "input": "x" * 700_000}, "too_large"),
        ({"task": "t", "context": {"s": "x" * 270_000}}, "too_large"),
        ({"task": "t", "actor": "x" * 1000}, None),
        ({"task": "t", "context": [1]}, None),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_start_that_says_the_wrong_thing(engine: Engine, raw: RawClient, body: dict[str, Any], code: str | None) -> None:
    """A typed refusal with code, message and hint, and nothing in the log."""
    answer = await raw.ask("e-1", "start", **body)
    assert answer.status == "refused"
    assert answer.error is not None
    assert (answer.error.type, bool(answer.error.message), bool(answer.error.hint)) == ("validation_error", True, True)
    assert code is None or answer.error.code == code
    assert await engine.client.get("e-1") is None
    await still_works(engine)


async def test_what_is_too_large_is_refused_before_it_is_sent(engine: Engine, raw: RawClient) -> None:
    """By the client beyond `limits.object_bytes`, by the connection beyond one message: nothing of it arrives."""
    with pytest.raises(esexec.ValidationError):
        await engine.client.start("double", {"number": "x" * limits.object_bytes})
    with pytest.raises(esexec.ValidationError):
        await raw.connection.publish(engine.subjects.command("e-1", "start"), b"x" * 10_000_000)
    await still_works(engine)


@pytest.mark.parametrize("body", [{"id": "a b"}, {"id": ""}, {"id": "x" * 65}, {"id": 7}, {"id": None}])
async def test_a_command_without_a_usable_id_is_buried(engine: Engine, raw: RawClient, body: dict[str, Any]) -> None:
    """Nobody could be answered: it is kept among the dead with the reason."""
    await raw.connection.publish(engine.subjects.command("e-1", "cancel"), msgspec.json.encode(body))
    assert "Esexec-Reason" in await dead_headers(engine, raw.connection)
    await still_works(engine)


async def test_values_that_json_can_hold_come_through(engine: Engine, raw: RawClient) -> None:
    """Odd, but legal: stored, read again, the same."""
    input = b'[1e15,-1e15,123456789012345678901234567890,1e-300,"\\u0000","\\u2028",-0.0]'
    body = b'{"id":"c-1","task":"echo","input":{"value":' + input + b'},"config":{"queue":"abroad"}}'
    await raw.connection.publish(engine.subjects.command("e-1", "start"), body)
    assert (await raw.answer_to("c-1")).status == "accepted"
    assert (await engine.client.get_or_raise("e-1")).input == {"value": msgspec.json.decode(input)}
    assert (await engine.client.verify("e-1")).ok
    assert await engine.client.cancel("e-1") is True
    await engine.client.wait("e-1")
    await still_works(engine)


# INBOX ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH.keys())
async def test_a_report_that_cannot_be_read_fails_its_attempt(engine: Engine, raw: RawClient, rubbish: bytes) -> None:
    """Somebody waits for that attempt: it fails with `bad_report`, is not retried, and the execution ends."""
    handle = await engine.client.start("foreign", queue="abroad")
    dispatch = await raw.pull("abroad")
    await raw.report(handle.id, "foreign", queue="abroad", data=rubbish)
    await dispatch.respond(b"")
    result = await handle.wait(wait_timeout=8)
    assert result.error is not None
    assert (result.status, result.error.type, result.error.code) == ("failed", "internal_error", "bad_report")
    await still_works(engine)


NOW = "2024-01-01T00:00:00Z"
ODD_REPORTS: dict[str, Any] = {
    "naive times": {"type": "completed", "started_at": "2024-01-01T00:00:00", "ended_at": "2024-01-01T00:00:01Z"},
    "both naive": {"type": "completed", "started_at": "2024-01-01T00:00:00", "ended_at": "2024-01-01T00:00:01"},
    "backwards": {"type": "completed", "started_at": NOW, "ended_at": "1999-01-01T00:00:00Z"},
    "year 1": {"type": "completed", "started_at": "0001-01-01T00:00:00Z", "ended_at": "9999-12-31T23:59:59Z"},
    "offset at the edge": {"type": "completed", "started_at": "0001-01-01T00:00:00+14:00", "ended_at": NOW},
    "swelling": b'{"type":"completed","started_at":"%s","ended_at":"%s","output":[%s1]}'
    % (NOW.encode(), NOW.encode(), b"1e15," * 60_000),
    "long worker": {"type": "completed", "started_at": NOW, "ended_at": NOW, "worker": "w" * 100_000},
    "many losses": {"type": "lost", "losses": 10**30},
    "negative losses": {"type": "lost", "losses": -5},
    "withdrawn": {"type": "withdrawn"},
    "stopped": {"type": "stopped"},
    "long error": {"type": "failed", "error": {"code": "c" * 100_000, "message": "m" * 100_000}},
    "retry after": {"type": "failed", "error": {"code": "c", "message": "m", "retryable": False, "retry_after_ms": 10**40}},
    "odd context": {"type": "failed", "error": {"code": "http", "message": "m", "context": {"status_code": "five"}}},
    "own shape": {"type": "failed", "error": "boom"},
    "unknown type": {"type": "exploded"},
    "unknown field": {"type": "completed", "started_at": NOW, "ended_at": NOW, "extra": 1},
    "too large": {"type": "completed", "started_at": NOW, "ended_at": NOW, "output": "x" * 900_000},
    "deep output": {"type": "completed", "started_at": NOW, "ended_at": NOW, "output": msgspec.Raw(b"[" * 150 + b"]" * 150)},
}


@pytest.mark.parametrize("report", ODD_REPORTS.values(), ids=ODD_REPORTS.keys())
async def test_an_odd_report_breaks_nothing(engine: Engine, raw: RawClient, report: Any) -> None:
    """Whatever a foreign worker says of its attempt: the history stays lawful, can be read by everyone, and can be ended."""
    handle = await engine.client.start("foreign", queue="abroad", max_retries=1, initial_retry_delay=0.01)
    dispatch = await raw.pull("abroad")
    await raw.report(handle.id, "foreign", queue="abroad", data=report)
    await dispatch.respond(b"")

    async def heard() -> bool:
        return await depth(engine, "inbox") == 0

    await until(heard)
    snapshot = await handle.snapshot()
    assert [update async for update in _all(engine, handle)] or snapshot
    if not snapshot.status.is_final:
        assert await handle.cancel() in (True, False)
        dispatches = await depth(engine, "tasks")
        if dispatches:
            await raw.connection.api(f"STREAM.PURGE.{engine.subjects.tasks_stream}")
        await raw.report(
            handle.id,
            "foreign",
            queue="abroad",
            attempt=f"1-{(await handle.snapshot()).results[0].attempt}",
            data={"type": "stopped"},
        )
    assert (await handle.wait(wait_timeout=5)).status.is_final
    assert (await engine.client.verify(handle.id)).ok
    await still_works(engine)
    projector = await engine.projector()
    await asyncio.wait_for(projector.caught_up(), 10)
    statuses = (await engine.client.queries.projections()).projections
    assert {one.name: one.error for one in statuses if one.state == "failed"} == {}


async def _all(engine: Engine, handle: esexec.Handle) -> Any:
    if (await handle.status()).is_final:
        async for update in engine.client.monitor(handle.id):
            yield update


INBOX = [
    "report", "report.default", "report.default.s", "report.default.s.1-1.more", "report.default.s.x", "report.default.s.1-",
    "report.default.s.99999999999999999999-1",
    "due", "due.x", "due.1.2", "due.99999999999999999999999", "due.-1", "due.٣",
    "continue", "continue.x", "nudge", "nudge.x", "dance", "a.b.c.d.e.f", "x" * 3_900,
]  # fmt: skip


@pytest.mark.parametrize("entity", ["e-1", "_settings", "x" * 65, "*", "taken"])
async def test_anything_in_the_inbox(engine: Engine, raw: RawClient, entity: str) -> None:
    """Subjects that mean nothing, attempts and timers that nobody knows: buried or without effect, never chewed for ever."""
    await engine.client.start("foreign", execution_id="taken", queue="elsewhere")
    before = await engine.client.history("taken")
    for rest in INBOX:
        await raw.connection.publish(f"esexec.{engine.namespace}.in.{entity}.{rest}", b"rubbish")
    await raw.connection.flush()

    async def heard() -> bool:
        return await depth(engine, "inbox") == 0

    await until(heard)
    assert await engine.client.history("taken") == before
    assert not any("lost the NATS server" in line for line in engine.complaints.lines)
    assert await engine.client.cancel("taken") is True
    await engine.client.wait("taken")
    await still_works(engine)


# TIMERS and TASKS ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "subject", ["due.e-1.1", "due.*.1", "due.e-1.*", "due._settings.x", f"due.{'x' * 3_900}.1", f"due.e-1.{'x' * 3_900}"]
)
async def test_anything_that_came_due(engine: Engine, raw: RawClient, subject: str) -> None:
    """A timer that nobody set: forwarded, found unknown, buried; or refused at once. The due timers of others still fire."""
    await raw.connection.publish(f"esexec.{engine.namespace}.{subject}", b"")
    await raw.connection.flush()

    async def gone() -> bool:
        return (await depth(engine, "timers"), await depth(engine, "inbox")) == (0, 0)

    await until(gone)
    assert not any("lost the NATS server" in line for line in engine.complaints.lines)
    await still_works(engine)


@pytest.mark.parametrize("body", [b"rubbish", b"", b'{"execution_id":"e-1","step":"s","task":"double","params":{"number":1}}'])
async def test_anything_among_the_dispatches(engine: Engine, raw: RawClient, body: bytes) -> None:
    """A dispatch that no executor wrote: the worker lets go of it and keeps its slots."""
    for rest in ("e-1.s.1-1", "e-1.s.x", "e-1.s.1", "e-1.s.-", "s.1-1", "a.b.c.d.1-1", f"{'x' * 3_900}.s.1-1"):
        await raw.connection.publish(f"esexec.{engine.namespace}.task.default.5.{rest}", body)
    await still_works(engine)
    assert not any("lost the NATS server" in line for line in engine.complaints.lines)


async def test_an_unreadable_dispatch_fails_its_attempt(engine: Engine, raw: RawClient) -> None:
    """Who waits for that attempt is told `bad_dispatch`."""
    handle = await engine.client.start("double", {"number": 1}, queue="late")
    dispatch = await raw.pull("late")
    await dispatch.respond(b"")
    await raw.connection.publish(dispatch.subject, b"rubbish")
    await engine.worker(double, queues={"late": 1})
    result = await handle.wait(wait_timeout=8)
    assert result.error is not None
    assert (result.error.type, result.error.code) == ("internal_error", "bad_dispatch")
    failures = [event for event in await engine.events(handle.id) if isinstance(event, TaskFailed)]
    assert len(failures) == 1


# What is not stored ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH.keys())
async def test_rubbish_that_is_not_stored(engine: Engine, raw: RawClient, rubbish: bytes) -> None:
    """Answers, cancel signals and commits that nobody of ours wrote: whoever listens is not impressed."""
    handle = await engine.client.start("foreign", queue="elsewhere")
    waiting = asyncio.create_task(handle.wait(wait_timeout=8))
    watching = asyncio.create_task(_last(engine, handle))
    await until(lambda: len(engine.client._feed._watches) >= 1)
    for subject in (f"live.{handle.id}.cancel", f"reply.{handle.id}.x", f"commit.{handle.id}.2", "commit._settings.9"):
        await raw.connection.publish(f"esexec.{engine.namespace}.{subject}", rubbish)
    await raw.connection.flush()
    assert await handle.cancel() is True
    assert (await waiting).status == "cancelled"
    assert await watching == "cancelled"
    await still_works(engine)


async def _last(engine: Engine, handle: esexec.Handle) -> str:
    return str([update.status async for update in handle.monitor()][-1])
