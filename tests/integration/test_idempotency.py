"""Starting twice: by idempotency key, by execution id, by the very same message, by rivals at the same instant."""

import asyncio
from typing import Any

import msgspec
import pytest

import esexec
from esexec import Plan, Step
from esexec.domain import commands as c
from tests.integration.engine import KINDS, Engine
from tests.integration.raw import RawClient

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)

PLAN = Plan("order", steps=[Step("ship", id="ship", params={"order": "${input.order}"})])


# By key --------------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_key_gives_the_original_execution(engine: Engine) -> None:
    """F138: the second start with a key returns the first execution's id, whatever else it says."""
    first = await engine.client.start(PLAN, {"order": 1}, idempotency_key="order-17")
    again = await engine.client.start(PLAN, {"order": 1}, idempotency_key="order-17")
    other = await engine.client.start(PLAN, {"order": 2}, idempotency_key="order-17")
    assert first.id == again.id == other.id
    assert (first.duplicate, again.duplicate, other.duplicate) == (False, True, True)
    assert len(await engine.client.list_ids()) == 1
    assert (await first.snapshot()).idempotency_key == "order-17"


@everywhere
async def test_a_key_wins_over_an_execution_id_beside_it(engine: Engine) -> None:
    """F138: the key's execution is the original also where another `execution_id` is given; that id stays free."""
    first = await engine.client.start(PLAN, {"order": 1}, idempotency_key="k", execution_id="first")
    again = await engine.client.start(PLAN, {"order": 1}, idempotency_key="k", execution_id="second")
    assert (first.id, again.id) == ("first", "first")
    assert await engine.client.get("second") is None
    assert (await engine.client.start(PLAN, {"order": 2}, execution_id="second")).id == "second"


async def test_a_key_is_kept_after_the_execution_has_ended(engine: Engine) -> None:
    """For ever: also when the execution has long completed, and `run` then gives its output without running again."""
    calls: list[int] = []

    @esexec.task
    async def ship(order: int) -> int:
        calls.append(order)
        return order

    await engine.worker(ship)
    assert await engine.client.run(PLAN, {"order": 1}, wait_timeout=8, idempotency_key="k") == 1
    other_client = await engine.another_client()
    assert await other_client.run(PLAN, {"order": 2}, wait_timeout=8, idempotency_key="k") == 1
    assert (await other_client.execute("ship", {"order": 3}, wait_timeout=8, idempotency_key="k")).result == 1
    assert calls == [1]


async def test_a_key_outlives_every_executor(engine: Engine) -> None:
    """The binding stands in the log: a fresh executor with an empty cache knows it."""
    first = await engine.client.start(PLAN, {"order": 1}, idempotency_key="k")
    await engine.executors[0].stop()
    await engine.executor()
    assert (await engine.client.start(PLAN, {"order": 1}, idempotency_key="k")).id == first.id


@everywhere
async def test_keys_hold_for_a_raw_client_too(engine: Engine, raw: RawClient) -> None:
    """Whoever publishes JSON gets the same promise: the answer names the original."""
    first = await raw.ask("raw-1", "start", task="ship", input={"order": 1}, idempotency_key="raw")
    again = await raw.ask("raw-2", "start", task="ship", input={"order": 1}, idempotency_key="raw")
    assert (first.status, first.execution_id) == ("accepted", "raw-1")
    assert (again.status, again.original_id) == ("duplicate", "raw-1")
    assert (await engine.client.start("ship", {"order": 9}, idempotency_key="raw")).id == "raw-1"


@pytest.mark.parametrize("key", ["a.b > *", "schlüssel 🗝", "x" * 512, "\r\n", "a/b?c", " "])
async def test_any_text_is_a_key(engine: Engine, key: str) -> None:
    """A key is the caller's text: whatever stands in it, it never widens a subject."""
    first = await engine.client.start(PLAN, {"order": 1}, idempotency_key=key)
    assert (await engine.client.start(PLAN, {"order": 1}, idempotency_key=key)).id == first.id
    assert len(await engine.client.list_ids()) == 1


@pytest.mark.parametrize("engine", ["two executors", "two without cache"], indirect=True)
async def test_twenty_rivals_at_the_same_instant_get_one_execution(engine: Engine) -> None:
    """Twenty clients with connections of their own, two executors, one key: one execution, and it is there for all."""
    clients = [await engine.another_client() for _ in range(20)]

    async def start(client: esexec.Client, n: int) -> str:
        handle = await client.start(PLAN, {"order": n}, idempotency_key="rush")
        await handle.status()
        return handle.id

    ids = await asyncio.gather(*(start(client, n) for n, client in enumerate(clients)))
    assert len(set(ids)) == 1
    assert await engine.client.list_ids() == [ids[0]]


@pytest.mark.parametrize("engine", ["two executors"], indirect=True)
async def test_rivals_with_key_and_id_get_one_execution(engine: Engine) -> None:
    """As above, with an `execution_id` of its own beside each key, twice the same: still one execution."""
    clients = [await engine.another_client() for _ in range(10)]
    starts = (
        client.start(PLAN, {"order": 1}, idempotency_key="rush", execution_id=f"rival-{n % 5}")
        for n, client in enumerate(clients)
    )
    ids = {handle.id for handle in await asyncio.gather(*starts)}
    assert len(ids) == 1
    assert await engine.client.list_ids() == list(ids)


