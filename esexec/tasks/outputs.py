"""From what a handler gives to bytes: its output, once, as part of the report that carries it; its before-image; its variables.

What cannot be kept fails the attempt for good, since every further try would compute it in vain: code
`output_not_serializable`, `output_too_large` or `output_too_deep` (`image_…`, `vars_…` likewise), `retry=False`.
"""

from typing import Any, NamedTuple

import msgspec

from esexec.domain import limits
from esexec.domain.errors import EsexecError, ExecutionError, ValidationError
from esexec.domain.outcome import Err
from esexec.domain.shape import check_shape, not_finite
from esexec.tasks.foreign import enc_hook


def _known(value: Any) -> Any:
    """msgspec's hook; an error in an output (`Halt(Err(…))`) is what the attempt fails with, for good."""
    if isinstance(value, EsexecError):
        error = ExecutionError(value.message, code=value.code, retry=False, hint=value.hint)
        error.context = value.context
        raise error
    return enc_hook(value)


_encoder = msgspec.json.Encoder(enc_hook=_known)
_HINT = "None, bool, int, float, str, list, dict, datetime, enum, Struct, dataclass and pydantic models have a JSON form"


class Kept(NamedTuple):
    """What is kept: how it is called, in words and in codes, and its limit."""

    name: str
    code: str
    limit: int
    limit_name: str


OUTPUT = Kept("output", "output", limits.object_bytes, "object_bytes")
IMAGE = Kept("before-image", "image", limits.image_bytes, "image_bytes")
DIRECTIVE = Kept("directive", "directive", limits.directive_bytes, "directive_bytes")
VARIABLE = Kept("variable", "vars", limits.vars_bytes, "vars_bytes")


def encode_with_output(report: Any, output: Any) -> bytes:
    """The JSON of `report`, a Struct that holds `output`. Raises ExecutionError if the output cannot be kept.

    Plain outputs cost one encoding and a few looks at the bytes; only suspicious ones are examined further.
    """
    return _encode(report, output, OUTPUT)


def encode_value(value: Any, kept: Kept) -> bytes:
    """The JSON of one value. Raises ExecutionError if it cannot be kept."""
    return _encode(value, value, kept)


def encoded_directive(directive: Any) -> Any:
    """A directive as it stands in a report; None for none. Raises ExecutionError (`directive_too_large`, …)."""
    return None if directive is None else msgspec.Raw(encode_value(directive, DIRECTIVE))


def as_failure(said: Err) -> BaseException:
    """The error of an `Err` that a handler returned, with its directive."""
    error = said.error
    if not isinstance(error, BaseException):
        message = error if isinstance(error, str) else repr(error)
        return ExecutionError(message[:200], code="error", directive=said.directive)
    if said.directive is None:
        return error
    if not isinstance(error, ExecutionError):
        wrapped = ExecutionError(str(error) or type(error).__name__, code=_code_of(error), directive=said.directive)
        wrapped.__cause__ = error
        return wrapped
    error.directive = said.directive
    return error


def _code_of(error: BaseException) -> str | None:
    code = getattr(error, "code", None)
    return code if isinstance(code, str) else None


def too_large(kept: Kept, size: int, what: str | None = None) -> ExecutionError:
    """The error for what outgrows its limit."""
    return ExecutionError(
        f"the {what or kept.name} has {size} bytes as JSON, more than {kept.limit_name} = {kept.limit}",
        code=f"{kept.code}_too_large",
        retry=False,
        hint="store it elsewhere and keep where it is",
    )


def _encode(whole: Any, value: Any, kept: Kept) -> bytes:
    try:
        encoded = _encoder.encode(whole)
        if len(encoded) > kept.limit:
            _check_size(value, kept)
        if encoded.count(b"{") + encoded.count(b"[") > limits.nesting_depth:
            _check_depth(value, kept)
        if b"null" in encoded:
            _check_finite(value, kept)
    except ExecutionError:
        raise
    except Exception as error:  # TypeError, RecursionError, UnicodeEncodeError, or what a model's own serializer raises.
        raise not_serializable(kept, str(error), _HINT) from error
    return encoded


def not_serializable(kept: Kept, why: str, hint: str) -> ExecutionError:
    """The error for what JSON cannot hold."""
    return ExecutionError(
        f"the {kept.name} cannot be stored as JSON: {why}", code=f"{kept.code}_not_serializable", retry=False, hint=hint
    )


def _check_size(value: Any, kept: Kept) -> None:
    size = len(_encoder.encode(value))
    if size > kept.limit:
        raise too_large(kept, size)


def _check_depth(value: Any, kept: Kept) -> None:
    try:
        check_shape(msgspec.to_builtins(value, enc_hook=enc_hook), path=kept.name, size_max=limits.object_bytes)
    except ValidationError as error:
        raise ExecutionError(f"the {error.message}", code=f"{kept.code}_too_deep", retry=False, hint=error.hint) from error


def _check_finite(value: Any, kept: Kept) -> None:
    """JSON has no NaN and no infinities; msgspec writes null for them, which would be another value."""
    path = not_finite(msgspec.to_builtins(value, enc_hook=enc_hook), kept.name)
    if path is not None:
        raise not_serializable(kept, f"{path} is no finite number", "give None or a string in its place")
