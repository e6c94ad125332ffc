"""Statistics on a real server: what the client is told is what happened, for who has just waited for it too."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

import esexec
from esexec import Plan, Step, Unavailable, ValidationError
from esexec.nats.connection import Connection
from projections.asks import Ask
from tests.integration.engine import Engine


@esexec.task
async def brew(cups: int) -> int:
    await asyncio.sleep(0.06)
    return cups


@esexec.task(retry_delay="10ms", jitter=0)
async def serve(cups: int, ctx: esexec.Context) -> int:
    if ctx.attempt == 1:
        raise ConnectionError("the cup is hot")
    return cups


@esexec.task(max_retries=0)
async def spill() -> None:
    raise esexec.ExecutionError("oh", code="spilt", retry=False)


@brew.compensate
async def pour_away() -> None: ...


COFFEE = Plan("coffee", steps=[Step("brew", params={"cups": 2}), Step("serve", params={"cups": "${steps.brew.output}"})])
MESS = Plan("mess", steps=[Step("brew", params={"cups": 1}), Step("spill", depends_on=["brew"])])


@pytest.fixture
async def site(engine: Engine) -> Engine:
    await engine.worker(brew, serve, spill)
    return engine


async def test_figures_are_those_of_what_happened(site: Engine) -> None:
    """Counts, rates, times, retries, failures and rollbacks, of all and by plan; asked with `after`, the last one is in it."""
    await site.projector()
    client = site.client
    for _ in range(3):
        assert (await client.execute(COFFEE)).ok
    last = await client.execute(MESS)
    assert last.status == "rolled_back"

    stats = await client.stats(after=last.position, by="name")
    assert (stats.total, stats.by_status["completed"], stats.by_status["rolled_back"]) == (4, 3, 1)
    assert len(stats.by_status) == 7
    assert (stats.success_rate, stats.average_steps_per_execution, stats.retries) == (0.75, 2.0, 3)
    assert stats.average_execution_time_ms is not None and stats.average_execution_time_ms >= 60
    assert stats.p50_ms is not None and stats.p99_ms is not None and 55 <= stats.p50_ms <= stats.p99_ms
    assert stats.failures == {"spilt": 1}
    assert (stats.rollbacks.completed, stats.rollbacks.steps.undone) == (1, 1)
    assert stats.rollbacks.by_step["brew"].undone == 1
    assert stats.as_of.position >= last.position
    assert [(name, group.total) for name, group in stats.groups.items()] == [("coffee", 3), ("mess", 1)]
    assert (await client.stats(name="mess")).success_rate == 0.0
    assert (await client.stats(plan_id=COFFEE.id)).retries == 3


async def test_tasks_have_figures_of_their_own(site: Engine) -> None:
    """Of all tasks and of one; how fast it answers is told without the delays between its attempts."""
    await site.projector()
    last = await site.client.execute(COFFEE, retry_delay="300ms")
    tasks = await site.client.task_stats(after=last.position, by="name")
    assert (tasks.total, tasks.completed, tasks.failed, tasks.average_retries) == (2, 2, 0, 0.5)
    assert {name: group.retries for name, group in tasks.groups.items()} == {"brew": 0, "serve": 1}
    serving = await site.client.task_stats(name="serve")
    assert serving.p50_ms is not None and serving.answer_p50_ms is not None
    assert serving.answer_p50_ms < 290 <= serving.p50_ms


async def test_a_window_is_of_full_hours(site: Engine) -> None:
    """Who asks for the last minutes is told since when it is; the future holds nothing; a window must have a length."""
    await site.projector()
    client, now = site.client, datetime.now(UTC)
    last = await client.execute(COFFEE)
    stats = await client.stats(since=now - timedelta(minutes=1), after=last.position)
    assert stats.since is not None and stats.since.minute == 0 and stats.since <= now - timedelta(minutes=1)
    assert (stats.total, stats.until) == (1, None)
    assert (await client.stats(since=now + timedelta(hours=2))).total == 0
    assert [group.total for group in (await client.task_stats(by="day")).groups.values()] in ([2], [1, 1])
    with pytest.raises(ValidationError) as refused:
        await client.stats(since=now, until=now - timedelta(days=1))
    assert refused.value.code == "bad_window"


@pytest.mark.parametrize(
    "question",
    [
        {"by": "mood"},
        {"name": "coffee", "plan_id": "x"},
        {"name": "coffee", "by": "plan_id"},
        {"until": datetime.max.replace(tzinfo=UTC)},
        {"since": datetime.min.replace(tzinfo=UTC), "until": datetime.min.replace(tzinfo=UTC)},
        {"colour": "brown"},
    ],
)
async def test_questions_without_sense_are_refused(site: Engine, question: dict[str, Any]) -> None:
    """Each with a code, whoever finds out: the client, or who answers."""
    await site.projector()
    with pytest.raises(ValidationError) as refused:
        await site.client.stats(**question)
    assert refused.value.code in ("bad_condition", "bad_window")


async def test_nobody_answers_where_no_projections_run(engine: Engine) -> None:
    """And says what to start."""
    with pytest.raises(Unavailable, match="esexec projections"):
        await engine.client.stats()


async def test_any_language_can_ask(site: Engine, connection: Connection) -> None:
    """A request with JSON, an answer in JSON, on `esexec.<ns>.query.…`; an empty request asks for everything."""
    await site.projector()
    last = await site.client.execute(COFFEE)
    await site.client.queries.ask("stats", Ask(after=last.position), dict)
    told = msgspec.json.decode((await connection.request(site.subjects.query("stats"), b"", 5.0)).data)
    assert (told["total"], told["by_status"]["completed"], told["since"]) == (1, 1, None)
    past = await connection.request(site.subjects.query("durations"), b'{"plan_id":"%s"}' % COFFEE.id.encode(), 5.0)
    found = msgspec.json.decode(past.data)
    assert found["runs"] == 1
    assert found["steps"]["brew"] >= 60
    assert 0 < found["overhead_ms"] < 2000
    unknown = msgspec.json.decode((await connection.request(site.subjects.query("durations"), b'{"plan_id":"?"}', 5.0)).data)
    assert set(unknown["tasks"]) == {"brew", "serve"}
