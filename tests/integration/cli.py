"""Runs the real command line as processes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "esexec")
TASKS = ("--tasks", "tests.cli_tasks")
_PATIENCE_S = 30


@contextmanager
def hearing_signals() -> Iterator[None]:
    """What is started here hears SIGINT and SIGHUP also where the tests themselves do not, as they run in the background."""
    ignored = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Running:
    """A command that goes on; ended by the end of the test at the latest."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.seen = ""

    def until(self, words: str) -> str:
        """What it printed until a line holds `words`; fails the test if it ends or takes too long before that."""
        assert self.process.stdout is not None
        with self._not_for_ever():
            for line in self.process.stdout:
                self.seen += line
                if words in line:
                    return self.seen
        pytest.fail(f"no line with {words!r} in:\n{self.seen}")

    def end(self, number: int = signal.SIGTERM) -> Done:
        """Tell it to end, and wait until it has."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> Done:
        """It, once it has ended by itself."""
        assert self.process.stdout is not None
        with self._not_for_ever():
            self.seen += self.process.stdout.read()  # `communicate` would lose what was read ahead
            return Done(self.process.wait(), self.seen, "")

    @contextmanager
    def _not_for_ever(self) -> Iterator[None]:
        too_long = threading.Timer(_PATIENCE_S, self.process.kill)
        too_long.start()
        try:
            yield
        finally:
            too_long.cancel()


class Cli:
    """`esexec` in a directory of its own, with its own store there. `server`: for every call, as if by `$NATS_URL`."""

    def __init__(self, directory: Path, server: str | None = None) -> None:
        self.directory = directory
        self.environment = {key: value for key, value in os.environ.items() if key not in ("NATS_URL", "NO_COLOR", "COLUMNS")}
        self.environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "XDG_CONFIG_HOME": str(directory)}
        if server is not None:
            self.environment["NATS_URL"] = server

    def __call__(self, *words: str, stdin: str | None = None) -> Done:
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.directory,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def running(self, *words: str) -> Iterator[Running]:
        """A command that goes on while the block does; stderr goes where stdout goes."""
        with hearing_signals():
            process = subprocess.Popen(
                [*COMMAND, *words],
                cwd=self.directory,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            yield Running(process)
        finally:
            process.kill()
            process.communicate()

    def write(self, name: str, content: Any) -> str:
        """A file in its directory: text, or JSON (which is YAML too)."""
        text = content if isinstance(content, str) else json.dumps(content)
        (self.directory / name).write_text(text, encoding="utf-8")
        return name


def plan(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A plan as it stands in a file."""
    return {"name": "trial", "steps": list(steps), **fields}
