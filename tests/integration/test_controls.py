"""The client's verbs on an execution that exists: pause, resume, retry, rollback, checkpoints; and what a start says of time."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import esexec
from esexec import Conflict, ExecutionStatus, NotFound, Plan, Refused, Step, ValidationError
from tests.integration.engine import KINDS, Engine, until

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)
WAIT_S = 8.0


class Bench:
    """A plan of three steps: `first` and `last` only note that they ran; `middle` does as it is told."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()

        @esexec.task(name="note", max_retries=0)
        async def note(what: str) -> dict[str, str]:
            self.ran.append(what)
            return {"what": what}

        @esexec.task(name="work", max_retries=0)
        async def work(ctx: esexec.Context) -> str:
            self.ran.append("middle")
            await self.gate.wait()
            if self.fails:
                raise esexec.ExecutionError("it is broken", code="BROKEN", retry=False)
            return f"run {ctx.run}"

        @esexec.task(name="undo")
        async def undo(what: str) -> None:
            self.ran.append(f"undo {what}")

        self.tasks = [note, work, undo]

    def plan(self, **settings: Any) -> Plan:
        return Plan(
            "bench",
            steps=[
                Step("note", id="first", params={"what": "first"}, compensate="undo"),
                Step("work", id="middle", depends_on=["first"]),
                Step("note", id="last", params={"what": "last"}, depends_on=["middle"], compensate="undo"),
            ],
            **settings,
        )


@pytest.fixture
async def bench(engine: Engine) -> Bench:
    bench = Bench()
    await engine.worker(*bench.tasks)
    return bench


def refused(code: str) -> Any:
    return pytest.raises(Refused, match=rf"^\[{code}\]")


# Pause -----------------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_pause_holds_what_has_not_begun(engine: Engine, bench: Bench) -> None:
    """What runs ends and is recorded, nothing new begins until it is resumed; doing either twice changes nothing."""
    bench.gate.clear()
    handle = await engine.client.start(bench.plan())
    await until(lambda: "middle" in bench.ran)
    assert await handle.pause("lunch") is True
    assert await engine.client.pause(handle.id) is False
    bench.gate.set()

    async def middle_ended() -> bool:
        return (await handle.snapshot()).step("middle").status == "completed"

    await until(middle_ended)
    shown = await handle.snapshot()
    assert (shown.status, shown.pause_reason, shown.step("last").status) == (ExecutionStatus.PAUSED, "lunch", "pending")
    assert "last" not in bench.ran
    assert await handle.resume() is True
    assert (await handle.wait(wait_timeout=WAIT_S)).status == "completed"
    assert bench.ran == ["first", "middle", "last"]
    with refused("ended"):
        await handle.resume()
    with refused("ended"):
        await handle.pause()


async def test_verbs_for_nobody(engine: Engine) -> None:
    """An unknown execution is not found, whatever is asked of it; an id that cannot be is refused before it is sent."""
    client = engine.client
    for verb in (client.pause, client.resume, client.retry, client.rollback, client.rollback_plan, client.checkpoints.create):
        with pytest.raises(NotFound):
            await verb("nobody")
        with pytest.raises(ValidationError):
            await verb("no.body")


# Retry -----------------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_retry_keeps_what_completed(engine: Engine, bench: Bench) -> None:
    """A failed execution runs again as its second run; whoever waits then waits for the new end."""
    bench.fails = True
    result = await engine.execute(bench.plan(enable_rollback=False))
    assert (result.status, bench.ran) == ("failed", ["first", "middle"])
    bench.fails = False
    handle = await engine.client.retry(result.id)
    again = await handle.wait(wait_timeout=WAIT_S)
    assert (again.id, again.status, again.run, again.step("middle").output) == (result.id, "completed", 2, "run 2")
    assert bench.ran == ["first", "middle", "middle", "last"]
    with refused("nothing_to_retry"):
        await handle.retry()


