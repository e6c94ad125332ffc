"""Plans, inputs, outputs and params that are too large for a message, against a real server."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from esexec import Client, Context, Plan, RecoveryAction, RecoveryContext, RecoveryResult, Step, recovery, task
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Commit
from esexec.domain.errors import Conflict, CorruptHistory, ExecutionError, PlanInvalid, Unavailable, ValidationError
from esexec.log.jetstream import JetStreamLog
from esexec.nats.connection import connect
from esexec.nats.direct import DirectReader, messages_in
from esexec.nats.objects import Objects, ref_of
from esexec.nats.publisher import Publisher
from esexec.nats.streams import delete_streams
from esexec.nats.subjects import Subjects
from esexec.tasks import outputs
from projections.memory import MemoryStore
from projections.role import Projector
from tests.integration.engine import Engine, until
from tests.integration.raw import RawClient

ROWS = [{"n": n, "text": "x" * 90} for n in range(4_000)]
"""More than `limits.output_bytes`, as JSON."""


@task
async def make_rows(count: int) -> dict[str, Any]:
    return {"rows": ROWS[:count], "name": "ada"}


@task
async def count_rows(rows: list[dict[str, Any]]) -> int:
    return len(rows)


@task(run_in="process")
def double_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return rows + rows


@task
async def greet(text: str) -> str:
    return text


@task
async def echo(value: Any) -> Any:
    return value


async def test_a_large_output_goes_through(engine: Engine) -> None:
    """An output of more than 256 KB comes to who waits for it, and to the next step, whole; the history holds its hash."""
    await engine.worker(make_rows, count_rows)
    plan = Plan(
        "p",
        [
            Step("make_rows", id="a", params={"count": 4_000}),
            Step("count_rows", id="b", params={"rows": "${steps.a.output.rows}"}),
        ],
    )
    result = await engine.execute(plan)
    assert result.unwrap() == 4_000
    assert result.step("a").output == {"rows": ROWS, "name": "ada"}
    completed = next(one for one in await engine.events(result.id) if isinstance(one, e.TaskCompleted))
    assert completed.output is None
    assert completed.output_object is not None
    assert completed.output_object.bytes > limits.output_bytes


async def test_a_large_input_and_what_is_within(engine: Engine) -> None:
    """An input of more than 256 KB is stored before the start is published; a step gets it whole, a part of it, or a text with a
    part of it."""
    await engine.worker(echo, greet)
    plan = Plan(
        "p",
        [
            Step("echo", id="all", params={"value": "${input}"}),
            Step("echo", id="part", params={"value": {"deep": ["${input.rows[3].n}"]}}),
            Step("greet", id="text", params={"text": "Hello ${input.name}, ${input.rows[3].n}!"}),
        ],
    )
    given = {"rows": ROWS, "name": "ada"}
    result = await engine.execute(plan, given)
    assert result.unwrap() == {"all": given, "part": {"deep": [3]}, "text": "Hello ada, 3!"}
    assert result.input == given
    created = (await engine.events(result.id))[0]
    assert created.input is None
    assert created.input_object is not None


async def test_a_large_plan(engine: Engine) -> None:
    """A plan of more than 256 KB runs, and whoever reads its history finds it whole."""
    await engine.worker(count_rows)
    plan = Plan("large", [Step("count_rows", id="a", params={"rows": ROWS})])
    result = await engine.execute(plan)
    assert result.unwrap() == len(ROWS)
    created = (await engine.events(result.id))[0]
    assert bytes(created.plan) == plan.graph.raw
    assert result.plan_id == created.plan_id == plan.graph.plan_id
    commits = await engine.client._log.load(result.id)
    assert all(len(one.data) < limits.commit_bytes for one in commits)


async def test_what_is_large_only_together(engine: Engine) -> None:
    """Outputs that fit into messages, and params that refer to all of them and do not: handed out as an object, and undone so."""
    undone: list[Any] = []

    @task(name="half", retry_delay="10ms")
    async def half(n: int) -> dict[str, Any]:
        return {"n": n, "rows": ROWS[:1_500]}

    @task(name="take", max_retries=0)
    async def take(one: Any, other: Any) -> dict[str, Any]:
        return {"sum": len(one["rows"]) + len(other["rows"])}

    @take.compensate
    async def give(ctx: Context, one: Any, other: Any, sum: int) -> None:
        undone.append((one["n"], other["n"], sum, ctx.output))

    @task(name="fails", max_retries=0)
    async def fails(sum: int) -> None:
        raise ExecutionError("no", retry=False)

    await engine.worker(half, take, fails)
    plan = Plan(
        "p",
        [
            Step("half", id="a", params={"n": 1}),
            Step("half", id="b", params={"n": 2}),
            Step("take", id="c", params={"one": "${steps.a.output}", "other": "${steps.b.output}"}),
            Step("fails", id="d", params={"sum": "${steps.c.output.sum}"}),
        ],
    )
    result = await engine.execute(plan, on_missing_compensation="skip")
    assert result.status == "rolled_back", result
    assert result.step("c").output == {"sum": 3_000}
    assert undone == [(1, 2, 3_000, {"sum": 3_000})]


async def test_a_large_output_is_undone(engine: Engine) -> None:
    """A compensation gets the fields of a large output, and all of it."""
    undone: list[Any] = []

    @task(name="build")
    async def build(rows: list[Any]) -> dict[str, Any]:
        return {"id": 7, "rows": rows}

    @build.compensate
    async def demolish(ctx: Context, id: int, rows: list[Any]) -> None:
        undone.append((id, len(rows), ctx.output["id"]))

    @task(name="fails", max_retries=0)
    async def fails() -> None:
        raise ExecutionError("no", retry=False)

    await engine.worker(build, fails)
    plan = Plan("p", [Step("build", id="a", params={"rows": "${input}"}), Step("fails", id="b", depends_on=["a"])])
    result = await engine.execute(plan, ROWS)
    assert result.status == "rolled_back", result
    assert undone == [(7, len(ROWS), 7)]


async def test_a_path_into_an_object_that_leads_nowhere(engine: Engine) -> None:
    """The attempt fails for good, with the same code as elsewhere."""
    await engine.worker(echo, greet)
    for step in (Step("echo", params={"value": "${input.nothing}"}), Step("greet", params={"text": "Hello ${input.nothing}"})):
        result = await engine.execute(Plan("p", [step]), {"rows": ROWS})
        assert result.status == "failed"
        assert result.error is not None
        assert (result.error.code, result.results[0].attempt) == ("reference_unresolved", 1)


async def test_a_retry_as_a_new_execution_takes_objects_along(engine: Engine) -> None:
    """The outputs that are kept, the input and the plan stay where they are."""
    fails = [True]

    @task(name="once", max_retries=0)
    async def once(rows: list[Any]) -> int:
        if fails:
            raise ExecutionError("not yet", retry=False)
        return len(rows)

    await engine.worker(make_rows, once)
    plan = Plan(
        "p",
        [
            Step("make_rows", id="a", params={"count": 4_000}),
            Step("once", id="b", params={"rows": "${steps.a.output.rows}"}, metadata={"about": "x" * 300_000}),
        ],
    )
    first = await engine.execute(plan, ROWS, enable_rollback=False)
    assert first.status == "failed"
    fails.clear()
    handle = await engine.client.retry(first.id, as_new=True)
    result = await handle.wait(wait_timeout=10)
    assert result.step("b").output == 4_000
    assert (result.forked_from, result.input) == (first.id, ROWS)
    created = (await engine.events(result.id))[0]
    assert list(created.kept_objects) == ["a"]


async def test_the_same_start_again(engine: Engine) -> None:
    """A start with large parts is recognised by their hashes; other content is a conflict."""
    await engine.worker(count_rows)
    first = await engine.client.start("count_rows", {"rows": ROWS}, execution_id="e1")
    assert await first.result() == len(ROWS)
    assert (await engine.client.start("count_rows", {"rows": ROWS}, execution_id="e1")).duplicate
    with pytest.raises(Conflict):
        await engine.client.start("count_rows", {"rows": ROWS[1:]}, execution_id="e1")
    one, other = [await engine.client.start("count_rows", {"rows": ROWS}, idempotency_key="k") for _ in range(2)]
    assert (other.id, other.duplicate) == (one.id, True)


async def test_what_is_too_large_is_refused_before_it_is_sent(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input or a plan beyond its limit raises a typed error that names it; an output fails its attempt. Nothing is stored."""
    await engine.worker(make_rows)
    monkeypatch.setattr(limits, "object_bytes", 300_000)
    monkeypatch.setattr(outputs, "OUTPUT", outputs.OUTPUT._replace(limit=300_000))
    with pytest.raises(ValidationError, match=r"input of .* too large") as refused:
        await engine.client.start("count_rows", {"rows": ROWS})
    assert (refused.value.code, "limits.object_bytes" in (refused.value.hint or "")) == ("too_large", True)
    with pytest.raises(PlanInvalid) as invalid:
        await engine.client.start(Plan("p", [Step("t", params={"x": "y" * limits.large_plan_bytes})]))
    assert (invalid.value.code, bool(invalid.value.hint)) == ("too_large", True)
    result = await engine.execute("make_rows", {"count": 4_000})
    assert result.error is not None
    assert (result.error.code, result.error.retryable, result.results[0].attempt) == ("output_too_large", False, 1)
    assert await objects_of(engine) == 0


