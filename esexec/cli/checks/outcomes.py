"""How it went lately, by the statistics that projections keep: what fails often, is tried again, waits, was not undone."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Final

from esexec.cli.checks import Check, Patient, ok, warning
from esexec.cli.text import counted
from esexec.client.queries import Queries
from esexec.domain.errors import EsexecError
from esexec.world import now
from projections.statistics_asks import (
    AskStatistics,
    AskTaskStatistics,
    ExecutionStatistics,
    TaskStatistics,
    TaskTotals,
)

_WINDOW: Final = timedelta(hours=1)
_ENOUGH: Final = 10
"""Fewer steps than this say nothing of a task."""
_FAILS_OFTEN, _TRIED_AGAIN, _WAITS_TIMES, _WAITS_MS = 0.5, 2.0, 10, 10_000
_TOLD: Final = 5


async def outcomes(patient: Patient) -> AsyncIterator[Check]:
    """Nothing is told where no projections answer: that is a finding of its own."""
    queries, since = Queries(patient.connection, patient.subjects), now() - _WINDOW
    try:
        tasks = await queries.ask("task_stats", AskTaskStatistics(since=since, by="name"), TaskStatistics)
        executions = await queries.ask("stats", AskStatistics(since=since), ExecutionStatistics)
    except EsexecError:
        return
    found = [one for name, totals in tasks.groups.items() for one in _of_task(patient, name, totals)]
    for one in found[:_TOLD]:
        yield one
    if len(found) > _TOLD:
        yield warning("outcomes", f"and {len(found) - _TOLD} more tasks like these", f"{patient.advised} stats --tasks --by name")
    if partial := executions.rollbacks.partial:
        hint = f"{patient.advised} ls --status failed; then {patient.advised} rollback ID --dry-run"
        yield warning("outcomes", f"{partial} executions of the last hour were rolled back only in part", hint)
    elif not found:
        yield ok(
            "outcomes",
            f"{counted(executions.total, 'execution')} and {counted(tasks.total, 'step')} in the last hour, nothing unusual",
        )


def _of_task(patient: Patient, name: str, totals: TaskTotals) -> Iterator[Check]:
    stats = f"{patient.advised} stats --tasks --name {name}"
    if totals.undoings.failed:
        said = f"the undoing of `{name}` failed {totals.undoings.failed} times in the last hour"
        yield warning("outcomes", said, f"{patient.advised} ls --status failed")
    if totals.completed + totals.failed < _ENOUGH:
        return
    rate, retries = totals.success_rate, totals.average_retries
    if rate is not None and rate < _FAILS_OFTEN:
        said = f"`{name}`: {1 - rate:.0%} of {totals.completed + totals.failed} steps failed in the last hour"
        yield warning("outcomes", said, f"{stats} tells of what")
    elif retries is not None and retries >= _TRIED_AGAIN:
        said = f"`{name}` is tried again {retries:.1f} times on average"
        yield warning("outcomes", said, "is what it calls there? A longer initial_retry_delay takes the load off it")
    elif _waits(totals):
        said = f"`{name}` answers within {totals.answer_p95_ms} ms, but its steps take {totals.p95_ms} ms (p95)"
        yield warning("outcomes", said, f"they wait, or are tried again: {stats}; more workers help, or fewer failures")


def _waits(totals: TaskTotals) -> bool:
    """Whether steps take far longer than the task itself."""
    whole, alone = totals.p95_ms, totals.answer_p95_ms
    return whole is not None and alone is not None and whole >= max(_WAITS_MS, alone * _WAITS_TIMES)
