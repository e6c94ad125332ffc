"""Durations as people write them, as whole milliseconds.

The one rule for bare numbers: seconds, as everywhere in Python; but milliseconds where the name says so (`timeout_ms`,
`timeoutMs`). Strings always carry their unit.
"""

import math
import re
from datetime import timedelta
from fractions import Fraction

from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.explain import quoted

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_NUMBER = r"(\d{1,15}(?:\.\d{1,15})?)"
_DURATION = re.compile(r"\s*".join(["", *(rf"(?:{_NUMBER}\s*{unit}(?![a-z]))?" for unit in _UNITS_MS), ""]), re.ASCII)
_HINT_ABOVE_0 = 'write "250ms", "30s", "5m", "1h30m" or "2d"'
_HINT = f'{_HINT_ABOVE_0}; 0 or "0s" for none'


def counts_milliseconds(name: str) -> bool:
    """Whether a bare number under this name is milliseconds."""
    return name.endswith(("_ms", "Ms"))


def milliseconds(value: int | float | str | timedelta, *, name: str, can_be_0: bool = True) -> int:
    """`value` in whole milliseconds. What is above 0 never becomes 0 (which often means "none"), but 1.

    `name` is where the value stands; bare numbers are seconds unless it ends in `_ms` or `Ms`. `can_be_0`: whether 0 means
    anything there; else the caller refuses it, and no hint speaks of it.
    Raises ValidationError `invalid_duration` for anything else, negative, not finite, or longer than `limits.delay_ms`.
    """
    exact = _exact(value, name, _HINT if can_be_0 else _HINT_ABOVE_0)
    if exact < 0:
        raise _invalid(value, name, "is negative", f"a duration is {'0 or more' if can_be_0 else 'more than 0'}")
    if exact > limits.delay_ms:
        raise _invalid(value, name, "is longer than a year", f"at most {limits.delay_ms} ms (limits.delay_ms)")
    return max(1, round(exact)) if exact else 0


def _exact(value: object, name: str, hint: str) -> Fraction:
    if isinstance(value, timedelta):
        return Fraction(value // timedelta(microseconds=1), 1000)
    if isinstance(value, str):
        return _from_text(value, name, hint)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(value, name, "is not a duration", hint)
    if isinstance(value, float) and not math.isfinite(value):
        raise _invalid(value, name, "is not finite", hint)
    return Fraction(value) * (1 if counts_milliseconds(name) else 1000)


def _from_text(text: str, name: str, hint: str) -> Fraction:
    match = _DURATION.fullmatch(text) if len(text) <= 100 else None
    if match is None or not any(match.groups()):
        raise _invalid(text, name, "is not a duration", hint)
    parts = zip(match.groups(), _UNITS_MS.values(), strict=True)
    return sum((Fraction(number) * unit for number, unit in parts if number), Fraction(0))


def _invalid(value: object, name: str, what: str, hint: str) -> ValidationError:
    return ValidationError(f"{name}: {quoted(value)} {what}", code="invalid_duration", hint=hint, path=name)
