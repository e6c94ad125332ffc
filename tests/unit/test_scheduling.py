"""Which steps start when, and how an execution begins and ends."""

import pytest

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain.effects import dispatch_of
from esexec.domain.errors import ValidationError
from tests.given import at, completed, fatal, given, start, started, step


def test_a_start_creates_the_execution_and_schedules_its_first_step() -> None:
    """A valid start is one commit: created, started, and what may run at once."""
    outcome = given().when(start("a", input={"n": 1}, metadata={"m": 2}), at=5)
    created = outcome.events[0]
    assert isinstance(created, e.ExecutionCreated)
    assert (created.name, created.input, created.metadata) == ("p", {"n": 1}, {"m": 2})
    outcome.then(created, e.ExecutionStarted(), e.TaskScheduled(step="a"))
    assert outcome.state.started_at == at(5)
    assert outcome.state.applied == {"c1": 1}


def test_a_single_task_is_a_one_step_plan() -> None:
    """A start that names a task runs that task with the input as its params."""
    outcome = given().when(c.StartExecution(id="c1", task="math.add", input={"a": 1}))
    outcome.then_types("execution_created", "execution_started", "task_scheduled math_add")
    assert dispatch_of(outcome.state, 0).params == {"a": 1}


def test_steps_not_marked_parallel_run_one_at_a_time() -> None:
    """Of several ready steps that are not marked parallel, only the first of the plan starts."""
    outcome = given().when(start("a", "b", "c")).then_types("execution_created", "execution_started", "task_scheduled a")
    outcome.when(completed("a")).then_types("task_started a", "task_completed a", "task_scheduled b")


def test_parallel_steps_start_together_up_to_the_limit() -> None:
    """Ready parallel steps start in plan order until `parallel_execution_limit` (5) are in flight."""
    outcome = given().when(start(*"abcdefg", plan_fields={"parallel": True}))
    assert [event.step for event in outcome.events[2:]] == list("abcde")
    outcome.when(completed("c")).then_types("task_started c", "task_completed c", "task_scheduled f")


def test_the_plans_parallel_switch_marks_every_step() -> None:
    """`parallel` of the plan turns every step's `parallel` on."""
    given().when(start("a", step("b", parallel=True), "c")).then_types(
        "execution_created", "execution_started", "task_scheduled a", "task_scheduled b"
    )


@pytest.mark.parametrize(("limit", "together"), [(1, 1), (2, 2), (7, 7)])
def test_the_parallel_limit_is_a_setting(limit: int, together: int) -> None:
    """`parallel_execution_limit` of the call says how many attempts are in flight; 1 serialises."""
    outcome = given().when(start(*"abcdefgh", plan_fields={"parallel": True}, config={"parallel_execution_limit": limit}))
    assert len(outcome.events) - 2 == together


def test_a_step_starts_when_all_its_dependencies_have_completed() -> None:
    """One completed dependency of two is not enough."""
    history = given(start("a", "b", step("c", "a", "b"), plan_fields={"parallel": True}))
    history.when(completed("a")).then_types("task_started a", "task_completed a").when(completed("b")).then_types(
        "task_started b", "task_completed b", "task_scheduled c"
    )


def test_plan_order_breaks_ties_not_the_order_of_becoming_ready() -> None:
    """Of two steps that are ready when a slot frees, the earlier of the plan starts."""
    history = given(
        start(
            "x",
            "y",
            step("early", "y"),
            step("late", "x"),
            plan_fields={"parallel": True},
            config={"parallel_execution_limit": 2},
        ),
        completed("x"),
    )
    assert history.state.steps[3].open
    history.when(completed("y")).then_types("task_started y", "task_completed y", "task_scheduled early")


def test_a_reference_implies_the_dependency() -> None:
    """A step whose params refer to another's output waits for it, and gets the value with its type."""
    history = given(start("a", step("b", params={"n": "${steps.a.output.list[1]}", "t": "no. ${steps.a.output.list[0]}"})))
    outcome = history.when(completed("a", {"list": [7, {"k": True}]}))
    outcome.then_types("task_started a", "task_completed a", "task_scheduled b")
    assert dispatch_of(outcome.state, 1).params == {"n": {"k": True}, "t": "no. 7"}


def test_input_and_context_are_referred_to() -> None:
    """`${input…}` and `${context…}` come from the start; the context travels with every dispatch."""
    history = given(start(step("a", params={"i": "${input.x}", "c": "${context.user}"}), input={"x": 1}, context={"user": "u"}))
    dispatch = dispatch_of(history.state, 0)
    assert (dispatch.params, dispatch.context) == ({"i": 1, "c": "u"}, {"user": "u"})


