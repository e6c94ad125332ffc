"""The shape of JSON values that come from outside: bounded in depth and in number, checked without recursion.

Checked first, so that everything after may recurse: no deeper than `limits.nesting_depth`, and not for ever over a small
document that repeats itself (YAML aliases).
"""

from collections.abc import Mapping

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
