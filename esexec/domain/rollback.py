"""What undoes a step, and with which params: the plan of a rollback, which is a pure function of the state.

A step is undone by the first of: `Step(compensate=…)`; what its task was announced with; the inverse by name, where workers have
it: `create_x` → `delete_x`, and from a before-image `delete_x` → `create_x` and `update_x` → `update_x`. What a
fallback did in a step's stead is undone by what the fallback was announced with.
"""

from collections.abc import Callable, Container, Mapping
from heapq import heappop, heappush
from typing import Any, NamedTuple

import msgspec

from esexec.domain import limits, references
from esexec.domain.errors import ValidationError
from esexec.domain.events import CompensationSkipped
from esexec.domain.objects import UNOPENED, ObjectNeeded, ObjectRef, Opened, Pointer, opened
from esexec.domain.settings import TaskInfo
from esexec.domain.state import Deed, ExecutionState

_INVERSES = {"create_": "delete_", "delete_": "create_", "update_": "update_"}
_FROM_AN_IMAGE = ("delete_", "update_")


class Undo(NamedTuple):
    """A step of a rollback, as a dry run shows it. `task`: what undoes it; None: nothing does, `reason` says why.

    `params`: what it is called with, as far as it has parameters of those names; None where they cannot be told. `certain`: the
    step completed; else nobody knows whether an attempt did its work.
    """

    step: str
    task: str | None
    reason: str | None = None
    params: dict[str, Any] | None = None
    certain: bool = True


def inverse_of(task: str, known: Container[str]) -> str | None:
    """The task that undoes `task` by its name, if it is among those that are known."""
    for verb, inverse in _INVERSES.items():
        if task.startswith(verb) and (name := inverse + task.removeprefix(verb)) in known:
            return name
    return None


def with_inverse(task: str, known: Mapping[str, TaskInfo]) -> TaskInfo | None:
    """What was announced of a task, with its inverse by name where it has no compensation of its own."""
    said = known.get(task)
    if said is not None and said.compensate is not None:
        return said
    inverse = inverse_of(task, known)
    if inverse is None:
        return said
    return msgspec.structs.replace(said if said is not None else TaskInfo(), inverse=inverse)


class Undoing(NamedTuple):
    """The task that undoes another, and whether it does so by its name, from a before-image."""

    task: str
    from_image: bool = False


def undoing_of(task: str, said: TaskInfo | None, own: str | None) -> Undoing | None:
    """What undoes what `task` did: `own` of its step, or what is `said` of the task (see `with_inverse`); None: nothing does."""
    if own is not None:
        return Undoing(own)
    if said is None or (said.compensate is None and said.inverse is None):
        return None
    if said.compensate is not None:
        return Undoing(said.compensate)
    return Undoing(said.inverse or "", task.startswith(_FROM_AN_IMAGE))


def compensation_of(state: ExecutionState, deed: Deed) -> str | CompensationSkipped:
    """The task that undoes a deed; or the event that says why nothing does."""
    step, undoing = state.graph.steps[deed.step], _undoing(state, deed)
    if undoing is None:
        return CompensationSkipped(step=step.id, run=state.run, attempt=0, reason="no_compensation")
    if undoing.from_image and deed.step not in state.images:
        return CompensationSkipped(step=step.id, run=state.run, attempt=0, reason="no_before_image")
    return undoing.task


def _undoing(state: ExecutionState, deed: Deed) -> Undoing | None:
    step = state.graph.steps[deed.step]
    task = deed.fallback or step.task
    return undoing_of(task, state.created.tasks.get(task), step.compensate if deed.fallback is None else None)


def can_undo(state: ExecutionState) -> bool:
    """Whether there is anything that a rollback would do."""
    return any(isinstance(compensation_of(state, deed), str) for deed in state.standing.values())


def order_of_undoing(state: ExecutionState) -> list[Deed]:
    """What stands, the last first; but what was done upon something else always before that.

    Within one run that is the same. After a retry or a restore a step may have been done again, later than what depends on it.
    """
    last_first = [*reversed(state.standing.values())]
    if state.run == 1:
        return last_first
    of_step: dict[int, list[int]] = {}
    for place, deed in enumerate(last_first):
        of_step.setdefault(deed.step, []).append(place)
    graph, order = state.graph, list[Deed]()
    upon = [len(dependents) for dependents in graph.dependents]
    free = [step for step, above in enumerate(upon) if not above]
    may_go: list[int] = []
    while free or may_go:
        if free:
            step = free.pop()
            for place in of_step.get(step, ()):
                heappush(may_go, place)
        else:
            deed = last_first[heappop(may_go)]
            order.append(deed)
            step = deed.step
            of_step[step].pop()
        if not of_step.get(step):
            for other in graph.dependencies[step]:
                upon[other] -= 1
                if not upon[other]:
                    free.append(other)
    return order


def undo_params(state: ExecutionState, deed: Deed, task: str, objects: Opened = UNOPENED) -> dict[str, Any]:
    """What the compensation `task` is called with: the step's params as they were then, its output's fields over them, and for
    an inverse from a before-image the image's fields over those.

    Raises `ValidationError` (`reference_unresolved`) and `ObjectNeeded` as a dispatch does.
    """
    return undo_params_later(state, deed, task)(objects, limits.object_bytes)


def undo_params_later(state: ExecutionState, deed: Deed, task: str) -> Callable[[Opened, int], dict[str, Any]]:
    """`undo_params` for when the objects that are needed are there, whatever has become of the state by then."""
    index, created, graph = deed.step, state.created, state.graph
    template, inputs = graph.templates[index], dict(zip(graph.uses[index], deed.inputs, strict=True))
    image: Any = state.images.get(index)
    from_image = isinstance(image, dict) and _undoing(state, deed) == Undoing(task, from_image=True)

    def params(objects: Opened, size_max: int) -> dict[str, Any]:
        said = graph.steps[index].params
        if template is not None:
            said = references.resolve(
                template,
                input=created.given,
                context=created.context,
                output_of=lambda step_id: inputs.get(graph.index[step_id]),
                objects=objects,
                size_max=size_max,
            )
        if isinstance(said, Pointer):
            said = opened(said.ref, objects, said.path)
        together = dict(said) if isinstance(said, dict) else {}
        output = opened(deed.output, objects) if isinstance(deed.output, ObjectRef) else deed.output
        if isinstance(output, dict):
            together |= output
        if from_image:
            together |= image
        return together

    return params


def rollback_plan(state: ExecutionState) -> list[Undo]:
    """What a rollback of the execution as it is now would do, in that order."""
    return [_undo(state, deed) for deed in order_of_undoing(state)]


def _undo(state: ExecutionState, deed: Deed) -> Undo:
    step, certain = state.graph.steps[deed.step].id, deed.certain
    task = compensation_of(state, deed)
    if isinstance(task, CompensationSkipped):
        return Undo(step, None, task.reason, certain=certain)
    try:
        return Undo(step, task, params=undo_params(state, deed, task), certain=certain)
    except ValidationError as error:
        return Undo(step, task, error.message, certain=certain)
    except ObjectNeeded:
        return Undo(step, task, "its params are in an object", certain=certain)
