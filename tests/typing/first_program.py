"""The issue's example, as a user would write it. Never run: `mypy --strict` checks it."""

from typing import Any, assert_type

import esexec


@esexec.task(max_retries=3, timeout="30s")
async def create_facility(name: str, city: str, ctx: esexec.Context) -> dict[str, str]:
    return {"id": f"{name}-{city}-{ctx.attempt}"}


@esexec.task
def write_report(id: str) -> str:
    return f"report of {id}"


plan = esexec.Plan(
    "onboarding",
    steps=[
        esexec.Step(create_facility, id="facility", params={"name": "${input.name}", "city": "Lyon"}),
        esexec.Step("write_report", id="report", params={"id": "${steps.facility.output.id}"}),
    ],
)


async def in_one_process() -> None:
    async with esexec.local(tasks=[create_facility, write_report]) as client:
        assert_type(client, esexec.Client)
        result = await client.execute(plan, input={"name": "A"})
        assert_type(result, esexec.ExecutionResult)
        assert_type(result.status, esexec.ExecutionStatus)
        assert_type(result.step("report"), esexec.TaskResult)


async def over_a_server() -> None:
    async with esexec.connect("nats://127.0.0.1:4222") as client:
        handle = await client.start(plan, input={"name": "A"}, idempotency_key="order-17", priority=8)
        assert_type(handle, esexec.Handle)
        async for update in client.monitor(handle.id):
            assert_type(update, esexec.ExecutionUpdate)
            assert_type(update.progress.percentage, float)
        output = await handle.result(wait_timeout=30)
        assert_type(output, Any)
        output = await client.run("create_facility", {"name": "A", "city": "Lyon"})
        match await handle.poll():
            case esexec.Pending(status):
                assert_type(status, esexec.ExecutionStatus)
            case esexec.Ok(value):
                assert_type(value, Any)
            case esexec.Err(error):
                assert_type(error, esexec.EsexecError)
        assert_type(await handle.cancel(), bool)
        await client.start(plan, prioritty=8)  # type: ignore[call-arg]
        await client.start(17)  # type: ignore[arg-type]
        await handle.result(timeout=3)  # type: ignore[call-arg]


async def roles() -> None:
    async with (
        esexec.Executor("nats://127.0.0.1:4222", namespace="mine") as executor,
        esexec.Worker("nats://127.0.0.1:4222", tasks=[create_facility], queues={"default": 10}, namespace="mine") as worker,
    ):
        assert_type(executor, esexec.Executor)
        assert_type(worker, esexec.Worker)
        await worker.run()
