"""Processes that die in the middle of a pause, a retry, a rollback, a recovery, a restore, at the passing of a time.

Of every kind of decision the executor dies before the first of its effects, between them, and when all of them stand: what was
decided is carried out all the same, once. Workers die in an undoing, in a strategy, and around the storing of a before-image.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import esexec
from esexec import Plan, Step
from esexec.world import new_id
from tests.chaos.handlers import STRATEGIES
from tests.chaos.rig import Rig, tail, until
from tests.chaos.test_deaths import LEASE_S, dead, settled
from tests.server import NatsServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

WHERE = ("0", "1", "last")
FEW = ("0", "last")
"""Where there is one effect, or it is the same as elsewhere."""
SOON: dict[str, Any] = {"initial_retry_delay": 0.05, "max_retries": 6}
WAIT_S = 25.0

Scenario = Callable[[esexec.Client, Rig, Path], Awaitable[tuple[str, str]]]
"""Gives the execution and how it must end."""


@pytest.fixture
async def rig(own_server: NatsServer, tmp_path: Path) -> AsyncIterator[Rig]:
    """What an executor did not let go comes again after a second."""
    rig = Rig(tmp_path, own_server)
    await rig.make_streams(ack_wait_ms=1000)
    yield rig
    rig.close()


def row(*steps: dict[str, Any], **settings: Any) -> Plan:
    """Steps in a row, each with these params; `fallback` and the like are the step's."""
    made = []
    for number, params in enumerate(steps):
        of_step = {name: params[name] for name in ("fallback", "queue", "queue_timeout") if name in params}
        own = {name: value for name, value in params.items() if name not in of_step}
        made.append(Step("make", id=f"s{number}", params=own, depends_on=[f"s{number - 1}"] if number else [], **of_step))
    return Plan("row", made, **settings)


def begun(rig: Rig, execution_id: str, step: str, run: int = 1) -> Callable[[], bool]:
    return lambda: any((note["execution"], note["step"], note["run"]) == (execution_id, step, run) for note in rig.notes("begin"))


async def ended(client: esexec.Client, execution_id: str, *wanted: str) -> str:
    result = await client.wait(execution_id, wait_timeout=WAIT_S)
    assert result.status in wanted, (execution_id, result)
    return result.status.value


# What happens --------------------------------------------------------------------------------------------------------------


async def rolls_back(client: esexec.Client, rig: Rig, files: Path) -> tuple[str, str]:
    plan = row({"image": True}, {"image": True}, {}, {"hopeless": True})
    return (await client.start(plan, **SOON)).id, "rolled_back"


async def is_rolled_back(client: esexec.Client, rig: Rig, files: Path) -> tuple[str, str]:
    handle = await client.start(row({}, {}, {}), **SOON)
    await ended(client, handle.id, "completed")
    await client.rollback(handle.id)
    return handle.id, "rolled_back"


def recovers(verb: str, end: str, **more: Any) -> Scenario:
    async def scenario(client: esexec.Client, rig: Rig, files: Path) -> tuple[str, str]:
        plan = row({}, {"advise": verb, **more}, {})
        return (await client.start(plan, checkpoint_every="task", **SOON)).id, end

    scenario.__name__ = f"recovers_by_{verb}"
    return scenario


async def is_restored(client: esexec.Client, rig: Rig, files: Path) -> tuple[str, str]:
    """While one step runs and two wait behind it."""
    plan = Plan(
        "fan",
        [Step("make", id="s0"), *(Step("make", id=f"s{n}", params={"ms": 1500}, depends_on=["s0"]) for n in (1, 2, 3))],
        parallel=True,
        checkpoint_every="task",
    )
    handle = await client.start(plan, **SOON)
    await until("s1 has begun", begun(rig, handle.id, "s1"), WAIT_S)
    checkpoints = await client.checkpoints.list(handle.id)
    await client.checkpoints.restore(checkpoints[0].id)
    return handle.id, "completed"


async def is_paused(client: esexec.Client, rig: Rig, files: Path) -> tuple[str, str]:
    """While two steps run and six wait for a slot; resumed later."""
    plan = Plan("fan", [Step("make", id=f"s{n}", params={"ms": 300}) for n in range(8)], parallel=True)
    handle = await client.start(plan, **SOON)
    await until("two have begun", lambda: begun(rig, handle.id, "s0")() and begun(rig, handle.id, "s1")(), WAIT_S)
    await client.pause(handle.id)

    async def at_rest() -> bool:
        shown = await client.get_or_raise(handle.id)
        return shown.paused and all(task.status != "running" for task in shown.results)

    await until("nothing runs any more", at_rest, WAIT_S)
    await client.resume(handle.id)
    return handle.id, "completed"


async def is_retried(client: esexec.Client, rig: Rig, files: Path) -> tuple[str, str]:
    file = files / f"retry-{new_id()}"
    handle = await client.start(row({}, {"until": str(file)}, {}, enable_rollback=False), **SOON)
    await ended(client, handle.id, "failed")
    file.touch()
    await client.retry(handle.id)
    return handle.id, "completed"


async def is_forked(client: esexec.Client, rig: Rig, files: Path) -> tuple[str, str]:
    file = files / f"fork-{new_id()}"
    handle = await client.start(row({}, {"until": str(file)}, {}, enable_rollback=False), **SOON)
    await ended(client, handle.id, "failed")
    file.touch()
    forked = await client.retry(handle.id, as_new=True)
    await ended(client, handle.id, "failed")
    return forked.id, "completed"


