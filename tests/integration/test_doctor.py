"""`esexec doctor` on a real server: it finds what was broken on purpose, says the way out, and nothing where all is well."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from esexec import Client, Executor, HandledTask, Handlers, Plan, Step, Worker, task
from esexec.cli.call import Call, Server
from esexec.cli.checks import Check
from esexec.cli.doctor import checks
from esexec.client.queries import Queries
from esexec.configuration import configuration
from esexec.domain.errors import NotConfirmed, NotFound, Unavailable
from esexec.domain.messages import WorkerPresence
from esexec.nats.connection import Connection, Msg, connect
from esexec.nats.presence import be_present, who_is_there, workers_there
from esexec.nats.subjects import Subjects
from esexec.world import VERSION
from projections.asks import Projections, ProjectionStatus
from projections.memory import MemoryStore
from projections.role import Projector
from tests.integration.engine import Engine
from tests.integration.test_credentials import server_with

pytestmark = pytest.mark.slow


@task
async def greet(name: str) -> str:
    """A greeting."""
    return f"hello {name}"


async def examined(
    url: str, namespace: str = "default", monitoring: str | None = None, execution_id: str | None = None
) -> list[Check]:
    """Everything that the doctor finds."""
    settled = configuration({"server": url, "namespace": namespace}, environ={"HOME": "/nowhere"}, directory=Path("/"))
    call = Call(settled, json=False, verbose=False)
    return [one async for one in checks(call, Server(url), monitoring, execution_id)]


def of(found: list[Check], name: str) -> list[Check]:
    return [one for one in found if one.name == name]


def only(found: list[Check], name: str) -> Check:
    [one] = of(found, name)
    return one


def problems(found: list[Check]) -> list[str]:
    return [one.name for one in found if one.state == "problem"]


@pytest.fixture
async def whole(engine: Engine) -> AsyncIterator[Engine]:
    """An engine with all its processes."""
    await engine.worker(greet)
    async with Projector(engine.url, namespace=engine.namespace, store=MemoryStore()) as projector:
        await projector.caught_up()
        yield engine


async def test_nothing_is_wrong_with_what_works(whole: Engine) -> None:
    """An engine with all its processes has no problem, and only the sync of a server that tells nobody is a warning."""
    await whole.client.run("greet", {"name": "Ada"}, wait_timeout=20)
    found = await examined(whole.url, whole.namespace)
    assert problems(found) == []
    assert [one.name for one in found if one.state == "warning"] == ["sync"]
    assert "--monitoring" in (only(found, "sync").hint or "")
    assert [one.state for one in of(found, "workers")] == ["ok"]


async def test_projections_at_which_nobody_works(whole: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs keeps its lock, and the others stand by: that these answer does not make them up to date."""
    stands_by = ProjectionStatus(name="statistics", view="statistics", state="standby", position=5, lag=12, lag_ms=88_000)
    works = ProjectionStatus(name="executions", view="executions", state="working", position=17)
    late = ProjectionStatus(name="executions", view="executions", state="standby", position=5, lag=12, lag_ms=88_000)

    async def said(_: Queries) -> Projections:
        return Projections(projections=[stands_by, late, works])

    monkeypatch.setattr(Queries, "projections", said)
    found = of(await examined(whole.url, whole.namespace), "projections")
    assert [(one.state, one.message) for one in found] == [
        ("problem", "nobody works at statistics, which is 12 commits behind, by 88 s")
    ]


async def test_it_is_told_who_is_there(whole: Engine) -> None:
    """Processes answer who they are, and workers what they can do as well; only those of the namespace."""
    async with await connect(whole.url, name="test") as connection:
        [worker] = await workers_there(connection, Subjects(whole.namespace))
        assert "greet" in worker.tasks
        assert (worker.queues, worker.version) == ({"default": 10}, VERSION)
        [said] = await who_is_there(connection, whole.namespace, "worker")
        assert (said.name, said.version) == (worker.worker, VERSION)
        assert await workers_there(connection, Subjects("elsewhere")) == []
        assert len(await who_is_there(connection, whole.namespace, "executor")) == 1
        assert len(await who_is_there(connection, whole.namespace, "projections")) == 1
        assert await who_is_there(connection, "elsewhere", "worker") == []


