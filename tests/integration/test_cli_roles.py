"""`executor`, `worker`, `dev` as processes: they wait for a server, say when they are ready, stay small, and drain."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from esexec.nats.embedded import EmbeddedServer
from tests.integration.cli import ROOT, TASKS, Cli
from tests.server import NatsServer

HEAVY = {"rich", "ruamel", "pydantic", "hypothesis", "eventsourcing"}
PSS_KB_MAX = 40_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_drains(tmp_path: Path, nats_server: NatsServer, namespace: str, number: int) -> None:
    """Told to end, a worker lets what runs end and exits 0; so does its executor. Queues take their own numbers."""
    cli = Cli(tmp_path, nats_server.url)
    where = ("--namespace", namespace)
    with (
        cli.running("executor", *where) as executor,
        cli.running("worker", *TASKS, "--queue", "default", "--queue", "far=2", "--concurrency", "3", *where) as worker,
    ):
        executor.until("ready")
        assert "default=3, far=2" in worker.until("ready")
        cli("start", "--task", "hold", "--input", '{"until": "gate"}', "--execution-id", "held", *where)
        with cli.running("watch", "held", *where) as watch:
            watch.until("hold started")
            worker.process.send_signal(number)
            worker.until("draining…")
            cli.write("gate", "open")
            assert worker.ended().code == 0
            assert "hold completed" in watch.ended().out
        assert executor.end(number).code == 0
    entries = cli("history", "held", "--json", *where).lines
    assert [entry["type"] for entry in entries].count("task_started") == 1


def test_roles_wait_for_their_server(tmp_path: Path) -> None:
    """Roles whose server is not up yet say so in one line, and are ready once it is; an outage is told once for all of them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cli = Cli(tmp_path, f"nats://127.0.0.1:{port}")
    with cli.running("dev", *TASKS) as roles:
        assert roles.until("waiting for the NATS server") == f"waiting for the NATS server at nats://127.0.0.1:{port}\n"
        server = EmbeddedServer(tmp_path / "store", port=port, sync="2m")
        server.start()
        try:
            roles.until("ready")
            server.kill()
            roles.until("lost the NATS server")
            server.start()
            roles.until("is back")
            assert roles.seen.count("lost the NATS server") == 1
            assert roles.end().code == 0
        finally:
            server.stop()


def test_roles_tell_json_that_they_are_ready(tmp_path: Path, nats_server: NatsServer, namespace: str) -> None:
    """With `--json` a role's line is an object that says where it works and who it is."""
    with Cli(tmp_path, nats_server.url).running("dev", *TASKS, "--namespace", namespace, "--json") as roles:
        said = json.loads(roles.until("ready"))
    assert said["ready"] is True
    assert said["url"] == nats_server.url
    assert said["namespace"] == namespace
    assert "greet" in said["tasks"]
    assert "network_timeout_recovery" in said["strategies"]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_roles_stay_small(tmp_path: Path, nats_server: NatsServer, namespace: str) -> None:
    """An executor and a worker hold little memory each."""
    cli, where = Cli(tmp_path, nats_server.url), ("--namespace", namespace)
    with cli.running("executor", *where) as executor:
        executor.until("ready")
        with cli.running("worker", *TASKS, *where) as worker:
            worker.until("ready")
            for role in (executor, worker):
                memory = Path(f"/proc/{role.process.pid}/smaps_rollup").read_text()
                pss_kb = next(int(line.split()[1]) for line in memory.splitlines() if line.startswith("Pss:"))
                assert pss_kb < PSS_KB_MAX


def test_roles_import_little() -> None:
    """What is imported before a verb runs, and by the roles, holds none of the heavy packages."""
    script = "import sys, esexec.cli.app; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
