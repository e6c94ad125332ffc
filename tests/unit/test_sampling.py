"""What a worker tells of its process."""

import asyncio
import mmap
import time

import msgspec

from esexec.domain import limits
from esexec.domain.messages import WorkerSample
from esexec.nats.connection import OutboundBufferLimitError
from esexec.worker.sampling import Sampler, machine_bytes, memory_bytes


def test_a_busy_process_uses_a_core() -> None:
    """CPU is counted since the sample before: much while it computes, little while it sleeps."""
    sampler = Sampler("w", list)
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    busy = sampler.sample()
    time.sleep(0.2)
    idle = sampler.sample()
    assert busy.cpu_usage > idle.cpu_usage
    assert idle.cpu_usage < 100


def test_memory_grows_with_what_is_kept() -> None:
    """What the process has resident, and which part of the machine that is."""
    before = memory_bytes()
    kept = mmap.mmap(-1, 50_000_000)  # by the system itself: what Python frees, Python may keep
    kept.write(b"x" * 50_000_000)
    after = Sampler("w", list).sample()
    assert after.memory_bytes - before > 40_000_000
    assert after.memory_usage == round(100 * after.memory_bytes / machine_bytes(), 2)
    assert len(kept) == 50_000_000


def test_executions_are_named_once_and_not_all_of_them() -> None:
    """Every attempt in hand is counted; of their executions so many are named, each once."""
    running = [f"e{number}" for number in range(150) for _ in range(2)]
    sample = Sampler("w", lambda: running).sample()
    assert sample.running == 300
    assert sample.executions == tuple(f"e{number}" for number in range(limits.sampled_executions))


async def test_a_server_that_is_away_ends_nothing() -> None:
    """What cannot be sent is lost, and the next is told."""
    sent: list[WorkerSample] = []
    tries = 0
    told = asyncio.Event()

    def post(data: bytes) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OutboundBufferLimitError
        sent.append(msgspec.json.decode(data, type=WorkerSample))
        told.set()

    telling = asyncio.create_task(Sampler("w", list).tell(post, 0.001))
    await asyncio.wait_for(told.wait(), 5)
    telling.cancel()
    assert sent[0].worker == "w" and tries >= 2
