"""Statistics equal plain sums over the results of all executions, however the log was cut into pages and whoever died."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import pytest
from eventsourcing.persistence import Tracking
from hypothesis import given, settings
from hypothesis import strategies as st

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.evolve import fold
from esexec.log import codec
from esexec.results import ExecutionResult, ExecutionStatus, TaskResult, TaskStatus, result_of
from projections.figures import PRECISION, Histogram, bucket_of, middle_of
from projections.memory import MemoryStore
from projections.sqlite import SqliteStore
from projections.statistics import StatisticsProjection
from projections.statistics_asks import (
    AskDurations,
    AskStatistics,
    AskTaskStatistics,
    ExecutionTotals,
    TaskTotals,
    Undoings,
)
from projections.statistics_queries import durations, statistics, task_statistics
from projections.view import View
from tests.projecting import HISTORIES, Stage, apply, golden, project, renamed

KINDS = sorted(file.stem for file in HISTORIES.glob("*.jsonl"))
NAMES = ("p", "another plan")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


# What is expected, told plainly -------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """An execution, and what its events say besides: how long attempts answered, and what steps took besides their handlers."""

    result: ExecutionResult
    answers: list[tuple[str, int]]
    overheads: list[float]


def ms(delta: timedelta) -> int:
    return round(delta.total_seconds() * 1000)


def told(entity: str, commits: list[Commit]) -> Told:
    state = fold(entity, commits)
    answers, overheads = [], []
    handed_out: dict[str, datetime] = {}
    first: dict[str, datetime] = {}
    started: dict[str, datetime] = {}
    for commit in commits:
        for event in commit.events:
            match event:
                case e.TaskScheduled(attempt=1):
                    handed_out[event.step] = commit.time
                    first.pop(event.step, None)
                case e.TaskGranted() | e.ResourceAllocated():
                    handed_out[event.step] = commit.time
                case e.TaskHeld() | e.TaskCacheHit():
                    handed_out.pop(event.step, None)
                    if isinstance(event, e.TaskCacheHit):
                        started.pop(event.step, None)
                case e.TaskStarted():
                    started[event.step] = event.started_at
                    first.setdefault(event.step, event.started_at)
                case e.TaskCompleted() if event.step in started:
                    task = state.graph.steps[state.graph.index[event.step]].task
                    answers.append((task, ms(event.ended_at - started[event.step])))
                    if event.step in handed_out:
                        took = commit.time - handed_out.pop(event.step) - (event.ended_at - first[event.step])
                        overheads.append(max(0.0, took.total_seconds() * 1000))
    return Told(result_of(state), answers, overheads)


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def nearest_rank(values: Sequence[int], percent: int) -> int | None:
    return sorted(values)[-(-percent * len(values) // 100) - 1] if values else None


def close(found: int | None, true: int | None) -> bool:
    return found is true is None or (found is not None and true is not None and abs(found - true) <= PRECISION * true)


def undoings(tasks: Iterable[TaskResult]) -> Undoings:
    how = Counter(task.compensation for task in tasks)
    return Undoings(how["completed"], how["failed"], how["skipped"])


def by_name(tasks: Iterable[tuple[str, TaskResult]]) -> dict[str, Undoings]:
    names: dict[str, list[TaskResult]] = {}
    for name, task in tasks:
        names.setdefault(name, []).append(task)
    found = {name: undoings(those) for name, those in names.items()}
    return {name: those for name, those in found.items() if those != Undoings()}


def check_executions(found: ExecutionTotals, those: list[Told]) -> None:
    results = [one.result for one in those]
    status = Counter(str(result.status) for result in results)
    ended = [result for result in results if result.status in ("completed", "failed", "rolled_back")]
    took = [result.duration_ms for result in ended if result.duration_ms is not None]
    assert (found.total, found.by_status) == (len(results), {one: status[one] for one in ExecutionStatus})
    assert found.success_rate == (status["completed"] / len(ended) if ended else None)
    assert found.average_execution_time_ms == mean(took)
    assert close(found.p50_ms, nearest_rank(took, 50))
    assert close(found.p95_ms, nearest_rank(took, 95))
    assert close(found.p99_ms, nearest_rank(took, 99))
    assert found.average_steps_per_execution == mean([result.total_steps for result in results])
    assert found.retries == sum(task.retries for result in results for task in result.results)
    assert found.reruns == sum(result.run - 1 for result in results)
    rollbacks = Counter(result.rollback_status for result in results)
    assert (found.rollbacks.completed, found.rollbacks.partial) == (rollbacks["completed"], rollbacks["partial"])
    assert found.rollbacks.steps == undoings(task for result in results for task in result.results)


def failures(those: list[Told]) -> dict[str, int]:
    results = [one.result for one in those if one.result.status in ("failed", "rolled_back")]
    return Counter(result.error.code for result in results if result.error is not None)


def check_tasks(found: TaskTotals, those: list[Told], task: str | None = None) -> None:
    tasks = [one for told in those for one in told.result.results if task in (None, one.name)]
    status = Counter(str(one.status) for one in tasks)
    ended = [one for one in tasks if one.status in ("completed", "failed")]
    took = [one.duration_ms for one in ended if one.duration_ms is not None and one.cached_from is None]
    answered = [took for told in those for name, took in told.answers if task in (None, name)]
    tried = [one for one in tasks if one.attempt]
    assert (found.total, found.by_status) == (len(tasks), {one: status[one] for one in TaskStatus})
    assert (found.completed, found.failed) == (status["completed"], status["failed"])
    assert found.success_rate == (status["completed"] / len(ended) if ended else None)
    assert found.average_duration_ms == mean(took)
    assert close(found.p95_ms, nearest_rank(took, 95))
    assert close(found.answer_p50_ms, nearest_rank(answered, 50))
    assert close(found.answer_p99_ms, nearest_rank(answered, 99))
    assert (found.retries, found.average_retries) == (sum(one.retries for one in tasks), mean([one.retries for one in tried]))
    assert found.cached == sum(one.cached_from is not None for one in tasks)
    assert found.undoings == undoings(tasks)


# The stage -----------------------------------------------------------------------------------------------------------------


def placed(commits: Iterable[bytes], entity: str, name: str, hours: int) -> list[bytes]:
    """A history of another entity, plan name and time."""
    found = []
    for commit in map(codec.decode, renamed(commits, entity)):
        events = tuple(
            msgspec.structs.replace(event, name=name) if isinstance(event, e.ExecutionCreated) else event
            for event in commit.events
        )
        found.append(codec.encode(msgspec.structs.replace(commit, events=events, time=commit.time + timedelta(hours=hours))))
    return found


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    """Some golden histories, or their beginnings, mixed with each other, within three days."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=8))
    left = [
        placed(golden(kind), f"e{number}", draw(st.sampled_from(NAMES)), draw(st.integers(0, 71)))
        for number, kind in enumerate(kinds)
    ]
    left = [commits[: draw(st.integers(1, len(commits)))] for commits in left]
    mixed: list[bytes] = []
    while left:
        history = draw(st.sampled_from(left))
        mixed.append(history.pop(0))
        left = [commits for commits in left if commits]
    return Stage().add_all(mixed)


