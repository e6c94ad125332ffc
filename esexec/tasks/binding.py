"""From a dispatch's params to a function's arguments: by name, and converted to the types that it is annotated with.

Per function one msgspec Struct is built, whose fields are the parameters, so that a call costs one conversion in C.
Everything that is wrong with params is a `ValidationError` with code `invalid_params`; what is wrong with the function
itself is one with code `invalid_task`, raised when it is decorated or, at the latest, collected.
"""

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter
from typing import Any

import msgspec

from esexec.domain.errors import ValidationError
from esexec.domain.explain import unexpected_parameter
from esexec.tasks.annotations import is_context, resolve
from esexec.tasks.context import Context
from esexec.tasks.foreign import dec_hook, pydantic_converter

_REFUSED = {
    Parameter.POSITIONAL_ONLY: "is positional-only; params are bound by name",
    Parameter.VAR_POSITIONAL: "takes further positional arguments; params are bound by name",
}

_QUALIFIERS = re.compile(r"(?:[\w<>]+\.)+")
"""What stands before a type's own name: `datetime.`, `module.Class.<locals>.`."""


class Binding:
    """How the params of one task become the arguments of its function."""

    def __init__(self, task: str, fn: Callable[..., Any], names: Mapping[str, Any]) -> None:
        """Raises NameError while an annotation names something that is not defined yet."""
        self._task = task
        self._context: str | None = None
        self._rest: str | None = None
        self._rest_type: Any = dict[str, Any]
        self._parameters: dict[str, Parameter] = {}
        for parameter in inspect.signature(fn).parameters.values():
            self._take(parameter.replace(annotation=resolve(parameter, names)))
        self._converters = {
            name: converter
            for name, parameter in self._parameters.items()
            if (converter := pydantic_converter(parameter.annotation)) is not None
        }
        self._arguments = msgspec.defstruct(
            "Params", [*self._fields()], kw_only=True, forbid_unknown_fields=True, module=__name__
        )
        self._check()

    @property
    def names(self) -> list[str]:
        """The parameters that params are bound to."""
        return [*self._parameters]

    @property
    def schema(self) -> dict[str, Any] | None:
        """A JSON Schema of params that fit; it may take more than the function does, never less. None: it cannot be told."""
        try:
            found = msgspec.json.schema(self._arguments, schema_hook=_anything)
        except Exception:  # a type that a schema cannot describe
            return None
        schema: dict[str, Any] = found["$defs"].pop(found.pop("$ref").rpartition("/")[2])
        schema.pop("title", None)
        if found["$defs"]:
            schema["$defs"] = found["$defs"]
        if self._rest is not None:
            schema["additionalProperties"] = True
        for name, parameter in self._parameters.items():
            if name in self._converters:
                schema["properties"][name] = _anything(parameter.annotation)
        _widen(schema)
        return schema

    @property
    def takes_any(self) -> bool:
        """Whether further params are taken as well: the function has `**rest`."""
        return self._rest is not None

    def arguments(self, params: Any, context: Context | None, *, loose: bool = False) -> dict[str, Any]:
        """The keyword arguments for one call. Raises ValidationError (`invalid_params`).

        `loose`: what there is no parameter for is left out, instead of refused.
        """
        if params is None:
            params = {}
        if loose and isinstance(params, dict):
            params = {name: value for name, value in params.items() if self._takes(name)}
        rest: dict[str, Any] = {}
        try:
            if self._rest is not None:
                params, rest = self._split(params)
            arguments = msgspec.structs.asdict(msgspec.convert(params, self._arguments, dec_hook=dec_hook))
            for name, convert in self._converters.items():
                if name in params:
                    arguments[name] = self._convert(name, convert, params[name])
        except Exception as error:  # Also what a type's own `__post_init__` raises: the params are what it minds.
            raise self._refusal(params, error) from error
        if self._context is not None:
            arguments[self._context] = context
        if rest:
            arguments.update(rest)
        return arguments

    def _takes(self, name: str) -> bool:
        return name in self._parameters or (self._rest is not None and name != self._context)

    def _take(self, parameter: Parameter) -> None:
        if parameter.kind in _REFUSED:
            raise ValidationError(f"task `{self._task}`: parameter `{parameter}` {_REFUSED[parameter.kind]}", code="invalid_task")
        if parameter.name in ("self", "cls") and not self._parameters and parameter.annotation is Any:
            raise ValidationError(
                f"task `{self._task}` is a method; only functions can be tasks",
                code="invalid_task",
                hint="decorate a function, or make a task of the bound method: task(obj.method)",
            )
        if parameter.kind is Parameter.VAR_KEYWORD:
            # `**rest: int` says that every further argument is an int.
            self._rest, self._rest_type = parameter.name, types.GenericAlias(dict, (str, parameter.annotation))
        elif is_context(parameter.annotation):
            if self._context is not None:
                raise ValidationError(f"task `{self._task}` asks for its context twice", code="invalid_task")
            self._context = parameter.name
        else:
            self._parameters[parameter.name] = parameter

    def _fields(self) -> Iterator[tuple[str, Any] | tuple[str, Any, Any]]:
        for name, parameter in self._parameters.items():
            kind = Any if name in self._converters else parameter.annotation
            if parameter.default is Parameter.empty:
                yield name, kind
            else:
                # A factory, so that the default is the very object that a plain call would get, whatever it is.
                yield name, kind, msgspec.field(default_factory=_constantly(parameter.default))

    def _check(self) -> None:
        """Let msgspec look at every type now; it would otherwise only when the first params come."""
        for name, parameter in self._parameters.items():
            kind = Any if name in self._converters else parameter.annotation
            try:
                msgspec.json.Decoder(kind, dec_hook=dec_hook)
            except TypeError as error:
                raise ValidationError(
                    f"task `{self._task}`: the type of parameter `{name}` cannot be used: {error}", code="invalid_task"
                ) from error

    def _split(self, params: Any) -> tuple[Any, dict[str, Any]]:
        if not isinstance(params, dict) or self._context in params:
            return params, {}
        rest = {name: value for name, value in params.items() if name not in self._parameters}
        if rest:
            rest = msgspec.convert(rest, self._rest_type, dec_hook=dec_hook)
        return {name: value for name, value in params.items() if name in self._parameters}, rest

    def _convert(self, name: str, convert: Callable[[Any], Any], value: Any) -> Any:
        try:
            return convert(value)
        except ValueError as error:
            raise ValueError(f"{error} - at `$.{name}`") from error

    # What to say to whom it did not fit --------------------------------------------------------------------------------

    def _refusal(self, params: Any, error: Exception) -> ValidationError:
        field = None
        if not isinstance(params, dict):
            reason = f"params must be an object, got {_json_type(params)}"
        elif misfits := [*self._unexpected(params), *self._missing(params)]:
            reason = "; ".join(misfits)
        else:
            text, _, path = str(error).rpartition(" - at `")
            field = path.rstrip("`").removeprefix("$.").removeprefix("$") if text else None
            field = "a further parameter" if field == "[...]" else field  # Among `**rest`; msgspec does not say which.
            reason = f"{field}: {text}" if field else (text or str(error) or type(error).__name__)
        where = {"field": field} if field else {}
        return ValidationError(
            f"task `{self._task}`: {reason}", code="invalid_params", hint=self.expected, task=self._task, **where
        )

    def _unexpected(self, params: dict[str, Any]) -> Iterator[str]:
        for name in params:
            if not self._takes(name):
                yield unexpected_parameter(name, (other for other in self._parameters if other not in params))

    def _missing(self, params: dict[str, Any]) -> Iterator[str]:
        for name, parameter in self._parameters.items():
            if name not in params and parameter.default is Parameter.empty:
                yield f"missing parameter `{name}`"

    @property
    def expected(self) -> str:
        """The parameters in a line: `expected name: str, size: int = 3`."""
        parts = [_described(parameter) for parameter in self._parameters.values()]
        if self._rest is not None:
            parts.append("any others")
        return f"expected {', '.join(parts)}" if parts else "expected no parameters"


def _anything(kind: Any) -> dict[str, Any]:
    """Of a type that msgspec leaves to others: its name is all that is known."""
    return {"title": getattr(kind, "__name__", None) or str(kind)}


def _widen(schema: Any) -> None:
    """A Decimal may also come as a number."""
    if isinstance(schema, dict):
        if schema.get("format") == "decimal" and schema.get("type") == "string":
            schema["type"] = ["string", "number"]
        for part in schema.values():
            _widen(part)
    elif isinstance(schema, list):
        for part in schema:
            _widen(part)


def _constantly(value: Any) -> Callable[[], Any]:
    return lambda: value


def _described(parameter: Parameter) -> str:
    kind = parameter.annotation
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    text = parameter.name if kind is Any else f"{parameter.name}: {_QUALIFIERS.sub('', inspect.formatannotation(kind))}"
    if parameter.default is Parameter.empty:
        return text
    default = repr(parameter.default)
    return f"{text} = {default if len(default) <= 40 else '…'}"


def _json_type(value: Any) -> str:
    names: dict[type, str] = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array"}
    return names.get(type(value), f"`{type(value).__name__}`")
