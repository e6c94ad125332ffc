"""Alerts on a real server: set in the log, judged by the projections, told in the stream once, to callbacks and to webhooks."""

import asyncio
import json
import logging
import signal
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

import esexec
from esexec import Alert, AlertCondition, ValidationError
from esexec.domain.kept_alerts import ALERTS_ENTITY
from esexec.nats.connection import Connection
from esexec.nats.direct import DirectReader
from esexec.world import now
from projections import alerts, looking, outbox
from projections.role import Projector
from tests.integration.cli import Cli
from tests.integration.engine import Engine, until
from tests.integration.raw import RawClient

VIEWS = Path(".esexec/projections")
FAILED = AlertCondition("execution_failed", "gte", 1)


class Gate:
    """`waits` waits until it is opened; each test has one of its own."""

    opened = asyncio.Event()


@esexec.task(max_retries=0)
async def fine(cost: float = 0.0) -> None:
    esexec.current_context().cost(cost)


@esexec.task(max_retries=0)
async def bad() -> None:
    raise esexec.ExecutionError("no", code="BROKEN", retry=False)


@esexec.task
async def waits() -> None:
    await Gate.opened.wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks and samples are looked at often; nothing is waited for that is not there."""
    monkeypatch.setattr(alerts.AlertsProjection, "tick_s", 0.05)
    monkeypatch.setattr(alerts, "_BEHIND", timedelta(0))
    monkeypatch.setattr(looking, "_EVERY_S", 0.1)
    monkeypatch.setattr(Gate, "opened", asyncio.Event())


@pytest.fixture
async def site(engine: Engine) -> Engine:
    await engine.worker(fine, bad, waits)
    return engine


async def stored(engine: Engine, connection: Connection) -> list[Alert]:
    """What is in the stream, in its order."""
    reader = await DirectReader(connection).start()
    found = await reader.from_first(engine.subjects.events_stream, engine.subjects.alert("*"), 1_000)
    return [msgspec.json.decode(one.data, type=Alert) for one in found]


def short(told: list[Alert]) -> list[str]:
    return [f"{one.state} {one.alert_id} {one.execution_id or one.source}" for one in told]


# Setting -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["one executor", "two executors"], indirect=True)
async def test_alerts_are_set_listed_and_removed(engine: Engine) -> None:
    """Durably, in the log; an id that is given is kept, and stands for the last condition that was set under it."""
    client = engine.client
    alert_id = await client.alerts.set({"metric": "execution_duration", "operator": ">", "threshold": "2h"})
    assert await client.alerts.set(FAILED, id="failed", webhook="https://example.org/hook") == "failed"
    assert await client.alerts.set(FAILED, id="failed", webhook="https://example.org/hook") == "failed"
    kept = await client.alerts.list()
    assert [(one.alert_id, str(one.condition), one.webhook) for one in kept] == [
        (alert_id, "execution_duration > 7.2e+06", None),
        ("failed", "execution_failed >= 1", "https://example.org/hook"),
    ]
    assert (await client.verify(ALERTS_ENTITY)).commits == 2
    assert await client.alerts.remove(alert_id) is True
    assert await client.alerts.remove(alert_id) is False
    assert [one.alert_id for one in await client.alerts.list()] == ["failed"]


async def test_what_cannot_be_set_is_refused_before_it_is_sent(engine: Engine) -> None:
    """Each with its code."""
    for given, more, code in [
        (AlertCondition("cost", "gt", float("nan")), {}, "bad_alert"),
        ({"metric": "cost"}, {}, "missing"),
        (FAILED, {"webhook": "ftp://example.org"}, "bad_webhook"),
        (FAILED, {"id": "a.b"}, "bad_alert_id"),
        (FAILED, {"callback": "print"}, "invalid_value"),
    ]:
        with pytest.raises(ValidationError) as raised:
            await engine.client.alerts.set(given, **more)  # type: ignore[arg-type]
        assert raised.value.code == code
    assert await engine.client.alerts.list() == []


async def test_any_language_can_set_alerts(engine: Engine, raw: RawClient) -> None:
    """Bare messages, an answer to each; nothing that a client checks is taken on trust."""
    condition = {"metric": "cost", "operator": "gt", "threshold": 5}
    assert (await raw.ask(ALERTS_ENTITY, "set_alert", condition=condition, alert_id="dear")).status == "accepted"
    assert not (await raw.ask(ALERTS_ENTITY, "set_alert", condition=condition, alert_id="dear")).effective
    for verb, body, code in [
        ("set_alert", {"condition": condition | {"plan": "p", "execution_id": "e"}}, "bad_alert"),
        ("set_alert", {"condition": condition | {"operator": ">"}}, "undecodable"),
        ("set_alert", {"condition": condition | {"more": 1}}, "undecodable"),
        ("set_alert", {"condition": condition, "webhook": "file:///etc/passwd"}, "bad_webhook"),
        ("set_alert", {"condition": condition, "alert_id": "*"}, "bad_alert_id"),
        ("remove_alert", {"alert_id": ">"}, "bad_alert_id"),
    ]:
        answer = await raw.ask(ALERTS_ENTITY, verb, **body)
        assert answer.error is not None
        assert (answer.status, answer.error.code) == ("refused", code)
    assert (await raw.ask(ALERTS_ENTITY, "remove_alert", alert_id="dear")).status == "accepted"
    assert await engine.client.alerts.list() == []


# Being told --------------------------------------------------------------------------------------------------------------


async def test_callbacks_are_told(site: Engine, connection: Connection) -> None:
    """Sync and async ones, when it is triggered and when it is over, once; one that throws is warned of, and told of the next."""
    await site.projector()
    client, sync, threads = site.client, list[Alert](), set[str]()
    async_ = list[Alert]()

    def told(alert: Alert) -> None:
        sync.append(alert)
        threads.add(threading.current_thread().name)

    async def also(alert: Alert) -> None:
        async_.append(alert)
        raise ValueError("the pager is off")

    await client.alerts.set(FAILED, told, id="f")
    await client.alerts.set(AlertCondition("cost", "gt", 5, each_execution=True), also, id="c")
    await client.execute(bad, execution_id="b1")
    await client.execute(fine, {"cost": 7}, execution_id="f1")
    await until(lambda: len(sync) == 2 and len(async_) == 2)
    assert short(sync) == ["triggered f b1", "resolved f b1"]
    assert short(async_) == ["triggered c f1", "resolved c f1"]
    assert sync[0].message == "execution b1 failed: [BROKEN] no"
    assert threading.main_thread().name not in threads
    assert len([line for line in site.complaints.lines if "callback of alert c" in line]) == 2
    site.complaints.records.clear()
    await client.alerts.unlisten("f")
    await client.execute(bad, execution_id="b2")
    await until(lambda: stored_count(site, connection, 6))
    assert len(sync) == 2


async def stored_count(engine: Engine, connection: Connection, count: int) -> bool:
    return len(await stored(engine, connection)) >= count


async def test_an_execution_that_runs_too_long_is_told_while_it_runs(site: Engine) -> None:
    """F389, with less patience."""
    await site.projector()
    told: list[Alert] = []
    await site.client.alerts.set(AlertCondition("execution_duration", "gt", 300), told.append, id="long")
    handle = await site.client.start(waits, execution_id="w1")
    await until(lambda: told)
    assert not (await handle.status()).is_final
    begun = (await site.client.get_or_raise("w1")).started_at
    assert begun is not None
    assert (told[0].triggered_at, told[0].value) == (begun + timedelta(milliseconds=301), 301)
    page = await site.client.alerts.history(state="triggered")
    assert short(page.items) == ["triggered long w1"]
    Gate.opened.set()
    await until(lambda: len(told) == 2)
    page = await site.client.alerts.history(execution_id="w1")
    assert short(page.items) == ["resolved long w1"]
    assert page.items[0] == told[1]
    assert (await site.client.alerts.history(state="triggered")).items == []


async def test_a_busy_worker_is_told(engine: Engine, connection: Connection) -> None:
    """F388: above 90 % of a core for as long as was said; each worker for itself, by what they say of themselves."""
    await engine.projector()
    told: list[Alert] = []
    await engine.client.alerts.set(AlertCondition("cpu_usage", "gt", 90, 300), told.append, id="hot")

    async def samples(worker: str, cpu: float) -> None:
        sample = {"worker": worker, "at": now(), "cpu_usage": cpu, "memory_usage": 3.0, "memory_bytes": 1, "running": 1}
        await connection.publish(engine.subjects.samples, msgspec.json.encode(sample | {"executions": ["e1"]}))

    await connection.publish(engine.subjects.samples, b"nonsense")

    async def is_told() -> bool:
        await samples("w1", 97.5)
        await samples("w2", 10)
        return bool(told)

    await until(is_told)
    assert (short(told), told[0].value) == (["triggered hot w1"], 97.5)
    await samples("w1", 5)
    await until(lambda: len(told) == 2)
    assert short(told)[1:] == ["resolved hot w1"]


async def test_what_workers_say_of_themselves_is_heard(engine: Engine) -> None:
    """A worker's own samples, of one that is at an execution of the plan; nobody else's."""
    await engine.projector()
    await engine.worker(waits, name="busy", sample_ms=50)
    await engine.worker(name="idle", queues={"others": 1}, sample_ms=50)
    told: list[Alert] = []
    await engine.client.alerts.set(AlertCondition("memory_usage", "gt", 0, plan="waits"), told.append, id="memory")
    await engine.client.start(waits, execution_id="w1")
    await until(lambda: told)
    assert short(told) == ["triggered memory busy"]
    assert told[0].value is not None
    assert 0 < told[0].value < 100
    Gate.opened.set()


async def test_queues_and_projections_are_looked_at(engine: Engine) -> None:
    """How many attempts wait on a queue; how far a projection is behind."""
    await engine.projector()
    told: list[Alert] = []
    await engine.client.alerts.set(AlertCondition("queue_depth", "gte", 3, source="default"), told.append, id="deep")
    await engine.client.alerts.set(AlertCondition("lag", "lte", 0, source="executions"), told.append, id="lag")
    for _ in range(3):
        await engine.client.start(fine)
    await until(lambda: {"triggered deep default", "triggered lag executions"} <= {*short(told)})
    await engine.worker(fine)
    await until(lambda: "resolved deep default" in short(told))


# Once --------------------------------------------------------------------------------------------------------------------


async def test_what_happened_while_nobody_watched_is_told_once(site: Engine, connection: Connection, tmp_path: Path) -> None:
    """The projections were away: afterwards all is told, in order; and nothing again, however often they are started."""
    store, client = tmp_path / "views.sqlite", site.client
    await client.alerts.set(FAILED, id="f")
    await client.alerts.set(AlertCondition("execution_duration", "gte", 0), id="d")
    for number in range(3):
        await client.execute(bad, execution_id=f"b{number}")
    for _ in range(3):
        async with Projector(site.url, namespace=site.namespace, store=store):
            await until(lambda: stored_count(site, connection, 12))
            assert len((await client.alerts.history()).items) == 6
    told = await stored(site, connection)
    assert len(told) == 12
    for alert_id in "fd":
        of_one = short([one for one in told if one.alert_id == alert_id])
        assert of_one == [f"{state} {alert_id} b{number}" for number in range(3) for state in ("triggered", "resolved")]


async def test_a_view_that_is_made_anew_tells_nothing_again(site: Engine, connection: Connection, tmp_path: Path) -> None:
    """What is worked out once more has the same ids, and is known to be in the stream; what is new is told."""
    client = site.client
    await client.alerts.set(FAILED, id="f")
    await client.execute(bad, execution_id="b1")
    async with Projector(site.url, namespace=site.namespace, store=tmp_path / "one.sqlite"):
        await until(lambda: stored_count(site, connection, 2))
    await client.execute(bad, execution_id="b2")
    async with Projector(site.url, namespace=site.namespace, store=tmp_path / "two.sqlite") as projector:
        await until(lambda: stored_count(site, connection, 4))
        view = projector.runners["alerts"].view
        await until(lambda: view.count(alerts.UNTOLD) == 0)
    assert short(await stored(site, connection)) == [
        "triggered f b1", "resolved f b1", "triggered f b2", "resolved f b2",
    ]  # fmt: skip


async def test_an_alert_that_was_sent_but_not_noted_is_not_sent_again(
    site: Engine, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the two; the stream says what it holds, also when its memory of ids is long over."""
    client = site.client
    await client.alerts.set(FAILED, id="f")
    for number in range(3):
        await client.execute(bad, execution_id=f"b{number}")
    monkeypatch.setattr(outbox.Outbox, "take_told", lambda self: [])  # as if it died before
    store = tmp_path / "views.sqlite"
    async with Projector(site.url, namespace=site.namespace, store=store) as projector:
        await until(lambda: stored_count(site, connection, 6))
        assert projector.runners["alerts"].view.count(alerts.UNTOLD) == 6
    monkeypatch.undo()
    monkeypatch.setattr(alerts.AlertsProjection, "tick_s", 0.05)
    monkeypatch.setattr(outbox, "header_block", _without_id)
    async with Projector(site.url, namespace=site.namespace, store=store) as projector:
        view = projector.runners["alerts"].view
        await client.execute(bad, execution_id="b3")
        await until(lambda: stored_count(site, connection, 8))
        await until(lambda: view.count(alerts.UNTOLD) == 0)
    assert len(await stored(site, connection)) == 8


