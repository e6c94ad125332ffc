"""Text and values from strangers, made fit for JSON: of bounded length, and nothing in them that cannot be encoded."""

from typing import Any

import msgspec

from esexec.domain import limits
from esexec.domain.shape import check_shape

_VALUE_CHARS = 200
_KEYS = 50


def clean(text: str, chars: int) -> str:
    """`text` with what UTF-8 cannot hold (lone surrogates) spelled out, and its middle cut to at most `chars`."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= chars:
        return text
    mark = f"\n… {len(text) - chars} characters cut …\n"
    kept = max(chars - len(mark), 0)
    head = kept // 2
    return text[:head] + mark + text[len(text) - (kept - head) :]


def shown(value: Any) -> str:
    """A short text for any value, whatever its `__repr__` does."""
    try:
        return clean(value if isinstance(value, str) else repr(value), _VALUE_CHARS)
    except Exception:
        return f"<{type(value).__name__}>"


def plain_directive(directive: Any) -> Any:
    """A directive as JSON has it; one that is too large or too deep for `limits.directive_bytes` becomes short text."""
    if directive is None:
        return None
    try:
        encoded = msgspec.json.encode(directive, enc_hook=shown)
        if len(encoded) <= limits.directive_bytes:
            decoded = msgspec.json.decode(encoded)
            check_shape(decoded, path="directive", depth_max=limits.nesting_depth // 2)
            return decoded
    except Exception:  # as in `plain`
        pass
    return shown(directive)


def plain(context: Any) -> dict[str, Any]:
    """A context as JSON has it. What does not fit, is deep, or longer than `limits.text_chars`, becomes short text."""
    if not isinstance(context, dict):
        return {"context": shown(context)}
    try:
        encoded = msgspec.json.encode(context, enc_hook=shown)
        if len(encoded) <= limits.text_chars:
            decoded: dict[str, Any] = msgspec.json.decode(encoded)
            check_shape(decoded, path="context", depth_max=limits.nesting_depth // 2)  # It will stand inside other objects.
            return decoded
    except Exception:  # Lone surrogates, keys that are no text, cycles, too much or too deep.
        pass
    return {shown(key): shown(context[key]) for key in list(context)[:_KEYS]}
