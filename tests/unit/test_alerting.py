"""When conditions of alerts hold: of each execution, over a window, sampled; by events and by the clock alone."""

import pytest

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.alerts import AlertCondition
from projections.alerting import STALE_MS, Sample
from tests.alerting import Judged, completed, execution_failed, failed
from tests.given import at

TWO_HOURS = AlertCondition("execution_duration", "gt", 7_200_000)


# How long it runs --------------------------------------------------------------------------------------------------------


def test_an_execution_that_runs_too_long_is_told_while_it_runs() -> None:
    """By the clock, not by an event; at the instant at which it had run for so long; and resolved at its end."""
    judged = Judged().set("long", TWO_HOURS).start(seconds=10).tick(7_210)
    assert judged.told == []
    judged.tick(7_300)
    assert judged.lines == ["triggered long e1 at 7210.001: 7200001"]
    judged.tick(9_000).happen("e1", 9_010, e.ExecutionCompleted())
    assert judged.lines[1:] == ["resolved long e1 at 9010: 9000000"]
    assert judged.told[0].message == "execution_duration of execution e1 is 2 h 0 min, above 2 h 0 min"
    assert {one.id for one in judged.told} == {judged.told[0].id}


def test_what_crossed_and_ended_while_nobody_looked_is_told_as_if_somebody_had() -> None:
    """The clock of those who look does not matter: without a tick both are told when the end is read."""
    late = Judged().set("long", TWO_HOURS).start(seconds=10).happen("e1", 9_010, e.ExecutionCompleted())
    watched = Judged().set("long", TWO_HOURS).start(seconds=10)
    for seconds in range(11, 9_000, 500):
        watched.tick(seconds)
    watched.happen("e1", 9_010, e.ExecutionCompleted())
    assert late.told == watched.told
    assert late.lines == ["triggered long e1 at 7210.001: 7200001", "resolved long e1 at 9010: 9000000"]


def test_an_execution_that_ends_in_time_is_no_alert() -> None:
    """Nor is one that ends exactly in time."""
    judged = Judged().set("long", TWO_HOURS).start().happen("e1", 7_200, e.ExecutionCompleted()).tick(99_999)
    assert judged.told == []


def test_a_restart_tells_nothing_twice() -> None:
    """What was told is in the state; what is due is worked out from it again."""
    judged = Judged().set("long", TWO_HOURS).start().restart().tick(8_000).restart().tick(9_000).restart().tick(10_000)
    assert judged.lines == ["triggered long e1 at 7200.001: 7200001"]


@pytest.mark.parametrize(
    ("condition", "lines"),
    [
        (AlertCondition("execution_duration", "gte", 5_000), ["triggered x e1 at 5: 5000", "resolved x e1 at 60: 60000"]),
        (AlertCondition("execution_duration", "gt", 4_999.5), ["triggered x e1 at 5: 5000", "resolved x e1 at 60: 60000"]),
        (
            AlertCondition("execution_duration", "gte", 5_000, 7_000),
            ["triggered x e1 at 12: 12000", "resolved x e1 at 60: 60000"],
        ),
        (
            AlertCondition("execution_duration", "gte", 5_000, 55_000),
            ["triggered x e1 at 60: 60000", "resolved x e1 at 60: 60000"],
        ),
        (AlertCondition("execution_duration", "gte", 5_000, 55_001), []),
        (AlertCondition("execution_duration", "lt", 5_000), ["triggered x e1 at 0: 0", "resolved x e1 at 5: 5000"]),
        (
            AlertCondition("execution_duration", "lte", 5_000, 1_000),
            ["triggered x e1 at 1: 1000", "resolved x e1 at 5.001: 5001"],
        ),
        (AlertCondition("execution_duration", "eq", 5_000), ["triggered x e1 at 5: 5000", "resolved x e1 at 5.001: 5001"]),
        (AlertCondition("execution_duration", "eq", 5_000.5), []),
        (AlertCondition("execution_duration", "gt", 1e300), []),
        (AlertCondition("execution_duration", "lt", -1e300), []),
        (AlertCondition("execution_duration", "gt", -1e300), ["triggered x e1 at 0: 0", "resolved x e1 at 60: 60000"]),
    ],
    ids=str,
)
def test_a_duration_is_compared_in_whole_milliseconds(condition: AlertCondition, lines: list[str]) -> None:
    """With each operator, and for as long as it must hold."""
    assert Judged().set("x", condition).start().happen("e1", 60, e.ExecutionCompleted()).lines == lines


