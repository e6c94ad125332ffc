"""How a worker's process does, told every few seconds on a subject of the whole namespace. Whoever wants to know listens there.

Two system calls and a message each time, from a task of its own: no attempt pays for it.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

import msgspec

from esexec.domain import limits
from esexec.domain.messages import WorkerSample
from esexec.nats.connection import OutboundBufferLimitError
from esexec.world import now

Post = Callable[[bytes], None]
"""Sends a sample. May raise OutboundBufferLimitError: then nobody hears it."""


class Sampler:
    """Measures this process. `running`: the executions of the attempts in hand, one for each attempt."""

    def __init__(self, worker: str, running: Callable[[], Iterable[str]]) -> None:
        self._worker, self._running = worker, running
        self._cpu_s, self._mono = time.process_time(), time.monotonic()

    def sample(self) -> WorkerSample:
        """How it does now; the CPU since the sample before."""
        cpu_s, mono = time.process_time(), time.monotonic()
        took_s = mono - self._mono
        used = max(0.0, cpu_s - self._cpu_s) / took_s if took_s > 0 else 0.0
        self._cpu_s, self._mono = cpu_s, mono
        memory, machine = memory_bytes(), machine_bytes()
        running = list(self._running())
        return WorkerSample(
            worker=self._worker,
            at=now(),
            cpu_usage=round(100 * used, 1),
            memory_usage=round(100 * memory / machine, 2) if machine else 0.0,
            memory_bytes=memory,
            running=len(running),
            executions=tuple(islice(dict.fromkeys(running), limits.sampled_executions)),
        )

    async def tell(self, post: Post, every_s: float) -> None:
        """A sample each `every_s` seconds, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            with suppress(OutboundBufferLimitError):  # disconnected
                post(msgspec.json.encode(self.sample()))


def memory_bytes() -> int:
    """The memory that this process has resident; where the system tells no such thing, the most that it ever had, or 0."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def machine_bytes() -> int:
    """The memory of this machine; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0
