"""Once a step's retries are exhausted, a recovery strategy says what to do; then its fallback is tried; then it fails."""

from typing import Any

import pytest

from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.decider import Surroundings
from esexec.domain.effects import dispatch_of
from esexec.domain.settings import TaskInfo
from esexec.domain.strategies import Strategy
from tests.given import (
    History,
    advised,
    at,
    cancel,
    checkpoint,
    completed,
    due,
    failed,
    fatal,
    given,
    in_words,
    lost,
    on_attempts,
    pause,
    repeated,
    restore,
    resume,
    retry,
    start,
    started,
    step,
    stopped,
    timed_out,
    timer_of,
    undone,
    withdrawn,
)

PARALLEL = {"parallel": True}
S = Strategy(id="s", name="the strategy", queue="recoverers", timeout_ms=5_000)


def asking(*strategies: Strategy, **tasks: TaskInfo) -> Surroundings:
    return Surroundings(strategies=strategies or (S,), tasks=tasks)


def asked(*steps: Any, around: Surroundings | None = None, **fields: Any) -> History:
    """An execution whose first step, a, has failed for good, and whose strategy is being asked (attempt 2)."""
    return given(start(*(steps or ("a",)), **fields), fatal("a"), around=around or asking())


# When it is asked ------------------------------------------------------------------------------------------------------


def test_a_failure_for_good_is_offered_to_a_strategy() -> None:
    """The next attempt of the step's is the question; the step is pending, and the execution recovers."""
    outcome = given(start("a"), around=asking()).when(fatal("a"))
    outcome.then_types("task_started a", "task_failed a", "recovery_initiated a")
    assert (outcome.events[1].instead, outcome.events[1].will_retry) == ("recovery", False)
    assert outcome.events[2] == e.RecoveryInitiated(
        step="a", attempt=2, strategy="s", name="the strategy", queue="recoverers", timeout_ms=5_000
    )
    assert outcome.state.steps[0].status == "pending"
    assert outcome.state.recovering == 1


def test_it_is_asked_once_the_retries_are_exhausted() -> None:
    """Retries first; the failure that exhausts them says so and is offered."""
    history = given(start("a", config={"max_retries": 1}), around=asking())
    history.when(failed("a")).then_types("task_started a", "task_failed a", "task_retry_scheduled a")
    history.happen(due("a"))
    outcome = history.when(failed("a", 2)).then_types("task_started a", "task_failed a", "recovery_initiated a")
    assert outcome.events[1].retries_exhausted
    assert outcome.events[2].attempt == 3


def test_a_timeout_is_offered_as_well() -> None:
    """Its code is `task_timeout`."""
    around = asking(Strategy(id="s", applicable_errors=("task_timeout",)))
    history = given(start("a", config={"max_retries": 0}), around=around)
    history.when(timed_out("a")).then_types("task_started a", "task_timed_out a", "recovery_initiated a")


def test_one_that_is_asked_before_retries_is_asked_after_every_failure() -> None:
    """`before_retries`: it may be a strategy that waits, or one that knows better than a retry."""
    around = asking(Strategy(id="s", before_retries=True))
    history = given(start("a"), around=around)
    history.when(failed("a")).then_types("task_started a", "task_failed a", "recovery_initiated a")
    history.when(advised("a", "retry")).then_types("recovery_started a", "recovery_completed a", "task_scheduled a")
    history.when(failed("a", 3)).then_types("task_started a", "task_failed a", "recovery_initiated a")


@pytest.mark.parametrize(
    ("patterns", "code", "asked"),
    [
        (("*",), "ANY", True),
        (("HTTP_5*",), "http_503", True),
        (("http_5*",), "HTTP_503", True),
        (("HTTP_5*",), "HTTP_404", False),
        (("NETWORK_TIMEOUT", "DISK_?"), "DISK_1", True),
        (("NETWORK_TIMEOUT",), "NETWORK_TIMEOUTS", False),
        ((), "ANY", False),
    ],
)
def test_errors_are_matched_by_their_codes(patterns: tuple[str, ...], code: str, asked: bool) -> None:
    """Exact or as globs, in any case."""
    around = asking(Strategy(id="s", applicable_errors=patterns))
    outcome = given(start("a"), around=around).when(failed("a", code=code, retryable=False))
    assert isinstance(outcome.events[2], e.RecoveryInitiated) == asked


