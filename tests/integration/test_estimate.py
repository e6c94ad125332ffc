"""How well it is told how long an execution will take still: the logistics example, after twenty real runs of it."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import esexec
from esexec import ExecutionUpdate
from esexec.views import Durations
from examples.logistics import __main__ as program
from examples.logistics import tasks
from projections.statistics_asks import AskDurations
from tests.integration.engine import Engine
from tests.past import durations_of

PAST = 20


@pytest.mark.chaos  # it takes 50 s: the example waits for its carrier, twenty times
async def test_at_half_time_the_rest_is_known(engine: Engine, tmp_path: Path) -> None:
    """Within a quarter, as the example waits for a carrier that is busy twice, and books, inspects and reports meanwhile."""
    await engine.worker(*esexec.collect(tasks).values())
    plan = esexec.Plan.from_file(program.HERE / "plan.yaml")

    def input_of(number: int) -> dict[str, Any]:
        return program.read(program.HERE / "input.json", tmp_path / str(number))

    async def run(number: int) -> str:
        result = await engine.client.execute(plan, input_of(number), wait_timeout=60)
        assert result.ok, result.error
        return result.id

    past = [await run(number) for number in range(PAST)]  # one after the other, as the one that is watched runs alone
    projector = await engine.projector()
    await asyncio.wait_for(projector.caught_up(), 10)
    durations = durations_of([await engine.client.history(execution_id) for execution_id in past])
    asked = AskDurations(plan_id=(await engine.client.get_or_raise(past[0])).plan_id)
    told_by_service = await engine.client.queries.ask("durations", asked, Durations)
    assert told_by_service.runs == durations.runs == PAST
    assert told_by_service.steps.keys() == durations.steps.keys()
    for step, mean_ms in durations.steps.items():
        assert abs(told_by_service.steps[step] - mean_ms) <= 1
    handle = await engine.client.start(plan, input_of(PAST))
    updates: list[ExecutionUpdate] = [update async for update in handle.monitor()]
    result = await handle.snapshot()
    assert result.ok and result.started_at is not None and result.completed_at is not None
    half = result.started_at + (result.completed_at - result.started_at) / 2
    told = [(update.metrics.as_of, update.progress) for update in updates if update.metrics is not None]
    when, progress = [one for one in told if one[0] <= half][-1]
    assert progress.estimated_time_remaining_ms is not None
    expected_end = when + timedelta(milliseconds=progress.estimated_time_remaining_ms)
    off = abs(expected_end - result.completed_at) / (result.completed_at - half)
    assert off <= 0.25, f"{off:.0%} off; {durations}"
