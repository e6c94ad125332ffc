"""Short timers also run inside the executor, beside the server's: what it sends when they fire."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from esexec.domain.effects import SetTimer
from esexec.executor.outbox import NatsOutbox
from esexec.nats.subjects import Subjects


class Publisher:
    """Keeps the subjects of what it should send; `due`: of timers that fired."""

    def __init__(self) -> None:
        self.due: asyncio.Queue[str] = asyncio.Queue()

    async def send(self, subject: str, *_: Any) -> None:
        if ".due." in subject:
            self.due.put_nowait(subject)


async def done() -> None: ...


def timer(name: int, wait_s: float) -> SetTimer:
    return SetTimer(name, datetime.now(UTC) + timedelta(seconds=wait_s), wait_s)


async def test_a_timer_that_is_set_again_fires_once() -> None:
    """When it was to fire last; another timer of the same entity fires by itself."""
    publisher: Any = Publisher()
    subjects: Any = Subjects("default")
    nobody: Any = None
    outbox = NatsOutbox(nobody, subjects, publisher)
    for wait_s in (0.0, 0.0, 0.02):
        await outbox.set_timer("_pools", timer(1, wait_s), done)
    await outbox.set_timer("_pools", timer(2, 0.05), done)
    fired = [await asyncio.wait_for(publisher.due.get(), 5) for _ in range(2)]
    assert fired == [subjects.due_in("_pools", "1"), subjects.due_in("_pools", "2")]
    await outbox.close()
