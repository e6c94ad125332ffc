"""Whom an attempt, or an execution, asks before it begins, and for what: read off its settings, its input and its params."""

from collections.abc import Callable
from typing import Any

from esexec.domain import limits, references
from esexec.domain.flow import Key
from esexec.domain.flow_keys import render_key
from esexec.domain.objects import UNOPENED, Opened
from esexec.domain.rollback import undo_params
from esexec.domain.settings import Policy, TaskInfo, merge_in
from esexec.domain.sharing import requests as s
from esexec.domain.state import ExecutionState

_SAYS_NOTHING = TaskInfo()


def gates_of(state: ExecutionState, index: int) -> tuple[s.Gate, ...]:
    """What the attempt of a step that is opened now must be granted, in order."""
    step = state.steps[index]
    if step.purpose == "recovery":
        return ()
    gates: list[s.Gate] = []
    if concurrency_of(state, index) is not None:
        gates.append("concurrency")
    if requirements_of(state, index):
        gates.append("resources")
    rate_limit = state.attempt_policy(index).rate_limit
    if rate_limit is not None and rate_limit.max_executions:
        gates.append("rate_limit")
    return tuple(gates)


def concurrency_of(state: ExecutionState, index: int) -> Key | None:
    """The key of the attempts of a step: its own, else its task's. What undoes it has that of its own task."""
    info = _info(state, index)
    if state.steps[index].purpose == "compensation":
        return info.concurrency
    return state.graph.steps[index].concurrency or info.concurrency


def requirements_of(state: ExecutionState, index: int) -> tuple[Any, ...]:
    """The resources that an attempt of a step needs: the step's own word, else its task's. An undoing needs none."""
    if state.steps[index].purpose == "compensation":
        return ()
    return state.graph.steps[index].resources or _info(state, index).resources


def ask_of(state: ExecutionState, index: int, gate: s.Gate) -> s.Acquire:
    """What the open attempt of a step asks for. Raises `ValidationError` if its key refers to what is not there."""
    policy, task, open_gate = state.attempt_policy(index), _task(state, index), state.steps[index].gate
    at = open_gate.asked_at if open_gate is not None else None
    match gate:
        case "concurrency":
            key = concurrency_of(state, index)
            assert key is not None
            return s.Acquire(ask=_slot(state, key, f"task:{task}", _params(state, index)), priority=policy.priority, at=at)
        case "resources":
            requirements = requirements_of(state, index)
            priority = max(requirement.priority for requirement in requirements)
            return s.Acquire(ask=s.AskForResources(requirements=requirements), priority=priority, at=at)
        case "rate_limit":
            return s.Acquire(ask=_beginning(state, policy, task, _params(state, index)), priority=policy.priority, at=at)


def ask_of_execution(state: ExecutionState) -> s.Acquire:
    """The same of the execution as a whole: for a slot of its concurrency key."""
    key = state.execution_policy.concurrency
    assert key is not None
    slot = _slot(state, key, f"plan:{state.graph.plan.name}", dict)
    at = state.slot.asked_at if state.slot is not None else None
    return s.Acquire(ask=slot, priority=_priority_of_execution(state), at=at)


def _priority_of_execution(state: ExecutionState) -> int:
    """That of the call, else of the plan, else of the namespace: what a step says concerns its own attempts."""
    created = state.created
    return merge_in(created.namespace, (state.graph.plan.config, created.config)).priority


def _slot(state: ExecutionState, key: Key, scope: str, params: Callable[[], Any]) -> s.AskForSlot:
    created = state.created
    value = render_key(key.key, input=created.given, context=created.context, params=params, bare=True)
    scope = f"scope:{key.scope}" if key.scope is not None else scope
    return s.AskForSlot(scope=scope, key=value, limit=key.limit, total=key.total, policy=key.policy)


def _beginning(state: ExecutionState, policy: Policy, task: str, params: Callable[[], Any]) -> s.AskToBegin:
    rule, created = policy.rate_limit, state.created
    assert rule is not None
    if rule.key is None:
        key = f"task:{task}"
    else:
        key = f"key:{render_key(rule.key, input=created.given, context=created.context, params=params, bare=False)}"
    return s.AskToBegin(key=key, max_executions=rule.max_executions, window_ms=rule.window_ms, on_limit=rule.on_limit)


def _task(state: ExecutionState, index: int) -> str:
    step = state.steps[index]
    return (step.compensator or "") if step.purpose == "compensation" else state.task_of(index)


def _info(state: ExecutionState, index: int) -> TaskInfo:
    return state.created.tasks.get(_task(state, index), _SAYS_NOTHING)


def _params(state: ExecutionState, index: int) -> Callable[[], Any]:
    """The params of the open attempt, as its handler will get them."""

    def params() -> Any:
        step = state.steps[index]
        if step.purpose == "compensation" and step.compensator is not None and state.rollback is not None:
            return undo_params(state, state.rollback.order[state.rollback.cursor], step.compensator)
        return params_of(state, index)

    return params


def params_of(state: ExecutionState, index: int, objects: Opened = UNOPENED, *, size_max: int = limits.object_bytes) -> Any:
    """The params of a step's own work, their references resolved; a `Pointer` stands for what is in an object.

    Raises `ValidationError` (code `reference_unresolved`) if a reference points to what is not there, `ObjectNeeded` for an
    object that is not among those that are given.
    """
    template, created = state.graph.templates[index], state.created
    if template is None:
        return state.graph.steps[index].params
    return references.resolve(
        template,
        input=created.given,
        context=created.context,
        output_of=state.output_of,
        objects=objects,
        size_max=size_max,
    )


def params_later(state: ExecutionState, index: int) -> Callable[[Opened, int], Any]:
    """`params_of` for when the objects that are needed are there, whatever has become of the state by then."""
    template, created, steps = state.graph.templates[index], state.created, state.graph.steps
    outputs = {steps[other].id: state.steps[other].output for other in state.graph.uses[index]}

    def params(objects: Opened, size_max: int) -> Any:
        assert template is not None
        return references.resolve(
            template,
            input=created.given,
            context=created.context,
            output_of=outputs.__getitem__,
            objects=objects,
            size_max=size_max,
        )

    return params
