"""From event to state: `evolve`, one function per event; and `fold`, which is evolve over a history.

`evolve(state, event)` costs work in proportion to what the event changes, never to the size of the plan; only a new run looks at
every step once. It owns the state it is given and returns it; whoever wants to keep an old state folds again.
"""

from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from heapq import heappush
from typing import Any

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Commit
from esexec.domain.compiled import graph_of
from esexec.domain.errors import CorruptHistory
from esexec.domain.settings import merge_execution
from esexec.domain.state import (
    Checkpoint,
    ExecutionState,
    ExecutionStatus,
    Lane,
    Rollback,
    StepState,
    StepStatus,
    Timer,
    TimerKind,
)

UNKNOWN_OUTCOMES = frozenset({"WORKER_LOST"})
"""Codes of failures after which it is not known whether the attempt did its work. Every timeout is one as well."""
NEVER_BEGAN = frozenset({"queue_timeout"})
"""Codes of timeouts of attempts that no worker began."""


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
            for event in commit.events:
                evolve(state, event)
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
        if state.last_control is None or time > state.last_control:
            state.last_control = time
    elif cause_id.startswith("continue/"):
        state.applied[cause_id] = state.n


def evolve(state: ExecutionState, event: e.Event) -> ExecutionState:
    """The state after this event."""
    state.version += 1
    _EVOLVE[type(event)](state, event)
    return state


# Executions ------------------------------------------------------------------------------------------------------------


def _created(state: ExecutionState, event: e.ExecutionCreated) -> None:
    graph = graph_of(bytes(event.plan))
    state.created, state.graph = event, graph
    state.created_at = state.time
    state.execution_policy = merge_execution((event.namespace, graph.plan.config, event.config))
    state.steps = [StepState(len(waiting)) for waiting in graph.dependencies]
    state.unsettled = len(state.steps)
    for step_id, output in event.kept.items():
        step = state.steps[graph.index[step_id]]
        step.status, step.output, step.settled, step.ended_at = "completed", output, state.version, state.time
    if event.kept:
        _find_ready(state)
    else:
        for index, step in enumerate(state.steps):
            if not step.waiting:
                _make_ready(state, index)
    if event.start_at is not None:
        state.timers[state.version] = Timer("start", event.start_at)


def _started(state: ExecutionState, event: e.ExecutionStarted) -> None:
    state.status, state.phase, state.started_at = "running", "executing", state.time
    if state.created.start_at is not None:
        _close_timer(state, 1, fired=True)
    if state.execution_policy.checkpoint_interval_ms:
        _next_checkpoint(state)


def _completed(state: ExecutionState, event: e.ExecutionCompleted) -> None:
    _end(state, "completed")


def _failed(state: ExecutionState, event: e.ExecutionFailed) -> None:
    state.error, state.rollback_status = event.error, event.rollback_status
    _end(state, "failed")


def _cancel_requested(state: ExecutionState, event: e.ExecutionCancelRequested) -> None:
    if state.paused:
        _unpause(state)
    state.phase, state.status = "cancelling", "running" if state.started_at is not None else "pending"
    state.cancel, state.cancel_reason = state.version, event.reason
    state.cursor = 0
    _set_grace(state, event.grace_ms)


def _cancelled(state: ExecutionState, event: e.ExecutionCancelled) -> None:
    state.rollback_status = event.rollback_status
    _end(state, "cancelled")


def _rolled_back(state: ExecutionState, event: e.ExecutionRolledBack) -> None:
    state.rollback_status = "completed"
    _end(state, "rolled_back")


def _end(state: ExecutionState, status: ExecutionStatus) -> None:
    state.status, state.phase, state.ended_at = status, "ended", state.time
    state.paused, state.paused_at, state.deadline = False, None, None
    state.in_flight.clear()
    _close_timers(state)


def _paused(state: ExecutionState, event: e.ExecutionPaused) -> None:
    state.status, state.paused, state.pause_reason, state.paused_at = "paused", True, event.reason, state.time


def _resumed(state: ExecutionState, event: e.ExecutionResumed) -> None:
    _unpause(state)
    state.status = "pending" if state.started_at is None else "running"


def _unpause(state: ExecutionState) -> None:
    assert state.time is not None
    since, state.paused, state.paused_at, state.pause_reason = state.paused_at, False, None, ""
    if since is not None:
        for version, timer in state.timers.items():
            if timer.kind == "queue":  # what was taken back did not wait for a worker
                state.timers[version] = timer._replace(due=timer.due + (state.time - since))


