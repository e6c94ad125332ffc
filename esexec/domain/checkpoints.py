"""Checkpoints: how they are made and gone back to, and the state of an execution as people see it in one."""

from typing import Any, Literal

import msgspec

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.advance import has_slot, set_deadline
from esexec.domain.decision import Decision
from esexec.domain.errors import ErrorInfo
from esexec.domain.objects import ObjectRef
from esexec.domain.state import Checkpoint, ExecutionState

_BRIEF_CHARS = 300
"""What is left of the message of each error among many."""


class TaskView(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A step within a `StateView`. `output` only where it completed, and is not kept as an object."""

    status: str
    attempt: int = 0
    retries: int = 0
    output: Any = None
    error: ErrorInfo | None = None


class StateView(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The state of an execution: which task runs, which have completed, each task's state, and the variables.

    Handed to recovery strategies, which may change `variables`; and the `state` of a checkpoint.
    """

    current_task_id: str | None = None
    completed_tasks: list[str] = []
    task_states: dict[str, TaskView] = {}
    resource_allocations: dict[str, Any] = {}
    variables: dict[str, Any] = {}


def checkpoint_id(state: ExecutionState) -> str:
    """What a checkpoint made by the next event is called."""
    return f"{state.execution_id}.{state.version + 1}"


def view_of(state: ExecutionState, *, outputs: bool = True) -> StateView:
    """The state as it is shown; without `outputs` for where room is scarce."""
    steps = [(spec.id, step) for spec, step in zip(state.graph.steps, state.steps, strict=True)]
    running = [state.graph.steps[index].id for index in state.in_flight]
    return StateView(
        current_task_id=running[0] if running else None,
        completed_tasks=[step_id for step_id, step in steps if step.status == "completed"],
        task_states={
            step_id: TaskView(
                status=step.status,
                attempt=step.attempt,
                retries=step.retries,
                output=step.output if outputs and not isinstance(step.output, ObjectRef) else None,
                error=_in_brief(step.error),
            )
            for step_id, step in steps
        },
        resource_allocations=_allocations(state),
        variables=dict(state.variables),
    )


def _allocations(state: ExecutionState) -> dict[str, Any]:
    """What the open attempts have, by the resources' ids."""
    gates = [step.gate for index in state.in_flight if (step := state.steps[index]).gate is not None]
    return {one.id: msgspec.to_builtins(one) for gate in gates if gate is not None for one in gate.resources}


def _in_brief(error: ErrorInfo | None) -> ErrorInfo | None:
    """The error without what takes room: hundreds of them must fit into one question to a strategy."""
    if error is None:
        return None
    return msgspec.structs.replace(error, message=error.message[:_BRIEF_CHARS], stack=None, context={})


def make_checkpoint(decision: Decision, by: e.CheckpointBy, metadata: dict[str, Any] | None = None) -> bool:
    """Give the state of now a name. One that cannot be made is a message; whether it was made."""
    state = decision.state
    if len(state.checkpoints) < limits.checkpoints_per_execution:
        decision.emit(e.CheckpointCreated(checkpoint_id=checkpoint_id(state), by=by, metadata=metadata or {}))
        return True
    if not state.checkpoints_failed:
        message = f"there are {limits.checkpoints_per_execution} checkpoints already (limits.checkpoints_per_execution)"
        decision.emit(e.CheckpointFailed(message=message, by=by))
    return False


def restore(
    decision: Decision,
    checkpoint: Checkpoint,
    *,
    by: Literal["command", "recovery"] = "command",
    reason: str = "",
    news: dict[str, Any] | None = None,
) -> None:
    """Go back to a checkpoint, and begin a new run from there."""
    state = decision.state
    abandoned = [index for index in state.in_flight if state.steps[index].open]
    decision.emit(
        e.CheckpointRestored(
            checkpoint_id=checkpoint.id,
            run=state.run + 1,
            by=by,
            reason=reason,
            abandoned=tuple(f"{state.graph.steps[index].id}/{state.steps[index].attempt}" for index in abandoned),
            vars=news or {},
        )
    )
    has_slot(decision)
    if by == "command":
        set_deadline(decision)
