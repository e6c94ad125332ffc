"""The embedded server: one per store, found by others, ready when it says so, and gone with its parent."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from esexec.domain.errors import Unavailable
from esexec.nats.connection import connect
from esexec.nats.embedded import EmbeddedServer, find_executable, running, stop_running

START = """
import sys, threading
from esexec.nats.embedded import EmbeddedServer
server = EmbeddedServer(sys.argv[1], sync="2m", detached=sys.argv[2] == "detached")
if sys.argv[2] == "thread":
    thread = threading.Thread(target=server.start); thread.start(); thread.join()
else:
    server.start()
print(server.pid, server.url, server.is_ours, flush=True)
sys.stdin.read()
server.stop()
"""


class Program:
    """Another process that starts (or finds) the server and holds on to it until `end`."""

    def __init__(self, store: Path, how: str = "owned") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(store), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )

    def started(self) -> tuple[int, str, bool]:
        assert self.process.stdout is not None
        pid, url, is_ours = self.process.stdout.readline().split()
        return int(pid), url, is_ours == "True"

    def end(self) -> None:
        self.process.communicate(timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "the condition never came true"
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_it_is_ready_when_it_says_so(tmp_path: Path) -> None:
    """JetStream answers right after start; the configuration is the promised one; nothing runs afterwards."""
    async with EmbeddedServer(tmp_path / "store") as server:
        assert server.is_ours
        async with await connect(server.url, name="test") as connection:
            made = await connection.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"]})
            assert made["config"]["storage"] == "file"
            assert connection.max_payload == 1024 * 1024
        config = (tmp_path / "store" / "nats.conf").read_text()
        assert "sync_interval: always" in config
        assert "127.0.0.1:" in config
        assert json.loads((tmp_path / "store" / "server.json").read_text())["url"] == server.url == running(tmp_path / "store")
        listening = {link.laddr.ip for link in psutil.Process(server.pid).net_connections() if link.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
    assert is_gone(server.pid)
    assert running(tmp_path / "store") is None


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    """Stopped, killed and started again, the server has the same address and the same messages."""
    server = EmbeddedServer(tmp_path / "store")
    urls = []
    for count, end in enumerate((server.stop, server.kill, server.stop)):
        urls.append(await asyncio.to_thread(server.start))
        async with await connect(server.url, name="test") as connection:
            answer = await connection.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"]})
            assert answer["state"]["messages"] == count
            await connection.request("s", b"x")
        await asyncio.to_thread(end)
    assert len(set(urls)) == 1


def test_a_second_process_uses_the_running_server(tmp_path: Path) -> None:
    """A second process on the same store finds the first one's server and leaves it running when it ends."""
    first = Program(tmp_path / "store")
    pid, url, is_ours = first.started()
    assert is_ours
    second = Program(tmp_path / "store")
    assert second.started() == (pid, url, False)
    second.end()
    assert running(tmp_path / "store") == url
    first.end()
    assert is_gone(pid)
    assert running(tmp_path / "store") is None


def test_many_processes_start_one_server(tmp_path: Path) -> None:
    """However many processes start at the same instant, there is one server, and one of them owns it."""
    programs = [Program(tmp_path / "store") for _ in range(5)]
    found = [program.started() for program in programs]
    assert len({(pid, url) for pid, url, _ in found}) == 1
    assert [is_ours for _, _, is_ours in found].count(True) == 1
    for program in programs:
        program.end()


def test_a_server_that_is_going_down_is_waited_for(tmp_path: Path) -> None:
    """Two servers never run on one store: a start during the old one's end waits, then starts a new one."""
    first = EmbeddedServer(tmp_path / "store")
    first.start()
    os.kill(first.pid, signal.SIGSTOP)
    second = Program(tmp_path / "store")
    until(lambda: len(psutil.Process(second.process.pid).open_files()) > 0)
    assert psutil.Process(first.pid).is_running()
    os.kill(first.pid, signal.SIGKILL)
    pid, _, is_ours = second.started()
    assert is_ours
    assert pid != first.pid
    first.stop()
    second.end()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"pid": "x", "url": 1, "name": "n"}',
        '{"pid": 1, "url": "nats://127.0.0.1:9", "sync": "2m", "name": "n"}',
        '{"pid": 999999999, "url": "nats://127.0.0.1:9", "sync": "2m", "name": "n"}',
        '{"pid": 1, "url": "nowhere", "sync": "2m", "name": "n"}',
    ],
)
def test_a_stale_note_is_ignored(tmp_path: Path, content: str) -> None:
    """Whatever an earlier run left in `server.json`, it is not taken for a running server, and a new one starts."""
    (tmp_path / "server.json").write_text(content)
    assert running(tmp_path) is None
    assert not stop_running(tmp_path)
    server = EmbeddedServer(tmp_path)
    assert server.start() == running(tmp_path)
    server.stop()


