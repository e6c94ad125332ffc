"""A role's process from the outside: ask it, see what it costs, end it."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.role_settings import Settings

_ROOT: Final = Path(__file__).resolve().parent.parent


class Process:
    """Ready once made. Its input is its life line: it ends when that is closed, by us or by our own end."""

    def __init__(self, settings: Settings) -> None:
        self.role = settings.role
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.role", msgspec.json.encode(settings).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def ready(self) -> "Process":
        self._answer()
        return self

    def ask(self, op: str, **settings: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode({"op": op, **settings}) + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.role} ended: exit code {self._process.wait()}")
        return msgspec.json.decode(line)

    def kill(self) -> None:
        """As a crash."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()


def cpu_s(pid: int) -> float:
    """Seconds of processor time that the threads of a process have used; those that have ended are not counted."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def pss_mb(pid: int) -> float:
    """A process's proportional share of memory, in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no PSS of {pid}")
