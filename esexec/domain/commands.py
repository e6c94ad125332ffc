"""What clients may wish. One Struct per verb; unknown fields are refused.

A command travels on `esexec.<ns>.cmd.<execution>.<verb>`: the execution and the verb stand in the subject, the rest in the
body. `id` names the command; the same id again is the same command (answered, never applied twice).
`confirm`: whether a success is answered too, on `reply.<execution>.<id>`. A refusal always is. Clients that watch the
execution's commits need no confirmation: the commit that carries out a command names its id.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from esexec.domain import limits
from esexec.domain.alerts import AlertCondition
from esexec.domain.flow import ResourcePool, ResourceRequirement
from esexec.domain.objects import ObjectRef
from esexec.domain.settings import EMPTY_CONFIG, DurationMs, ExecutionConfig, TaskInfo
from esexec.domain.strategies import Strategy

Time = Annotated[datetime, Meta(tz=True)]
Text = Annotated[str, Meta(max_length=limits.text_chars)]


class AnyCommand(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, frozen=True, gc=False):
    """What all commands have."""

    id: str
    confirm: bool = True
    actor: Annotated[str, Meta(max_length=limits.name_chars)] | None = None


NO_PLAN = msgspec.Raw()
"""Stands where a start names a task and no plan."""


class StartExecution(AnyCommand, frozen=True, kw_only=True):
    """Run a plan, or one task (a one-step plan whose params are `input`). Exactly one of `plan`, `plan_id` and `task` is given.

    `plan_id`: of a plan that the namespace keeps. `start_at`, or `delay_ms` from when the command was stored: not before then.
    `deadline`: no run may go on past it (what a handler starts inherits its parent's). `parent`: the execution and step whose
    handler started this one. `forked_from`, `kept`: the execution that this one carries on from, and the outputs of the steps
    that are taken as completed. `plan_object`, `input_object`: in the place of a plan, or an input, that is kept as an object;
    `kept_objects`: likewise, by step. `record`: the answer is to carry the record of the task.
    """

    plan: msgspec.Raw = NO_PLAN
    plan_id: str | None = None
    task: str | None = None
    input: Any = None
    context: dict[str, Any] = {}
    config: ExecutionConfig = EMPTY_CONFIG
    metadata: dict[str, Any] = {}
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=limits.idempotency_key_chars)] | None = None
    start_at: Time | None = None
    delay_ms: DurationMs = 0
    deadline: Time | None = None
    parent: Annotated[str, Meta(max_length=limits.name_chars)] | None = None
    forked_from: Annotated[str, Meta(max_length=limits.id_chars)] | None = None
    kept: dict[str, Any] = {}
    record: bool = False
    plan_object: ObjectRef | None = None
    input_object: ObjectRef | None = None
    kept_objects: dict[str, ObjectRef] = {}

    @property
    def given(self) -> Any:
        """The input, or what stands for it."""
        return self.input if self.input_object is None else self.input_object


class CancelExecution(AnyCommand, frozen=True, kw_only=True):
    """End an execution that has not ended. `code`: says that another with its concurrency key takes its place."""

    reason: Text = ""
    code: Literal["replaced"] | None = None


class PauseExecution(AnyCommand, frozen=True, kw_only=True):
    """Hand out nothing new. What runs may end and is recorded; due retries wait."""

    reason: Text = ""


class ResumeExecution(AnyCommand, frozen=True, kw_only=True):
    """Go on after a pause."""


class RetryExecution(AnyCommand, frozen=True, kw_only=True):
    """Run an execution that has ended, but not completed, again: the steps that completed keep their outputs.

    After a rollback all steps run again. `step`: of the failed steps only this one runs again. `as_new`: leave it as it is and
    carry on in an execution of its own, called `new_id` (else as this command).
    """

    step: str | None = None
    as_new: bool = False
    new_id: Annotated[str, Meta(max_length=limits.id_chars)] | None = None


class RollbackExecution(AnyCommand, frozen=True, kw_only=True):
    """Undo what an execution that has ended did: its completed steps, in reverse order of completion."""

    reason: Text = ""


class CreateCheckpoint(AnyCommand, frozen=True, kw_only=True):
    """Give the state of now a name, to which the execution can be restored."""

    metadata: dict[str, Any] = {}


class RestoreCheckpoint(AnyCommand, frozen=True, kw_only=True):
    """Go back to a checkpoint: what completed after it runs again, without being undone. Nothing is deleted."""

    checkpoint_id: Annotated[str, Meta(max_length=2 * limits.id_chars)]
    reason: Text = ""


class ConfigureNamespace(AnyCommand, frozen=True, kw_only=True):
    """Set the namespace's level of the settings (entity `_settings`). What is not given keeps its value, null takes it back.

    `config`: what changes of a `NamespaceConfig`, as a JSON merge patch (RFC 7396), but that a rate limit and a concurrency key
    are always said as a whole. In `queues` null takes back all that was said of a queue.
    """

    config: dict[str, Any]


class AnnounceTasks(AnyCommand, frozen=True, kw_only=True):
    """A worker says which tasks it has and their settings (entity `_settings`).

    `schemas`: JSON Schemas (2020-12) of what they take as params, by task; one without takes anything. `any_task`: it also has a
    handler for tasks of whatever name.
    """

    tasks: dict[str, TaskInfo]
    worker: str = ""
    schemas: dict[str, dict[str, Any]] = {}
    any_task: bool = False


class AddStrategy(AnyCommand, frozen=True, kw_only=True):
    """From now on failures in this namespace are offered to this recovery strategy (entity `_settings`).

    One of the same id takes the place of the one before. Its code must be on the workers of its queue.
    """

    strategy: Strategy


class RemoveStrategy(AnyCommand, frozen=True, kw_only=True):
    """Failures are not offered to this strategy any more (entity `_settings`)."""

    strategy_id: Annotated[str, Meta(max_length=limits.task_name_chars)]


PlanStatus = Literal["draft", "ready", "invalid", "archived"]


class PutPlan(AnyCommand, frozen=True, kw_only=True):
    """Keep a plan under its id, so that executions can be started by that id; or change the status of one that is kept.

    A `plan` that cannot be carried out is kept as `invalid`, with the reason. Without `plan` the one of `plan_id` gets `status`
    (entity `_plans`). `plan_object`: in the place of a plan that is kept as an object.
    """

    plan: msgspec.Raw = NO_PLAN
    plan_object: ObjectRef | None = None
    plan_id: str | None = None
    status: Literal["draft", "ready", "archived"] = "ready"
    query: Text = ""


class DeclarePool(AnyCommand, frozen=True, kw_only=True):
    """From now on there is such a pool of resources; or it is changed: what is allocated stays so (entity `_pools`)."""

    pool: ResourcePool


class RemovePool(AnyCommand, frozen=True, kw_only=True):
    """There is no such pool any more; refused while anything is allocated of it (entity `_pools`)."""

    pool_id: Annotated[str, Meta(max_length=limits.id_chars)]


class AllocateResources(AnyCommand, frozen=True, kw_only=True):
    """Allocate all of these, or nothing; without room wait for one's turn, if `wait` (entity `_pools`).

    They come back by themselves after `lease_ms` without a `renew`.
    """

    requirements: Annotated[tuple[ResourceRequirement, ...], Meta(min_length=1, max_length=limits.requirements)]
    lease_ms: Annotated[int, Meta(ge=1_000, le=limits.resource_lease_max_ms)] = limits.resource_lease_ms
    wait: bool = True


class RenewResources(AnyCommand, frozen=True, kw_only=True):
    """Go on holding what the command `allocation` allocated, for its lease once more (entity `_pools`)."""

    allocation: Annotated[str, Meta(max_length=limits.id_chars)]


class ReleaseResources(AnyCommand, frozen=True, kw_only=True):
    """Give resources back, by their ids; or what the command `allocation` allocated or waits for (entity `_pools`)."""

    resource_ids: Annotated[
        tuple[Annotated[str, Meta(max_length=limits.id_chars)], ...], Meta(max_length=limits.resources_released)
    ] = ()
    allocation: Annotated[str, Meta(max_length=limits.id_chars)] | None = None


class SetAlert(AnyCommand, frozen=True, kw_only=True):
    """From now on it is watched whether `condition` holds, and told when it does (entity `_alerts`).

    One of the same `alert_id` takes the place of the one before; without one it is called as this command. `webhook`: an http or
    https URL to which each alert is posted.
    """

    condition: AlertCondition
    alert_id: Annotated[str, Meta(max_length=limits.id_chars)] | None = None
    webhook: Annotated[str, Meta(max_length=limits.webhook_chars)] | None = None


class RemoveAlert(AnyCommand, frozen=True, kw_only=True):
    """It is not watched any more (entity `_alerts`)."""

    alert_id: Annotated[str, Meta(max_length=limits.id_chars)]


ControlCommand = (
    CancelExecution | PauseExecution | ResumeExecution | RetryExecution | RollbackExecution | CreateCheckpoint | RestoreCheckpoint
)
"""Commands on an execution that exists."""
ExecutionCommand = StartExecution | ControlCommand
SettingsCommand = ConfigureNamespace | AnnounceTasks | AddStrategy | RemoveStrategy
"""Commands on `_settings`."""
PoolsCommand = DeclarePool | RemovePool | AllocateResources | RenewResources | ReleaseResources
"""Commands on `_pools`."""
AlertsCommand = SetAlert | RemoveAlert
"""Commands on `_alerts`."""
SharedCommand = SettingsCommand | PutPlan | PoolsCommand | AlertsCommand
"""Commands on what executions share."""
Command = ExecutionCommand | SharedCommand

VERBS: dict[str, type[Command]] = {
    "start": StartExecution,
    "cancel": CancelExecution,
    "pause": PauseExecution,
    "resume": ResumeExecution,
    "retry": RetryExecution,
    "rollback": RollbackExecution,
    "checkpoint": CreateCheckpoint,
    "restore": RestoreCheckpoint,
    "configure": ConfigureNamespace,
    "announce": AnnounceTasks,
    "add_strategy": AddStrategy,
    "remove_strategy": RemoveStrategy,
    "put_plan": PutPlan,
    "declare_pool": DeclarePool,
    "remove_pool": RemovePool,
    "allocate": AllocateResources,
    "renew": RenewResources,
    "release": ReleaseResources,
    "set_alert": SetAlert,
    "remove_alert": RemoveAlert,
}
"""The last token of a command's subject, and what its body is."""
