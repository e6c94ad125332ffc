"""A state gets a name, and the execution can go back to it: as a new run, with what was completed by then."""

import pytest

from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.checkpoints import view_of
from esexec.domain.decider import Surroundings
from esexec.domain.effects import dispatch_of
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
    pause,
    restore,
    resume,
    retry,
    start,
    started,
    step,
    timer_of,
)

PARALLEL = {"parallel": True}


def statuses(history: History) -> str:
    return " ".join(one.status for one in history.state.steps)


# Making them -----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_named_by_its_event() -> None:
    """`<execution>.<version>`; it holds who asked, what was noted, and which one it comes after."""
    history = given(start("a", "b"), completed("a", vars={"k": 1}))
    outcome = history.when(checkpoint(why="lunch"), at=7)
    outcome.then(e.CheckpointCreated(checkpoint_id="e1.7", metadata={"why": "lunch"}))
    kept = outcome.state.checkpoints["e1.7"]
    assert (kept.id, kept.version, kept.n, kept.time) == ("e1.7", 7, 3, at(7))
    assert (kept.by, kept.metadata, kept.before) == ("command", {"why": "lunch"}, None)
    outcome.when(checkpoint("next")).then(e.CheckpointCreated(checkpoint_id="e1.8"))
    assert history.state.checkpoints["e1.8"].before == "e1.7"


def test_the_state_of_a_checkpoint_is_what_people_asked_for() -> None:
    """`current_task_id`, `completed_tasks`, `task_states`, `resource_allocations`, `variables`."""
    history = given(start("a", "b", "c"), completed("a", 7, vars={"k": 1}), started("b"))
    view = view_of(history.state)
    assert (view.current_task_id, view.completed_tasks, view.variables, view.resource_allocations) == ("b", ["a"], {"k": 1}, {})
    assert {name: (one.status, one.output) for name, one in view.task_states.items()} == {
        "a": ("completed", 7),
        "b": ("running", None),
        "c": ("pending", None),
    }
    assert view_of(history.state, outputs=False).task_states["a"].output is None


def test_one_after_every_task() -> None:
    """`checkpoint_every: task`: in the commit of the completion, before what follows from it."""
    history = given(start("a", "b", config={"checkpoint_every": "task"}))
    outcome = history.when(completed("a"))
    outcome.then_types("task_started a", "task_completed a", "checkpoint_created", "task_scheduled b")
    assert outcome.events[2] == e.CheckpointCreated(checkpoint_id="e1.6", by="task")
    history.when(restore("e1.6")).then_types("checkpoint_restored", "task_scheduled b")


def test_one_every_so_often_until_the_end() -> None:
    """`checkpoint_interval_ms`: each sets the timer of the next; the end of the execution clears it."""
    history = given(start("a", config={"checkpoint_interval_ms": 5_000}))
    assert in_words(fx.open_effects(history.state)) == ["dispatch a/1-1", "timer 2 in 5 s"]
    for expected in (4, 5):
        outcome = history.when(due(kind="checkpoint"))
        outcome.then(e.CheckpointCreated(checkpoint_id=f"e1.{expected}", by="interval"))
        assert in_words(outcome.effects) == [f"timer {expected} in 5 s"]
    outcome = history.when(completed("a"))
    assert in_words(outcome.effects) == ["clear 5"]


def test_a_timer_of_a_checkpoint_that_fires_twice_makes_one() -> None:
    """The second time it is stale, and names the commit whose effects it may repeat."""
    history = given(start("a", config={"checkpoint_interval_ms": 5_000}))
    message = r.Due(str(timer_of(history.state, due(kind="checkpoint"))))
    history.when(message).then_types("checkpoint_created")
    assert history.when(message).then_nothing("stale").verdict.n == 2


def test_a_very_short_interval_is_taken_as_the_shortest() -> None:
    """`limits.checkpoint_interval_min_ms`."""
    history = given(start("a", config={"checkpoint_interval_ms": 1}))
    assert in_words(fx.open_effects(history.state))[1] == f"timer 2 in {limits.checkpoint_interval_min_ms / 1000:g} s"


def test_they_go_on_during_a_pause_and_in_the_next_run() -> None:
    """A pause is no end; a new run begins counting anew."""
    history = given(start("a", config={"checkpoint_interval_ms": 5_000}), pause())
    history.when(due(kind="checkpoint")).then_types("checkpoint_created")
    history.happen(resume())
    history.happen(fatal("a"))
    assert history.state.timers == {}
    outcome = history.when(retry())
    assert in_words(outcome.effects) == [f"timer {outcome.decision.first_version} in 5 s", "dispatch a/2-1"]