async def test_a_task_that_nobody_has_is_named(engine: Engine) -> None:
    """What waits without a worker: its queue, its task, and one that waits; no worker at all is told as well."""
    await engine.client.start("greet", {"name": "Ada"}, execution_id="waits")
    await engine.client.start("greet", {"name": "Bob"})
    found = await examined(engine.url, engine.namespace)
    assert only(found, "workers").state == "warning"
    assert only(found, "queues").state == "problem"
    assert "no worker serves that queue" in only(found, "queues").message
    assert only(found, "tasks").message == "no worker has the task `greet`; 2 attempts wait for it, such as one of waits"
    await engine.worker(greet)
    await engine.client.wait("waits", wait_timeout=20)
    assert problems(await examined(engine.url, engine.namespace)) == []


async def test_a_worker_for_any_task_has_them_all(engine: Engine) -> None:
    """What a handler of any task would take is not said to be had by nobody, though nobody announced it."""

    class Any_(Handlers):
        async def handle_task(self, record: HandledTask) -> str:
            return record.name

    async with Worker(engine.url, tasks=[Any_()], namespace=engine.namespace):
        await engine.client.start("whatever", queue="elsewhere", execution_id="waits")
        found = await examined(engine.url, engine.namespace, execution_id="waits")
        assert of(found, "tasks") == []
        assert found[-1].message == "whatever: attempt 1 waits: no worker serves the queue elsewhere"
        await engine.client.cancel("waits")


