"""An execution that ended without completing runs again: in place, as a new one, or one step of it."""

import msgspec
import pytest

from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.commands import StartExecution
from esexec.domain.decider import Surroundings
from esexec.domain.effects import dispatch_of
from esexec.domain.ids import is_token
from esexec.domain.settings import TaskInfo
from esexec.domain.strategies import Strategy
from tests.given import (
    History,
    advised,
    cancel,
    checkpoint,
    completed,
    due,
    failed,
    fatal,
    given,
    in_words,
    lost,
    restore,
    retry,
    rollback,
    start,
    started,
    step,
    timer_of,
    undone,
)

PARALLEL = {"parallel": True}
UNDOABLE = Surroundings(tasks={"a": TaskInfo(compensate="undo_a"), "b": TaskInfo(compensate="undo_b")})


def code_of(history: History, message: object) -> str:
    error = history.when(message).then_nothing("refused").verdict.error  # type: ignore[arg-type]
    assert error is not None
    assert error.hint
    return error.code


def test_a_retry_keeps_what_completed_and_runs_the_rest_as_the_next_run() -> None:
    """Same id, `run` + 1; attempts begin at 1 again; outputs of completed steps are referred to as before."""
    history = given(start("a", step("b", "a", params={"n": "${steps.a.output}"}), step("c", "b")), completed("a", 7), fatal("b"))
    assert [one.status for one in history.state.steps] == ["completed", "failed", "skipped"]
    outcome = history.when(retry()).then(e.ExecutionRetried(run=2), e.TaskScheduled(step="b", run=2))
    state = outcome.state
    assert (state.status, state.run, state.error, state.failed, state.ended_at) == ("running", 2, None, [], None)
    assert in_words(outcome.effects) == ["dispatch b/2-1"]
    assert (dispatch_of(state, 1).params, dispatch_of(state, 1).run) == ({"n": 7}, 2)
    outcome.when(completed("b", run=2)).then_types("task_started b", "task_completed b", "task_scheduled c")


def test_a_cancelled_execution_runs_again() -> None:
    """What was cancelled runs; what completed is kept."""
    history = given(start("a", "b", "c"), completed("a"), cancel(), due())
    history.when(retry()).then_types("execution_retried", "task_scheduled b")
    assert not history.state.stopping


def test_after_a_rollback_all_steps_run_again() -> None:
    """They were undone: nothing of them is kept."""
    history = given(start("a", "b"), completed("a", 1), fatal("b"), undone("a"), around=UNDOABLE)
    assert history.state.status == "rolled_back"
    outcome = history.when(retry()).then_types("execution_retried", "task_scheduled a")
    assert outcome.state.steps[0].output is None


def test_after_a_partial_rollback_only_what_was_not_undone_is_kept() -> None:
    """A step whose undoing failed still stands, so it does not run again."""
    history = given(start("a", "b", "c"), completed("a"), completed("b"), fatal("c"), fatal("b", 2), undone("a"), around=UNDOABLE)
    assert history.state.rollback_status == "partial"
    history.when(retry()).then_types("execution_retried", "task_scheduled a")
    history.when(completed("a", run=2)).then_types("task_started a", "task_completed a", "task_scheduled c")


def test_what_a_rollback_listed_as_skipped_runs_again_too() -> None:
    """`rolled_back` means from the beginning, for every step."""
    history = given(start("a", "x", "z"), completed("a"), completed("x"), fatal("z"), undone("a"), around=UNDOABLE)
    assert history.state.status == "rolled_back"
    state = history.when(retry()).state
    assert [one.status for one in state.steps] == ["pending", "pending", "pending"]


def test_what_a_strategy_let_be_skipped_runs_again() -> None:
    """That it was left out was for the run that is over; what went on without it is kept, for it completed."""
    around = Surroundings(strategies=(Strategy(id="s", applicable_errors=("ASK",)),))
    history = given(
        start("a", step("b", "a"), "c"), failed("a", code="ASK", retryable=False), advised("a", "skip"), around=around
    )
    history.happen(completed("b", 1))
    history.happen(fatal("c"))
    assert [one.status for one in history.state.steps] == ["skipped", "completed", "failed"]
    history.when(retry()).then_types("execution_retried", "task_scheduled a")
    assert [one.status for one in history.state.steps] == ["pending", "completed", "pending"]
    history.when(completed("a", run=2)).then_types("task_started a", "task_completed a", "task_scheduled c")


