"""The keys that people may write, and the one field that each of them means.

Every key may also be written in camelCase (`maxRetries`). The seeds of esexec had several names for one thing; all of them
are accepted, none of them is kept: what is stored has the field's name.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from esexec.domain.alerts import AlertCondition
from esexec.domain.errors import ValidationError
from esexec.domain.explain import did_you_mean, joined, shown
from esexec.domain.flow import Key, RateLimit, ResourcePool, ResourceRequirement
from esexec.domain.plan import Plan, Step
from esexec.domain.settings import ExecutionConfig, TaskSettings

_OTHER_NAMES = {
    "timeout": "timeout_ms",
    "queue_timeout": "queue_timeout_ms",
    "initial_retry_delay": "initial_retry_delay_ms",
    "retry_delay": "initial_retry_delay_ms",
    "retry_delay_ms": "initial_retry_delay_ms",
    "max_retry_delay": "max_retry_delay_ms",
    "max_retry_after": "max_retry_after_ms",
    "retry_backoff": "backoff_multiplier",
    "retry_jitter": "jitter",
}
_CONFIG_NAMES = {
    "execution_timeout": "execution_timeout_ms",
    "checkpoint_interval": "checkpoint_interval_ms",
    "preset": "preset",
}
_STEP_NAMES = {"tool": "task", "action": "task", "input": "params"}


def _keys(fields: tuple[str, ...], *others: Mapping[str, str]) -> dict[str, str]:
    return {**{field: field for field in fields}, **{name: field for other in others for name, field in other.items()}}


SETTINGS = _keys(TaskSettings.__struct_fields__, _OTHER_NAMES)
CONFIG = _keys(ExecutionConfig.__struct_fields__, _OTHER_NAMES, _CONFIG_NAMES)
"""`preset` is the one key without a field: it stands for the settings that `ExecutionConfig.preset` gives."""
STEP = _keys(Step.__struct_fields__, _OTHER_NAMES, _STEP_NAMES)
PLAN = _keys(Plan.__struct_fields__) | CONFIG
"""A plan's settings may stand in its `config` or beside it."""
NAMESPACE = CONFIG | {"queues": "queues"}
QUEUE = {key: field for key, field in SETTINGS.items() if field != "queue"}

# Flow control, below the keys `rate_limit`, `concurrency` and `resources`.
RATE_LIMIT = _keys(RateLimit.__struct_fields__, {"window": "window_ms"})
KEY = _keys(Key.__struct_fields__)
REQUIREMENT = _keys(ResourceRequirement.__struct_fields__, {"duration": "duration_ms"})
POOL = _keys(ResourcePool.__struct_fields__)

ALERT = _keys(
    AlertCondition.__struct_fields__,
    {"duration": "duration_ms", "window": "window_ms", "execution": "execution_id", "plan_id": "plan"},
    dict.fromkeys(("worker", "queue", "projection"), "source"),
)

_OUT_OF_PLACE = {
    "queues": "only a namespace has settings of queues: esexec configure, client.configure(queues={…})",
    "queue": "what is said of a queue holds for the attempts on it; it cannot name another",
    "resources": "only steps and tasks need resources",
    "concurrency": "concurrency is said of a step, a task, a plan, a start or the namespace",
}
"""By key: why it is not known here."""

_HUMP = re.compile(r"(?<=[a-z0-9])[A-Z]")


class Written(NamedTuple):
    """A value, and the key that it was written under."""

    key: str
    value: Any


def by_field(
    document: object, known: Mapping[str, str], path: str, *, nulls: bool = False, such_as: str | None = None
) -> dict[str, Written]:
    """What `document` says, by field. `null` says nothing, or with `nulls` something of its own. `such_as`: an example.

    Raises ValidationError: `invalid_value` when it is no object, `unknown_key`, `said_twice` (the same through two keys).
    """
    if not isinstance(document, Mapping):
        raise wrong_type(path, "an object", document, hint=such_as and f"such as {such_as}")
    found: dict[str, Written] = {}
    for key, value in document.items():
        field = field_of(key, known)
        if field is None:
            where = joined(path, shown(key))
            hint = _OUT_OF_PLACE.get(key) if isinstance(key, str) else None
            raise ValidationError(f"{where}: unknown key", code="unknown_key", hint=hint or did_you_mean(key, known), path=where)
        if value is None and not nulls:
            continue
        if field in found:
            where = joined(path, key)
            message = f"{where}: says the same as `{found[field].key}`"
            raise ValidationError(message, code="said_twice", hint="keep one of the two", path=where)
        found[field] = Written(key, value)
    return found


def field_of(key: object, known: Mapping[str, str]) -> str | None:
    """The field that `key` means, if any."""
    return known.get(key) or known.get(_snake_case(key)) if isinstance(key, str) else None


def wrong_type(path: str, expected: str, value: object, *, hint: str | None = None) -> ValidationError:
    """The error for a value of another kind than `expected` ("a list")."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    got = "nothing" if value is None else names.get(type(value), type(value).__name__)
    message = f"expected {expected}, got {got}"
    return ValidationError(f"{path}: {message}" if path else message, code="invalid_value", hint=hint, path=path)


def _snake_case(key: str) -> str:
    return _HUMP.sub(lambda hump: "_" + hump[0].lower(), key)
