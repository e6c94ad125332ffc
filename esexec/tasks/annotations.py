"""What a parameter's annotation means, also where it is a string or the name is only there for the type checker."""

import sys
import types
import typing
from collections.abc import Mapping
from inspect import Parameter
from typing import Annotated, Any, Union, get_args, get_origin

from esexec.tasks.context import Context


def resolve(parameter: Parameter, names: Mapping[str, Any]) -> Any:
    """The type that a parameter is annotated with; Any without an annotation. Raises NameError for unknown names.

    `Context` and `esexec.Context` are known even where they were imported under `TYPE_CHECKING` only.
    """
    if parameter.annotation is Parameter.empty:
        return Any
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    known = {"Context": Context, "esexec": sys.modules.get("esexec"), **names}
    return typing.get_type_hints(holder, globalns=known, include_extras=True)["it"]


def is_context(annotation: Any) -> bool:
    """Whether a parameter so annotated is to get the context: `Context`, also optional or with metadata."""
    if annotation is Context:
        return True
    origin = get_origin(annotation)
    if origin is Annotated:
        return is_context(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return any(is_context(part) for part in get_args(annotation))
    return False