def test_an_alert_that_is_set_late_is_triggered_at_once() -> None:
    """What it is about had begun before; nothing is said to have been known before it was asked for."""
    judged = Judged().start().set("long", TWO_HOURS, 8_000)
    assert judged.lines == ["triggered long e1 at 8000: 8000000"]


def test_a_run_counts_from_its_own_beginning() -> None:
    """An execution that is run again begins anew; a second alert of it is another occurrence."""
    judged = Judged().set("x", AlertCondition("execution_duration", "gte", 10_000)).start()
    judged.happen("e1", 20, execution_failed()).happen("e1", 100, e.ExecutionRetried(run=2)).tick(105).tick(130)
    assert judged.lines == ["triggered x e1 at 10: 10000", "resolved x e1 at 20: 20000", "triggered x e1 at 110: 10000"]
    assert judged.told[0].id == judged.told[1].id != judged.told[2].id


def test_an_execution_that_was_put_away_can_be_run_again() -> None:
    """What ended is not kept in memory; its counts come back with it."""
    judged = Judged().set("x", AlertCondition("retries", "gte", 2, each_execution=True)).start()
    judged.happen("e1", 1, failed(will_retry=True), e.TaskRetryScheduled(step="a", attempt=2, delay_ms=1, due=at(2)))
    judged.happen("e1", 2, execution_failed())
    kept = judged.evaluator.state.executions["e1"]
    judged.evaluator.forget(["e1", "e2"])
    assert judged.evaluator.state.executions == {}
    judged.evaluator.remember(kept)
    judged.happen("e1", 3, e.ExecutionRetried(run=2))
    judged.happen("e1", 4, failed(will_retry=True), e.TaskRetryScheduled(step="a", attempt=2, delay_ms=1, due=at(2)))
    assert judged.lines == ["triggered x e1 at 4: 2"]


def test_an_execution_that_runs_is_not_put_away() -> None:
    """Only what ended can be."""
    judged = Judged().start()
    judged.evaluator.forget(["e1"])
    assert [*judged.evaluator.state.executions] == ["e1"]


# Failures ----------------------------------------------------------------------------------------------------------------


def test_a_failure_is_told_and_over_in_one_moment() -> None:
    """It is no state that lasts; each further failure is an alert of its own."""
    judged = Judged().set("f", AlertCondition("execution_failed", "gte", 1)).start()
    judged.happen("e1", 5, execution_failed()).happen("e1", 6, e.ExecutionRetried(run=2)).happen("e1", 7, execution_failed())
    assert judged.lines == [f"{state} f e1 at {second}: 1" if state == "triggered" else f"{state} f e1 at {second}"
                            for second in (5, 7) for state in ("triggered", "resolved")]  # fmt: skip
    assert judged.told[0].message == "execution e1 failed: [BROKEN] it broke"
    assert len({one.id for one in judged.told}) == 2


def test_failures_of_the_same_moment_are_told_apart() -> None:
    """A clock that stands still makes no two occurrences one."""
    judged = Judged().set("f", AlertCondition("execution_failed", "gte", 1)).start()
    judged.happen("e1", 5, execution_failed(), e.ExecutionRetried(run=2), execution_failed())
    assert [one.state for one in judged.told] == ["triggered", "resolved"] * 2
    assert len({one.id for one in judged.told}) == 2


@pytest.mark.parametrize(
    ("ending", "failed_"),
    [
        ([e.ExecutionCompleted()], False),
        ([e.ExecutionCancelled()], False),
        ([e.RollbackStarted(by="failure"), e.ExecutionRolledBack(undone=1)], True),
        ([e.RollbackStarted(by="command"), e.ExecutionRolledBack(undone=1)], False),
    ],
    ids=["completed", "cancelled", "rolled back", "rolled back on command"],
)
def test_which_ends_are_failures(ending: list[e.Event], failed_: bool) -> None:
    """A failure that was undone is one; what somebody wished is none."""
    judged = Judged().set("f", AlertCondition("execution_failed", "gte", 1)).start().happen("e1", 5, *ending)
    assert bool(judged.told) == failed_


# Of one execution, of a plan, of the namespace -----------------------------------------------------------------------------


