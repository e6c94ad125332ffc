"""The compose file and the Dockerfile: every path exists, and every command runs, natively and with the same arguments."""

import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from esexec.nats.connection import connect
from esexec.nats.embedded import find_executable
from tests.server import NatsServer

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
INSTRUCTION = re.compile(r"^([A-Z]+)\s+(.*)$")
NEEDS_CLI = pytest.mark.skipif(not hasattr(importlib.import_module("esexec.cli"), "main"), reason="there is no CLI yet")


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    found = [INSTRUCTION.match(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert all(found), "a line of the Dockerfile is no instruction"
    return [(match[1], match[2]) for match in found if match]


def program(command: list[str]) -> list[str]:
    """The same command, with the program that stands for it on this machine."""
    if command[0] == "nats-server":
        return [str(find_executable()), *command[1:]]
    assert command[0] == "esexec"
    script = Path(sys.executable).with_name("esexec")
    start = [str(script)] if script.is_file() else [sys.executable, "-c", "from esexec.cli import main; main()"]
    return [*start, *command[1:]]


@contextmanager
def run(command: list[str], environment: dict[str, str], directory: Path = ROOT) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        program(command),
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], pattern: str, seconds: float = 30) -> None:
    """Until a line of its output matches; fails with all of its output when it ends or takes too long."""
    assert process.stdout is not None
    seen: list[str] = []
    too_long = threading.Timer(seconds, process.kill)
    too_long.start()
    try:
        for line in process.stdout:
            seen.append(line)
            if re.search(pattern, line, re.IGNORECASE):
                return
    finally:
        too_long.cancel()
    pytest.fail(f"no line matched {pattern!r} in:\n{''.join(seen)}")


def test_what_is_copied_exists() -> None:
    """Every source of every COPY is in the repository and not hidden from Docker."""
    sources = [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]
    assert sources
    ignored = (ROOT / ".dockerignore").read_text().split()
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source not in ignored


def test_the_image_runs_without_rights() -> None:
    """The image is built on a supported Python and does not run as root."""
    found = dict(instructions())
    assert found["FROM"].startswith("python:3.11")
    assert found["USER"] not in ("root", "0")


def test_mounted_files_exist() -> None:
    """Every file that a service mounts is there, every named volume is declared, and ports are open to this machine only."""
    declared = YAML(typ="safe").load(ROOT / "docker-compose.yml")["volumes"]
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source, target = volume.split(":")[:2]
            if service.get("build"):
                made = next(rest for name, rest in instructions() if name == "RUN" and "mkdir" in rest)
                assert f"chown esexec {target}" in made, "else who runs there may not write"
            assert (ROOT / source).exists() if source.startswith(".") else source in declared
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_services_fit_together() -> None:
    """All roles wait for the server and are told its address; whatever ends is started again."""
    assert set(SERVICES) == {"nats", "executor", "projections", "worker"}
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped"
        if name != "nats":
            assert service["environment"]["NATS_URL"] == f"nats://nats:{SERVICES['nats']['environment']['NATS_PORT']}"
            assert service["depends_on"]["nats"]["condition"] == "service_healthy"


def test_the_server_loses_nothing() -> None:
    """The server's configuration syncs every message before it is acknowledged, and takes messages as large as ours."""
    lines = {line.strip() for line in (ROOT / "docker/nats.conf").read_text().splitlines()}
    assert {"sync_interval: always", "max_payload: 1MB"} <= lines


async def test_the_server_runs_as_composed(tmp_path: Path) -> None:
    """The server's command and configuration start a JetStream that keeps its streams in the mounted place."""
    service = SERVICES["nats"]
    mounts = dict(volume.split(":")[:2][::-1] for volume in service["volumes"])
    command = [str(ROOT / mounts[word]) if word in mounts else word for word in service["command"]]
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    environment = {"NATS_PORT": str(ports[0]), "NATS_HTTP_PORT": str(ports[1]), "NATS_STORE": str(tmp_path)}
    assert environment.keys() == service["environment"].keys()
    with run(command, environment) as process:
        wait_for(process, "server is ready")
        async with await connect(f"nats://127.0.0.1:{ports[0]}", name="test", patience=10) as connection:
            answer = await connection.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"], "storage": "file"})
            assert answer["config"]["storage"] == "file"
            assert connection.max_payload == 1024 * 1024
    assert os.listdir(tmp_path) == ["jetstream"]


@NEEDS_CLI
@pytest.mark.parametrize("name", [name for name in SERVICES if name != "nats"])
def test_a_role_runs_as_composed(name: str, own_server: NatsServer, tmp_path: Path) -> None:
    """Each role's command becomes ready with nothing but `NATS_URL`, and SIGTERM ends it in order."""
    with run(SERVICES[name]["command"], {"NATS_URL": own_server.url}, tmp_path) as process:
        wait_for(process, r"\bready\b")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
