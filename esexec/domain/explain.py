"""How a refusal is put into words: the path of what is wrong, the value as far as it can be shown, a suggestion.

Every text here is bounded, however long the words are that somebody sent.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from itertools import islice

import msgspec

from esexec.domain import limits
from esexec.domain.errors import PlanInvalid, ValidationError

_SHOWN_CHARS = 64
_COMPARED = 200
"""A suggestion is looked for among this many words at most: 10,000 step ids would take longer than all other checks."""
_LENGTHS_APART = 8
_LISTED = 12

_WHERE = re.compile(r"(?P<reason>.*) - at `(?P<key>key in `?)?\$(?P<path>[^`]*)`", re.DOTALL)
_LAST_NAME = re.compile(r"([A-Za-z_]+)(?:\[[^\]]*\])*$")
_CODES = {"queue": "bad_queue"}
_HINTS = {"bad_queue": f"1 to {limits.id_chars} of A-Z a-z 0-9 _ -, no _ in front"}
_CHOICES = {
    "on_missing_compensation": 'one of "skip", "fail"',
    "checkpoint_every": '"task" or "never"; a time is written as `checkpoint_interval`',
    "on_limit": 'one of "wait", "reject"',
    "operator": "one of gt, gte, lt, lte, eq, or as a symbol",
    "threshold": "a number; of a duration also such as 2h",
    "policy": 'one of "queue", "skip", "replace"',
    "max_executions": f"0 (no limit) to {limits.grants_per_window} (limits.grants_per_window)",
    "window_ms": "1 ms to 31 days (limits.window_ms)",
    "limit": f"1 to {limits.concurrency_limit} (limits.concurrency_limit)",
    "total": f"1 to {limits.concurrency_limit} (limits.concurrency_limit)",
    "type": f"1 to {limits.id_chars} of A-Z a-z 0-9 _ . : / -",
    "id": f"1 to {limits.id_chars} of A-Z a-z 0-9 _ . : / -",
    "capacity": "a number, more than 0, up to 10**15",
    "amount": "a number, more than 0, up to 10**15",
    "cost_per_unit": "a number, 0 or more",
    "cost_per_unit_second": "a number, 0 or more",
    "priority": f"a whole number, 0 to {limits.priority_max}",
    "key": f"1 to {limits.key_chars} characters (limits.key_chars)",
    "scope": f"1 to {limits.key_chars} characters (limits.key_chars)",
    "attributes": "an object: names and values",
    "constraints": "an object: names and values",
}
"""By field: what it can be."""
_NO_CHOICE = re.compile(r"Invalid enum value (.*)", re.DOTALL)


def shown(word: object) -> str:
    """`word` as it can stand in a message: cut after 64 characters, nothing in it that moves a terminal's cursor."""
    text = word if isinstance(word, str) else _repr(word)
    text = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def quoted(value: object) -> str:
    """`value` as Python writes it, cut like `shown`."""
    return shown(_repr(value))


def _repr(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # an integer with more digits than Python likes to print; a value in itself
        return type(value).__name__


def unexpected_parameter(name: str, missing: Iterable[str]) -> str:
    """That a task does not take what was given so, and which of the parameters that were not given may be meant."""
    near = difflib.get_close_matches(name[:_SHOWN_CHARS], list(islice(missing, _COMPARED)), n=1)
    return f"unexpected parameter `{shown(name)}`" + (f", did you mean `{near[0]}`?" if near else "")


def did_you_mean(word: object, known: Iterable[str]) -> str | None:
    """A hint that names the nearest known word, else the known words while they are few, else None."""
    text = shown(word).lower()
    candidates = list(known)
    similar = (candidate for candidate in candidates if abs(len(candidate) - len(text)) <= _LENGTHS_APART)
    folded = {candidate.lower(): candidate for candidate in islice(similar, _COMPARED)}
    if near := difflib.get_close_matches(text, folded, n=1, cutoff=0.6):
        return f"did you mean `{shown(folded[near[0]])}`?"
    if 0 < len(candidates) <= _LISTED:
        return "known: " + ", ".join(shown(candidate) for candidate in candidates)
    return None


def joined(path: str, name: str) -> str:
    """`name` below `path`: `steps[2].timeout`."""
    return f"{path}.{name}" if path and name else path or name


def invalid_value(error: msgspec.ValidationError, *, path: str = "", written: Mapping[str, str] | None = None) -> ValidationError:
    """msgspec's refusal in our words. `written`: by field, the key that the writer used for it."""
    text = str(error)
    match = _WHERE.fullmatch(text)
    reason, below = (match["reason"], match["path"].removeprefix(".")) if match else (text, "")
    last = _LAST_NAME.search(below)
    name = last[1] if last else ""
    code = _CODES.get(name, "invalid_value")
    field = re.split(r"[.\[]", below, maxsplit=1)[0]
    if written and field in written:
        below = written[field] + below[len(field) :]
    full = joined(path, below)
    if "matching regex" in reason:
        reason = "cannot be a name"
    chosen = _NO_CHOICE.fullmatch(reason)
    reason = f"{shown(chosen[1])} is none of its values" if chosen else reason[:1].lower() + reason[1:]
    hint = _HINTS.get(code) or _CHOICES.get(name)
    return ValidationError(f"{full}: {reason}" if full else reason, code=code, hint=hint, path=full)


def as_plan_invalid(error: ValidationError, *, path: str | None = None) -> PlanInvalid:
    """The same refusal as `PlanInvalid`; `path`: where in the plan it was found, unless it says so itself."""
    if isinstance(error, PlanInvalid):
        return error
    message, context = error.message, error.context
    if path is not None and "path" not in context:
        message, context = f"{path}: {message}", {**context, "path": path}
    return PlanInvalid(message, code=error.code, hint=error.hint, **context)
