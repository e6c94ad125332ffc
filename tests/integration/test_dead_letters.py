"""`client.dead_letters`: what could not be decided is looked at, put back as what it was, and carried out once."""

import asyncio
from typing import Any

import msgspec
import pytest

import esexec
from esexec.client.dead_letters import DeadLetter
from esexec.domain.errors import NotFound, Refused, ValidationError
from esexec.nats.lean import header_block
from tests.integration.engine import Engine, until
from tests.integration.raw import RawClient


@pytest.fixture(autouse=True)
def expected(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """That something is buried is worth an error in the log; what no history knows is looked for twice only, and soon."""
    engine.errors_expected = True
    monkeypatch.setattr("esexec.executor.desk.DELIVERIES_OF_UNKNOWN", 2)
    monkeypatch.setattr("esexec.executor.desk.backoff_s", lambda deliveries: 0.02)


async def letters(engine: Engine, count: int, **which: Any) -> list[DeadLetter]:
    """So many dead letters, once they are there."""

    found: list[DeadLetter] = []

    async def there() -> bool:
        found[:] = (await engine.client.dead_letters.list(**which)).items
        return len(found) >= count

    await until(there)
    assert len(found) == count
    return found


async def say(engine: Engine, raw: RawClient, subject: str, body: bytes) -> None:
    await raw.connection.publish(f"esexec.{engine.namespace}.{subject}", body)


async def test_a_letter_says_all_that_is_known(engine: Engine, raw: RawClient) -> None:
    """Reason, message, where it had been published, the body as it came; of a command with an id that can be read, the id."""
    await say(engine, raw, "cmd.order-1.start", b"start order 1, please")
    (letter,) = await letters(engine, 1)
    assert (letter.reason, letter.execution_id, letter.verb) == ("undecodable", "order-1", "start")
    assert (letter.subject, letter.data) == (f"esexec.{engine.namespace}.cmd.order-1.start", b"start order 1, please")
    assert (bool(letter.message), bool(letter.hint), letter.whole_bytes, letter.command_id) == (True, True, None, None)
    assert await engine.client.dead_letters.get(letter.id) == letter
    with pytest.raises(ValidationError, match="no JSON"):
        _ = letter.content
    with pytest.raises(NotFound):
        await engine.client.dead_letters.get(letter.id + 1)


async def test_letters_are_listed_by_reason_and_execution(engine: Engine, raw: RawClient) -> None:
    """The oldest first, page by page; a reason and an execution leave out the others."""
    for number in range(5):
        await say(engine, raw, f"cmd.e-{number % 2}.start", b"rubbish %d" % number)
        await letters(engine, number + 1)
    await say(engine, raw, "cmd.e-0.dance", b"{}")
    await letters(engine, 6)
    assert [one.data for one in await letters(engine, 2, execution_id="e-1")] == [b"rubbish 1", b"rubbish 3"]
    assert [one.verb for one in await letters(engine, 1, reason="unknown_verb", execution_id="e-0")] == ["dance"]
    first = await engine.client.dead_letters.list(limit=4)
    rest = await engine.client.dead_letters.list(limit=4, cursor=first.cursor)
    assert [len(first), len(rest), rest.cursor] == [4, 2, None]
    assert [one.id for one in (*first, *rest)] == sorted({one.id for one in (*first, *rest)})
    for wrong in ({"limit": 0}, {"limit": 10_000}, {"cursor": "nowhere"}, {"execution_id": "a.b"}):
        with pytest.raises(ValidationError):
            await engine.client.dead_letters.list(**wrong)


async def test_a_page_of_large_letters_is_bounded(engine: Engine, raw: RawClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not more than `dead_letters_bytes` at once, and one at least; all of them by the cursor."""
    monkeypatch.setattr("esexec.domain.limits.dead_letters_bytes", 250_000)
    for number in range(3):
        await say(engine, raw, f"cmd.e-{number}.start", b"x" * 200_000)
    found, cursor = [], None

    async def all_there() -> bool:
        info = await raw.connection.api(f"STREAM.INFO.{engine.subjects.dead_stream}")
        return bool(info["state"]["messages"] == 3)

    await until(all_there)
    while True:
        page = await engine.client.dead_letters.list(cursor=cursor)
        assert len(page) == 1
        found += page.items
        if (cursor := page.cursor) is None:
            break
    assert sorted(one.execution_id for one in found) == ["e-0", "e-1", "e-2"]


async def test_a_command_is_put_back_and_carried_out_once(
    engine: Engine, raw: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command with the same id: put back twice it is carried out once; deleted if that is wished."""
    handle = await engine.client.start("foreign", queue="elsewhere")
    with monkeypatch.context() as broken:
        broken.setattr("esexec.executor.mailbox.decide_control", _fails)
        answer = await raw.ask(handle.id, "cancel", id="c-1", reason="why not")
        assert answer.error is not None
        assert answer.error.code == "poison"
    (letter,) = await letters(engine, 1, reason="poison")
    assert (letter.command_id, letter.content["reason"]) == ("c-1", "why not")
    first = await engine.client.dead_letters.redrive(letter.id)
    assert (first.outcome, first.error, first.deleted) == ("accepted", None, False)
    assert (await handle.wait(wait_timeout=5)).status == "cancelled"
    history = await engine.client.history(handle.id)
    again = await engine.client.dead_letters.redrive(letter.id, delete=True)
    assert (again.outcome, again.deleted) == ("accepted", True)
    assert await engine.client.history(handle.id) == history
    assert sum(cause.id == "c-1" for commit in history for cause in commit.commands) == 1
    assert not await letters(engine, 0)


def _fails(*_: Any) -> Any:
    raise RuntimeError("boom")


async def test_a_report_is_put_back(engine: Engine, raw: RawClient) -> None:
    """It closes its attempt, if somebody waits for that by now."""
    now = "2026-01-01T00:00:00Z"
    await raw.report(
        "e-1", "foreign", queue="abroad", data={"type": "completed", "started_at": now, "ended_at": now, "output": 7}
    )
    (letter,) = await letters(engine, 1, reason="unknown_attempt")
    handle = await engine.client.start("foreign", queue="abroad", execution_id="e-1")
    assert (await engine.client.dead_letters.redrive(letter.id)).outcome == "done"
    assert (await handle.wait(wait_timeout=5)).result == 7


async def test_what_is_still_wrong_is_told(engine: Engine, raw: RawClient) -> None:
    """What cannot be read is buried again, under a number that is told; what is refused says why."""
    await say(engine, raw, "cmd.e-1.start", b"rubbish")
    await say(engine, raw, "in.e-1.report.default.s.1-1", b"rubbish")
    found = {one.verb: one for one in await letters(engine, 2)}
    again = await engine.client.dead_letters.redrive(found["start"].id, delete=True)
    assert (again.outcome, again.error and again.error.code, again.deleted) == ("buried", "undecodable", True)
    assert again.buried_as is not None
    assert (await engine.client.dead_letters.get(again.buried_as)).data == b"rubbish"
    became = [one async for one in engine.client.dead_letters.redrive_all(delete=True)]
    assert [one.outcome for one in became] == ["buried", "buried"]
    assert len(await letters(engine, 2)) == 2


async def test_all_are_put_back_in_their_order(engine: Engine, raw: RawClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a reason: what is there when it begins, each once, the oldest first."""
    with monkeypatch.context() as broken:
        broken.setattr("esexec.executor.mailbox.decide_start", _fails)
        for number in range(3):
            await raw.ask(f"e-{number}", "start", id=f"c-{number}", task="foreign", config={"queue": "elsewhere"})
    await say(engine, raw, "cmd.e-1.start", b"rubbish")
    await letters(engine, 4)
    became = [one async for one in engine.client.dead_letters.redrive_all(reason="poison")]
    assert [(one.execution_id, one.outcome) for one in became] == [(f"e-{number}", "accepted") for number in range(3)]
    assert await engine.client.list_ids() == ["e-0", "e-1", "e-2"]
    assert [one async for one in engine.client.dead_letters.redrive_all(reason="no such")] == []


@pytest.mark.parametrize("engine", [None], indirect=True)
async def test_without_an_executor_it_waits(engine: Engine, raw: RawClient) -> None:
    """It is stored where it came from: `waiting` is told after the client's patience, and the executor that comes decides it."""
    body = msgspec.json.encode({"id": "c-1", "task": "foreign", "config": {"queue": "elsewhere"}})
    await forge(engine, raw, "e-1.start", f"esexec.{engine.namespace}.cmd.e-1.start", body)
    client = await engine.another_client(confirm_s=0.2)
    became = await client.dead_letters.redrive(1)
    assert became.outcome == "waiting"
    await engine.executor()

    async def begun() -> bool:
        return await client.get("e-1") is not None

    await until(begun)


async def forge(engine: Engine, raw: RawClient, dead: str, subject: str, body: bytes, **headers: str) -> None:
    """A letter of which only we say where it came from."""
    said = header_block({"Esexec-Reason": "poison", "Esexec-Subject": subject, **headers})
    client = raw.connection.client
    client.post(f"esexec.{engine.namespace}.dead.{dead}", body, "", said)
    await raw.connection.flush()
    await letters(engine, 1)


@pytest.mark.parametrize(
    "subject",
    [
        "esexec.{ns}.log.e-1.1",
        "esexec.{ns}.task.default.5.e-1.s.1-1",
        "esexec.{ns}.due.e-1.1",
        "esexec.{ns}.dead.e-1.start",
        "esexec.another.cmd.e-1.start",
        "esexec.{ns}.cmd.e-1.>",
        "$JS.API.STREAM.DELETE.ESEXEC_{ns}_LOG",
        "",
    ],
)
async def test_a_letter_that_lies_is_not_put_back(engine: Engine, raw: RawClient, subject: str) -> None:
    """What says that it came from elsewhere than from the intake is refused, whatever may be done there with our rights."""
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    await forge(engine, raw, "e-1.start", subject.format(ns=engine.namespace), b"{}")
    await raw.connection.subscribe(f"esexec.{engine.namespace}.log.>", hear)
    with pytest.raises(Refused) as refused:
        await engine.client.dead_letters.redrive(1)
    assert (refused.value.code, bool(refused.value.hint)) == ("not_redrivable", True)
    assert [one.outcome async for one in engine.client.dead_letters.redrive_all()] == ["left"]
    assert heard == []
    await engine.client.dead_letters.delete(1)
    assert not await letters(engine, 0)


@pytest.mark.parametrize("status", ["204", "404", "503", "\u202e"])
async def test_headers_of_a_letter_do_not_end_the_list(engine: Engine, raw: RawClient, status: str) -> None:
    """A stored message whose headers look like the server's own is read as any other, and those behind it too."""
    odd = {"Status": status, "Nats-Num-Pending": "x", "Nats-Sequence": "999", "Nats-Subject": "x", "Esexec-Cut": "9" * 30}
    await forge(engine, raw, "e-1.start", "", b"first", **odd)
    await say(engine, raw, "cmd.e-2.start", b"second")
    assert [one.data for one in await letters(engine, 2)] == [b"first", b"second"]
    assert (await engine.client.dead_letters.get(1)).execution_id == "e-1"


async def test_what_was_cut_is_not_put_back(engine: Engine, raw: RawClient) -> None:
    """As large as the server takes, there is no room for the reason beside it: the beginning is kept, and the size is told."""
    await say(engine, raw, "cmd.e-1.start", b"x" * raw.connection.max_payload)
    (letter,) = await letters(engine, 1)
    assert letter.whole_bytes == raw.connection.max_payload > len(letter.data)
    with pytest.raises(Refused, match="only the beginning"):
        await engine.client.dead_letters.redrive(letter.id)


async def test_of_a_closed_client_nothing_can_be_asked(engine: Engine) -> None:
    """As all else."""
    with pytest.raises(ValidationError, match="not open"):
        await asyncio.wait_for(esexec.Client(engine.url).dead_letters.list(), 1)