def test_an_error_that_cannot_be_recovered_from_is_offered_to_nobody() -> None:
    """`recoverable: false` is the error's own word (C21)."""
    history = given(start("a"), around=asking())
    history.when(failed("a", retryable=False, recoverable=False)).then_types("task_started", "task_failed", "execution_failed")


def test_the_first_that_applies_is_asked() -> None:
    """In the order in which they were added."""
    one, two, three = (Strategy(id=id, applicable_errors=(code,)) for id, code in (("1", "OTHER"), ("2", "FAT*"), ("3", "*")))
    event = given(start("a"), around=asking(one, two, three)).when(fatal("a")).events[-1]
    assert event.strategy == "2"


def test_the_question_is_a_dispatch_of_its_own() -> None:
    """Task = the strategy's id, on its queue, with its timeout; it holds the error, the plan and the state."""
    history = given(start("a", "b"), completed("a", 7, vars={"k": 1}), fatal("b"), around=asking())
    dispatch = dispatch_of(history.state, 1)
    assert (dispatch.task, dispatch.purpose, dispatch.queue, dispatch.timeout_ms) == ("s", "recovery", "recoverers", 5_000)
    assert (dispatch.attempt, dispatch.max_attempts, dispatch.vars) == (2, 2, {"k": 1})
    request = dispatch.recovery
    assert request is not None
    assert (request.error.code, request.failed_attempt, request.recoveries) == ("FATAL", 1, 1)
    assert request.plan == history.state.created.plan
    assert request.state.completed_tasks == ["a"]
    assert request.state.task_states["a"].output == 7
    assert request.state.variables == {"k": 1}


def test_the_others_go_on_while_a_strategy_is_asked() -> None:
    """The step keeps its slot, as one that waits for a retry; parallel ones are not held up."""
    history = given(start("a", "b", step("c", "b"), plan_fields=PARALLEL), fatal("a"), around=asking())
    history.when(completed("b")).then_types("task_started b", "task_completed b", "task_scheduled c")
    serial = given(start("a", "b"), fatal("a"), around=asking())
    assert [one.attempt for one in serial.state.steps] == [2, 0]


# What it asks for ------------------------------------------------------------------------------------------------------


def test_retry_is_one_more_attempt_at_once() -> None:
    """RETRY: the next attempt, without a delay: waiting is the strategy's own business."""
    history = asked()
    outcome = history.when(advised("a", "retry", message="now it works"))
    outcome.then(
        e.RecoveryStarted(step="a", attempt=2, started_at=at(0), worker="w"),
        e.RecoveryCompleted(
            step="a", attempt=2, success=True, action="retry", then="retry", message="now it works", ended_at=at(1)
        ),
        e.TaskScheduled(step="a", attempt=3),
    )
    assert outcome.state.recovering == 0
    assert dispatch_of(outcome.state, 0).purpose == "task"
    outcome.when(completed("a", None, 3)).then_types("task_started a", "task_completed a", "execution_completed")


def test_skip_lets_its_dependents_go_on() -> None:
    """SKIP: the step is `skipped` for the reason `recovery`, which is no failure: the execution can complete (C27)."""
    history = asked("a", step("b", "a"))
    outcome = history.when(advised("a", "skip"))
    outcome.then_types("recovery_started a", "recovery_completed a", "task_skipped a", "task_scheduled b")
    assert outcome.events[2] == e.TaskSkipped(step="a", attempt=2, reason="recovery")
    outcome.when(completed("b")).then_types("task_started b", "task_completed b", "execution_completed")


