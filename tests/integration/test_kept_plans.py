"""Plans that the namespace keeps, on a running engine: put, made from a query, listed, started by their ids, archived."""

import asyncio
from typing import Any

import pytest

import esexec
from esexec import ExecutionConfig, Plan, Step
from esexec.client.plans import Plans
from esexec.domain.kept_plans import PLANS_ENTITY, plan_entity
from tests.integration.engine import KINDS, Engine
from tests.integration.raw import RawClient

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)
GOOD = Plan("good", steps=[Step("double", params={"number": "${input}"})], description="as it was written first")
CYCLE = {"name": "round", "steps": [{"id": "a", "task": "t", "depends_on": ["a"]}]}
NOWHERE = "0" * 64


@esexec.task
async def double(number: int) -> int:
    return 2 * number


@everywhere
async def test_a_plan_is_kept_under_its_id(engine: Engine) -> None:
    """F058, F059: what was put is got, whoever asks; the id is the plan's own."""
    kept = await engine.client.plans.put(GOOD)
    assert (kept.plan_id, kept.request_id, kept.plan_request_id) == (GOOD.id,) * 3
    assert (kept.name, kept.status, kept.problem, kept.document) == ("good", "ready", None, GOOD.to_dict())
    assert kept.plan == GOOD
    other = await engine.another_client()
    assert await other.plans.get(GOOD.id) == kept
    assert [plan.plan_id for plan in await other.plans.list()] == [GOOD.id]
    for entity in (PLANS_ENTITY, plan_entity(GOOD.id)):
        assert (await engine.client.verify(entity)).ok


@everywhere
async def test_a_kept_plan_is_started_by_its_id(engine: Engine) -> None:
    """F072: `execute(plan_id)`, with what a start may say; the history holds the whole plan and explains itself."""
    await engine.worker(double)
    await engine.client.plans.put(GOOD)
    result = await engine.execute(GOOD.id, 21, config=ExecutionConfig(max_retries=1))
    assert (result.result, result.plan_id, result.name) == (42, GOOD.id, "good")
    handle = await engine.client.start(GOOD.id, 1, idempotency_key="k")
    assert await handle.result() == 2
    again = await engine.client.start(GOOD.id, 1, idempotency_key="k")
    assert (again.id, again.duplicate) == (handle.id, True)


@everywhere
async def test_only_what_is_ready_is_started(engine: Engine) -> None:
    """Unknown, draft, invalid, archived: refused by type, as soon as whoever changed it was told; ready again it starts again."""
    await engine.worker(double)
    with pytest.raises(esexec.NotFound) as raised:
        await engine.client.start(NOWHERE)
    assert (raised.value.code, bool(raised.value.hint)) == ("unknown_plan", True)
    invalid = await engine.client.plans.put(CYCLE)
    await engine.client.plans.put(GOOD, "draft")
    for plan_id, status in ((GOOD.id, "draft"), (invalid.plan_id, "invalid")):
        await refused(engine, plan_id, status)
    for _ in range(5):
        await engine.client.plans.mark(GOOD.id, "ready")
        assert await engine.client.run(GOOD.id, 2, wait_timeout=8) == 4
        assert await engine.client.plans.archive(GOOD.id) is True
        await refused(engine, GOOD.id, "archived")
    assert await engine.client.plans.archive(GOOD.id) is False


async def refused(engine: Engine, plan_id: str, status: str) -> None:
    with pytest.raises(esexec.Refused) as raised:
        await engine.client.start(plan_id)
    assert (raised.value.code, raised.value.context["status"]) == ("plan_not_ready", status)


async def test_a_start_repeated_after_its_plan_was_archived_is_still_the_same(engine: Engine) -> None:
    """What was started is not refused afterwards: the key gives the original execution, for ever."""
    await engine.worker(double)
    await engine.client.plans.put(GOOD)
    first = await engine.client.start(GOOD.id, 1, idempotency_key="k")
    other = await engine.client.start(GOOD.id, 1, execution_id="other")
    await engine.client.plans.archive(GOOD.id)
    second = await engine.client.start(GOOD.id, 1, idempotency_key="k")
    assert (second.id, second.duplicate) == (first.id, True)
    assert (await engine.client.start(GOOD.id, 1, execution_id="other")).id == other.id
    with pytest.raises(esexec.Refused):
        await engine.client.start(GOOD.id, 1, idempotency_key="another")


async def test_an_execution_stays_what_it_was_started_as(engine: Engine) -> None:
    """Archiving a plan touches no execution of it."""
    await engine.client.plans.put(GOOD)
    handle = await engine.client.start(GOOD.id, 4)
    await engine.client.plans.archive(GOOD.id)
    await engine.worker(double)
    assert await handle.result() == 8