def test_only_what_did_not_complete_can_be_retried() -> None:
    """A completed execution, one that goes on, one that is not known: each has its refusal."""
    assert code_of(given(start("a"), completed("a")), retry()) == "nothing_to_retry"
    assert code_of(given(start("a")), retry()) == "not_ended"
    assert code_of(given(), retry()) == "not_found"


# One step --------------------------------------------------------------------------------------------------------------


def test_one_failed_step_is_retried_and_the_other_failures_stand() -> None:
    """With several failed steps the retry of one runs that one and what waits for it; the end is failed because of the others."""
    plan = start("a", "b", step("c", "a"), step("d", "b"), plan_fields=PARALLEL, config={"continue_on_error": True})
    history = given(plan, fatal("a"), fatal("b"))
    outcome = history.when(retry("a")).then_types("execution_retried a", "task_scheduled a")
    assert [one.status for one in outcome.state.steps] == ["pending", "failed", "pending", "skipped"]
    history.when(completed("a", run=2)).then_types("task_started a", "task_completed a", "task_scheduled c")
    end = history.when(completed("c", run=2)).then_types("task_started", "task_completed", "execution_failed").events[-1]
    assert isinstance(end, e.ExecutionFailed)
    assert end.failed_steps == ("b",)


def test_a_step_that_waits_for_two_failed_ones_stays_skipped_while_one_of_them_stands() -> None:
    """Retrying one dependency does not make the other one good."""
    plan = start("a", "b", step("c", "a", "b"), plan_fields=PARALLEL, config={"continue_on_error": True})
    history = given(plan, fatal("a"), fatal("b"), retry("a"))
    history.when(completed("a", run=2)).then_types("task_started a", "task_completed a", "execution_failed")
    assert history.state.steps[2].status == "skipped"
    history.when(retry("b", id="second")).then_types("execution_retried b", "task_scheduled b")
    history.when(completed("b", run=3)).then_types("task_started b", "task_completed b", "task_scheduled c")
    history.when(completed("c", run=3)).then_types("task_started c", "task_completed c", "execution_completed")


def test_the_retry_of_one_step_runs_what_was_cut_off_too() -> None:
    """Steps that never ran because the execution failed run with it, for nothing else keeps them from it."""
    history = given(start("a", "b", "c"), fatal("a"))
    history.when(retry("a")).then_types("execution_retried a", "task_scheduled a")
    history.when(completed("a", run=2)).then_types("task_started a", "task_completed a", "task_scheduled b")


def test_only_a_failed_step_is_retried_alone() -> None:
    """A step that completed, was skipped, or is not of the plan is refused; the nearest name is hinted at."""
    history = given(start("load", "b", "c"), completed("load"), fatal("b"))
    assert code_of(history, retry("load")) == "nothing_to_retry"
    assert code_of(history, retry("c")) == "nothing_to_retry"
    assert code_of(history, retry("nobody")) == "unknown_step"
    error = history.when(retry("laod")).verdict.error
    assert error is not None
    assert "load" in (error.hint or "")


# Late, old, left over --------------------------------------------------------------------------------------------------


def test_reports_of_an_older_run_change_nothing() -> None:
    """What an abandoned handler of run 1 says in the end is stale; run 2 has its own attempts."""
    history = given(start("a"), cancel(), due(), retry())
    for late in (completed("a"), fatal("a"), started("a"), lost("a", 10)):
        history.when(late).then_nothing("stale")
    history.when(completed("a", run=2)).then_types("task_started a", "task_completed a", "execution_completed")


def test_a_report_of_a_run_that_is_not_known_is_unknown() -> None:
    """This history may simply be behind."""
    given(start("a"), fatal("a"), retry()).when(completed("a", run=3)).then_nothing("unknown")


def test_timers_of_an_older_run_have_no_effect() -> None:
    """A retry that was waited for in run 1 does not begin an attempt of run 2."""
    history = given(start("a", "b", plan_fields=PARALLEL), failed("a"))
    timer = timer_of(history.state, due("a"))
    history.happen(fatal("b"))
    history.happen(retry())
    assert timer is not None
    history.when(r.Due(str(timer))).then_nothing("stale")


