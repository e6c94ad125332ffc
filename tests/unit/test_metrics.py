"""The metrics of one execution, computed by hand for three histories; and what holds while it runs."""

import pytest

from esexec.domain import events as e
from esexec.domain.flow import ResourceUsage
from esexec.domain.measures import Measured
from esexec.domain.state import ExecutionState
from esexec.views import ExecutionMetrics
from projections.metrics import Holdings, Meter, metrics_of
from tests.given import (
    EXECUTION,
    History,
    at,
    completed,
    due,
    failed,
    fatal,
    given,
    granted,
    pause,
    resume,
    retry,
    start,
    started,
    step,
)


def as_of(history: History, seconds: float | None = None) -> ExecutionMetrics:
    found = metrics_of(history.commits, None if seconds is None else at(seconds))
    assert found is not None
    return found


def test_by_hand_two_side_by_side_and_one_behind() -> None:
    """Two attempts that overlap count once, and the time between them and the third counts not at all."""
    history = History()
    history.happen(start(step("a"), step("b"), step("c", "a", "b"), plan_fields={"parallel": True}), when=10)
    history.happen(completed("a", began=11, ended=13, measured=Measured(cost=0.5, quality=0.8)), when=14)
    history.happen(completed("b", began=12, ended=16, measured=Measured(cost=0.25)), when=16)
    history.happen(completed("c", began=18, ended=20, measured=Measured(quality=0.4)), when=20)
    # from 10 to 20; busy from 11 to 16 and from 18 to 20
    assert as_of(history) == ExecutionMetrics(
        as_of=at(20),
        total_duration_ms=10_000,
        effective_duration_ms=7_000,
        total_cost=0.75,
        efficiency=0.7,
        success_rate=1.0,
        error_rate=0.0,
        throughput=0.3,
        resource_efficiency=None,
        quality_score=pytest.approx(0.6),
        attempts=3,
        failed_attempts=0,
    )


def test_by_hand_a_retry_and_a_failure() -> None:
    """Every attempt counts for the error rate, every step for the success rate; back-off is not effective."""
    history = History()
    history.happen(start(step("a"), step("b", "a"), step("c", "b"), config={"jitter": 0.0, "enable_rollback": False}), when=0)
    history.happen(failed("a", measured=Measured(cost=1.0)), when=1)  # ran from 0 to 1
    history.happen(due("a"), when=2)
    history.happen(completed("a", None, 2, began=2, ended=4, measured=Measured(cost=2.0, quality=1.0)), when=4)
    history.happen(fatal("b"), when=8)  # ran for a second by its clock
    assert as_of(history) == ExecutionMetrics(
        as_of=at(8),
        total_duration_ms=8_000,
        effective_duration_ms=4_000,
        total_cost=3.0,
        efficiency=0.5,
        success_rate=1 / 3,  # a completed, b failed, c was skipped
        error_rate=2 / 3,
        throughput=0.125,
        resource_efficiency=None,
        quality_score=1.0,
        attempts=3,
        failed_attempts=2,
    )


def test_by_hand_resources_a_pause_and_a_second_run() -> None:
    """Resources are weighed by what they cost, and all runs count, with the time between them."""
    history = History()
    command = start(step("a", resources=[{"type": "gpu", "amount": 2}]), "b", config={"enable_rollback": False, "max_retries": 0})
    history.happen(command, when=0)
    history.happen(granted("a", by="resources"), when=1)  # two, at 0.5 a second each
    history.happen(completed("a", began=3, ended=5), when=5)  # held for 4 s, used for 2: costs 4
    history.happen(pause(), when=6)
    history.happen(resume(), when=9)
    history.happen(fatal("b"), when=10)  # for a second
    history.happen(retry(), when=18)
    history.happen(completed("b", run=2, began=18, ended=20, measured=Measured(cost=1.0)), when=20)
    assert history.state.status == "completed"
    assert as_of(history) == ExecutionMetrics(
        as_of=at(20),
        total_duration_ms=20_000,
        effective_duration_ms=5_000,
        total_cost=5.0,
        efficiency=0.25,
        success_rate=1.0,
        error_rate=1 / 3,
        throughput=0.1,
        resource_efficiency=0.5,
        quality_score=None,
        attempts=3,
        failed_attempts=1,
    )


