"""Commands of one execution are decided in the order of the stream, whichever executors have them in hand."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from esexec.domain.errors import NotFound
from esexec.domain.messages import Answer
from esexec.world import new_id
from tests.integration.engine import Engine
from tests.integration.raw import RawClient

rivals = pytest.mark.parametrize("engine", ["two executors", "two without cache"], indirect=True)
TIMES = 30


async def store(raw: RawClient, execution_id: str, verb: str, **body: Any) -> str:
    """Publish a command and wait for the server's acknowledgement, and for nothing else; gives its id."""
    body.setdefault("id", new_id())
    subject = raw.engine.subjects.command(execution_id, verb)
    stored = await raw.connection.request(subject, msgspec.json.encode(body), 5.0)
    assert b'"seq"' in stored.data
    return str(body["id"])


async def in_turn(raw: RawClient, execution_id: str, *verbs: str) -> list[Answer]:
    """Publish commands, each as soon as the one before it is stored; then hear the answers."""
    asked = [await store(raw, execution_id, verb) for verb in verbs]
    return [await raw.answer_to(one) for one in asked]


def courses(types: list[str]) -> list[str]:
    return [one.removeprefix("execution_") for one in types if one in ("execution_paused", "execution_resumed")]


@pytest.fixture
def slow(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first executor is slow to take what it gets: without an order, the second one overtakes it."""
    one = engine.executors[0]._desk
    take: Callable[..., Awaitable[None]] = one.take
    later: set[asyncio.Task[None]] = set()

    async def taken(envelope: Any) -> None:
        await asyncio.sleep(0.03)
        await take(envelope)

    async def slowly(envelope: Any) -> None:
        task = asyncio.create_task(taken(envelope))
        later.add(task)
        task.add_done_callback(later.discard)

    monkeypatch.setattr(one, "take", slowly)


async def both_had_a_part(engine: Engine, ids: list[str]) -> None:
    took = {commit.executor for one in ids for commit in await engine.client.history(one)}
    assert took == {one.name for one in engine.executors}, "only one of the executors had a part in it"


@rivals
@pytest.mark.usefixtures("slow")
async def test_a_resume_right_after_a_pause_comes_after_it(engine: Engine, raw: RawClient) -> None:
    """Published once the pause is stored, the resume never finds that there is nothing to resume: nothing stays paused."""
    ids = [f"e{number}" for number in range(TIMES)]
    for one in ids:
        await raw.ask(one, "start", task="nobody_does_it")
        answers = await in_turn(raw, one, "pause", "resume")
        assert [(answer.status, answer.effective) for answer in answers] == [("accepted", True)] * 2
        assert courses(await engine.types(one)) == ["paused", "resumed"]
    await both_had_a_part(engine, ids)


@rivals
@pytest.mark.usefixtures("slow")
async def test_a_row_of_pauses_and_resumes_is_done_in_its_order(engine: Engine, raw: RawClient) -> None:
    """Seven of them, of many executions side by side: each takes effect, and all of them end as the last one says."""
    verbs = ["pause", "resume"] * 3 + ["pause"]
    ids = [f"e{number}" for number in range(TIMES)]

    async def one_row(one: str) -> None:
        await raw.ask(one, "start", task="nobody_does_it")
        answers = await in_turn(raw, one, *verbs)
        assert all(answer.status == "accepted" and answer.effective for answer in answers)
        assert courses(await engine.types(one)) == ["paused", "resumed"] * 3 + ["paused"]

    await asyncio.gather(*map(one_row, ids))
    await both_had_a_part(engine, ids)


@rivals
@pytest.mark.usefixtures("slow")
async def test_a_cancel_right_after_the_start_comes_after_it(engine: Engine, raw: RawClient) -> None:
    """Whoever gets it: it is not taken for the cancel of something that does not exist."""
    ids = [f"e{number}" for number in range(TIMES)]
    for one in ids:
        await store(raw, one, "start", task="nobody_does_it")
        answer = await raw.answer_to(await store(raw, one, "cancel"))
        assert (answer.status, answer.effective) == ("accepted", True)
    for one in ids:
        assert (await engine.client.wait(one, wait_timeout=5)).status == "cancelled"
    await both_had_a_part(engine, ids)


@pytest.mark.parametrize("engine", ["one executor", "two executors"], indirect=True)
async def test_two_hundred_commands_at_once_are_all_answered_soon(engine: Engine, raw: RawClient) -> None:
    """Each waits for those before it, and the last has its answer within seconds all the same."""
    await raw.ask("e1", "start", task="nobody_does_it")
    verbs = ["pause", "checkpoint", "resume", "checkpoint"] * 50
    began = time.monotonic()
    asked = await asyncio.gather(*(raw.say("e1", verb) for verb in verbs))
    answers = [await raw.answer_to(one) for one in asked]
    assert time.monotonic() - began < 8
    assert all(answer.status == "accepted" and answer.effective for answer in answers)
    assert courses(await engine.types("e1")) == ["paused", "resumed"] * 50


@pytest.mark.usefixtures("short_ack_wait")
async def test_what_another_executor_left_undone_comes_first(
    engine: Engine, raw: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause is in the hands of an executor that dies: the resume waits until the server hands it to another one."""
    dies = engine.executors.pop()
    got = asyncio.Event()

    async def hangs(envelope: Any) -> None:
        got.set()

    await raw.ask("e1", "start", task="nobody_does_it")
    monkeypatch.setattr(dies._desk, "take", hangs)
    pause = await store(raw, "e1", "pause")
    await asyncio.wait_for(got.wait(), 5)
    await dies.stop(0.0)
    await engine.executor()
    resume = await store(raw, "e1", "resume")
    answers = [await raw.answer_to(pause), await raw.answer_to(resume)]
    assert [(answer.status, answer.effective) for answer in answers] == [("accepted", True)] * 2
    assert courses(await engine.types("e1")) == ["paused", "resumed"]


@pytest.mark.parametrize("engine", ["one executor", "two executors"], indirect=True)
async def test_many_who_ask_for_what_is_not_there_are_all_told_in_time(engine: Engine) -> None:
    """That a start may be on its way is waited for once, and not by each of those in line again."""
    asked = [engine.client.cancel("nobody") for _ in range(20)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(answer) for answer in answers} == {NotFound}
