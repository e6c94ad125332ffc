"""The messages that hand work out: what a worker is told of an attempt, by its purpose; and the start of a fork."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from esexec.domain import limits, messages
from esexec.domain.asking import params_later, params_of
from esexec.domain.commands import NO_PLAN, StartExecution
from esexec.domain.errors import ValidationError
from esexec.domain.events import ExecutionForked
from esexec.domain.evolve_run import completed_at
from esexec.domain.objects import UNOPENED, ObjectNeeded, ObjectPart, ObjectRef, Opened, parted
from esexec.domain.recovery import request_of
from esexec.domain.rollback import undo_params, undo_params_later
from esexec.domain.settings import Policy
from esexec.domain.state import Deed, ExecutionState


class Deferred(NamedTuple):
    """A dispatch whose params are told only when it is sent: with objects at hand (`params` says which, by raising
    `ObjectNeeded`), or because they are large, and those of many attempts are not to be in memory at a time."""

    dispatch: messages.Dispatch
    params: Callable[[Opened, int], Any]

    def with_objects(self, objects: Opened, size_max: int = limits.object_bytes) -> messages.Dispatch:
        """The dispatch. Raises `ObjectNeeded`, `ValidationError` (`params_too_large` beyond `size_max` bytes of params)."""
        return with_parts(msgspec.structs.replace(self.dispatch, params=self.params(objects, size_max)))


def with_parts(dispatch: messages.Dispatch) -> messages.Dispatch:
    """The dispatch as it travels: where its params or its output are in objects, that is said in `objects`."""
    params, parts = parted(dispatch.params, ("params",))
    output = dispatch.output
    if isinstance(output, ObjectRef):
        parts += (ObjectPart(at=("output",), sha256=output.sha256, bytes=output.bytes),)
        output = None
    return msgspec.structs.replace(dispatch, params=params, output=output, objects=parts) if parts else dispatch


def dispatch_with_objects(state: ExecutionState, index: int, policy: Policy) -> messages.Dispatch | Deferred:
    """`dispatch_of`, where the execution has values in objects."""
    step = state.steps[index]
    if step.purpose == "recovery":
        return _question(state, index, policy)
    if step.purpose != "compensation" and (asked := state.graph.conditions.get(index)) is not None:
        asked.check_known(input=state.created.given, context=state.created.context, output_of=state.output_of)
    if step.purpose == "compensation":
        later = Deferred(_undoing(state, index, policy, {}), undo_params_later(state, *_undone(state, index)))
    elif state.graph.templates[index] is None:
        return dispatch_of(state, index, policy)
    else:
        later = dispatch_later(state, index, policy)
    try:
        return later.with_objects(UNOPENED, limits.message_bytes)
    except ObjectNeeded:
        return later
    except ValidationError as error:
        if error.code != "params_too_large":
            raise
        return later


def dispatch_later(state: ExecutionState, index: int, policy: Policy) -> Deferred:
    """The dispatch of a step's own work, its params as yet unresolved."""
    return Deferred(_of_work(state, index, policy, {}), params_later(state, index))


def dispatch_of(state: ExecutionState, index: int, policy: Policy | None = None) -> messages.Dispatch:
    """The message that hands the open attempt of a step to a worker, its references resolved. `policy`: its settings, if known.

    Raises `ValidationError`: `reference_unresolved` if a reference points to what is not there, `params_too_large` beyond
    `limits.message_bytes`; then `dispatch_later` has them.
    """
    step = state.steps[index]
    policy = policy or state.attempt_policy(index)
    if step.purpose == "recovery":
        return _question(state, index, policy)
    if step.purpose == "compensation":
        return _undoing(state, index, policy, undo_params(state, *_undone(state, index)))
    return _of_work(state, index, policy, params_of(state, index, size_max=limits.message_bytes))


def _of_work(state: ExecutionState, index: int, policy: Policy, params: Any) -> messages.Dispatch:
    spec, step, created = state.graph.steps[index], state.steps[index], state.created
    return messages.Dispatch(
        execution_id=state.execution_id,
        step=spec.id,
        task=step.fallback or spec.task,
        attempt=step.attempt,
        run=state.run,
        params=params,
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


def _undone(state: ExecutionState, index: int) -> tuple[Deed, str]:
    """What is being undone, and the task for that."""
    task = state.steps[index].compensator
    assert task is not None and state.rollback is not None
    return state.rollback.order[state.rollback.cursor], task


def _undoing(state: ExecutionState, index: int, policy: Policy, params: Any) -> messages.Dispatch:
    spec, step = state.graph.steps[index], state.steps[index]
    deed, task = _undone(state, index)
    return messages.Dispatch(
        execution_id=state.execution_id,
        step=spec.id,
        task=task,
        attempt=step.attempt,
        run=state.run,
        params=params,
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
    kept = {} if event.all_again else completed_at(state, version)
    kept_objects = {step: output for step, output in kept.items() if isinstance(output, ObjectRef)} if state.has_objects else {}
    return StartExecution(
        id=f"fork-{sha256(f'{state.execution_id}.{version}'.encode()).hexdigest()[:40]}",
        confirm=False,
        actor=created.owner,
        plan=msgspec.Raw(created.document) if created.plan_object is None else NO_PLAN,
        plan_object=created.plan_object,
        input=created.input,
        input_object=created.input_object,
        context=created.context,
        config=created.config,
        metadata=created.metadata,
        forked_from=state.execution_id,
        kept={step: output for step, output in kept.items() if step not in kept_objects} if kept_objects else kept,
        kept_objects=kept_objects,
    )