def test_a_reference_to_a_skipped_step_finds_nothing() -> None:
    """It has no output: whoever needs a field of it cannot be begun."""
    history = asked("a", step("b", params={"n": "${steps.a.output.n}"}))
    outcome = history.when(advised("a", "skip"))
    assert in_words(outcome.effects)[0] == "dispatch b/1-1: reference_unresolved"


def test_fallback_lets_another_task_do_it() -> None:
    """FALLBACK: `Step(fallback=…)`, with the step's params and attempts of its own."""
    history = asked(step("a", fallback="plan_b", params={"n": 1}))
    outcome = history.when(advised("a", "fallback"))
    outcome.then_types("recovery_started a", "recovery_completed a", "task_fallback_started a", "task_scheduled a")
    dispatch = dispatch_of(outcome.state, 0)
    assert (dispatch.task, dispatch.purpose, dispatch.attempt, dispatch.params) == ("plan_b", "fallback", 3, {"n": 1})


def test_fallback_without_a_fallback_fails_the_step() -> None:
    """There is none: the message says so."""
    outcome = asked().when(advised("a", "fallback", message="m"))
    outcome.then_types("recovery_started", "recovery_completed", "execution_failed")
    assert (outcome.events[1].then, outcome.events[1].message) == ("fail", "m; there is no fallback")


def test_abort_ends_the_execution() -> None:
    """ABORT: the step fails, and the execution with it; the error is the step's."""
    outcome = asked("a", "b").when(advised("a", "abort", message="hopeless"))
    outcome.then_types("recovery_started a", "recovery_completed a", "task_skipped b", "execution_failed")
    assert (outcome.events[1].then, outcome.events[1].message) == ("fail", "hopeless")
    assert outcome.state.error is not None
    assert outcome.state.error.code == "FATAL"


def test_abort_ends_the_execution_also_with_continue_on_error() -> None:
    """Terminate means terminate; with the fallback untried."""
    history = asked(step("a", fallback="plan_b"), "b", config={"continue_on_error": True})
    history.when(advised("a", "abort")).then_types(
        "recovery_started a", "recovery_completed a", "task_skipped b", "execution_failed"
    )


def test_abort_rolls_back_what_was_done() -> None:
    """It is a failure like any other, at the end of the failure order."""
    around = asking(b=TaskInfo(compensate="undo_b"))
    history = given(start("b", "a"), completed("b"), fatal("a"), around=around)
    history.when(advised("a", "abort")).then_types(
        "recovery_started a", "recovery_completed a", "rollback_started", "compensation_scheduled b"
    )


def test_checkpoint_restore_goes_back_to_the_last_checkpoint() -> None:
    """CHECKPOINT_RESTORE: a new run from there; what the strategy set stands over the checkpoint's variables."""
    history = given(start("a", "b"), around=asking())
    for message in (checkpoint("early"), completed("a", vars={"k": 1}), checkpoint("late"), fatal("b")):
        history.happen(message)
    timer = timer_of(history.state, due("b", "queue"))
    outcome = history.when(advised("b", "checkpoint_restore", message="again", vars={"tries": 1}))
    outcome.then_types("recovery_started b", "recovery_completed b", "checkpoint_restored", "task_scheduled b")
    assert outcome.events[2] == e.CheckpointRestored(
        checkpoint_id="e1.8", run=2, by="recovery", reason="again", vars={"tries": 1}
    )
    assert (outcome.state.run, outcome.state.variables) == (2, {"k": 1, "tries": 1})
    assert in_words(outcome.effects) == ["dispatch b/2-1", f"clear {timer}"]


