"""Where a page is tried: a directory of its own, a server, an engine with the tasks that the page has shown so far.

Python without a title is run as typed into one long session, `await` included; `client` is there. A block with a title is
saved under that name. A `text` block behind Python is what that must have printed; below a command stands what it prints.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import esexec
from esexec.nats.connection import Msg, connect
from projections.memory import MemoryStore
from projections.role import Projector
from tests.docs.pages import ROOT, Block, Command, commands
from tests.node import NODE, installed

_URL = "nats://127.0.0.1:4222"
_NOT_RUN = ("make ", "git ", "docker ", "pip ", "python3 ", "source ", "kill ", "nats ", "NATS_PORT=")
_LOOKS = ("esexec projection ls", "esexec ls", "esexec stats", "esexec doctor", "esexec tasks ls", "esexec list")
"""What changes nothing is asked again for a while: what other processes do meanwhile takes them its time under load."""
_PATIENCE_S = 20
_VARIES = [
    (re.compile(r"\b[0-9a-f]{32}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "PLAN"),
    (re.compile(r"\b[wx][0-9a-f]{8}\b"), "NAME"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( UTC|Z)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"\b\d+ ms|\b\d+\.\d+ ?s\b"), "DURATION"),
    (re.compile(r"\b\d+ commits, \d+ events"), "COUNTS"),
    (re.compile(r"\b(\d+ of )?\d+ commits\b"), "COMMITS"),
    (re.compile(r"\d+ events up to position \d+"), "COUNTS"),
    (re.compile(r"\d+ behind\b"), "LAG"),
    (re.compile(r"\(position \d+\)|\bat \d+\b"), "POSITION"),
    (re.compile(r"\bof \S+/\d+$"), "of HOST"),
    (re.compile(r"^ *\d+ %"), "PERCENT"),
    (re.compile(r":\d{5}\b"), ":PORT"),
    (re.compile(r" +"), " "),
]
"""What is different each time a page is tried."""


def constant(line: str) -> str:
    """The line without what differs each time."""
    for pattern, word in _VARIES:
        line = pattern.sub(word, line)
    return line.strip()


class Stage:
    """See the module. `await play(block)` for every block of a page, in order."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory, self.url = directory, url
        paths = f"{ROOT}{os.pathsep}{directory}"
        self.environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
        self.environment.pop("NATS_URL", None)
        self.environment["XDG_CONFIG_HOME"] = str(directory)  # whoever runs the tests may have selected a context
        self.environment["ESEXEC_ACTOR"] = "ada"
        self.printed = ""
        self.answer: Any = None
        self._names: dict[str, Any] = {"__name__": "page", "esexec": esexec}
        self._tasks: dict[str, Any] = {}
        self._strategies: dict[str, Any] = {}
        self._worker: esexec.Worker | None = None
        self._engine = AsyncExitStack()
        self._behind: list[subprocess.Popen[str]] = []

    async def close(self) -> None:
        """End what the page has started."""
        for process in reversed(self._behind):
            process.send_signal(signal.SIGTERM)
        for process in self._behind:
            process.communicate(timeout=_PATIENCE_S)
        if self._worker is not None:
            await self._worker.stop()
        await self._engine.aclose()

    async def play(self, block: Block) -> None:
        """Do what the block shows; AssertionError where the page is not true."""
        text = block.text.replace(_URL, self.url)
        if block.title is not None:
            (self.directory / block.title).write_text(text, encoding="utf-8")
        elif block.language == "python":
            await self._type(text, block)
        elif block.language == "console":
            for command in commands(block._replace(text=text)):
                await self._command(command, block)
        elif block.language == "text" and self.printed:
            shown = [constant(line) for line in text.splitlines()]
            assert [constant(line) for line in self.printed.splitlines()] == shown, f"{block.place}: printed\n{self.printed}"
        elif block.language == "json" and self.answer is not None:
            assert json.loads(text) == self.answer, f"{block.place}: the answer was {self.answer}"
            self.answer = None
        if block.language != "python":
            self.printed = ""

    # Python --------------------------------------------------------------------------------------------------------------

    async def _type(self, text: str, block: Block) -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.chdir(self.directory):
            for statement in ast.parse(text).body:
                ast.increment_lineno(statement, block.line)  # so that a traceback leads to the page
                await asyncio.wait_for(self._do(statement, str(block.page)), _PATIENCE_S)
        self.printed = said.getvalue()

    async def _do(self, statement: ast.stmt, page: str) -> None:
        if any(isinstance(node, ast.Name) and node.id in ("client", "nats") for node in ast.walk(statement)):
            await self._ready()
        code = compile(ast.Module([statement], []), page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        outcome = eval(code, self._names)
        if inspect.iscoroutine(outcome):
            await outcome

    async def _ready(self) -> None:
        """A worker for the tasks and strategies that the page has shown, and `client`."""
        tasks = {task.name: task for task in self._names.values() if isinstance(task, esexec.Task)}
        if "client" not in self._names:
            await self._engine.enter_async_context(esexec.Executor(self.url))
            await self._engine.enter_async_context(Projector(self.url, store=MemoryStore()))
            self._names["client"] = await self._engine.enter_async_context(esexec.connect(self.url))
        kinds = (value for value in self._names.values() if isinstance(value, esexec.RecoveryStrategy))
        strategies = {strategy.id: strategy for strategy in kinds}
        if tasks != self._tasks or strategies != self._strategies:
            if self._worker is not None:
                await self._worker.stop()
            queues = {"default": 10} | {task.settings.queue: 10 for task in tasks.values() if task.settings.queue}
            self._tasks, self._strategies = tasks, strategies
            resources = [value for value in self._names.values() if isinstance(value, esexec.WorkerResource)]
            self._worker = esexec.Worker(
                self.url, tasks=tasks.values(), strategies=strategies.values(), resources=resources, queues=queues
            )
            await self._worker.start()

    # Commands ------------------------------------------------------------------------------------------------------------

    async def _command(self, command: Command, block: Block) -> None:
        line = command.line.partition("  #")[0].strip()
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = value
        elif line.startswith(("nats req ", "nats pub ")):
            await self._publish(*shlex.split(line)[2:4])
        elif line.startswith("npm ci --prefix "):
            await asyncio.to_thread(installed, ROOT / line.removeprefix("npm ci --prefix "))
        elif line.startswith(_NOT_RUN):
            pass
        elif line.endswith("&"):
            await asyncio.to_thread(self._start, line.removesuffix("&"))
        else:
            await self._try(line, command.output, block)

    async def _publish(self, subject: str, body: str) -> None:
        """A command or a question as any NATS client would send it, until it is answered."""
        if ".query." in subject:
            async with await connect(self.url, name="docs") as connection:
                self.answer = json.loads((await connection.request(subject, body.encode())).data)
            return
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def on_answer(message: Msg) -> None:
            answer.set_result(message.data)

        namespace, _, execution, _ = subject.split(".")[1:]
        async with await connect(self.url, name="docs") as connection:
            await connection.subscribe(f"esexec.{namespace}.reply.{execution}.{json.loads(body)['id']}", on_answer)
            await connection.publish(subject, body.encode())
            self.answer = json.loads(await asyncio.wait_for(answer, _PATIENCE_S))

    async def _try(self, line: str, output: list[str], block: Block) -> None:
        is_refused = any(word in "".join(output) for word in ("error [", "problem ["))
        wanted = [constant(one) for one in output if one.strip() not in ("", "…")]
        until = time.monotonic() + (_PATIENCE_S if line.startswith(_LOOKS) else 0)
        while True:
            done = await asyncio.to_thread(self._run, self._program(line))
            said = done.stdout + done.stderr
            assert done.returncode in (0, 1) or is_refused, f"{block.place}: {line}\n{said}"
            heard = [constant(one) for one in said.splitlines()]
            missing = [one for one in wanted if one not in heard]
            if not missing or time.monotonic() >= until:
                break
        assert not missing, f"{block.place}: {line}: there is no line {missing[0]!r} in\n{said}"

    def _start(self, line: str) -> None:
        process = subprocess.Popen(
            self._program(line), cwd=self.directory, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        self._behind.append(process)
        assert process.stdout is not None
        too_long = threading.Timer(_PATIENCE_S, process.kill)
        too_long.start()
        seen = ""
        for said in process.stdout:
            seen += said
            if "ready" in said:
                break
        too_long.cancel()
        assert "ready" in seen, f"{line}: {seen}"

    def _program(self, line: str) -> list[str]:
        words = shlex.split(line)
        if words[0] == "node":
            return [NODE, str(ROOT / words[1]), *words[2:]]
        assert words[0] in ("esexec", "python"), f"nobody knows how to try `{line}`"
        return [sys.executable, *(["-m", "esexec"] if words[0] == "esexec" else []), *words[1:]]

    def _run(self, program: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            program, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=_PATIENCE_S
        )
