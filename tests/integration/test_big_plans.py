"""Plans of 10,000 steps on a real server: started, carried to their end, shown, checked and read back; in near-linear time."""

import gc
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from esexec import Plan, Step, task
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.compiled import forget_graphs
from esexec.domain.evolve import fold
from esexec.log import codec
from projections.memory import MemoryStore
from projections.role import Projector
from tests.integration.engine import Engine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@task
async def nothing() -> int:
    return 1


def chain(count: int) -> Plan:
    return Plan("chain", [Step("nothing", id=f"s{n}", depends_on=[f"s{n - 1}"] if n else []) for n in range(count)])


def fan(count: int) -> Plan:
    return Plan("fan", [Step("nothing", id=f"s{n}") for n in range(count)], parallel=True)


@pytest.fixture
def collector() -> Iterator[None]:
    """Looks as seldom as in a process of esexec, and not at what other tests have left."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


async def carried_out(engine: Engine, plan: Plan) -> tuple[float, str]:
    """Processor seconds of the executor, the worker and the client together, of a plan that comes for the first time; which
    execution."""
    forget_graphs()
    begun = time.process_time()
    handle = await engine.client.start(plan, parallel_execution_limit=1000)
    result = await handle.wait(wait_timeout=300)
    assert result.ok, result.error
    assert len(result.results) == len(plan.graph.steps)
    return time.process_time() - begun, handle.id


async def folded_cold(engine: Engine, execution_id: str) -> float:
    stored = await engine.client._log.load(execution_id)
    forget_graphs()
    gc.collect()
    gc.disable()  # its pauses depend on what else this process holds
    begun = time.process_time()
    state = fold(execution_id, [codec.commit_of(one) for one in stored])
    seconds = time.process_time() - begun
    gc.enable()
    assert state.status == "completed"
    return seconds


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("shape", [chain, fan], ids=["chain", "fan"])
async def test_ten_thousand_steps(engine: Engine, shape: object) -> None:
    """They take at most 12 times the processor time of 1,000, in one run, also to fold cold; no commit is larger, or has more
    events, than it may, and each step ran once."""
    assert callable(shape)
    engine.client._sender._confirm_s = 60.0
    await engine.worker(nothing, queues={"default": 200})
    await carried_out(engine, shape(100))  # what is loaded once
    for last in (False, True):  # once more where something else had the machine meanwhile
        few, first = await carried_out(engine, shape(1_000))
        many, execution_id = await carried_out(engine, shape(10_000))
        if many <= 12 * few:
            break
        assert not last, f"{many:.2f} s for 10,000 steps, {few:.2f} s for 1,000"
    few = min([await folded_cold(engine, first) for _ in range(5)])
    many = min([await folded_cold(engine, execution_id) for _ in range(3)])
    assert many <= 12 * few, f"{many:.3f} s to fold 10,000 steps, {few:.3f} s for 1,000"
    history = await engine.client.history(execution_id)
    assert max(len(commit.events) for commit in history) <= limits.events_per_commit
    assert max(len(one.data) for one in await engine.client._log.load(execution_id)) <= limits.commit_bytes
    completed = Counter(event.step for commit in history for event in commit.events if isinstance(event, e.TaskCompleted))
    assert (len(completed), set(completed.values())) == (10_000, {1})
    assert (await engine.client.verify(execution_id)).ok
    async with Projector(engine.url, namespace=engine.namespace, store=MemoryStore()):
        position = (await engine.client.get_or_raise(execution_id)).position
        page = await engine.client.executions.list(after=position, name=shape(1).name)
        assert [one.total_steps for one in page][:2] == [10_000, 1_000]