def test_each_run_has_all_its_retries() -> None:
    """A new run forgets how often a step was tried."""
    history = given(start("a", config={"max_retries": 1}), failed("a"), due("a"), failed("a", 2))
    assert history.state.ended
    history.happen(retry())
    history.when(failed("a", run=2)).then_types("task_started a", "task_failed a", "task_retry_scheduled a")


def test_variables_outlive_a_run() -> None:
    """What a failed run noted is there in the next."""
    history = given(start("a"), failed("a", retryable=False, vars={"seen": 3}), retry())
    assert history.state.variables == {"seen": 3}


def test_it_can_be_retried_again_and_again() -> None:
    """Each failed run can be followed by another."""
    history = given(start("a"))
    for run in range(1, 5):
        history.happen(fatal("a", run=run))
        history.when(retry(id=f"retry{run}")).then(e.ExecutionRetried(run=run + 1), e.TaskScheduled(step="a", run=run + 1))


def test_the_effects_of_a_run_that_is_over_are_void() -> None:
    """Repeating a commit of run 1 hands out nothing once run 2 has begun."""
    history = given(start("a"), fatal("a"), retry())
    first = history.commits[0]
    assert fx.effects_of(first.events, first.version, history.state, 1) == []


# As a new execution ----------------------------------------------------------------------------------------------------


def test_a_retry_as_a_new_execution_starts_one_that_takes_the_outputs_along() -> None:
    """The old one only notes the new one's id; the new one runs what did not complete."""
    plan = start("a", step("b", params={"n": "${steps.a.output.n}"}), input={"i": 1}, context={"u": 2}, metadata={"m": 3})
    history = given(plan, completed("a", {"n": 7}), fatal("b"))
    outcome = history.when(retry(as_new=True, new_id="e2")).then(e.ExecutionForked(new_id="e2"))
    assert outcome.state.status == "failed"
    (effect,) = outcome.effects
    assert isinstance(effect, fx.StartFork)
    forked = History(execution="e2")
    begun = forked.when(effect.command).then_types("execution_created", "execution_started", "task_scheduled b")
    created = begun.events[0]
    assert isinstance(created, e.ExecutionCreated)
    assert (created.forked_from, created.kept) == ("e1", {"a": {"n": 7}})
    assert (created.input, created.context, created.metadata) == ({"i": 1}, {"u": 2}, {"m": 3})
    assert dispatch_of(begun.state, 1).params == {"n": 7}
    begun.when(completed("b")).then_types("task_started b", "task_completed b", "execution_completed")


def fork_of(history: History, n: int) -> StartExecution:
    """The start that commit `n` asks for, as things are now."""
    commit = history.commits[n - 1]
    (effect,) = (one for one in fx.effects_of(commit.events, commit.version, history.state, n) if isinstance(one, fx.StartFork))
    return effect.command


def test_a_fork_that_is_started_late_takes_along_what_there_was_when_it_was_asked_for() -> None:
    """Whatever the old execution did since: its own retry completed more, and did some of it again."""
    history = given(start("a", "b", "c"), checkpoint(), completed("a", 1), fatal("b"), retry(as_new=True, new_id="e2"))
    n = history.state.n
    first = fork_of(history, n)
    for message in (retry(id="in place"), completed("b", 2, run=2), restore("e1.4"), completed("a", 3, run=3)):
        history.happen(message)
    assert [one.output for one in history.state.steps] == [3, None, None]
    assert fork_of(history, n) == first
    assert first.kept == {"a": 1}


def test_a_fork_does_not_take_along_what_was_undone_since() -> None:
    """A rollback came before the new execution was started: what is not there any more cannot be built upon."""
    history = given(start("a", "b", config={"enable_rollback": False}), completed("a", 1), fatal("b"), around=UNDOABLE)
    history.happen(retry(as_new=True, new_id="e2"))
    n = history.state.n
    for message in (rollback(), undone("a")):
        history.happen(message)
    assert fork_of(history, n).kept == {}


def test_each_fork_starts_its_own() -> None:
    """The start's id is told by the fork, so that the same fork is started once, and two forks are two."""
    history = given(start("a"), fatal("a"))
    ids = set()
    for number in (2, 3):
        history.happen(retry(id=f"r{number}", as_new=True, new_id=f"e{number}"))
        ids |= {fork_of(history, history.state.n).id for _ in range(2)}
    assert len(ids) == 2
    assert all(is_token(id) for id in ids)


