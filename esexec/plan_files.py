"""Plan files: YAML 1.2 and JSON → plain values, and the line of a file where something is wrong."""

import json
import re
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from esexec.domain import aliases, limits
from esexec.domain.errors import PlanInvalid, ValidationError
from esexec.domain.explain import shown

_MERGE = "tag:yaml.org,2002:merge"
_PART = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")


def load(path: str | PathLike[str]) -> tuple[str, Any]:
    """The text of the file and what it holds. Raises PlanInvalid: `file_unreadable`, `too_large`, `bad_json`, `bad_yaml`."""
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise _wrong(path, error.strerror or str(error), "file_unreadable") from None
    if len(data) > limits.large_plan_bytes:
        raise _wrong(path, f"at most {limits.large_plan_bytes} bytes (limits.large_plan_bytes)", "too_large")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong(path, "not UTF-8", "not_utf8", data.count(b"\n", 0, error.start) + 1) from None
    return text, _from_json(path, text) if file.suffix.lower() == ".json" else _from_yaml(path, text)


def in_file(error: ValidationError, path: str | PathLike[str]) -> PlanInvalid:
    """`located`, of a refusal of somebody else who has not seen the file."""
    told = PlanInvalid(error.message, code=error.code, hint=error.hint, **error.context)
    return located(told, path, load(path)[0])


def located(error: PlanInvalid, path: str | PathLike[str], text: str) -> PlanInvalid:
    """The same refusal, with the file and the line that it is about."""
    line = _line_of(text, str(error.context.get("path", "")))
    located = _wrong(path, error.message, error.code, line, error.hint)
    located.context = {**error.context, **located.context}
    return located


