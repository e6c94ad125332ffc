"""How an executor keeps an entity that executions share, where something goes wrong: each message is let go once."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.errors import EsexecError
from esexec.domain.sharing.requests import Acquire, AskForSlot, Requester, entity_of
from esexec.executor import shared
from esexec.executor.envelope import Asked
from esexec.executor.shared import SharedDesk
from esexec.log.memory import MemoryLog
from esexec.nats.streams import ACK_WAIT_MS

T0 = datetime(2026, 1, 1, tzinfo=UTC)
ASK = AskForSlot(scope="s", key="k", limit=3)


class Message:
    """As much of an envelope as the desk needs; it knows how it was let go."""

    def __init__(self, content: Any, deliveries: int = 1) -> None:
        self.entity, self.verb, self.time = entity_of(ASK), "acquire", T0
        self.content, self.deliveries = content, deliveries
        self.said: list[str] = []

    async def ack(self) -> None:
        self.said.append("ack")

    async def nak(self, delay_s: float) -> None:
        self.said.append("nak")


class Outbox:
    """Counts who was told."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()

    async def grant(self, to: Requester, answer: Any, done: Any) -> None:
        self.told["/".join(to.parts)] += 1
        await done()


class Site:
    """A desk over a log in memory."""

    def __init__(self) -> None:
        self.log, self.outbox = MemoryLog(), Outbox()
        self.desk = SharedDesk("x1", self.log, self.outbox, lambda: T0)  # type: ignore[arg-type]

    async def take(self, *messages: Message) -> None:
        for message in messages:
            await self.desk.take(message)  # type: ignore[arg-type]
        while not self.desk.idle:
            await asyncio.sleep(0)


def asked(number: int) -> Message:
    return Message(Asked(f"e{number}/a/1-1", Acquire(ask=ASK)))


async def test_all_that_was_told_is_told_again_once_for_all_messages_that_one_death_brings_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Messages that are delivered again tell once of everything; what is handed back comes again soon, and does not each time."""
    site, now_mono = Site(), 1_000.0
    monkeypatch.setattr(shared, "monotonic", lambda: now_mono)
    await site.take(*[asked(number) for number in range(3)])
    assert set(site.outbox.told.values()) == {1}
    for _ in range(5):
        await site.take(Message(r.Nudge(), deliveries=2))
    assert set(site.outbox.told.values()) == {2}
    now_mono += ACK_WAIT_MS / 1000  # whoever died after that is missed only now
    await site.take(Message(r.Nudge(), deliveries=2))
    assert set(site.outbox.told.values()) == {3}


async def test_a_state_that_does_not_fit_into_a_message_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entity goes on with its whole history: what was asked is answered, and let go once."""
    monkeypatch.setattr(limits, "commits_before_compaction", 1)
    monkeypatch.setattr(limits, "message_bytes", limits.headers_bytes + 500)
    site = Site()
    messages = [asked(number) for number in range(9)]
    await site.take(*messages)
    assert [message.said for message in messages] == [["ack"]] * 9
    assert [one.n for one in site.log.histories[entity_of(ASK)]] == [1]


async def test_what_goes_wrong_when_a_state_is_written_down_concerns_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have been dealt with, and are not handed back a second time."""
    monkeypatch.setattr(limits, "commits_before_compaction", 1)
    site = Site()

    async def forget(*_: Any) -> None:
        raise EsexecError("the stream is gone")

    monkeypatch.setattr(site.log, "forget", forget)
    messages = [asked(number) for number in range(2)]
    await site.take(*messages)
    assert [message.said for message in messages] == [["ack"]] * 2
    await site.take(asked(2))
    assert site.outbox.told["e2/a/1-1"] == 1
