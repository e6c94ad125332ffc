"""The shape of JSON values that come from outside: bounded in depth and in number, checked without recursion; numbers finite.

Depth is checked first, so that everything after may recurse: no deeper than `limits.nesting_depth`, and not for ever over a small
document that repeats itself (YAML aliases).
"""

import math
from collections.abc import Mapping
from typing import Any

from esexec.domain import limits
from esexec.domain.errors import ValidationError


def check_shape(value: object, *, path: str, depth_max: int = limits.nesting_depth, size_max: int = limits.message_bytes) -> None:
    """Raise ValidationError `too_deep` or `too_large` (`size_max`: values plus characters of text). A scalar has depth 0."""
    level: list[object] = [value]
    size = depth = 0
    while True:
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                size += len(item)
            elif isinstance(item, Mapping):
                below.extend(item.values())
                size += len(item) + sum(len(key) for key in item if isinstance(key, str))
            elif isinstance(item, list | tuple):
                below.extend(item)
                size += len(item)
            if size > size_max:
                raise ValidationError(f"{path}: too large", code="too_large", hint=f"at most {size_max} bytes", path=path)
        if not below and not any(isinstance(item, Mapping | list | tuple) for item in level):
            return
        depth += 1
        if depth > depth_max:
            hint = f"at most {depth_max} levels (limits.nesting_depth)"
            raise ValidationError(f"{path}: nested too deeply", code="too_deep", hint=hint, path=path)
        level = below


def not_finite(value: Any, path: str) -> str | None:
    """Where the first number of a JSON value is that is not finite, or None: JSON has none, and null would be another value."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if isinstance(value, dict):
        parts = [(f"{path}.{key}", part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{path}[{index}]", part) for index, part in enumerate(value)]
    else:
        return None
    for name, part in parts:
        if (found := not_finite(part, name)) is not None:
            return found
    return None
