"""Everything a measurement needs, running: a server, an executor, a worker and a client, of the engine or of raw."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from benchmarks.processes import Process, cpu_s
from benchmarks.role_settings import Settings
from benchmarks.server import Server, Sync

Kind = Literal["engine", "raw"]
ROLES: Final = ("executor", "worker", "client")


class Cost(NamedTuple):
    """What something took: messages and bytes through the server, processor seconds per process."""

    messages: int
    bytes: int
    cpu_s: dict[str, float]


class Stack:
    """A server and three processes. `script`: what raw replays."""

    def __init__(self, kind: Kind, workload: str, sync: Sync, slots: int, script: Path | None, stack: ExitStack) -> None:
        self.server = stack.enter_context(Server(sync))
        self._stack = stack
        self._settings = Settings(kind, "", self.server.url, slots, str(script or ""), workload)
        if kind == "raw":
            self._make_streams()
        self.executor = self._run("executor")
        self.worker = self._run("worker")
        self.client = self._run("client")

    def reader(self, role: str) -> Process:
        """One more process, that reads: `projector` or `asker`."""
        return self._run(role)

    def end(self, *roles: str) -> None:
        """Let these processes go: what is measured next does without them."""
        for role in roles:
            getattr(self, role).close()

    def _run(self, role: str) -> Process:
        process = Process(msgspec.structs.replace(self._settings, role=role))
        self._stack.callback(process.close)
        return process.ready()

    def _make_streams(self) -> None:
        """Raw's streams and consumers are the engine's own, made by a short-lived client of it."""
        maker = Process(Settings("engine", "streams", self.server.url))
        try:
            maker.ready()
        finally:
            maker.close()

    def restart_worker(self) -> None:
        """`kill -9`, and a new one at once."""
        self.worker.kill()
        self.worker = self._run("worker")

    @property
    def pids(self) -> dict[str, int]:
        return {"server": self.server.pid} | {role: getattr(self, role).pid for role in ROLES}

    @contextlib.contextmanager
    def cost(self) -> Iterator[list[Cost]]:
        """What the block takes is appended to the list that it gets."""
        costs: list[Cost] = []
        before, cpu_before = self.server.traffic(), {role: cpu_s(pid) for role, pid in self.pids.items()}
        yield costs
        time.sleep(0.05)  # the last acknowledgements
        after = self.server.traffic()
        used = {role: cpu_s(pid) - cpu_before[role] for role, pid in self.pids.items()}
        costs.append(Cost(after.messages - before.messages, after.bytes - before.bytes, used))