def _retried(state: ExecutionState, event: e.ExecutionRetried) -> None:
    undone_all = state.status == "rolled_back"
    only = state.graph.index[event.step] if event.step is not None else None
    keep: list[StepState | None] = [step if step.done and not undone_all else None for step in state.steps]
    for index, step in enumerate(state.steps):
        if keep[index] is not None and state.undone.get(index, 0) > step.settled:
            keep[index] = None
    if only is not None and not undone_all:
        _keep_other_failures(state, keep, only)
    _begin_run(state, event.run, keep)


def _keep_other_failures(state: ExecutionState, keep: list[StepState | None], only: int) -> None:
    """All failed steps but one stay failed, and what depends on them stays as it is."""
    out = deque(index for index in state.failed if index != only)
    while out:
        index = out.popleft()
        if keep[index] is None and index != only:
            keep[index] = state.steps[index]
            out.extend(state.graph.dependents[index])


def _forked(state: ExecutionState, event: e.ExecutionForked) -> None:
    pass


def _deadline_set(state: ExecutionState, event: e.DeadlineSet) -> None:
    state.deadline = event.deadline
    state.timers[state.version] = Timer("deadline", event.deadline)


def _deadline_exceeded(state: ExecutionState, event: e.DeadlineExceeded) -> None:
    _close_timers(state, "deadline", fired=True)
    if state.error is None:
        state.error = event.error
    state.expired, state.failing, state.cursor, state.deadline = state.version, True, 0, None
    if not state.cancel:
        state.phase = "failing"
    _set_grace(state, event.grace_ms)


def _set_grace(state: ExecutionState, grace_ms: int) -> None:
    assert state.time is not None
    state.timers[state.version] = Timer("grace", state.time + timedelta(milliseconds=grace_ms))


# A new run ---------------------------------------------------------------------------------------------------------------


def _begin_run(state: ExecutionState, run: int, keep: list[StepState | None], *, by_recovery: bool = False) -> None:
    """Begin again with the steps that are kept as they are; the others are as new. Timers of the run before are void."""
    for kind in ("start", "retry", "queue", "checkpoint", "grace", *(() if by_recovery else ("deadline",))):
        _close_timers(state, kind)
    for index, (step, kept) in enumerate(zip(state.steps, keep, strict=True)):
        if kept is not step and (step.done or index in state.past):
            state.past.setdefault(index, []).append((step, state.version))
        if kept is None:
            kept = StepState(recoveries=step.recoveries if by_recovery else 0)
        elif not by_recovery:
            kept.recoveries = 0
        state.steps[index] = kept
        kept.compensation = None
    state.run, state.begun = run, state.n
    state.policies.clear()
    state.in_flight.clear()
    state.serial_busy = False
    state.phase, state.status = "executing", "paused" if state.paused else "running"
    state.failing, state.cancel, state.expired, state.cursor, state.recovering = False, 0, 0, 0, 0
    state.cancel_reason, state.ended_at, state.rollback, state.rollback_status = "", None, None, None
    state.abandoned, state.doomed = [], deque()
    state.failed = [index for index, step in enumerate(state.steps) if step.status == "failed"]
    state.error = state.steps[state.failed[0]].error if state.failed else None
    state.started_at = state.started_at or state.time
    _find_ready(state)
    _next_checkpoint(state)


def _find_ready(state: ExecutionState) -> None:
    """Count what each step waits for, and which may begin."""
    state.ready, state.serial, state.unsettled = [], [], 0
    for index, step in enumerate(state.steps):
        if step.settled:
            continue
        state.unsettled += 1
        step.waiting = sum(not state.steps[other].done for other in state.graph.dependencies[index])
        if not step.waiting:
            _make_ready(state, index)


# Tasks -----------------------------------------------------------------------------------------------------------------


