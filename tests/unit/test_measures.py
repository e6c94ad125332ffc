"""What attempts measured of themselves, from their reports into the history and the result; and what is found in the cache."""

import msgspec
import pytest

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.measures import Measured, Metric
from esexec.executor.intake import _read_report
from esexec.results import result_of
from tests.given import (
    at,
    cancel,
    completed,
    due,
    failed,
    fatal,
    found,
    given,
    start,
    started,
    step,
    stopped,
    timed_out,
    undone,
)

ROWS = Metric(name="rows", values={"value": 12})


def test_what_was_measured_stands_in_the_event_that_ends_the_attempt() -> None:
    """Metrics, quality and cost are told with the outcome, whatever it is."""
    measured = Measured(quality=0.9, cost=0.02, metrics=(ROWS,))
    story = start("a", config={"max_retries": 0}), started("a")
    for report in (completed("a", measured=measured), failed("a", measured=measured)):
        told = given(*story).when(report).events
        assert told[0].measured == measured  # type: ignore[union-attr]
    late = msgspec.structs.replace(timed_out("a")[0], measured=measured), "a", "1-1"
    told = given(*story).when(late).events
    assert (type(told[0]), told[0].measured) == (e.TaskTimedOut, measured)  # type: ignore[union-attr]


def test_what_a_cancelled_attempt_cost_is_recorded() -> None:
    """Also what came to nothing has cost something."""
    measured = Measured(cost=1.5)
    history = given(start("a"), started("a"))
    history.happen(cancel())
    report = msgspec.structs.replace(stopped("a")[0], measured=measured), "a", "1-1"
    history.happen(report)
    assert result_of(history.state).step("a").cost == 1.5


def test_the_costs_of_a_step_add_up_and_of_the_rest_the_last_counts() -> None:
    """A retried step has cost what all its attempts did; its quality and its metrics are those of the last that said any."""
    history = given(
        start("a", config={"jitter": 0.0}),
        failed("a", measured=Measured(cost=0.5, quality=0.1, metrics=(ROWS,))),
        due("a"),
        completed("a", 1, 2, measured=Measured(cost=0.25, quality=0.9)),
    )
    task = result_of(history.state).step("a")
    assert (task.cost, task.quality, task.metrics) == (0.75, 0.9, (ROWS,))


def test_undoing_a_step_costs_but_does_not_change_its_quality() -> None:
    """The quality of a step is that of its output, not that of its undoing."""
    history = given(
        start(step("a", compensate="undo"), "b", config={"enable_rollback": True}),
        completed("a", measured=Measured(cost=1.0, quality=0.7)),
        fatal("b"),
        completed("a", None, 2, measured=Measured(cost=2.0, quality=0.1)),
    )
    task = result_of(history.state).step("a")
    assert (history.state.status, task.cost, task.quality) == ("rolled_back", 3.0, 0.7)


def test_nothing_measured_is_nothing_said() -> None:
    """A history of handlers that measure nothing has not a byte more."""
    assert b"measured" not in given(start("a"), completed("a")).stored[-1].data


@pytest.mark.parametrize(
    "measured",
    [
        {"quality": 1.5},
        {"cost": -1},
        {"cost": 2e12},
        {"metrics": [{"name": "", "values": {"value": 1}}]},
        {"metrics": [{"name": "a", "values": {}}]},
        {"metrics": [{"name": "a", "values": {"value": "many"}}]},
        {"metrics": [{"name": "a", "values": {"value": 1}}] * (limits.metrics_per_attempt + 1)},
    ],
    ids=["quality", "negative", "too dear", "no name", "no value", "no number", "too many"],
)
def test_measures_that_cannot_be_are_the_failure_of_their_attempt(measured: object) -> None:
    """A foreign worker may send anything: what does not fit fails its attempt, and the executor goes on."""
    body = {"type": "completed", "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:00Z", "measured": measured}
    report = _read_report(msgspec.json.encode(body))
    assert isinstance(report, r.Failed)
    assert report.error.code == "bad_report"


def test_measures_that_are_too_large_are_the_failure_of_their_attempt() -> None:
    """Each within its bounds, but all together more than `limits.measured_bytes`."""
    metrics = tuple(Metric(name="m", values={"value": 1}, tags={f"t{n}": "x" * 200 for n in range(8)}) for _ in range(20))
    report = r.Completed(started_at=at(0), ended_at=at(1), measured=Measured(metrics=metrics))
    read = _read_report(msgspec.json.encode(report))
    assert isinstance(read, r.Failed)
    assert read.error.code == "metrics_too_large"
    small = msgspec.structs.replace(report, measured=Measured(metrics=metrics[:5]))
    assert _read_report(msgspec.json.encode(small)) == small


# Cached results ----------------------------------------------------------------------------------------------------------


def test_an_output_from_the_cache_is_told_in_place_of_a_start() -> None:
    """No handler ran, so none started: the hit says where the output is from, and how old it is."""
    outcome = given(start("a"), started("a", worker="w")).when(found("a", 3))
    hit = e.TaskCacheHit(step="a", key="f00d", source_execution="e0", source_step="s0", age_ms=60_000, found_at=at(0), worker="w")
    assert outcome.events[:2] == [hit, e.TaskCompleted(step="a", ended_at=at(0), output=3)]
    outcome = given(start("a")).when(found("a", 3))
    assert outcome.events == [hit, e.TaskCompleted(step="a", ended_at=at(0), output=3), e.ExecutionCompleted()]
    task = result_of(given(start("a"), found("a", 3)).state).step("a")
    assert (task.output, task.cached_from, task.status) == (3, "e0/s0", "completed")


def test_what_came_from_the_cache_is_not_undone() -> None:
    """The step did nothing: what its source did belongs to another execution. Only what ran here is undone."""
    begun = start(step("a", compensate="undo"), step("b", compensate="undo"), "c", config={"enable_rollback": True})
    history = given(begun, completed("a"), found("b"), fatal("c"))
    history.happen(undone("a"))
    assert history.state.status == "rolled_back"
    assert [event.step for event in history.events if isinstance(event, e.CompensationCompleted)] == ["a"]


def test_a_lost_attempt_that_ends_from_the_cache_is_undone_all_the_same() -> None:
    """A worker began the handler and was lost; what it had done by then nobody knows."""
    begun = start(step("a", compensate="undo"), "b", config={"enable_rollback": True})
    history = given(begun, started("a"), found("a"), fatal("b"))
    assert isinstance(history.events[-1], e.CompensationScheduled)
    history.happen(undone("a"))
    assert history.state.status == "rolled_back"


def test_a_result_from_the_future_has_no_negative_age() -> None:
    """Clocks of workers differ."""
    history = given(start("a"), found("a", since=5))
    hit = next(event for event in history.events if isinstance(event, e.TaskCacheHit))
    assert hit.age_ms == 0