async def waits_too_long(client: esexec.Client, rig: Rig, files: Path) -> tuple[str, str]:
    plan = row({}, {"queue": "nobody", "queue_timeout": 0.3})
    return (await client.start(plan, initial_retry_delay=0.05, max_retries=1)).id, "rolled_back"


async def misses_its_deadline(client: esexec.Client, rig: Rig, files: Path) -> tuple[str, str]:
    plan = row({}, {"ms": 60_000}, {})
    return (await client.start(plan, execution_timeout=1.0, timeout=0, **SOON)).id, "rolled_back"


SCENARIOS: dict[str, list[tuple[str, Scenario, tuple[str, ...]]]] = {
    "pause": [("execution_paused", is_paused, WHERE), ("execution_resumed", is_paused, WHERE)],
    "retry": [("execution_retried", is_retried, WHERE), ("execution_forked", is_forked, FEW)],
    "rollback": [
        ("rollback_started", rolls_back, WHERE),
        ("rollback_started", is_rolled_back, FEW),
        ("before_image_recorded", rolls_back, ("last",)),
        ("compensation_completed", rolls_back, WHERE),
        ("execution_rolled_back", rolls_back, ("last",)),
    ],
    "recovery": [
        ("recovery_initiated", recovers("retry", "completed"), FEW),
        ("recovery_completed", recovers("retry", "completed"), FEW),
        ("recovery_completed", recovers("skip", "completed"), FEW),
        ("recovery_completed", recovers("fallback", "completed", fallback="make_elsewhere"), FEW),
        ("recovery_completed", recovers("abort", "rolled_back"), FEW),
        ("recovery_completed", recovers("checkpoint_restore", "completed"), WHERE),
    ],
    "restore": [("checkpoint_restored", is_restored, (*WHERE, "2", "3", "4"))],
    "time": [("task_overdue", waits_too_long, FEW), ("execution_deadline_exceeded", misses_its_deadline, WHERE)],
}


@pytest.mark.parametrize("row_", list(SCENARIOS))
async def test_an_executor_may_die_between_any_two_effects(rig: Rig, tmp_path: Path, row_: str) -> None:
    """Whatever was decided and half carried out: restarted, it is carried out to the end, and each of it once."""
    files = tmp_path / "files"
    files.mkdir()
    executor = rig.executor()
    rig.worker(queues={"default": 2})
    await rig.ready()
    acknowledged: dict[str, list[str]] = {}
    async with esexec.connect(rig.url, namespace=rig.namespace, confirm_s=30) as client:
        for strategy in STRATEGIES:
            await client.strategies.add(strategy)
        for kind, scenario, places in SCENARIOS[row_]:
            for where in places:
                await until("nothing is on its way", rig_is_empty(rig), WAIT_S, rig.left)
                executor.kill()
                executor.options["die"] = f"effects/{kind}/{where}"
                executor.start()
                await rig.ready(executor)
                going = asyncio.ensure_future(scenario(client, rig, files))
                await dead(executor)
                executor.options.pop("die")
                executor.start()
                execution_id, end = await going
                said = f"{kind} {where} {getattr(scenario, '__name__', '')}\n{tail(executor.log)}"
                assert (await client.wait(execution_id, wait_timeout=WAIT_S)).status == end, said
                acknowledged[execution_id] = [end]
    await settled(rig, **acknowledged)
    begun_twice = [at for at, times in _begun(rig).items() if times > 1]
    assert not begun_twice, f"no worker was lost, and yet these were begun twice: {begun_twice}"


def rig_is_empty(rig: Rig) -> Callable[[], Awaitable[bool]]:
    async def empty() -> bool:
        return not await rig.left()

    return empty


def _begun(rig: Rig) -> Counter[tuple[str, str, str, int, int]]:
    return Counter(
        (note["phase"], note["execution"], note["step"], note["run"], note["attempt"])
        for note in rig.notes()
        if note["phase"] in ("begin", "undo", "advice")
    )


@pytest.mark.parametrize(
    ("dies", "params", "end"),
    [
        ("undo", [{"image": True, "dies": "undo"}, {"hopeless": True}], "rolled_back"),
        ("advice", [{}, {"advise": "skip", "dies": "advice"}, {}], "completed"),
        ("before", [{"image": True, "dies": "before"}, {"hopeless": True}], "rolled_back"),
        ("after_before", [{"image": True, "dies": "after_before"}, {"hopeless": True}], "rolled_back"),
    ],
)
async def test_a_worker_may_die_in_whatever_it_does_for_a_step(
    rig: Rig, dies: str, params: list[dict[str, Any]], end: str
) -> None:
    """In an undoing, in a strategy, before and after a before-image is stored: it is done again, from the first image."""
    rig.executor()
    worker = rig.worker(queues={"default": 1})
    await rig.ready()
    async with esexec.connect(rig.url, namespace=rig.namespace, confirm_s=30) as client:
        for strategy in STRATEGIES:
            await client.strategies.add(strategy)
        handle = await client.start(row(*params), **SOON)
        await dead(worker)
        worker.start()
        result = await handle.wait(wait_timeout=4 * LEASE_S)
    assert result.status == end, tail(worker.log)
    await settled(rig, **{handle.id: [end]})
    assert {note["value"] for note in rig.notes("image")} <= {"old"}
    if end == "rolled_back":
        assert [note["value"] for note in rig.notes("undone")][-1] == "old"