def test_the_scope_says_whose_events_count() -> None:
    """One execution; those of a plan, by its name or its id; all."""
    conditions = {
        "one": AlertCondition("cost", "gte", 5, execution_id="e1"),
        "name": AlertCondition("cost", "gte", 5, plan="p", each_execution=True),
        "id": AlertCondition("cost", "gte", 5, plan="id-of-q", each_execution=True),
        "all": AlertCondition("cost", "gte", 5, each_execution=True),
    }
    judged = Judged()
    for alert_id, condition in conditions.items():
        judged.set(alert_id, condition)
    for execution, plan in (("e1", "p"), ("e2", "p"), ("e3", "q")):
        judged.start(execution, plan=plan).happen(execution, 1, completed(cost=5.0))
    assert sorted(f"{one.alert_id} {one.execution_id}" for one in judged.told) == [
        "all e1", "all e2", "all e3", "id e3", "name e1", "name e2", "one e1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("error_rate", 0.5),
        ("success_rate", 2 / 3),
        ("retries", 1),
        ("cost", 4),
        ("quality_score", 0.75),
        ("rows", 5),
        ("size.max", 3),
    ],
)
def test_what_is_counted_of_one_execution(metric: str, value: float) -> None:
    """Of four attempts two fail, one of them is tried again; of three steps two complete."""
    judged = Judged().set("x", AlertCondition(metric, "gt", -1, execution_id="e1")).start()
    judged.happen("e1", 1, failed(will_retry=True), e.TaskRetryScheduled(step="a", attempt=2, delay_ms=1, due=at(2)))
    judged.happen("e1", 2, completed(quality=0.5, cost=1, rows=5, size={"min": 1, "max": 3}))
    judged.happen("e1", 3, completed("b", quality=1.0, cost=3, rows=7, size={"min": 1, "max": 9}), failed("c"))
    if metric not in ("rows", "size.max"):
        judged.remove("x", 4).set("x", AlertCondition(metric, "gt", -1, execution_id="e1"), 5)
    assert judged.told[-1].value == pytest.approx(value)


def test_of_what_handlers_report_the_last_counts() -> None:
    """By its name alone where it is one value, or called `value`; what was reported before it was asked for is not known."""
    judged = Judged().start().happen("e1", 1, completed(rows=99))
    judged.set("x", AlertCondition("rows", "gt", 10, execution_id="e1"), 2).happen("e1", 3, completed(rows=9))
    assert judged.told == []
    judged.happen("e1", 4, completed(rows={"lines": 12})).happen("e1", 5, completed(rows={"value": 3, "lines": 99}))
    assert judged.lines == ["triggered x e1 at 4: 12", "resolved x e1 at 5: 3"]


def test_over_a_window_events_of_all_count_together_and_are_forgotten() -> None:
    """Two of four attempts within a minute fail: half of them. A minute later nothing is known, and it is over."""
    half = AlertCondition("error_rate", "gte", 0.5, window_ms=60_000)
    judged = Judged().set("e", half).start("e1").start("e2", plan="q")
    judged.happen("e1", 10, completed()).happen("e2", 11, completed()).happen("e1", 12, failed(will_retry=True))
    assert judged.told == []
    judged.happen("e2", 13, failed(will_retry=True)).tick(69)
    assert judged.lines == ["triggered e at 13: 0.5"]
    judged.tick(1_000)
    # The good ones leave the window first, at 70 and 71; the last bad one at 73.
    assert judged.lines == ["triggered e at 13: 0.5", "resolved e at 73"]
    assert judged.told[1].execution_id is None
    assert judged.told[0].message == "error_rate of the namespace is 50 %, at or above 50 %"


def test_a_window_of_a_plan_knows_only_its_executions() -> None:
    """Others may fail as they like."""
    judged = Judged().set("e", AlertCondition("success_rate", "lt", 0.5, plan="p")).start("e1").start("e2", plan="q")
    judged.happen("e2", 1, execution_failed())
    assert judged.told == []
    judged.happen("e1", 2, execution_failed())
    assert judged.lines == ["triggered e at 2: 0"]


def test_what_holds_too_shortly_is_not_told() -> None:
    """It must hold without a break; a break begins it anew."""
    half = AlertCondition("error_rate", "gte", 0.5, 20_000, execution_id="e1")
    judged = Judged().set("e", half).start().happen("e1", 10, failed(will_retry=True))
    judged.happen("e1", 29, completed("b"), completed("c")).happen("e1", 30, failed("d")).tick(49).tick(60)
    assert judged.lines == ["triggered e e1 at 50: 0.5"]


def test_what_was_told_is_resolved_when_it_is_not_watched_any_more() -> None:
    """Removed, or set anew with another condition: no alert stays open for ever."""
    judged = Judged().set("x", AlertCondition("execution_duration", "gte", 1)).start().tick(5)
    judged.set("x", AlertCondition("execution_duration", "gte", 2), 6).remove("x", 7).tick(8)
    assert judged.lines == [
        "triggered x e1 at 0.001: 1", "resolved x e1 at 6", "triggered x e1 at 6: 6000", "resolved x e1 at 7",
    ]  # fmt: skip
    assert judged.evaluator.state.executions["e1"].watches == {}


