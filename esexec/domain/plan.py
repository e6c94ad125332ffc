"""A plan: a named, immutable graph of steps. Pure data; `reading` makes it from what people write, `graph` checks it.

These names are a storage format: they stand in the first commit of every execution.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from esexec.domain import limits
from esexec.domain.flow import Key, ResourceRequirement
from esexec.domain.settings import EMPTY_CONFIG, ExecutionConfig, TaskSettings


class Step(TaskSettings, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A node of a plan. `params` is an object whose strings may hold references, or one whole reference as a string.

    `depends_on` names step ids; a reference to another step's output implies the dependency as well.
    `parallel`: may overlap with other steps. The settings it inherits are the step's level of the merge.
    `compensate` names the task that undoes this step (else the one its task was announced with); `fallback` the task that is
    tried in its place, with the same params, once its own attempts and recovery have failed. `concurrency`: how many such steps
    may run at once, over all executions; `resources`: what each of its attempts needs, all of it or nothing.
    `when`: a reference, or `not` and a reference; where that says no once the step is ready, it is skipped.
    """

    id: str
    task: str
    params: dict[str, Any] | str = {}
    depends_on: tuple[str, ...] = ()
    parallel: bool = False
    compensate: str | None = None
    fallback: str | None = None
    when: str | None = None
    concurrency: Key | None = None
    resources: Annotated[tuple[ResourceRequirement, ...], Meta(max_length=limits.requirements)] = ()
    description: str = ""
    metadata: dict[str, Any] = {}


class Plan(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A plan in its canonical form. `parallel` turns every step's `parallel` on (dependencies always win)."""

    name: str
    steps: tuple[Step, ...]
    parallel: bool = False
    config: ExecutionConfig = EMPTY_CONFIG
    description: str = ""
    metadata: dict[str, Any] = {}


def plan_of_task(task: str, step_id: str) -> Plan:
    """The one-step plan that a single submitted task is: its params are the execution's input."""
    return Plan(name=task, steps=(Step(id=step_id, task=task, params="${input}"),))
