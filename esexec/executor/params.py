"""Whether what a start gives to tasks is what they take, as far as their workers have announced that.

Params are fine that any version of a task takes that some worker still has. What a reference will give is not known here, and
left to the worker. Nothing is loaded, and nothing done, for tasks of which no schema was announced.

The executor's loop stands still meanwhile, so that what is judged of one start is bounded, whatever was announced and whatever
is given; beyond that the worker judges.
"""

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from esexec.domain import limits
from esexec.domain.commands import StartExecution
from esexec.domain.errors import ErrorInfo
from esexec.domain.explain import unexpected_parameter
from esexec.domain.graph import Graph
from esexec.domain.namespace import TaskVersion
from esexec.domain.references import SPREAD
from esexec.executor.schemas import work_of

logger = logging.getLogger("esexec.executor")

Versions = Mapping[str, tuple[TaskVersion, ...]]

_WHOLE_INPUT = "${input}"
_NO_PARAMS: dict[str, Any] = {}
_NOT_TAKEN = (msgspec.ValidationError, RecursionError, OverflowError)
_TEXT_CHARS = 300
_NAMES = 20
"""So many names that are none are told."""
_PLAIN: dict[Any, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": None, None: Any}
_OF_PARAMS = frozenset({"type", "properties", "required", "additionalProperties"})
_SAYS_LITTLE = frozenset({"title", "description", "default"})
_EFFORT = 40_000_000
"""What one start may cost, in places of schemas times bytes that they look at: well below a second."""
_ALL_PROBLEMS = 50_000
"""So much may be looked at for all that is wrong to be told; beyond it is the first."""
_PATTERN_BYTES = 64 * 1024
"""Largest pattern, compiled."""


class _Effort:
    """What judging one start may still cost."""

    def __init__(self) -> None:
        self.left = _EFFORT

    def spend(self, work: int) -> bool:
        """Whether that much is left."""
        self.left -= work
        return self.left >= 0


class Checks:
    """See the module. Made anew whenever something else is announced."""

    def __init__(self, versions: Versions) -> None:
        self._accepts = {
            task: [_Accepts(one.schema) for one in reversed(known) if one.schema is not None]
            for task, known in versions.items()
            if known and all(one.schema is not None for one in known)
        }
        self._known: dict[str, _Known] = {}

    def __bool__(self) -> bool:
        return bool(self._accepts)

    def problem(self, graph: Graph, start: StartExecution) -> ErrorInfo | None:
        """Why some task would refuse its params; None if none is known to. What cannot be judged is left to the worker: it is no
        fault of whoever starts it."""
        if start.forked_from is not None:  # what was accepted once goes on
            return None
        try:
            known = self._known.get(graph.plan_id) or self._look_at(graph)
            if known.problem is not None:
                return known.problem
            params = _NO_PARAMS if start.input is None else start.input
            if start.input_object is not None or known.is_plainly_taken(params):  # no object is looked into
                return None
            effort = _Effort()
            for index in known.given_the_input:
                if (refusal := self._refusal(graph, index, params, "input", effort, given=True)) is not None:
                    return refusal
        except Exception:
            logger.exception("the params of a start could not be judged")
        return None

    def refusals(self, graph: Graph) -> Iterator[ErrorInfo]:
        """Of each step of a plan, whatever its input is, why its task would refuse its params."""
        effort = _Effort()
        for index, step in enumerate(graph.steps):
            if step.task not in self._accepts or step.params == _WHOLE_INPUT:
                continue
            if (refusal := self._refusal(graph, index, step.params, f"steps[{index}].params", effort)) is not None:
                yield refusal

    def _look_at(self, graph: Graph) -> "_Known":
        """At a plan that comes for the first time."""
        if len(self._known) >= limits.cached_plans:
            self._known.clear()
        known = self._known[graph.plan_id] = self._of_plan(graph)
        return known

    def _of_plan(self, graph: Graph) -> "_Known":
        if (refusal := next(self.refusals(graph), None)) is not None:
            return _Known(refusal)
        given_the_input: dict[str, int] = {}
        for index, step in enumerate(graph.steps):
            if step.task in self._accepts and step.params == _WHOLE_INPUT:
                given_the_input.setdefault(step.task, index)
        plain = [self._accepts[task][0].plain for task in given_the_input]
        return _Known(None, tuple(given_the_input.values()), tuple(plain))

    def _refusal(
        self, graph: Graph, index: int, params: Any, where: str, effort: _Effort, *, given: bool = False
    ) -> ErrorInfo | None:
        """Why no version takes these params; `given`: they are what is given, so that nothing in them is a reference."""
        step = graph.steps[index]
        newest, *others = self._accepts[step.task]
        if any(one.takes(params, effort) for one in (newest, *others)):
            return None
        problems = newest.problems(params, effort, given=given)
        if not problems or not all(one.problems(params, effort, given=given) for one in others):
            return None
        path = problems[0][0]
        reason = "; ".join([why for at, why in problems if at == path])
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        also = f" (nor do {len(others)} other versions of it take that)" if others else ""
        if len(others) == 1:
            also = " (nor does 1 other version of it take that)"
        return ErrorInfo(
            type="validation_error",
            code="invalid_params",
            message=f"{where}{place}: task `{step.task}`: {reason}{also}"[: 2 * _TEXT_CHARS],
            hint=newest.expected,
            context={"path": where + place, "task": step.task, "step": step.id},
        )


class _Known(NamedTuple):
    """What is wrong with a plan whatever its input is. Of each task whose params are the input: a step; and a type that takes
    nothing but what the task's newest version does, if there is one."""

    problem: ErrorInfo | None
    given_the_input: tuple[int, ...] = ()
    plain: tuple[type[msgspec.Struct] | None, ...] = ()

    def is_plainly_taken(self, params: Any) -> bool:
        """Whether it takes no more than this to see that all these tasks take them. Most do."""
        try:
            for kind in self.plain:
                if kind is None:
                    return False
                msgspec.convert(params, kind)
        except _NOT_TAKEN:
            return False
        return True


class _Accepts:
    """What one version of a task takes. What it means is found out when it is needed first."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema

    def takes(self, params: Any, effort: _Effort) -> bool:
        """Most params are taken, and most schemas plain: then nothing has to be loaded to see it. What is too much to be judged
        is taken."""
        if self.plain is not None:
            try:
                msgspec.convert(params, self.plain)
            except _NOT_TAKEN:
                pass
            else:
                return True
        if self._validator is None or not effort.spend(self._work_on(params)):
            return True
        return bool(self._validator.is_valid(params))

    @cached_property
    def plain(self) -> type[msgspec.Struct] | None:
        """`_as_struct` of the schema."""
        try:
            return _as_struct(self._schema)
        except (TypeError, ValueError, NameError):  # names, or lists of them, that are none
            return None

    @cached_property
    def _work(self) -> int | None:
        return work_of(self._schema)

    def _work_on(self, params: Any) -> int:
        return (self._work or 0) * len(msgspec.json.encode(params))

    @cached_property
    def _validator(self) -> Any:
        if self._work is None:
            return None
        import jsonschema_rs  # only where it is needed: it has some megabytes

        try:
            patterns = jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES)  # in linear time, without looking around
            return jsonschema_rs.Draft202012Validator(self._schema, validate_formats=False, pattern_options=patterns)
        except Exception as error:  # of a worker in whatever language; then the worker alone judges
            logger.warning("a schema that cannot be used: %s", str(error)[:_TEXT_CHARS])
            return None

    def problems(self, params: Any, effort: _Effort, *, given: bool) -> list[tuple[list[str | int], str]]:
        """Where it does not fit, and why; not where a reference stands, of which nobody knows what it will give."""
        if self._validator is None or not effort.spend(work := self._work_on(params)):
            return []
        found = []
        for error in self._errors(params, work):
            path, kind = list(error.instance_path), error.kind.name
            if not given and _is_taken_over(error, kind, _at(params, path)):
                continue
            if given or kind in ("additionalProperties", "required") or not _refers(_at(params, path)):
                found.append((path, self._reason(error, kind, params, given)))
        return found

    def _errors(self, params: Any, work: int) -> list[Any]:
        """All that is wrong, parameters that are none first; of what is large only one."""
        import jsonschema_rs

        if work <= _ALL_PROBLEMS:
            return sorted(self._validator.iter_errors(params), key=lambda error: error.kind.name != "additionalProperties")
        try:
            self._validator.validate(params)
        except jsonschema_rs.ValidationError as error:
            return [error]
        return []

    def _reason(self, error: Any, kind: str, params: Any, given: bool) -> str:
        if kind == "additionalProperties":
            names = [name for name in self._properties if name not in params] if not error.instance_path else []
            parts = []
            for name in error.kind.unexpected[:_NAMES]:
                if not given and name == SPREAD and _takes_over(_at(params, list(error.instance_path))):
                    continue
                parts.append(unexpected_parameter(name, names))
            return "; ".join(parts)
        if kind == "required":
            return f"missing parameter `{error.kind.property}`"
        text = str(error.message)  # the value, and behind it what is wrong with it
        return text if len(text) <= _TEXT_CHARS else f"{text[: _TEXT_CHARS // 3]} … {text[-_TEXT_CHARS // 2 :]}"

    @property
    def expected(self) -> str:
        """The parameters in a line."""
        needed = self._schema.get("required", ())
        parts = [f"{name}: {_kind(one)}{'' if name in needed else ' (optional)'}" for name, one in self._properties.items()]
        return (f"expected {', '.join(parts)}" if parts else "expected no parameters")[: 2 * _TEXT_CHARS]

    @property
    def _properties(self) -> dict[str, Any]:
        found = self._schema.get("properties", {})
        return found if isinstance(found, dict) else {}


def _kind(schema: Any) -> str:
    kind = schema.get("title") or schema.get("type") if isinstance(schema, dict) else None
    if isinstance(kind, str):
        return kind
    return " or ".join(map(str, kind)) if isinstance(kind, list) else "any"


def _as_struct(schema: dict[str, Any]) -> type[msgspec.Struct] | None:
    """A type that takes nothing but what the schema does, for one that is a flat list of plain parameters; else None."""
    properties, needed = schema.get("properties"), schema.get("required", [])
    if (
        schema.keys() - {"type", "properties", "required", "additionalProperties", *_SAYS_LITTLE}
        or schema.get("type") != "object"
    ):
        return None
    if not isinstance(properties, dict) or schema.get("additionalProperties") is not False:
        return None
    fields: list[tuple[str, Any, Any]] = []
    for number, (name, one) in enumerate(properties.items()):
        kind = one.get("type") if isinstance(one, dict) else 0
        if not isinstance(one, dict) or one.keys() - {"type", *_SAYS_LITTLE} or not isinstance(kind, str | None):
            return None
        if kind not in _PLAIN:
            return None
        default = msgspec.field(name=name) if name in needed else msgspec.field(default=None, name=name)
        fields.append((f"p{number}", _PLAIN[kind], default))
    if not isinstance(needed, list) or not set(needed) <= properties.keys():
        return None
    return msgspec.defstruct("Params", fields, kw_only=True, forbid_unknown_fields=True)


def _at(params: Any, path: list[str | int]) -> Any:
    for part in path:
        params = params[part]
    return params


def _is_taken_over(error: Any, kind: str, value: Any) -> bool:
    """Whether it is wrong only because nobody knows what is taken over from elsewhere."""
    if not _takes_over(value):
        return False
    return kind == "required" or (kind == "additionalProperties" and not set(error.kind.unexpected) - {SPREAD})


def _takes_over(value: Any) -> bool:
    """Whether it is an object that takes over all that another has."""
    return isinstance(value, dict) and SPREAD in value and _refers(value[SPREAD])


def _refers(value: Any) -> bool:
    """Whether there is a reference in it."""
    if isinstance(value, str):
        return "${" in value
    if isinstance(value, dict):
        return any(map(_refers, value.values()))
    return isinstance(value, list) and any(map(_refers, value))