def test_checkpoint_restore_goes_back_within_its_own_line_of_runs() -> None:
    """The last checkpoint is that of what this run carries on from; one of a run that was left is none of its past."""
    history = given(start("a", "b"), around=asking())
    history.happen(checkpoint("first"))
    history.happen(completed("a", 1))
    history.happen(checkpoint("left"))
    first, left = history.state.checkpoints
    history.happen(restore(first))
    history.happen(completed("a", 2, run=2))
    history.happen(fatal("b", run=2))
    history.when(advised("b", "checkpoint_restore", run=2)).then_types(
        "recovery_started b", "recovery_completed b", "checkpoint_restored", "task_scheduled a"
    )
    assert history.state.checkpoint == first
    history.happen(restore(left, id="there"))
    history.happen(checkpoint("on"))
    on = [*history.state.checkpoints][-1]
    assert (history.state.checkpoint, history.state.checkpoints[on].before) == (on, left)
    assert history.state.checkpoints[left].before == first


def test_checkpoint_restore_without_a_checkpoint_fails_the_step() -> None:
    """There is none: the message says so."""
    outcome = asked().when(advised("a", "checkpoint_restore"))
    outcome.then_types("recovery_started", "recovery_completed", "execution_failed")
    assert (outcome.events[1].then, outcome.events[1].message) == ("fail", "there is no checkpoint")


def test_advice_without_success_leaves_the_rest_of_the_failure_order() -> None:
    """`success: false`: the fallback is next, or the step fails; a wish to abort is taken anyway."""
    with_one = asked(step("a", fallback="plan_b"))
    with_one.when(advised("a", "retry", success=False)).then_types(
        "recovery_started", "recovery_completed", "task_fallback_started", "task_scheduled"
    )
    asked().when(advised("a", "retry", success=False)).then_types("recovery_started", "recovery_completed", "execution_failed")
    asked(step("a", fallback="plan_b")).when(advised("a", "abort", success=False)).then_types(
        "recovery_started", "recovery_completed", "execution_failed"
    )


EARLY, LATE = Strategy(id="early", before_retries=True), Strategy(id="late")


def test_advice_before_retries_that_does_not_help_uses_up_nothing() -> None:
    """The retries follow, with their delays; once they are exhausted, the other strategy; then the fallback; then the end.

    The early one is asked after every failure; what it could not help with is tried as if it had not been asked.
    """
    config = {"max_retries": 2, "initial_retry_delay_ms": 1_000, "jitter": 0.0}
    history = given(start(step("a", fallback="plan_b"), config=config), around=asking(EARLY, LATE))
    for attempt, delay in ((1, 1_000), (3, 2_000)):
        history.when(failed("a", attempt)).then_types("task_started a", "task_failed a", "recovery_initiated a")
        outcome = history.when(advised("a", "retry", attempt + 1, success=False))
        outcome.then_types("recovery_started a", "recovery_completed a", "task_retry_scheduled a")
        assert outcome.events[1].then == "retry"
        assert (outcome.events[2].delay_ms, outcome.events[2].attempt) == (delay, attempt + 2)
        history.when(due("a")).then_types("task_scheduled a")
    history.happen(failed("a", 5))
    outcome = history.when(advised("a", "retry", 6, success=False))
    outcome.then_types("recovery_started a", "recovery_completed a", "recovery_initiated a")
    assert (outcome.events[1].then, outcome.events[2].strategy) == ("recovery", "late")
    outcome = history.when(advised("a", "retry", 7, success=False))
    outcome.then_types("recovery_started a", "recovery_completed a", "task_fallback_started a", "task_scheduled a")
    assert outcome.events[1].then == "fallback"
    history.when(fatal("a", 8)).then_types("task_started a", "task_failed a", "execution_failed")


def test_advice_before_retries_that_does_not_help_repairs_no_error_for_good() -> None:
    """What no retry could help goes on to the other strategy at once, or without one to the end."""
    history = given(start("a"), fatal("a"), around=asking(EARLY, LATE))
    history.when(advised("a", "skip", success=False)).then_types("recovery_started", "recovery_completed", "recovery_initiated")
    history = given(start("a"), fatal("a"), around=asking(EARLY))
    outcome = history.when(advised("a", "skip", success=False))
    outcome.then_types("recovery_started", "recovery_completed", "execution_failed")