def test_without_a_name_the_new_execution_is_called_as_the_command() -> None:
    """So that the same command again means the same execution; the effect's command is the same too."""
    history = given(start("a"), fatal("a"), retry(id="order-66", as_new=True))
    event = history.events[-1]
    assert isinstance(event, e.ExecutionForked)
    assert event.new_id == "order-66"
    commit = history.commits[-1]
    effects = [fx.effects_of(commit.events, commit.version, history.state, commit.n) for _ in range(2)]
    assert effects[0] == effects[1] != []


def test_a_fork_after_a_rollback_takes_nothing_along() -> None:
    """What was undone is no output any more."""
    history = given(start("a", "b"), completed("a", 1), fatal("b"), undone("a"), around=UNDOABLE)
    outcome = history.when(retry(as_new=True, new_id="e2")).then(e.ExecutionForked(new_id="e2", all_again=True))
    (effect,) = outcome.effects
    assert isinstance(effect, fx.StartFork)
    assert effect.command.kept == {}


def test_a_fork_after_a_partial_rollback_takes_along_what_stands() -> None:
    """As a retry in place keeps it."""
    history = given(
        start("a", "b", "c"), completed("a", 1), completed("b", 2), fatal("c"), fatal("b", 2), undone("a"), around=UNDOABLE
    )
    (effect,) = history.when(retry(as_new=True, new_id="e2")).then(e.ExecutionForked(new_id="e2")).effects
    assert isinstance(effect, fx.StartFork)
    assert effect.command.kept == {"b": 2}


def test_a_fork_does_not_undo_what_it_took_along() -> None:
    """Its rollback concerns what it did itself; the original's steps stand in the original's history."""
    history = given(start("a", "b", config={"enable_rollback": False}), completed("a"), fatal("b"), around=UNDOABLE)
    (effect,) = history.when(retry(as_new=True, new_id="e2")).effects
    assert isinstance(effect, fx.StartFork)
    command = msgspec.structs.replace(effect.command, config=type(effect.command.config)())
    forked = History(execution="e2", around=UNDOABLE)
    forked.happen(command)
    forked.when(fatal("b")).then_types("task_started b", "task_failed b", "execution_failed")
    assert code_of(forked, rollback()) == "nothing_to_compensate"


@pytest.mark.parametrize("new_id", ["_ours", "a b", "e1", "é", "x" * 65])
def test_a_new_executions_id_is_checked(new_id: str) -> None:
    """It is an execution's id, and another one than this execution's."""
    assert code_of(given(start("a"), fatal("a")), retry(as_new=True, new_id=new_id)) == "bad_execution_id"


def test_a_step_cannot_be_retried_as_a_new_execution() -> None:
    """Either one step here, or all the rest elsewhere."""
    assert code_of(given(start("a"), fatal("a")), retry("a", as_new=True, new_id="e2")) == "step_of_new"


def test_outputs_that_are_too_large_to_take_along_are_refused() -> None:
    """`limits.fork_bytes`; the retry in place stays possible."""
    history = given(start("a", "b", "c"))
    for name in ("a", "b"):
        history.happen(completed(name, "x" * (limits.fork_bytes // 2)))
    history.happen(fatal("c"))
    assert code_of(history, retry(as_new=True, new_id="e2")) == "fork_too_large"
    history.when(retry(id="in place")).then_types("execution_retried", "task_scheduled c")


def test_a_start_that_keeps_what_is_no_step_is_invalid() -> None:
    """`kept` names steps of the plan."""
    command = msgspec.structs.replace(start("a"), kept={"x": 1})
    error = given().when(command).then_nothing("invalid").verdict.error
    assert error is not None
    assert error.code == "unknown_step"


def test_a_start_that_keeps_every_step_is_completed_at_once() -> None:
    """There is nothing left to do."""
    command: StartExecution = msgspec.structs.replace(start("a"), kept={"a": 1})
    outcome = given().when(command).then_types("execution_created", "execution_started", "execution_completed")
    assert outcome.state.output_of("a") == 1


def test_a_checkpoint_outlives_a_retry() -> None:
    """Checkpoints belong to the execution, not to a run."""
    history = given(start("a"), checkpoint(), fatal("a"), retry())
    assert list(history.state.checkpoints) == ["e1.4"]
