"""What can be told of a plan before it runs: what a rollback of the whole would do, and what is allowed but probably not meant.

Pure, like the plan. How a step is undone is `rollback`'s to say; here the tasks are those that somebody names.
"""

import heapq
from collections.abc import Container, Mapping
from typing import NamedTuple

from esexec.domain.explain import shown
from esexec.domain.graph import Graph
from esexec.domain.rollback import Undo, Undoing, undoing_of, with_inverse
from esexec.domain.settings import TaskInfo, merge_execution

Known = Mapping[str, TaskInfo]


class PlanWarning(NamedTuple):
    """Something in a plan that is allowed and probably not meant. `path`: where it stands, such as `steps[2]`."""

    code: str
    message: str
    hint: str
    path: str


def undone_after_all(graph: Graph, known: Known) -> list[Undo]:
    """What a rollback would do once every step has completed: in reverse order of the plan, dependents before what they wait for.

    `params` as they stand in the plan; None where they are one reference.
    """
    found: list[Undo] = []
    for position in reversed(_in_order(graph)):
        step, undoing = graph.steps[position], _undoing(graph, position, known)
        if undoing is None:
            found.append(Undo(step.id, None, "no_compensation"))
        else:
            found.append(Undo(step.id, undoing.task, params=dict(step.params) if isinstance(step.params, dict) else None))
    return found


def _in_order(graph: Graph) -> list[int]:
    """Every step behind what it waits for; plan order where that leaves a choice."""
    waiting = [len(before) for before in graph.dependencies]
    ready = [position for position, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        position = heapq.heappop(ready)
        order.append(position)
        for after in graph.dependents[position]:
            waiting[after] -= 1
            if not waiting[after]:
                heapq.heappush(ready, after)
    return order


def _undoing(graph: Graph, position: int, known: Known) -> Undoing | None:
    step = graph.steps[position]
    return undoing_of(step.task, with_inverse(step.task, known), step.compensate)


def warnings_of(graph: Graph, known: Known, recording: Container[str] = ()) -> list[PlanWarning]:
    """What is probably not meant, in the order of the plan. `recording`: tasks that record what was before."""
    config = graph.plan.config
    found: list[PlanWarning] = []
    if config.continue_on_error and config.enable_rollback:
        found.append(
            PlanWarning(
                "rollback_with_continue_on_error",
                "continue_on_error goes on when a step fails, and enable_rollback then undoes everything that completed",
                "leave out enable_rollback to keep what completed, or continue_on_error to end at the first failure",
                "config.enable_rollback",
            )
        )
    found += _fallbacks(graph) + _limits(graph)
    return found + _undoings(graph, known, recording) if merge_execution((config,)).enable_rollback else found


def _fallbacks(graph: Graph) -> list[PlanWarning]:
    return [
        PlanWarning(
            "fallback_is_the_task",
            f"step `{step.id}`: its fallback is the task that failed, `{shown(step.task)}`",
            "name another task; more attempts of the same are `max_retries`",
            f"steps[{position}].fallback",
        )
        for position, step in enumerate(graph.steps)
        if step.fallback == step.task
    ]


def _limits(graph: Graph) -> list[PlanWarning]:
    said = [("the plan", graph.plan.config.concurrency, "config.concurrency.limit")]
    said += [(f"step `{step.id}`", step.concurrency, f"steps[{n}].concurrency.limit") for n, step in enumerate(graph.steps)]
    return [
        PlanWarning(
            "limit_beyond_total",
            f"{who}: {key.limit} at once with the same key, and {key.total} at once whatever their keys",
            "one key can take all places; make `limit` smaller, or `total` larger",
            path,
        )
        for who, key, path in said
        if key is not None and key.total is not None and key.limit > key.total
    ]


def _undoings(graph: Graph, known: Known, recording: Container[str]) -> list[PlanWarning]:
    undoings = [_undoing(graph, position, known) for position in range(len(graph.steps))]
    some = any(undoing is not None for undoing in undoings) and graph.plan.config.on_missing_compensation is None
    found: list[PlanWarning] = []
    for position, (step, undoing) in enumerate(zip(graph.steps, undoings, strict=True)):
        task, path = shown(step.task), f"steps[{position}]"
        if undoing is None and some:
            message = f"step `{step.id}`: nothing undoes `{task}`; a rollback leaves it as it is"
            hint = "give it a compensation; `on_missing_compensation: skip` in the plan says that it is meant so"
            found.append(PlanWarning("no_compensation", message, hint, path))
        elif undoing is not None and undoing.from_image and step.task not in recording:
            message = f"step `{step.id}`: `{shown(undoing.task)}` undoes `{task}` from what was before, if that was recorded"
            hint = "await ctx.before(image) before it changes anything, or name a compensation"
            found.append(PlanWarning("needs_before_image", message, hint, path))
    return found
