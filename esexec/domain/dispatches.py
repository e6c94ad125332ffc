"""The messages that hand work out: what a worker is told of an attempt, by its purpose; and the start of a fork."""

from hashlib import sha256

import msgspec

from esexec.domain import messages
from esexec.domain.asking import params_of
from esexec.domain.commands import StartExecution
from esexec.domain.events import ExecutionForked
from esexec.domain.evolve_run import completed_at
from esexec.domain.recovery import request_of
from esexec.domain.rollback import undo_params
from esexec.domain.settings import Policy
from esexec.domain.state import ExecutionState


def dispatch_of(state: ExecutionState, index: int, policy: Policy | None = None) -> messages.Dispatch:
    """The message that hands the open attempt of a step to a worker, its references resolved. `policy`: its settings, if known.

    Raises `ValidationError` (code `reference_unresolved`) if a reference points to what is not there.
    """
    spec, step, created = state.graph.steps[index], state.steps[index], state.created
    policy = policy or state.attempt_policy(index)
    if step.purpose == "recovery":
        return _question(state, index, policy)
    if step.purpose == "compensation":
        return _undoing(state, index, policy)
    return messages.Dispatch(
        execution_id=state.execution_id,
        step=spec.id,
        task=step.fallback or spec.task,
        attempt=step.attempt,
        run=state.run,
        params=params_of(state, index),
        context=created.context,
        timeout_ms=state.timeout_of(index) if step.timed_out else policy.timeout_ms,
        max_attempts=step.attempt + max(0, policy.max_retries + 1 - step.tries),
        queue=policy.queue,
        priority=policy.priority,
        purpose=step.purpose,
        deadline=state.deadline,
        vars=state.variables,
        before=state.images.get(index, msgspec.UNSET) if state.images else msgspec.UNSET,
        allocated=step.gate.resources if step.gate is not None else (),
    )


def _question(state: ExecutionState, index: int, policy: Policy) -> messages.Dispatch:
    spec, step = state.graph.steps[index], state.steps[index]
    assert step.recovery is not None
    return messages.Dispatch(
        execution_id=state.execution_id,
        step=spec.id,
        task=step.recovery.strategy,
        attempt=step.attempt,
        run=state.run,
        context=state.created.context,
        timeout_ms=policy.timeout_ms,
        max_attempts=step.attempt,
        queue=policy.queue,
        priority=policy.priority,
        purpose="recovery",
        deadline=state.deadline,
        vars=state.variables,
        recovery=request_of(state, index),
    )


def _undoing(state: ExecutionState, index: int, policy: Policy) -> messages.Dispatch:
    spec, step = state.graph.steps[index], state.steps[index]
    assert step.compensator is not None and state.rollback is not None
    deed = state.rollback.order[state.rollback.cursor]
    return messages.Dispatch(
        execution_id=state.execution_id,
        step=spec.id,
        task=step.compensator,
        attempt=step.attempt,
        run=state.run,
        params=undo_params(state, deed, step.compensator),
        context=state.created.context,
        timeout_ms=state.timeout_of(index),
        max_attempts=step.attempt + max(0, policy.max_retries + 1 - step.tries),
        queue=policy.queue,
        priority=policy.priority,
        purpose="compensation",
        vars=state.variables,
        output=deed.output,
        before=state.images.get(index, msgspec.UNSET),
        undoes=f"{deed.run}" if deed.fallback is None else f"{deed.run}/fallback",
    )


def start_of_fork(state: ExecutionState, event: ExecutionForked, version: int) -> StartExecution:
    """The start of an execution that carries on from what this one had completed at that version.

    The command's id is told by the fork, so that it is given once.
    """
    created = state.created
    return StartExecution(
        id=f"fork-{sha256(f'{state.execution_id}.{version}'.encode()).hexdigest()[:40]}",
        confirm=False,
        actor=created.owner,
        plan=created.plan,
        input=created.input,
        context=created.context,
        config=created.config,
        metadata=created.metadata,
        forked_from=state.execution_id,
        kept={} if event.all_again else completed_at(state, version),
    )