def test_a_reference_to_what_is_not_there_cannot_be_dispatched() -> None:
    """A path that the output does not have is a `reference_unresolved` of the step that refers to it."""
    history = given(start("a", step("b", params={"n": "${steps.a.output.missing}"})), completed("a", {}))
    with pytest.raises(ValidationError) as raised:
        dispatch_of(history.state, 1)
    assert raised.value.code == "reference_unresolved"


def test_the_last_completion_ends_the_execution() -> None:
    """When every step has completed the execution is completed, in the same commit."""
    outcome = given(start("a")).when(completed("a", 42))
    outcome.then(
        e.TaskStarted(step="a", started_at=at(0), worker="w"),
        e.TaskCompleted(step="a", ended_at=at(1), output=42),
        e.ExecutionCompleted(),
    )
    assert outcome.state.status == "completed"


def test_a_start_report_of_its_own_is_recorded_once() -> None:
    """`TaskStarted` is an event of every attempt exactly once, whichever report tells it first."""
    history = given(start("a"))
    history.when(started("a", began=3)).then(e.TaskStarted(step="a", started_at=at(3), worker="w"))
    assert history.state.steps[0].status == "running"
    history.when(started("a", began=4)).then_nothing("applied")
    history.when(completed("a", began=3)).then_types("task_completed a", "execution_completed")


def test_a_failure_lets_running_attempts_finish_and_skips_the_rest() -> None:
    """Without continue_on_error nothing new starts after a failure: what runs is recorded, then the execution has failed."""
    history = given(
        start(
            "a", "b", "c", step("d", "a"), step("z", "c"), plan_fields={"parallel": True}, config={"parallel_execution_limit": 2}
        )
    )
    outcome = history.when(fatal("a"))
    outcome.then_types("task_started a", "task_failed a", "task_skipped d", "task_skipped c", "task_skipped z")
    reasons = {event.step: (event.reason, event.because) for event in outcome.events if isinstance(event, e.TaskSkipped)}
    assert reasons == {"d": ("dependency_failed", "a"), "c": ("cancelled", "a"), "z": ("cancelled", "a")}
    assert outcome.state.phase == "failing"
    outcome.when(completed("b", "kept")).then_types("task_started b", "task_completed b", "execution_failed")
    ended = history.events[-1]
    assert isinstance(ended, e.ExecutionFailed)
    assert (ended.error.code, ended.failed_steps) == ("FATAL", ("a",))


def test_what_depends_on_a_failed_step_is_told_so_wherever_it_stands_in_the_plan() -> None:
    """A skipped step's reason does not depend on the order in which the plan lists the steps."""
    forwards = given(start("a", step("b", "a"), step("c", "b"))).when(fatal("a")).state
    backwards = given(start(step("c", "b"), step("b", "a"), "a")).when(fatal("a")).state
    for state in (forwards, backwards):
        told = {one: state.steps[index] for one, index in state.graph.index.items()}
        assert (told["b"].skip_reason, told["b"].because) == ("dependency_failed", "a")
        assert (told["c"].skip_reason, told["c"].because) == ("dependency_failed", "b")


def test_a_failure_while_another_waits_for_its_retry_cancels_that_wait() -> None:
    """A step that waits for a retry when the execution fails is cancelled, and its timer with it."""
    from tests.given import failed

    history = given(start("a", "b", plan_fields={"parallel": True}), failed("a"))
    outcome = history.when(fatal("b"))
    outcome.then_types("task_started b", "task_failed b", "task_cancelled a", "execution_failed")
    assert not outcome.state.timers


def test_with_continue_on_error_the_others_go_on() -> None:
    """With continue_on_error dependents of the failed step are skipped, the others run, and the end is `failed`."""
    history = given(start("a", step("b", "a"), step("c", "b"), "d", config={"continue_on_error": True}))
    history.when(fatal("a")).then_types("task_started a", "task_failed a", "task_skipped b", "task_skipped c", "task_scheduled d")
    outcome = history.when(completed("d", 1)).then_types("task_started d", "task_completed d", "execution_failed")
    assert outcome.state.status == "failed"
    assert outcome.state.output_of("d") == 1


def test_with_continue_on_error_the_first_failure_is_the_executions_error() -> None:
    """Several failed steps are all named; the error is the first one's."""
    history = given(start("a", "b", config={"continue_on_error": True}), fatal("a"))
    ended = history.when(fatal("b")).events[-1]
    assert isinstance(ended, e.ExecutionFailed)
    assert (ended.failed_steps, ended.error) == (("a", "b"), history.state.steps[0].error)


def test_the_end_comes_once_and_nothing_follows() -> None:
    """Whatever comes for an ended execution changes nothing."""
    history = given(start("a", "b"), fatal("a"))
    for late in (completed("a"), fatal("a"), started("a")):
        history.when(late).then_nothing("stale")
