"""What is told of a plan before it runs: its rollback on paper (F238), and what is probably not meant (F239, C24)."""

from types import ModuleType
from typing import Any

import pytest

import esexec
from esexec import Plan, PlanWarning, Step, Undo
from esexec.domain.settings import TaskInfo

NONE = TaskInfo()


def plan(*steps: Any, **settings: Any) -> Plan:
    return Plan("p", [step if isinstance(step, Step) else Step(step) for step in steps], **settings)


def codes(warnings: list[PlanWarning]) -> list[str]:
    assert all(one.message and one.hint and one.path for one in warnings)
    return [one.code for one in warnings]


# On paper ----------------------------------------------------------------------------------------------------------------


def test_the_last_is_undone_first() -> None:
    """In reverse order of the plan, dependents before what they wait for, wherever they stand in the plan."""
    made = plan(
        Step("c", id="c", depends_on="b", compensate="undo_c"),
        Step("a", id="a", compensate="undo_a", params={"x": 1}),
        Step("b", id="b", depends_on="a", params={"y": "${steps.a.output}"}),
    )
    assert made.dry_run_rollback() == [
        Undo("c", "undo_c", params={}),
        Undo("b", None, "no_compensation"),
        Undo("a", "undo_a", params={"x": 1}),
    ]


def test_a_reference_as_a_whole_tells_nothing() -> None:
    """Params that are one reference are not known before the step has run."""
    assert plan(Step("a", params="${input}", compensate="u")).dry_run_rollback() == [Undo("a", "u", params=None)]


def test_what_was_announced_says_more() -> None:
    """Compensations of the tasks themselves, and inverses by name, as a rollback finds them; the step's own comes first."""
    known = {"create_x": NONE, "delete_x": NONE, "a": TaskInfo(compensate="undo_a"), "update_y": NONE}
    made = plan("create_x", "a", "update_y", Step("a", id="own", compensate="mine"), "b")
    found = {undo.step: undo.task for undo in made.dry_run_rollback(known)}
    assert found == {"create_x": "delete_x", "a": "undo_a", "update_y": "update_y", "own": "mine", "b": None}
    assert {undo.task for undo in made.dry_run_rollback()} == {None, "mine"}


@esexec.task
async def create_room(name: str) -> None: ...


@esexec.task
async def delete_room(name: str) -> None: ...


@esexec.task
async def update_room(name: str, ctx: esexec.Context) -> None:
    async def keep() -> None:
        await ctx.before({"name": name})

    await keep()


@esexec.task
async def update_door(name: str) -> None: ...


@esexec.task
async def book() -> None: ...


@book.compensate
async def unbook() -> None: ...


ROOMS: list[Any] = [create_room, delete_room, update_room, update_door, book]


def test_tasks_are_given_as_everywhere() -> None:
    """A module, functions, or what was announced by name."""
    module = ModuleType("rooms")
    vars(module).update({task.name: task for task in ROOMS})
    made = plan(create_room, update_room, book)
    ways: list[Any] = [ROOMS, module, {task.name: task.info for task in ROOMS}]
    for tasks in ways:
        assert [undo.task for undo in made.dry_run_rollback(tasks)] == ["book.compensate", "update_room", "delete_room"]


# What is probably not meant ----------------------------------------------------------------------------------------------


def test_a_step_that_nothing_undoes_is_told_where_others_can_be() -> None:
    """F239: not where nothing can be undone, not where rollback is off, not where the plan says that it is meant so."""
    half = (Step("a", compensate="undo_a"), Step("b"))
    [told] = plan(*half).lint()
    assert (told.code, told.path, "`b`" in told.message) == ("no_compensation", "steps[1]", True)
    assert plan("a", "b").lint() == []
    assert plan("a", "b").lint(ROOMS) == []
    assert plan(*half, enable_rollback=False).lint() == []
    assert plan(*half, continue_on_error=True).lint() == []
    assert plan(*half, on_missing_compensation="skip").lint() == []
    assert plan(*half).lint({"b": TaskInfo(compensate="undo_b")}) == []


def test_an_inverse_from_an_image_needs_one() -> None:
    """Told of tasks that do not record what was before, as far as their code shows; a compensation needs none."""
    [told] = plan(update_room, update_door).lint(ROOMS)
    assert (told.code, told.path) == ("needs_before_image", "steps[1]")
    assert "ctx.before" in told.hint
    assert codes(plan("update_door").lint({"update_door": NONE})) == ["needs_before_image"]
    assert plan(Step(update_door, compensate="x")).lint(ROOMS) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"continue_on_error": True, "enable_rollback": True}, ["rollback_with_continue_on_error"]),
        ({"continue_on_error": True}, []),
        ({"enable_rollback": True}, []),
        ({"continue_on_error": True, "enable_rollback": False}, []),
        ({"preset": "bulk"}, []),
    ],
)
def test_going_on_and_undoing_contradict_each_other(settings: dict[str, Any], told: list[str]) -> None:
    """C24: told where the plan says both."""
    assert codes(plan("a", **settings).lint()) == told


def test_a_fallback_that_is_the_task_is_none() -> None:
    """What failed is only tried once more."""
    [told] = plan("a", Step("b", fallback="b"), Step("c", fallback="a")).lint()
    assert (told.code, told.path) == ("fallback_is_the_task", "steps[1].fallback")
