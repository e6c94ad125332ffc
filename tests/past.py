"""How long things took in the past, told from histories in the plainest way: what an answer to `query.durations` has to tell."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from statistics import mean

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.evolve import fold
from esexec.results import TaskStatus, result_of
from esexec.views import Durations


def durations_of(histories: Iterable[list[Commit]]) -> Durations:
    """The means over those that completed; see `Durations`."""
    steps, tasks, overheads, runs = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list), list[float](), 0
    for commits in histories:
        result = result_of(fold(commits[0].execution_id, commits))
        if not result.ok:
            continue
        runs += 1
        spent = _from_scheduled_to_settled(commits)
        for task in result.results:
            if task.status == TaskStatus.COMPLETED and task.duration_ms is not None:
                steps[task.task_id].append(task.duration_ms)
                tasks[task.name].append(task.duration_ms)
                overheads.append(max(0.0, spent[task.task_id] - task.duration_ms))
    return Durations(
        steps={name: mean(took) for name, took in steps.items()},
        tasks={name: mean(took) for name, took in tasks.items()},
        overhead_ms=mean(overheads) if overheads else 0.0,
        runs=runs,
    )


def _from_scheduled_to_settled(commits: list[Commit]) -> dict[str, float]:
    """By step, in milliseconds, by the log's clock."""
    first: dict[str, datetime] = {}
    spent: dict[str, float] = {}
    for commit in commits:
        for event in commit.events:
            if isinstance(event, e.TaskScheduled):
                first.setdefault(event.step, commit.time)
            elif isinstance(event, e.TaskCompleted):
                spent[event.step] = (commit.time - first[event.step]).total_seconds() * 1000
    return spent
