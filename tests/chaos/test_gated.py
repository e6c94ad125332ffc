"""Kill everything while executions share rate limits, concurrency keys and pools: nothing is granted that there is not, nothing
is kept by who has ended, and all end.

`CHAOS_SEED=n` repeats a run's plans and kills (not its timing). The logs of all processes stay under pytest's tmp directory.
"""

import asyncio
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

import esexec
from esexec.nats.connection import connect
from esexec.nats.direct import DirectReader
from esexec.nats.lean import Message
from esexec.nats.subjects import Subjects
from tests.chaos.gated import POOLS, gated_trial
from tests.chaos.rig import Rig, until
from tests.chaos.tale_of_grants import SHARING, left_behind, tales_of
from tests.chaos.test_chaos import Run
from tests.server import NatsServer

EXECUTIONS = 150
KILLS = 15
STORM_S = 20.0
FILLED = ("_limit-", "_slots-")
"""These are full at times; so are the pools, unless too much of them is compacted."""
_LOOK_S = 0.1


class Recorder:
    """Reads the log along, and hears what is new, so that it has also what is compacted later on. A commit may be in it twice."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._position = rig, 0
        self.commits: list[dict[str, Any]] = []

    async def run(self) -> None:
        async with await connect(self._rig.server.url, name="recorder") as connection:
            await connection.listen(Subjects(self._rig.namespace).commits_all, self._hear)
            reader, stream = await DirectReader(connection).start(), Subjects(self._rig.namespace).log_stream
            while True:
                try:
                    found = await reader.from_first(stream, ">", 1000, first=self._position + 1)
                except esexec.Unavailable:
                    continue
                for one in found:
                    self._position = one.sequence
                    self.commits.append(json.loads(one.data))
                if not found:
                    await asyncio.sleep(_LOOK_S)

    async def _hear(self, message: Message) -> None:
        self.commits.append(json.loads(message.data))

    async def come_to(self, position: int) -> None:
        await until("the log is read", lambda: self._position >= position, 20)


@pytest.mark.chaos
@pytest.mark.timeout(400)
async def test_whatever_is_killed_nothing_is_granted_that_there_is_not(
    own_server: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Executors, workers and the server are killed: no window, key or pool ever holds more than it may, nothing is left held."""
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
    rng = random.Random(seed)
    rig = Rig(tmp_path, own_server)
    with capsys.disabled():
        print(f"\nCHAOS_SEED={seed}; logs in {tmp_path}")
    recorder = Recorder(rig)
    try:
        await rig.make_streams(ack_wait_ms=2_000)
        recording = asyncio.ensure_future(recorder.run())
        run = Run(rig, [gated_trial(rng, number) for number in range(EXECUTIONS)], rng)
        await _carry_all(run)
        report = await rig.check(acknowledged=run.acknowledged)
        await recorder.come_to(report.last_sequence)
        tales, problems = tales_of(recorder.commits)
        shared = {one["execution_id"] for one in recorder.commits if one["execution_id"].startswith(SHARING)}
        assert len(shared - tales.keys()) <= 1, f"of these not all was read before it was compacted: {shared - tales.keys()}"
        problems += left_behind(tales) + _unlike(recorder.commits, tales)
        shown = {entity: f"{tale.ever.total()} grants, {tale.fullest:.2f} full" for entity, tale in tales.items()}
        with capsys.disabled():
            print(f"seed {seed}: {report}; {run}; {shown}")
        assert not report.problems, f"{report}\n{run}"
        assert not problems, "\n".join(problems[:20])
        assert set(run.ended) >= set(run.acknowledged)
        assert all(max(tale.fullest for name, tale in tales.items() if name.startswith(kind)) == 1.0 for kind in FILLED), shown
        await rig.restart_everything()
        await rig.at_rest()
        again = await rig.check(acknowledged=run.acknowledged)
        assert not again.problems, f"after a restart: {again}\n{run}"
        assert again.last_sequence == report.last_sequence, "a restart of everything changed the log"
        recording.cancel()
    finally:
        rig.close()


def _unlike(commits: list[dict[str, Any]], tales: dict[str, Any]) -> list[str]:
    """Grants that an execution's history tells of, and the history of what grants does not."""
    problems = []
    for commit in commits:
        execution = commit["execution_id"]
        for event in commit["events"]:
            if event["type"] == "execution_granted":
                who = f"{execution}/_/{event.get('run', 1)}-0"
            elif event["type"] in ("task_granted", "resource_allocated"):
                who = f"{execution}/{event['step']}/{event.get('run', 1)}-{event.get('attempt', 1)}"
            else:
                continue
            entity = event.get("entity", "_pools")
            if entity in tales and not tales[entity].ever[who]:
                problems.append(f"{entity} never granted what {who} has")
    return problems


async def _carry_all(run: Run) -> None:
    rig = run.rig
    for kind in ["executor", "executor", "executor", "worker", "worker", "worker"]:
        rig.role(kind, **({"queues": {"default": 6}} if kind == "worker" else {}))
    await rig.ready()
    async with esexec.connect(rig.url, namespace=rig.namespace, confirm_s=20) as client:
        for pool in POOLS:
            await client.resources.declare(pool)
        carried = asyncio.gather(*(_later(run, number, client) for number in range(EXECUTIONS)))
        try:
            began = time.monotonic()
            while time.monotonic() < began + STORM_S:
                await asyncio.sleep(run.rng.uniform(0.4, 1.6) * STORM_S / KILLS)
                await run.kill_something()
            await until("all executions have ended", carried.done, 150, lambda: run)
            await carried
        finally:
            carried.cancel()
        await rig.at_rest(seconds=90)


async def _later(run: Run, number: int, client: esexec.Client) -> None:
    """The executions begin one after the other while it storms."""
    await asyncio.sleep(number * 0.8 * STORM_S / EXECUTIONS)
    await run.carry(run.trials[number], [client])