def test_advice_before_retries_that_nobody_heard_uses_up_nothing() -> None:
    """A question that no worker took up in its time is as good as none."""
    history = given(start("a", config={"jitter": 0.0}), failed("a"), due("a", "queue"), around=asking(EARLY))
    outcome = history.when(withdrawn("a", 2)).then_types("recovery_completed a", "task_retry_scheduled a")
    assert outcome.events[0].then == "retry"


def test_a_retry_behind_advice_waits_for_the_resume() -> None:
    """It is due as any other retry."""
    history = given(start("a"), failed("a"), started("a", 2), pause(), around=asking(EARLY))
    history.when(advised("a", "retry", success=False)).then_types("recovery_completed a", "task_retry_scheduled a")
    history.when(due("a")).then_nothing("ineffective")
    history.happen(resume())
    history.when(due("a")).then_types("task_scheduled a")


def test_the_report_that_began_a_run_names_its_commit_whatever_run_it_is_by_now() -> None:
    """Its executor may have died before the effects of that commit, and a restore by hand come before the repetition."""
    history = given(start("a", "b"), checkpoint(), completed("a"), fatal("b"), around=asking())
    advice = advised("b", "checkpoint_restore")
    began = history.when(advice).then_types(
        "recovery_started b", "recovery_completed b", "checkpoint_restored", "task_scheduled a"
    )
    n = began.decision.state.n
    assert history.when(advice).then_nothing("stale").verdict.n == n
    assert on_attempts(repeated(history, n)) == ["dispatch a/2-1"]
    history.happen(restore("e1.4"))
    assert (history.state.run, history.state.begun) == (3, (1, n, n + 1))
    assert history.when(advice).then_nothing("stale").verdict.n == n
    assert on_attempts(repeated(history, n)) == []


def test_a_strategy_may_change_variables() -> None:
    """`new_state.variables` take the place of those of the same name, for all that comes after."""
    history = given(start("a"), failed("a", retryable=False, vars={"k": 1, "l": 2}), around=asking())
    outcome = history.when(advised("a", "retry", vars={"k": 5}))
    assert outcome.state.variables == {"k": 5, "l": 2}
    assert dispatch_of(outcome.state, 0).vars == {"k": 5, "l": 2}


def test_variables_of_a_strategy_that_are_too_large_fail_the_step() -> None:
    """`limits.vars_bytes`; nothing of them is kept."""
    outcome = asked().when(advised("a", "retry", vars={"k": "x" * limits.vars_bytes}))
    outcome.then_types("recovery_started", "recovery_completed", "execution_failed")
    assert "too large" in outcome.events[1].message
    assert outcome.state.variables == {}


def test_variables_of_advice_that_did_not_help_are_let_go_if_they_are_too_large() -> None:
    """The failure order goes on behind the strategy as without them: the step has not failed while its fallback runs."""
    outcome = asked(step("a", fallback="plan_b")).when(advised("a", "retry", success=False, vars={"k": "x" * limits.vars_bytes}))
    outcome.then_types("recovery_started", "recovery_completed", "task_fallback_started", "task_scheduled")
    assert (outcome.events[1].then, outcome.state.steps[0].status, outcome.state.failed) == ("fallback", "pending", [])
    assert outcome.state.variables == {}


# When its own code fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (failed("a", 2, code="OOPS"), "it is OOPS"),
        (timed_out("a", 2), "timeout"),
        (lost("a", 10, 2), "workers were lost"),
        (stopped("a", 2), "stopped"),
        (completed("a", "nonsense", 2), "no result"),
        (completed("a", {"success": True, "action": "dance"}, 2), "no result"),
        (completed("a", {"action": "retry"}, 2), "no result"),
        (completed("a", None, 2), "no result"),
    ],
)
def test_whatever_fails_there_means_abort(report: Any, says: str) -> None:
    """A strategy that throws, times out, is lost or talks nonsense asks to abort, with a message; it is not asked again."""
    history = asked(step("a", fallback="plan_b"))
    history.happen(started("a", 2))
    outcome = history.when(report)
    event = next(event for event in outcome.events if isinstance(event, e.RecoveryCompleted))
    assert (event.success, event.action, event.then) == (False, "abort", "fail")
    assert says in event.message
    assert outcome.state.status == "failed"


