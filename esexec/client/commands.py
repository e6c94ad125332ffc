"""From what a caller writes to the command that travels: plans, tasks, options."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypedDict

import msgspec

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.ids import is_task_name, is_user_id
from esexec.domain.reading import read_config
from esexec.domain.settings import EMPTY_CONFIG
from esexec.domain.shape import check_shape
from esexec.plans import Plan
from esexec.tasks import Task
from esexec.tasks.foreign import enc_hook
from esexec.world import new_id

Startable = Plan | Task[..., Any] | str | Mapping[str, Any]
"""A plan, a plan as a mapping, a task, or a task's name."""

Duration = str | int | float | timedelta

_encoder = msgspec.json.Encoder(enc_hook=enc_hook)


class StartOptions(TypedDict, total=False):
    """What can be said of one start. Settings given here win over all other levels; durations as in `Step`.

    `timeout` is one attempt's; how long the caller waits is `wait_timeout` elsewhere.
    """

    context: Mapping[str, Any] | None
    execution_id: str | None
    idempotency_key: str | None
    metadata: Mapping[str, Any] | None
    config: Mapping[str, Any] | None
    priority: int
    queue: str
    timeout: Duration
    max_retries: int
    retry_delay: Duration
    initial_retry_delay: Duration
    max_retry_delay: Duration
    max_retry_after: Duration
    backoff_multiplier: float
    jitter: float
    retry_unknown: bool
    parallel_execution_limit: int
    continue_on_error: bool
    enable_rollback: bool


_NO_SETTINGS = frozenset({"context", "execution_id", "idempotency_key", "metadata", "config"})


def start_command(what: Startable, input: Any, options: StartOptions, owner: str | None) -> tuple[str, c.StartExecution]:
    """The execution's id and the command. Raises `ValidationError` (`PlanInvalid` for a mapping that is no plan)."""
    execution_id = options.get("execution_id") or new_id()
    if not is_user_id(execution_id):
        raise ValidationError(
            f"{execution_id[:80]!r} is no execution id", code="bad_execution_id", hint="letters, digits, - and _; not _ first"
        )
    plan, task = _plan_and_task(what)
    settings = {name: value for name, value in options.items() if name not in _NO_SETTINGS and value is not None}
    if config := options.get("config"):
        settings = {**config, **settings}
    key = options.get("idempotency_key")
    if key is not None and not 0 < len(key) <= limits.idempotency_key_chars:
        raise ValidationError(
            f"an idempotency key of {len(key)} characters",
            code="bad_idempotency_key",
            hint=f"1 to {limits.idempotency_key_chars}",
        )
    return execution_id, c.StartExecution(
        id=new_id(),
        confirm=False,
        plan=plan,
        task=task,
        input=input,
        context=dict(options.get("context") or {}),
        config=read_config(settings, in_seconds=True) if settings else EMPTY_CONFIG,
        metadata=dict(options.get("metadata") or {}),
        idempotency_key=key,
        actor=owner,
    )


def _plan_and_task(what: Startable) -> tuple[msgspec.Raw, str | None]:
    if isinstance(what, Plan):
        return msgspec.Raw(what.graph.raw), None
    if isinstance(what, Task):
        return c.NO_PLAN, what.name
    if isinstance(what, str):
        if not is_task_name(what):
            raise ValidationError(f"{what[:100]!r} is no task name", code="bad_task_name", hint="letters, digits and _ . : / -")
        return c.NO_PLAN, what
    return msgspec.Raw(Plan.from_dict(what).graph.raw), None


def encode_command(command: c.Command) -> bytes:
    """The command's bytes. Raises `ValidationError` for values that JSON cannot hold, or that are too large."""
    try:
        data = _encoder.encode(command)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ValidationError(f"the input cannot be sent as JSON: {error}", code="not_serializable") from error
    largest = limits.plan_bytes + limits.input_bytes
    if len(data) > largest:
        raise ValidationError(
            f"the command is {len(data)} bytes", code="too_large", hint=f"at most {largest} bytes; pass large inputs by reference"
        )
    if isinstance(command, c.StartExecution) and data.count(b"{") + data.count(b"[") > limits.nesting_depth:
        for field, value in (("input", command.input), ("context", command.context), ("metadata", command.metadata)):
            check_shape(msgspec.to_builtins(value, enc_hook=enc_hook), path=field)
    return data
