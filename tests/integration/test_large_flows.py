"""What flows from step to step, and from row to row, may be large: it travels through the object store, and nobody notices."""

from typing import Any

import pytest

import esexec
from esexec import Continue, Halt
from tests.integration.engine import Engine

LARGE = "x" * 300_000


@pytest.fixture
async def tasks(engine: Engine) -> Engine:
    """A worker with tasks that take and give much."""

    @esexec.task
    async def grow(**params: Any) -> dict[str, Any]:
        return {**params, "text": LARGE}

    @esexec.task
    async def size(text: str, **rest: Any) -> dict[str, Any]:
        return {"size": len(text), **rest}

    @esexec.task
    async def guard(result: dict[str, Any]) -> Halt | Continue:
        return Halt("short") if "text" not in result else Continue({"text": result["text"][:10]})

    @esexec.task
    async def halt_with_much(result: dict[str, Any]) -> Halt:
        return Halt(LARGE)

    await engine.worker(grow, size, guard, halt_with_much, queues={"default": 50})
    return engine


async def test_a_map_over_large_rows(tasks: Engine) -> None:
    """Rows of more than 256 KB in all are one input."""
    rows = [{"text": str(row) * 20_000, "row": row} for row in range(10, 40)]
    answer = await tasks.client.map("size", rows, concurrency=20, wait_timeout=30)
    assert answer == [{"size": 40_000, "row": row} for row in range(10, 40)]


async def test_a_chain_of_large_values(tasks: Engine) -> None:
    """With params of a link laid over them, and with somebody who is asked."""
    result = await tasks.client.chain(["grow", ("size", {"unit": "bytes"})], {"a": 1}, wait_timeout=30)
    assert result.value == {"size": 300_000, "a": 1, "unit": "bytes"}
    result = await tasks.client.chain(["grow", "size"], {}, interrupt="guard", wait_timeout=30)
    assert result.value == {"size": 10}


async def test_a_condition_looks_into_no_object(tasks: Engine) -> None:
    """That one is there is known. What is in it is not: the step fails and says so, and is not done against its condition."""
    large = "${steps.grow.output}"
    plan = esexec.Plan("p", [esexec.Step("grow"), esexec.Step("size", params=large, when=large)])
    assert (await tasks.client.run(plan, wait_timeout=30)) == {"size": 300_000}
    with pytest.raises(esexec.ChainError) as failed:
        await tasks.client.chain(["grow", "size"], {}, interrupt="halt_with_much", wait_timeout=30)
    assert (failed.value.action, failed.value.code) == ("size", "value_in_object")


@pytest.mark.slow
async def test_a_map_of_ten_thousand(tasks: Engine) -> None:
    """In order, in one execution."""
    answer = await tasks.client.map(
        "size", [{"text": "x", "row": row} for row in range(10_000)], concurrency=500, wait_timeout=100
    )
    assert answer == [{"size": 1, "row": row} for row in range(10_000)]
