"""What workers announce of their tasks, and what follows from it before anything runs."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

import esexec
from esexec import Plan, Step
from esexec.domain.announced import warnings_of
from esexec.executor import presence
from tests.integration.engine import KINDS, Engine, until
from tests.integration.raw import RawClient

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)


@esexec.task(name="ship")
async def ship(parcel: str, weight: float = 1.0) -> str:
    """Sends a parcel."""
    return parcel


@esexec.task(name="ship")
async def ship_2(parcel: str, service: str) -> str:
    """Sends a parcel by a service."""
    return f"{parcel} by {service}"


def plan_of(params: Any) -> Plan:
    return Plan("p", steps=[Step("ship", id="a", params={"parcel": "x"}), Step("ship", id="b", params=params)])


@everywhere
async def test_params_that_do_not_fit_are_refused_when_they_are_given(engine: Engine) -> None:
    """Nothing is started, and the refusal says where, why, and what is probably meant."""
    await engine.worker(ship)
    with pytest.raises(esexec.ValidationError) as refused:
        await engine.client.start("ship", {"parcl": "x"})
    assert refused.value.code == "invalid_params"
    assert "unexpected parameter `parcl`, did you mean `parcel`?; missing parameter `parcel`" in refused.value.message
    assert refused.value.hint == "expected parcel: string, weight: number (optional)"
    with pytest.raises(esexec.ValidationError) as refused:
        await engine.client.start(plan_of({"parcel": "y", "weight": "heavy"}), execution_id="never")
    assert refused.value.context == {"path": "steps[1].params.weight", "task": "ship", "step": "b"}
    assert await engine.client.get("never") is None


async def test_what_a_reference_will_give_is_left_to_the_worker(engine: Engine) -> None:
    """Beside a reference all else is looked at; a reference itself may give anything."""
    await engine.worker(ship)
    plan = plan_of({"parcel": "${steps.a.output}", "weight": "${input.weight}"})
    assert (await engine.execute(plan, {"weight": 2})).result == "x"
    result = await engine.execute(plan, {"weight": "heavy"})
    assert (result.status, result.error.code) == ("failed", "invalid_params")
    with pytest.raises(esexec.ValidationError, match="missing parameter `parcel`"):
        await engine.client.start(plan_of({"weight": "${input.weight}"}))


async def test_a_refused_start_binds_no_idempotency_key(engine: Engine) -> None:
    """Once the params are right, the same key starts it."""
    await engine.worker(ship)
    with pytest.raises(esexec.ValidationError):
        await engine.client.start("ship", {}, idempotency_key="k")
    assert (await engine.execute("ship", {"parcel": "x"}, idempotency_key="k")).result == "x"


async def test_bare_messages_are_checked_as_well(engine: Engine, raw: RawClient) -> None:
    """A client in any language is refused by the executor, in the answer."""
    await engine.worker(ship)
    answer = await raw.ask("raw-1", "start", task="ship", input={"parcel": 7})
    assert (answer.status, answer.error.code) == ("refused", "invalid_params")
    assert answer.error.context["path"] == "input.parcel"


async def test_a_schema_in_any_words_of_json_schema_counts(engine: Engine, raw: RawClient) -> None:
    """What a worker in another language announces is judged as JSON Schema says; one that is none leaves it to the worker."""
    told = {"big": {"type": "object", "properties": {"n": {"minimum": 3}}}, "broken": {"type": "nonsense"}}
    await raw.ask("_settings", "announce", tasks={"big": {}, "broken": {}}, schemas=told)
    answer = await raw.ask("raw-2", "start", task="big", input={"n": 2})
    assert "less than the minimum of 3" in answer.error.message
    assert (await raw.ask("raw-3", "start", task="broken", input=1)).status == "accepted"


@pytest.mark.parametrize("engine", ["three executors"], indirect=True)
async def test_an_executor_that_has_not_heard_of_a_version_asks_before_it_refuses(engine: Engine) -> None:
    """A start right behind the announcement of what takes it is accepted, whichever executor gets it."""
    await engine.worker(ship)
    for executor in engine.executors:
        executor._settings._news = asyncio.Event()  # it hears of nothing by itself
    await engine.worker(ship_2, queues={"two": 1})
    results = [await engine.execute("ship", {"parcel": "x", "service": "air"}, queue="two") for _ in range(6)]
    assert {result.result for result in results} == {"x by air"}


async def test_what_any_version_takes_is_accepted_while_its_workers_live(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """During a rolling deploy both versions' params are; once the old workers are gone, only those of the new one."""
    monkeypatch.setattr(presence, "_ASK_EVERY_S", 0.3)
    monkeypatch.setattr(presence, "_ANSWERS_S", 0.2)
    old = await engine.worker(ship, queues={"one": 1})
    await engine.worker(ship_2, queues={"two": 1})
    assert (await engine.execute("ship", {"parcel": "x"}, queue="one")).result == "x"
    assert (await engine.execute("ship", {"parcel": "x", "service": "air"}, queue="two")).result == "x by air"
    with pytest.raises(esexec.ValidationError, match="nor does 1 other version of it"):
        await engine.client.start("ship", {"parcel": 1}, queue="one")
    tasks = {one.name: one for one in await engine.client.workers.tasks()}
    assert [(len(one.workers), "service" in one.schema["properties"]) for one in tasks["ship"].versions] == [
        (1, False),
        (1, True),
    ]
    assert (tasks["ship"].queues, tasks["ship"].description) == (("one", "two"), "Sends a parcel by a service.")
    await old.stop()

    async def refused() -> bool:
        try:
            handle = await engine.client.start("ship", {"parcel": "x"}, queue="one")
        except esexec.ValidationError:
            return True
        await handle.cancel()
        return False

    await until(refused)


