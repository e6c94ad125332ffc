"""What begins again: retries and restores, which make a new run of what is kept, and the checkpoints they go back to."""

from collections import deque
from datetime import timedelta

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.evolve_step import make_ready, perhaps_done
from esexec.domain.state import Checkpoint, ExecutionState, Lane, StepState, Timer
from esexec.domain.timers import close_timers


def retried(state: ExecutionState, event: e.ExecutionRetried) -> None:
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


# A new run -------------------------------------------------------------------------------------------------------------


def _begin_run(state: ExecutionState, run: int, keep: list[StepState | None], *, by_recovery: bool = False) -> None:
    """Begin again with the steps that are kept as they are; the others are as new. Timers of the run before are void."""
    for kind in ("start", "retry", "queue", "checkpoint", "grace"):
        close_timers(state, kind)
    if not by_recovery:
        close_timers(state, "deadline")
        state.deadline = None
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
    find_ready(state)
    next_checkpoint(state)


def find_ready(state: ExecutionState) -> None:
    """Count what each step waits for, and which may begin."""
    state.ready, state.serial, state.unsettled = [], [], 0
    for index, step in enumerate(state.steps):
        if step.settled:
            continue
        state.unsettled += 1
        step.waiting = sum(not state.steps[other].done for other in state.graph.dependencies[index])
        if not step.waiting:
            make_ready(state, index)


# Checkpoints -----------------------------------------------------------------------------------------------------------


def checkpoint_created(state: ExecutionState, event: e.CheckpointCreated) -> None:
    assert state.time is not None
    state.checkpoints[event.checkpoint_id] = Checkpoint(
        event.checkpoint_id, state.version, state.n, state.time, event.by, event.metadata, state.variables
    )
    if event.by == "interval":
        close_timers(state, "checkpoint", fired=True)
        next_checkpoint(state)


def checkpoint_failed(state: ExecutionState, event: e.CheckpointFailed) -> None:
    state.checkpoints_failed = True
    close_timers(state, "checkpoint", fired=True)


def next_checkpoint(state: ExecutionState) -> None:
    """The timer of the next periodic checkpoint, named by this version."""
    interval = state.execution_policy.checkpoint_interval_ms
    if interval and not state.checkpoints_failed:
        assert state.time is not None
        due = state.time + timedelta(milliseconds=max(interval, limits.checkpoint_interval_min_ms))
        state.timers[state.version] = Timer("checkpoint", due)


def checkpoint_restored(state: ExecutionState, event: e.CheckpointRestored) -> None:
    checkpoint = state.checkpoints[event.checkpoint_id]
    for index in state.in_flight:
        step = state.steps[index]
        if step.open:
            policy = state.attempt_policy(index)
            state.left.setdefault(state.n, []).append(Lane(index, state.run, step.attempt, policy.queue, policy.priority))
            if step.purpose != "recovery":
                perhaps_done(state, index)
    keep = [_as_of(state, index, checkpoint.version) for index in range(len(state.steps))]
    state.variables = checkpoint.variables | event.vars
    _begin_run(state, event.run, keep, by_recovery=event.by == "recovery")


def _as_of(state: ExecutionState, index: int, version: int) -> StepState | None:
    """The step as it was completed at that version, unless that was undone; None: it runs again."""
    lives = (*state.past.get(index, ()), (state.steps[index], state.version))
    step = next(step for step, over in lives if over > version)
    return step if step.done and step.settled < version and state.undone.get(index, 0) < step.settled else None