@pytest.mark.timeout(180)
async def test_projections_that_are_killed_tell_each_alert_once(site: Engine, connection: Connection, tmp_path: Path) -> None:
    """`kill -9`, wherever it is between reading, judging, writing and telling; another process goes on."""
    client, cli = site.client, Cli(tmp_path, site.url)
    await client.alerts.set(FAILED, id="f")
    await client.alerts.set(AlertCondition("execution_duration", "gte", 0), id="d")
    count = 0
    for wait_s in (0.0, 0.03, 0.08, 0.15, 0.3):
        with cli.running("projections", "--namespace", site.namespace) as process:
            await asyncio.to_thread(process.until, "ready")
            for _ in range(12):
                await client.execute(bad, execution_id=f"b{count}")
                count += 1
            await asyncio.sleep(wait_s)
            process.process.send_signal(signal.SIGKILL)
    async with Projector(site.url, namespace=site.namespace, store=tmp_path / VIEWS / f"{site.namespace}.sqlite") as projector:
        view = projector.runners["alerts"].view
        await projector.caught_up()
        await until(lambda: view.count(alerts.UNTOLD) == 0)
        assert view.count(alerts.OCCURRENCES) == 2 * count
    told = await stored(site, connection)
    for alert_id in "fd":
        expected = [f"{state} {alert_id} b{number}" for number in range(count) for state in ("triggered", "resolved")]
        assert short([one for one in told if one.alert_id == alert_id]) == expected


