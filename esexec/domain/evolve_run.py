"""What begins again: retries and restores, which make a new run of what is kept, and the checkpoints they go back to."""

from collections import deque
from datetime import timedelta
from typing import Any

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.evolve_admission import let_go
from esexec.domain.evolve_step import hold_what_was_not_handed_out, it_stands, leave, make_ready, perhaps_done
from esexec.domain.state import NOBODY, Checkpoint, ExecutionState, StepState, Timer, table
from esexec.domain.timers import close_timers

_NOT_OVER = 1 << 62


def retried(state: ExecutionState, event: e.ExecutionRetried) -> None:
    undone_all = state.status == "rolled_back"
    only = state.graph.index[event.step] if event.step is not None else None
    keep = [step if step.status == "completed" and stands(state, step) and not undone_all else None for step in state.steps]
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
            table(state, "past").setdefault(index, []).append((step, state.version))
        if kept is None:
            kept = StepState(recoveries=step.recoveries if by_recovery else 0)
        elif not by_recovery:
            kept.recoveries = 0
        state.steps[index] = kept
        kept.compensation = None
    state.run, state.begun = run, (*state.begun, state.n)
    if not by_recovery:
        state.turned = state.n
    state.policies.clear()
    state.in_flight.clear()
    state.serial_busy = False
    state.phase, state.status = "executing", "paused" if state.paused else "running"
    state.failing, state.cancel, state.expired, state.cursor, state.recovering = False, 0, 0, 0, 0
    state.cancel_reason, state.cancel_code = "", None
    state.ended_at, state.rollback, state.rollback_status = None, None, None
    state.abandoned, state.doomed = [], NOBODY
    state.failed = [index for index, step in enumerate(state.steps) if step.status == "failed"]
    state.error = state.steps[state.failed[0]].error if state.failed else None
    state.started_at, state.going_since = state.started_at or state.time, state.time
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
    table(state, "checkpoints")[event.checkpoint_id] = Checkpoint(
        event.checkpoint_id, state.version, state.n, state.time, event.by, event.metadata, state.checkpoint
    )
    state.checkpoint = event.checkpoint_id
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
    hold_what_was_not_handed_out(state)
    for index in state.in_flight:
        step = state.steps[index]
        if step.gate is not None:
            let_go(state, step, None)
        if step.open and not step.held:
            leave(state, index)
            if step.purpose != "recovery":
                perhaps_done(state, index)
    keep = [life_at(state, index, checkpoint.version) for index in range(len(state.steps))]
    for deed in [step.deed for step in keep if step is not None and step.deed is not None]:
        # What it did then counts again, whatever it did since.
        it_stands(state, deed)
    state.standing = dict(sorted(state.standing.items(), key=lambda done: done[1].since))
    state.variables = _variables_at(state, checkpoint.version) | event.vars
    state.set_vars.append((state.version, state.variables, True))
    state.checkpoint = checkpoint.id
    _begin_run(state, event.run, keep, by_recovery=event.by == "recovery")


def _variables_at(state: ExecutionState, version: int) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for changed_at, news, instead in state.set_vars:
        if changed_at < version:
            variables = dict(news) if instead else variables | news
    return variables


def stands(state: ExecutionState, step: StepState) -> bool:
    """Whether what completed this step was not undone."""
    return step.settled not in state.undone


def life_at(state: ExecutionState, index: int, version: int) -> StepState | None:
    """The step as it was done at that version, unless that was undone; None: it was not."""
    lives = (*state.past.get(index, ()), (state.steps[index], _NOT_OVER))
    step = next(step for step, over in lives if over > version)
    return step if step.done and step.settled < version and stands(state, step) else None


def completed_at(state: ExecutionState, version: int) -> dict[str, Any]:
    """The outputs of the steps that were completed at that version, and not undone since, by step."""
    lives = ((spec.id, life_at(state, index, version)) for index, spec in enumerate(state.graph.steps))
    return {step_id: step.output for step_id, step in lives if step is not None and step.status == "completed"}
