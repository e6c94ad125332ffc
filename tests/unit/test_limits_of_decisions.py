"""A decision has room for so many events; the rest follows by `continue`. Large plans take near-linear time."""

import gc
import sys
import time

import pytest

from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.advance import has_more
from esexec.domain.commit import Commit
from esexec.domain.compiled import forget_graphs
from esexec.domain.decider import Surroundings, decide, decide_message
from esexec.domain.decision import EVENT_BYTES, EVENTS_PER_MESSAGE, Decision
from esexec.domain.evolve import fold, note_cause
from esexec.domain.settings import TaskInfo
from esexec.domain.state import ExecutionState
from tests.given import (
    History,
    Outcome,
    at,
    cancel,
    checkpoint,
    completed,
    exactly,
    fatal,
    given,
    restore,
    rollback,
    start,
    started,
    step,
)


def continued(outcome: Outcome, *, at_most: int = 100) -> tuple[Outcome, int]:
    """Go on until nothing is left, as the `continue` effects ask; how many it took."""
    for count in range(at_most):
        asked = [effect for effect in outcome.effects if isinstance(effect, fx.ContinueLater)]
        if not asked:
            return outcome, count
        assert exactly(asked) == exactly([fx.ContinueLater(outcome.state.n)])
        outcome = outcome.when(r.Continue(outcome.state.n))
        assert 0 < len(outcome.events) <= limits.events_per_commit
    raise AssertionError("it goes on for ever")


@pytest.fixture
def five_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "events_per_commit", 5)


@pytest.mark.usefixtures("five_events")
def test_a_wide_start_is_cut_and_continued() -> None:
    """Twelve steps that may start together take three decisions of at most five events."""
    names = [f"s{n}" for n in range(12)]
    outcome = given().when(start(*names, plan_fields={"parallel": True}, config={"parallel_execution_limit": 12}))
    outcome.then_types("execution_created", "execution_started", "task_scheduled s0", "task_scheduled s1", "task_scheduled s2")
    assert outcome.decision.unfinished
    last, count = continued(outcome)
    assert count == 2
    assert list(last.state.in_flight) == list(range(12))


@pytest.mark.usefixtures("five_events")
def test_a_continue_that_comes_again_names_the_commit_it_led_to() -> None:
    """The second delivery of a `continue` is `repeated`: its commit's effects can be repeated exactly."""
    names = [f"s{n}" for n in range(6)]
    history = given(start(*names, plan_fields={"parallel": True}, config={"parallel_execution_limit": 6}))
    history.when(r.Continue(1)).then_types("task_scheduled s3", "task_scheduled s4", "task_scheduled s5")
    outcome = history.when(r.Continue(1)).then_nothing("repeated")
    assert outcome.verdict.n == 2
    history.when(r.Continue(2)).then_nothing("ineffective")


@pytest.mark.usefixtures("five_events")
def test_what_was_left_over_is_taken_up_by_whoever_closes_an_attempt() -> None:
    """Another message may decide the rest first; the `continue` then finds nothing. A mere start of a task takes up nothing."""
    names = [f"s{n}" for n in range(6)]
    history = given(start(*names, plan_fields={"parallel": True}, config={"parallel_execution_limit": 6}))
    history.when(started("s0")).then_types("task_started s0")
    history.when(completed("s0")).then_types("task_completed s0", "task_scheduled s3", "task_scheduled s4", "task_scheduled s5")
    history.when(r.Continue(1)).then_nothing("ineffective")


@pytest.mark.usefixtures("five_events")
@pytest.mark.parametrize("config", [{}, {"continue_on_error": True}])
def test_a_chain_of_skips_is_cut_and_continued(config: dict[str, bool]) -> None:
    """A failure at the head of a long chain skips it in several decisions and then ends the execution."""
    names = [step("s0"), *(step(f"s{n}", f"s{n - 1}") for n in range(1, 21))]
    last, count = continued(given(start(*names, config=config)).when(fatal("s0")))
    assert count >= 4
    assert last.state.status == "failed"
    assert [one.because for one in last.state.steps[1:]] == [f"s{n}" for n in range(20)]


@pytest.mark.usefixtures("five_events")
def test_a_cancel_of_many_steps_is_cut_and_continued() -> None:
    """A cancel settles a large plan piece by piece, and ends once."""
    names = [f"s{n}" for n in range(20)]
    last, count = continued(given(start(*names)).when(cancel()))
    assert count >= 3
    assert not last.state.ended
    last, _ = continued(last.when(completed("s0")))
    assert last.state.status == "cancelled"


@pytest.mark.usefixtures("five_events")
def test_the_abandoned_are_named_also_when_the_end_comes_in_a_later_decision() -> None:
    """Who did not stop within the grace stands in `execution_cancelled`, however many decisions the end took."""
    names = [f"s{n}" for n in range(20)]
    history = given(start(*names, plan_fields={"parallel": True}, config={"parallel_execution_limit": 3}), cancel())
    last, _ = continued(history.when(r.Due(str(history.state.cancel))))
    end = last.history.events[-1]
    assert isinstance(end, e.ExecutionCancelled)
    assert end.abandoned == ("s0", "s1", "s2")


