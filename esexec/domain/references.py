"""References in params: `${input.a}`, `${context.user}`, `${steps.NAME.output.path[0].x}`.

A string that is one reference takes the value it points to, with its type. Inside a longer string a reference is rendered:
strings as they are, everything else as compact JSON. `$${` stands for a literal `${`. Names are what ids may be made of;
any other key is written `["any key"]` (JSON's escapes) or `['any key']` (no escapes). Keys of objects are never references.

Compiled once per plan, resolved once per dispatch. Params without a reference or an escape compile to None: they are
constant. Resolving shares the constant parts of the params and the values pointed to: treat the outcome as read-only.
Keys of flow control (`flow_keys`) are texts of the same syntax, with roots of their own.

The key `"..."` of an object, where its value is one reference, stands for all that the object there has: `{"...": "${input}",
"format": "json"}`; what is written beside it wins.
"""

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.explain import did_you_mean, shown
from esexec.domain.objects import UNOPENED, ObjectNeeded, ObjectRef, Opened, Pointer

Root = Literal["input", "context", "steps", "params"]


class Grammar(NamedTuple):
    """Which roots a text can refer to, and how that is put to who got it wrong."""

    roots: tuple[Root, ...]
    hint: str


PARAMS = Grammar(
    ("input", "context", "steps"), "write ${input.a}, ${context.a} or ${steps.NAME.output.a[0]}; $${ for a literal ${"
)

_OPEN = re.compile(r"\$\$\{|\$\{")
_ROOT = re.compile(r"\s*([A-Za-z0-9_-]+)", re.ASCII)
_SEGMENT = re.compile(
    r"""\.(?P<name>[A-Za-z0-9_-]+)|\[(?P<index>[0-9]{1,9})\]|\[(?P<json>"(?:[^"\\]|\\.)*")\]|\['(?P<plain>[^']*)'\]"""
)
_CLOSE = re.compile(r"\s*\}")
SPREAD = "..."
_UNMEASURED = 8
"""So many values are taken over as they are; each further one is measured, for each may have `limits.output_bytes`."""


class Reference(msgspec.Struct, frozen=True):
    """Where a value comes from. `step` is set for the root `steps`; `path` leads on from there, or from what the root names."""

    text: str
    root: Root
    step: str | None
    path: tuple[str | int, ...]

    def __str__(self) -> str:
        return f"${{{self.text}}}"


class Template:
    """Params with references, compiled. `references` are distinct, in order of appearance."""

    __slots__ = ("_node", "references")

    def __init__(self, node: "_Node", references: tuple[Reference, ...]) -> None:
        self._node = node
        self.references = references

    @property
    def is_reference(self) -> bool:
        """Whether the params as a whole are one reference."""
        return isinstance(self._node, _Whole)


def compile_params(params: object) -> Template | None:
    """The template of `params`, or None if they are constant.

    Raises ValidationError: `bad_reference` for a syntax error, `too_deep` beyond `limits.nesting_depth`.
    """
    found: dict[str, Reference] = {}
    node = _compile(params, found, 0)
    return None if node is None else Template(node, tuple(found.values()))


def resolve(
    template: Template,
    *,
    input: Any,
    context: Any,
    output_of: Callable[[str], Any],
    objects: Opened = UNOPENED,
    size_max: int = limits.object_bytes,
) -> Any:
    """The params with every reference replaced by its value. `output_of(step)` may raise LookupError: it has no output.

    What a reference as a whole finds in an object is a `Pointer` then; what a longer string needs must be among `objects`.

    Raises ValidationError: `reference_unresolved` when a path leads nowhere, `params_too_large` beyond `size_max` bytes
    (found out here where the outcome would be far larger; else it shows when the outcome is encoded); ObjectNeeded.
    """
    return template._node.value(_Scope(input, context, output_of, objects, size_max))