def test_while_it_runs_what_goes_on_counts_until_now() -> None:
    """A handler that runs is effective, a resource that is held costs, and the total grows; rates wait for an end."""
    history = History()
    history.happen(start(step("a", resources=[{"type": "gpu", "amount": 2}])), when=0)
    history.happen(granted("a", by="resources"), when=2)
    history.happen(started("a", began=4), when=4)
    now = as_of(history, 8)
    assert (now.total_duration_ms, now.effective_duration_ms, now.efficiency) == (8_000, 4_000, 0.5)
    assert (now.total_cost, now.resource_efficiency) == (6.0, pytest.approx(2 / 3))
    assert (now.success_rate, now.error_rate, now.attempts, now.throughput) == (None, None, 0, 0.0)
    assert as_of(history, 3).as_of == at(4), "a clock that is behind tells of the last commit"


def test_before_it_starts_there_is_nothing_to_divide() -> None:
    """An execution with a start time has not started: no total, no rates."""
    now = as_of(given(start("a", start_at=at(100))), 50)
    assert (now.total_duration_ms, now.efficiency, now.throughput, now.success_rate) == (0, None, None, None)
    assert metrics_of([]) is None


def test_what_was_held_for_nothing_is_weighed_by_time() -> None:
    """Where no resource costs anything, the longest held weighs most."""
    holdings = Holdings()
    for held_s, busy in ((8, 0.25), (2, 1.0)):
        usage = ResourceUsage("r1", "dock", 1.0, 0.0, at(0), at(held_s), busy)
        holdings.take(at(9), e.ResourceReleased(step="a", usage=(usage,)))
    assert holdings.efficiency([]) == (8 * 0.25 + 2 * 1.0) / 10


@pytest.mark.parametrize("off_s", [-3600, -2, 2, 3600])
@pytest.mark.parametrize("told_early", [True, False])
def test_a_worker_s_clock_that_is_off_hides_no_work(off_s: float, told_early: bool) -> None:
    """How long a handler ran is its worker's to say; when, is bounded by when the log handed it out and heard of its end."""
    history = History()
    history.happen(start("a"), when=0)
    if told_early:
        history.happen(started("a", began=1 + off_s), when=1.05)
    history.happen(completed("a", began=1 + off_s, ended=4 + off_s), when=4)
    assert as_of(history).effective_duration_ms == 3_000


def test_a_long_attempt_and_many_short_ones_are_counted_without_keeping_them() -> None:
    """While an attempt is open that overlaps with all others, what is remembered of those is bounded."""
    history = History()
    count = 1_300
    steps = [step("long", parallel=True), *(step(f"s{n}", parallel=True) for n in range(count))]
    history.happen(start(*steps, config={"parallel_execution_limit": 2}), when=0)
    events: list[e.Event] = [e.TaskStarted(step="long", started_at=at(1))]
    meter, first = Meter(ExecutionState(EXECUTION)), history.commits[0]
    meter.take(first)

    def commit(seconds: float, *events: e.Event) -> None:
        state = meter.state
        meter.take(
            type(first)(v=1, execution_id=EXECUTION, n=state.n + 1, version=state.version + 1, time=at(seconds), events=events)
        )

    commit(1, *events)
    for n in range(count):
        begin, end = 2 + 2 * n, 3 + 2 * n
        following = (e.TaskScheduled(step=f"s{n + 1}"),) if n + 1 < count else ()
        commit(
            end, e.TaskStarted(step=f"s{n}", started_at=at(begin)), e.TaskCompleted(step=f"s{n}", ended_at=at(end)), *following
        )
    assert len(meter._busy._spans) <= 1_000
    end = 3 + 2 * count
    assert meter.metrics(at(end)).effective_duration_ms == (end - 1) * 1000
    commit(end, e.TaskCompleted(step="long", ended_at=at(end)), e.ExecutionCompleted())
    assert meter.metrics().effective_duration_ms == (end - 1) * 1000