@pytest.mark.parametrize("engine", ["two executors"], indirect=True)
async def test_rivals_put_the_same_plans(engine: Engine) -> None:
    """Ten clients put twenty plans at the same instant, over two executors: each is kept once, in one history."""
    plans = [Plan(f"p{number}", steps=[Step("double")]) for number in range(20)]
    clients = [await engine.another_client() for _ in range(10)]
    kept = await asyncio.gather(*(client.plans.put(plan) for client in clients for plan in plans))
    assert {plan.status for plan in kept} == {"ready"}
    listed = await engine.client.plans.list()
    assert sorted(plan.name for plan in listed) == sorted(plan.name for plan in plans)
    assert (await engine.client.verify(PLANS_ENTITY)).commits == 20


async def test_the_list_tells_what_is_kept(engine: Engine) -> None:
    """Oldest first, all or those of one status, without the documents."""
    await engine.client.plans.put(CYCLE)
    await engine.client.plans.put(GOOD)
    await engine.client.plans.put(Plan("later", steps=[Step("double")]), "draft")
    assert [(plan.name, plan.status) for plan in await engine.client.plans.list()] == [
        ("round", "invalid"), ("good", "ready"), ("later", "draft"),
    ]  # fmt: skip
    assert [plan.name for plan in await engine.client.plans.list("draft")] == ["later"]
    with pytest.raises(esexec.NotFound):
        await engine.client.plans.get(NOWHERE)


async def test_the_first_document_stands(engine: Engine) -> None:
    """Descriptions are no part of a plan's id: the same plan described otherwise is the one that is kept."""
    first = await engine.client.plans.put(GOOD)
    again = await engine.client.plans.put({**GOOD.to_dict(), "description": "other words"})
    assert again == first
    assert again.document["description"] == "as it was written first"


async def test_what_is_no_document_is_refused(engine: Engine) -> None:
    """Not kept, not even as invalid; the reason is said before anything is sent."""
    for wrong in ([1], "plan", None):
        with pytest.raises(esexec.ValidationError):
            await engine.client.plans.put(wrong)  # type: ignore[arg-type]
    for document in ({"name": "n", "steps": [], "x": 2**60}, {"name": "n", "x": object()}, {"x": "x" * 300_000}):
        with pytest.raises(esexec.ValidationError):
            await engine.client.plans.put(document)
    assert await engine.client.plans.list() == []
    with pytest.raises(esexec.NotFound):
        await engine.client.plans.archive("no id")


async def test_a_status_that_is_none_is_refused(engine: Engine) -> None:
    """Before anything is sent, with those there are: `invalid` is one to look for, not one to give."""
    plans: Any = engine.client.plans
    for call in (
        plans.put(GOOD, "frozen"), plans.put(GOOD, "invalid"), plans.mark(GOOD.id, "frozen"), plans.list("frozen"),
        plans.create("anything", plain, status="frozen"),
    ):  # fmt: skip
        with pytest.raises(esexec.ValidationError) as raised:
            await call
        assert (raised.value.code, "archived" in (raised.value.hint or "")) == ("bad_plan_status", True)
    assert await plans.list("invalid") == []


async def test_what_can_be_no_id_is_refused(engine: Engine) -> None:
    """What is no text is a mistake of the caller's, said before anything is asked; any text is only not found."""
    plans: Any = engine.client.plans
    for wrong in (5, None, b"x", ["x"]):
        for call in (plans.get(wrong), plans.mark(wrong, "ready"), plans.archive(wrong)):
            with pytest.raises(esexec.ValidationError) as raised:
                await call
            assert (raised.value.code, bool(raised.value.hint)) == ("bad_plan_id", True)
    with pytest.raises(esexec.ValidationError):
        await plans.create(5, plain)


# From a query ----------------------------------------------------------------------------------------------------------


def plain(query: str) -> Plan:
    return Plan(query, steps=[Step("double")])


async def late(query: str) -> dict[str, Any]:
    await asyncio.sleep(0)
    return plain(query).to_dict()


@pytest.mark.parametrize("planner", [plain, late], ids=["function", "coroutine"])
async def test_a_plan_is_made_from_a_query(engine: Engine, planner: Any) -> None:
    """F057: by whatever planner was given, to the call or to the client; kept with the query."""
    client = await engine.another_client(planner=planner)
    kept = await client.plans.create("make it good")
    assert (kept.name, kept.status, kept.query) == ("make it good", "ready", "make it good")
    draft = await engine.client.plans.create("later", planner, status="draft")
    assert (await client.plans.get(draft.plan_id)).status == "draft"


async def test_an_invalid_plan_of_a_planner_is_kept(engine: Engine) -> None:
    """With its problem, so that it can be seen what the planner made of the query."""
    kept = await engine.client.plans.create("go round", lambda query: CYCLE)
    assert (kept.status, kept.document, kept.plan) == ("invalid", CYCLE, None)
    assert kept.problem is not None
    assert (kept.problem.code, kept.query) == ("self_dependency", "go round")


def broken(query: str) -> Plan:
    raise RuntimeError("no answer from the model")