def test_a_step_has_so_many_recoveries(monkeypatch: pytest.MonkeyPatch) -> None:
    """`limits.recoveries_per_step`: then the failure order goes on behind them."""
    monkeypatch.setattr(limits, "recoveries_per_step", 2)
    history = given(start(step("a", fallback="plan_b")), fatal("a"), around=asking())
    history.happen(advised("a", "retry"))
    history.happen(fatal("a", 3))
    history.happen(advised("a", "retry", 4))
    history.when(fatal("a", 5)).then_types("task_started a", "task_failed a", "task_fallback_started a", "task_scheduled a")
    assert history.state.steps[0].recoveries == 2


def test_going_back_to_a_checkpoint_does_not_give_new_recoveries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one that always asks for it would do so for ever; somebody's retry does give new ones."""
    monkeypatch.setattr(limits, "recoveries_per_step", 2)
    history = given(start("a"), checkpoint(), around=asking())
    for run in (1, 2):
        history.happen(fatal("a", run=run))
        history.happen(advised("a", "checkpoint_restore", run=run))
    history.when(fatal("a", run=3)).then_types("task_started", "task_failed", "execution_failed")
    history.happen(retry())
    history.when(fatal("a", run=4)).then_types("task_started", "task_failed", "recovery_initiated")


def test_a_strategy_that_is_removed_is_asked_no_more() -> None:
    """What was asked before is still answered; the next failure is not offered."""
    history = asked()
    history.around = Surroundings()
    history.when(advised("a", "retry")).then_types("recovery_started a", "recovery_completed a", "task_scheduled a")
    history.when(fatal("a", 3)).then_types("task_started a", "task_failed a", "execution_failed")


def test_a_strategy_that_is_added_is_asked_from_then_on() -> None:
    """Strategies are of the namespace as it is now, not as it was at the start."""
    history = given(start("a"))
    history.around = asking()
    history.when(fatal("a")).then_types("task_started a", "task_failed a", "recovery_initiated a")


# Waiting to be asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "timeout_ms", "wait_ms"),
    [
        ({}, 5_000, limits.recovery_wait_ms),
        ({}, 600_000, 600_000),
        ({"queue_timeout_ms": 7_000}, 5_000, 7_000),
    ],
)
def test_a_question_waits_so_long_for_a_worker(fields: dict[str, Any], timeout_ms: int, wait_ms: int) -> None:
    """The step's queue timeout; without one `limits.recovery_wait_ms`, or the strategy's timeout if that is longer."""
    around = asking(Strategy(id="s", timeout_ms=timeout_ms))
    outcome = given(start(step("a", **fields)), around=around).when(fatal("a"), at=1)
    timer = timer_of(outcome.state, due("a", "queue"))
    assert in_words(outcome.effects)[:2] == ["dispatch a/1-2", f"timer {timer} in {wait_ms / 1000:g} s"]


def test_a_question_that_nobody_took_up_is_no_advice_to_abort() -> None:
    """It is taken back, and the failure order goes on behind it: the fallback, or the step fails."""
    history = asked(step("a", fallback="plan_b"))
    outcome = history.when(due("a", "queue")).then(e.TaskOverdue(step="a", attempt=2))
    assert in_words(outcome.effects) == ["withdraw a/1-2"]
    outcome = history.when(withdrawn("a", 2))
    outcome.then_types("recovery_completed a", "task_fallback_started a", "task_scheduled a")
    assert (outcome.events[0].success, outcome.events[0].then) == (False, "fallback")
    assert "no worker of queue recoverers" in outcome.events[0].message
    alone = asked("a", "b", config={"continue_on_error": True})
    alone.happen(due("a", "queue"))
    alone.when(withdrawn("a", 2)).then_types("recovery_completed a", "task_scheduled b")
    assert alone.state.steps[0].status == "failed"


