"""What the engine tells others: a dispatch for a worker, an answer for a client, a signal for whoever runs an attempt."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from esexec.domain.commands import PlanStatus
from esexec.domain.errors import ErrorInfo
from esexec.domain.flow import Resource
from esexec.domain.objects import ObjectPart

Purpose = Literal["task", "fallback", "compensation", "recovery"]
"""What an attempt is for: the step's own work, the work of its fallback, the undoing of it, or a recovery strategy's advice."""


class RecoveryRequest(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """What a recovery strategy is asked. `failed_attempt`: the one that ended with `error`; `recoveries`: of this step, this one
    included. `state`: as `checkpoints.StateView`. `plan`: the plan's document."""

    error: ErrorInfo
    failed_attempt: int
    recoveries: int
    plan: msgspec.Raw
    state: Any


class Dispatch(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """One attempt for a worker. References in `params` are resolved. `timeout_ms` 0 = none.

    `max_attempts`: how many there can be, so that a handler can tell its last. `deadline`: of the execution. `vars`: its
    variables. `before`: the step's before-image, absent if there is none. For a compensation `params` are those of the step it
    undoes with its output's fields over them, bound by name as far as the task has parameters; `output` is that output (left out
    where the whole would not fit into one message), and `undoes` names what is undone within the step: the run, and whether its
    fallback did it. `allocated`: the resources that the attempt was
    granted. For a recovery `task` is the strategy's id. `objects`: what is left out here because it is in an object; a worker
    puts it in its place before it calls anything. Unknown fields are ignored by workers.
    """

    execution_id: str
    step: str
    task: str
    attempt: int = 1
    run: int = 1
    params: Any = {}
    context: dict[str, Any] = {}
    timeout_ms: int = 30_000
    max_attempts: int = 4
    queue: str = "default"
    priority: int = 5
    purpose: Purpose = "task"
    deadline: datetime | None = None
    vars: dict[str, Any] = {}
    output: Any = None
    before: Any = msgspec.UNSET
    undoes: str = ""
    allocated: tuple[Resource, ...] = ()
    recovery: RecoveryRequest | None = None
    objects: tuple[ObjectPart, ...] = ()


AnswerStatus = Literal["accepted", "duplicate", "superseded", "refused"]


class Warned(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """Something about a command that was accepted, and that may not be meant."""

    code: str
    message: str
    hint: str | None = None


class Answer(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """What became of a command.

    `execution_id`: the execution that the command was sent to. `original_id`: the execution that stands for it instead,
    when a start's idempotency key belongs to another. `effective`: whether it changed anything (a cancel of an ended
    execution did not). `plan_id`, `plan_status`: of the plan that a `put_plan` was about, as it is kept now.
    `resources`, `until`: what an `allocate` was granted, and until when; `waiting`: it has to wait, and is answered once more.
    `warnings`: of a start, such as `unannounced_task`: no worker has announced a task of it, so it may wait for one. `record`: of
    a start that wants it: the record of its task (of a plan, of the first step), as lists have it.
    """

    command_id: str
    execution_id: str
    status: AnswerStatus
    effective: bool = True
    original_id: str | None = None
    error: ErrorInfo | None = None
    plan_id: str | None = None
    plan_status: PlanStatus | None = None
    resources: tuple[Resource, ...] = ()
    until: datetime | None = None
    waiting: bool = False
    warnings: tuple[Warned, ...] = ()
    record: Any = None


class CancelSignal(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """Stop this attempt: sent on `live.<execution>.cancel`, once or more, not stored; the durable truth is the history."""

    execution_id: str
    step: str
    attempt: int
    run: int = 1
    reason: str = ""


class WhoHas(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who has this attempt? Asked on `live.<execution>.held`, with a reply subject: the worker that has it answers (anything)."""

    execution_id: str
    step: str
    attempt: int
    run: int = 1


class ImageSignal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The before-image of a step that stands: sent on `live.<execution>.before`, in answer to a `before` report."""

    execution_id: str
    step: str
    attempt: int
    run: int = 1
    image: Any = None


# Told live, not in the log -----------------------------------------------------------------------------------------------

Level = Literal["debug", "info", "warning", "error"]


class _Live(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    execution_id: str
    step: str
    attempt: int
    run: int = 1
    time: Annotated[datetime, Meta(tz=True)]
    worker: str = ""


class ProgressSignal(_Live, frozen=True, kw_only=True, gc=False):
    """How far an attempt is, from 0 to 1: sent on `live.<execution>.progress`; the last ones are kept for a while."""

    fraction: Annotated[float, Meta(ge=0, le=1)]
    text: str = ""


class LogSignal(_Live, frozen=True, kw_only=True, gc=False):
    """A line that a handler tells: sent on `live.<execution>.log`; the last ones are kept for a while.

    `left_out`: lines of the same attempt before this one that were too many to be sent.
    """

    level: Level
    message: str
    fields: dict[str, Any] = {}
    left_out: int = 0


class WorkerSample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a worker's process does, each few seconds: sent on `live._workers.sample`.

    `cpu_usage`: per cent of one core since the sample before, so that several cores give more than 100. `memory_usage`: per cent
    of the machine's memory, `memory_bytes` in bytes. `running`: attempts in hand; `executions`: of which executions, the first
    `limits.sampled_executions` of them.
    """

    worker: str
    at: Annotated[datetime, Meta(tz=True)]
    cpu_usage: Annotated[float, Meta(ge=0)]
    memory_usage: Annotated[float, Meta(ge=0)]
    memory_bytes: Annotated[int, Meta(ge=0)]
    running: Annotated[int, Meta(ge=0)]
    executions: tuple[str, ...] = ()


class WorkerPresence(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """A worker is there: sent on `live._workers.here` by each that hears `live._workers.ask`.

    `tasks`: those it has, each with the id of the schema that it announced of it, empty for none. `any_task`: it has a handler
    for tasks of whatever name. `queues`: how many attempts at a time it takes from which. `version`: of esexec, if it is
    a worker of esexec's.
    """

    worker: str
    version: str = ""
    tasks: dict[str, str] = {}
    queues: dict[str, int] = {}
    any_task: bool = False
