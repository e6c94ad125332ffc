"""What undoes a task: how it is declared, what it gets, and that it comes along."""

import types
from typing import Any

import pytest

from esexec.domain.errors import ValidationError
from esexec.domain.messages import Dispatch
from esexec.domain.settings import TaskInfo, TaskSettings
from esexec.tasks import Context, Task, collect, task

CONTEXT = Context(Dispatch(execution_id="e", step="s", task="t"))


def a_task(name: str = "create", **options: Any) -> Task[..., Any]:
    @task(name=name, **options)
    def create(city: str) -> dict[str, str]:
        return {"id": city}

    return create


def refused(make: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        make()
    return caught.value


def test_a_function_becomes_the_compensation_of_a_task() -> None:
    """`@create.compensate` makes a task of its own of it, named after the one that it undoes, and still a function."""
    create = a_task()

    @create.compensate
    def undo(id: str) -> str:
        """Delete it again."""
        return f"-{id}"

    assert isinstance(undo, Task)
    assert (undo.name, undo.description, undo.settings) == ("create.compensate", "Delete it again.", TaskSettings())
    assert create.compensation is undo
    assert undo("x") == "-x"


async def test_a_compensation_has_settings_of_its_own() -> None:
    """Settings, name and description are said as those of a task; it may be async where the task is not."""
    create = a_task()

    @create.compensate(max_retries=10, timeout="1m", queue="slow", name="drop", description="d")
    async def undo(id: str) -> None: ...

    assert (undo.name, undo.description, undo.is_async) == ("drop", "d", True)
    assert undo.settings == TaskSettings(max_retries=10, timeout_ms=60_000, queue="slow")


def test_settings_of_time() -> None:
    """Growth of the timeout and patience with a queue are settings of a task as the others."""
    assert a_task(timeout_growth=1.5, queue_timeout="2s").settings == TaskSettings(timeout_growth=1.5, queue_timeout_ms=2_000)
    assert "timeout_growth" in refused(lambda: a_task(timeout_growth=0.5)).message


def test_another_task_can_be_named_as_the_compensation() -> None:
    """`compensate=` takes a task, or the name of one that is on another worker."""
    delete = a_task("delete")
    assert a_task(compensate=delete).compensation is delete
    assert a_task(compensate="elsewhere.delete").compensation == "elsewhere.delete"


@pytest.mark.parametrize("bad", ["a b", "", 7, len])
def test_what_cannot_undo_a_task_is_refused_at_once(bad: Any) -> None:
    """Only a task or a task's name can be given; a function belongs under `@my_task.compensate`."""
    assert refused(lambda: a_task(compensate=bad)).code == "invalid_task"


def test_a_task_has_one_compensation() -> None:
    """A second one would quietly take the place of the first."""
    create = a_task(compensate="delete")
    error = refused(lambda: create.compensate(lambda id: None))
    assert (error.code, "delete" in error.message) == ("invalid_task", True)


def test_bad_settings_of_a_compensation_are_refused_at_once() -> None:
    """As with a task, by their names."""
    create = a_task()
    assert "max_retries" in refused(lambda: create.compensate(max_retries=-1)).message
    assert "timeuot" in refused(lambda: create.compensate(timeuot=3)).message  # type: ignore[call-overload]
    assert "`timeout`" in str(refused(lambda: create.compensate(timeuot=3)).hint)  # type: ignore[call-overload]
    assert "needs no resources" in str(refused(lambda: create.compensate(resources={"gpu": 1})).hint)  # type: ignore[call-overload]
    assert "task of its own" in str(refused(lambda: create.compensate(concurrency={"key": "a"})).hint)  # type: ignore[call-overload]
    assert refused(lambda: a_task("t" * 120).compensate(lambda id: None)).code == "invalid_task"
    assert create.compensation is None


def test_what_is_announced_of_a_task() -> None:
    """Its settings and the name of what undoes it."""
    create = a_task(max_retries=5)
    assert create.info == TaskInfo(max_retries=5)

    @create.compensate
    def undo(id: str) -> None: ...

    assert create.info == TaskInfo(max_retries=5, compensate="create.compensate")
    assert undo.info == TaskInfo()
    assert a_task(compensate="x").info == TaskInfo(compensate="x")


# Binding -----------------------------------------------------------------------------------------------------------------


def test_a_compensation_takes_of_the_params_what_it_has_parameters_for() -> None:
    """Bound loosely, the rest is left out; bound strictly it is refused."""

    @task
    def undo(id: int, ctx: Context, soft: bool = False) -> None: ...

    params = {"id": 3, "city": "Lyon", "ctx": "mine"}
    assert undo.bind(params, CONTEXT, loose=True) == {"id": 3, "ctx": CONTEXT, "soft": False}
    assert refused(lambda: undo.bind(params, CONTEXT)).code == "invalid_params"
    assert params == {"id": 3, "city": "Lyon", "ctx": "mine"}


def test_a_compensation_that_takes_the_rest_takes_it_all() -> None:
    """`**rest` gets what has no parameter of its own, but never in the place of the context."""

    @task
    def undo(id: int, ctx: Context, **rest: Any) -> None: ...

    assert undo.bind({"id": 3, "city": "Lyon", "ctx": 1}, CONTEXT, loose=True) == {"id": 3, "ctx": CONTEXT, "city": "Lyon"}


def test_loose_is_not_careless() -> None:
    """What is missing, or of another type, is refused as always."""

    @task
    def undo(id: int) -> None: ...

    assert "missing parameter `id`" in refused(lambda: undo.bind({"ident": 3}, loose=True)).message
    assert "`str`" in refused(lambda: undo.bind({"id": "x"}, loose=True)).message


# Collecting ----------------------------------------------------------------------------------------------------------------


def test_a_compensation_comes_along_with_its_task() -> None:
    """A task alone, a list and a module bring what undoes their tasks; each once, behind its task."""
    create, other = a_task(), a_task("other")

    @create.compensate
    def undo(id: str) -> None: ...

    names = ["create", "create.compensate"]
    assert list(collect(create)) == names
    assert list(collect([create, other, undo, create])) == [*names, "other"]
    module = types.ModuleType("of_tasks")
    module.undo, module.create = undo, create  # type: ignore[attr-defined]
    assert sorted(collect(module)) == names
    assert collect(create)["create.compensate"] is undo


def test_tasks_may_undo_each_other() -> None:
    """A task that undoes another and is undone by it is no endless story; a name brings nothing along."""
    create = a_task()
    delete = a_task("delete", compensate=create)
    create.compensation = delete
    assert list(collect(create)) == ["create", "delete"]
    assert list(collect(a_task(compensate="far"))) == ["create"]


def test_a_compensation_may_use_types_of_where_it_is_defined() -> None:
    """Annotations that are strings are resolved among the local names, as a task's are."""
    create = a_task()

    class Key(str): ...

    @create.compensate
    def undo(id: "Key") -> None: ...

    assert undo.bind({"id": Key("a")}) == {"id": "a"}