@everywhere
async def test_a_refused_start_binds_no_key(engine: Engine, raw: RawClient) -> None:
    """The key stays free when the start is refused: by its plan, or because the id is taken by something else."""
    circle = {
        "name": "p",
        "steps": [{"id": "a", "task": "t", "depends_on": ["b"]}, {"id": "b", "task": "t", "depends_on": ["a"]}],
    }
    refused = await raw.ask("bad-1", "start", plan=circle, idempotency_key="k")
    assert refused.status == "refused"
    assert refused.error is not None
    assert refused.error.code == "cycle"
    await engine.client.start(PLAN, {"order": 0}, execution_id="taken")
    with pytest.raises(esexec.Conflict):
        await engine.client.start(PLAN, {"order": 1}, execution_id="taken", idempotency_key="k")
    good = await engine.client.start(PLAN, {"order": 1}, idempotency_key="k")
    assert (good.id, good.duplicate) == (good.id, False)


@pytest.mark.parametrize("engine", ["one executor", "two executors"], indirect=True)
async def test_a_start_that_loses_its_id_to_a_rival_binds_no_key(engine: Engine, raw: RawClient) -> None:
    """Two starts for one id with different keys at the same instant: the loser's key is free for another execution."""
    for turn in range(10):
        ids = [await raw.say(f"id-{turn}", "start", task="ship", idempotency_key=f"{turn}-{key}") for key in "ab"]
        answers = [await raw.answer_to(one) for one in ids]
        assert sorted(answer.status for answer in answers) == ["accepted", "refused"]
        loser = "ab"[[answer.status for answer in answers].index("refused")]
        fresh = await engine.client.start("ship", idempotency_key=f"{turn}-{loser}")
        assert (fresh.id != f"id-{turn}", fresh.duplicate) == (True, False)
        again = await engine.client.start("ship", idempotency_key=f"{turn}-{loser}")
        assert again.id == fresh.id


# By id -----------------------------------------------------------------------------------------------------------------


@everywhere
async def test_an_id_twice_with_the_same_content_is_the_same_start(engine: Engine) -> None:
    """F139: a repeated start finds what is there, also after it has ended."""

    @esexec.task
    async def ship(order: int) -> int:
        return order

    first = await engine.client.start(PLAN, {"order": 1}, execution_id="o-1", priority=7)
    again = await engine.client.start(PLAN, {"order": 1}, execution_id="o-1", priority=7)
    assert (first.id, again.id, first.duplicate, again.duplicate) == ("o-1", "o-1", False, True)
    await engine.worker(ship)
    await first.wait(wait_timeout=8)
    assert await engine.client.run(PLAN, {"order": 1}, execution_id="o-1", priority=7, wait_timeout=8) == 1
    assert (await engine.types("o-1")).count("execution_created") == 1


@everywhere
@pytest.mark.parametrize(
    "changed",
    [
        {"input": {"order": 2}},
        {"what": "ship"},
        {"priority": 6},
        {"metadata": {"a": 1}},
        {"context": {"a": 1}},
        {"idempotency_key": "k"},
    ],
    ids=lambda changed: next(iter(changed)),
)
async def test_an_id_twice_with_other_content_is_a_conflict(engine: Engine, changed: dict[str, Any]) -> None:
    """A clear refusal, and the execution that is there is not touched."""
    await engine.client.start(PLAN, {"order": 1}, execution_id="o-1")
    before = await engine.client.history("o-1")
    options: dict[str, Any] = {"what": PLAN, "input": {"order": 1}, "execution_id": "o-1", **changed}
    with pytest.raises(esexec.Conflict) as raised:
        await engine.client.start(**options)
    assert (raised.value.code, "o-1" in str(raised.value), bool(raised.value.hint)) == ("conflict", True, True)
    assert await engine.client.history("o-1") == before


async def test_the_same_message_twice_is_one_start(engine: Engine, raw: RawClient) -> None:
    """The command's id names it: sent again it is answered again and applied once."""
    for _ in range(3):
        assert (await raw.ask("e-1", "start", id="cmd-1", task="ship")).status in ("accepted", "duplicate")
    assert [len(commit.commands) for commit in await engine.client.history("e-1")] == [1]


@pytest.mark.parametrize("engine", ["two executors"], indirect=True)
async def test_twenty_rivals_for_one_id_get_one_execution(engine: Engine) -> None:
    """Twenty clients start the same id with the same content: all are told the same; with different content one wins."""
    clients = [await engine.another_client() for _ in range(20)]
    same = await asyncio.gather(*(client.start(PLAN, {"order": 1}, execution_id="same") for client in clients))
    assert {handle.id for handle in same} == {"same"}
    different = await asyncio.gather(
        *(client.start(PLAN, {"order": n}, execution_id="different") for n, client in enumerate(clients)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, esexec.Handle) for one in different) == 1
    assert sum(isinstance(one, esexec.Conflict) for one in different) == 19


def test_a_start_is_closed_to_what_it_does_not_know() -> None:
    """What a client may say is a closed list: a typo in a field is refused, not ignored."""
    with pytest.raises(msgspec.ValidationError, match="idempotencyKey"):
        msgspec.json.decode(b'{"id":"a","task":"t","idempotencyKey":"k"}', type=c.StartExecution)
