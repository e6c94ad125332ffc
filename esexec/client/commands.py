"""From what a caller writes to the command that travels: plans, tasks, options."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict, cast

import msgspec

from esexec.client import times
from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.flow_reading import SaidKey, SaidRateLimit
from esexec.domain.ids import is_task_name, is_user_id
from esexec.domain.kept_plans import is_plan_id
from esexec.domain.reading import read_config
from esexec.domain.settings import EMPTY_CONFIG, ExecutionConfig
from esexec.domain.shape import check_shape, not_finite
from esexec.plans import Duration, Plan
from esexec.results import T
from esexec.tasks import Returns, Task
from esexec.tasks.foreign import enc_hook
from esexec.world import new_id

Startable = Plan | Returns[T] | str | Mapping[str, Any]
"""A plan, a plan as a mapping, a task, a task's name, or the id of a plan that the namespace keeps (64 hexadecimal digits)."""

_encoder = msgspec.json.Encoder(enc_hook=enc_hook)


class MapOptions(TypedDict, total=False):
    """What can be said of every start. Settings given here win over all other levels, and over `config`; durations as in `Step`.

    `timeout` is one attempt's; how long the caller waits is `wait_timeout` elsewhere. `start_at`, or `delay` from now: not
    before then. `deadline`, a time or a duration from now: no run goes on past it. `execution_timeout`: of a whole run, from its
    first step. Times carry their offset from UTC. What is started inside a handler may not outlive the execution it belongs to.
    `rate_limit`: of its steps' attempts. `instance`: another namespace than the client's, on the same server.
    """

    context: Mapping[str, Any] | None
    execution_id: str | None
    idempotency_key: str | None
    metadata: Mapping[str, Any] | None
    config: Mapping[str, Any] | ExecutionConfig | None
    preset: str | None
    start_at: datetime | None
    delay: Duration | None
    deadline: datetime | Duration | None
    priority: int
    queue: str
    timeout: Duration
    timeout_growth: float
    queue_timeout: Duration
    max_retries: int
    retry_delay: Duration
    initial_retry_delay: Duration
    max_retry_delay: Duration
    max_retry_after: Duration
    backoff_multiplier: float
    jitter: float
    retry_unknown: bool
    enable_rollback: bool
    on_missing_compensation: Literal["skip", "fail"]
    execution_timeout: Duration
    checkpoint_interval: Duration
    checkpoint_every: Literal["task", "never"]
    rate_limit: SaidRateLimit | None
    instance: str | None


class StartOptions(MapOptions, total=False):
    """What can be said of one start: what `MapOptions` has, and these.

    `concurrency`: how many executions with the same key may run at once.
    """

    parallel_execution_limit: int
    continue_on_error: bool
    concurrency: SaidKey | None


_NO_SETTINGS = frozenset(
    {"context", "execution_id", "idempotency_key", "metadata", "config", "preset", "start_at", "delay", "deadline", "instance"}
)


def start_command(
    what: Startable,
    input: Any,
    options: StartOptions,
    owner: str | None,
    *,
    waits: bool = False,
    execution_id: str | None = None,
) -> tuple[str, c.StartExecution]:
    """The execution's id and the command. `waits`: the caller waits for its end. `execution_id`: the id, unless options say one.

    Raises `ValidationError` (`PlanInvalid` for a mapping that is no plan).
    """
    given_id = options.get("execution_id")
    execution_id = checked_id(given_id) if given_id else execution_id or new_id()
    plan, task, plan_id = _what(what)
    said = times.of_start(options.get("start_at"), options.get("delay"), options.get("deadline"), waits=waits)
    if options:
        said = _said(options) | said
    return execution_id, c.StartExecution(
        id=new_id(), confirm=False, plan=plan, plan_id=plan_id, task=task, input=input, actor=owner, **said
    )


def _said(options: StartOptions) -> dict[str, Any]:
    """What the options say of the start, apart from times."""
    key = options.get("idempotency_key")
    if key is not None and not 0 < len(key) <= limits.idempotency_key_chars:
        raise ValidationError(
            f"an idempotency key of {len(key)} characters",
            code="bad_idempotency_key",
            hint=f"1 to {limits.idempotency_key_chars}",
        )
    return {
        "context": dict(options.get("context") or {}),
        "config": _config(options),
        "metadata": dict(options.get("metadata") or {}),
        "idempotency_key": key,
    }


def checked_id(execution_id: str, *, ours: bool = False) -> str:
    """The id, if an execution may be called so (`ours`: or what executions share). Raises `ValidationError`."""
    if not isinstance(execution_id, str) or not (is_user_id(execution_id) or (ours and is_user_id(execution_id.lstrip("_")))):
        raise ValidationError(
            f"{str(execution_id)[:80]!r} is no execution id",
            code="bad_execution_id",
            hint="1 to 64 letters, digits, - and _; not _ first",
        )
    return execution_id


