"""Handlers as methods: a class whose methods are tasks, and one method for all other tasks."""

from typing import Any

import pytest

import esexec
from esexec.tasks import collect
from tests import class_tasks
from tests.integration.engine import QUICK, Engine


async def shop(engine: Engine) -> esexec.Worker:
    return await engine.stack.enter_async_context(
        esexec.Worker(engine.url, tasks="tests.class_tasks", namespace=engine.namespace)
    )


async def test_methods_are_tasks_and_share_their_object(engine: Engine) -> None:
    """F417: found in a module as functions are, with their settings, context, description and names."""
    worker = await shop(engine)
    assert sorted(worker.tasks) == ["*", "sell", "sell.compensate", "stock/count"]
    assert (await engine.execute("sell", {"what": "tea"})).result == {"sold": ["tea"], "step": "sell"}
    assert (await engine.execute("stock/count", {})).result == 1
    tasks = {one.name: one for one in await engine.client.workers.tasks()}
    assert (tasks["sell"].info.max_retries, tasks["sell"].info.compensate) == (1, "sell.compensate")
    assert tasks["sell"].description == "Sells something."


async def test_a_method_is_undone_by_a_method_of_the_same_object(engine: Engine) -> None:
    """`@sell.compensate` within the class."""
    await shop(engine)
    steps = [esexec.Step("sell", id="a", params={"what": "tea"}), esexec.Step("fail", id="b", depends_on=["a"])]
    result = await engine.execute(esexec.Plan("p", steps=steps))
    assert (result.status, result.error.code) == ("rolled_back", "SO")
    assert (await engine.execute("stock/count", {})).result == 0


async def test_one_method_handles_every_other_task(engine: Engine) -> None:
    """F051: `record.name` and `record.input`, whatever the task is called; nobody is warned that it is not known."""
    await shop(engine)
    handle = await engine.client.start("crop", {"x": [1]}, execution_id="e1")
    assert handle.warnings == ()
    output = (await handle.wait(wait_timeout=8)).result
    assert output == {"name": "crop", "input": {"x": [1]}, "id": "e1/crop", "attempt": 1}
    assert (await engine.execute("resize", "anything")).result["input"] == "anything"
    assert await engine.client.workers.missing() == []


async def test_what_the_method_does_not_know_is_rejected(engine: Engine) -> None:
    """F052: `UnknownTask` is final, and an event of its own; who waits for the output gets that error."""
    await shop(engine)
    result = await engine.execute("frobnicate", **QUICK)
    assert (result.error.code, result.results[0].attempt) == ("unknown_task", 1)
    assert (await engine.types(result.id))[-2:] == ["task_rejected", "execution_failed"]
    with pytest.raises(esexec.UnknownTask):
        result.unwrap()


def test_an_object_may_be_given_where_the_class_needs_something() -> None:
    """A class is made where it needs nothing; else it is refused with what to give."""

    class Greeter(esexec.Handlers):
        def __init__(self, word: str) -> None:
            self.word = word

        @esexec.task
        def greet(self, name: str) -> str:
            return f"{self.word} {name}"

    greeter = Greeter("hello")
    assert greeter.greet("Ada") == "hello Ada"
    assert collect([greeter])["greet"]("Ada") == "hello Ada"
    with pytest.raises(esexec.ValidationError) as refused:
        collect([Greeter])
    assert (refused.value.code, refused.value.hint) == ("invalid_task", "give an object of it instead")


class _TooMany(esexec.Handlers):
    def handle_task(self, record: Any, more: Any) -> None: ...


class _Nothing(esexec.Handlers):
    """Handles no task."""


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([_TooMany()], "invalid_task"),
        ([_Nothing()], "tasks_not_found"),
        ([class_tasks.Shop(), class_tasks.Shop()], "duplicate_task"),
    ],
)
def test_what_no_worker_could_use_is_refused(given: list[Any], code: str) -> None:
    """A method that does not take one record, a class without a handler, two objects that handle the same."""
    with pytest.raises(esexec.ValidationError) as refused:
        collect(given)
    assert refused.value.code == code


async def test_a_handler_of_any_task_may_be_no_coroutine(engine: Engine) -> None:
    """Then it runs in a thread, as other functions do."""

    class Sync(esexec.Handlers):
        def handle_task(self, record: esexec.HandledTask) -> str:
            return record.name

    worker = esexec.Worker(engine.url, tasks=[Sync()], namespace=engine.namespace)
    await engine.stack.enter_async_context(worker)
    assert (await engine.execute("whatever", {})).result == "whatever"