def _task_scheduled(state: ExecutionState, event: e.TaskScheduled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.status = "pending"
    step.scheduled += 1
    _open(step, event.attempt)
    if event.attempt == 1:
        state.in_flight[index] = None
        state.serial_busy = state.serial_busy or not state.graph.parallel[index]
    else:
        step.purpose = "fallback" if step.fallback else "task"
        if step.timer:
            _close_timer(state, step.timer, fired=True)
    if wait := state.policy_of(index).queue_timeout_ms:
        assert state.time is not None
        step.queue_timer = state.version
        state.timers[state.version] = Timer("queue", state.time + timedelta(milliseconds=wait), index)


def _open(step: StepState, attempt: int) -> None:
    step.attempt, step.open, step.overdue = attempt, True, False
    step.tries += 1
    step.started_at = step.started_time = step.next_retry_at = None


def _attempt_started(state: ExecutionState, event: e.TaskStarted | e.RecoveryStarted | e.CompensationStarted) -> None:
    step = state.steps[state.graph.index[event.step]]
    step.worker = event.worker
    step.started_at, step.started_time = event.started_at, state.time
    if step.queue_timer:
        _close_queue_timer(state, step)


def _task_started(state: ExecutionState, event: e.TaskStarted) -> None:
    step = state.steps[state.graph.index[event.step]]
    step.status, step.worker = "running", event.worker
    step.started_at, step.started_time = event.started_at, state.time
    if step.first_started_at is None:
        step.first_started_at = event.started_at
    if step.queue_timer:
        _close_queue_timer(state, step)


def _task_completed(state: ExecutionState, event: e.TaskCompleted) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.output, step.error = event.output, None
    if event.vars:
        state.variables = state.variables | event.vars
    _close(state, step, event.ended_at)
    done = index if step.fallback is None else ~index
    if done in state.standing:
        del state.standing[done]
        state.uncertain.discard(done)
    state.standing[done] = step
    _settle(state, index, step, "completed")
    _release_dependents(state, index)


def _release_dependents(state: ExecutionState, index: int) -> None:
    for dependent in state.graph.dependents[index]:
        other = state.steps[dependent]
        other.waiting -= 1
        if not other.waiting and other.status == "pending":
            _make_ready(state, dependent)


def _task_failed(state: ExecutionState, event: e.TaskFailed | e.TaskTimedOut) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.error = event.error
    _close(state, step, event.ended_at)
    if isinstance(event, e.TaskTimedOut):
        if event.error.code not in NEVER_BEGAN:
            step.timed_out += 1
            _perhaps_done(state, index)
    else:
        if event.error.code in UNKNOWN_OUTCOMES:
            _perhaps_done(state, index)
        if event.vars:
            state.variables = state.variables | event.vars
    step.status = "pending"
    if not event.will_retry and event.instead is None:
        _give_up(state, index, step)


def _perhaps_done(state: ExecutionState, index: int) -> None:
    """Nobody knows whether the attempt did its work: if it is rolled back, it is undone."""
    step = state.steps[index]
    done = index if step.fallback is None else ~index
    if done not in state.standing:
        state.standing[done] = step
        state.uncertain.add(done)


def _give_up(state: ExecutionState, index: int, step: StepState, *, abort: bool = False) -> None:
    """The step has failed for good."""
    _settle(state, index, step, "failed")
    state.failed.append(index)
    if state.error is None:
        state.error = step.error
    _doom_dependents(state, index, state.graph.steps[index].id)
    if (abort or not state.execution_policy.continue_on_error) and not state.failing:
        state.failing, state.cursor = True, 0
        if not state.cancel:
            state.phase = "failing"


def _task_retry_scheduled(state: ExecutionState, event: e.TaskRetryScheduled | e.CompensationRetryScheduled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.timer, step.delay_ms, step.next_retry_at = state.version, event.delay_ms, event.due
    state.timers[state.version] = Timer("retry", event.due, index)


def _task_skipped(state: ExecutionState, event: e.TaskSkipped) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.skip_reason, step.because = event.reason, event.because
    if state.doomed and state.doomed[0][0] == index:
        state.doomed.popleft()
    _settle(state, index, step, "skipped")
    if event.reason == "dependency_failed":
        _doom_dependents(state, index, event.step)
    elif event.reason == "recovery":
        _release_dependents(state, index)


def _task_cancelled(state: ExecutionState, event: e.TaskCancelled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    if step.timer:
        _close_timer(state, step.timer)
    if event.ended == "abandoned":
        state.abandoned.append(event.step)
    if step.open:
        if step.purpose == "recovery":
            state.recovering -= 1
        elif step.started_at is not None or event.ended == "abandoned":
            _perhaps_done(state, index)
        _close(state, step, state.time)
    _settle(state, index, step, "cancelled")


def _task_overdue(state: ExecutionState, event: e.TaskOverdue) -> None:
    step = state.steps[state.graph.index[event.step]]
    step.overdue = True
    if step.queue_timer:
        _close_timer(state, step.queue_timer, fired=True)
        step.queue_timer = 0


def _fallback_started(state: ExecutionState, event: e.FallbackStarted) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.fallback, step.tries, step.timed_out, step.timer = event.task, 0, 0, 0
    state.policies.pop(index, None)


def _image_recorded(state: ExecutionState, event: e.BeforeImageRecorded) -> None:
    state.images[state.graph.index[event.step]] = event.image


# Recovery --------------------------------------------------------------------------------------------------------------


def _recovery_initiated(state: ExecutionState, event: e.RecoveryInitiated) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.purpose, step.recovery, step.timer = "recovery", event, 0
    step.recoveries += 1
    tries = step.tries
    _open(step, event.attempt)
    step.tries = tries  # advice is not a try
    state.recovering += 1


def _recovery_completed(state: ExecutionState, event: e.RecoveryCompleted) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    state.recovering -= 1
    if event.vars:
        state.variables = state.variables | event.vars
    _close(state, step, event.ended_at)
    if event.then == "fail":
        _give_up(state, index, step, abort=event.action == "abort")


# Checkpoints -----------------------------------------------------------------------------------------------------------


def _checkpoint_created(state: ExecutionState, event: e.CheckpointCreated) -> None:
    assert state.time is not None
    state.checkpoints[event.checkpoint_id] = Checkpoint(
        event.checkpoint_id, state.version, state.n, state.time, event.by, event.metadata, state.variables
    )
    if event.by == "interval":
        _close_timers(state, "checkpoint", fired=True)
        _next_checkpoint(state)


def _checkpoint_failed(state: ExecutionState, event: e.CheckpointFailed) -> None:
    state.checkpoints_failed = True
    _close_timers(state, "checkpoint", fired=True)


def _next_checkpoint(state: ExecutionState) -> None:
    """The timer of the next periodic checkpoint, named by this version."""
    interval = state.execution_policy.checkpoint_interval_ms
    if interval and not state.checkpoints_failed:
        assert state.time is not None
        due = state.time + timedelta(milliseconds=max(interval, limits.checkpoint_interval_min_ms))
        state.timers[state.version] = Timer("checkpoint", due)


def _checkpoint_restored(state: ExecutionState, event: e.CheckpointRestored) -> None:
    checkpoint = state.checkpoints[event.checkpoint_id]
    for index in state.in_flight:
        step = state.steps[index]
        if step.open:
            policy = state.attempt_policy(index)
            state.left.setdefault(state.n, []).append(Lane(index, state.run, step.attempt, policy.queue, policy.priority))
            if step.purpose != "recovery":
                _perhaps_done(state, index)
    keep = [_as_of(state, index, checkpoint.version) for index in range(len(state.steps))]
    state.variables = checkpoint.variables | event.vars
    _begin_run(state, event.run, keep, by_recovery=event.by == "recovery")


def _as_of(state: ExecutionState, index: int, version: int) -> StepState | None:
    """The step as it was completed at that version, unless that was undone; None: it runs again."""
    lives = (*state.past.get(index, ()), (state.steps[index], state.version))
    step = next(step for step, over in lives if over > version)
    return step if step.done and step.settled < version and state.undone.get(index, 0) < step.settled else None


# Rollback --------------------------------------------------------------------------------------------------------------


def _rollback_started(state: ExecutionState, event: e.RollbackStarted) -> None:
    state.status, state.phase, state.ended_at = "paused" if state.paused else "running", "rolling_back", None
    state.cancel, state.expired, state.abandoned = 0, 0, []
    state.rollback_status = None
    for kind in ("deadline", "checkpoint", "grace"):
        _close_timers(state, kind)
    state.deadline = None
    state.rollback = Rollback([*reversed(state.standing)])


def _compensation_scheduled(state: ExecutionState, event: e.CompensationScheduled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    if step.compensation != "running":
        step.tries, step.timed_out, step.timer = 0, 0, 0
    step.purpose, step.compensation, step.compensator = "compensation", "running", event.task
    _open(step, event.attempt)
    state.in_flight[index] = None
    if step.timer:
        _close_timer(state, step.timer, fired=True)


def _compensation_completed(state: ExecutionState, event: e.CompensationCompleted) -> None:
    index, step, rollback = _undoing(state, event.step)
    _close(state, step, None)
    step.compensation = "completed"
    done = rollback.order[rollback.cursor]
    state.undone[index] = state.version
    state.standing.pop(done, None)
    state.uncertain.discard(done)
    if index not in state.standing and ~index not in state.standing:
        state.images.pop(index, None)
    rollback.undone += 1
    _next_undo(state, index, rollback)


def _compensation_failed(state: ExecutionState, event: e.CompensationFailed) -> None:
    index, step, rollback = _undoing(state, event.step)
    _close(state, step, None)
    if event.error.type == "timeout_error":
        step.timed_out += 1
    if not event.will_retry:
        step.compensation = "failed"
        rollback.failed.append(index)
        _next_undo(state, index, rollback)


def _compensation_skipped(state: ExecutionState, event: e.CompensationSkipped) -> None:
    index, step, rollback = _undoing(state, event.step)
    step.compensation = "skipped"
    rollback.skipped.append(index)
    _next_undo(state, index, rollback)


def _undoing(state: ExecutionState, step_id: str) -> tuple[int, StepState, Rollback]:
    index = state.graph.index[step_id]
    assert state.rollback is not None
    return index, state.steps[index], state.rollback


def _next_undo(state: ExecutionState, index: int, rollback: Rollback) -> None:
    state.in_flight.pop(index, None)
    rollback.cursor += 1


# What several of them do -------------------------------------------------------------------------------------------------


def _make_ready(state: ExecutionState, index: int) -> None:
    heappush(state.ready if state.graph.parallel[index] else state.serial, index)


def _close(state: ExecutionState, step: StepState, ended_at: datetime | None) -> None:
    step.open = False
    if step.purpose != "compensation":
        step.ended_at = ended_at or state.time
    step.closed.append(state.n)
    if step.queue_timer:
        _close_queue_timer(state, step)


def _close_queue_timer(state: ExecutionState, step: StepState) -> None:
    _close_timer(state, step.queue_timer)
    step.queue_timer = 0


def _close_timer(state: ExecutionState, version: int, *, fired: bool = False) -> None:
    """A timer is not waited for any more; one that has not fired is cleared by this commit."""
    if state.timers.pop(version, None) is not None:
        state.closed_timers[version] = state.n
        if not fired:
            state.cleared.setdefault(state.n, []).append(version)


def _close_timers(state: ExecutionState, kind: TimerKind | None = None, *, fired: bool = False) -> None:
    """All timers of a kind, or all there are."""
    if state.timers:
        for version in [version for version, timer in state.timers.items() if kind is None or timer.kind == kind]:
            _close_timer(state, version, fired=fired)


def _settle(state: ExecutionState, index: int, step: StepState, status: StepStatus) -> None:
    step.status, step.next_retry_at, step.settled = status, None, state.version
    state.unsettled -= 1
    if index in state.in_flight:
        del state.in_flight[index]
        if not state.graph.parallel[index]:
            state.serial_busy = False


def _doom_dependents(state: ExecutionState, index: int, because: str) -> None:
    state.doomed.extend((dependent, because) for dependent in state.graph.dependents[index])


_EVOLVE: dict[type, Callable[[ExecutionState, Any], None]] = {
    e.ExecutionCreated: _created,
    e.ExecutionStarted: _started,
    e.ExecutionCompleted: _completed,
    e.ExecutionFailed: _failed,
    e.ExecutionCancelRequested: _cancel_requested,
    e.ExecutionCancelled: _cancelled,
    e.ExecutionRolledBack: _rolled_back,
    e.ExecutionPaused: _paused,
    e.ExecutionResumed: _resumed,
    e.ExecutionRetried: _retried,
    e.ExecutionForked: _forked,
    e.DeadlineSet: _deadline_set,
    e.DeadlineExceeded: _deadline_exceeded,
    e.TaskScheduled: _task_scheduled,
    e.TaskStarted: _task_started,
    e.TaskCompleted: _task_completed,
    e.TaskFailed: _task_failed,
    e.TaskTimedOut: _task_failed,
    e.TaskRetryScheduled: _task_retry_scheduled,
    e.TaskSkipped: _task_skipped,
    e.TaskCancelled: _task_cancelled,
    e.TaskOverdue: _task_overdue,
    e.FallbackStarted: _fallback_started,
    e.BeforeImageRecorded: _image_recorded,
    e.RecoveryInitiated: _recovery_initiated,
    e.RecoveryStarted: _attempt_started,
    e.RecoveryCompleted: _recovery_completed,
    e.CheckpointCreated: _checkpoint_created,
    e.CheckpointFailed: _checkpoint_failed,
    e.CheckpointRestored: _checkpoint_restored,
    e.RollbackStarted: _rollback_started,
    e.CompensationScheduled: _compensation_scheduled,
    e.CompensationStarted: _attempt_started,
    e.CompensationCompleted: _compensation_completed,
    e.CompensationFailed: _compensation_failed,
    e.CompensationRetryScheduled: _task_retry_scheduled,
    e.CompensationSkipped: _compensation_skipped,
}