def test_another_server_at_the_noted_address_is_not_ours(tmp_path: Path) -> None:
    """A server that took over the noted port and a live pid are not enough: it must be the very server that was noted."""
    other = EmbeddedServer(tmp_path / "other")
    other.start()
    (tmp_path / "mine").mkdir()
    note = {"pid": os.getpid(), "url": other.url, "sync": "2m", "name": "esexec-gone"}
    (tmp_path / "mine" / "server.json").write_text(json.dumps(note))
    assert running(tmp_path / "mine") is None
    mine = EmbeddedServer(tmp_path / "mine")
    assert mine.start() != other.url
    mine.stop()
    other.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help exists on Linux only")
@pytest.mark.parametrize("how", ["owned", "thread"])
def test_it_dies_with_its_parent(tmp_path: Path, how: str) -> None:
    """`kill -9` of the process that started it leaves no server behind, and the store can be used again at once."""
    program = Program(tmp_path / "store", how)
    pid, url, _ = program.started()
    assert running(tmp_path / "store") == url, "it must outlive the thread that started it"
    program.kill()
    again = Program(tmp_path / "store")
    new_pid, new_url, is_ours = again.started()
    assert is_ours
    assert new_url == url
    until(lambda: is_gone(pid))
    assert new_pid != pid
    again.end()


def test_a_detached_server_outlives_its_parent(tmp_path: Path) -> None:
    """With `detached` the server goes on when its parent dies; `stop_running` ends it from anywhere."""
    program = Program(tmp_path / "store", "detached")
    pid, url, _ = program.started()
    program.kill()
    assert running(tmp_path / "store") == url
    assert stop_running(tmp_path / "store")
    until(lambda: is_gone(pid))
    assert running(tmp_path / "store") is None


def test_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    """The server has a session of its own: what the terminal sends to our process group leaves it running."""
    server = EmbeddedServer(tmp_path / "store")
    server.start()
    assert os.getsid(server.pid) != os.getsid(0)
    server.stop()


def test_a_failure_shows_the_log(tmp_path: Path) -> None:
    """A server that cannot start gives Unavailable with the end of its log, and leaves no process and no lock."""
    server = EmbeddedServer(tmp_path / "store", sync="never")  # type: ignore[arg-type]
    with pytest.raises(Unavailable) as failed:
        server.start()
    assert "sync_interval" in failed.value.message
    assert "nats-server.log" in str(failed.value.hint)
    assert not server.is_ours
    assert EmbeddedServer(tmp_path / "store").start()
    assert stop_running(tmp_path / "store")


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """A port that was asked for and is taken gives Unavailable naming it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(Unavailable) as failed:
            EmbeddedServer(tmp_path / "store", port=port).start()
    assert str(port) in failed.value.message


def test_the_store_may_have_any_name(tmp_path: Path) -> None:
    """Spaces, quotes and letters of any script in the store's path do no harm."""
    server = EmbeddedServer(tmp_path / "a \"b' {ü} #$x")
    server.start()
    assert (server.store / "jetstream").is_dir()
    server.stop()


def test_the_executable_is_the_wheels() -> None:
    """The server of the wheel is found, and it is a program."""
    version = subprocess.run([find_executable(), "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("nats-server: v2.")


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.02])
async def test_a_start_that_is_given_up_leaves_no_server(tmp_path: Path, after_s: float) -> None:
    """It is ended before whoever gave it up goes on; the next has one of its own."""
    server = EmbeddedServer(tmp_path, sync="2m")
    starting = asyncio.create_task(server.__aenter__())
    await asyncio.sleep(after_s)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert [one for one in psutil.Process().children(recursive=True) if str(tmp_path) in " ".join(one.cmdline())] == []
    async with server:
        assert server.is_ours
