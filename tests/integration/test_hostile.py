"""Everything that anybody can publish anywhere: only typed errors and dead letters come out, and the engine goes on.

Whatever is published is an example of the documents, spoiled by chance (`tests.hostile`). Afterwards no code has thrown, nobody
has lost the server, memory has not grown with what was thrown at it, and an ordinary execution takes as long as ever.
"""

import asyncio
import hashlib
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

import esexec
from esexec.client.overview import Overview
from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain.cached import CachedResult
from esexec.domain.errors import EsexecError
from esexec.nats.lean import header_block
from projections.memory import MemoryStore
from projections.role import Projector
from tests.hostile import examples, spoiled
from tests.integration.engine import Engine, until
from tests.integration.raw import RawClient

PROTOCOL = examples("protocol.md")
VERBS = [(verb, kind.__name__) for verb, kind in c.VERBS.items()]
HOMES = {
    **dict.fromkeys(("configure", "announce", "add_strategy", "remove_strategy"), "_settings"),
    "put_plan": "_plans",
    **dict.fromkeys(("declare_pool", "remove_pool", "allocate", "renew", "release"), "_pools"),
    **dict.fromkeys(("set_alert", "remove_alert"), "_alerts"),
}
REPORTS = ["Started", "Completed", "Failed", "Lost", "Stopped", "Before", "TimedOut"]
LIVE = {"cancel": "CancelSignal", "before": "ImageSignal", "held": "WhoHas", "progress": "ProgressSignal", "log": "LogSignal"}
GRANT = {"type": "granted", "entity": "_pools", "gate": "resources", "resources": [{"id": "r", "pool": "p", "type": "t"}]}
ACQUIRE = {"ask": {"type": "resources", "requirements": [{"type": "gpu", "amount": 1.0}]}, "priority": 5}
QUERIES = {
    "executions.list": {"status": ["running"], "name": "n", "metadata": {"a": 1}, "since": "2026-01-01T00:00:00Z", "limit": 5},
    "executions.count": {"after": 0},
    "tasks.list": {"status": ["failed"], "name": "n", "execution_id": "e-1", "until": "2026-01-01T00:00:00Z", "cursor": "x"},
    "alerts.list": {"state": "triggered", "alert_id": "a", "limit": 5, "cursor": "x"},
    "stats": {"name": "n", "by": "hour", "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"},
    "task_stats": {"name": "n", "by": "day", "since": "2026-01-01T00:00:00Z"},
    "durations": {"plan_id": "x"},
    "projections": {},
}
GROWTH_BYTES = 64 * 1024 * 1024
ORDINARY_S = 2.0


@esexec.task
async def double(number: int) -> int:
    return 2 * number


class Site:
    """An engine with everything that listens: executor, worker, projections, a client that monitors; and somebody hostile."""

    def __init__(self, engine: Engine, raw: RawClient, projector: Projector) -> None:
        self.engine, self.raw, self.projector = engine, raw, projector
        self.chance = random.Random()
        self.open: list[str] = []
        self.past: list[Any] = []

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None, reply: str = "") -> None:
        """As any client can. What is too large is refused by the connection, and that is that."""
        connection = self.raw.connection
        if len(data) < connection.max_payload - 4096:
            full = f"esexec.{self.engine.namespace}.{subject}"
            connection.client.post(full, data, reply, header_block(headers) if headers else None)

    def example(self, title: str) -> bytes:
        return spoiled(self.chance.choice(PROTOCOL[title]), self.chance)

    async def settled(self) -> None:
        """Nothing waits any more but what waits for a foreign worker."""
        await self.raw.connection.flush()

        async def dealt_with() -> bool:
            infos = [await self.raw.connection.api(f"STREAM.INFO.{self.engine.subjects.stream(name)}") for name in STREAMS]
            return all(info["state"]["messages"] == 0 for info in infos)

        await until(dealt_with, 30)

    async def is_well(self) -> None:
        """No code has thrown, nothing was lost, and ordinary executions end as quickly as ever."""
        engine = self.engine
        assert engine.complaints.tracebacks == []
        assert not [line for line in engine.complaints.lines if "lost the NATS server" in line or "fault of ours" in line]
        assert not (await engine.client.dead_letters.list(reason="poison")).items
        await engine.client.run("double", {"number": 1}, wait_timeout=8)
        begun = time.monotonic()
        outputs = await asyncio.gather(*(engine.client.run("double", {"number": n}, wait_timeout=8) for n in range(20)))
        assert outputs == [2 * n for n in range(20)]
        assert time.monotonic() - begun < ORDINARY_S
        await asyncio.wait_for(self.projector.caught_up(), 10)
        told = (await engine.client.queries.projections()).projections
        assert {one.name: one.error for one in told if one.state == "failed"} == {}


