"""Tables of read models on a narrow terminal: every line fits, and no figure is cut."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console, RenderableType

from esexec.cli.events import line
from esexec.cli.lists import executions_table, read_plan_id, tasks_table
from esexec.cli.stats import picture_of_executions, picture_of_tasks
from esexec.cloudevents import CloudEvent, EventData
from esexec.domain.errors import ErrorInfo, ValidationError
from esexec.results import ExecutionStatus, ExecutionSummary, TaskRecord, TaskStatus
from projections.asks import AsOf, Listed
from projections.statistics_asks import ExecutionStatistics, ExecutionTotals, Rollbacks, TaskStatistics, TaskTotals, Undoings

AT = datetime(2026, 11, 30, 12, 3, 7, tzinfo=UTC)
ERROR = ErrorInfo(type="execution_error", code="NOBODY_HOME", message="nobody is at the door of number 17, nor next to it")


def lines(content: RenderableType, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, no_color=True, highlight=False)
    console.print(content)
    assert isinstance(console.file, io.StringIO)
    return [one.rstrip() for one in console.file.getvalue().splitlines()]


def of_executions() -> ExecutionTotals:
    return ExecutionTotals(
        total=12_345,
        by_status={"completed": 10_000, "failed": 345, "rolled_back": 2_000, "running": 0},
        success_rate=0.81,
        average_execution_time_ms=829.4,
        p50_ms=727,
        p95_ms=1_512,
        p99_ms=150_000,
        average_steps_per_execution=3.0,
        retries=1_119,
        reruns=0,
        rollbacks=Rollbacks(completed=0, partial=0, steps=Undoings(), by_step={}),
    )


def of_tasks() -> TaskTotals:
    return TaskTotals(
        total=12_345,
        completed=12_000,
        failed=345,
        by_status={"completed": 12_000, "failed": 345},
        success_rate=0.97,
        average_duration_ms=829.4,
        p50_ms=727,
        p95_ms=1_512,
        p99_ms=150_000,
        answer_p50_ms=None,
        answer_p95_ms=None,
        answer_p99_ms=None,
        average_retries=None,
        retries=1_119,
        cached=0,
        undoings=Undoings(),
    )


def figures(width: int, of: str) -> list[str]:
    """The table of groups alone."""
    names = ("2026-11-30T11:00:00Z", "a-plan-with-quite-a-long-name")
    if of == "executions":
        one = of_executions()
        known = {name: getattr(one, name) for name in one.__struct_fields__}
        found = ExecutionStatistics(**known, groups=dict.fromkeys(names, one), as_of=AsOf(1))
        drawn = lines(picture_of_executions(found, width), width)
    else:
        task = of_tasks()
        known = {name: getattr(task, name) for name in task.__struct_fields__}
        drawn = lines(picture_of_tasks(TaskStatistics(**known, groups=dict.fromkeys(names, task), as_of=AsOf(1)), width), width)
    return drawn[drawn.index("") + 1 :]


@pytest.mark.parametrize("of", ["executions", "tasks"])
def test_figures_on_eighty_columns(of: str) -> None:
    """Some columns are left out, and names are folded; the figures that are shown are whole."""
    drawn = figures(80, of)
    assert max(map(len, drawn)) <= 80
    told = "\n".join(drawn)
    assert "…" not in told
    for words in ("12,345", "345", "727 ms", "1.5 s", "2 min 30 s", "1,119"):
        assert told.count(words) >= 2, words
    assert "completed" not in told
    assert told.count("10,000") == 0


def test_figures_where_there_is_room() -> None:
    """All columns, each name on one line."""
    drawn = figures(140, "executions")
    assert len(drawn) == 3
    for words in ("completed", "rolled back", "mean"):
        assert words in drawn[0]
    assert "a-plan-with-quite-a-long-name" in drawn[2]


def test_lists_on_eighty_columns() -> None:
    """An execution, or a step, is one line; what is wrong with it ends with the line."""
    of_it = {"plan_id": "p", "created_at": AT, "duration_ms": 1_300, "error": ERROR}
    execution = ExecutionSummary(
        execution_id="order-2026-11-30-0017",
        name="delivery",
        status=ExecutionStatus.ROLLED_BACK,
        current_phase="ended",
        total_steps=3,
        completed_steps=2,
        **of_it,
    )
    task = TaskRecord(
        task_id="deliver",
        step_index=0,
        name="deliver",
        status=TaskStatus.FAILED,
        execution_id="order-2026-11-30-0017",
        execution_name="delivery",
        **of_it,
    )
    for table, one in ((executions_table, execution), (tasks_table, task)):
        [drawn] = lines(table(Listed(items=[one], as_of=AsOf(1)), 80), 80)
        assert len(drawn) <= 80
        assert drawn.endswith("…")
        assert "order-2026-11-30-0017" in drawn
        assert "[NO" in drawn
        [whole] = lines(table(Listed(items=[one], as_of=AsOf(1)), 200), 200)
        assert str(one.status) in whole
        assert ERROR.message in whole


def test_events_on_eighty_columns() -> None:
    """The words are what is shown; where there is room, the date and the type as well."""
    event = CloudEvent(
        specversion="1.0",
        id="order-17/9",
        source="esexec/default",
        type="task.failed",
        subject="order-17",
        time=AT,
        n=3,
        version=9,
        position=40,
        datacontenttype="application/json",
        data=EventData(description="deliver failed after 0 ms: [NOBODY_HOME]", data={}),
    )
    assert lines(line(event, 80), 80) == ["12:03:07  order-17              deliver failed after 0 ms: [NOBODY_HOME]"]
    [wide] = lines(line(event, 140), 140)
    assert wide.startswith("2026-11-30 12:03:07")
    assert "task.failed" in wide


def test_a_plan_s_id_is_whole() -> None:
    """The few characters that are shown beside a plan's name would find nothing, and are refused."""
    assert read_plan_id(None) is None
    assert read_plan_id("0a" * 32) == "0a" * 32
    with pytest.raises(ValidationError) as refused:
        read_plan_id("85f9ca5df5ab")
    assert refused.value.code == "bad_plan_id"
    assert "64 characters" in (refused.value.hint or "")
