"""Kill everything while executions are rolled back, recover, are paused, restored and retried by clients who agree on nothing.

`CHAOS_SEED=n` repeats a run's plans, wishes and kills (not its timing). The logs of all processes stay in pytest's tmp directory.
"""

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

import esexec
from tests.chaos.handlers import STRATEGIES
from tests.chaos.lives import Life, life
from tests.chaos.rig import Rig, until
from tests.chaos.wishes import Wishes
from tests.server import NatsServer

EXECUTIONS = 160
KILLS_OF_EACH = 10
STORM_S = 34.0
ENDS = {"completed", "failed", "cancelled", "rolled_back"}
MUST_HAPPEN = (
    "execution_paused", "execution_resumed", "execution_retried", "checkpoint_restored", "execution_rolled_back",
    "rollback_started", "compensation_completed", "compensation_failed", "recovery_completed", "task_fallback_started",
    "before_image_recorded", "execution_deadline_exceeded", "task_timed_out", "execution_cancelled",
)  # fmt: skip


class Storm:
    """What is done to the executions, and what came of it."""

    def __init__(self, rig: Rig, lives: list[Life], rng: random.Random) -> None:
        self.rig, self.lives, self.rng = rig, lives, rng
        self.wishes: Wishes
        self.client: esexec.Client
        self.started: dict[str, Life] = {}
        self.ended: dict[str, str] = {}
        self.kills: Counter[str] = Counter()
        self.in_flight: list[int] = []
        """How many executions had begun and not come to rest, at each kill."""
        self.idle: set[str] = set()
        self.watchers: list[asyncio.Future[None]] = []
        self.over = asyncio.Event()

    def __str__(self) -> str:
        waiting = sorted(self.started.keys() - self.ended.keys())
        said = dict(Counter(self.wishes.said).most_common())
        ends = dict(Counter(self.ended.values()))
        kills = f"kills {dict(self.kills)} with in flight {self.in_flight}"
        return f"ended {ends}; said {said}, {self.wishes.unanswered} unanswered; {kills}; not ended {waiting[:10]}"

    async def live(self, one: Life) -> None:
        """Start it, meddle with it, and see that it ends."""
        execution_id = f"life-{one.number}"
        try:
            await self.client.start(one.plan, execution_id=execution_id, **one.options)
        except esexec.NotConfirmed:
            pass  # it is durable, and will be carried out
        self.started[execution_id] = one
        self.watchers.append(asyncio.ensure_future(self.watch(execution_id)))
        began = time.monotonic()
        for after, verb in one.meddling:
            await asyncio.sleep(max(0.0, began + after - time.monotonic()))
            await self.meddle(execution_id, verb)
        await self.over.wait()
        await self.see_the_end(execution_id)

    async def watch(self, execution_id: str) -> None:
        """Keeps count of those that have come to rest for now; somebody may yet retry them."""
        while execution_id not in self.ended:
            try:
                await self.client.wait(execution_id, wait_timeout=5)
            except (esexec.AwaitTimeout, esexec.Unavailable):
                self.idle.discard(execution_id)
            else:
                self.idle.add(execution_id)
                await asyncio.sleep(1)

    async def meddle(self, execution_id: str, verb: str) -> None:
        body = {}
        if verb == "restore":
            try:
                made = await self.client.checkpoints.list(execution_id)
            except (esexec.NotFound, esexec.Unavailable):
                return
            body["checkpoint_id"] = self.rng.choice(made).id if made else f"{execution_id}.1"
        await self.wishes.say(execution_id, verb, **body)

    async def see_the_end(self, execution_id: str) -> None:
        """Whatever holds it is let go; then it ends."""
        while True:
            answer = await self.wishes.say(execution_id, "resume")
            if answer is None:
                continue
            try:
                result = await self.client.wait(execution_id, wait_timeout=30)
            except (esexec.AwaitTimeout, esexec.Unavailable):
                continue
            self.ended[execution_id] = result.status.value
            return

    async def kill(self, kind: str) -> None:
        """SIGKILL for a process of this kind, and its restart at once."""
        self.kills[kind] += 1
        self.in_flight.append(len(self.started) - len(self.idle))
        if kind == "server":
            await asyncio.to_thread(self.rig.server.restart)
        else:
            role = self.rng.choice([role for role in self.rig.roles if role.kind == kind])
            role.kill()
            role.start()

    async def rage(self) -> None:
        kinds = ["executor", "worker", "server"] * KILLS_OF_EACH
        self.rng.shuffle(kinds)
        for kind in kinds:
            await self.kill(kind)
            await asyncio.sleep(self.rng.uniform(0.5, 1.5) * STORM_S / len(kinds))


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_whatever_is_killed_in_the_middle_of_lives_the_log_and_the_world_agree(
    own_server: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten kills of executors, workers and the server each: all end, nothing is undone twice or out of turn, no wish is lost."""
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
    rng = random.Random(seed)
    rig = Rig(tmp_path, own_server)
    with capsys.disabled():
        print(f"\nCHAOS_SEED={seed}; logs in {tmp_path}")
    storm = Storm(rig, [life(rng, number, spread_s=8) for number in range(EXECUTIONS)], rng)
    try:
        await rig.make_streams(ack_wait_ms=rng.choice([30_000, 2_000]))
        for kind in ["executor", "executor", "worker", "worker", "worker"]:
            rig.role(kind, **({"queues": {"default": 8}} if kind == "worker" else {}))
        await rig.ready()
        storm.wishes = await Wishes.begin(rig.url, rig.namespace)
        async with esexec.connect(rig.url, namespace=rig.namespace) as storm.client:
            for strategy in STRATEGIES:
                await storm.client.strategies.add(strategy)
            await _carry_all(storm)
        await rig.at_rest(seconds=90)
        acknowledged = {execution_id: ENDS for execution_id in storm.started}
        report = await rig.check(acknowledged=acknowledged, wishes=storm.wishes.answered)
        with capsys.disabled():
            print(f"seed {seed}: {report}; {storm}; unknown {report.unknown[:5]}")
        assert not report.problems, f"{report}\n{storm}"
        assert not [kind for kind in MUST_HAPPEN if not report.told[kind]], dict(report.told)
        before = report.last_sequence
        await rig.restart_everything()
        await rig.at_rest()
        again = await rig.check(acknowledged=acknowledged, wishes=storm.wishes.answered)
        assert not again.problems, f"after a restart: {again}\n{storm}"
        assert again.last_sequence == before, "a restart of everything changed the log"
        await storm.wishes.close()
    finally:
        rig.close()


async def _carry_all(storm: Storm) -> None:
    carried = asyncio.gather(*(_later(storm, one, at) for at, one in enumerate(storm.lives)))
    try:
        await until("the first executions have begun", lambda: len(storm.started) > 10, 30)
        await storm.rage()
        storm.over.set()
        await until("all executions have ended", carried.done, 120, lambda: storm)
        await carried
    finally:
        carried.cancel()
        for watcher in storm.watchers:
            watcher.cancel()


async def _later(storm: Storm, one: Life, at: int) -> None:
    """The executions begin one after the other while it storms."""
    await asyncio.sleep(at * STORM_S * 0.9 / EXECUTIONS)
    await storm.live(one)
