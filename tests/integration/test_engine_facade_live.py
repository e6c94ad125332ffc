"""The facade on a running engine: every verb does there what its name says."""

import asyncio
from typing import Any

import pytest

import esexec
from esexec import ExecutionStatus, Plan, RecoveryAction, RecoveryContext, RecoveryResult, Step
from tests.integration.engine import QUICK, Engine


@esexec.task
async def create(name: str) -> dict[str, str]:
    return {"id": f"{name}-1"}


@create.compensate
async def drop(id: str) -> None: ...


@esexec.task
def fails_in_its_first_run(ctx: esexec.Context) -> int:
    if ctx.run == 1:
        raise esexec.ExecutionError("not yet", code="NOT_YET", retry=False)
    return ctx.run


TWO = Plan(
    "two", steps=[Step(create, id="a", params={"name": "${input.name}"}), Step(fails_in_its_first_run, id="b", depends_on=["a"])]
)


async def test_a_life_by_the_verbs_of_the_facade(engine: Engine) -> None:
    """Execute, look, retry, go back, undo: all on an engine that connects itself."""
    await engine.worker(create, fails_in_its_first_run)
    async with esexec.Engine(engine.url, namespace=engine.namespace) as facade:
        failed = await facade.execute(TWO, {"name": "x"}, enable_rollback=False, wait_timeout=10)
        assert failed.status == await facade.get_status(failed.id) == ExecutionStatus.FAILED
        assert failed == await facade.get_result(failed.id)
        assert await facade.get_result("nobody") is None
        assert [undo.step for undo in await facade.rollback_plan(failed.id)] == ["a"]
        handle = await facade.retry(failed.id)
        assert await handle.result(wait_timeout=10) == 2
        assert [update.status async for update in facade.monitor(failed.id)][-1] == ExecutionStatus.COMPLETED
        undone = await (await facade.rollback(failed.id, "no need")).wait(wait_timeout=10)
        assert undone.status == ExecutionStatus.ROLLED_BACK
    with pytest.raises(esexec.EsexecError):
        await facade.get_status(failed.id)


async def test_pause_checkpoint_resume_restore_cancel(engine: Engine) -> None:
    """The controls of an execution that runs."""
    release = asyncio.Event()

    @esexec.task
    async def hold(ctx: esexec.Context) -> int:
        await release.wait()
        return ctx.run

    await engine.worker(hold)
    facade = esexec.Engine.of(engine.client)
    handle = await facade.run_async(hold)
    assert await facade.pause(handle.id, "wait")
    checkpoint = await facade.create_checkpoint(handle.id, {"why": "before"})
    assert (checkpoint.execution_id, checkpoint.metadata) == (handle.id, {"why": "before"})
    assert await facade.resume(handle.id)
    restored = await facade.restore_from_checkpoint(checkpoint.id)
    release.set()
    assert await restored.result(wait_timeout=10) == 2
    release.clear()
    other = await facade.start(hold)
    assert await facade.cancel(other.id, reason="enough")
    assert (await other.wait(wait_timeout=10)).status == ExecutionStatus.CANCELLED


async def test_strategies_and_settings_of_the_namespace(engine: Engine) -> None:
    """What is added, removed and configured by the facade is the namespace's."""

    @esexec.recovery("NOT_YET", id="skip")
    async def skip(ctx: RecoveryContext) -> RecoveryResult:
        return RecoveryResult(True, RecoveryAction.SKIP)

    await engine.worker(fails_in_its_first_run, strategies=[skip])
    facade = esexec.Engine(client=engine.client)
    await facade.configure(max_retries=7)
    assert (await engine.client.configuration()).max_retries == 7
    assert await facade.add_recovery_strategy(skip) == "skip"
    assert [one.id for one in await engine.client.strategies.list()] == ["skip"]
    assert await facade.remove_recovery_strategy("skip")
    assert not await facade.remove_recovery_strategy("skip")
    with pytest.raises(esexec.ExecutionError, match="not yet"):
        await facade.run(fails_in_its_first_run, wait_timeout=10)


async def test_a_client_that_is_given_stays_open(engine: Engine) -> None:
    """An engine closes what it opened, and nothing else."""
    await engine.worker(create)
    async with esexec.Engine.of(engine.client) as facade:
        assert await facade.run(create, {"name": "x"}, wait_timeout=10) == {"id": "x-1"}
    assert await engine.client.run(create, {"name": "y"}, wait_timeout=10) == {"id": "y-1"}


class Facilities(esexec.Engine):
    """An engine with a verb of its own."""

    def __init__(self, url: str, *, region: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.region = region

    async def create_facility(self, name: str) -> Any:
        return await self.run(create, {"name": f"{self.region}-{name}"}, wait_timeout=10, **QUICK)


async def test_a_subclass_adds_verbs(engine: Engine) -> None:
    """Its constructor may want more; what `async with` gives is the subclass."""
    await engine.worker(create)
    async with Facilities(engine.url, region="north", namespace=engine.namespace) as facilities:
        assert await facilities.create_facility("a") == {"id": "north-a-1"}