def _from_json(path: str | PathLike[str], text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _wrong(path, error.msg, "bad_json", error.lineno, column=error.colno) from None
    except (ValueError, RecursionError) as error:
        raise _wrong(path, shown(str(error)), "bad_json") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key `{shown(next(name for name in names if names.count(name) > 1))}` stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _from_yaml(path: str | PathLike[str], text: str) -> Any:
    from ruamel.yaml import YAML  # slow to import, and few programs read plans from files
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        if "<<" in text and _merged(YAML(typ="safe", pure=True).compose(text)) > limits.message_bytes:
            raise ValueError("what its merges (`<<`) bring in is too large")
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise _wrong(path, error.problem or "not YAML", "bad_yaml", line, column=column) from None
    except (YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise _wrong(path, shown(str(error).partition("\n")[0]), "bad_yaml") from None


def _merged(document: Any) -> int:
    """How many pairs all mappings have with what they merge: nine lines that each merge the one before nine times have 9^9."""
    from ruamel.yaml.nodes import CollectionNode, MappingNode, SequenceNode

    counts: dict[int, int] = {}

    def pairs(node: Any) -> int:
        if id(node) in counts:
            return counts[id(node)]
        counts[id(node)] = 0  # one that merges itself
        count = 0
        for key, value in node.value:
            if key.tag != _MERGE:
                count += 1
            else:
                merged = value.value if isinstance(value, SequenceNode) else [value]
                count += sum(pairs(one) for one in merged if isinstance(one, MappingNode))
        counts[id(node)] = count
        return count

    total, seen, waiting = 0, {id(document)}, [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, MappingNode):
            total += pairs(node)
        inner = [part for pair in node.value for part in pair] if isinstance(node, MappingNode) else node.value
        for part in inner if isinstance(node, CollectionNode) else ():
            if id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)
    return total


class Place:
    """Something in a document: the value, what holds it under which key, and the nodes of the file. `is_exact`: else what was
    looked for is not there, and this is what should hold it."""

    __slots__ = ("container", "is_exact", "key", "key_node", "node", "nodes", "value")

    def __init__(self, container: Any, key: Any, value: Any, nodes: Any, key_node: Any, node: Any, is_exact: bool) -> None:
        self.container, self.key, self.value, self.is_exact = container, key, value, is_exact
        self.nodes, self.key_node, self.node = nodes, key_node, node

    def remove(self) -> None:
        """Take it out of the document, and out of the nodes, so that numbers lead to the same in both."""
        del self.container[self.key]
        if self.nodes is not None:
            self.nodes.value = [one for one in self.nodes.value if one is not self.node and one != (self.key_node, self.node)]

    def leaves(self) -> "Iterator[Place]":
        """Every text in it, in no particular order; itself, if it is one."""
        open_ = [self]
        while open_:
            one = open_.pop()
            if isinstance(one.value, str):
                yield one
            elif isinstance(one.value, dict):
                open_ += [place for key in one.value if (place := _within(one, key, {})) is not None]
            elif isinstance(one.value, list):
                open_ += [place for number in range(len(one.value)) if (place := _within(one, number, {})) is not None]


class Source:
    """A file, what it holds, and where in it each part stands."""

    def __init__(self, text: str, document: Any) -> None:
        self.document = document
        self._lines = text.splitlines()
        self._root = Place(None, None, document, None, None, _composed(text), True)

    def line(self, number: int) -> str:
        """A line's text, from 1."""
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""

    def place(self, path: str) -> Place | None:
        """What `path` (`steps[2].timeout`) leads to, or the nearest thing above it; None: nothing is known of any."""
        parts = _parts(path)
        place = self._root
        for depth, part in enumerate(parts):
            known = aliases.PLAN if depth == 0 else aliases.CONFIG if parts[0] == "config" else aliases.STEP
            below = _within(place, part, known)
            if below is None:
                place = Place(place.container, place.key, place.value, place.nodes, place.key_node, place.node, False)
                break
            place = below
        return None if place.container is None and place.is_exact else place

    def mark(self, place: Place, *, of_key: bool = False) -> tuple[int, int, int] | None:
        """Line and column from 1 of the value, or of its key, and how many characters of that line it has."""
        node = place.key_node if of_key and place.key_node is not None else place.node
        if node is None:
            return None
        begin, end = node.start_mark, node.end_mark
        line = self.line(begin.line + 1)
        until = end.column if end.line == begin.line else len(line.rstrip())
        return begin.line + 1, begin.column + 1, max(1, until - begin.column)


def open_source(path: str | PathLike[str]) -> Source:
    """A plan file with its places. Raises as `load`."""
    return Source(*load(path))


def _within(place: Place, part: Any, known: Mapping[str, str]) -> Place | None:
    """What stands under a key or at a number of a place; None: nothing does."""
    value, node = place.value, place.node
    if isinstance(part, int):
        if not isinstance(value, list) or part >= len(value):
            return None
        below = node.value[part] if _is_list(node) and part < len(node.value) else None
        return Place(value, part, value[part], node if below is not None else None, None, below, True)
    if not isinstance(value, dict) or (key := next((key for key in value if _means(key, part, known)), None)) is None:
        return None
    pairs = node.value if _is_object(node) else []
    key_node, below = next((pair for pair in pairs if pair[0].value == str(key)), (None, None))
    return Place(value, key, value[key], node if below is not None else None, key_node, below, True)


def _is_list(node: Any) -> bool:
    return node is not None and node.id == "sequence"


def _is_object(node: Any) -> bool:
    return node is not None and node.id == "mapping"


def _parts(path: str) -> list[Any]:
    return [int(index) if index else name for index, name in _PART.findall(path)]


def _composed(text: str) -> Any:
    """The nodes of a text. JSON is YAML enough for this."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).compose(text)
    except (YAMLError, ValueError, RecursionError):
        return None


def _line_of(text: str, path: str) -> int | None:
    """The line of what `path` leads to (of its key, if it has one), or of the nearest thing above it."""
    parts = _parts(path)
    if not parts:
        return None
    node, line = _composed(text), None
    for depth, part in enumerate(parts):
        if isinstance(part, int):
            if not _is_list(node) or part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
            continue
        known = aliases.PLAN if depth == 0 else aliases.CONFIG if parts[0] == "config" else aliases.STEP
        pairs = node.value if _is_object(node) else []
        pair = next(((key, value) for key, value in pairs if _means(key.value, part, known)), None)
        if pair is None:
            break
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line


def _means(key: object, wanted: str, known: Mapping[str, str]) -> bool:
    return key == wanted or aliases.field_of(key, known) == known.get(wanted, wanted)


def _wrong(
    path: str | PathLike[str], what: str, code: str, line: int | None = None, hint: str | None = None, column: int | None = None
) -> PlanInvalid:
    file = fspath(path)
    context: dict[str, Any] = {"file": file} if line is None else {"file": file, "line": line}
    if column is not None:
        context["column"] = column
    place = file if line is None else f"{file}:{line}"
    return PlanInvalid(f"{place}: {what}", code=code, hint=hint, **context)
