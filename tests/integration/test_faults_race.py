"""Executors that race on one execution, and messages that nobody can decide: one wins, the other reloads; the others go on."""

from collections import Counter
from typing import Any

import pytest

import esexec
from esexec.domain.controls import decide_control
from esexec.executor import mailbox
from tests.integration.engine import Engine, until


@esexec.task
async def increment(number: int) -> int:
    return number + 1


@pytest.mark.parametrize("engine", ["two executors", "two without cache"], indirect=True)
async def test_two_executors_that_race_on_one_execution_decide_each_message_once(engine: Engine) -> None:
    """Both have messages of the same fan-out in hand: one's commit stands, the other reloads and decides again."""
    await engine.worker(increment, queues={"default": 40})
    step = esexec.Step
    plan = esexec.Plan(
        "fan",
        [
            step(increment, id="first", params={"number": 0}),
            *[
                step(increment, id=f"s{number}", params={"number": "${steps.first.output}"}, parallel=True)
                for number in range(120)
            ],
            step(increment, id="last", params={"number": 5}, depends_on=[f"s{number}" for number in range(120)]),
        ],
    )
    result = await engine.execute(plan, wait=30, parallel_execution_limit=120)
    assert result.ok
    commits = await engine.client.history(result.id)
    assert len({commit.executor for commit in commits}) == 2, "only one of the executors had a part in it"
    types = Counter(await engine.types(result.id))
    assert types["task_scheduled"] == types["task_completed"] == types["task_started"] == 122


async def test_a_command_that_breaks_the_core_is_buried_and_the_others_go_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception out of a decision takes its own message to DEAD, answers who asked, and harms nothing else."""
    engine.errors_expected = True

    def breaks(decision: Any, command: Any, time: Any) -> Any:
        if getattr(command, "reason", "") == "poison":
            raise ZeroDivisionError("a fault of ours")
        return decide_control(decision, command, time)

    monkeypatch.setattr(mailbox, "decide_control", breaks)
    handle = await engine.client.start(increment, {"number": 1})  # waits, for there is no worker yet
    with pytest.raises(esexec.EsexecError, match="could not be decided"):
        await engine.client.cancel(handle.id, reason="poison")

    async def buried() -> bool:
        return bool((await dead(engine))["messages"])

    await until(buried)
    await engine.worker(increment)
    assert await handle.result(wait_timeout=10) == 2
    assert (await dead(engine))["messages"] == 1


async def dead(engine: Engine) -> dict[str, Any]:
    connection = engine.client._connection
    assert connection is not None
    return dict((await connection.api(f"STREAM.INFO.{engine.subjects.dead_stream}"))["state"])
