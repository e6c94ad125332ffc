"""What can be said of a task beside its function: the keywords of `@task` and `@my_task.compensate`, and what they become."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypedDict

import msgspec

from esexec.domain.durations import milliseconds
from esexec.domain.errors import ValidationError
from esexec.domain.explain import did_you_mean
from esexec.domain.flow_reading import SaidRateLimit, read_rate_limit
from esexec.domain.settings import TaskSettings

Duration = str | int | float | timedelta
"""`"30s"`, a number of seconds, or a timedelta."""


class TaskOptions(TypedDict, total=False):
    """The task's level of the settings, see `domain.settings.TaskSettings`. None is as good as not given."""

    timeout: Duration | None
    timeout_growth: float | None
    queue_timeout: Duration | None
    max_retries: int | None
    retry_delay: Duration | None
    initial_retry_delay: Duration | None
    max_retry_delay: Duration | None
    max_retry_after: Duration | None
    backoff_multiplier: float | None
    jitter: float | None
    retry_unknown: bool | None
    queue: str | None
    priority: int | None
    rate_limit: SaidRateLimit | None


_NOT_HERE = {
    "resources": "what undoes a step needs no resources",
    **dict.fromkeys(
        ("concurrency", "cache", "compensate"), "make it a task of its own, @task(…), and name it: @task(compensate=that_task)"
    ),
}
_DURATIONS = ("timeout", "queue_timeout", "initial_retry_delay", "max_retry_delay", "max_retry_after")


def read_options(options: TaskOptions | Mapping[str, Any]) -> TaskSettings:
    """The settings that these options say.

    Raises ValidationError: `invalid_settings`, `invalid_duration`, and for a rate limit what `read_rate_limit` raises.
    """
    said: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for name in said.keys() - TaskOptions.__annotations__.keys():
        hint = _NOT_HERE.get(name) or did_you_mean(name, TaskOptions.__annotations__)
        raise ValidationError(f"{name}: unknown setting", code="invalid_settings", hint=hint)
    if "retry_delay" in said:
        if "initial_retry_delay" in said:
            raise ValidationError("retry_delay and initial_retry_delay are the same setting: give one", code="invalid_settings")
        said["initial_retry_delay"] = said.pop("retry_delay")
    for name in _DURATIONS:
        if name in said:
            said[f"{name}_ms"] = milliseconds(said.pop(name), name=name)
    if "rate_limit" in said:
        said["rate_limit"] = read_rate_limit(said["rate_limit"], "rate_limit", in_seconds=True)
    try:
        return msgspec.convert(said, TaskSettings)
    except msgspec.ValidationError as error:
        text, _, path = str(error).rpartition(" - at `")
        where = f"{path.strip('`$.')}: " if path and text else ""
        raise ValidationError(f"{where}{text or error}", code="invalid_settings") from error
