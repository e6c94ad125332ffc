"""A real nats-server for tests: on a store of its own, which can be killed, stopped like a frozen machine, and started again."""

import os
import signal
import time
from pathlib import Path

from esexec.nats.embedded import EmbeddedServer, Sync


class NatsServer:
    """`url` stays the same over `kill` and `restart`."""

    def __init__(self, store: Path, sync: Sync = "2m") -> None:
        self._server = EmbeddedServer(store, sync=sync)
        self.store = store
        self.url = self._server.start()

    @property
    def pid(self) -> int:
        return self._server.pid

    def kill(self) -> None:
        """As a crash: SIGKILL, and it is gone when this returns."""
        self._server.kill()

    def stop(self) -> None:
        """As an operator would: SIGTERM, and it is gone when this returns."""
        self._server.stop()

    def start(self) -> None:
        """After `kill` or `stop`: JetStream answers when this returns."""
        assert self._server.start() == self.url, "the port was taken in between"

    def restart(self) -> None:
        """`kill` and `start`."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        while not all(state == "T" for state in self._thread_states()):  # the signal reaches each thread in its own time
            time.sleep(0.001)

    def _thread_states(self) -> list[str]:
        """The state letter of every thread of the server, as /proc tells it."""
        return [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{self.pid}/task").glob("*/stat")]

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
