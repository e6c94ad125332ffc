"""Writes `esexec/client/sync.py`, the blocking client, from the signatures of the asynchronous one.

`python tools/generate_sync.py`; `--check` only compares. Every public method becomes one line onto it.
"""

import argparse
import ast
import builtins
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "esexec/client/sync.py"
HEAD = '''"""The blocking client: what the asynchronous one has, for callers without a loop.

Written by tools/generate_sync.py from the signatures; change those, and run it.
"""

from __future__ import annotations
'''
SOURCES: tuple[tuple[str, str], ...] = (
    ("handle", "Handle"),
    ("closures", "Closure"),
    ("closures", "AsyncClosure"),
    ("subscriptions", "Subscription"),
    ("alerts", "Alerts"),
    ("checkpoints", "Checkpoints"),
    ("dead_letters", "DeadLetters"),
    ("executions", "Executions"),
    ("executions", "TasksOfExecutions"),
    ("histories", "Histories"),
    ("monitor", "Monitor"),
    ("plans", "Plans"),
    ("queries", "Queries"),
    ("resources", "Resources"),
    ("strategies", "Strategies"),
    ("workers", "Workers"),
    ("client", "Client"),
)
"""Modules of `esexec.client`, read as text, and their classes; those first that others give."""
PARTS = {
    "alerts": "Alerts",
    "checkpoints": "Checkpoints",
    "dead_letters": "DeadLetters",
    "executions": "Executions",
    "histories": "Histories",
    "monitor": "Monitor",
    "plans": "Plans",
    "queries": "Queries",
    "resources": "Resources",
    "strategies": "Strategies",
    "tasks": "TasksOfExecutions",
    "workers": "Workers",
}
"""What a client has by attributes."""
ATTRIBUTES: dict[str, dict[str, str]] = {
    "Client": {"url": "str", "actor": "str | None"},
    "Handle": {"duplicate": "bool", "warnings": "tuple[Warned, ...]"},
    "Subscription": {"execution_id": "str"},
}
NOT_HERE = {"Client": {"sync"}, "Handle": {"detach"}}
GENERIC = {"Handle", "Closure", "AsyncClosure"}
WRAPPED = {name: f"Sync{name}" for _, name in SOURCES} | {"Starting": "SyncHandle"}

OF_HANDLE = '''
    def detach(self) -> Self:
        """{detach}"""
        self._its.detach()
        return self

    def __enter__(self) -> Self:
        self._loop.call(self._its.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._loop.call(self._its.__aexit__(kind, error, traceback))
'''
OF_CLIENT = '''    """What `Client` has, for callers who wait: `with esexec.connect_sync(url) as client:`, or `open` and `close`.

    It runs on a loop of its own, in a thread of its own; any number of threads may call it, and callbacks are called in
    threads as well. Raises `ValidationError`: `forked` in another process than the one that opened it, `own_loop` for a call
    on its own loop.
    """
'''


