"""`executor`, `worker`, `dev` as processes: they wait for a server, say when they are ready, stay small, and drain."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from esexec.nats.embedded import EmbeddedServer
from tests.integration.cli import ROOT, TASKS, Cli, plan
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


@pytest.mark.slow
def test_a_worker_drains_also_where_its_server_is_away(tmp_path: Path) -> None:
    """What runs comes to its end, and is told once the server is back: it is not begun again."""
    server = NatsServer(tmp_path / "store")
    cli = Cli(tmp_path, server.url)
    try:
        with cli.running("executor") as executor, cli.running("worker", *TASKS) as worker:
            executor.until("ready")
            worker.until("ready")
            cli("start", "--task", "hold", "--input", '{"until": "gate"}', "--execution-id", "held")
            with cli.running("watch", "held") as watch:
                watch.until("hold started")
            server.stop()
            worker.until("lost the NATS server")
            worker.process.send_signal(signal.SIGTERM)
            worker.until("draining…")
            cli.write("gate", "open")
            server.start()
            assert worker.ended().code == 0
            assert cli("watch", "held").code == 0
        entries = cli("history", "held", "--json").lines
        assert [entry["type"] for entry in entries].count("task_scheduled") == 1
        assert [entry["type"] for entry in entries].count("task_completed") == 1
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_handler_that_does_not_end_holds_up_nobody(tmp_path: Path, number: int) -> None:
    """One that swallows its cancellation is left to itself once its attempt was handed back."""
    cli = Cli(tmp_path)
    with cli.running(
        "run", cli.write("plan.yaml", plan({"id": "long", "task": "stay", "params": {"seconds": 60}})), *TASKS
    ) as run:
        run.until("long started")
        assert run.end(number).code == 130


@pytest.mark.slow
def test_a_second_signal_is_heard_where_a_handler_blocks_the_loop(tmp_path: Path) -> None:
    """It ends the process at once."""
    cli = Cli(tmp_path)
    step = {"id": "long", "task": "block", "params": {"begun": str(tmp_path / "begun")}}
    with cli.running("run", cli.write("plan.yaml", plan(step)), *TASKS) as run:
        while not (tmp_path / "begun").exists():
            assert run.process.poll() is None
            time.sleep(0.01)
        run.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)  # two at once are one
        assert run.end(signal.SIGINT).code == 130


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
