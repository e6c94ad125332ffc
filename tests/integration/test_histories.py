"""Histories as they were, compared, as files, and all of them checked; and who gave which command: by the client."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import esexec
from esexec import Client, ValidationError
from esexec.client.histories import Imported
from esexec.domain.commit import actors_of, hash_of
from esexec.domain.errors import Conflict, CorruptHistory, NotFound, Unavailable
from esexec.domain.events import type_of
from esexec.log.lines import line_of
from esexec.log.port import Stored, append_and_wait
from esexec.nats.connection import connect
from esexec.nats.streams import delete_streams
from esexec.nats.subjects import Subjects
from projections.timeline import timeline
from tests.integration.engine import Engine, until
from tests.integration.raw import RawClient
from tests.integration.test_credentials import server_with


@esexec.task
async def count(to: int) -> dict[str, int]:
    return {"counted": to}


@esexec.task
async def add(n: int) -> int:
    esexec.current_context().vars["sum"] = n + 1
    return n + 1


PLAN = {
    "name": "sums",
    "steps": [
        {"id": "one", "task": "count", "params": {"to": 3}},
        {"id": "two", "task": "add", "params": {"n": "${steps.one.output.counted}"}},
    ],
}


@pytest.fixture
async def done(engine: Engine) -> Client:
    """A client of a namespace with one execution, `e1`, that has completed."""
    await engine.worker(count, add)
    assert (await engine.execute(PLAN, execution_id="e1")).ok
    return engine.client


@pytest.fixture
async def scratch(engine: Engine) -> Any:
    """A client of another namespace, where nobody works."""
    async with Client(engine.url, namespace=f"{engine.namespace}s") as client:
        yield client
    async with await connect(engine.url, name="test-cleanup") as connection:
        await delete_streams(connection, Subjects(f"{engine.namespace}s"))


# As it was ---------------------------------------------------------------------------------------------------------------


async def test_an_execution_as_it_was_at_every_version(done: Client) -> None:
    """`get(version=…)` is the state after that event; the last version is what there is now."""
    commits = await done.history("e1")
    last = commits[-1].version + len(commits[-1].events) - 1
    for version in range(1, last + 1):
        then = await done.get_or_raise("e1", version=version)
        events = [event for commit in await done.history("e1", version=version) for event in commit.events]
        assert len(events) == version
        assert then.completed_steps == sum(type_of(event) == "task_completed" for event in events)
    assert await done.get("e1", version=last) == await done.get("e1")
    first = await done.get_or_raise("e1", version=1)
    assert (first.status, first.variables, first.results[0].status) == ("pending", {}, "pending")
    with pytest.raises(NotFound) as unknown:
        await done.get("e1", version=last + 1)
    assert unknown.value.code == "unknown_version"
    with pytest.raises(ValidationError) as refused:
        await done.get("e1", version=0)
    assert refused.value.code == "bad_version"


async def test_an_execution_as_it_was_at_a_time(done: Client) -> None:
    """`get(at=…)` has every commit that was stored by then; before the first there was none."""
    commits = await done.history("e1")
    for commit in commits:
        then = await done.get_or_raise("e1", at=commit.time)
        assert then == await done.get_or_raise(
            "e1", version=max(one.version + len(one.events) - 1 for one in commits if one.time <= commit.time)
        )
    before = commits[0].time - timedelta(microseconds=1)
    assert await done.get("e1", at=before) is None
    with pytest.raises(NotFound) as unknown:
        await done.get_or_raise("e1", at=before)
    assert unknown.value.code == "not_yet"
    with pytest.raises(ValidationError) as refused:
        await done.get("e1", at=before.replace(tzinfo=None))
    assert refused.value.code == "naive_time"
    assert (await done.executions.get("e1", version=1)) is not None


@pytest.mark.parametrize("moment", [{"version": 1}, {}])
async def test_what_never_was_is_not_found(done: Client, moment: dict[str, Any]) -> None:
    """A past that is asked of nobody is an error as the present is."""
    with pytest.raises(NotFound):
        await done.get_or_raise("nobody", **moment)


async def test_a_difference_between_two_versions(done: Client) -> None:
    """`diff` tells what changed, with both values, and the same backwards."""
    commits = await done.history("e1")
    last = commits[-1].version + len(commits[-1].events) - 1
    changes = {one.what: (one.before, one.after) for one in await done.histories.diff("e1", 1, last)}
    assert changes["status"] == ("pending", "completed")
    assert changes["result"] == (None, 4)
    assert changes["variables.sum"] == (None, 4)
    assert changes["steps.one.output"] == (None, {"counted": 3})
    back = await done.histories.diff("e1", last, 1)
    assert {one.what: (one.after, one.before) for one in back} == changes
    assert await done.histories.diff("e1", 2, 2) == []


# As a file ---------------------------------------------------------------------------------------------------------------


async def test_an_exported_history_is_the_stored_bytes(done: Client, scratch: Client) -> None:
    """Out and in again, in another namespace: byte for byte the same, and the same execution; twice is once."""
    lines = await done.histories.export("e1")
    commits = len(lines)
    assert [msgspec.json.decode(line)["n"] for line in lines] == list(range(1, commits + 1))
    assert await scratch.histories.import_(lines) == [Imported("e1", commits, commits)]
    assert await scratch.histories.import_(lines) == [Imported("e1", commits, 0)]
    again = await scratch.histories.export("e1")
    hashes = [[msgspec.json.decode(line)["sha256"] for line in one] for one in (lines, again)]
    assert hashes[0] == hashes[1]
    report = await scratch.verify("e1")
    assert (report.ok, report.head) == (True, hash_of(msgspec.json.decode(lines[-1], type=dict[str, msgspec.Raw])["commit"]))
    there, here = await scratch.get_or_raise("e1"), await done.get_or_raise("e1")
    assert msgspec.structs.replace(there, position=0) == msgspec.structs.replace(here, position=0)


async def test_an_import_goes_on_where_it_was_interrupted(done: Client, scratch: Client) -> None:
    """What is there already is left, what is missing is written; a file that has less than is there is no contradiction."""
    lines = await done.histories.export("e1")
    assert (await scratch.histories.import_(lines[:2]))[0].written == 2
    assert (await scratch.histories.import_(lines))[0].written == len(lines) - 2
    assert (await scratch.histories.import_(lines[:1]))[0] == Imported("e1", 1, 0)


async def test_another_history_of_the_same_id_is_refused(done: Client, scratch: Client, engine: Engine) -> None:
    """Nothing is overwritten; of a file of which one history is in conflict nothing is written at all."""
    await engine.execute("count", {"to": 1}, execution_id="e2")
    first, second = await done.histories.export("e1"), await done.histories.export("e2")
    await scratch.histories.import_(_by_somebody_else(second))
    with pytest.raises(Conflict, match="commit 1"):
        await scratch.histories.import_([*first, *second])
    assert await scratch.get("e1") is None
    assert (await scratch.history("e2"))[0].executor == "somebody"


def _by_somebody_else(lines: list[bytes]) -> list[bytes]:
    """The same history, lawful and whole, but decided by another executor."""
    found, prev = [], ""
    for line in lines:
        commit = msgspec.json.decode(msgspec.json.decode(line, type=dict[str, msgspec.Raw])["commit"])
        commit |= {"executor": "somebody"} | ({"prev": prev} if prev else {})
        data = msgspec.json.encode(commit)
        prev = hash_of(data)
        found.append(line_of(commit["execution_id"], Stored(commit["n"], commit["n"], data)))
    return found


@pytest.mark.parametrize(
    ("harm", "error", "code"),
    [
        (lambda lines: [], ValidationError, "bad_history_file"),
        (lambda lines: [b"", b" "], ValidationError, "bad_history_file"),
        (lambda lines: [*lines, b"{}"], ValidationError, "bad_history_file"),
        (lambda lines: [*lines, lines[0][:-10]], ValidationError, "bad_history_file"),
        (lambda lines: [b"\xff", *lines], ValidationError, "bad_history_file"),
        (
            lambda lines: [line.replace(b'"commit":', b'"data":"e30=","commit":') for line in lines],
            ValidationError,
            "bad_history_file",
        ),
        (lambda lines: [line.replace(b'"sums"', b'"sumo"') for line in lines], CorruptHistory, "corrupt_history"),
        (lambda lines: [line.replace(b'"v":1', b'"v": 1') for line in lines], CorruptHistory, "corrupt_history"),
        (lambda lines: lines[1:], CorruptHistory, "corrupt_history"),
        (lambda lines: lines[:1] + lines[2:], CorruptHistory, "corrupt_history"),
        (lambda lines: lines[::-1], CorruptHistory, "corrupt_history"),
        (lambda lines: [*lines, lines[-1]], CorruptHistory, "corrupt_history"),
        (
            lambda lines: [line.replace(b'{"execution_id":"e1"', b'{"execution_id":"e9"', 1) for line in lines],
            CorruptHistory,
            "corrupt_history",
        ),
        (
            lambda lines: [line.replace(b'{"execution_id":"e1"', b'{"execution_id":"a.b"', 1) for line in lines],
            ValidationError,
            "bad_execution_id",
        ),
    ],
)
async def test_a_file_that_is_not_whole_is_refused(
    done: Client, scratch: Client, harm: Any, error: type[Exception], code: str
) -> None:
    """Whatever is wrong with a file is told, and nothing of it is written."""
    with pytest.raises(error) as refused:
        await scratch.histories.import_(harm(await done.histories.export("e1")))
    assert refused.value.code == code  # type: ignore[attr-defined]
    assert await scratch.list_ids(shared=True) == []


async def test_what_executions_share_is_exported_but_not_imported(done: Client, scratch: Client) -> None:
    """A history of the namespace's own can be sent to somebody, but would govern a namespace that took it in."""
    lines = await done.histories.export("_settings")
    with pytest.raises(ValidationError) as refused:
        await scratch.histories.import_(lines)
    assert refused.value.code == "shared_history"
    assert await scratch.list_ids(shared=True) == []