STREAMS = ("COMMANDS", "INBOX")


@pytest.fixture
def store() -> str:
    """Where the projections keep what they know; tests may say another."""
    return "memory"


@pytest.fixture
def kept_in(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """What a `Projector` is given for that."""
    if store == "postgres":
        return request.getfixturevalue("postgres_url")
    return MemoryStore() if store == "memory" else tmp_path / "views.sqlite"


@pytest.fixture
async def site(engine: Engine, raw: RawClient, kept_in: Any, monkeypatch: pytest.MonkeyPatch) -> Site:
    """See `Site`. What no history knows is looked for twice only, and soon."""
    for module in ("desk", "preparation"):
        monkeypatch.setattr(f"esexec.executor.{module}.DELIVERIES_OF_UNKNOWN", 2)
    monkeypatch.setattr("esexec.executor.desk.backoff_s", lambda deliveries: 0.02)
    monkeypatch.setattr("esexec.executor.desk._EARLY_S", 0.05)
    engine.errors_expected = True
    await engine.worker(double)
    return Site(engine, raw, await engine.projector(store=kept_in))


# Commands ------------------------------------------------------------------------------------------------------------


async def command(site: Site) -> None:
    """Any verb at its home, or at an execution that is there, or at none."""
    verb, title = site.chance.choice(VERBS)
    entity = HOMES.get(verb) or site.chance.choice(["e-1", "e-2", f"n-{site.chance.randrange(50)}", "alive"])
    if verb == "configure" and site.chance.random() < 0.5:
        entity = "_settings2"
    await site.publish(f"cmd.{entity}.{verb}", site.example(title), reply=bogus(site))


def bogus(site: Site) -> str:
    """A reply subject that leads where one might do harm: JetStream's acknowledgement goes there."""
    ns = site.engine.namespace
    return site.chance.choice(
        ["", "", f"esexec.{ns}.cmd.e-9.start", f"esexec.{ns}.in.e-9.nudge", f"esexec.{ns}.due.e-9.1", "$JS.ACK.x", "no.where"]
    )


async def report(site: Site) -> None:
    """On an attempt that somebody waits for, while there are any."""
    execution = site.open.pop() if site.open else "alive"
    body = site.example(site.chance.choice(REPORTS))
    await site.publish(f"in.{execution}.report.abroad.foreign.1-1", body)


async def among_executors(site: Site) -> None:
    """Grants, requests, timers, nudges: what only executors say."""
    who = site.chance.choice(
        ["alive", "e-1", "_pools", "_limit-0123456789abcdef", "_slots-0123456789abcdef", "_settings", "_key-0"]
    )
    kind = site.chance.choice(
        ["grant.foreign.1-1", "acquire.alive.foreign.1-1", "release.alive.foreign.1-1", "due.1", "continue.1"]
    )
    what = spoiled(site.chance.choice([GRANT, ACQUIRE]), site.chance)
    await site.publish(f"in.{who}.{kind}", what, reply=bogus(site))


async def live(site: Site) -> None:
    """Signals, progress, lines; samples of workers."""
    kind, title = site.chance.choice(list(LIVE.items()))
    await site.publish(f"live.{site.chance.choice(['alive', 'e-1'])}.{kind}", site.example(title), reply=bogus(site))
    await site.publish("live._workers.sample", site.example("WorkerSample"))


async def told(site: Site) -> None:
    """What only the server and the projections publish: commits that nobody stored, answers, events, alerts."""
    headers = site.chance.choice([None, {"Nats-Sequence": site.chance.choice(["x", "", "9" * 30, "-1", "1"])}, {"Status": "404"}])
    who = site.chance.choice(["alive", "e-1", "_settings", "_plans", "_alerts", "_pools"])
    await site.publish(f"commit.{who}.{site.chance.randrange(9)}", site.example("Commit"), headers)
    forged = site.chance.choice(site.past) | {"execution_id": "victim", "n": 2, "version": 4}
    await site.publish("commit.victim.2", spoiled(forged, site.chance), headers)
    await site.publish(f"reply.{who}.x", site.example("Answer"), headers)
    await site.publish(f"event.task_completed.{who}", site.example("CloudEvent"), headers)
    await site.publish("alert.a-1", site.example("Alert"), headers)


async def dispatch(site: Site) -> None:
    """Dispatches that no executor wrote, results that no worker cached, timers that nobody set."""
    await site.publish(f"task.default.5.e-{site.chance.randrange(9)}.s.1-1", site.example("Dispatch"))
    await site.publish(f"cache.{site.chance.randrange(9)}", site.example("CachedResult"))
    await site.publish(f"due.e-{site.chance.randrange(9)}.{site.chance.choice(['1', 'x', '-'])}", b"")


async def lane(site: Site) -> None:
    """News of lanes that there are not, as the server would tell them."""
    name = site.chance.choice(
        ["default_p7", "default_p77", "default_p" + "9" * 400, "default_p-1", "x_p5", "default_p٣", "_p", "\x1b"]
    )
    subject = f"$JS.EVENT.ADVISORY.CONSUMER.CREATED.{site.engine.subjects.tasks_stream}.{name}"
    site.raw.connection.client.post(subject, site.example("CancelSignal"))


async def question(site: Site) -> None:
    """To the read models: answered, whatever it is."""
    name, example = site.chance.choice(list(QUERIES.items()))
    data = spoiled(example, site.chance)
    if len(data) < site.raw.connection.max_payload - 4096 and b'"after"' not in data:
        answer = await site.raw.connection.request(f"esexec.{site.engine.namespace}.query.{name}", data, timeout=8)
        error = (answer.headers or {}).get("Nats-Service-Error-Code")
        assert error != "internal_error", (name, data[:500], answer.data[:500])


async def letter(site: Site) -> None:
    """Letters that no executor buried."""
    headers = {"Esexec-Reason": "\u202e", "Esexec-Subject": bogus(site), "Esexec-Cut": "x", "Status": "503"}
    await site.publish("dead.e-1.start", site.example("StartExecution"), headers)


RICH = {
    "id": "c-rich",
    "plan": {
        "name": "rich",
        "config": {"max_retries": 1, "initial_retry_delay_ms": 1, "enable_rollback": True, "queue": "elsewhere"},
        "steps": [
            {"id": "a", "task": "double", "params": {"number": "${input.number}"}, "queue": "default"},
            {"id": "b", "task": "double", "depends_on": ["a"], "params": {"number": "${steps.a.output}"}, "queue": "default"},
            {"id": "c", "task": "double", "rate_limit": {"max_executions": 5, "window_ms": 1000}, "queue": "default",
             "params": {"number": 1}},
            {"id": "d", "task": "no", "compensate": "undo", "fallback": "double", "params": {"k": 1, "number": 2},
             "concurrency": {"key": "params.k", "limit": 2}, "resources": [{"type": "gpu", "amount": 1}], "timeout_ms": 50},
        ],
    },
    "input": {"number": 3},
    "context": {"user": "ada"},
    "delay_ms": 1,
    "deadline": "2027-01-01T00:00:00Z",
}  # fmt: skip


async def rich_start(site: Site) -> None:
    """A plan that has a bit of everything, spoiled."""
    number = site.chance.randrange(10**9)
    said = RICH | {"id": f"c-{number}", "idempotency_key": f"k-{number}"}
    await site.publish(f"cmd.r-{number}.start", spoiled(said, site.chance))


async def rich(site: Site) -> list[Any]:
    """The history of an execution with several steps."""
    plan = {"name": "p", "steps": [{"id": one, "task": "double", "params": {"number": 1}} for one in "abc"]}
    await site.engine.client.execute(plan, execution_id="past", wait_timeout=8)
    return [msgspec.json.decode(one.data) for one in await site.engine.client._log.load_raw("past")]


EVERYWHERE = [command, command, rich_start, rich_start, report, among_executors, live, told, dispatch, lane, question, letter]


async def bombarded(site: Site, seed: int, count: int) -> None:
    site.chance = random.Random(seed)
    engine, before = site.engine, psutil.Process().memory_info().rss
    await engine.client.start("foreign", execution_id="alive", queue="elsewhere")
    await engine.client.start("foreign", execution_id="victim", queue="elsewhere")
    watching = asyncio.create_task(_last(engine.client.handle("alive")))
    victim = asyncio.create_task(_last((await engine.another_client()).handle("victim")))
    site.past = await rich(site)
    async with Overview(engine.client) as overview:
        for number in range(count):
            if not number % 100:
                some = [engine.client.start("foreign", queue="abroad", max_retries=0) for _ in range(12)]
                site.open = [handle.id for handle in await asyncio.gather(*some)]
            await site.chance.choice(EVERYWHERE)(site)
        await site.settled()
        await overview.look()
        async for _ in engine.client.events(since="beginning", follow=False):
            pass
    victim.cancel()
    with_reset = await site.raw.ask("_settings", "configure", config={name: None for name in _SETTINGS})
    assert with_reset.status == "accepted"
    await site.is_well()
    truth = await engine.another_client()
    assert psutil.Process().memory_info().rss - before < GROWTH_BYTES
    await truth.cancel("alive")
    await truth.wait("alive", wait_timeout=15)  # somebody may have had it retried since its first end, with which a watch ends
    assert f"execution_{await asyncio.wait_for(watching, 20)}" in await engine.types("alive")


STORES = ["sqlite", "postgres", "memory"]
SEEDS = [(1, "sqlite"), (2, "postgres")] + [pytest.param(n, STORES[n % 3], marks=pytest.mark.chaos) for n in range(3, 60)]
_SETTINGS = [name for name in esexec.NamespaceConfig.__struct_fields__]


async def _last(handle: esexec.Handle) -> str:
    return str([update.status async for update in handle.monitor()][-1])


@pytest.mark.parametrize(("seed", "store"), SEEDS)
async def test_whatever_is_published_the_engine_goes_on(site: Site, seed: int) -> None:
    """On every subject there is, for every message that is documented."""
    await bombarded(site, seed, 400)


# Forged histories ------------------------------------------------------------------------------------------------------


async def forged(engine: Engine, entity: str, **said: Any) -> dict[str, Any]:
    """What could be its next commit: it fails the step that waits, if nobody looks."""
    last = (await engine.client._log.load_raw(entity))[-1].data
    commit = msgspec.json.decode(last)
    return {
        "v": 1,
        "execution_id": entity,
        "n": commit["n"] + 1,
        "version": commit["version"] + len(commit["events"]),
        "time": commit["time"],
        "commands": [{"id": "failed/foreign/1-1", "time": commit["time"]}],
        "executor": "x",
        "prev": hashlib.sha256(last).hexdigest(),
        "events": [
            {"type": "task_failed", "step": "foreign", "error": {"type": "execution_error", "code": "x", "message": "m"}},
            {"type": "execution_failed", "error": {"type": "execution_error", "code": "x", "message": "m"}},
        ],
    } | said


@pytest.mark.parametrize("said", [{"prev": "0" * 64}, {"prev": ""}, {"execution_id": "another"}])
async def test_a_commit_that_was_never_stored_is_not_believed(site: Site, said: dict[str, Any]) -> None:
    """What does not continue the history is looked up in the log: who waits goes on waiting for the true end."""
    handle = await site.engine.client.start("foreign", queue="elsewhere")
    client = await site.engine.another_client()
    waiting = asyncio.create_task(client.wait(handle.id, wait_timeout=8))
    watching = asyncio.create_task(_last(client.handle(handle.id)))
    await until(lambda: client._feed._watches.get(handle.id) and client._feed._watches[handle.id].state.n)
    commit = await forged(site.engine, handle.id, **said)
    await site.publish(f"commit.{handle.id}.{commit['n']}", msgspec.json.encode(commit))
    await site.raw.connection.flush()
    assert await handle.cancel() is True
    assert (await waiting).status == await watching == "cancelled"
    await site.is_well()


async def test_a_well_forged_commit_is_found_out(site: Site) -> None:
    """With the right hash it may be believed for a moment; the true commit in its place shows it, and the log is read anew."""
    handle = await site.engine.client.start("foreign", queue="elsewhere")
    client = await site.engine.another_client()
    watch = await client._feed.open(handle.id)
    await client._feed.catch_up(watch)
    commit = await forged(site.engine, handle.id)
    await site.publish(f"commit.{handle.id}.{commit['n']}", msgspec.json.encode(commit))
    await until(lambda: watch.state.status == "failed")
    assert await handle.cancel() is True
    await until(lambda: watch.state.status == "cancelled")
    await site.is_well()


ERROR = {"type": "execution_error", "code": "x", "message": "m"}
LOG_FORGED: dict[str, Any] = {
    "rubbish": b"rubbish",
    "nothing": b"",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "another execution's": {"execution_id": "another"},
    "another number": {"n": 77},
    "another version": {"version": 77},
    "broken chain": {"prev": "0" * 64},
    "unknown event": {"events": [{"type": "execution_exploded"}]},
    "unknown step": {"events": [{"type": "task_failed", "step": "x", "error": ERROR}]},
    "no events": {"events": []},
    "unlawful": {"events": [{"type": "execution_completed"}, {"type": "execution_completed"}]},
}  # fmt: skip


@pytest.mark.parametrize("what", LOG_FORGED.values(), ids=LOG_FORGED.keys())
async def test_a_commit_that_no_executor_wrote_halts_its_execution_only(site: Site, what: Any) -> None:
    """Whoever may write to the log can break a history: `verify` says where, reading it is a typed error or goes on, its commands
    are parked or answered, the read models pass it over, and all others go on."""
    engine = site.engine
    handle = await engine.client.start("foreign", queue="elsewhere")
    commit = await forged(engine, handle.id, **(what if isinstance(what, dict) else {}))
    data = what if isinstance(what, bytes) else msgspec.json.encode(commit)
    await site.publish(f"log.{handle.id}.{commit['n']}", data)

    async def is_there() -> bool:
        return not (await engine.client.verify(handle.id)).ok

    await until(is_there)
    site.raw.answers.clear()
    answer = await site.raw.ask(handle.id, "cancel")
    assert answer.status in ("refused", "accepted")
    client = await engine.another_client(confirm_s=1.0)
    for ask in (
        client.get(handle.id),
        client.history(handle.id),
        client.wait(handle.id, wait_timeout=0.3),
        client.poll(handle.id),
        client.get(handle.id, full=True),
        _last(client.handle(handle.id)),
        client.rollback_plan(handle.id),
    ):
        with suppress(EsexecError):
            await asyncio.wait_for(ask, 8)
    await site.is_well()
    site.engine.broken.add(handle.id)


# Questions -------------------------------------------------------------------------------------------------------------

FAR = "9" * 30
ODD_QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("executions.list", {"cursor": f"{FAR}.e-1"}),
    ("executions.list", {"cursor": f"-{FAR}.e-1"}),
    ("executions.list", {"cursor": "1.\0"}),
    ("executions.list", {"cursor": "٣.x"}),
    ("executions.list", {"name": "\0"}),
    ("executions.list", {"name": "x" * 100_000}),
    ("executions.list", {"plan_id": "\u202e'; DROP TABLE executions; --"}),
    ("executions.list", {"metadata": {"\0": "\0"}}),
    ("executions.list", {"metadata": {"a": int(FAR), "b": -0.0, "c": 5e-324, "d": None}}),
    ("executions.list", {"metadata": {f"k{n}": n for n in range(2_000)}}),
    ("executions.list", {"since": "0001-01-01T00:00:00+14:00", "until": "9999-12-31T23:59:59-14:00"}),
    ("executions.list", {"since": "2024-01-01T00:00:00"}),
    ("executions.list", {"limit": int(FAR)}),
    ("executions.list", {"after": -int(FAR)}),
    ("executions.list", {"status": ["running"] * 10_000}),
    ("executions.count", {"after": -1}),
    ("tasks.list", {"cursor": f"{FAR}.e-1.{FAR}"}),
    ("tasks.list", {"execution_id": "\0"}),
    ("alerts.list", {"cursor": f"{FAR}.{FAR}", "alert_id": "\0"}),
    ("stats", {"since": "0001-01-01T00:00:00+14:00", "until": "9999-12-31T23:59:59-14:00", "by": "hour"}),
    ("stats", {"name": "\0", "plan_id": "\0"}),
    ("task_stats", {"since": "9999-12-31T23:59:59-14:00"}),
    ("task_stats", {"until": "0001-01-01T00:00:00+14:00", "by": "day"}),
    ("durations", {"plan_id": "\0"}),
]