async def test_what_cannot_be_retried(engine: Engine, bench: Bench) -> None:
    """What runs has not ended; a step that did not fail, or does not exist, is named in the refusal."""
    bench.gate.clear()
    handle = await engine.client.start(bench.plan(enable_rollback=False))
    with refused("not_ended"):
        await handle.retry()
    with refused("not_ended"):
        await handle.rollback()
    bench.fails = True
    bench.gate.set()
    await handle.wait(wait_timeout=WAIT_S)
    with refused("unknown_step"):
        await engine.client.tasks.retry(handle.id, "midle")
    with refused("nothing_to_retry"):
        await engine.client.tasks.retry(handle.id, "first")
    bench.fails = False
    await engine.client.tasks.retry(handle.id, "middle")
    assert (await handle.wait(wait_timeout=WAIT_S)).status == "completed"


@everywhere
async def test_a_retry_as_new_leaves_the_old_one(engine: Engine, bench: Bench) -> None:
    """A fork carries on with what the first completed, under its own id; the first stays as it is."""
    bench.fails = True
    result = await engine.execute(bench.plan(enable_rollback=False))
    bench.fails = False
    handle = await engine.client.executions.retry(result.id, new_id=f"{result.id[:20]}-again")
    assert handle.id == f"{result.id[:20]}-again"
    forked = await handle.wait(wait_timeout=WAIT_S)
    assert (forked.status, forked.forked_from, forked.run) == ("completed", result.id, 1)
    assert forked.partial_results["first"] == {"what": "first"}
    assert bench.ran == ["first", "middle", "middle", "last"]
    assert (await engine.client.get_or_raise(result.id)).status == "failed"
    unnamed = await engine.client.retry(result.id, as_new=True)
    assert (await unnamed.wait(wait_timeout=WAIT_S)).forked_from == result.id


async def test_a_fork_does_not_take_a_name(engine: Engine, bench: Bench) -> None:
    """A new id that belongs to another execution is a conflict; that one is not touched."""
    bench.fails = True
    result = await engine.execute(bench.plan(enable_rollback=False))
    other = await engine.execute("note", {"what": "other"})
    with pytest.raises(Conflict):
        await engine.client.retry(result.id, new_id=other.id)
    assert (await engine.client.get_or_raise(other.id)).output == {"what": "other"}


# Rollback --------------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_rollback_on_command(engine: Engine, bench: Bench) -> None:
    """What completed is undone last to first, as the plan of the rollback had said; afterwards there is nothing left to undo."""
    result = await engine.execute(bench.plan())
    plan = await engine.client.rollback_plan(result.id)
    assert [(undo.step, undo.task, undo.reason) for undo in plan] == [
        ("last", "undo", None),
        ("middle", None, "no_compensation"),
        ("first", "undo", None),
    ]
    assert plan[0].params == {"what": "last"}
    handle = await engine.client.rollback(result.id, "wrong city")
    undone = await handle.wait(wait_timeout=WAIT_S)
    assert (undone.status, undone.rollback_status) == ("rolled_back", "completed")
    assert bench.ran == ["first", "middle", "last", "undo last", "undo first"]
    assert {task.task_id: task.compensation for task in undone.results} == {
        "first": "completed",
        "middle": "skipped",
        "last": "completed",
    }
    with pytest.raises(esexec.ExecutionError, match="rolled_back"):
        await handle.result()
    with refused("nothing_to_compensate"):
        await handle.rollback()


async def test_a_failure_that_is_rolled_back_raises_its_error(engine: Engine, bench: Bench) -> None:
    """By default a failure undoes what completed; the original error is raised; a retry then runs all steps again."""
    bench.fails = True
    handle = await engine.client.start(bench.plan())
    with pytest.raises(esexec.ExecutionError, match="BROKEN"):
        await handle.result(wait_timeout=WAIT_S)
    assert (await handle.snapshot()).status == "rolled_back"
    assert bench.ran == ["first", "middle", "undo first"]
    bench.fails = False
    await handle.retry()
    assert (await handle.wait(wait_timeout=WAIT_S)).status == "completed"
    assert bench.ran[3:] == ["first", "middle", "last"]