@pytest.mark.parametrize("engine", [None], indirect=True)
async def test_a_log_that_may_not_be_written_is_told(
    engine: Engine, done_elsewhere: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server does not take it, an import ends with an error, not never."""
    monkeypatch.setattr("esexec.client.histories._STORE_S", 0.2)

    async def nowhere(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(engine.client._log, "append", nowhere)
    with pytest.raises(Unavailable) as refused:
        await engine.client.histories.import_(done_elsewhere)
    assert refused.value.code == "not_stored"


@pytest.fixture
def done_elsewhere() -> list[bytes]:
    """A golden history as a file."""
    file = Path(__file__).parents[1] / "histories" / "completed.jsonl"
    return [line_of("e1", Stored(n, n, data)) for n, data in enumerate(file.read_bytes().splitlines(), 1)]


# All of them -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [None], indirect=True)
async def test_all_histories_are_verified_side_by_side(
    engine: Engine, done_elsewhere: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, so many at a time and no more; what is broken is among them; whoever stops early leaves nothing running."""
    client = engine.client
    data = msgspec.json.decode(done_elsewhere[0], type=dict[str, msgspec.Raw])["commit"]
    ids = [f"e{number}" for number in range(60)]
    for id_ in ids:
        assert await append_and_wait(client._log, id_, 1, bytes(data).replace(b'"e1"', b'"%b"' % id_.encode()), 0)
    assert await append_and_wait(client._log, "_broken", 1, b"{}", 0)
    under_way, most, load = 0, 0, client._log.load_raw

    async def watched(entity: str) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        try:
            return await load(entity)
        finally:
            under_way -= 1

    monkeypatch.setattr(client._log, "load_raw", watched)
    found = [one async for one in client.histories.verify_all(at_once=7)]
    assert sorted(one.execution_id for one in found) == sorted([*ids, "_broken"])
    assert [one.execution_id for one in found if not one.ok] == ["_broken"]
    assert 1 < most <= 7
    assert await client.histories.size() == 61
    reports = client.histories.verify_all(at_once=7)
    await anext(reports)
    await reports.aclose()
    await until(lambda: under_way == 0)


# Who did what ------------------------------------------------------------------------------------------------------------


async def test_commands_of_several_in_one_commit_keep_their_actors(engine: Engine, raw: RawClient) -> None:
    """What gathered while the executor was away is decided at once: each command stands there with who gave it."""
    executor = engine.executors[0]
    await executor.stop()
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("start", {"task": "nobody", "actor": "ada"}),
        ("pause", {"actor": "bob"}),
        ("resume", {}),
        ("checkpoint", {"actor": "eve"}),
    ]
    for verb, body in bodies:
        subject = engine.subjects.command("e1", verb)
        body["id"] = f"{verb}-1"
        await raw.connection.request(subject, msgspec.json.encode(body), 5.0)
    await engine.executor()

    async def all_there() -> Any:
        commits = await engine.client._read_commits("e1")
        return commits if sum(cause.is_command for one in commits for cause in one.commands) == 4 else None

    commits = await until(all_there)
    given = {
        cause.id: actor
        for commit in commits
        for cause, actor in zip((one for one in commit.commands if one.is_command), actors_of(commit), strict=True)
    }
    assert given == {"start-1": "ada", "pause-1": "bob", "resume-1": None, "checkpoint-1": "eve"}
    told = {entry.type: entry.actor for entry in timeline(commits) if entry.actor is not None}
    assert told == {"execution_created": "ada", "execution_paused": "bob", "checkpoint_created": "eve"}
    assert (await engine.client.verify("e1")).ok


