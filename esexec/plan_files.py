"""Plan files: YAML 1.2 and JSON → plain values, and the line of a file where something is wrong."""

import json
import re
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from esexec.domain import aliases, limits
from esexec.domain.errors import PlanInvalid, ValidationError
from esexec.domain.explain import shown

_PART = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")


def load(path: str | PathLike[str]) -> tuple[str, Any]:
    """The text of the file and what it holds. Raises PlanInvalid: `file_unreadable`, `too_large`, `bad_json`, `bad_yaml`."""
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise _wrong(path, error.strerror or str(error), "file_unreadable") from None
    if len(data) > limits.message_bytes:
        raise _wrong(path, f"at most {limits.message_bytes} bytes (limits.message_bytes)", "too_large")
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
        raise _wrong(path, error.msg, "bad_json", error.lineno) from None
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
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _wrong(path, error.problem or "not YAML", "bad_yaml", mark.line + 1 if mark else None) from None
    except (YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise _wrong(path, shown(str(error).partition("\n")[0]), "bad_yaml") from None


def _line_of(text: str, path: str) -> int | None:
    """The line of what `path` (`steps[2].timeout`) leads to, or of the nearest thing above it. JSON is YAML enough for this."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    parts = [int(index) if index else name for index, name in _PART.findall(path)]
    if not parts:
        return None
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except (YAMLError, ValueError, RecursionError):
        return None
    line = None
    for depth, part in enumerate(parts):
        if isinstance(part, int):
            if not isinstance(node, SequenceNode) or part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
            continue
        known = aliases.PLAN if depth == 0 else aliases.CONFIG if parts[0] == "config" else aliases.STEP
        pairs = node.value if isinstance(node, MappingNode) else []
        pair = next(((key, value) for key, value in pairs if _means(key.value, part, known)), None)
        if pair is None:
            break
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line


def _means(key: object, wanted: str, known: Mapping[str, str]) -> bool:
    return key == wanted or aliases.field_of(key, known) == known.get(wanted, wanted)


def _wrong(path: str | PathLike[str], what: str, code: str, line: int | None = None, hint: str | None = None) -> PlanInvalid:
    file = fspath(path)
    context: dict[str, Any] = {"file": file} if line is None else {"file": file, "line": line}
    place = file if line is None else f"{file}:{line}"
    return PlanInvalid(f"{place}: {what}", code=code, hint=hint, **context)