async def test_a_worker_without_a_schema_takes_anything(engine: Engine, raw: RawClient) -> None:
    """Beside one that announced a schema, one that announced none makes everything acceptable."""
    await engine.worker(ship)
    await raw.ask("_settings", "announce", tasks={"ship": {}})
    assert (await raw.ask("raw-4", "start", task="ship", input=1)).status == "accepted"


async def test_a_start_of_an_unknown_task_is_accepted_with_a_warning(
    engine: Engine, raw: RawClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Work may wait for its worker: the answer, the handle, the history and the log of the client say that it does."""
    answer = await raw.ask("raw-5", "start", task="later")
    assert (answer.status, [one.code for one in answer.warnings]) == ("accepted", ["unannounced_task"])
    handle = await engine.client.start(Plan("p", steps=[Step("later", id="a", fallback="never")]))
    assert handle.warnings == warnings_of(["later", "never"])
    with caplog.at_level(logging.WARNING, "esexec.client"):
        waiting = asyncio.create_task(engine.client.execute("later"))
        await until(lambda: "no worker has announced the task later" in caplog.text)
    assert (await engine.events(handle.id))[0].unannounced == ("later", "never")
    missing = await engine.client.workers.missing()
    assert [(one.task, one.waiting) for one in missing] == [("later", 3)]

    @esexec.task(name="later")
    async def later() -> int:
        return 1

    await engine.worker(later)
    assert (await handle.wait(wait_timeout=8)).result == (await waiting).result == 1
    assert (await engine.client.start("later")).warnings == ()
    assert await engine.client.workers.missing() == []


async def test_a_plan_that_is_kept_and_calls_what_nobody_has_is_named(engine: Engine) -> None:
    """`missing` looks at what may be started as well."""
    plan_id = (await engine.client.plans.put(plan_of({"parcel": "y"}))).plan_id
    assert [(one.task, one.waiting, one.plans) for one in await engine.client.workers.missing()] == [("ship", 0, (plan_id,))]
    await engine.worker(ship)
    assert await engine.client.workers.missing() == []


async def test_workers_say_that_they_are_there(engine: Engine) -> None:
    """With their tasks and queues; one that drains is gone."""
    worker = await engine.worker(ship, name="w7", queues={"q": 3})
    (here,) = await engine.client.workers.present()
    assert (here.worker, [*here.queues.items()], "ship" in here.tasks) == ("w7", [("q", 3)], True)
    await worker.stop()
    assert await engine.client.workers.present() == []


async def test_a_schema_that_is_too_large_is_refused(engine: Engine, raw: RawClient) -> None:
    """An announcement cannot make the namespace's settings large."""
    told = {"big": {"title": "x" * 20_000}}
    answer = await raw.ask("_settings", "announce", tasks={"big": {}}, schemas=told)
    assert (answer.status, answer.error.code) == ("refused", "too_large")


async def test_a_refusal_names_the_line_of_the_plan_file(engine: Engine, tmp_path: Path) -> None:
    """Where the plan stands in a file, that is where to look."""
    from esexec.cli.notes import started

    await engine.worker(ship)
    file = tmp_path / "plan.yaml"
    file.write_text("name: p\nsteps:\n  - id: a\n    task: ship\n    params:\n      parcel: x\n      weight: heavy\n")
    with pytest.raises(esexec.PlanInvalid) as refused:
        await started(engine.client.start(Plan.from_file(file)), file)
    assert (refused.value.code, refused.value.context["line"]) == ("invalid_params", 7)
    assert f"{file}:7: steps[0].params.weight" in refused.value.message


async def test_the_answer_to_a_start_carries_the_record_of_its_task(engine: Engine, raw: RawClient) -> None:
    """F128: who submits a task has its record at once, as JSON; a handle reads it whenever it is wanted."""
    await engine.worker(ship)
    answer = await raw.ask("raw-6", "start", task="ship", input={"parcel": "x"}, record=True)
    said = {field: answer.record[field] for field in ("execution_id", "task_id", "name")}
    assert said == {"execution_id": "raw-6", "task_id": "ship", "name": "ship"}
    assert answer.record["status"] in ("pending", "running", "completed")
    handle = await engine.client.start(ship, {"parcel": "x"})
    await handle.wait(wait_timeout=8)
    record = await handle.record()
    assert (record.id, record.status, record.attempt) == (f"{handle.id}/ship", "completed", 1)


async def test_an_instance_is_a_namespace_of_its_own(engine: Engine) -> None:
    """F024: `instance=` says so on every role; what is started there is not seen elsewhere."""
    other = f"{engine.namespace}-b"
    async with (
        esexec.Executor(engine.url, instance=other),
        esexec.Worker(engine.url, tasks=[ship], instance=other),
        esexec.connect(engine.url, instance=other) as client,
    ):
        assert client.namespace == other
        assert await client.run(ship, {"parcel": "x"}, execution_id="e1", wait_timeout=8) == "x"
    assert await engine.client.get("e1") is None
    assert await engine.client.workers.tasks() == []
