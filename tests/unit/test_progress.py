"""How long it will take still: the plan that is left, scheduled by how long its steps took in the past."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given as of_any
from hypothesis import settings
from hypothesis import strategies as st

from esexec.domain.state import ExecutionState
from esexec.views import Durations
from projections import progress
from projections.progress import Estimator, remaining_ms
from tests.given import History, at, cancel, completed, failed, fatal, given, pause, start, started, step


def left(history: History, seconds: float, durations: Durations, **fractions: float) -> float | None:
    """In seconds, as of so many after the beginning."""
    found = remaining_ms(history.state, durations, at(seconds), fractions)
    return None if found is None else found / 1000


def of(**steps: float) -> Durations:
    """Means, in seconds."""
    return Durations(steps={name: 1000.0 * seconds for name, seconds in steps.items()}, runs=1)


def begun(*steps: Any, when: float = 0, **fields: Any) -> History:
    history = History()
    history.happen(start(*steps, **fields), when=when)
    return history


def test_one_behind_the_other() -> None:
    """Steps that wait for each other add up, with what each takes besides."""
    history = begun("a", step("b", "a"), step("c", "b"))
    assert left(history, 0, of(a=1, b=2, c=3)) == 6
    assert left(history, 0, Durations(steps={"a": 1000, "b": 2000, "c": 3000}, overhead_ms=100)) == 6.3


def test_side_by_side_the_longest_path_counts() -> None:
    """Of two branches the longer one tells how long it takes."""
    history = begun("a", step("b", "a"), step("c", "a"), step("d", "c"), plan_fields={"parallel": True})
    assert left(history, 0, of(a=1, b=2, c=3, d=4)) == 8


def test_the_limit_is_kept() -> None:
    """No more than the limit run at once; steps not marked parallel take turns, beside those that are."""
    four = of(a=2, b=2, c=2, d=2)
    wide = begun("a", "b", "c", "d", plan_fields={"parallel": True}, config={"parallel_execution_limit": 2})
    assert left(wide, 0, four) == 4
    assert left(begun("a", "b", "c", "d"), 0, four) == 8
    mixed = begun("a", "b", step("c", parallel=True), step("d", parallel=True))
    assert left(mixed, 0, four) == 4


def test_what_runs_has_done_a_part() -> None:
    """A step that runs needs what its mean leaves; one that takes longer than it used to, a tenth of it still."""
    history = begun("a", step("b", "a"))
    history.happen(started("a", began=2), when=2)
    assert left(history, 3, of(a=4, b=1)) == 4
    assert left(history, 60, of(a=4, b=1)) == 1.4


def test_what_a_handler_tells_is_believed() -> None:
    """A handler that says how far it is knows more than the past."""
    history = begun("a", step("b", "a"))
    history.happen(started("a", began=0), when=0)
    assert left(history, 10, of(a=4, b=1), a=0.25) == 31
    assert left(history, 10, of(a=40, b=1), a=0.01) == 31, "one that has just begun does not"


def test_a_retry_is_waited_for() -> None:
    """A step is not done before its retry is due, whatever it used to take."""
    history = begun("a", config={"jitter": 0.0, "initial_retry_delay_ms": 30_000})
    history.happen(failed("a"), when=1)
    assert left(history, 1, of(a=2)) == 30
    assert left(history, 1, of(a=60)) == 59


def test_a_step_that_never_ran() -> None:
    """Its task's mean is taken, else the mean of the others; without any past there is no estimate."""
    history = begun("a", step("b", "a", task="load"), step("c", "b"))
    assert left(history, 0, Durations(steps={"a": 1000}, tasks={"load": 5000})) == 7
    assert left(history, 0, Durations(tasks={"load": 5000})) == 15
    assert left(history, 0, Durations(runs=3)) is None