class Condition(NamedTuple):
    """What a step's `when` asks: whether something is there that is neither false nor null; or, negated, is not."""

    reference: Reference
    negated: bool

    def holds(self, *, input: Any, context: Any, output_of: Callable[[str], Any]) -> bool:
        """Whether the step is to be done. What is not there is as good as false; what lies within an object,
        which nobody can tell here, lets it be done: then `check_known` says so where it is handed out."""
        try:
            value = _Scope(input, context, output_of, UNOPENED).lookup(self.reference)
        except ValidationError:
            value = None
        if type(value) is Pointer and value.path:
            return True
        return (value is not None and value is not False) != self.negated

    def check_known(self, *, input: Any, context: Any, output_of: Callable[[str], Any]) -> None:
        """Raises ValidationError (`value_in_object`) where what is asked for lies within a value that is too large to be here."""
        try:
            value = _Scope(input, context, output_of, UNOPENED).lookup(self.reference)
        except ValidationError:
            return
        if type(value) is Pointer and value.path:
            raise _in_object(self.reference)


# Compiling -----------------------------------------------------------------------------------------------------------


def compile_condition(text: str) -> Condition:
    """The condition: `${…}`, or `not ${…}`. Raises ValidationError: `bad_condition`, `bad_reference`."""
    stated = text.strip()
    asked = stated.removeprefix("not ").strip()
    parts = parse_text(asked, PARAMS) if "${" in asked else []
    if len(parts) != 1 or not isinstance(parts[0], Reference):
        hint = "write one reference, ${steps.NAME.output.ok}, or not and one"
        raise ValidationError(f"`{shown(text)}` is no condition", code="bad_condition", hint=hint)
    return Condition(parts[0], asked != stated)


def _compile(value: object, found: dict[str, Reference], depth: int) -> "_Node | None":
    if isinstance(value, str):
        return _compile_text(value, found) if "${" in value else None
    if not isinstance(value, dict | list | tuple):
        return None
    if depth >= limits.nesting_depth:
        hint = f"at most {limits.nesting_depth} levels (limits.nesting_depth)"
        raise ValidationError("params are nested too deeply", code="too_deep", hint=hint)
    items = value.items() if isinstance(value, dict) else enumerate(value)
    nodes = [(key, node) for key, item in items if (node := _compile(item, found, depth + 1)) is not None]
    if not nodes:
        return None
    if not isinstance(value, dict):
        return _Array(list(value), tuple(nodes))
    spread = next((node for key, node in nodes if key == SPREAD and isinstance(node, _Whole)), None)
    if spread is None:
        return _Object(value, tuple(nodes))
    beside = {key: item for key, item in value.items() if key != SPREAD}
    return _Spread(spread, _Object(beside, tuple((key, node) for key, node in nodes if node is not spread)))


def _compile_text(text: str, found: dict[str, Reference]) -> "_Node":
    parts = tuple(found.setdefault(part.text, part) if isinstance(part, Reference) else part for part in parse_text(text, PARAMS))
    if len(parts) == 1 and isinstance(parts[0], Reference):
        return _Whole(parts[0])
    return _Text(parts)


def parse_text(text: str, grammar: Grammar) -> list[str | Reference]:
    """The text's parts: what stands for itself, and its references. Raises ValidationError (`bad_reference`)."""
    parts: list[str | Reference] = []
    literal, position = "", 0
    while (opening := _OPEN.search(text, position)) is not None:
        literal += text[position : opening.start()]
        position = opening.end()
        if opening[0] == "$${":
            literal += "${"
            continue
        reference, position = _parse(text, opening.start(), position, grammar)
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(reference)
    literal += text[position:]
    if literal:
        parts.append(literal)
    return parts


