"""Reading names, annotations, values and docstrings off the code."""

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Said(NamedTuple):
    """An assignment or annotated field and the docstring below it."""

    name: str
    kind: str
    value: str | None
    doc: str


def tree_of(thing: Any) -> ast.Module:
    """The syntax tree of the file in which a module, class or function is written."""
    return ast.parse(Path(inspect.getsourcefile(thing) or "").read_text(encoding="utf-8"))


def definition(thing: Any, name: str) -> ast.stmt | None:
    """The last statement of the file that defines `name`: of overloads the one that does the work."""
    found = [node for node in tree_of(thing).body if getattr(node, "name", None) == name]
    return found[-1] if found else None


def said(body: list[ast.stmt]) -> Iterator[Said]:
    """The fields, constants and type aliases of a module or class."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        doc = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            value = None if node.value is None else ast.unparse(node.value)
            yield Said(node.target.id, ast.unparse(node.annotation), value, str(doc))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield Said(node.targets[0].id, "", ast.unparse(node.value), str(doc))


def markdown(doc: str | None) -> str:
    """A docstring as Markdown."""
    return inspect.cleandoc(doc or "").strip()


def cell(text: str) -> str:
    """A docstring in one cell of a table."""
    return " ".join(markdown(text).split()).replace("|", "\\|")


def default(value: str | None) -> str:
    """The default of a field, as JSON."""
    if value is None:
        return "must be there"
    named = {"EMPTY_CONFIG": "{}", "EMPTY_NAMESPACE": "{}", "EVERY_ERROR": '["*"]'}
    as_json = {**named, "()": "[]", "''": '""', "None": "null", "False": "false", "True": "true"}
    return f"`{as_json.get(value, value)}`"


def fields_of(kind: type[Any]) -> list[Said]:
    """The fields of a class, those of what it is derived from first."""
    found: dict[str, Said] = {}
    for one in reversed(kind.__mro__):
        if not one.__module__.startswith(("esexec", "projections")):
            continue
        node = definition(one, one.__name__)
        assert isinstance(node, ast.ClassDef), one
        for field in said(node.body):
            if field.kind and not field.kind.startswith("ClassVar"):
                value = field.value
                if value is not None and value.isupper():
                    value = json.dumps(getattr(sys.modules[one.__module__], value))
                found[field.name] = field._replace(value=value)
    return list(found.values())


def table(fields: list[Said]) -> list[str]:
    """Fields as a table."""
    lines = ["", "| field | type | default |", "| --- | --- | --- |"]
    return lines + [f"| `{one.name}` | `{cell(one.kind)}` | {default(one.value)} |" for one in fields]


def tag_of(kind: Any) -> str:
    """The name on the wire of a class of events."""
    return str(kind.__struct_config__.tag)