def test_one_that_cannot_be_made_is_a_message_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit an automatic checkpoint says so once, and they end; the execution goes on."""
    monkeypatch.setattr(limits, "checkpoints_per_execution", 1)
    history = given(start("a", "b", "c", config={"checkpoint_interval_ms": 5_000, "checkpoint_every": "task"}))
    history.when(due(kind="checkpoint")).then_types("checkpoint_created")
    outcome = history.when(due(kind="checkpoint")).then_types("checkpoint_failed")
    assert outcome.effects == []
    assert outcome.state.timers == {}
    history.when(completed("a")).then_types("task_started", "task_completed", "task_scheduled")
    assert history.happen(fatal("b")).state.ended
    assert in_words(history.when(retry()).effects) == ["dispatch b/2-1"]


def test_at_the_limit_a_checkpoint_by_hand_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody asked, so somebody gets the answer."""
    monkeypatch.setattr(limits, "checkpoints_per_execution", 1)
    history = given(start("a"), checkpoint("one"))
    error = history.when(checkpoint("two")).then_nothing("refused").verdict.error
    assert error is not None
    assert error.code == "too_many_checkpoints"


# Going back --------------------------------------------------------------------------------------------------------------


def test_what_completed_after_the_checkpoint_runs_again_without_being_undone() -> None:
    """`run` + 1, nothing deleted: what completed before is kept with its output."""
    plan = start("a", "b", step("c", params={"n": "${steps.a.output}"}))
    history = given(plan, completed("a", 7), checkpoint(), completed("b", 8))
    outcome = history.when(restore("e1.7", reason="once more"))
    outcome.then(
        e.CheckpointRestored(checkpoint_id="e1.7", run=2, reason="once more", abandoned=("c/1",)),
        e.TaskScheduled(step="b", run=2),
    )
    assert statuses(history) == "completed pending pending"
    assert history.state.steps[0].output == 7
    history.happen(completed("b", 9, run=2))
    assert dispatch_of(history.state, 2).params == {"n": 7}


def test_what_was_open_is_given_up() -> None:
    """Its dispatch is taken back or its worker told, nobody waits for it, and its reports are stale."""
    history = given(start("a", "b", plan_fields=PARALLEL), checkpoint(), started("a"))
    outcome = history.when(restore("e1.5"))
    assert in_words(outcome.effects) == [
        "dispatch a/2-1",
        "dispatch b/2-1",
        "give up a/1-1: the execution went on without it",
        "give up b/1-1: the execution went on without it",
    ]
    for late in (completed("a"), fatal("a"), lost("a", 10), started("b"), completed("b")):
        history.when(late).then_nothing("stale")
    history.when(completed("a", run=2)).then_types("task_started a", "task_completed a")


def test_the_variables_are_those_of_the_checkpoint() -> None:
    """What was set since is forgotten, what was changed is as it was."""
    history = given(start("a", "b", "c"), completed("a", vars={"k": 1}), checkpoint(), completed("b", vars={"k": 2, "l": 3}))
    assert history.state.variables == {"k": 2, "l": 3}
    history.happen(restore("e1.7"))
    assert history.state.variables == {"k": 1}


def test_an_ended_execution_goes_back_as_well() -> None:
    """Completed, failed, cancelled: it runs again from there, and ends anew."""
    for end in ([completed("b")], [fatal("b")], [cancel(), due()]):
        history = given(start("a", "b"), completed("a"), checkpoint(), *end)
        assert history.state.ended
        history.when(restore("e1.7")).then_types("checkpoint_restored", "task_scheduled b")
        assert (history.state.status, history.state.ended_at, history.state.error) == ("running", None, None)
        history.when(completed("b", run=2)).then_types("task_started b", "task_completed b", "execution_completed")


def test_a_paused_execution_goes_back_and_stays_paused() -> None:
    """The new run's steps wait for the resume."""
    history = given(start("a"), checkpoint(), pause())
    outcome = history.when(restore("e1.4")).then_types("checkpoint_restored")
    assert outcome.state.paused
    history.when(resume()).then_types("execution_resumed", "task_scheduled a")