@pytest.mark.parametrize("store", STORES)
async def test_every_question_is_answered(engine: Engine, raw: RawClient, kept_in: Any) -> None:
    """Numbers beyond a column, NUL, times at the edge of the calendar, far too much of everything: an answer, or a typed error of
    whoever asks, from every kind of database."""
    await engine.projector(store=kept_in)
    await engine.client.start("foreign", queue="elsewhere")
    chance, prefix, wrong = random.Random(5), f"esexec.{engine.namespace}.query", []
    asked = [(name, msgspec.json.encode(one)) for name, one in ODD_QUESTIONS]
    asked += [(name, spoiled(one, chance)) for name, one in QUERIES.items() for _ in range(15)]
    for name, body in asked:
        if len(body) < raw.connection.max_payload and b'"after"' not in body:
            answer = await raw.connection.request(f"{prefix}.{name}", body, timeout=8)
            if (answer.headers or {}).get("Nats-Service-Error-Code") == "internal_error":
                wrong.append((name, body[:200], answer.data[:300]))
    assert wrong == []
    assert engine.complaints.tracebacks == []
    assert len(await engine.client.executions.list()) == 1


RARER = ["\ufdd0", "e\u0301", "x" * 2_000, "%s", "{}"]
ODD_WORDS = ["\0", "\u202e", "\U0010ffff", "'; DROP TABLE x; --", *(pytest.param(one, marks=pytest.mark.chaos) for one in RARER)]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("odd", ODD_WORDS)
async def test_odd_words_reach_every_database(site: Site, odd: str) -> None:
    """In names, metadata, codes of errors, workers: whatever a history can hold, read models can."""
    engine, raw = site.engine, site.raw
    config = {"queue": "abroad", "max_retries": 0}
    plan = {
        "name": odd[:200],
        "description": odd,
        "steps": [{"id": "s", "task": "foreign", "metadata": {odd: odd}}],
        "config": config,
    }
    answer = await raw.ask("odd", "start", plan=plan, metadata={odd: odd, "plain": odd}, actor="ada", input={odd: [odd]})
    if answer.status != "accepted":
        answer = await raw.ask("odd", "start", task="foreign", metadata={odd: odd, "plain": odd}, config=config)
    assert answer.status == "accepted", answer
    step = (await engine.client.get_or_raise("odd")).results[0].task_id
    measured = {"metrics": [{"name": "m", "values": {"v": 1.0}, "tags": {odd[:100]: odd[:100]}}]}
    error = {"type": "execution_error", "code": odd, "message": odd, "context": {odd: odd}, "exception": odd, "stack": odd}
    await raw.report("odd", step, queue="abroad", data={"type": "failed", "worker": odd, "error": error, "measured": measured})
    assert (await engine.client.wait("odd", wait_timeout=8)).status == "failed"
    await site.is_well()
    assert len(await engine.client.executions.list(metadata={"plain": odd})) == 1
    assert (await engine.client.stats()).as_of is not None