def test_nobody_knows_when_it_goes_another_way() -> None:
    """Paused, failing, cancelling, being undone: None; ended: 0."""
    durations = of(a=1, b=1)
    assert left(given(start("a", "b"), pause()), 9, durations) is None
    assert (
        left(given(start("a", "b", plan_fields={"parallel": True}), started("a"), started("b"), fatal("a")), 9, durations) is None
    )
    assert left(given(start("a"), started("a"), cancel()), 9, durations) is None
    assert remaining_ms(ExecutionState("e1"), durations, at(0)) is None
    waits = start("a", config={"concurrency": {"key": "k", "limit": 1}})
    assert left(given(waits), 9, durations) is None
    done = given(start("a"), completed("a"))
    assert left(done, 9, durations) == 0


def test_a_start_time_is_waited_for() -> None:
    """What has not started yet takes until then, and its steps."""
    assert left(begun("a", "b", start_at=at(100)), 40, of(a=1, b=2)) == 63


def test_what_can_never_run_takes_no_time() -> None:
    """Steps behind a failed one are skipped, if the others go on."""
    history = begun(
        "a", step("b", "a"), "c", config={"continue_on_error": True, "max_retries": 0}, plan_fields={"parallel": True}
    )
    history.happen(failed("a"), when=1)
    assert left(history, 1, of(a=1, b=100, c=3)) == 3


durations_s = st.integers(0, 20)


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, float], int]:
    """Steps, how long each takes, and the limit."""
    count = draw(st.integers(1, 8))
    names = [f"s{n}" for n in range(count)]
    steps = [
        step(name, *draw(st.sets(st.sampled_from(names[:n]), max_size=2) if n else st.just(set())), parallel=draw(st.booleans()))
        for n, name in enumerate(names)
    ]
    return steps, {name: draw(durations_s) for name in names}, draw(st.integers(1, 4))


@settings(max_examples=100, deadline=None)
@of_any(plans())
def test_it_schedules_as_the_core_does(plan: tuple[list[dict[str, Any]], dict[str, float], int]) -> None:
    """If each step takes exactly what it used to, every estimate on the way names the moment of the end (but for what is allowed
    to steps that are late, by which one that is about to end might be put behind another)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "_OVERRUN", 0.0)
        _schedules_as_the_core_does(*plan)


def _schedules_as_the_core_does(steps: list[dict[str, Any]], takes: dict[str, float], limit: int) -> None:
    history = begun(*steps, config={"parallel_execution_limit": limit})
    estimates, now, began = [], 0.0, dict[str, float]()
    while not history.state.ended:
        state = history.state
        for index in state.in_flight:
            began.setdefault(state.graph.steps[index].id, now)
        estimates.append((now, left(history, now, of(**takes))))
        running = [state.graph.steps[index].id for index in state.in_flight]
        first = min(running, key=lambda name: (began[name] + takes[name], int(name[1:])))
        now = began[first] + takes[first]
        for name in running:
            if history.state.steps[int(name[1:])].first_started_at is None:
                history.happen(started(name, began=began[name]), when=now)
        history.happen(completed(first, began=began[first], ended=now), when=now)
    assert [when + (estimate or 0) for when, estimate in estimates] == [now] * len(estimates)


def test_between_two_schedules_the_last_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a large plan the estimate is not made anew for every commit, but counts down; paused, there is none at once."""
    count = 500
    history = begun(*(step(f"s{n}") for n in range(count)))
    state, made = history.state, []
    whole = progress.remaining_ms

    def counted(*given: Any) -> int | None:
        made.append(given)
        return whole(*given)

    monkeypatch.setattr(progress, "remaining_ms", counted)
    estimator = Estimator(Durations(steps={f"s{n}": 10.0 for n in range(count)}))
    assert estimator.remaining_ms(state, at(0)) == 5_000
    assert estimator.remaining_ms(state, at(0) + timedelta(milliseconds=20)) == 4_980
    assert len(made) == 1
    assert estimator.remaining_ms(state, at(0.06)) == 5_000, "nothing has been done meanwhile"
    assert len(made) == 2
    history.happen(pause(), when=0.061)
    assert estimator.remaining_ms(history.state, at(0.062)) is None
    assert len(made) == 2