async def objects_of(engine: Engine) -> int:
    """How many messages the bucket has."""
    async with await connect(engine.url, name="looks") as connection:
        return await messages_in(connection, engine.subjects.objects_stream)


async def test_a_large_output_of_a_handler_in_a_process(engine: Engine) -> None:
    """It goes the same way as one of a handler in the worker's own process, there and back."""
    await engine.worker(double_rows)
    result = await engine.execute("double_rows", {"rows": ROWS}, wait=30)
    assert result.unwrap() == ROWS + ROWS


async def test_the_same_again_is_stored_once(engine: Engine) -> None:
    """A value that is stored already is not stored a second time, whoever does it; one that somebody broke is stored anew."""
    await engine.worker(echo)
    assert len(await engine.client.run("echo", {"value": ROWS})) == len(ROWS)
    stored = await objects_of(engine)
    async with Client(engine.url, namespace=engine.namespace) as another:
        assert len(await another.run("echo", {"value": ROWS})) == len(ROWS)
    assert await objects_of(engine) == stored
    events = await engine.events((await engine.client.list_ids())[0])
    ref = next(one.output_object for one in events if isinstance(one, e.TaskCompleted))
    async with await connect(engine.url, name="forger") as forger:
        await (await forger.client.jetstream().object_store(engine.subjects.objects_bucket)).put(ref.sha256, b"[]")
    assert len(await engine.client.run("echo", {"value": ROWS})) == len(ROWS)
    assert await engine.client.open_object(ref) == ROWS


