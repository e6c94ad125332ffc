"""From event to state: `evolve`, one function per event; and `fold`, which is evolve over a history.

`evolve(state, event)` costs work in proportion to what the event changes, never to the size of the plan; only a new run looks at
every step once. It owns the state it is given and returns it; whoever wants to keep an old state folds again.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from esexec.domain import events as e
from esexec.domain import evolve_admission as admission
from esexec.domain import evolve_execution as execution
from esexec.domain import evolve_rollback as undoing
from esexec.domain import evolve_run as runs
from esexec.domain import evolve_step as step
from esexec.domain.commit import Commit
from esexec.domain.errors import CorruptHistory
from esexec.domain.state import ExecutionState


def fold(execution_id: str, commits: Iterable[Commit], state: ExecutionState | None = None) -> ExecutionState:
    """The state after these commits, which follow each other and the given state without a gap.

    Raises `CorruptHistory` if they do not, or if they tell what cannot have happened.
    """
    state = ExecutionState(execution_id) if state is None else state
    for commit in commits:
        if commit.execution_id != execution_id:
            raise CorruptHistory(f"{execution_id}: a commit of {commit.execution_id} stands where commit {state.n + 1} belongs")
        if commit.n != state.n + 1 or commit.version != state.version + 1:
            raise CorruptHistory(
                f"{execution_id}: expected commit {state.n + 1} with version {state.version + 1}, "
                f"found commit {commit.n} with version {commit.version}"
            )
        try:
            begin(state, commit.n, commit.time)
            for event in commit.events:  # as `evolve`, without its call
                state.version += 1
                EVOLVE[type(event)](state, event)
        except Exception as error:
            raise CorruptHistory(f"{execution_id}: commit {commit.n} cannot have happened ({error!r})") from error
        for cause in commit.commands:
            note_cause(state, cause.id, cause.time)
    return state


def begin(state: ExecutionState, n: int, time: datetime) -> None:
    """The events that are evolved next belong to commit `n` of this time."""
    state.n = n
    state.time = time


def note_cause(state: ExecutionState, cause_id: str, time: datetime) -> None:
    """A commit was decided upon this. Commands and continuations are remembered; reports and timers are recognised otherwise."""
    if "/" not in cause_id:
        state.applied[cause_id] = state.n
        if state.turned == state.n and (state.last_control is None or time > state.last_control):
            state.last_control = time
    elif cause_id.startswith("continue/"):
        state.applied[cause_id] = state.n


def evolve(state: ExecutionState, event: e.Event) -> ExecutionState:
    """The state after this event."""
    state.version += 1
    EVOLVE[type(event)](state, event)
    return state


EVOLVE: dict[type, Callable[[ExecutionState, Any], None]] = {
    e.ExecutionCreated: execution.created,
    e.ExecutionStarted: execution.started,
    e.ExecutionCompleted: execution.completed,
    e.ExecutionFailed: execution.failed,
    e.ExecutionCancelRequested: execution.cancel_requested,
    e.ExecutionCancelled: execution.cancelled,
    e.ExecutionRolledBack: execution.rolled_back,
    e.ExecutionPaused: execution.paused,
    e.ExecutionResumed: execution.resumed,
    e.ExecutionRetried: runs.retried,
    e.ExecutionForked: execution.forked,
    e.DeadlineSet: execution.deadline_set,
    e.DeadlineExceeded: execution.deadline_exceeded,
    e.TaskScheduled: step.task_scheduled,
    e.TaskStarted: step.task_started,
    e.TaskCompleted: step.task_completed,
    e.TaskFailed: step.task_failed,
    e.TaskRejected: step.task_failed,
    e.TaskTimedOut: step.task_failed,
    e.TaskRetryScheduled: step.task_retry_scheduled,
    e.TaskSkipped: step.task_skipped,
    e.TaskCancelled: step.task_cancelled,
    e.TaskHeld: step.task_held,
    e.TaskOverdue: step.task_overdue,
    e.FallbackStarted: step.fallback_started,
    e.BeforeImageRecorded: step.image_recorded,
    e.RecoveryInitiated: step.recovery_initiated,
    e.RecoveryStarted: step.attempt_started,
    e.RecoveryCompleted: step.recovery_completed,
    e.CheckpointCreated: runs.checkpoint_created,
    e.CheckpointFailed: runs.checkpoint_failed,
    e.CheckpointRestored: runs.checkpoint_restored,
    e.RollbackStarted: undoing.rollback_started,
    e.CompensationScheduled: undoing.compensation_scheduled,
    e.CompensationStarted: step.attempt_started,
    e.CompensationCompleted: undoing.compensation_completed,
    e.CompensationFailed: undoing.compensation_failed,
    e.CompensationRetryScheduled: step.task_retry_scheduled,
    e.CompensationSkipped: undoing.compensation_skipped,
    e.TaskGranted: step.granted,
    e.ResourceAllocated: step.granted,
    e.ResourceReleased: admission.released,
    e.TaskRateLimited: admission.rate_limited,
    e.TaskWaiting: admission.waiting,
    e.ExecutionQueued: admission.queued,
    e.ExecutionGranted: admission.execution_granted,
    e.TaskCacheHit: step.task_cache_hit,
}