def _parse(text: str, opening: int, position: int, grammar: Grammar) -> tuple[Reference, int]:
    """The reference that begins at `opening` with `${`, and where the text goes on. `position` is behind the `${`."""
    head = _ROOT.match(text, position)
    if head is None:
        raise _bad(text, opening, "it names nothing", grammar)
    root, position = head[1], head.end()
    start = head.start(1)
    path: list[str | int] = []
    while (segment := _SEGMENT.match(text, position)) is not None:
        path.append(_key(segment, text, opening, grammar))
        position = segment.end()
    closing = _CLOSE.match(text, position)
    if closing is None:
        if "}" not in text[position:]:
            raise _bad(text, opening, "its `}` is missing", grammar)
        why = f"`{shown(text[position : position + 8])}` cannot follow `{shown(text[start:position])}`"
        raise _bad(text, opening, why, grammar)
    if root not in grammar.roots:
        why = f"`{shown(root)}` is none of {', '.join(grammar.roots)}"
        raise _bad(text, opening, why, grammar, did_you_mean(root, grammar.roots))
    written = text[start:position]
    if root != "steps":
        return Reference(written, root, None, tuple(path)), closing.end()
    if len(path) < 2 or not isinstance(path[0], str) or path[1] != "output":
        raise _bad(text, opening, "a step is referred to as ${steps.NAME.output}", grammar)
    return Reference(written, "steps", path[0], tuple(path[2:])), closing.end()


def _key(segment: re.Match[str], text: str, opening: int, grammar: Grammar) -> str | int:
    if segment["index"] is not None:
        return int(segment["index"])
    if segment["json"] is not None:
        try:
            return msgspec.json.decode(segment["json"].encode(), type=str)
        except (msgspec.DecodeError, UnicodeError):
            raise _bad(text, opening, f"`{shown(segment['json'])}` is not a JSON string", grammar) from None
    return segment["name"] if segment["name"] is not None else segment["plain"]


def _bad(text: str, opening: int, why: str, grammar: Grammar, hint: str | None = None) -> ValidationError:
    end = text.find("}", opening)
    excerpt = shown(text[opening : end + 1] if end >= 0 else text[opening:])
    hint = grammar.hint if hint is None or not hint.startswith("did") else f"{hint} {grammar.hint}"
    return ValidationError(f"`{excerpt}` is no reference: {why}", code="bad_reference", hint=hint, reference=excerpt)


# Resolving -----------------------------------------------------------------------------------------------------------


def follow(reference: Reference, value: Any) -> Any:
    """What the reference's path leads to within `value`. Raises ValidationError (`reference_unresolved`, `value_in_object`)."""
    if isinstance(value, ObjectRef):
        raise _in_object(reference)
    for depth, key in enumerate(reference.path):
        if isinstance(key, str):
            if not isinstance(value, dict) or key not in value:
                raise _nothing_there(reference, depth, value)
        elif not isinstance(value, list | tuple) or key >= len(value):
            raise _nothing_there(reference, depth, value)
        value = value[key]
    return value


class _Scope:
    """What references point into, and how many bytes the outcome may still take."""

    __slots__ = ("context", "input", "left", "objects", "output_of", "unmeasured")

    def __init__(
        self,
        input: Any,
        context: Any,
        output_of: Callable[[str], Any],
        objects: Opened,
        size_max: int = limits.object_bytes,
    ) -> None:
        self.input = input
        self.context = context
        self.output_of = output_of
        self.objects = objects
        self.unmeasured = _UNMEASURED
        self.left = size_max

    def lookup(self, reference: Reference) -> Any:
        """The value, or the `Pointer` to it."""
        step = reference.step
        if step is not None:
            try:
                value = self.output_of(step)
            except LookupError:
                raise _unresolved(reference, f"step `{step}` has no output") from None
        else:
            value = self.input if reference.root == "input" else self.context
        if type(value) is ObjectRef:
            return Pointer(value, reference.path, str(reference))
        return follow(reference, value) if reference.path else value

    def opened(self, reference: Reference) -> Any:
        """The value itself, also where it is in an object. Raises ObjectNeeded."""
        value = self.lookup(reference)
        if type(value) is Pointer:
            if value.ref.sha256 not in self.objects:
                raise ObjectNeeded(value.ref)
            value = follow(reference, self.objects[value.ref.sha256])
        return value

    def rendered(self, reference: Reference) -> str:
        """The value as it stands within a longer string."""
        value = self.opened(reference)
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()

    def measure(self, value: Any) -> None:
        """Count what is taken over: of the first few the size does not matter."""
        if self.unmeasured:
            self.unmeasured -= 1
        else:
            self.spend(len(msgspec.json.encode(value)))

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            hint = f"at most {limits.object_bytes} bytes (limits.object_bytes)"
            raise ValidationError("params are too large once references are resolved", code="params_too_large", hint=hint)