async def test_what_is_no_answer_of_a_worker_is_passed_over(
    engine: Engine, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rubbish counts for nothing, one who answers twice is one, and of a flood only so many are kept."""
    monkeypatch.setattr("esexec.domain.limits.workers_shown", 2)
    subjects = Subjects(engine.namespace)

    async def answer(message: Msg) -> None:
        for said in (b"\xff", b"[" * 100_000, b'{"worker": 1}', b'{"worker": "a"}', b'{"worker": "a"}', b'{"worker": "b"}'):
            connection.client.post(subjects.who_is_here, said)
        connection.client.post(subjects.who_is_here, b'{"worker": "c"}')

    await connection.subscribe(subjects.who_is_there, answer)
    await connection.flush()
    assert [one.worker for one in await engine.client.workers.present()] == ["a", "b"]


@pytest.mark.parametrize("engine", [None], indirect=True)
async def test_without_executors_what_waits_is_a_problem(engine: Engine) -> None:
    """Nobody who decides is a warning while nothing waits, and a problem once something does."""
    assert only(await examined(engine.url, engine.namespace), "executors").state == "warning"
    with pytest.raises(NotConfirmed):
        async with await engine.another_client(confirm_s=0.1) as client:
            await client.start("greet", {"name": "Ada"}, execution_id="waits")
    executors = only(await examined(engine.url, engine.namespace), "executors")
    assert executors.state == "problem"
    assert (executors.hint or "").endswith(" executor")
    await engine.executor()


async def test_what_somebody_changed_is_told(whole: Engine, connection: Connection, subjects: Subjects) -> None:
    """A stream with other settings, and a consumer that is gone: each is a problem with what it should be."""
    subjects = Subjects(whole.namespace)
    config = (await connection.api(f"STREAM.INFO.{subjects.events_stream}"))["config"]
    await connection.api(f"STREAM.UPDATE.{subjects.events_stream}", config | {"max_age": 3_600_000_000_000})
    found = await examined(whole.url, whole.namespace)
    assert problems(found) == ["streams"]
    assert "max_age is 3600000000000 and should be" in next(one for one in found if one.state == "problem").message


async def test_dead_letters_are_told(whole: Engine, connection: Connection) -> None:
    """What could not be decided is a warning, with the command that shows it."""
    await connection.request(Subjects(whole.namespace).dead("someone", "start"), b"{}")
    found = only(await examined(whole.url, whole.namespace), "dead letters")
    assert (found.state, found.message[:2]) == ("warning", "1:")
    assert (found.hint or "").endswith("dlq ls")


async def test_a_namespace_that_is_not_there(engine: Engine) -> None:
    """One that was mistyped is no problem of the server: the nearest one is named, and nothing is made."""
    found = await examined(engine.url, f"{engine.namespace}x")
    assert (only(found, "streams").state, problems(found)) == ("warning", [])
    assert engine.namespace in (only(found, "streams").hint or "")
    found = await examined(engine.url, f"{engine.namespace}x")
    assert "there is no namespace" in only(found, "streams").message


async def test_versions_side_by_side_are_told(whole: Engine, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another version is a warning that names it; a worker that is none of esexec's has none to compare."""
    subjects = Subjects(whole.namespace)

    async def answer(message: Msg) -> None:
        for said in (WorkerPresence(worker="newer", version="9.0.0"), WorkerPresence(worker="in-go")):
            connection.client.post(subjects.who_is_here, msgspec.json.encode(said))

    await connection.subscribe(subjects.who_is_there, answer)
    monkeypatch.setattr("esexec.nats.presence.VERSION", "8.0.0")
    await be_present(connection, "executor", whole.namespace, "older")
    found = only(await examined(whole.url, whole.namespace), "versions")
    assert found.state == "warning"
    assert "8.0.0: executor older; 9.0.0: worker newer" in found.message
    assert "in-go" not in found.message


@task
async def unlucky() -> None:
    """Fails each time."""
    raise RuntimeError("no luck")


async def waits_for(engine: Engine, execution_id: str) -> tuple[str, str, str]:
    """State and message of what is found last of an execution, and the hint."""
    found = await examined(engine.url, engine.namespace, execution_id=execution_id)
    return found[-1].state, found[-1].message, found[-1].hint or ""


@task(initial_retry_delay="10ms", jitter=0.0, max_retries=2)
async def fails() -> None:
    """Fails for good after a while."""
    raise RuntimeError("no luck")


async def test_what_fails_often_is_told(engine: Engine) -> None:
    """A task most of whose steps failed lately is a warning; few steps, and those that complete, are none."""
    await engine.worker(greet, fails)
    async with Projector(engine.url, namespace=engine.namespace, store=MemoryStore()) as projector:
        await engine.client.execute("fails", wait_timeout=20)
        await projector.caught_up()
        assert [one.state for one in of(await examined(engine.url, engine.namespace), "outcomes")] == ["ok"]
        for _ in range(10):
            await engine.client.execute("fails", wait_timeout=20)
            await engine.client.execute("greet", {"name": "Ada"}, wait_timeout=20)
        await projector.caught_up()
        told = only(await examined(engine.url, engine.namespace), "outcomes")
        assert told.message == "`fails`: 100% of 11 steps failed in the last hour"
        assert (told.hint or "").endswith("stats --tasks --name fails tells of what")


async def test_what_one_execution_waits_for(engine: Engine) -> None:
    """A worker, a retry, its start, somebody who resumes it, or nothing: told for each, with the way out."""
    client = engine.client
    await client.start("greet", {"name": "Ada"}, execution_id="alone")
    state, said, hint = await waits_for(engine, "alone")
    assert (state, said) == ("problem", "greet: attempt 1 waits: no worker has the task `greet`")
    assert hint.endswith("worker --tasks MODULE --queue default")
    await engine.worker(greet, unlucky)
    await client.wait("alone", wait_timeout=20)
    assert await waits_for(engine, "alone") == ("ok", "it has ended: completed, 1 of 1 steps completed", "")
    await client.start("greet", {"name": "Ada"}, execution_id="later", delay="1h")
    assert (await waits_for(engine, "later"))[1].startswith("it waits for its start at ")
    retried = Plan("unlucky", [Step(unlucky, initial_retry_delay="1h")])
    await client.start(retried, execution_id="retried")
    while (await client.get_or_raise("retried")).results[0].next_retry_at is None:
        await asyncio.sleep(0.01)
    state, said, _ = await waits_for(engine, "retried")
    assert (state, said.startswith("unlucky: attempt 2 is due at "), "no luck" in said) == ("ok", True, True)
    await client.pause("retried", reason="let me see")
    found = await examined(engine.url, engine.namespace, execution_id="retried")
    paused = only(found, "execution")
    assert (paused.state, paused.message) == ("warning", "it is paused (let me see), 0 of 1 steps completed")
    assert (paused.hint or "").endswith("resume retried")
    await client.cancel("later")
    await client.cancel("retried")
    with pytest.raises(NotFound):
        await examined(engine.url, engine.namespace, execution_id="nobody")


async def up(port: int) -> str:
    """The URL of a server of ours once it answers."""
    url = f"nats://127.0.0.1:{port}"
    async with await connect(url, name="test", patience=10):
        return url


async def test_a_server_without_jetstream(tmp_path: Path) -> None:
    """JetStream that is off for the account is one problem with a hint, and nothing more is asked."""
    config = "accounts { A { users: [ { user: a, password: a } ] } }\nno_auth_user: a"
    with server_with(config, tmp_path) as (port, _):
        found = await examined(await up(port))
        assert problems(found) == ["jetstream"]
        assert found[-1].name == "jetstream"
        assert "jetstream" in (found[-1].hint or "")


async def test_an_account_that_is_nearly_full_and_small_messages(tmp_path: Path) -> None:
    """Limits of the account that are nearly reached, and a largest message below what esexec sends."""
    account = "A { jetstream: { max_streams: 12, max_file: 1G, max_mem: 100M }, users: [ { user: a, password: a } ] }"
    with server_with(f"max_payload: 64K\naccounts {{ {account} }}\nno_auth_user: a", tmp_path) as (port, _):
        url = await up(port)
        engine = Engine(url, "default")
        async with engine.stack:
            await engine.executor()
            found = await examined(url)
        assert only(found, "max_payload").state == "problem"
        told = {one.message.split(":")[0]: one.state for one in of(found, "limits")}
        assert told == {"storage": "ok", "memory": "ok", "streams": "warning"}


@pytest.mark.parametrize(("said", "state"), [("always", "ok"), ("100ms", "warning")])
async def test_when_the_server_writes_is_asked_of_its_monitoring_port(
    tmp_path: Path, said: str, state: str, unused_tcp_port_factory: Callable[[], int]
) -> None:
    """What cannot be known over NATS is told by /jsz; a port that does not answer is told too."""
    http = unused_tcp_port_factory()
    config = f"http: 127.0.0.1:{http}\njetstream {{ store_dir: {tmp_path}/js, sync_interval: {said} }}"
    with server_with(config, tmp_path) as (port, _):
        url = await up(port)
        assert only(await examined(url, monitoring=f"http://127.0.0.1:{http}"), "sync").state == state
        silent = only(await examined(url, monitoring=f"http://127.0.0.1:{unused_tcp_port_factory()}"), "sync")
        assert "does not answer" in silent.message


async def test_the_system_account_knows_when_the_server_writes(tmp_path: Path) -> None:
    """Who may ask the server itself needs no monitoring port."""
    config = "accounts { SYS { users: [ { user: s, password: s } ] } }\nsystem_account: SYS\nno_auth_user: s"
    with server_with(config, tmp_path) as (port, _):
        url = await up(port)
        found: list[Check] = []
        from esexec.cli.checks import Patient
        from esexec.cli.checks.server import sync

        async with await connect(url, name="test") as connection:
            found = [one async for one in sync(Patient(connection, Subjects("default"), Server(url), "esexec"))]
        assert "every 120 s (the system account)" in found[0].message


async def test_processes_that_may_not_say_who_they_are(tmp_path: Path) -> None:
    """Without the right to hear who asks they work all the same, and nobody takes them for dead."""
    user = 'user: u, password: p, permissions: { subscribe: { deny: ["$SRV.>", "esexec.*.live._workers.ask"] } }'
    with server_with(f"authorization {{ users: [ {{ {user} }}, {{ user: d, password: d }} ] }}", tmp_path) as (port, _):
        url = f"nats://127.0.0.1:{port}"
        async with (
            await connect(url, name="test", patience=10, user="d", password="d"),
            Executor(url, user="u", password="p"),
            Worker(url, tasks=[greet], user="u", password="p"),
            Client(url, user="u", password="p") as client,
        ):
            assert await client.run("greet", {"name": "Ada"}, wait_timeout=20) == "hello Ada"
            found = await examined(f"nats://d:d@127.0.0.1:{port}")
        assert problems(found) == []
        for name in ("executors", "workers"):
            assert only(found, name).message.endswith("do not answer who they are")


async def test_no_server_is_said_by_whoever_asks() -> None:
    """Nobody there raises what every other verb raises."""
    with pytest.raises(Unavailable):
        await examined("nats://127.0.0.1:1")


def test_checks_are_json() -> None:
    """What is found can be read by a program, without what was not said."""
    said: Any = json.loads(msgspec.json.encode(Check(name="a", state="ok", message="b")))
    assert said == {"name": "a", "state": "ok", "message": "b"}