def _what(what: Startable) -> tuple[msgspec.Raw, str | None, str | None]:
    """The plan, the task, the id of a kept plan: one of the three."""
    if isinstance(what, Plan):
        return msgspec.Raw(what.graph.raw), None, None
    if isinstance(what, Task):
        return c.NO_PLAN, what.name, None
    if isinstance(what, str):
        if is_plan_id(what):
            return c.NO_PLAN, None, what
        if not is_task_name(what):
            raise ValidationError(f"{what[:100]!r} is no task name", code="bad_task_name", hint="letters, digits and _ . : / -")
        return c.NO_PLAN, what, None
    return msgspec.Raw(Plan.from_dict(cast(Mapping[str, Any], what)).graph.raw), None, None


def _config(options: StartOptions) -> ExecutionConfig:
    """The call's level of the settings: what is said by name over `config`, both over a preset."""
    said: dict[str, Any] = {name: value for name, value in options.items() if name not in _NO_SETTINGS and value is not None}
    given, preset = options.get("config"), options.get("preset")
    if given is None and preset is None:
        return read_config(said, in_seconds=True) if said else EMPTY_CONFIG
    written = dict(msgspec.to_builtins(given) if isinstance(given, ExecutionConfig) else given or {})
    if preset is not None:
        written["preset"] = preset
    base = read_config(written, in_seconds=True)
    if not said:
        return base
    over = msgspec.structs.asdict(read_config(said, in_seconds=True))
    return msgspec.structs.replace(base, **{field: value for field, value in over.items() if value is not None})


def encode_value(value: Any) -> bytes:
    """The JSON of an input, which was checked as part of its command. Raises `ValidationError` (`not_serializable`)."""
    try:
        data = _encoder.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ValidationError(f"the input cannot be sent as JSON: {error}", code="not_serializable") from error
    return data


def encode_command(command: c.Command) -> bytes:
    """The command's bytes. Raises `ValidationError` for values that JSON cannot hold, or that are too large.

    A start may be larger than a message: see `has_large_parts`.
    """
    try:
        data = _encoder.encode(command)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        what = "input" if isinstance(command, c.StartExecution) else "command"
        raise ValidationError(f"the {what} cannot be sent as JSON: {error}", code="not_serializable") from error
    if len(data) > 2 * limits.nesting_depth:  # what is shorter is neither too large nor too deep
        _check_parts(data, command)
    if b"null" in data and isinstance(command, c.StartExecution):
        _check_finite(command)
    if len(data) > limits.input_bytes and not has_large_parts(data, command):
        _check_size("the command", len(data), limits.plan_bytes + limits.input_bytes)
    return data


def has_large_parts(data: bytes, command: c.Command) -> bool:
    """Whether the plan or the input of a start is too large for its message (`data`), and must travel as an object."""
    if len(data) <= limits.input_bytes or not isinstance(command, c.StartExecution):
        return False
    return len(bytes(command.plan)) > limits.plan_bytes or len(_encoder.encode(command.input)) > limits.input_bytes


def _check_parts(data: bytes, command: c.Command) -> None:
    """Each part of a command that has a limit of its own, where the whole (`data`) is large or deep enough to exceed it."""
    if isinstance(command, c.StartExecution):
        given = {"input": command.input, "context": command.context, "metadata": command.metadata}
    else:
        given = {"metadata": command.metadata} if isinstance(command, c.CreateCheckpoint) else {}
    if len(data) > limits.input_bytes:
        for field, value in given.items():
            size = len(_encoder.encode(value))
            if field == "input":
                _check_size(field, size, limits.object_bytes, "object_bytes")
            else:
                _check_size(field, size, limits.input_bytes, "input_bytes")
    if data.count(b"{") + data.count(b"[") > limits.nesting_depth:
        for field, value in given.items():
            check_shape(msgspec.to_builtins(value, enc_hook=enc_hook), path=field, size_max=limits.object_bytes)


def _check_finite(command: c.StartExecution) -> None:
    """msgspec writes null for a number that is not finite, and somebody else would be given something else."""
    for field in ("input", "context", "metadata"):
        if (path := not_finite(msgspec.to_builtins(getattr(command, field), enc_hook=enc_hook), field)) is not None:
            hint = "give None or a string in its place"
            raise ValidationError(f"{path} is no finite number", code="not_serializable", hint=hint)


def _check_size(what: str, size: int, size_max: int, limit: str = "") -> None:
    if size > size_max:
        hint = f"at most {size_max} bytes" + (f" (limits.{limit})" if limit else "") + "; keep large values elsewhere"
        raise ValidationError(f"{what} of {size} bytes is too large", code="too_large", hint=hint)