def all_told(stage: Stage) -> list[Told]:
    entities = dict.fromkeys(one.entity for one in stage.recorded)
    return [told(entity, [one.commit for one in stage.recorded if one.entity == entity]) for entity in entities]


def check(view: View, those: list[Told], window: tuple[int, int]) -> None:
    """Every question has the expected answer."""
    since, until = (BEGIN + timedelta(minutes=minutes) for minutes in window)
    first = since.replace(minute=0)
    end = until if until.minute == 0 else until.replace(minute=0) + timedelta(hours=1)
    within = [one for one in those if first <= one.result.created_at < end]  # type: ignore[operator]

    whole = statistics(view, AskStatistics())
    check_executions(whole, those)
    assert whole.failures == failures(those)
    assert whole.rollbacks.by_step == by_name((task.name, task) for one in those for task in one.result.results)
    assert (whole.since, whole.until) == (None, None)
    check_tasks(task_statistics(view, AskTaskStatistics()), those)

    part = statistics(view, AskStatistics(since=since, until=until))
    assert (part.since, part.until) == (first, end)
    check_executions(part, within)
    assert part.failures == failures(within)
    check_tasks(task_statistics(view, AskTaskStatistics(since=since, until=until)), within)
    check_executions(statistics(view, AskStatistics(since=since)), [one for one in those if first <= one.result.created_at])  # type: ignore[operator]
    check_executions(statistics(view, AskStatistics(until=until)), [one for one in those if one.result.created_at < end])  # type: ignore[operator]

    for name in NAMES:
        of_name = [one for one in those if one.result.name == name]
        found = statistics(view, AskStatistics(name=name))
        check_executions(found, of_name)
        assert found.failures == failures(of_name)
    for plan_id in {one.result.plan_id for one in those}:
        of_plan = [one for one in those if one.result.plan_id == plan_id]
        found = statistics(view, AskStatistics(plan_id=plan_id))
        check_executions(found, of_plan)
        assert found.rollbacks.by_step == by_name((task.task_id, task) for one in of_plan for task in one.result.results)
        check_durations(view, plan_id, of_plan, those)
    check_groups(view, those, within, since, until)