async def test_a_question_that_is_too_large_for_a_message(engine: Engine) -> None:
    """A recovery strategy is asked with the whole plan and state, however large they are."""
    asked: list[RecoveryContext] = []

    @recovery("NO")
    async def leave_out(ctx: RecoveryContext) -> RecoveryResult:
        asked.append(ctx)
        return RecoveryResult(True, RecoveryAction.SKIP)

    @task(name="fails", max_retries=0)
    async def fails() -> None:
        raise ExecutionError("no", code="NO", retry=False)

    await engine.worker(make_rows, fails, strategies=[leave_out])
    await engine.client.strategies.add(leave_out)
    await until(lambda: all(executor._desk.surroundings.strategies for executor in engine.executors))
    steps = [
        Step("make_rows", id="a", params={"count": 4_000}, metadata={"about": "x" * 1_200_000}),
        Step("fails", id="b", depends_on=["a"]),
    ]
    result = await engine.execute(Plan("p", steps))
    assert (result.status, result.step("b").skip_reason) == ("completed", "recovery")
    assert asked[0].plan.steps[0].metadata == {"about": "x" * 1_200_000}
    assert (asked[0].state.task_states["a"].status, asked[0].state.task_states["a"].output) == ("completed", None)


async def test_an_object_store_that_is_away_is_waited_for(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker goes on storing an output, an executor a dispatch's params, a worker asking for them: nothing fails for it."""
    await engine.worker(make_rows, count_rows, greet)
    failures: Counter[str] = Counter()

    def flaky(name: str) -> None:
        original = getattr(Objects, name)

        async def at_first_not(self: Objects, *arguments: Any) -> Any:
            failures[name] += 1
            if failures[name] == 1:
                raise Unavailable("the object store is away")
            return await original(self, *arguments)

        monkeypatch.setattr(Objects, name, at_first_not)

    flaky("put")
    flaky("get")
    plan = Plan(
        "p",
        [
            Step("make_rows", id="a", params={"count": 4_000}),
            Step("count_rows", id="b", params={"rows": "${steps.a.output.rows}"}),
            Step("greet", id="c", params={"text": "${steps.a.output.name}!"}),
        ],
    )
    assert (await engine.execute(plan)).unwrap() == {"b": 4_000, "c": "ada!"}
    assert all(count > 1 for count in failures.values())


# Histories ---------------------------------------------------------------------------------------------------------------


async def test_an_altered_or_missing_object_is_found(engine: Engine) -> None:
    """`verify` says which object is not what its hash says, or not there; who reads its value is told, and all others go on."""
    await engine.worker(make_rows, echo)
    assert (await engine.execute("make_rows", {"count": 4_000}, execution_id="e1")).ok
    assert (await engine.client.verify("e1")).ok
    completed = next(one for one in await engine.events("e1") if isinstance(one, e.TaskCompleted))
    assert completed.output_object is not None
    name = completed.output_object.sha256
    async with await connect(engine.url, name="forger") as forger:
        store = await forger.client.jetstream().object_store(engine.subjects.objects_bucket)
        good = (await store.get(name)).data
        assert msgspec.json.decode(good) == {"rows": ROWS, "name": "ada"}  # any client of JetStream's object store reads it
        await store.put(name, good.replace(b'"ada"', b'"eve"'))
        found = await engine.client.verify("e1")
        assert (found.ok, name in (found.problem or ""), found.commit) == (
            False,
            True,
            completed_in(await engine.client.history("e1")),
        )
        async with Client(engine.url, namespace=engine.namespace) as another:
            with pytest.raises(CorruptHistory) as altered:
                await another.get("e1")
            assert altered.value.code == "object_altered"
            await store.delete(name)
            with pytest.raises(CorruptHistory) as missing:
                await another.get("e1")
            assert missing.value.code == "object_missing"
            assert "missing" in ((await another.verify("e1")).problem or "")
            assert await another.run("echo", {"value": 1}) == 1
        await store.put(name, good)
    assert [one.ok async for one in engine.client.histories.verify_all(shared=False)] == [True, True]


def completed_in(history: list[Commit]) -> int:
    return next(commit.n for commit in history if any(isinstance(event, e.TaskCompleted) for event in commit.events))


async def test_a_plan_whose_object_is_gone_halts_its_execution_alone(engine: Engine) -> None:
    """Its history cannot be folded, and says why; put back, everything is there again."""
    await engine.worker(count_rows, echo)
    plan = Plan("large", [Step("count_rows", id="a", params={"rows": ROWS})])
    assert (await engine.execute(plan, execution_id="e1")).ok
    async with await connect(engine.url, name="forger") as forger:
        store = await forger.client.jetstream().object_store(engine.subjects.objects_bucket)
        name = ref_of(plan.graph.raw).sha256
        await store.delete(name)
        async with Client(engine.url, namespace=engine.namespace) as another:
            with pytest.raises(CorruptHistory, match="missing"):
                await another.get("e1")
            found = await another.verify("e1")
            assert (found.ok, found.commit) == (False, 1)
            assert await another.run("echo", {"value": 1}) == 1
            await store.put(name, plan.graph.raw)
            assert (await another.get_or_raise("e1")).result == len(ROWS)


async def test_pages_of_the_log_hold_so_many_plans_at_most(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the log has few large plans in memory at a time, misses nothing, and is held up by none that is gone."""
    engine.errors_expected = True  # of the one whose plan is gone
    await engine.worker(count_rows)
    plans = [Plan("large", [Step("count_rows", id="a", params={"rows": ROWS[number:]})]) for number in range(3)]
    ids = [(await engine.execute(plan)).id for plan in plans]
    monkeypatch.setattr("esexec.log.jetstream._PLANS_BYTES", 500_000)
    monkeypatch.setattr("projections.source._PLANS_BYTES", 500_000)
    async with await connect(engine.url, name="forger") as forger:
        store = await forger.client.jetstream().object_store(engine.subjects.objects_bucket)
        await store.delete(ref_of(plans[1].graph.raw).sha256)
        reader = await DirectReader(forger).start()
        log = JetStreamLog(forger, engine.subjects, await Publisher(forger).start(), reader)
        found, position = dict[str, int](), 0
        while page := await log.page(position, 1_000):
            assert sum(len(stored.plan) for _, stored in page) <= 500_000
            found |= {entity: len(stored.plan) for entity, stored in page if stored.n == 1 and entity in ids}
            position = page[-1][1].position
        assert [bool(found[one]) for one in ids] == [True, False, True]
        async with Projector(engine.url, namespace=engine.namespace, store=MemoryStore()):
            last = await engine.client.get_or_raise(ids[2])
            followed = await engine.client.executions.list(after=last.position)
            assert {one.execution_id for one in followed} >= {ids[0], ids[2]}
        await store.put(ref_of(plans[1].graph.raw).sha256, plans[1].graph.raw)


async def test_a_file_of_a_history_holds_its_objects(engine: Engine) -> None:
    """Exported and imported elsewhere it is whole, with plan, input and outputs; without an object it is refused."""
    await engine.worker(make_rows, count_rows)
    plan = Plan(
        "p",
        [
            Step("make_rows", id="a", params={"count": 4_000}),
            Step("count_rows", id="b", params={"rows": "${steps.a.output.rows}"}, metadata={"about": "x" * 300_000}),
        ],
    )
    original = await engine.execute(plan, ROWS, execution_id="e1")
    lines = await engine.client.histories.export("e1")
    assert sum(line.startswith(b'{"object":') for line in lines) == 3
    async with Client(engine.url, namespace=f"{engine.namespace}s") as scratch:
        for left_out in (line for line in lines if line.startswith(b'{"object":')):
            with pytest.raises(CorruptHistory):
                await scratch.histories.import_([line for line in lines if line != left_out])
            with pytest.raises(CorruptHistory):
                await scratch.histories.import_([line.replace(b'"data":"', b'"data":"AAAA') for line in lines])
        assert await scratch.list_ids() == []
        await scratch.histories.import_(lines)
        copy = await scratch.get_or_raise("e1")
        assert (copy.result, copy.input, copy.step("a").output) == (original.result, ROWS, original.step("a").output)
        assert (await scratch.verify("e1")).ok
        async with await connect(engine.url, name="cleaner") as connection:
            await delete_streams(connection, Subjects(f"{engine.namespace}s"))


# Kept plans, projections, bare clients -----------------------------------------------------------------------------------


async def test_a_large_plan_is_kept(engine: Engine) -> None:
    """The namespace keeps a plan of more than 256 KB; it is read again, and started by its id."""
    await engine.worker(count_rows)
    plan = Plan("large", [Step("count_rows", id="a", params={"rows": ROWS})])
    kept = await engine.client.plans.put(plan)
    assert (kept.status, kept.plan_id) == ("ready", plan.graph.plan_id)
    assert (await engine.client.plans.get(kept.plan_id)).document["steps"][0]["params"] == {"rows": ROWS}
    assert (await engine.execute(kept.plan_id)).unwrap() == len(ROWS)


async def test_projections_follow_executions_with_objects(engine: Engine) -> None:
    """Lists, events and statistics of an execution whose plan, input and outputs are objects, also for one that comes late."""
    await engine.worker(make_rows, count_rows)
    plan = Plan("large", [Step("make_rows", id="a", params={"count": 4_000}, metadata={"about": "x" * 300_000})])
    async with Projector(engine.url, namespace=engine.namespace, store=MemoryStore()):
        first = await engine.execute(plan, ROWS)
        page = await engine.client.executions.list(after=first.position)
        assert [(one.execution_id, one.status) for one in page] == [(first.id, "completed")]
    second = await engine.execute(plan, ROWS)
    async with Projector(engine.url, namespace=engine.namespace, store=MemoryStore()):
        page = await engine.client.executions.list(after=second.position)
        assert {(one.execution_id, one.total_steps) for one in page} == {(first.id, 1), (second.id, 1)}
        events = [one async for one in engine.client.events(since="beginning", follow=False, execution_id=first.id)]
        created = next(one for one in events if one.type == "execution.created")
        assert "plan_object" in created.data.data
        assert "plan" not in created.data.data


async def test_a_bare_client_and_a_bare_worker(engine: Engine, raw: RawClient) -> None:
    """Whoever speaks nothing but NATS puts an object, names it in a start or a report, and finds it named in a dispatch."""
    store = await raw.connection.client.jetstream().object_store(engine.subjects.objects_bucket)

    async def put(value: Any) -> dict[str, Any]:
        data = msgspec.json.encode(value)
        ref = ref_of(data)
        await store.put(ref.sha256, data)
        return {"sha256": ref.sha256, "bytes": ref.bytes}

    written = {
        "name": "p",
        "steps": [{"id": "a", "tool": "echo", "input": {"value": "${input.rows}"}}],
        "metadata": {"about": "x" * 300_000},
    }
    nowhere = {"sha256": "0" * 64, "bytes": 5}
    answer = await raw.ask("e1", "start", plan_object=nowhere)
    assert answer.error is not None and answer.error.code == "unknown_object"
    answer = await raw.ask("e1", "start", task="echo", input_object=nowhere)
    assert answer.error is not None and answer.error.code == "unknown_object"
    answer = await raw.ask("e1", "start", plan_object=await put(written), input_object=await put({"rows": ROWS}))
    assert answer.status == "accepted", answer
    dispatch = msgspec.json.decode((await raw.pull()).data)
    assert dispatch["params"] == {"value": None}
    part = dispatch["objects"][0]
    assert (part["at"], part["path"]) == (["params", "value"], ["rows"])
    assert msgspec.json.decode((await store.get(part["sha256"])).data)["rows"] == ROWS
    times = {"started_at": "2027-01-01T00:00:00Z", "ended_at": "2027-01-01T00:00:01Z"}
    report = {"type": "completed", "output_object": await put(ROWS), **times}
    await raw.report("e1", "a", data=report)
    assert (await engine.client.wait("e1")).unwrap() == ROWS
