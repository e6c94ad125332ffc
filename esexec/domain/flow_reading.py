"""Flow control as people write it → `flow`: objects or mappings, camelCase, durations with units, `{"gpu": 2}` for requirements.

What comes out obeys `flow_rules`. Wherever it stands, `null` says nothing.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, TypeVar

import msgspec

from esexec.domain import aliases, limits
from esexec.domain.aliases import Written, by_field, wrong_type
from esexec.domain.errors import ValidationError
from esexec.domain.explain import joined, shown
from esexec.domain.flow import Key, RateLimit, ResourcePool, ResourceRequirement
from esexec.domain.flow_keys import Counted
from esexec.domain.flow_rules import check_concurrency, check_pool, check_rate_limit, check_requirements
from esexec.domain.shape import check_shape
from esexec.domain.values import convert, json_value, with_durations

T = TypeVar("T", bound=msgspec.Struct)

SaidRateLimit = RateLimit | Mapping[str, Any]
SaidKey = Key | Mapping[str, Any]
SaidResources = Sequence[ResourceRequirement | Mapping[str, Any]] | Mapping[str, float | Mapping[str, Any]]
"""Requirements, or by type an amount or what else is required: `{"gpu": 2}`, `{"memory": {"amount": 8, "constraints": {…}}}`."""


def read_rate_limit(value: object, path: str, *, in_seconds: bool = False) -> RateLimit:
    """A rate limit: the object, or `{"max_executions": 10, "window": "1m"}`. With 0 executions it needs no window.

    `path`: where it stands. `in_seconds`: see `values.duration`. Raises ValidationError: `invalid_value`, `unknown_key`,
    `said_twice`, `missing`, `invalid_duration`, `ambiguous_duration`, `bad_key`, `bad_reference`.
    """
    fields = _fields(RateLimit, value, aliases.RATE_LIMIT, path)
    _must_say(fields, "max_executions", "how many may begin within the window, such as `max_executions: 10`", path)
    if fields["max_executions"].value == 0:
        fields.setdefault("window_ms", Written("window_ms", 1))
    _must_say(fields, "window_ms", "how long the window is, such as `window: 1m`", path)
    limit = convert(RateLimit, with_durations(fields, path, in_seconds), path)
    check_rate_limit(limit, path)
    return limit


def read_key(value: object, path: str, *, of: Counted) -> Key:
    """A concurrency key: the object, or `{"key": "input.customer", "limit": 3}`.

    Raises ValidationError: `invalid_value`, `unknown_key`, `said_twice`, `missing`, `bad_key`, `bad_reference`,
    `policy_of_executions`.
    """
    fields = _fields(Key, value, aliases.KEY, path)
    _must_say(fields, "key", "by what is counted, such as `key: input.customer`", path)
    key = convert(Key, fields, path)
    check_concurrency(key, path, of=of)
    return key


def read_requirements(value: object, path: str, *, in_seconds: bool = False) -> tuple[ResourceRequirement, ...]:
    """Requirements: a list of objects or mappings, or a mapping of amounts by type, `{"gpu": 2}`.

    Raises ValidationError: `invalid_value`, `unknown_key`, `said_twice`, `missing`, `invalid_duration`, `ambiguous_duration`,
    `not_json`, `too_many_requirements`, `requirements_too_large`, `too_deep`, `too_large`.
    """
    if isinstance(value, Mapping):
        written = [(joined(path, shown(type_)), _of_type(type_, said, path)) for type_, said in value.items()]
    elif isinstance(value, list | tuple):
        written = [(f"{path}[{number}]", said) for number, said in enumerate(value)]
    else:
        raise wrong_type(path, "a list of requirements, or amounts by type", value, hint=_REQUIREMENTS)
    if len(written) > limits.requirements:
        hint = f"at most {limits.requirements} (limits.requirements)"
        raise ValidationError(f"{path}: {len(written)} requirements", code="too_many_requirements", hint=hint, path=path)
    requirements = tuple(_requirement(said, where, in_seconds) for where, said in written)
    check_requirements(requirements, path)
    return requirements


def read_pool(value: object, path: str = "") -> ResourcePool:
    """A resource pool: the object, or a mapping.

    Raises ValidationError: `invalid_value`, `unknown_key`, `said_twice`, `missing`, `not_json`, `pool_too_large`, `too_deep`,
    `too_large`.
    """
    fields = _fields(ResourcePool, value, aliases.POOL, path)
    for field in ("id", "type", "capacity"):
        _must_say(fields, field, "a pool has an `id`, a `type` and a `capacity`", path)
    pool = convert(ResourcePool, _with_json(fields, "attributes", path), path)
    check_pool(pool, path)
    return pool


def _of_type(type_: object, said: object, path: str) -> object:
    """The requirement that one entry of a mapping by types is: an amount, or an object without a type."""
    where = joined(path, shown(type_))
    if isinstance(said, Mapping):
        if "type" in said:
            hint = f"leave out `type`, or write a list: {path}: [{{type: …}}]"
            raise ValidationError(f"{where}: says its type twice", code="said_twice", hint=hint, path=where)
        return {"type": type_, **said}
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise wrong_type(where, "an amount", said, hint=_REQUIREMENTS)
    return {"type": type_, "amount": said}


def _requirement(value: object, path: str, in_seconds: bool) -> ResourceRequirement:
    fields = _fields(ResourceRequirement, value, aliases.REQUIREMENT, path)
    _must_say(fields, "type", "which resource, such as `type: gpu`", path)
    return convert(ResourceRequirement, with_durations(_with_json(fields, "constraints", path), path, in_seconds), path)


def _with_json(fields: dict[str, Written], field: str, path: str) -> dict[str, Written]:
    if field not in fields:
        return fields
    key, value = fields[field]
    where = joined(path, key)
    check_shape(value, path=where, size_max=limits.pool_bytes)
    plain = json_value(value, where)
    if not _is_finite(plain):
        raise ValidationError(f"{where}: not JSON", code="not_json", hint="NaN and infinity are no JSON", path=where)
    return {**fields, field: Written(key, plain)}


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or isfinite(value)


_SUCH_AS: dict[type, str] = {
    RateLimit: '{"max_executions": 10, "window": "1m"}',
    Key: '{"key": "input.customer", "limit": 3}',
    ResourceRequirement: '{"type": "gpu", "amount": 2}',
    ResourcePool: '{"id": "rack-1", "type": "gpu", "capacity": 4}',
}
_REQUIREMENTS = 'such as {"gpu": 2}, or a list: [{"type": "gpu", "amount": 2}]'


def _fields(kind: type[T], value: object, known: Mapping[str, str], path: str) -> dict[str, Written]:
    """What `value` says, by field; an object of the kind says its fields, which nobody has checked yet."""
    if isinstance(value, kind):
        value = {field: getattr(value, field) for field in kind.__struct_fields__}
    return by_field(value, known, path, such_as=_SUCH_AS[kind])


def _must_say(fields: dict[str, Any], field: str, hint: str, path: str) -> None:
    if field not in fields:
        where = joined(path, field)
        raise ValidationError(f"{where}: missing", code="missing", hint=hint, path=where)