def test_a_failing_execution_goes_back_and_fails_no_more() -> None:
    """What failed since the checkpoint did not happen."""
    history = given(start("a", "b", plan_fields=PARALLEL), checkpoint(), fatal("a"))
    assert history.state.phase == "failing"
    history.happen(restore("e1.5"))
    assert (history.state.phase, history.state.failed, history.state.error) == ("executing", [], None)


def test_one_can_go_back_to_any_checkpoint_and_forth_again() -> None:
    """Each is as it was, whichever were restored in between, also one of a run that was left."""
    history = given(start("a", "b", "c"))
    history.happen(checkpoint("cp0"))  # e1.4
    history.happen(completed("a", 1))
    history.happen(checkpoint("cp1"))  # e1.8
    history.happen(completed("b", 2))
    history.happen(checkpoint("cp2"))  # e1.12
    history.when(restore("e1.4", id="r1")).then_types("checkpoint_restored", "task_scheduled a")
    history.happen(completed("a", 10, run=2))
    history.happen(checkpoint("cp3"))  # after a's second completion
    second = list(history.state.checkpoints)[-1]
    history.when(restore("e1.12", id="r2")).then_types("checkpoint_restored", "task_scheduled c")
    assert [one.output for one in history.state.steps] == [1, 2, None]
    history.when(restore(second, id="r3")).then_types("checkpoint_restored", "task_scheduled b")
    assert [one.output for one in history.state.steps] == [10, None, None]
    history.when(restore("e1.8", id="r4")).then_types("checkpoint_restored", "task_scheduled b")
    assert [one.output for one in history.state.steps] == [1, None, None]
    history.when(restore("e1.4", id="r5")).then_types("checkpoint_restored", "task_scheduled a")
    assert history.state.run == 6


def test_a_step_that_had_failed_at_the_checkpoint_runs_again() -> None:
    """Only what was completed is kept: with continue_on_error a checkpoint may know of failures."""
    history = given(start("a", "b", "c", config={"continue_on_error": True}), fatal("a"), checkpoint(), completed("b"))
    outcome = history.when(restore("e1.7"))
    outcome.then_types("checkpoint_restored", "task_scheduled a")
    assert statuses(history) == "pending pending pending"


def test_a_step_that_a_strategy_let_be_skipped_stays_skipped() -> None:
    """What was decided before the checkpoint holds."""
    around = Surroundings(strategies=(Strategy(id="s"),))
    history = given(start("a", "b"), fatal("a"), advised("a", "skip"), checkpoint(), completed("b"), around=around)
    history.when(restore(next(iter(history.state.checkpoints)))).then_types("checkpoint_restored", "task_scheduled b")
    assert statuses(history) == "skipped pending"


def test_timers_of_the_run_that_was_left_have_no_effect() -> None:
    """A retry of run 1 is void; its timer is cleared."""
    history = given(start("a"), checkpoint(), failed("a"))
    timer = timer_of(history.state, due("a"))
    outcome = history.when(restore("e1.4"))
    assert f"clear {timer}" in in_words(outcome.effects)
    history.when(r.Due(str(timer))).then_nothing("stale")


def test_a_restore_gives_every_step_its_retries_again() -> None:
    """Attempts begin at 1; what was tried before does not count."""
    history = given(start("a", config={"max_retries": 1}), checkpoint(), failed("a"), due("a"), restore("e1.4"))
    history.when(failed("a", run=2)).then_types("task_started a", "task_failed a", "task_retry_scheduled a")


def test_the_effects_of_a_restore_can_be_repeated() -> None:
    """A crash behind the commit: what is open is handed out, what was given up is given up once more."""
    history = given(start("a", "b", plan_fields=PARALLEL), checkpoint(), restore("e1.5"), completed("a", run=2))
    commit = history.commits[2]
    repeated = in_words(fx.effects_of(commit.events, commit.version, history.state, commit.n))
    assert repeated == [
        "dispatch b/2-1",
        "give up a/1-1: the execution went on without it",
        "give up b/1-1: the execution went on without it",
    ]


def test_the_checkpoint_of_the_last_event_keeps_everything() -> None:
    """A checkpoint right after a completion holds it; the very same state goes on, as a new run."""
    history = given(start("a", "b"), completed("a"), checkpoint(), restore("e1.7"))
    assert statuses(history) == "completed pending"
    history.when(restore("e1.7", id="again")).then_types("checkpoint_restored", "task_scheduled b")
