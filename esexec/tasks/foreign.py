"""Types that msgspec does not know, on their way in and out: pydantic models and paths.

pydantic is never imported from here. A type of its can only be met where the user's program has already loaded it.
"""

import sys
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, get_args


def dec_hook(kind: Any, value: Any) -> Any:
    """msgspec's hook for a value of JSON that is to become a `kind` that msgspec does not know."""
    if not isinstance(kind, type):
        raise TypeError(f"Values of type `{kind}` cannot be made from JSON")
    if hasattr(kind, "__pydantic_validator__"):
        return _explained(kind.__pydantic_validator__.validate_python, value)
    if isinstance(value, kind):
        return value
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise TypeError(f"Expected `{kind.__qualname__}`, got `{type(value).__name__}`")


def enc_hook(value: Any) -> Any:
    """msgspec's hook for a value that it cannot encode: the same in types that it can, else TypeError."""
    if hasattr(type(value), "__pydantic_serializer__"):
        return value.model_dump(mode="json")
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, tuple | frozenset):  # Known as values; only as keys do they come here.
        raise TypeError(f"values of type `{type(value).__name__}` cannot be keys of an object")
    raise TypeError(f"values of type `{type(value).__module__}.{type(value).__qualname__}` have no JSON form")


def pydantic_converter(annotation: Any) -> Callable[[Any], Any] | None:
    """pydantic's conversion to a type that is of its making, in whole or in part; None if it is none, or too mixed."""
    if not _is_pydantic(annotation):
        return None
    try:
        validate = sys.modules["pydantic"].TypeAdapter(annotation).validate_python
    except Exception:  # It cannot take, say, a Struct beside its model; msgspec may, with the hook above.
        return None
    return lambda value: _explained(validate, value)


def _is_pydantic(annotation: Any) -> bool:
    if isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__"):
        return True
    if type(annotation).__module__.partition(".")[0] in ("pydantic", "annotated_types"):
        return True
    return any(_is_pydantic(part) for part in get_args(annotation))


def _explained(validate: Callable[[Any], Any], value: Any) -> Any:
    """The validated value, or a ValueError of one line in place of pydantic's many."""
    try:
        return validate(value)
    except sys.modules["pydantic"].ValidationError as error:
        reasons = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)]
        raise ValueError("; ".join(f"{where}: {what}" if where else what for where, what in reasons)) from error