# Past every client library ---------------------------------------------------------------------------------------------

SUBJECTS = ["cmd.{}.start", "cmd.e-1.{}", "in.{}.nudge", "in.e-1.{}", "in.e-1.report.q.{}.1-1", "in.e-1.due.{}", "in._pools.{}",
            "task.default.5.{}.s.1-1", "task.default.5.e-1.s.{}", "due.{}.1", "due.e-1.{}", "live.{}.progress", "live.e-1.{}",
            "reply.{}.x", "reply.e-1.{}", "commit.{}.1", "commit.e-1.{}", "event.{}.e-1", "event.task_completed.{}", "alert.{}",
            "dead.{}.start", "dead.e-1.{}", "cache.{}", "query.{}"]  # fmt: skip
BYTES = {
    "bad utf-8": b"\xff\xfe",
    "half a letter": b"\xe2\x82",
    "overlong": b"\xc0\x80",
    "surrogate": b"\xed\xa0\x80",
    "nul": b"a\x00b",
    "escape": b"\x1b[2J",
    "rtl": "\u202egnp".encode(),
    "long": b"x" * 1_900,
}


@pytest.mark.parametrize("token", BYTES.values(), ids=BYTES.keys())
async def test_bytes_in_subjects_that_no_library_would_send(site: Site, token: bytes) -> None:
    """Straight into the socket: bytes that are no text in the subject, in the reply subject, in the headers."""
    host, port = site.engine.url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    prefix = f"esexec.{site.engine.namespace}.".encode()
    await site.engine.client.start("foreign", execution_id="alive", queue="elsewhere")
    watching = asyncio.create_task(_last((await site.engine.another_client()).handle("alive")))
    body = b'{"id":"c-1","task":"double","input":{"number":1}}'
    odd = b"NATS/1.0\r\nNats-Sequence: %s\r\n%s: x\r\nNats-Num-Pending:\r\n\r\n" % (token[:500], token[:500])
    for subject in SUBJECTS:
        full = prefix + subject.encode().replace(b"{}", token)
        writer.write(b"PUB %s %d\r\n%s\r\n" % (full, len(body), body))
        writer.write(b"PUB %s %s %d\r\n%s\r\n" % (full, b"r." + token, len(body), body))
        writer.write(b"HPUB %s %d %d\r\n%s%s\r\n" % (full, len(odd), len(odd) + len(body), odd, body))
    for subject in ("cmd.e-2.cancel", "commit.alive.2", "live.alive.log", "event.task_completed.alive", "dead.e-1.start"):
        full = prefix + subject.encode()
        writer.write(b"HPUB %s %d %d\r\n%s%s\r\n" % (full, len(odd), len(odd) + len(body), odd, body))
    writer.write(b"PING\r\n")
    await writer.drain()
    while b"PONG" not in (line := await asyncio.wait_for(reader.readline(), 5)):
        assert b"-ERR" not in line, line
    writer.close()
    await site.settled()
    page = await site.engine.client.dead_letters.list(limit=1_000)
    assert page.items
    assert [one async for one in site.engine.client.events(since="beginning", follow=False)]
    await site.is_well()
    await site.engine.client.cancel("alive")
    assert await asyncio.wait_for(watching, 8) == "cancelled"


