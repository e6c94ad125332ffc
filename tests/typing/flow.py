"""What the type checker must know of rate limits, concurrency keys and resources. Never run: `mypy tests/typing` checks it."""

from datetime import datetime
from typing import Any, assert_type

import esexec
from esexec import Key, RateLimit, Resource, ResourcePool, ResourceRequirement, ResourceUsage

TEN = RateLimit(10, 60_000, key="mail/${params.to}", on_limit="reject")
GPU = ResourceRequirement("gpu", 2, priority=8, constraints={"minMemory": 40})


@esexec.task(rate_limit=TEN, concurrency=Key("params.user", limit=3), resources=[GPU, {"type": "ram", "duration": "1m"}])
async def train(user: str) -> int:
    return 1


@esexec.task(rate_limit={"max_executions": 10, "window": "1m"}, concurrency={"key": "params.user"}, resources={"gpu": 2})
def draw(user: str) -> int:
    return 1


@train.compensate(rate_limit={"max_executions": 0})
async def untrain(user: str) -> None: ...


def tasks() -> None:
    train.compensate(concurrency=Key("params.user"))  # type: ignore[call-overload]
    train.compensate(resources={"gpu": 1})  # type: ignore[call-overload]
    esexec.task(rate_limit=10)  # type: ignore[call-overload]
    esexec.task(resources="gpu")  # type: ignore[arg-type]
    assert_type(train.info.resources, tuple[ResourceRequirement, ...])


def plans(amounts: dict[str, int], several: list[ResourceRequirement], some: dict[str, Any]) -> esexec.Plan:
    steps = [
        esexec.Step(train, rate_limit=TEN, concurrency=Key("input.user", total=9, scope="gpus"), resources=several),
        esexec.Step(draw, rate_limit=None, concurrency=None, resources=amounts),
        esexec.Step(draw, rate_limit=some, concurrency=some, resources={"gpu": 1, "ram": {"amount": 0.5, "priority": 9}}),
        esexec.Step(draw, resources=[some]),
    ]
    esexec.Step(draw, concurrency="input.user")  # type: ignore[arg-type]
    esexec.Plan("p", steps, resources={"gpu": 1})  # type: ignore[call-arg]
    Key("input.user", policy="drop")  # type: ignore[arg-type]
    RateLimit(10, "1m")  # type: ignore[arg-type]
    return esexec.Plan("p", steps, rate_limit=TEN, concurrency=Key.singleton("input.customer", "replace"))


async def starts(client: esexec.Client) -> None:
    await client.start("train", rate_limit=RateLimit(0, 1), concurrency=Key("input.user", limit=3, policy="skip"))
    await client.execute("train", rate_limit={"max_executions": 1, "window": 60})
    await client.run("train", {"user": "ada"}, concurrency={"key": "input.user"}, rate_limit=None)
    await client.start("train", resources={"gpu": 1})  # type: ignore[call-arg]
    await client.configure(rate_limit=TEN, concurrency=None, queues={"slow": {"rate_limit": TEN}})


def what_is_given(resource: Resource, usage: ResourceUsage) -> ResourcePool:
    assert_type(resource.amount, float)
    assert_type(resource.attributes, dict[str, Any])
    assert_type(usage.end_time, datetime | None)
    assert_type(usage.cost, float)
    return ResourcePool("big", "gpu", 4, cost_per_unit_second=0.01, attributes={"memory": 80})