@pytest.mark.usefixtures("five_events")
def test_a_rollback_of_many_steps_that_nothing_undoes_is_cut_and_continued() -> None:
    """Listing them takes several decisions; the one that can be undone is the last of all."""
    around = Surroundings(tasks={"s0": TaskInfo(compensate="undo")})
    names = [f"s{n}" for n in range(12)]
    history = given(start(*names), *(completed(name) for name in names), around=around)
    last, count = continued(history.when(rollback()))
    assert count >= 2
    assert [one.compensation for one in last.state.steps] == ["running", *(["skipped"] * 11)]
    assert continued(last.when(completed("s0", None, 2)))[0].state.status == "rolled_back"


@pytest.mark.usefixtures("five_events")
def test_a_new_run_of_many_steps_is_cut_and_continued() -> None:
    """A restore begins what fits, and goes on."""
    names = [f"s{n}" for n in range(12)]
    history = given(start(*names, plan_fields={"parallel": True}, config={"parallel_execution_limit": 12}))
    last, _ = continued(history.when(r.Continue(1)))
    last, _ = continued(last.when(checkpoint("cp")))
    last, count = continued(last.when(restore(next(iter(last.state.checkpoints)))))
    assert count >= 2
    assert list(last.state.in_flight) == list(range(12))
    assert {one.attempt for one in last.state.steps} == {1}


def test_a_decision_is_full_when_its_messages_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes count as well as events."""
    from esexec.domain.decision import Decision

    decision = Decision(ExecutionState("e1"), at(0))
    decision.bytes = limits.commit_bytes
    assert not decision.full
    decision.bytes += 1
    assert decision.full


# Scale ------------------------------------------------------------------------------------------------------------------


def carried_to_its_end(steps: list[dict[str, object]], limit: int) -> tuple[float, ExecutionState]:
    """Seconds of processor time to check a plan, to decide an execution of it that completes, and to fold its history cold."""
    command = start(*steps, plan_fields={"parallel": True}, config={"parallel_execution_limit": limit})
    state, commits = ExecutionState("e1"), []
    waiting = [command]
    forget_graphs()
    gc.collect()
    gc.disable()  # its pauses depend on what other tests left behind
    begun = time.process_time()
    while waiting or has_more(state):
        message = waiting.pop() if waiting else r.Continue(state.n)
        version, known = state.version + 1, state.n
        events = decide(state, message, at(1))
        assert len(events) <= limits.events_per_commit
        if state.n > known:
            commits.append(Commit(v=1, execution_id="e1", n=state.n, version=version, time=at(1), events=tuple(events)))
        waiting.extend(completed(event.step) for event in events if isinstance(event, e.TaskScheduled))
    forget_graphs()
    folded = fold("e1", commits)
    seconds = time.process_time() - begun
    gc.enable()
    assert folded.status == state.status == "completed"
    note_cause(folded, "c1", at(1))
    return seconds, folded


def wide(count: int) -> list[dict[str, object]]:
    return [step("root"), *(step(f"s{n}", "root") for n in range(count - 2)), step("end", *(f"s{n}" for n in range(count - 2)))]


def chain(count: int) -> list[dict[str, object]]:
    return [step("s0"), *(step(f"s{n}", f"s{n - 1}") for n in range(1, count))]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [wide, chain])
def test_ten_times_the_steps_take_about_ten_times_as_long(shape: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 against 10,000 steps: at most 12 times the work, and no recursion."""
    assert callable(shape)
    monkeypatch.setattr(limits, "plan_bytes", 4 * 1024 * 1024)  # the dependencies of 10,000 steps alone are longer
    few = min(carried_to_its_end(shape(1_000), 1000)[0] for _ in range(5))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(250)
    try:
        many = min(carried_to_its_end(shape(10_000), 1000)[0] for _ in range(3))
    finally:
        sys.setrecursionlimit(limit)
    assert many <= 12 * few, f"{many:.3f} s for 10,000 steps, {few:.3f} s for 1,000"


def test_a_failure_before_ten_thousand_steps_is_settled_without_recursion() -> None:
    """A chain of thousands is skipped in decisions of bounded size."""
    names = chain(3_000)
    history = History()
    history.happen(start(*names))
    history.commit(decide(history.state, fatal("s0"), at(2)))
    while has_more(history.state):
        history.commit(decide(history.state, r.Continue(history.state.n), at(3)))
    assert history.state.status == "failed"
    assert len(history.commits) >= 3_000 // limits.events_per_commit


def test_a_commit_keeps_within_its_bytes() -> None:
    """A further message is decided into a commit only if its bytes, and what its events take beside them, have room; the first
    always is."""
    decision = Decision(ExecutionState("e1"), at(0))
    decision.bytes += 200_000
    decide_message(decision, start(*wide(100)), at(0))
    events = len(decision.events) + EVENTS_PER_MESSAGE
    assert decision.has_room(limits.commit_bytes - 200_000 - events * EVENT_BYTES)
    assert not decision.has_room(limits.commit_bytes - 200_000 - events * EVENT_BYTES + 1)