def _without_id(headers: dict[str, str]) -> bytes:
    from esexec.nats.lean import header_block

    return header_block({name: value for name, value in headers.items() if name != "Nats-Msg-Id"})


async def test_a_stream_of_an_earlier_version_takes_alerts(site: Engine, connection: Connection) -> None:
    """It is given the subject that it lacks by whoever starts."""
    config = (await connection.api(f"STREAM.INFO.{site.subjects.events_stream}"))["config"]
    await connection.api(f"STREAM.UPDATE.{site.subjects.events_stream}", config | {"subjects": [site.subjects.events_all]})
    await site.projector()
    await site.client.alerts.set(FAILED, id="f")
    await site.client.execute(bad, execution_id="b1")
    await until(lambda: stored_count(site, connection, 2))


# Webhooks ----------------------------------------------------------------------------------------------------------------


class Hook(BaseHTTPRequestHandler):
    posts: list[tuple[str, dict[str, Any], str]] = []
    answers: list[int] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.posts.append((self.path, body, self.headers["Idempotency-Key"]))
        self.send_response(self.answers.pop(0) if self.answers else 204)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
async def hook(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The address of a server that is posted to."""
    Hook.posts, Hook.answers = [], []
    monkeypatch.setattr("projections.webhooks._FIRST_AGAIN_S", 0.05)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    await asyncio.to_thread(server.shutdown)
    server.server_close()


async def test_alerts_are_posted(site: Engine, hook: str) -> None:
    """As JSON, with an id that tells a repetition; also the one that is over because the alert was removed."""
    await site.projector()
    client = site.client
    await client.alerts.set(AlertCondition("execution_duration", "gte", 0), webhook=f"{hook}/here", id="d")
    await client.alerts.set(FAILED, id="f")
    await client.start(waits, execution_id="w1")
    await until(lambda: Hook.posts)
    await client.alerts.remove("d")
    await until(lambda: len(Hook.posts) == 2)
    path, body, key = Hook.posts[0]
    alert = msgspec.convert(body, Alert)
    assert (path, alert.state, alert.execution_id, key) == ("/here", "triggered", "w1", f"{alert.id}.triggered")
    assert Hook.posts[1][1]["state"] == "resolved"
    Gate.opened.set()


async def test_a_webhook_that_fails_is_tried_again_and_given_up(
    site: Engine, hook: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors, redirections and refused connections alike; after so many times it is warned of, and the next is posted."""
    monkeypatch.setattr("projections.webhooks.TIMES", 3)
    await site.projector()
    await site.client.alerts.set(FAILED, webhook=hook, id="f")
    Hook.answers = [500, 302]
    await site.client.execute(bad, execution_id="b1")
    await until(lambda: len(Hook.posts) == 4)
    assert sorted(key.rpartition(".")[2] for _, _, key in Hook.posts)[0] == "resolved"
    assert {path for path, _, _ in Hook.posts} == {"/"}
    await site.client.alerts.set(FAILED, webhook="http://127.0.0.1:1/nobody", id="f")
    with caplog.at_level(logging.WARNING, "esexec.projections"):
        await site.client.execute(bad, execution_id="b2")
        await until(lambda: len([one for one in caplog.messages if "given up after 3 times" in one]) == 2)
    await site.client.alerts.set(FAILED, webhook=hook, id="f")
    await site.client.execute(bad, execution_id="b3")
    await until(lambda: any(body["execution_id"] == "b3" for _, body, _ in Hook.posts))


async def test_a_webhook_that_never_has_its_answer_holds_up_nothing(
    site: Engine, hook: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever comes byte by byte is given up after a while; its thread keeps no process from ending."""
    never = threading.Event()
    monkeypatch.setattr("projections.webhooks.TIMES", 1)
    monkeypatch.setattr("projections.webhooks._WHOLE_S", 0.1)
    monkeypatch.setattr("projections.webhooks.post", lambda url, alert: never.wait(30))
    projector = await site.projector()
    await site.client.alerts.set(FAILED, webhook=hook, id="f")
    with caplog.at_level(logging.WARNING, "esexec.projections"):
        await site.client.execute(bad)
        await until(lambda: any("no answer within 0.1 s" in one for one in caplog.messages))
    await projector.stop()
    waiting = [thread for thread in threading.enumerate() if thread.name == "esexec-webhook"]
    assert waiting
    assert all(thread.daemon for thread in waiting)
    never.set()