async def test_every_command_of_a_client_is_signed(engine: Engine) -> None:
    """What an `actor` starts, keys, pauses and configures has that name in its commit, whatever the entity."""
    async with Client(engine.url, namespace=engine.namespace, actor="ada") as client:
        assert client.owner == "ada"
        handle = await client.start("nobody", execution_id="e1", idempotency_key="k")
        await handle.pause("lunch")
        await client.configure(max_retries=4)
        await client.plans.put(PLAN)
        commits = {id_: await client._read_commits(id_) for id_ in await client.list_ids(shared=True)}
    for id_, history in commits.items():
        wished = [one for one in history if any(cause.is_command for cause in one.commands) or id_.startswith("_key")]
        assert wished, id_
        assert {commit.actor for commit in wished} == {"ada"}, id_
    assert {id_.partition("-")[0] for id_ in commits} >= {"e1", "_key", "_settings", "_plans", "_plan"}


async def test_the_nats_user_signs_where_nobody_else_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connected as a user, that user's name stands in the history; a name that is given comes first."""
    monkeypatch.delenv("ESEXEC_ACTOR", raising=False)
    with server_with('authorization { user: "grace", password: "p" }', tmp_path) as (port, _):
        url = f"nats://127.0.0.1:{port}"
        async with (
            esexec.Executor(f"nats://grace:p@127.0.0.1:{port}", namespace="n", patience=10),
            esexec.connect(url, namespace="n", user="grace", password="p") as client,
            esexec.connect(f"nats://grace:p@127.0.0.1:{port}", namespace="n", actor="ada") as other,
        ):
            await client.start("nobody", execution_id="e1")
            await other.start("nobody", execution_id="e2")
            owners = [(await client.get_or_raise(id_)).owner for id_ in ("e1", "e2")]
    assert owners == ["grace", "ada"]
