"""What the events of a step make of the state: its attempts, their outcomes, recovery and fallback."""

from collections import deque
from datetime import datetime, timedelta
from heapq import heappush
from typing import Any

from esexec.domain import events as e
from esexec.domain import evolve_admission as admission
from esexec.domain import measures
from esexec.domain.state import Deed, ExecutionState, Lane, StepState, StepStatus, Timer, table
from esexec.domain.timers import close_timer

UNKNOWN_OUTCOMES = frozenset({"WORKER_LOST", "PROCESS_CRASHED"})
"""Codes of failures after which it is not known whether the attempt did its work. Every timeout is one as well."""
NEVER_BEGAN = frozenset({"queue_timeout"})
"""Codes of timeouts of attempts that no worker began."""


def task_scheduled(state: ExecutionState, event: e.TaskScheduled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.status = "pending"
    step.scheduled += 1
    open_attempt(state, step, event.attempt)
    if event.attempt == 1:
        state.in_flight[index] = None
        state.serial_busy = state.serial_busy or not state.graph.parallel[index]
    else:
        step.purpose = "fallback" if step.fallback else "task"
        if step.timer:
            close_timer(state, step.timer, fired=True)
    if uses := state.graph.uses[index]:
        step.inputs = tuple([state.steps[other].output for other in uses])
    if state.gated and admission.ask(state, index, step):
        return
    if state.bounded_waits and (wait := state.policy_of(index).queue_timeout_ms):
        wait_in_queue(state, index, step, wait)


def granted(state: ExecutionState, event: e.TaskGranted | e.ResourceAllocated) -> None:
    """After the last grant the attempt waits for a worker."""
    index = state.graph.index[event.step]
    step = state.steps[index]
    if admission.granted(state, index, step, event) and (wait := state.attempt_policy(index).queue_timeout_ms):
        wait_in_queue(state, index, step, wait)


def wait_in_queue(state: ExecutionState, index: int, step: StepState, wait_ms: int) -> None:
    """The attempt that is opened by this event may wait so long for a worker."""
    assert state.time is not None
    step.queue_timer = state.version
    state.timers[state.version] = Timer("queue", state.time + timedelta(milliseconds=wait_ms), index, state.time)


def open_attempt(state: ExecutionState, step: StepState, attempt: int) -> None:
    """An attempt is handed out, whatever it is for; during a pause not before that is over."""
    step.attempt, step.open, step.opened = attempt, True, state.n
    step.tries += 1
    if attempt > 1:
        step.overdue, step.held = False, state.paused
        step.started_at = step.started_time = step.next_retry_at = None


def hold_what_was_not_handed_out(state: ExecutionState) -> None:
    """The commit that opened these attempts, or freed them, has an event that stops them as well: they were not handed out."""
    for index in state.in_flight:
        step = state.steps[index]
        if step.open and step.opened == state.n and step.started_at is None:
            step.held = True


def attempt_started(state: ExecutionState, event: e.TaskStarted | e.RecoveryStarted | e.CompensationStarted) -> None:
    step = state.steps[state.graph.index[event.step]]
    _begun(state, step, event.worker, event.started_at)


def _begun(state: ExecutionState, step: StepState, worker: str, started_at: datetime) -> None:
    step.worker, step.started_at, step.started_time = worker, started_at, state.time
    if step.held or step.overdue:
        step.held = step.overdue = False
    if step.queue_timer:
        _close_queue_timer(state, step)


def task_started(state: ExecutionState, event: e.TaskStarted) -> None:
    step = state.steps[state.graph.index[event.step]]
    step.status = "running"
    if step.first_started_at is None:
        step.first_started_at = event.started_at
    _begun(state, step, event.worker, event.started_at)


def task_completed(state: ExecutionState, event: e.TaskCompleted) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    output = event.output
    if event.output_object is not None:
        output, state.has_objects = event.output_object, True
    step.output, step.error, step.directive = output, None, event.directive
    step.worker = event.worker or step.worker
    if event.vars:
        set_vars(state, event.vars)
    if event.measured is not None:
        step.measured = measures.after(step.measured, event.measured)
    close_attempt(state, step, event.ended_at)
    if step.cached is None:  # else it did nothing that could be undone
        step.deed = Deed(index, step.fallback, state.run, state.version, True, output, step.inputs)
        it_stands(state, step.deed)
    _settle(state, index, step, "completed")
    _release_dependents(state, index)


def it_stands(state: ExecutionState, deed: Deed) -> None:
    """What was done in this run takes the place of what is known to have been done in others: the last counts."""
    standing, key = state.standing, deed.key
    standing.pop(key, None)
    if state.run > 1:
        for run in range(1, state.run + 1):
            other = deed.step, deed.fallback, run
            if other in standing and standing[other].certain:
                del standing[other]
    standing[key] = deed


def task_held(state: ExecutionState, event: e.TaskHeld) -> None:
    index = state.graph.index[event.step]
    state.steps[index].held = True
    state.cursor = min(state.cursor, index)  # an execution that fails settles it


def _release_dependents(state: ExecutionState, index: int) -> None:
    for dependent in state.graph.dependents[index]:
        other = state.steps[dependent]
        other.waiting -= 1
        if not other.waiting and other.status == "pending":
            make_ready(state, dependent)


def task_failed(state: ExecutionState, event: e.TaskFailed | e.TaskTimedOut) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.error = event.error
    if event.measured is not None:
        step.measured = measures.after(step.measured, event.measured)
    if step.gate is not None and admission.is_blocked(step.gate, event.error):
        step.was_rate_limited = True
    close_attempt(state, step, event.ended_at)
    if isinstance(event, e.TaskTimedOut):
        if event.error.code not in NEVER_BEGAN:
            step.timed_out += 1
            perhaps_done(state, index)
    else:
        if event.error.code in UNKNOWN_OUTCOMES:
            perhaps_done(state, index)
        if event.vars:
            set_vars(state, event.vars)
    step.status = "pending"
    if not event.will_retry and event.instead is None:
        _give_up(state, index, step)


def perhaps_done(state: ExecutionState, index: int) -> None:
    """Nobody knows whether the attempt did its work: if it is rolled back, it is undone."""
    step = state.steps[index]
    deed = Deed(index, step.fallback, state.run, state.version, False, None, step.inputs)
    state.standing.setdefault(deed.key, deed)


def set_vars(state: ExecutionState, news: dict[str, Any]) -> None:
    """Variables of the execution take these values."""
    state.variables = state.variables | news
    state.set_vars.append((state.version, news, False))


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


def task_retry_scheduled(state: ExecutionState, event: e.TaskRetryScheduled | e.CompensationRetryScheduled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.timer, step.delay_ms, step.next_retry_at = state.version, event.delay_ms, event.due
    state.timers[state.version] = Timer("retry", event.due, index)


def task_skipped(state: ExecutionState, event: e.TaskSkipped) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.skip_reason, step.because = event.reason, event.because
    if state.doomed and state.doomed[0][0] == index:
        state.doomed.popleft()
    _settle(state, index, step, "skipped")
    if event.reason in ("dependency_failed", "condition"):
        _doom_dependents(state, index, event.step)
    elif event.reason == "recovery":
        _release_dependents(state, index)


def task_cancelled(state: ExecutionState, event: e.TaskCancelled) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    if step.timer:
        close_timer(state, step.timer)
    if event.measured is not None:
        step.measured = measures.after(step.measured, event.measured)
    if event.ended == "abandoned":
        state.abandoned.append(event.step)
        leave(state, index)
    if step.open:
        if step.purpose == "recovery":
            state.recovering -= 1
        elif step.started_at is not None or event.ended == "abandoned":
            perhaps_done(state, index)
        close_attempt(state, step, state.time)
    _settle(state, index, step, "cancelled")


def task_overdue(state: ExecutionState, event: e.TaskOverdue) -> None:
    step = state.steps[state.graph.index[event.step]]
    step.overdue = True
    if step.queue_timer:
        close_timer(state, step.queue_timer, fired=True)
        step.queue_timer = 0


def fallback_started(state: ExecutionState, event: e.FallbackStarted) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.fallback, step.tries, step.timed_out, step.timer = event.task, 0, 0, 0
    state.policies.pop(index, None)


def image_recorded(state: ExecutionState, event: e.BeforeImageRecorded) -> None:
    table(state, "images")[state.graph.index[event.step]] = event.image


def task_cache_hit(state: ExecutionState, event: e.TaskCacheHit) -> None:
    """It is as if the attempt had begun now; if one that was lost had begun before, nobody knows what that one did."""
    index = state.graph.index[event.step]
    step = state.steps[index]
    if step.started_at is not None:
        perhaps_done(state, index)
    step.status, step.cached = "running", event
    if step.first_started_at is None:
        step.first_started_at = event.found_at
    _begun(state, step, event.worker, event.found_at)


# Recovery --------------------------------------------------------------------------------------------------------------


def recovery_initiated(state: ExecutionState, event: e.RecoveryInitiated) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    step.purpose, step.recovery, step.timer = "recovery", event, 0
    step.recoveries += 1
    tries = step.tries
    open_attempt(state, step, event.attempt)
    step.tries = tries  # advice is not a try
    state.recovering += 1
    wait_in_queue(state, index, step, state.attempt_policy(index).queue_timeout_ms)


def recovery_completed(state: ExecutionState, event: e.RecoveryCompleted) -> None:
    index = state.graph.index[event.step]
    step = state.steps[index]
    state.recovering -= 1
    if event.vars:
        set_vars(state, event.vars)
    close_attempt(state, step, event.ended_at)
    if event.then == "fail":
        _give_up(state, index, step, abort=event.action == "abort")


# What several of them do -------------------------------------------------------------------------------------------------


def make_ready(state: ExecutionState, index: int) -> None:
    heappush(state.ready if state.graph.parallel[index] else state.serial, index)


def leave(state: ExecutionState, index: int) -> None:
    """This commit gives up an open attempt that somebody may have, or get."""
    step, policy = state.steps[index], state.attempt_policy(index)
    lane = Lane(index, state.run, step.attempt, policy.queue, policy.priority)
    table(state, "left").setdefault(state.n, []).append(lane)


def close_attempt(state: ExecutionState, step: StepState, ended_at: datetime | None) -> None:
    step.open = False
    if step.purpose != "compensation":
        step.ended_at = ended_at or state.time
    step.closed.append(state.n)
    if step.gate is not None:
        admission.let_go(state, step, ended_at)
    if step.queue_timer:
        _close_queue_timer(state, step)


def _close_queue_timer(state: ExecutionState, step: StepState) -> None:
    close_timer(state, step.queue_timer)
    step.queue_timer = 0


def _settle(state: ExecutionState, index: int, step: StepState, status: StepStatus) -> None:
    step.status, step.next_retry_at, step.settled = status, None, state.version
    state.unsettled -= 1
    if index in state.in_flight:
        del state.in_flight[index]
        if not state.graph.parallel[index]:
            state.serial_busy = False


def _doom_dependents(state: ExecutionState, index: int, because: str) -> None:
    if dependents := state.graph.dependents[index]:
        state.doomed = state.doomed or deque()
        state.doomed.extend((dependent, because) for dependent in dependents)
