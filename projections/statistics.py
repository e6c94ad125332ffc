"""The read model of statistics: how it went, in sums over all executions and their steps.

Each execution adds its figures to those of the namespace, of its plan's name and of its plan; each step to those of all tasks and
of its task. When an execution changes, what it had added is taken away, and what it is now is added: so the sums are always those
of what the details say. They are kept for all time, and for the days and hours (UTC) in which the executions were created.

What happened and is not part of a state is counted as it happens: how long attempts took that completed, and what steps took
besides their handlers.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from eventsourcing.persistence import Tracking

from esexec.domain import events as e
from esexec.domain.state import ExecutionState
from esexec.log.port import Log
from projections.contributions import Before, FollowedWithBefore, OfExecution, OfStep, milliseconds_between, of_execution, of_step
from projections.figures import Figures, add_to, decoded
from projections.projection import Projection, RecordedEvent
from projections.source import Recorded
from projections.tables import Table
from projections.view import View

FIGURES = Table(
    "figures",
    key=("kind", "name", "span", "since"),
    columns={"kind": str, "name": str, "span": int, "since": int, "total": int, "data": bytes},
    indexes=[("kind", "span", "since", "total")],
)
"""`kind`: one of the following; `name`: of the plan or the task. `span`: so many hours from `since` on, in hours since 1970; 0:
all time. `total`: how many executions or steps."""
ALL, NAME, PLAN_ID, TASKS, TASK = "all", "name", "plan_id", "tasks", "task"
COUNTS = Table(
    "counts",
    key=("of", "what", "name", "span", "since"),
    columns={"of": str, "what": str, "name": str, "span": int, "since": int, "many": int},
    indexes=[("of", "what", "span", "since", "many")],
)
"""How often something with a name was there. `of`: as `counted_of` says. `what`: `failure`, by error code; `completed`, `failed`
or `skipped`: a compensation, by the step of the plan, or by the task where it is of no plan."""
STEPS = Table("steps", key=("plan_id", "step"), columns={"plan_id": str, "step": str, "many": int, "sum_ms": int})
"""How long the steps of a plan took that completed, from their first start to their last end."""

HOUR_S: Final = 3_600
DAY_H: Final = 24
FAILURE: Final = "failure"
UNDOINGS: Final = ("completed", "failed", "skipped")
_KEPT_ROWS: Final = 5_000
_US: Final = timedelta(microseconds=1)

_FigureKey = tuple[str, str, int, int]
_CountKey = tuple[str, str, str, int, int]


def counted_of(kind: str, name: str) -> str:
    """Whose counts these are."""
    return f"{kind}:{name}" if name else kind


def hour_of(time: datetime) -> int:
    """The hour that a time is in, counted since 1970."""
    return int(time.timestamp() // HOUR_S)


def windows_of(hour: int) -> tuple[tuple[int, int], ...]:
    """The windows, as `span` and `since`, that an hour is in."""
    return (0, 0), (DAY_H, hour - hour % DAY_H), (1, hour)


class StatisticsProjection(Projection):
    """See the module."""

    name = "statistics"
    tables = (FIGURES, COUNTS, STEPS)

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._followed = FollowedWithBefore()
        self._rows: OrderedDict[_FigureKey, Figures] = OrderedDict()
        self._begin_page()

    def _begin_page(self) -> None:
        """What a page adds: to executions by their plan's name and id, to steps by task, each by hour; and to the rest."""
        self._executions: dict[tuple[str, str, int], Figures] = {}
        self._tasks: dict[tuple[str, int], Figures] = {}
        self._counts: dict[tuple[str, str, str, int], int] = {}
        self._steps: dict[tuple[str, str], list[int]] = {}

    async def prepare(self, commits: Sequence[Recorded], log: Log) -> None:
        await self._followed.prepare(commits, log)

    def process_event(self, domain_event: RecordedEvent, tracking: Tracking) -> None:
        raise NotImplementedError("it goes by commits")

    def process_commit(self, recorded: Recorded) -> None:
        if (state := self._followed.advance(recorded)) is None:
            return
        time = recorded.commit.time
        for event in recorded.commit.events:
            handed_out = self._followed.hand_out(recorded.entity, event, time)
            if isinstance(event, e.TaskCompleted):
                self._answered(state, event, time, handed_out)

    def _answered(self, state: ExecutionState, event: e.TaskCompleted, time: datetime, handed_out: datetime | None) -> None:
        index = state.graph.index[event.step]
        step = state.steps[index]
        if step.cached is not None or step.started_at is None or step.first_started_at is None:
            return
        hour = _hour(state)
        self._task(state, index, hour).answers.note(milliseconds_between(step.started_at, event.ended_at))
        if handed_out is not None:
            figures = self._execution(state, hour)
            figures.overheads += 1
            figures.overhead_us += max(0, (time - handed_out - (event.ended_at - step.first_started_at)) // _US)

    # A page ----------------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        for state, steps in self._followed.taken():
            before = self._followed.before.pop(state.execution_id, None)
            self._change(state, steps, before)
        self._write_figures()
        self._write_counts()
        self._write_steps()
        self._begin_page()
        self._followed.let_go()
        while len(self._rows) > _KEPT_ROWS:
            self._rows.popitem(last=False)

    def forget(self) -> None:
        self._followed.forget()
        self._rows.clear()
        self._begin_page()

    def _execution(self, state: ExecutionState, hour: int) -> Figures:
        key = state.created.name, state.created.plan_id, hour
        return self._executions.get(key) or self._executions.setdefault(key, Figures())

    def _task(self, state: ExecutionState, index: int, hour: int) -> Figures:
        key = state.graph.steps[index].task, hour
        return self._tasks.get(key) or self._tasks.setdefault(key, Figures())

    def _change(self, state: ExecutionState, steps: list[int], before: Before | None) -> None:
        hour = _hour(state)
        figures = self._execution(state, hour)
        now = of_execution(state)
        if before is None:
            figures.steps += len(state.steps)
        if before is None or before.execution != now:
            if before is not None:
                self._add_execution(state, figures, hour, before.execution, -1)
            self._add_execution(state, figures, hour, now, 1)
        for index in steps:
            is_now = of_step(state, index)
            was = before.steps[index] if before is not None else None
            if was != is_now:
                if was is not None:
                    self._add_step(state, index, figures, hour, was, -1)
                self._add_step(state, index, figures, hour, is_now, 1)

    def _add_execution(self, state: ExecutionState, figures: Figures, hour: int, one: OfExecution, times: int) -> None:
        add_to(figures.by_status, one.status, times)
        figures.reruns += one.reruns * times
        if one.duration_ms is not None:
            figures.durations.note(one.duration_ms, times)
        if one.rollback is not None:
            add_to(figures.rollbacks, one.rollback, times)
        if one.code is not None:
            for of in _of_plans(state):
                add_to(self._counts, (of, FAILURE, one.code, hour), times)

    def _add_step(self, state: ExecutionState, index: int, figures: Figures, hour: int, one: OfStep, times: int) -> None:
        of_task = self._task(state, index, hour)
        add_to(of_task.by_status, one.status, times)
        of_task.tried += one.tried * times
        of_task.cached += one.cached * times
        if one.duration_ms is not None:
            of_task.durations.note(one.duration_ms, times)
            if one.status == "completed":
                sums = self._steps.setdefault((state.created.plan_id, state.graph.steps[index].id), [0, 0])
                sums[0] += times
                sums[1] += one.duration_ms * times
        if one.retries:
            of_task.retries += one.retries * times
            figures.retries += one.retries * times
        task = state.graph.steps[index].task
        if one.code is not None:
            for of in (TASKS, counted_of(TASK, task)):
                add_to(self._counts, (of, FAILURE, one.code, hour), times)
        if one.undoing is not None:
            add_to(of_task.undoings, one.undoing, times)
            add_to(figures.undoings, one.undoing, times)
            whole, *plans = _of_plans(state)
            add_to(self._counts, (whole, one.undoing, task, hour), times)
            for of in plans:
                add_to(self._counts, (of, one.undoing, state.graph.steps[index].id, hour), times)

    # Writing ---------------------------------------------------------------------------------------------------------------

    def _write_figures(self) -> None:
        dirty: dict[_FigureKey, Figures] = {}
        for kind, name, hour, figures in self._added():
            for span, since in windows_of(hour):
                key = kind, name, span, since
                row = dirty.get(key) or dirty.setdefault(key, self._row(key))
                row.add(figures)
        if dirty:
            self.view.put(FIGURES, [FIGURES.row(*key, figures.total, figures.encoded()) for key, figures in dirty.items()])

    def _added(self) -> Iterator[tuple[str, str, int, Figures]]:
        sums: dict[tuple[str, str, int], Figures] = {}
        for (plan, plan_id, hour), figures in self._executions.items():
            for kind, name in ((ALL, ""), (NAME, plan), (PLAN_ID, plan_id)):
                sums.setdefault((kind, name, hour), Figures()).add(figures)
        for (task, hour), figures in self._tasks.items():
            for kind, name in ((TASKS, ""), (TASK, task)):
                sums.setdefault((kind, name, hour), Figures()).add(figures)
        for (kind, name, hour), figures in sums.items():
            yield kind, name, hour, figures

    def _row(self, key: _FigureKey) -> Figures:
        if (figures := self._rows.get(key)) is not None:
            self._rows.move_to_end(key)
            return figures
        row = self.view.get(FIGURES, *key)
        figures = self._rows[key] = decoded(row.data) if row is not None else Figures()
        return figures

    def _write_counts(self) -> None:
        changes: dict[_CountKey, int] = {}
        for (of, what, name, hour), many in self._counts.items():
            for window in windows_of(hour):
                add_to(changes, (of, what, name, *window), many)
        rows, gone = [], []
        for key, many in changes.items():
            row = self.view.get(COUNTS, *key)
            many += row.many if row is not None else 0
            if many:
                rows.append(COUNTS.row(*key, many))
            else:
                gone.append(key)
        if rows:
            self.view.put(COUNTS, rows)
        if gone:
            self.view.delete(COUNTS, gone)

    def _write_steps(self) -> None:
        rows, gone = [], []
        for key, (many, sum_ms) in self._steps.items():
            row = self.view.get(STEPS, *key)
            if row is not None:
                many, sum_ms = many + row.many, sum_ms + row.sum_ms
            if many:
                rows.append(STEPS.row(*key, many, sum_ms))
            elif row is not None:
                gone.append(key)
        if rows:
            self.view.put(STEPS, rows)
        if gone:
            self.view.delete(STEPS, gone)


def _of_plans(state: ExecutionState) -> tuple[str, str, str]:
    return ALL, counted_of(NAME, state.created.name), counted_of(PLAN_ID, state.created.plan_id)


def _hour(state: ExecutionState) -> int:
    assert state.created_at is not None
    return hour_of(state.created_at)
