"""Steps that are only done when something says so (`when`), and params that take over all that an object has (`"..."`)."""

from typing import Any

import pytest

from esexec.domain import events as e
from esexec.domain.effects import dispatch_of
from esexec.domain.errors import PlanInvalid, ValidationError
from esexec.plans import Plan, Step
from esexec.results import result_of
from tests.given import completed, fatal, given, start, step

WHEN = "${steps.a.output.go}"


@pytest.mark.parametrize(
    ("output", "when", "done"),
    [
        ({"go": True}, WHEN, True),
        ({"go": 0}, WHEN, True),
        ({"go": ""}, WHEN, True),
        ({"go": False}, WHEN, False),
        ({"go": None}, WHEN, False),
        ({}, WHEN, False),
        (None, WHEN, False),
        ({"go": True}, f"not {WHEN}", False),
        ({"go": False}, f"not  {WHEN} ", True),
        ({}, f"not {WHEN}", True),
    ],
)
def test_a_step_is_done_when_its_condition_holds(output: Any, when: str, done: bool) -> None:
    """False, null and what is not there say no; anything else says yes; `not` turns it round."""
    outcome = given(start("a", step("b", when=when))).when(completed("a", output=output))
    outcome.then_types(
        "task_started a",
        "task_completed a",
        "task_scheduled b" if done else "task_skipped b",
        *([] if done else ["execution_completed"]),
    )


def test_what_depends_on_a_step_that_is_not_wanted_is_skipped_as_well() -> None:
    """All the way down, for the same reason; the execution completes, and others are done."""
    plan = [step("b", when=WHEN), step("c", "b"), step("d", "c"), step("x", "a")]
    outcome = given(start("a", *plan)).when(completed("a", output={"go": False}))
    assert outcome.events[2:] == [
        e.TaskSkipped(step="b", attempt=0, reason="condition"),
        e.TaskSkipped(step="c", attempt=0, reason="condition", because="b"),
        e.TaskSkipped(step="d", attempt=0, reason="condition", because="c"),
        e.TaskScheduled(step="x"),
    ]
    outcome.when(completed("x")).then_types("task_started x", "task_completed x", "execution_completed")
    result = result_of(outcome.state)
    assert [task.skip_reason for task in result.results] == [None, "condition", "condition", "condition", None]
    assert result.status == "completed"


def test_a_condition_waits_for_what_it_refers_to() -> None:
    """A reference in it implies the dependency, as in params; if that fails, the step is skipped for that."""
    plan = Plan("p", [Step("b", when="${steps.a.output}"), Step("a")], continue_on_error=True)
    assert plan.graph.dependencies == ((1,), ())
    outcome = given(start(step("b", when="${steps.a.output}"), "a", config={"continue_on_error": True})).when(fatal("a"))
    assert outcome.events[-2] == e.TaskSkipped(step="b", attempt=0, reason="dependency_failed", because="a")


@pytest.mark.parametrize("when", ["", "true", "${steps.a.output.x} and ${input.y}", "not not ${input.x}", "!${input}"])
def test_what_is_no_condition_is_refused(when: str) -> None:
    """One reference, or `not` and one; nothing is guessed."""
    with pytest.raises(PlanInvalid) as refused:
        Plan("p", [Step("a"), Step("b", when=when)])
    assert (refused.value.code, refused.value.context["path"]) == ("bad_condition", "steps[1].when")


def test_an_object_is_taken_over_with_what_is_written_beside_it() -> None:
    """`"..."` stands for all the fields there; those that are written win, wherever they stand."""
    params = {"format": "json", "...": "${steps.a.output}", "deep": {"...": "${input}", "n": "${input.n}"}}
    outcome = given(start("a", step("b", params=params), input={"n": 1, "m": 2})).when(
        completed("a", output={"format": "xml", "data": [1]})
    )
    assert dispatch_of(outcome.state, 1).params == {"format": "json", "data": [1], "deep": {"n": 1, "m": 2}}


def test_what_is_no_object_cannot_be_taken_over() -> None:
    """The attempt fails for good, and says which reference it was."""
    outcome = given(start("a", step("b", params={"...": "${steps.a.output}"}))).when(completed("a", output=[1]))
    with pytest.raises(ValidationError, match=r"steps\.a\.output") as refused:
        dispatch_of(outcome.state, 1)
    assert refused.value.code == "reference_unresolved"


def test_three_dots_are_a_key_like_any_other_unless_a_reference_stands_there() -> None:
    """What is constant stays what it is."""
    assert Plan("p", [Step("a", params={"...": "etc."})]).graph.templates == (None,)
    outcome = given(start(step("a", params={"...": "and ${input}"}), input=1))
    assert dispatch_of(outcome.state, 0).params == {"...": "and 1"}
