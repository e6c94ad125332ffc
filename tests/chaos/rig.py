"""Processes of the engine under a test's command: started, killed, frozen, restarted; their logs kept for diagnosis."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from inspect import isawaitable
from pathlib import Path
from typing import Any

import nats

from esexec.nats import streams
from esexec.nats.connection import connect
from esexec.nats.subjects import Subjects
from tests.chaos import checker
from tests.server import NatsServer

ROOT = Path(__file__).parents[2]


async def until(what: str, condition: Callable[[], Any], seconds: float, state: Callable[[], Any] | None = None) -> Any:
    """The first true value of `condition` (or of what it returns to await); fails after `seconds` and says `what` and `state`."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if isawaitable(found):
            found = await found
        if found:
            return found
        if time.monotonic() > end:
            shown = state() if state is not None else ""
            if isawaitable(shown):
                shown = await shown
            raise AssertionError(f"not within {seconds:g} s: {what}. {shown}")
        await asyncio.sleep(0.02)


class Role:
    """An executor or a worker as a process. `options` are those of its class."""

    def __init__(self, rig: "Rig", kind: str, name: str, options: dict[str, Any]) -> None:
        self.rig, self.kind, self.name, self.options = rig, kind, name, options
        self.log = rig.directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._ready_from = 0

    def start(self) -> None:
        self._ready_from = self.log.stat().st_size if self.log.exists() else 0
        command = [sys.executable, "-m", "tests.chaos.role", self.kind, self.rig.url, self.rig.namespace, self.name]
        environment = os.environ | {"CHAOS_WORLD": str(self.rig.world), "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, json.dumps(self.options)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment
            )

    @property
    def is_ready(self) -> bool:
        """Whether it has said so since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._ready_from)
            return f"{self.kind} {self.name} ready".encode() in log.read()

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; gone when this returns."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)


class Rig:
    """A server and processes around it. `url` is where the processes connect: the server's, unless a proxy stands before it."""

    def __init__(self, directory: Path, server: NatsServer, namespace: str = "chaos", url: str | None = None) -> None:
        self.directory, self.server, self.namespace = directory, server, namespace
        self.url = url or server.url
        self.world = directory / "world.jsonl"
        self.world.touch()
        self.roles: list[Role] = []

    async def make_streams(self, ack_wait_ms: int = streams.ACK_WAIT_MS) -> None:
        """Make the streams before anybody else does, with another time after which the executors' messages come again."""
        usual, streams.ACK_WAIT_MS = streams.ACK_WAIT_MS, ack_wait_ms  # type: ignore[misc]
        try:
            async with await connect(self.server.url, name="rig") as connection:
                await streams.ensure_streams(connection, Subjects(self.namespace))
        finally:
            streams.ACK_WAIT_MS = usual  # type: ignore[misc]

    def role(self, kind: str, **options: Any) -> Role:
        """A process, started; see `ready`."""
        role = Role(self, kind, f"{kind}{sum(other.kind == kind for other in self.roles) + 1}", options)
        self.roles.append(role)
        role.start()
        return role

    def executor(self, **options: Any) -> Role:
        return self.role("executor", **options)

    def worker(self, **options: Any) -> Role:
        return self.role("worker", **options)

    async def ready(self, *roles: Role, seconds: float = 30.0) -> None:
        """Returns when these (or all) have said that they are ready."""
        for role in roles or self.roles:
            await until(f"{role.name} is ready", lambda role=role: role.is_ready, seconds, lambda role=role: tail(role.log))

    def notes(self, phase: str | None = None) -> list[dict[str, Any]]:
        """What handlers wrote into the world."""
        lines = [json.loads(line) for line in self.world.read_text().splitlines()]
        return [line for line in lines if phase is None or line["phase"] == phase]

    async def left(self) -> dict[str, dict[str, int]]:
        """What lies in streams that are empty when all is done."""
        client = await nats.connect(self.server.url, allow_reconnect=False)
        try:
            return await checker.left_subjects(client, self.namespace)
        finally:
            await client.close()

    async def at_rest(self, seconds: float = 60.0) -> None:
        """Returns when nothing is on its way any more."""

        async def empty() -> bool:
            return not await self.left()

        await until("every stream but the log is empty", empty, seconds, self.left)

    async def check(self, **options: Any) -> checker.Report:
        """The checker over this namespace and world."""
        return await checker.check(self.server.url, self.namespace, world=self.world, **options)

    async def restart_everything(self) -> None:
        """As after a power cut: all at once."""
        for role in self.roles:
            role.kill()
        await asyncio.to_thread(self.server.restart)
        for role in self.roles:
            role.options.pop("die", None)
            role.start()
        await self.ready()

    def close(self) -> None:
        for role in self.roles:
            if role.is_alive:
                role.thaw()
            role.kill()


def tail(file: Path, lines: int = 15) -> str:
    return f"{file}:\n" + "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