class Names:
    """The imports of all sources, by the names that they bring; and those that were asked for."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self.used: set[str] = set()

    def read(self, module: str) -> ast.Module:
        tree = ast.parse((TARGET.parent / f"{module}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for one in node.names:
                    self._found[one.name] = f"from {node.module} import {one.name}"
            elif isinstance(node, ast.Import):
                self._found |= {one.name: f"import {one.name}" for one in node.names}
        for node in tree.body:
            names = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
            for name in [*names, *([node.name] if isinstance(node, ast.ClassDef) else [])]:
                self._found[name] = f"from esexec.client.{module} import {name}"
        return tree

    def use(self, *nodes: ast.AST | None) -> None:
        for node in nodes:
            for one in ast.walk(node) if node is not None else ():
                if isinstance(one, ast.Name) and not (hasattr(builtins, one.id) and one.id not in self._found):
                    self.used.add(one.id)

    def imports(self) -> Iterator[str]:
        for name in sorted(self.used - set(WRAPPED.values())):
            if name in self._found:
                yield self._found[name]


Definition = ast.FunctionDef | ast.AsyncFunctionDef


class Method:
    """One method, and what becomes of it."""

    def __init__(self, node: Definition, names: Names, *, is_overloaded: bool) -> None:
        self.node, self.names, self.is_overloaded = node, names, is_overloaded
        self.decorators = {ast.unparse(one) for one in node.decorator_list}
        self.returns = _said(node.returns)
        self.is_overload = "overload" in self.decorators

    def text(self) -> str:
        """As it stands in the blocking class."""
        kind, body = self._body()
        lines = [f"@{name}" for name in sorted(self.decorators & {"overload", "property"})]
        signature = ast.unparse(self._arguments())
        if self.is_overload:
            return "\n".join([*lines, f"def {self.node.name}({signature}) -> {kind}: ..."])
        doc = _blocking(ast.get_docstring(self.node, clean=False) or "")
        lines.append(f"def {self.node.name}({signature}) -> {kind}:")
        lines += [f'    """{doc}"""'] if doc else []
        return "\n".join([*lines, *(f"    {one}" for one in body)])

    def _body(self) -> tuple[str, list[str]]:
        """The kind of what it gives, and the lines that give it."""
        name, kind = self.node.name, self.returns
        if "property" in self.decorators:
            self._use(kind)
            return kind, [f"return self._its.{name}"]
        its = "its" if self.is_overloaded else "self._its"
        call = f"{its}({self._passed()})" if name == "__call__" else f"{its}.{name}({self._passed()})"
        items = re.fullmatch(r"Async(?:Iterator|Generator)\[(.*?)(?:, None)?\]", kind)
        if "asynccontextmanager" in self.decorators and items:
            return self._kind(f"AbstractContextManager[{items[1]}]"), [f"return self._loop.entered({call})"]
        if items:
            return self._kind(f"Iterator[{items[1]}]"), [f"return self._loop.iterate({call})"]
        head = kind.partition("[")[0]
        waits = isinstance(self.node, ast.AsyncFunctionDef) or head == "Starting"
        value = f"self._loop.call({call})" if waits else call
        if head in WRAPPED:
            return self._kind(kind), [f"return {WRAPPED[head]}({value}, self._loop)"]
        if self.is_overloaded:
            return self._kind(kind), ["its: Any = self._its", f"answer: {kind} = {value}", "return answer"]
        return self._kind(kind), [value if kind == "None" else f"return {value}"]

    def _kind(self, kind: str) -> str:
        kind = _renamed(kind)
        self._use(kind)
        return kind

    def _use(self, kind: str) -> None:
        self.names.use(ast.parse(kind, mode="eval"))

    def _arguments(self) -> ast.arguments:
        """Those of the method, with what is a handle there as one of here."""
        arguments = ast.parse(f"def f({ast.unparse(self.node.args)}): ...").body[0].args  # type: ignore[attr-defined]
        for one in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.kwarg]:
            if one is not None and one.annotation is not None:
                one.annotation = ast.parse(_renamed(_said(one.annotation)), mode="eval").body
                self.names.use(one.annotation)
        self.names.use(*arguments.defaults, *arguments.kw_defaults)
        return arguments

    def _passed(self) -> str:
        arguments = self.node.args
        given = [self._value(one) for one in [*arguments.posonlyargs, *arguments.args][1:]]
        given += [f"{one.arg}={self._value(one)}" for one in arguments.kwonlyargs]
        return ", ".join([*given, *([f"**{arguments.kwarg.arg}"] if arguments.kwarg else [])])

    def _value(self, argument: ast.arg) -> str:
        kind = _said(argument.annotation)
        if kind == "Callback":
            return f"in_thread({argument.arg})"
        return f"unwrapped({argument.arg})" if re.search(r"\bHandle\b", kind) else argument.arg


def _said(annotation: ast.expr | None) -> str:
    """An annotation, without the quotes around it."""
    if annotation is None:
        return "None"
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    return ast.unparse(annotation)


def _renamed(kind: str) -> str:
    return re.sub(r"\b\w+\b", lambda found: WRAPPED.get(found[0], found[0]), kind)


def _blocking(doc: str) -> str:
    """What a docstring says, to callers who wait."""
    return re.sub(r"await |async (?=with|for)", "", doc)


def _class(module: str, name: str, names: Names) -> str:
    tree = names.read(module)
    node = next(one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == name)
    names.used.add(name)
    base = "BlockingClient" if name == "Client" else f"Wrapped[{name}[T]], Generic[T]" if name in GENERIC else f"Wrapped[{name}]"
    if name in GENERIC:
        names.used |= {"T", "Generic"}
    lines = [f"class Sync{name}({base}):"]
    lines.append(OF_CLIENT if name == "Client" else f'    """`{name}`, for callers who wait."""\n')
    lines.append("    __slots__ = ()\n")
    methods = [one for one in node.body if isinstance(one, Definition)]
    if name == "Client":
        lines.append(_constructor(next(one for one in methods if one.name == "__init__"), names))
        lines += [_property(part, f"Sync{kind}", f"Sync{kind}(self._its.{part}, self._loop)") for part, kind in PARTS.items()]
    for one, kind in ATTRIBUTES.get(name, {}).items():
        lines.append(_property(one, kind, f"self._its.{one}"))
        names.use(ast.parse(kind, mode="eval"))
    overloaded = {one.name for one in methods if "overload" in {ast.unparse(by) for by in one.decorator_list}}
    for one in methods:
        if (one.name == "__call__" or not one.name.startswith("_")) and one.name not in NOT_HERE.get(name, ()):
            text = Method(one, names, is_overloaded=one.name in overloaded).text()
            lines.append(_indented(text))
    if name == "Handle":
        detach = next(one for one in methods if one.name == "detach")
        lines.append(OF_HANDLE.format(detach=ast.get_docstring(detach)))
        names.used |= {"Self", "TracebackType"}
    return "\n".join(lines)


def _property(name: str, kind: str, value: str) -> str:
    return f"    @property\n    def {name}(self) -> {kind}:\n        return {value}\n"


def _constructor(node: Definition, names: Names) -> str:
    method = Method(node, names, is_overloaded=False)
    arguments, passed = ast.unparse(method._arguments()), method._passed()
    return f"    def __init__({arguments}) -> None:\n        super().__init__(Client({passed}))\n"


def _indented(text: str) -> str:
    """The method below its class; lines of docstrings stand where they stood."""
    head, quotes, rest = text.partition('"""')
    doc, end, body = rest.partition('"""')
    shifted = "\n".join(f"    {line}" for line in head.split("\n"))
    return shifted + quotes + doc + end + "\n".join(f"    {line}" if line.strip() else line for line in body.split("\n")) + "\n"


def source() -> str:
    """What the file must hold."""
    names = Names()
    classes = [_class(module, name, names) for module, name in SOURCES]
    names.used |= {"Any"}
    wanted = [
        *names.imports(),
        "from collections.abc import Iterator",
        "from contextlib import AbstractContextManager",
        "from types import TracebackType",
        "from typing import Any, Generic, Self, overload",
        "from esexec.client.blocking import BlockingClient, Wrapped, unwrapped",
        "from esexec.client.loop import in_thread",
    ]
    text = "\n".join([HEAD, *sorted(set(wanted)), "\n", *classes])
    for arguments in (["check", "--select", "I,F401,UP", "--fix", "--quiet"], ["format", "--quiet"]):
        ruff = [str(Path(sys.executable).parent / "ruff"), *arguments, "--stdin-filename", str(TARGET), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text


def main() -> int:
    """Write the file, or say whether it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the file is not current")
    check = parser.parse_args().check
    text = source()
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"{TARGET} {'is not current' if check else 'written'}")
    if not check:
        TARGET.write_text(text, encoding="utf-8")
    return 1 if check else 0


if __name__ == "__main__":
    sys.exit(main())
