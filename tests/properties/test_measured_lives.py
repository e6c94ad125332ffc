"""What holds of the metrics and the chart of every life: they equal a plain fold, and no bar is out of order."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random

from hypothesis import given

from esexec.domain import events as e
from esexec.results import result_of
from projections.gantt import gantt
from projections.metrics import metrics_of
from tests.given import History
from tests.properties.test_lifecycle import World, lived, many, orders, worlds


def ended_attempts(history: History) -> Iterator[tuple[str, bool]]:
    """Step, and whether it failed, of each attempt of a task, its fallback or its compensation that ended."""
    open: set[str] = set()
    for event in history.events:
        match event:
            case e.TaskScheduled() | e.CompensationScheduled():
                open.add(event.step)
            case e.TaskCompleted() | e.CompensationCompleted():
                yield event.step, False
                open.discard(event.step)
            case e.TaskFailed() | e.TaskTimedOut():
                yield event.step, True
                open.discard(event.step)
            case e.CompensationFailed():
                yield event.step, event.error.code != "cancelled"
                open.discard(event.step)
            case e.TaskCancelled() | e.TaskSkipped() if event.step in open:
                yield event.step, False
                open.discard(event.step)
            case e.ExecutionRetried() | e.CheckpointRestored() | e.ExecutionCancelled() | e.ExecutionFailed():
                open.clear()


def time_together(intervals: list[tuple[datetime, datetime]]) -> timedelta:
    """How long at least one of them lasts, moment by moment."""
    moments = sorted({moment for interval in intervals for moment in interval})
    pairs = pairwise(moments)
    return sum((end - start for start, end in pairs if any(a <= start and end <= b for a, b in intervals)), timedelta())


@many
@given(orders, worlds())
def test_metrics_are_a_plain_fold(order: Random, world: World) -> None:
    """Counts, rates, durations and the union of what ran, each computed once more in the plainest way, after every life."""
    history = lived(order, world)
    found, chart, result = metrics_of(history.commits), gantt(history.commits), result_of(history.state)
    assert found is not None and chart is not None and history.state.time is not None
    ended = [failed for _, failed in ended_attempts(history)]
    assert (found.attempts, found.failed_attempts) == (len(ended), sum(ended))
    assert found.error_rate == (sum(ended) / len(ended) if ended else None)
    settled = [task for task in result.results if task.status not in ("pending", "running", "rate_limited")]
    assert found.success_rate == (result.completed_steps / len(settled) if settled else None)
    if result.duration_ms is not None:
        assert found.total_duration_ms == result.duration_ms
    until = history.state.ended_at or history.state.time
    ran = [(span.start, span.end or until) for bar in chart.bars for span in bar.spans if span.kind == "running"]
    assert found.effective_duration_ms == round(time_together(ran).total_seconds() * 1000)
    assert found.effective_duration_ms <= found.total_duration_ms


@many
@given(orders, worlds())
def test_bars_are_in_order(order: Random, world: World) -> None:
    """Each attempt that was scheduled has one bar; its spans follow each other, inside the execution; only the last is open."""
    history = lived(order, world)
    chart = gantt(history.commits)
    assert chart is not None
    scheduled = [(one.step, one.run, one.attempt) for one in history.events if isinstance(one, e.TaskScheduled)]
    tried = [bar for bar in chart.bars if any(span.kind != "back_off" for span in bar.spans)]
    drawn = [(bar.step, bar.run, bar.attempt) for bar in tried]
    assert len(set(drawn)) == len(drawn)
    assert set(scheduled) <= set(drawn)
    for bar in chart.bars:
        assert (bar.outcome is None) == any(span.end is None for span in bar.spans)
        assert all(span.end is not None for span in bar.spans[:-1])
        times = [time for span in bar.spans for time in (span.start, span.end or chart.as_of)]
        assert times == sorted(times)
        assert all(chart.start <= time <= chart.as_of for time in times)
        assert all(one.end == other.start for one, other in pairwise(bar.spans) if other.kind != "running")