# Checkpoints -----------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_checkpoint_and_back(engine: Engine, bench: Bench) -> None:
    """A checkpoint knows the state it was made in; restored, what completed since runs again."""
    bench.gate.clear()
    handle = await engine.client.start(bench.plan())
    await until(lambda: "middle" in bench.ran)
    made = await handle.checkpoint({"why": "before"})
    assert (made.execution_id, made.by, made.metadata) == (handle.id, "command", {"why": "before"})
    assert made.id == f"{handle.id}.{made.version}"
    assert made.state is not None
    assert (made.state.completed_tasks, made.state.current_task_id) == (["first"], "middle")
    bench.gate.set()
    assert (await handle.wait(wait_timeout=WAIT_S)).checkpoints == [made.id]

    found = await engine.client.checkpoints.get(made.id)
    assert found == made
    (listed,) = await engine.client.checkpoints.list(handle.id)
    assert (listed.id, listed.hash, listed.state) == (made.id, made.hash, None)
    history = await engine.client.history(handle.id)
    assert history[made.n].prev == made.hash

    restored = await engine.client.checkpoints.restore(made.id, "once more")
    again = await restored.wait(wait_timeout=WAIT_S)
    assert (again.id, again.run, again.status) == (handle.id, 2, "completed")
    assert bench.ran == ["first", "middle", "last", "middle", "last"]


async def test_checkpoints_that_are_not_there(engine: Engine, bench: Bench) -> None:
    """An unknown checkpoint is not found; an id that names none is refused at once; an ended execution makes none."""
    result = await engine.execute(bench.plan())
    checkpoints = engine.client.checkpoints
    assert await checkpoints.list(result.id) == []
    with pytest.raises(NotFound, match="unknown_checkpoint"):
        await checkpoints.get(f"{result.id}.3")
    with refused("unknown_checkpoint"):
        await checkpoints.restore(f"{result.id}.3")
    with pytest.raises(NotFound):
        await checkpoints.list("nobody")
    for wrong in ("nothing", f"{result.id}.", f"{result.id}.x", "a.b.3", f"{result.id}.-1"):
        with pytest.raises(ValidationError):
            await checkpoints.get(wrong)
    with refused("ended"):
        await checkpoints.create(result.id)


async def test_many_checkpoints_at_once(engine: Engine, bench: Bench) -> None:
    """Checkpoints that are made in the same moment each give the one that was asked for."""
    bench.gate.clear()
    handle = await engine.client.start(bench.plan())
    made = await asyncio.gather(*(handle.checkpoint({"number": number}) for number in range(20)))
    assert [one.metadata["number"] for one in made] == list(range(20))
    assert sorted(one.id for one in made) == sorted((await handle.snapshot()).checkpoints)
    bench.gate.set()
    await handle.wait(wait_timeout=WAIT_S)


# Time ------------------------------------------------------------------------------------------------------------------


async def test_a_start_for_later(engine: Engine, bench: Bench) -> None:
    """Until its time it is pending and shown as scheduled; then it runs."""
    due = datetime.now(UTC) + timedelta(seconds=1)
    handle = await engine.client.start(bench.plan(), start_at=due)
    shown = await handle.snapshot()
    assert (shown.status, shown.current_phase, shown.start_at) == ("pending", "scheduled", due)
    result = await handle.wait(wait_timeout=WAIT_S)
    assert result.status == "completed"
    assert result.started_at is not None
    assert result.started_at >= due


async def test_a_deadline_ends_it(engine: Engine, bench: Bench) -> None:
    """An execution that has not ended by its deadline fails, and what runs is stopped."""
    bench.gate.clear()
    result = await engine.execute(bench.plan(enable_rollback=False), deadline="1s")
    assert (result.status, result.error.code, result.error.type) == ("failed", "execution_timeout", "timeout_error")
    with pytest.raises(esexec.TaskTimeout):
        result.unwrap()


async def test_a_nested_execution_is_its_parents(engine: Engine, bench: Bench) -> None:
    """What a handler starts names the step it is of, and has no more time than that."""

    @esexec.task(timeout=60)
    async def nest() -> str:
        return (await engine.client.execute("note", {"what": "child"})).id

    await engine.worker(nest, queues={"nests": 1})
    parent = await engine.execute(nest, deadline="1h", queue="nests")
    child = await engine.client.get_or_raise(parent.output)
    assert child.parent == f"{parent.id}/nest"
    assert child.deadline is not None
    assert child.deadline < datetime.now(UTC) + timedelta(seconds=61)