def check_groups(view: View, those: list[Told], within: list[Told], since: datetime, until: datetime) -> None:
    def grouped(key: Callable[[ExecutionResult], str], those: list[Told]) -> dict[str, list[Told]]:
        groups: dict[str, list[Told]] = {}
        for one in those:
            groups.setdefault(key(one.result), []).append(one)
        return groups

    keys: dict[Any, Callable[[ExecutionResult], str]] = {
        "name": lambda result: result.name,
        "plan_id": lambda result: result.plan_id,
        "hour": lambda result: f"{result.created_at:%Y-%m-%dT%H:00:00Z}",
        "day": lambda result: f"{result.created_at:%Y-%m-%dT00:00:00Z}",
    }
    for by, key in keys.items():
        found = statistics(view, AskStatistics(by=by)).groups
        expected = grouped(key, those)
        in_order = sorted(expected, key=lambda name: (0 if by in ("hour", "day") else -len(expected[name]), name))
        assert list(found) == in_order
        for name, group in found.items():
            check_executions(group, expected[name])
        if by != "day":
            found = statistics(view, AskStatistics(by=by, since=since, until=until)).groups
            assert {name: group.total for name, group in found.items()} == {
                name: len(group) for name, group in grouped(key, within).items()
            }
    for name, tasks in task_statistics(view, AskTaskStatistics(by="name")).groups.items():
        check_tasks(tasks, those, name)


def check_durations(view: View, plan_id: str, of_plan: list[Told], those: list[Told]) -> None:
    found = durations(view, AskDurations(plan_id=plan_id, tasks=("load", "nobody's")))
    steps: dict[str, list[int]] = {}
    for task in (task for one in of_plan for task in one.result.results):
        if task.status == "completed" and task.duration_ms is not None and task.cached_from is None:
            steps.setdefault(task.task_id, []).append(task.duration_ms)
    assert found.steps == {step: mean(took) for step, took in steps.items()}
    overheads = [took for one in of_plan for took in one.overheads]
    assert abs(found.overhead_ms - (mean(overheads) or 0.0)) < 0.01
    assert found.runs == sum(one.result.ok for one in of_plan)
    load = task_statistics(view, AskTaskStatistics(name="load")).average_duration_ms
    assert found.tasks == ({"load": load} if load is not None else {})


# The rules -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(stages(), st.data())
def test_statistics_are_plain_sums(stage: Stage, data: st.DataObject) -> None:
    """Every figure is the sum over the executions' own results; pages and restarts change nothing, not even the bytes kept."""
    ends = st.integers(1, len(stage.recorded))
    cuts, crashes = data.draw(st.sets(ends)), data.draw(st.sets(ends, max_size=3))
    window = data.draw(st.tuples(st.integers(0, 4000), st.integers(61, 600)).map(lambda both: (both[0], both[0] + both[1])))
    view = project(StatisticsProjection, stage, sorted(cuts), sorted(crashes)).view
    check(view, all_told(stage), window)
    assert view.content_hash() == project(StatisticsProjection, stage).view.content_hash()