# Floods that nobody stores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1])
async def test_a_poisoned_cache_is_no_result(site: Site, seed: int) -> None:
    """Whatever stands where a cached result would: what is none, or of another task, is not served, and the handler runs."""
    calls: list[int] = []

    @esexec.task(cache=esexec.Cache(ttl="1h"))
    async def costly(number: int) -> int:
        calls.append(number)
        return 3 * number

    await site.engine.worker(costly, queues={"costly": 5})
    site.chance = random.Random(seed)
    keys = []
    for number in range(25):
        key = esexec.Cache(ttl="1h").hash_of("costly", {"number": number}, dict)
        body = site.example("CachedResult")
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            msgspec.json.decode(body, type=CachedResult)
            body = b"rubbish"  # by chance it was one
        headers = site.chance.choice([None, {"Status": "404"}, {"Nats-Num-Pending": "x"}, {"Nats-Sequence": "x"}])
        await site.publish(f"cache.{key}", body, headers)
        keys.append(key)
    await site.raw.connection.flush()
    runs = (site.engine.client.run("costly", {"number": n}, queue="costly", wait_timeout=8) for n in range(25))
    assert await asyncio.gather(*runs) == [3 * n for n in range(25)]
    assert sorted(calls) == list(range(25))
    await site.is_well()


