"""Single values as people write them → what the fields hold. Where a value stands is said by its `path`, as it was written."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from esexec.domain.aliases import Written
from esexec.domain.durations import counts_milliseconds, milliseconds
from esexec.domain.errors import ValidationError
from esexec.domain.explain import invalid_value, joined, shown

T = TypeVar("T", bound=msgspec.Struct)

_BARE_SECONDS_MAX = 1_000
"""Bare numbers from here on are refused under a key without a unit: elsewhere they mean milliseconds (`timeout: 30000`)."""


_ABOVE_0 = frozenset({"window_ms"})
"""Durations of which there is no "none"."""


def duration(value: Any, path: str, in_seconds: bool, *, can_be_0: bool = True) -> int:
    """Milliseconds. `in_seconds`: bare numbers without a unit in their key are surely seconds, however large.

    Raises ValidationError: `invalid_duration`, `ambiguous_duration`.
    """
    bare = isinstance(value, int | float) and not isinstance(value, bool) and not counts_milliseconds(path)
    if bare and value >= _BARE_SECONDS_MAX and not in_seconds:
        raise ValidationError(
            f"{path}: {shown(value)} could mean seconds or milliseconds",
            code="ambiguous_duration",
            hint=f'write the unit: "{shown(value)}s" or "{shown(value)}ms"',
            path=path,
        )
    return milliseconds(value, name=path, can_be_0=can_be_0)


def with_durations(fields: Mapping[str, Written], path: str, in_seconds: bool) -> dict[str, Written]:
    """The fields, with those that count milliseconds in milliseconds. Raises as `duration` does."""
    converted = dict(fields)
    for field, (key, value) in fields.items():
        if field.endswith("_ms"):
            converted[field] = Written(key, duration(value, joined(path, key), in_seconds, can_be_0=field not in _ABOVE_0))
    return converted


def convert(kind: type[T], fields: Mapping[str, Written], path: str) -> T:
    """The fields as a `kind`. Raises ValidationError (`invalid_value`, `bad_queue`)."""
    try:
        return msgspec.convert({field: written.value for field, written in fields.items()}, type=kind)
    except msgspec.ValidationError as error:
        raise invalid_value(error, path=path, written={field: written.key for field, written in fields.items()}) from None


def json_value(value: object, path: str) -> Any:
    """`value` as plain JSON values: dates become text, keys become text, tuples become lists.

    Raises ValidationError (`not_json`).
    """
    try:
        return msgspec.to_builtins(value, str_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"{path}: {shown(str(error))}", code="not_json", hint="use JSON's values", path=path) from None