def test_one_that_takes_the_question_up_at_the_last_moment_is_heard() -> None:
    """That it is overdue takes back only what nobody has."""
    history = asked()
    history.happen(due("a", "queue"))
    history.when(advised("a", "skip")).then_types(
        "recovery_started a", "recovery_completed a", "task_skipped a", "execution_completed"
    )


def test_a_question_that_is_too_large_is_no_advice_to_abort_either() -> None:
    """It cannot be put to anybody (the executor's `params_too_large`): the fallback is next."""
    history = asked(step("a", fallback="plan_b"))
    outcome = history.when(failed("a", 2, code="params_too_large", retryable=False))
    outcome.then_types("recovery_started a", "recovery_completed a", "task_fallback_started a", "task_scheduled a")


def test_the_errors_of_other_steps_are_brief_in_a_question() -> None:
    """Hundreds of them must fit: the beginning of each message, without stack and context. The error it is about is whole."""
    long = {"stack": "s" * 1_000, "context": {"k": "c" * 1_000}}
    config = {"continue_on_error": True, "max_retries": 0}
    history = given(start("b", "a", config=config), failed("b", code="X" * 5_000, **long))
    history.around = asking()
    history.happen(failed("a", retryable=False, **long))
    request = dispatch_of(history.state, 1).recovery
    assert request is not None
    other = request.state.task_states["b"].error
    assert other is not None
    assert (len(other.message), other.stack, other.context) == (300, None, {})
    assert request.error.stack == long["stack"]


# While it is asked -----------------------------------------------------------------------------------------------------


def test_a_cancel_ends_a_question() -> None:
    """Its worker is told; whatever it says after that, the step is cancelled or failed, and nothing follows."""
    history = asked(step("a", fallback="plan_b"))
    assert "stop a/1-2" in in_words(history.when(cancel()).effects)
    history.when(withdrawn("a", 2)).then_types("task_cancelled a", "execution_cancelled")
    other = asked(step("a", fallback="plan_b"))
    other.happen(cancel())
    outcome = other.when(advised("a", "retry")).then_types("recovery_started a", "recovery_completed a", "execution_cancelled")
    assert outcome.events[1].then == "fail"


def test_advice_for_a_failing_execution_comes_too_late() -> None:
    """Another step has failed meanwhile: nothing new begins, and the step fails with its own error."""
    history = given(start("a", "b", plan_fields=PARALLEL), fatal("a"), around=asking())
    history.happen(failed("b", retryable=False, recoverable=False))
    outcome = history.when(advised("a", "retry")).then_types("recovery_started a", "recovery_completed a", "execution_failed")
    assert outcome.events[1].then == "fail"
    assert outcome.events[2].failed_steps == ("b", "a")


def test_late_advice_is_stale() -> None:
    """As every late outcome; one that began the next run names that commit, so that its effects can be repeated."""
    history = asked()
    history.happen(advised("a", "retry"))
    assert history.when(advised("a", "abort")).then_nothing("stale").verdict.n == 3
    back = given(start("a"), checkpoint(), fatal("a"), around=asking())
    back.happen(advised("a", "checkpoint_restore"))
    verdict = back.when(advised("a", "checkpoint_restore")).then_nothing("stale").verdict
    assert verdict.n == 4
    commit = back.commits[3]
    assert in_words(fx.effects_of(commit.events, commit.version, back.state, 4))[0] == "dispatch a/2-1"


def test_the_start_of_a_strategy_is_told_once() -> None:
    """As of any attempt."""
    history = asked()
    history.when(started("a", 2)).then(e.RecoveryStarted(step="a", attempt=2, started_at=at(0), worker="w"))
    history.when(advised("a", "skip")).then_types("recovery_completed a", "task_skipped a", "execution_completed")


