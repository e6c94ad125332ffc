"""Keys of flow control: by what executions and steps are counted. What can be written for one, and what it becomes.

A key is a text with references: `${input.tenant}/${context.region}`, of steps and tasks also `${params.user}`, the params of the
attempt. Strings stand in it as they are, everything else as compact JSON; so 7 and "7" are one key. Outputs of steps cannot be
referred to: they are no part of what is counted. Where a key is `bare` it can also be the path alone: `input.tenant` is
`${input.tenant}`. A text without a path and without references is the same key for all.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import msgspec

from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.explain import did_you_mean, shown
from esexec.domain.objects import Pointer
from esexec.domain.references import Grammar, Reference, Root, follow, parse_text

Counted = Literal["executions", "steps"]

ROOTS: dict[Counted, tuple[Root, ...]] = {"executions": ("input", "context"), "steps": ("input", "context", "params")}
_KEYS_REMEMBERED = 1_000

_GRAMMAR = Grammar(("input", "context", "params", "steps"), "write ${input.a} or ${context.a}, of a step also ${params.a}")
_PATH = re.compile(r"\s*(?P<root>[A-Za-z_][A-Za-z0-9_-]*)\s*[.\[]", re.ASCII)
"""What looks like the beginning of a path."""


def check_key(text: str, *, of: Counted, bare: bool, path: str = "") -> None:
    """Whether `text` can be the key of executions, or of steps. `path`: where it stands.

    Raises ValidationError: `bad_reference` for an error in the syntax of a reference, `bad_key` for any other.
    """
    where, named = (f"{path}: ", {"path": path}) if path else ("", {})
    try:
        parts = _parts(text, bare)
    except ValidationError as error:
        raise ValidationError(f"{where}{error.message}", code=error.code, hint=error.hint, **{**error.context, **named}) from None
    for part in parts:
        if isinstance(part, Reference) and part.root not in ROOTS[of]:
            message, hint = _out_of_place(part)
            raise ValidationError(f"{where}{message}", code="bad_key", hint=hint, **named)


def render_key(text: str, *, input: Any, context: Any, params: Callable[[], Any], bare: bool) -> str:
    """The key that `text` becomes with these values. `params()` is called only if it refers to them.

    Raises ValidationError: `reference_unresolved` when a path leads nowhere, `key_too_long` beyond `limits.key_chars`; and what
    `check_key` raises, for a text that nobody has checked.
    """
    values: dict[Root, Any] = {"input": input, "context": context}
    rendered: list[str] = []
    for part in _parts(text, bare):
        if isinstance(part, str):
            rendered.append(part)
            continue
        if part.root == "params" and "params" not in values:
            values["params"] = params()
        elif part.root == "steps":
            message, hint = _out_of_place(part)
            raise ValidationError(message, code="bad_key", hint=hint)
        value = follow(part, values[part.root])
        if isinstance(value, Pointer):
            value = follow(part, value.ref)
        rendered.append(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    key = "".join(rendered)
    if len(key) > limits.key_chars:
        hint = f"at most {limits.key_chars} characters (limits.key_chars); refer to an id, not to a whole object"
        raise ValidationError(f"the key {shown(text)} becomes {len(key)} characters long", code="key_too_long", hint=hint)
    return key


@lru_cache(maxsize=_KEYS_REMEMBERED)
def _parts(text: str, bare: bool) -> tuple[str | Reference, ...]:
    """What the key is put together from. Raises ValidationError, which is not remembered."""
    if not 0 < len(text) <= limits.key_chars:
        hint = f"1 to {limits.key_chars} characters (limits.key_chars)"
        raise ValidationError(f"the key has {len(text)} characters", code="bad_key", hint=hint)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError(f"the key {shown(text)} is not Unicode", code="bad_key", hint=_GRAMMAR.hint) from None
    if "${" in text:
        return tuple(parse_text(text, _GRAMMAR))
    root = text if text in _GRAMMAR.roots else match["root"] if (match := _PATH.match(text)) is not None else None
    if root is None:
        return (text,)
    if not bare:
        if root not in _GRAMMAR.roots:
            return (text,)
        hint = f"write ${{{shown(text)}}} for what stands there"
        raise ValidationError(f"the key `{shown(text)}` would be the same for all", code="bad_key", hint=hint)
    parts = parse_text(f"${{{text}}}", _GRAMMAR) if root in _GRAMMAR.roots else []
    if len(parts) != 1 or not isinstance(parts[0], Reference):
        near = did_you_mean(root, _GRAMMAR.roots) if root not in _GRAMMAR.roots else None
        hint = f"{near} {_GRAMMAR.hint}" if near is not None and near.startswith("did") else _GRAMMAR.hint
        raise ValidationError(f"the key `{shown(text)}` leads nowhere", code="bad_key", hint=hint)
    return tuple(parts)


def _out_of_place(reference: Reference) -> tuple[str, str]:
    if reference.root == "steps":
        return f"{shown(str(reference))}: a key cannot refer to steps", _GRAMMAR.hint
    return f"{shown(str(reference))}: an execution has no params", "write ${input.a} or ${context.a}; steps and tasks have params"