@pytest.mark.parametrize("page", [1, 7, 10_000])
def test_golden_histories_are_all_in_it(page: int) -> None:
    """Every kind, side by side, in pages of any size; whatever a golden history tells is counted."""
    histories = [placed(golden(kind), kind, NAMES[number % 2], number * 2) for number, kind in enumerate(KINDS)]
    stage = Stage().add_all([one for commits in zip_longest(*histories) for one in commits if one is not None])
    view = project(StatisticsProjection, stage, range(page, len(stage.recorded), page), [page * 5]).view
    check(view, all_told(stage), (7 * 60 + 1, 50 * 60))
    whole, tasks = statistics(view, AskStatistics()), task_statistics(view, AskTaskStatistics())
    assert whole.rollbacks.completed and whole.rollbacks.partial and whole.rollbacks.steps.failed and whole.reruns
    assert tasks.cached and tasks.retries and tasks.by_status["skipped"] and tasks.undoings.skipped


@settings(max_examples=15, deadline=None)
@given(stages(), st.data())
def test_statistics_are_the_same_in_sqlite(stage: Stage, data: st.DataObject) -> None:
    """The database changes nothing."""
    cuts = data.draw(st.sets(st.integers(1, len(stage.recorded))))
    with TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory) / "views.sqlite")
        view = project(StatisticsProjection, stage, sorted(cuts), store=store).view
        check(view, all_told(stage), (100, 2000))
        assert view.content_hash() == project(StatisticsProjection, stage).view.content_hash()
        store.close()


@settings(max_examples=30, deadline=None)
@given(stages(), st.data())
def test_a_page_that_failed_counts_once(stage: Stage, data: st.DataObject) -> None:
    """What was added in a transaction that came to nothing is added again, and only once."""
    middle = data.draw(st.integers(1, len(stage.recorded)))
    projection = StatisticsProjection(MemoryStore().view("statistics", StatisticsProjection.tables))

    async def applied() -> None:
        for page in (stage.recorded[:middle], stage.recorded[middle:]):
            if not page:
                continue
            with suppress(ConnectionError):
                await projection.prepare(page, stage.log)
                with projection.view.change(Tracking("statistics", page[-1].last_id)):
                    for recorded in page:
                        projection.process_commit(recorded)
                    projection.finish()
                    raise ConnectionError
            projection.forget()
            await apply(projection, page, stage)

    asyncio.run(applied())
    assert projection.view.content_hash() == project(StatisticsProjection, stage).view.content_hash()


@given(st.lists(st.integers(0, 10**11), min_size=1), st.integers(1, 100))
def test_percentiles_are_close(values: list[int], percent: int) -> None:
    """A percentile is at most 1/64 away from the true one, and exact below 64 ms; the mean is exact."""
    histogram = Histogram()
    for value in values:
        histogram.note(value)
    (found,) = histogram.percentiles_ms(percent)
    true = nearest_rank(values, percent)
    assert true is not None and close(found, true)
    assert found == true or true >= 64
    assert histogram.mean_ms == sum(values) / len(values)


@given(st.lists(st.integers(0, 10**9)), st.lists(st.integers(0, 10**9)))
def test_what_was_added_can_be_taken_away(first: list[int], then: list[int]) -> None:
    """Nothing is left of it."""
    histogram, expected = Histogram(), Histogram()
    for value in first:
        histogram.note(value)
        expected.note(value)
    for value in then:
        histogram.note(value)
    for value in reversed(then):
        histogram.note(value, -1)
    assert histogram == expected


@given(st.integers(0, 10**12))
def test_buckets_follow_each_other(value: int) -> None:
    """A longer duration is in the same bucket or the next; the middle of a bucket is in it."""
    assert bucket_of(value + 1) - bucket_of(value) in (0, 1)
    assert bucket_of(middle_of(bucket_of(value))) == bucket_of(value)