class _Node(Protocol):
    def value(self, scope: _Scope) -> Any: ...


class _Whole:
    __slots__ = ("reference",)

    def __init__(self, reference: Reference) -> None:
        self.reference = reference

    def value(self, scope: _Scope) -> Any:
        value = scope.lookup(self.reference)
        if type(value) is not Pointer:
            scope.measure(value)
        return value


class _Text:
    __slots__ = ("parts",)

    def __init__(self, parts: tuple[str | Reference, ...]) -> None:
        self.parts = parts

    def value(self, scope: _Scope) -> str:
        rendered: list[str] = []
        for part in self.parts:
            text = part if isinstance(part, str) else scope.rendered(part)
            scope.spend(len(text))
            rendered.append(text)
        return "".join(rendered)


class _Object:
    __slots__ = ("constant", "nodes")

    def __init__(self, constant: dict[str, Any], nodes: tuple[tuple[Any, _Node], ...]) -> None:
        self.constant = constant
        self.nodes = nodes

    def value(self, scope: _Scope) -> dict[str, Any]:
        # A copy keeps the order of the keys; each reference then takes the place of its own text.
        resolved = self.constant.copy()
        for key, node in self.nodes:
            resolved[key] = node.value(scope)
        return resolved


class _Spread:
    __slots__ = ("beside", "spread")

    def __init__(self, spread: "_Whole", beside: _Object) -> None:
        self.spread, self.beside = spread, beside

    def value(self, scope: _Scope) -> dict[str, Any]:
        all_of_it = scope.opened(self.spread.reference)
        if not isinstance(all_of_it, dict):
            raise _unresolved(self.spread.reference, "it is no object, whose fields could be taken over")
        scope.measure(all_of_it)
        return all_of_it | self.beside.value(scope)


class _Array:
    __slots__ = ("constant", "nodes")

    def __init__(self, constant: list[Any], nodes: tuple[tuple[Any, _Node], ...]) -> None:
        self.constant = constant
        self.nodes = nodes

    def value(self, scope: _Scope) -> list[Any]:
        resolved = self.constant.copy()
        for index, node in self.nodes:
            resolved[index] = node.value(scope)
        return resolved


def _in_object(reference: Reference) -> ValidationError:
    return ValidationError(
        f"{shown(str(reference))}: that value is too large to be looked into here",
        code="value_in_object",
        hint="hand what is needed here over in the context",
        reference=shown(reference.text),
    )


def _nothing_there(reference: Reference, depth: int, value: Any) -> ValidationError:
    """The error for the path's key number `depth`, which is not in `value`: says what is there instead."""
    key = reference.path[depth]
    base = reference.root if reference.step is None else f"steps.{reference.step}.output"
    there = base + "".join(f"[{part}]" if isinstance(part, int) else f".{shown(part)}" for part in reference.path[:depth])
    what = f"item {key}" if isinstance(key, int) else f"`{shown(key)}`"
    return _unresolved(reference, f"there is no {what} in `{shown(there)}`", _what_exists(there, key, value))


def _what_exists(there: str, key: str | int, value: Any) -> str:
    name = f"`{shown(there)}`"
    if isinstance(value, dict):
        if not value:
            return f"{name} is an empty object"
        names = [str(known) for known in value]
        near = did_you_mean(key, names) if isinstance(key, str) else None
        more = ", …" if len(names) > 10 else ""
        exists = f"{name} has: " + ", ".join(shown(known) for known in names[:10]) + more
        return f"{near} {exists}" if near and near.startswith("did") else exists
    if isinstance(value, list | tuple):
        items = f"{name} is a list of {len(value)} items"
        return f"{items}; write [0] for the first" if isinstance(key, str) else items
    kinds = {str: "a text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
    return f"{name} is {kinds.get(type(value), type(value).__name__)}"


def _unresolved(reference: Reference, why: str, hint: str | None = None) -> ValidationError:
    return ValidationError(
        f"{shown(str(reference))}: {why}", code="reference_unresolved", hint=hint, reference=shown(reference.text)
    )