async def test_a_planner_that_fails_keeps_nothing(engine: Engine) -> None:
    """`planner_failed`, whether it throws or gives something else than a plan; and no planner is an error of the call."""
    for planner in (broken, lambda query: None, lambda query: "a plan"):
        with pytest.raises(esexec.ExecutionError) as raised:
            await engine.client.plans.create("anything", planner)  # type: ignore[arg-type]
        assert raised.value.code == "planner_failed"
    with pytest.raises(esexec.ValidationError) as wrong:
        await engine.client.plans.create("anything")
    assert wrong.value.code == "no_planner"
    with pytest.raises(esexec.ValidationError):
        await engine.client.plans.create("x" * 10_001, plain)
    assert await engine.client.plans.list() == []


# Bare messages -----------------------------------------------------------------------------------------------------------


async def test_any_language_can_keep_and_start_plans(engine: Engine, raw: RawClient) -> None:
    """`cmd._plans.put_plan` and a start with `plan_id`: bare messages, an answer to each."""
    answer = await raw.ask(PLANS_ENTITY, "put_plan", plan=GOOD.to_dict())
    assert (answer.status, answer.effective) == ("accepted", True)
    assert (answer.plan_id, answer.plan_status) == (GOOD.id, "ready")
    answer = await raw.ask(PLANS_ENTITY, "put_plan", plan=GOOD.to_dict(), status="draft")
    assert (answer.status, answer.effective) == ("accepted", True)
    answer = await raw.ask(PLANS_ENTITY, "put_plan", plan=GOOD.to_dict(), status="draft")
    assert (answer.effective, answer.plan_id, answer.plan_status) == (False, GOOD.id, "draft")
    answer = await raw.ask(PLANS_ENTITY, "put_plan", plan=CYCLE)
    assert (answer.status, answer.plan_status) == ("accepted", "invalid")
    answer = await raw.ask("e1", "start", plan_id=GOOD.id)
    assert answer.error is not None and answer.error.code == "plan_not_ready"
    answer = await raw.ask(PLANS_ENTITY, "put_plan", plan_id=GOOD.id)
    assert (answer.status, answer.effective) == ("accepted", True)
    answer = await raw.ask("e1", "start", plan_id=GOOD.id)
    assert answer.status == "accepted"
    assert (await engine.client.get_or_raise("e1")).plan_id == GOOD.id


@pytest.mark.parametrize(
    ("entity", "verb", "body", "code"),
    [
        ("e1", "put_plan", {"plan": {}}, "wrong_entity"),
        ("_settings", "put_plan", {"plan": {}}, "wrong_entity"),
        ("_plans", "configure", {"config": {}}, "wrong_entity"),
        ("_plans", "start", {"task": "t"}, "wrong_entity"),
        ("_settings", "pause", {}, "wrong_entity"),
        ("e1", "add_strategy", {"strategy": {"id": "s"}}, "wrong_entity"),
        ("_plan-0123", "put_plan", {"plan": {}}, "bad_execution_id"),
        ("_plans", "put_plan", {}, "plan_or_plan_id"),
        ("_plans", "put_plan", {"plan": [1]}, "invalid_value"),
        ("_plans", "put_plan", {"plan": {}, "plan_id": NOWHERE}, "plan_or_plan_id"),
        ("_plans", "put_plan", {"plan_id": NOWHERE}, "unknown_plan"),
        ("_plans", "put_plan", {"plan": {}, "status": "invalid"}, "undecodable"),
        ("_plans", "put_plan", {"plan": {"name": "n", "x": [[]] * 50 + [eval("[" * 150 + "]" * 150)]}}, "too_deep"),
        ("_settings", "add_strategy", {"strategy": {"id": "a b"}}, "bad_strategy_id"),
        ("_settings", "add_strategy", {"strategy": {"id": "s", "more": 1}}, "undecodable"),
        ("e1", "start", {"task": "t", "kept": {"s": "x" * 270_000}}, "too_large"),
        ("e1", "start", {"task": "t", "kept": {"s": eval("[" * 150 + "]" * 150)}}, "too_deep"),
        ("_pools", "release", {}, "missing"),
        ("_pools", "release", {"resource_ids": []}, "missing"),
        ("e1", "checkpoint", {"metadata": {"s": "x" * 270_000}}, "too_large"),
        ("e1", "checkpoint", {"metadata": {"s": eval("[" * 150 + "]" * 150)}}, "too_deep"),
    ],
)
async def test_wrong_messages_are_answered(engine: Engine, raw: RawClient, entity: str, verb: str, body: Any, code: str) -> None:
    """With a code and a hint; nothing is kept, nothing is started."""
    answer = await raw.ask(entity, verb, **body)
    assert answer.status == "refused"
    assert answer.error is not None
    assert (answer.error.code, bool(answer.error.message), bool(answer.error.hint)) == (code, True, True)
    assert await engine.client.list_ids(shared=True) == []


async def test_plans_of_a_client_can_be_asked_side_by_side(engine: Engine) -> None:
    """Calls of one client at the same time do not disturb each other's reading of the list."""
    plans: Plans = engine.client.plans
    names = [f"p{number}" for number in range(15)]
    await asyncio.gather(*(plans.put(plain(name)) for name in names), *(plans.list() for _ in names))
    assert sorted(plan.name for plan in await plans.list()) == sorted(names)