async def test_a_flood_of_samples_signals_and_progress(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of workers that there are not, about attempts that there are not: what listens keeps what its limits say."""
    monkeypatch.setattr("esexec.domain.limits.workers_shown", 50)
    engine = site.engine
    handle = await engine.client.start("foreign", queue="elsewhere")
    await engine.client.monitor.start(handle.id)
    await engine.client.alerts.set({"metric": "cpu_usage", "operator": "gt", "threshold": 1000})
    before = psutil.Process().memory_info().rss
    async with Overview(engine.client) as overview:
        for number in range(5_000):
            sample = {"worker": f"w-{number}", "at": "9999-01-01T00:00:00Z", "cpu_usage": 1.0, "memory_usage": 1.0,
                      "memory_bytes": 1, "running": 1, "executions": [handle.id]}  # fmt: skip
            about = {"execution_id": handle.id, "step": f"s-{number}", "attempt": 1, "time": "9999-01-01T00:00:00Z"}
            await site.publish("live._workers.sample", msgspec.json.encode(sample))
            await site.publish(f"live.{handle.id}.progress", msgspec.json.encode({**about, "fraction": 0.5}))
            await site.publish(f"live.{handle.id}.cancel", msgspec.json.encode({**about, "reason": "x" * 500}))
            await site.publish(f"live.{handle.id}.held", msgspec.json.encode({**about, "run": 1}), reply="no.where")
        await site.raw.connection.flush()
        await until(lambda: len(overview._heard) == 50)
        assert len((await overview.look()).workers) == 50
    assert psutil.Process().memory_info().rss - before < GROWTH_BYTES
    monitoring = await engine.client.monitor.stop(handle.id)
    assert len(monitoring.samples) <= limits.monitored_kept
    await site.is_well()
    assert await handle.cancel() is True
