"""Kill everything, again and again, while hundreds of executions run; then hold the log against the world.

`CHAOS_SEED=n` repeats a run's plans and kills (not its timing). The logs of all processes stay under pytest's tmp directory.
"""

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

import esexec
from tests.chaos.plans import Trial, trial
from tests.chaos.rig import Rig, until
from tests.server import NatsServer

EXECUTIONS = 200
KILLS = 12
IN_FLIGHT = 50


class Run:
    """What a chaos run did and saw."""

    def __init__(self, rig: Rig, trials: list[Trial], rng: random.Random) -> None:
        self.rig, self.trials, self.rng = rig, trials, rng
        self.acknowledged: dict[str, set[str]] = {}
        self.unconfirmed = 0
        self.ended: dict[str, str] = {}
        self.kills: Counter[str] = Counter()
        self.in_flight_at_kills: list[int] = []

    @property
    def in_flight(self) -> int:
        return len(self.acknowledged.keys() - self.ended.keys())

    def __str__(self) -> str:
        waiting = sorted(self.acknowledged.keys() - self.ended.keys())
        seen = f"{len(self.acknowledged)} acknowledged, {len(self.ended)} ended {dict(Counter(self.ended.values()))}"
        kills = f"kills {dict(self.kills)} with in flight {self.in_flight_at_kills}"
        return f"{seen}, {self.unconfirmed} not confirmed in time; {kills}; not ended {waiting[:10]}; logs: {self.rig.directory}"

    async def carry(self, one: Trial, clients: list[esexec.Client]) -> None:
        """Start an execution, perhaps cancel it, and follow it to its end."""
        handles = await asyncio.gather(*(self._start(one, client) for client in clients[: 2 if one.twice else 1]))
        ids = {handle.id for handle in handles}
        ends = set(one.ends)
        if len(ids) > 1:  # a start that was not confirmed in time cannot know the original; the log decides whose the key is
            await asyncio.gather(*(self._follow(handle, ends, may_be_missing=True) for handle in handles))
            return
        if one.cancel_after is not None:
            await asyncio.sleep(one.cancel_after)
            try:
                if await handles[0].cancel():
                    ends -= {"completed", "failed"}
            except esexec.NotConfirmed:
                self.unconfirmed += 1
        await self._follow(handles[0], ends)

    async def _start(self, one: Trial, client: esexec.Client) -> esexec.Handle:
        try:
            handle = await client.start(one.plan, **one.options)
        except esexec.NotConfirmed as error:  # it is durable, and will be carried out
            self.unconfirmed += 1
            handle = error.handle
        self.acknowledged.setdefault(handle.id, set(one.ends))
        return handle

    async def _follow(self, handle: esexec.Handle, ends: set[str], may_be_missing: bool = False) -> None:
        self.acknowledged[handle.id] = ends
        while True:
            try:
                self.ended[handle.id] = (await handle.wait(wait_timeout=20)).status.value
                return
            except esexec.AwaitTimeout:
                if may_be_missing and not await self._exists(handle):
                    del self.acknowledged[handle.id]
                    return

    async def _exists(self, handle: esexec.Handle) -> bool:
        try:
            return await handle.status() is not None
        except esexec.NotFound:
            return False

    async def kill_something(self) -> None:
        """SIGKILL for a process of a random kind, and its restart at once."""
        kind = self.rng.choice(["executor", "worker", "worker", "server"])
        self.in_flight_at_kills.append(self.in_flight)
        self.kills[kind] += 1
        if kind == "server":
            await asyncio.to_thread(self.rig.server.restart)
        else:
            role = self.rng.choice([role for role in self.rig.roles if role.kind == kind])
            role.kill()
            role.start()


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_whatever_is_killed_every_acknowledged_execution_ends_once_and_the_log_agrees_with_the_world(
    own_server: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Executors, workers and the server are killed in the middle of 200 executions: none is lost, nothing happens twice."""
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
    rng = random.Random(seed)
    rig = Rig(tmp_path, own_server)
    with capsys.disabled():
        print(f"\nCHAOS_SEED={seed}; logs in {tmp_path}")
    try:
        # Half of the runs make slow messages come again soon, so that much is delivered twice.
        await rig.make_streams(ack_wait_ms=rng.choice([30_000, 2_000]))
        run = Run(rig, [trial(rng, number) for number in range(EXECUTIONS)], rng)
        await _carry_all(run)
        report = await rig.check(acknowledged=run.acknowledged)
        assert not report.problems, f"{report}\n{run}"
        assert set(run.ended) >= set(run.acknowledged)
        before = report.last_sequence
        await rig.restart_everything()
        await rig.at_rest()
        report = await rig.check(acknowledged=run.acknowledged)
        assert not report.problems, f"after a restart: {report}\n{run}"
        assert report.last_sequence == before, "a restart of everything changed the log"
        with capsys.disabled():
            print(f"seed {seed}: {report}; {run}")
    finally:
        rig.close()


async def _carry_all(run: Run) -> None:
    rig = run.rig
    for kind in ["executor", "executor", "worker", "worker", "worker"]:
        rig.role(kind, **({"queues": {"default": 6}} if kind == "worker" else {}))
    await rig.ready()
    began = time.monotonic()
    async with esexec.connect(rig.url, namespace=rig.namespace) as one, esexec.connect(rig.url, namespace=rig.namespace) as two:
        carried = asyncio.gather(*(run.carry(each, [one, two]) for each in run.trials))
        try:
            await until(f"{IN_FLIGHT} executions are in flight", lambda: run.in_flight >= IN_FLIGHT, 60, lambda: run)
            while run.in_flight >= IN_FLIGHT and sum(run.kills.values()) < 4 * KILLS:
                await run.kill_something()
                await asyncio.sleep(run.rng.uniform(0.2, 2.5))
            assert sum(run.kills.values()) >= KILLS, f"too few kills while {IN_FLIGHT} executions were in flight: {run}"
            await until("all executions have ended", carried.done, 150, lambda: run)
            await carried
        finally:
            carried.cancel()
        await rig.at_rest(seconds=90)
    assert min(run.in_flight_at_kills) >= IN_FLIGHT
    print(f"{len(run.trials)} executions in {time.monotonic() - began:.0f} s")
