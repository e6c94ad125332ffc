"""From an output, as JSON gave it, to what its task is annotated to return: a dataclass, a Struct, a model, a time, …

Only for who has the task itself, and only where JSON does not have the type anyway.
"""

import inspect
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from esexec.domain.errors import ValidationError
from esexec.results import Err, Ok
from esexec.tasks.foreign import dec_hook, pydantic_converter
from esexec.tasks.halting import Continue, Halt
from esexec.tasks.task import Task

_OF_JSON = (None, type(None), Any, object, bool, int, float, str, list, dict, typing.Union, types.UnionType)


@lru_cache(maxsize=1_000)
def reader_of(task: Task[..., Any]) -> Callable[[Any], Any] | None:
    """What reads its outputs; None: they are what they are to be, or nothing is known of that."""
    try:
        kind = typing.get_type_hints(inspect.unwrap(task.fn), include_extras=True).get("return", Any)
    except Exception:  # an annotation that means nothing here
        return None
    kind = _value_of(kind)
    if kind is Any or _is_of_json(kind):
        return None
    convert = pydantic_converter(kind) or (lambda output: msgspec.convert(output, kind, dec_hook=dec_hook))

    def read(output: Any) -> Any:
        try:
            return convert(output)
        except Exception as error:
            hint = "did another version of the task run? client.get(id) has the output as it is"
            message = f"the output of {task.name} is not what the task returns: {error}"
            raise ValidationError(message, code="unexpected_output", hint=hint) from error

    return read


def _value_of(kind: Any) -> Any:
    """What is kept of an output that is so annotated: of `Ok[Place] | Err` a Place. Any, where it may be several things that only
    their handler can tell apart."""
    whole, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if whole is typing.Union or whole is types.UnionType:
        left = [part for part in parts if part is not Err]
        return _value_of(left[0]) if len(left) == 1 else (Any if any(map(_says_more, left)) else kind)
    if whole is Ok:
        return parts[0] if parts and not isinstance(parts[0], TypeVar) else Any
    return Any if _says_more(kind) else kind


def _says_more(kind: Any) -> bool:
    return (typing.get_origin(kind) or kind) in (Ok, Err, Halt, Continue)


def _is_of_json(kind: Any) -> bool:
    """Whether JSON has this type, so that nothing is to be done."""
    whole, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if whole is typing.Literal:
        return True
    return any(whole is one for one in _OF_JSON) and all(map(_is_of_json, parts))