# The fallback ----------------------------------------------------------------------------------------------------------


def test_a_fallback_takes_over_once_the_retries_are_exhausted() -> None:
    """Without a strategy it comes right after them, with retries of its own and its own task's settings."""
    around = Surroundings(tasks={"plan_b": TaskInfo(queue="slow", max_retries=1)})
    history = given(start(step("a", fallback="plan_b", max_retries=None)), around=around)
    outcome = history.when(fatal("a")).then_types(
        "task_started a", "task_failed a", "task_fallback_started a", "task_scheduled a"
    )
    assert outcome.events[1].instead == "fallback"
    dispatch = dispatch_of(outcome.state, 0)
    assert (dispatch.task, dispatch.queue, dispatch.attempt, dispatch.max_attempts) == ("plan_b", "slow", 2, 3)
    history.when(failed("a", 2)).then_types("task_started a", "task_failed a", "task_retry_scheduled a")
    history.happen(due("a"))
    history.when(failed("a", 3)).then_types("task_started a", "task_failed a", "execution_failed")


def test_what_a_fallback_returns_is_the_steps_output() -> None:
    """Its dependents cannot tell the difference; the state can."""
    history = given(start(step("a", fallback="plan_b"), step("b", params={"n": "${steps.a.output}"})), fatal("a"))
    outcome = history.when(completed("a", 9, 2))
    assert dispatch_of(outcome.state, 1).params == {"n": 9}
    assert outcome.state.steps[0].fallback == "plan_b"


def test_there_is_one_fallback_and_no_strategy_behind_it() -> None:
    """Retry → recovery → fallback → fail: what failed behind the last of them fails the step."""
    history = asked(step("a", fallback="plan_b"))
    history.happen(advised("a", "fallback"))
    history.when(fatal("a", 3)).then_types("task_started a", "task_failed a", "execution_failed")


def test_what_a_fallback_did_is_undone_by_what_the_fallback_says() -> None:
    """Not by the step's compensation, which belongs to the step's own task."""
    around = Surroundings(tasks={"plan_b": TaskInfo(compensate="undo_b")})
    plan = start(step("a", fallback="plan_b", compensate="undo_a"), "z")
    history = given(plan, fatal("a"), completed("a", {"n": 1}, 2), fatal("z"), around=around)
    dispatch = dispatch_of(history.state, 0)
    assert (dispatch.task, dispatch.params) == ("undo_b", {"n": 1})
    history.when(undone("a", 3)).then_types("compensation_started a", "compensation_completed a", "execution_rolled_back")


def test_after_a_fallback_both_what_may_have_been_done_and_what_was_done_is_undone() -> None:
    """The step's own attempt timed out: nobody knows what it did; its fallback completed. Both are undone, the last first."""
    around = Surroundings(tasks={"plan_b": TaskInfo(compensate="undo_b")})
    plan = start(step("a", fallback="plan_b", compensate="undo_a", max_retries=0, params={"k": 0}), "z")
    history = given(plan, timed_out("a"), completed("a", {"n": 1}, 2), fatal("z"), around=around)
    first = dispatch_of(history.state, 0)
    history.when(undone("a", 3)).then_types("compensation_started a", "compensation_completed a", "compensation_scheduled a")
    second = dispatch_of(history.state, 0)
    assert [(one.task, one.params) for one in (first, second)] == [("undo_b", {"k": 0, "n": 1}), ("undo_a", {"k": 0})]
    end = history.when(undone("a", 4)).then_types("compensation_started", "compensation_completed", "execution_rolled_back")
    assert end.state.standing == {}


def test_a_new_run_begins_with_the_steps_own_task() -> None:
    """The fallback of a run that is over is not the next one's."""
    history = given(start(step("a", fallback="plan_b")), fatal("a"), fatal("a", 2), retry())
    dispatch = dispatch_of(history.state, 0)
    assert (dispatch.task, dispatch.purpose, dispatch.attempt) == ("a", "task", 1)
