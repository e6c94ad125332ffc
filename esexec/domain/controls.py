"""The commands on an execution that exists: cancel, pause, resume, retry, rollback, checkpoint, restore.

What each of them means in each state of an execution is written down once more, by hand, as a table in
`tests/unit/test_commands_in_states.py`. A wish that a state does not allow is a refusal with a code and a hint, never silence.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.advance import advance, has_slot, set_deadline
from esexec.domain.checkpoints import make_checkpoint, restore
from esexec.domain.decision import APPLIED, Decision, Verdict, invalid, not_now, refused
from esexec.domain.errors import ErrorInfo
from esexec.domain.evolve_run import completed_at
from esexec.domain.explain import did_you_mean, shown
from esexec.domain.ids import is_user_id
from esexec.domain.rollback import can_undo, rollback_plan
from esexec.domain.state import ExecutionState

_NAMED = 5
"""So many steps are named in a refusal."""


def decide_control(decision: Decision, command: c.ControlCommand, time: datetime) -> Verdict:
    """Do what a command on this execution asks for, or say why not."""
    state = decision.state
    if not state.exists:
        return refused(unknown_execution(state.execution_id))
    if command.id in state.applied:
        return Verdict("repeated", n=state.applied[command.id])
    verdict = _DECIDE[type(command)](decision, command, time)
    if verdict.kind == "applied":
        decision.cause(command.id, time, command.actor)
        advance(decision)
    return verdict


def unknown_execution(execution_id: str) -> ErrorInfo:
    return ErrorInfo(
        type="validation_error",
        code="not_found",
        message=f"no execution {execution_id} is known",
        hint="check the id and the namespace",
    )


def _overtaken(state: ExecutionState, time: datetime) -> bool:
    """Whether a later wish was applied before this one came (redelivery can change the order)."""
    return state.last_control is not None and time < state.last_control


# Refusals ------------------------------------------------------------------------------------------------------------


def _ended(state: ExecutionState, verb: str) -> Verdict:
    ways = ["start it again instead" if state.status == "completed" else "retry runs it again"]
    ways += ["restore goes back to a checkpoint"] if state.checkpoints else []
    ways += ["rollback undoes it"] if can_undo(state) else []
    return not_now("ended", f"{state.execution_id} has ended ({state.status}): there is nothing to {verb}", ", ".join(ways))


def _not_ended(state: ExecutionState, verb: str) -> Verdict:
    what = state.status if state.phase in ("queued", "executing") else state.phase.replace("_", " ")
    return not_now(
        "not_ended",
        f"{state.execution_id} has not ended ({what}): {verb} comes after that",
        "wait for its end, or cancel it first",
    )


def _ending(state: ExecutionState, verb: str) -> Verdict:
    return not_now(
        "ending", f"{state.execution_id} is being cancelled: it is too late to {verb} it", "wait for its end, then retry it"
    )


def _rolling_back(state: ExecutionState, verb: str) -> Verdict:
    hint = "pause or cancel the rollback, or wait for its end"
    return not_now("rolling_back", f"{state.execution_id} is being rolled back: {verb} is not possible meanwhile", hint)


# Verbs ---------------------------------------------------------------------------------------------------------------


def _cancel(decision: Decision, command: c.CancelExecution, time: datetime) -> Verdict:
    """Ask for the end. An ended execution stays as it is (`effective` is then false); a rollback is given up where it is."""
    state = decision.state
    if state.ended:
        return Verdict("ineffective")
    if state.cancel:
        return Verdict("duplicate", n=state.n)
    if _overtaken(state, time):
        return Verdict("superseded")
    decision.emit(e.ExecutionCancelRequested(grace_ms=limits.cancel_grace_ms, reason=command.reason, code=command.code))
    return APPLIED


def _pause(decision: Decision, command: c.PauseExecution, time: datetime) -> Verdict:
    state = decision.state
    if state.ended:
        return _ended(state, "pause")
    if state.cancel:
        return _ending(state, "pause")
    if state.paused:
        return Verdict("ineffective")
    if _overtaken(state, time):
        return Verdict("superseded")
    decision.emit(e.ExecutionPaused(reason=command.reason))
    return APPLIED


def _resume(decision: Decision, command: c.ResumeExecution, time: datetime) -> Verdict:
    state = decision.state
    if state.ended:
        return _ended(state, "resume")
    if not state.paused:
        return Verdict("ineffective")
    if _overtaken(state, time):
        return Verdict("superseded")
    decision.emit(e.ExecutionResumed())
    return APPLIED


def _retry(decision: Decision, command: c.RetryExecution, time: datetime) -> Verdict:
    state = decision.state
    if command.new_id is not None and not command.as_new:
        hint = 'give "as_new": true beside it, or leave new_id out'
        return invalid("new_id_without_as_new", "new_id names a new execution, but none is asked for", hint)
    if not state.ended:
        return _not_ended(state, "a retry")
    if state.status == "completed":
        return not_now("nothing_to_retry", f"{state.execution_id} completed: no step of it failed", "start it again instead")
    if command.step is not None and (problem := _not_to_retry(state, command.step)) is not None:
        return problem
    if command.as_new:
        return _fork(decision, command)  # which leaves everything as it is, so that no later wish stands against it
    if _overtaken(state, time):
        return Verdict("superseded")
    decision.emit(e.ExecutionRetried(run=state.run + 1, step=command.step))
    has_slot(decision)
    set_deadline(decision)
    return APPLIED


def _not_to_retry(state: ExecutionState, step_id: str) -> Verdict | None:
    index = state.graph.index.get(step_id)
    if index is None:
        hint = did_you_mean(step_id, state.graph.index) or "name a step of the plan"
        return not_now("unknown_step", f"{state.execution_id} has no step {shown(step_id)}", hint)
    if state.steps[index].status == "failed" or state.status == "rolled_back":
        return None
    message = f"step {step_id} of {state.execution_id} did not fail (it is {state.steps[index].status})"
    return not_now("nothing_to_retry", message, "leave the step out to run all again that did not complete")


def _fork(decision: Decision, command: c.RetryExecution) -> Verdict:
    state = decision.state
    new_id = command.new_id or command.id
    if not is_user_id(new_id) or new_id == state.execution_id:
        return not_now(
            "bad_execution_id", f"{shown(new_id)} cannot be the new execution's id", "letters, digits, - and _; not _ first"
        )
    if command.step is not None:
        return not_now("step_of_new", "a retry as a new execution runs all that did not complete", "give either step or as_new")
    all_again = state.status == "rolled_back"
    kept = {} if all_again else completed_at(state, state.version + 1)
    size = sum(len(msgspec.json.encode(output)) for output in kept.values())
    if size > limits.fork_bytes:
        hint = f"at most {limits.fork_bytes} bytes (limits.fork_bytes); retry it in place"
        return not_now("fork_too_large", f"the outputs that a new execution would take along are {size} bytes", hint)
    decision.emit(e.ExecutionForked(new_id=new_id, all_again=all_again))
    return APPLIED


def _roll_back(decision: Decision, command: c.RollbackExecution, time: datetime) -> Verdict:
    state = decision.state
    if not state.ended:
        return _not_ended(state, "a rollback")
    if not can_undo(state):
        return _nothing_to_undo(state)
    if _overtaken(state, time):
        return Verdict("superseded")
    decision.emit(e.RollbackStarted(by="command", reason=command.reason))
    return APPLIED


def _nothing_to_undo(state: ExecutionState) -> Verdict:
    if not state.undone or state.status == "completed":
        hint = "what undoes a task is told by @task.compensate, `compensate` of a step, or its name (create_x, delete_x)"
        return not_now("nothing_to_compensate", f"{state.execution_id} did nothing that can be undone", hint)
    left = [*dict.fromkeys(undo.step for undo in rollback_plan(state))]
    if not left or state.status == "rolled_back":
        message = f"{state.execution_id} is undone already: nothing is left that can be undone"
        return not_now("nothing_to_compensate", message, "retry runs it again")
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    message = f"what can be undone of {state.execution_id} is undone already; nothing undoes {', '.join(left[:_NAMED])}{more}"
    return not_now("nothing_to_compensate", message, "retry runs again what was undone, or did not complete")


def _checkpoint(decision: Decision, command: c.CreateCheckpoint, time: datetime) -> Verdict:
    state = decision.state
    if state.ended:
        return _ended(state, "keep")
    if state.cancel:
        return _ending(state, "checkpoint")
    if state.phase == "rolling_back":
        return _rolling_back(state, "a checkpoint")
    if len(state.checkpoints) >= limits.checkpoints_per_execution:
        hint = f"at most {limits.checkpoints_per_execution} (limits.checkpoints_per_execution)"
        return not_now("too_many_checkpoints", f"{state.execution_id} has {len(state.checkpoints)} checkpoints", hint)
    make_checkpoint(decision, "command", command.metadata)
    return APPLIED


def _restore(decision: Decision, command: c.RestoreCheckpoint, time: datetime) -> Verdict:
    state = decision.state
    checkpoint = state.checkpoints.get(command.checkpoint_id)
    if checkpoint is None:
        hint = did_you_mean(command.checkpoint_id, state.checkpoints) or (
            "list its checkpoints to see their ids" if state.checkpoints else "it has no checkpoints yet"
        )
        return not_now("unknown_checkpoint", f"{state.execution_id} has no checkpoint {shown(command.checkpoint_id)}", hint)
    if state.started_at is None:
        return not_now("not_started", f"{state.execution_id} has not begun", "wait for its start, or cancel it")
    if state.cancel and not state.ended:
        return _ending(state, "restore")
    if state.phase == "rolling_back":
        return _rolling_back(state, "a restore")
    if _overtaken(state, time):
        return Verdict("superseded")
    restore(decision, checkpoint, reason=command.reason)
    return APPLIED


_DECIDE: dict[type[c.Command], Callable[[Decision, Any, datetime], Verdict]] = {
    c.CancelExecution: _cancel,
    c.PauseExecution: _pause,
    c.ResumeExecution: _resume,
    c.RetryExecution: _retry,
    c.RollbackExecution: _roll_back,
    c.CreateCheckpoint: _checkpoint,
    c.RestoreCheckpoint: _restore,
}
