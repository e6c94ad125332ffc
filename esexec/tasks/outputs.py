"""From a handler's output to bytes: once, as part of the report that carries it.

What cannot be kept fails the attempt for good, since every further try would compute it in vain: code
`output_not_serializable`, `output_too_large` or `output_too_deep`, `retry=False`.
"""

import math
from typing import Any

import msgspec

from esexec.domain import limits
from esexec.domain.errors import ExecutionError, ValidationError
from esexec.domain.shape import check_shape
from esexec.tasks.foreign import enc_hook

_encoder = msgspec.json.Encoder(enc_hook=enc_hook)
_HINT = "return None, bool, int, float, str, list, dict, datetime, enum, Struct, dataclass or pydantic model"


def encode_with_output(report: Any, output: Any) -> bytes:
    """The JSON of `report`, a Struct that holds `output`. Raises ExecutionError if the output cannot be kept.

    Plain outputs cost one encoding and a few looks at the bytes; only suspicious ones are examined further.
    """
    try:
        encoded = _encoder.encode(report)
        if len(encoded) > limits.output_bytes:
            _check_size(output)
        if encoded.count(b"{") + encoded.count(b"[") > limits.nesting_depth:
            _check_depth(output)
        if b"null" in encoded:
            _check_finite(output)
    except ExecutionError:
        raise
    except Exception as error:  # TypeError, RecursionError, UnicodeEncodeError, or what a model's own serializer raises.
        raise ExecutionError(
            f"the output cannot be stored as JSON: {error}", code="output_not_serializable", retry=False, hint=_HINT
        ) from error
    return encoded


def _check_size(output: Any) -> None:
    size = len(_encoder.encode(output))
    if size > limits.output_bytes:
        raise ExecutionError(
            f"the output has {size} bytes as JSON, more than output_bytes = {limits.output_bytes}",
            code="output_too_large",
            retry=False,
            hint="store it elsewhere and return where it is",
        )


def _check_depth(output: Any) -> None:
    try:
        check_shape(msgspec.to_builtins(output, enc_hook=enc_hook), path="output")
    except ValidationError as error:
        raise ExecutionError(f"the {error.message}", code="output_too_deep", retry=False, hint=error.hint) from error


def _check_finite(output: Any) -> None:
    """JSON has no NaN and no infinities; msgspec writes null for them, which would be another value."""
    path = _not_finite(msgspec.to_builtins(output, enc_hook=enc_hook), "output")
    if path is not None:
        raise ExecutionError(
            f"the output cannot be stored as JSON: {path} is no finite number",
            code="output_not_serializable",
            retry=False,
            hint="return None or a string in its place",
        )


def _not_finite(value: Any, path: str) -> str | None:
    """Where the first number is that is not finite, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if isinstance(value, dict):
        parts = [(f"{path}.{key}", part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{path}[{index}]", part) for index, part in enumerate(value)]
    else:
        return None
    for name, part in parts:
        if (found := _not_finite(part, name)) is not None:
            return found
    return None