# Samples -----------------------------------------------------------------------------------------------------------------

HOT = AlertCondition("cpu_usage", "gt", 90, 30_000)


def cpu(value: float, worker: str = "w1", *executions: str) -> Sample:
    return Sample(metric="cpu_usage", source=worker, value=value, executions=frozenset(executions))


def sampled(judged: Judged, sample: Sample, *seconds: float) -> Judged:
    for second in seconds:
        judged.told += judged.evaluator.sample(sample, at(second))
    return judged


def test_a_worker_that_is_busy_for_so_long_is_told() -> None:
    """Each worker for itself; one sample below begins it anew; after that it is over."""
    judged = sampled(Judged().set("hot", HOT), cpu(95), 5, 10, 15, 20)
    sampled(judged, cpu(80), 25)
    sampled(judged, cpu(99), 30, 35, 40, 45, 50, 55)
    sampled(judged, cpu(10, "w2"), 55)
    assert judged.told == []
    sampled(judged, cpu(97), 60, 65)
    sampled(judged, cpu(50), 70)
    assert judged.lines == ["triggered hot w1 at 60: 99", "resolved hot w1 at 70: 50"]
    assert judged.told[0].message == "cpu_usage of worker w1 is 99 %, above 90 % for 30.0 s"


def test_a_worker_that_is_heard_no_more_is_not_busy() -> None:
    """Nothing is known of it any more: what was told is over, what had begun is forgotten."""
    judged = sampled(Judged().set("hot", HOT), cpu(95), *range(5, 41, 5)).tick(40 + STALE_MS / 1000 - 1)
    assert judged.lines == ["triggered hot w1 at 35: 95"]
    judged.tick(100)
    assert judged.lines[1:] == ["resolved hot w1 at 55"]
    assert judged.evaluator.state.alerts["hot"].sources == {}
    assert sampled(judged, cpu(95), 101).lines[2:] == []


def test_after_a_restart_the_next_sample_counts() -> None:
    """What was told stays, for nobody knows better; what had begun begins anew, for nobody looked meanwhile."""
    judged = sampled(Judged().set("hot", HOT), cpu(95), *range(5, 41, 5))
    sampled(judged, cpu(95, "w2"), 20, 25, 30, 35, 40).restart()
    judged.evaluator.resume(at(1_000))
    judged.tick(1_001)
    sampled(judged, cpu(95), 1_002, 1_007)
    sampled(judged, cpu(95, "w2"), 1_002, 1_007)
    assert judged.lines == ["triggered hot w1 at 35: 95"]
    sampled(judged, cpu(20), 1_010)
    assert judged.lines[1:] == ["resolved hot w1 at 1010: 20"]


def test_a_sample_of_a_worker_concerns_what_it_is_at() -> None:
    """An alert on an execution, or on a plan, looks only at workers that are at one of these."""
    judged = Judged().start("e1").start("e2", plan="q")
    judged.set("one", AlertCondition("cpu_usage", "gt", 90, execution_id="e1"))
    judged.set("plan", AlertCondition("cpu_usage", "gt", 90, plan="q")).set(
        "w3", AlertCondition("cpu_usage", "gt", 90, source="w3")
    )
    sampled(judged, cpu(95, "w1", "e1", "e9"), 1)
    sampled(judged, cpu(95, "w2", "e2"), 2)
    sampled(judged, cpu(95, "w3"), 3)
    assert [f"{one.alert_id} {one.source} {one.execution_id}" for one in judged.told] == [
        "one w1 e1",
        "plan w2 None",
        "w3 w3 None",
    ]


def test_one_alert_watches_so_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """`limits.alert_sources`: whoever invents names fills no memory."""
    monkeypatch.setattr(limits, "alert_sources", 2)
    judged = Judged().set("hot", AlertCondition("cpu_usage", "gt", 90))
    for number in range(5):
        sampled(judged, cpu(95, f"w{number}"), 1)
    assert len(judged.told) == len(judged.evaluator.state.alerts["hot"].sources) == 2


# Bounds ------------------------------------------------------------------------------------------------------------------


def test_what_is_due_some_time_does_not_pile_up() -> None:
    """Ten thousand executions that ended at once leave nothing to be looked at in two hours."""
    judged = Judged().set("long", TWO_HOURS)
    for number in range(10_000):
        judged.start(f"e{number}", number / 1_000).happen(f"e{number}", number / 1_000, e.ExecutionCompleted())
        judged.evaluator.forget([f"e{number}"])
    assert len(judged.evaluator._logged._heap) < 2_500
    assert judged.evaluator.state.executions == {}
