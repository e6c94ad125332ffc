"""What must happen after a commit, fresh and repeated: always and only what is still open."""

from esexec.domain import effects as fx
from esexec.domain import limits
from esexec.domain.commit import Commit
from esexec.domain.effects import dispatch_of
from tests.given import (
    History,
    at,
    cancel,
    completed,
    due,
    failed,
    fatal,
    given,
    in_words,
    pause,
    resume,
    start,
    started,
    step,
    stopped,
)


def repeated(history: History, n: int) -> list[str]:
    """The effects of commit `n`, as the state is now, in words."""
    commit: Commit = history.commits[n - 1]
    return in_words(fx.effects_of(commit.events, commit.version, history.state, n))


def test_a_scheduled_attempt_is_dispatched() -> None:
    """Each scheduled attempt is one dispatch, in the order of the events."""
    outcome = given().when(start("a", "b", plan_fields={"parallel": True}))
    assert in_words(outcome.effects) == ["dispatch a/1-1", "dispatch b/1-1"]


def test_a_repeated_commit_dispatches_only_what_is_open() -> None:
    """An attempt that has reported since is not handed out again."""
    history = given(start("a", "b", plan_fields={"parallel": True}), completed("a"))
    assert repeated(history, 1) == ["dispatch b/1-1"]
    history.happen(completed("b"))
    assert repeated(history, 1) == []


def test_a_running_attempt_is_still_open() -> None:
    """A start changes nothing about whom the attempt belongs to: its dispatch is repeated if asked for."""
    assert repeated(given(start("a"), started("a")), 1) == ["dispatch a/1-1"]


def test_a_retry_sets_a_timer_named_by_its_event() -> None:
    """The timer's name is the version of the event that set it; once it has fired it is not set again."""
    history = given(start("a"))
    outcome = history.when(failed("a"), at=5)
    version = outcome.state.version
    assert outcome.effects == [fx.SetTimer(version, at(6), 1.0)]
    assert repeated(history, 2) == [f"timer {version} in 1 s"]
    history.happen(due("a"))
    assert repeated(history, 2) == []


def test_a_long_timer_that_fired_needs_no_clearing() -> None:
    """A timer of a second or more is fired by the server, and gone by itself."""
    history = given(start("a", config={"initial_retry_delay_ms": limits.backstop_timer_ms, "jitter": 0.0}), failed("a"))
    assert in_words(history.when(due("a")).effects) == ["dispatch a/1-2"]


def test_a_short_timer_leaves_its_backstop_to_be_cleared_behind_the_dispatch() -> None:
    """Below a second the executor's own timer fires first; what takes its place is dispatched before the backstop goes."""
    history = given(start("a", config={"initial_retry_delay_ms": 100, "jitter": 0.0}), failed("a"))
    timer = history.state.steps[0].timer
    assert in_words(history.when(due("a")).effects) == ["dispatch a/1-2", f"clear {timer}"]


def test_a_cancel_withdraws_what_is_open_and_sets_the_grace() -> None:
    """Each open attempt is withdrawn; retry timers of cancelled steps are cleared."""
    history = given(start("a", "b", plan_fields={"parallel": True}), failed("b"))
    timer = history.state.steps[1].timer
    outcome = history.when(cancel(), at=10)
    assert in_words(outcome.effects) == [f"timer {outcome.state.cancel} in 10 s", "stop a/1-1", f"clear {timer}"]


def test_the_end_of_a_cancel_clears_the_grace() -> None:
    """When everything has stopped in time, the grace timer goes."""
    outcome = given(start("a"), cancel()).when(stopped("a"))
    assert in_words(outcome.effects) == [f"clear {outcome.state.cancel}"]


def test_an_ended_execution_asks_for_nothing() -> None:
    """Completed or failed: nothing is open, whatever is repeated."""
    for history in (given(start("a"), completed("a")), given(start("a"), fatal("a"))):
        assert [repeated(history, n) for n in (1, 2)] == [[], []]
        assert fx.open_effects(history.state) == []


def test_a_nudge_repeats_all_that_is_open() -> None:
    """Dispatches of open attempts and timers that have not fired."""
    history = given(start("a", "b", "c", plan_fields={"parallel": True}), failed("b"), completed("c"))
    timer = history.state.steps[1].timer
    assert in_words(fx.open_effects(history.state)) == ["dispatch a/1-1", f"timer {timer} in 0 s"]


def test_nothing_is_open_before_the_start() -> None:
    """A nudge of an execution that does not exist repeats nothing."""
    assert fx.open_effects(History().state) == []


def test_a_dispatch_of_a_retry_says_which_attempt_it_is() -> None:
    """Attempt and run travel with it."""
    history = given(start(step("a")), failed("a"), due("a"))
    assert (dispatch_of(history.state, 0).attempt, dispatch_of(history.state, 0).run) == (2, 1)


def test_a_resume_hands_out_once_what_it_schedules_itself() -> None:
    """What waited is handed out again, what the same commit schedules by its own event only: twice is once too often."""
    history = given(start("a", "b", step("c", "b"), plan_fields={"parallel": True}), pause(), completed("b"))
    outcome = history.when(resume())
    assert [(one.step, one.again) for one in outcome.effects if isinstance(one, fx.DispatchAttempt)] == [
        ("a", True),
        ("c", False),
    ]
