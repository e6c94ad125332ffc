"""How an executor keeps an entity that executions share, where something goes wrong: each message is let go once."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.effects import SetTimer
from esexec.domain.errors import CorruptHistory, EsexecError
from esexec.domain.events import Compacted
from esexec.domain.flow import ResourcePool, ResourceRequirement
from esexec.domain.sharing.requests import POOLS_ENTITY, Acquire, AskForSlot, AskToBegin, Requester, entity_of
from esexec.executor import shared
from esexec.executor.envelope import Asked, GivenBack
from esexec.executor.shared import SharedDesk
from esexec.log import codec
from esexec.log.memory import MemoryLog
from esexec.log.port import Stored
from esexec.nats.streams import ACK_WAIT_MS

T0 = datetime(2026, 1, 1, tzinfo=UTC)
ASK = AskForSlot(scope="s", key="k", limit=3)
BEGIN = AskToBegin(key="k", max_executions=9, window_ms=1_000)


class Message:
    """As much of an envelope as the desk needs; it knows how it was let go."""

    def __init__(self, content: Any, deliveries: int = 1, *, entity: str = entity_of(ASK), time: datetime = T0) -> None:
        self.entity, self.verb, self.time = entity, "acquire", time
        self.content, self.deliveries = content, deliveries
        self.said: list[str] = []

    async def ack(self) -> None:
        self.said.append("ack")

    async def nak(self, delay_s: float) -> None:
        self.said.append("nak")


class Outbox:
    """Counts who was told; `timers`: those that were set, with the seconds from T0 at which they are due."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()
        self.timers: list[tuple[int, float]] = []
        self.answers: list[Any] = []

    async def grant(self, to: Requester, answer: Any, done: Any) -> None:
        self.told["/".join(to.parts)] += 1
        await done()

    async def set_timer(self, entity: str, timer: SetTimer, done: Any) -> None:
        self.timers.append((timer.name, (timer.due - T0).total_seconds()))
        await done()

    async def answer(self, answer: Any) -> None:
        self.answers.append(answer)


class CountingLog(MemoryLog):
    """Counts how often a history was loaded, whole and in part; `gap`: so often it seems to have one."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: Counter[str] = Counter()
        self.gap = 0

    async def load(self, entity: str, after: int = 0) -> list[Stored]:
        self.loads["part" if after else "whole"] += 1
        if self.gap:
            self.gap -= 1
            raise CorruptHistory("commit 1 is missing, 2 is stored")
        return await super().load(entity, after)


class Site:
    """A desk over a log in memory, at `seconds` after T0. `unread_s`: since when a client's word is unread. `feed_at`: the
    position up to which the feed has told everything."""

    def __init__(self, log: CountingLog | None = None) -> None:
        self.log, self.outbox = log or CountingLog(), Outbox()
        self.seconds, self.unread_s = 0.0, -1.0
        self.feed_at: int | None = None
        outbox: Any = self.outbox
        self.desk = SharedDesk("x1", self.log, outbox, lambda: self.now, self.unread_since, self.feed_is_at)

    @property
    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.seconds)

    async def unread_since(self) -> datetime | None:
        return None if self.unread_s < 0 else T0 + timedelta(seconds=self.unread_s)

    async def feed_is_at(self) -> int | None:
        return self.feed_at

    async def take(self, *messages: Message) -> None:
        for message in messages:
            await self.desk.take(message)  # type: ignore[arg-type]
        while not self.desk.idle:
            await asyncio.sleep(0)

    async def pools(self, *contents: Any) -> list[str]:
        """How these messages for the pools, taken together, were let go."""
        messages = [Message(content, entity=POOLS_ENTITY, time=self.now) for content in contents]
        await self.take(*messages)
        return [word for message in messages for word in message.said]


def asked(number: int, deliveries: int = 1) -> Message:
    return Message(Asked(f"e{number}/a/1-1", Acquire(ask=ASK)), deliveries)


def begins(number: int, deliveries: int = 1, *, seconds: float = 0) -> Message:
    asked = Asked(f"e{number}/a/1-1", Acquire(ask=BEGIN))
    return Message(asked, deliveries, entity=entity_of(BEGIN), time=T0 + timedelta(seconds=seconds))


# Told again ----------------------------------------------------------------------------------------------------------------


async def test_all_that_was_told_is_told_again_once_for_all_messages_that_one_death_brings_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Messages that are delivered again, and leave nothing to do, tell once of everything; not each time."""
    site, now_mono = Site(), 1_000.0
    monkeypatch.setattr(shared, "monotonic", lambda: now_mono)
    await site.take(*[asked(number) for number in range(3)])
    assert set(site.outbox.told.values()) == {1}
    for _ in range(5):
        await site.take(Message(GivenBack("nobody/a/1-1"), deliveries=2))
    assert set(site.outbox.told.values()) == {2}
    now_mono += ACK_WAIT_MS / 1000  # whoever died after that is missed only now
    await site.take(Message(GivenBack("nobody/a/1-1"), deliveries=2))
    assert set(site.outbox.told.values()) == {3}


async def test_what_was_handed_back_and_is_decided_now_has_nobody_told_again() -> None:
    """It was delivered before, but nobody has dealt with it, so that nobody can have died over it."""
    site = Site()
    await site.take(asked(0), asked(1))
    await site.take(asked(2, deliveries=7), Message(GivenBack("e1/a/1-1"), deliveries=3))
    assert site.outbox.told == {"e0/a/1-1": 1, "e1/a/1-1": 1, "e2/a/1-1": 1}


async def test_for_a_death_those_are_told_again_who_were_granted_since_its_messages_were_sent() -> None:
    """What was decided before is older than what whoever died had in hand; however long it is until that is missed."""
    site = Site()
    for number in range(5):
        site.seconds = number * 10.0
        await site.take(begins(number, seconds=site.seconds))
    site.seconds = 600.0
    await site.take(begins(3, deliveries=2, seconds=30.0))
    assert site.outbox.told == {"e0/a/1-1": 1, "e1/a/1-1": 1, "e2/a/1-1": 1, "e3/a/1-1": 2, "e4/a/1-1": 2}


async def test_a_nudge_has_everything_told_that_follows_from_the_state() -> None:
    """Whether it was delivered before or not, and however old that is."""
    site = Site()
    await site.take(asked(0), asked(1))
    await site.take(Message(r.Nudge(), time=T0 + timedelta(days=1)))
    assert set(site.outbox.told.values()) == {2}


# Wake-ups ------------------------------------------------------------------------------------------------------------------


def hold(lease_ms: int = 1_000, id: str = "hold") -> c.AllocateResources:
    return c.AllocateResources(id=id, requirements=(ResourceRequirement("gpu"),), lease_ms=lease_ms)


def declared(capacity: float = 1.0) -> c.DeclarePool:
    return c.DeclarePool(id="pool", pool=ResourcePool("p", "gpu", capacity))


def renewal(number: int, of: str = "hold") -> c.RenewResources:
    return c.RenewResources(id=f"renew-{of}-{number}", allocation=of)


async def test_of_a_lease_that_is_renewed_only_the_present_wake_up_comes_again() -> None:
    """Each wake-up is let go: an old one for good, the present one with its timer set for when the lease ends by now."""
    site = Site()
    assert await site.pools(declared(), hold()) == ["ack", "ack"]
    assert site.outbox.timers == [(1, 1.0)]
    site.seconds = 0.5
    await site.pools(renewal(1))
    site.seconds = 1.0
    assert await site.pools(r.Due("1")) == ["ack"]
    assert site.outbox.timers[1:] == [(1, 1.5)]
    site.seconds = 1.2
    await site.pools(renewal(2))
    assert site.outbox.timers[2:] == [(3, 2.2)]
    site.seconds = 1.5
    assert await site.pools(r.Due("1")) == ["ack"]
    assert site.outbox.timers[3:] == []
    site.seconds = 2.2
    await site.pools(r.Due("3"))
    await site.pools(renewal(3))
    assert site.outbox.answers[-1].status == "refused", "it has ended"


async def test_a_lease_does_not_end_before_what_renews_it_is_read() -> None:
    """A word that was sent in time counts, though commands wait; the timer comes again a second later, until it is read."""
    site = Site()
    await site.pools(declared(2), hold(), hold(400, id="other"))
    site.seconds, site.unread_s = 1.1, 0.9
    assert await site.pools(r.Due("1")) == ["ack"]
    assert site.outbox.timers[1:] == [(2, 1.0)], "the other one had ended before"
    site.seconds = 1.2
    await site.pools(r.Due("2"))
    assert site.outbox.timers[2:] == [(2, pytest.approx(2.2))]
    site.seconds = 2.2
    await site.pools(r.Due("2"), renewal(1))
    assert (site.outbox.answers[-1].status, site.outbox.answers[-1].until) == ("accepted", T0 + timedelta(seconds=3.2))


# The log -------------------------------------------------------------------------------------------------------------------


async def test_who_was_overtaken_reads_only_what_is_new() -> None:
    """Several executors that decide upon one entity read its whole history once each."""
    log = CountingLog()
    sites = [Site(log), Site(log), Site(log)]
    for number in range(30):
        await sites[number * 7 % 3].take(asked(number))
    await sites[0].take(asked(30))
    assert [one.n for one in log.histories[entity_of(ASK)]] == list(range(1, 32))
    assert log.loads["whole"] <= 3 and log.loads["part"] == log.loads.total() - log.loads["whole"]
    told: Counter[str] = sum((site.outbox.told for site in sites), Counter())
    assert set(told.values()) == {1} and len(told) == 31


async def test_who_was_overtaken_by_a_compaction_reads_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would have to read beside what it knows is not there any more."""
    log = CountingLog()
    one, other = Site(log), Site(log)
    await one.take(asked(0))
    monkeypatch.setattr(limits, "commits_before_compaction", 3)
    for number in range(1, 8):
        await other.take(asked(number))
    await one.take(asked(8))
    assert one.outbox.told["e8/a/1-1"] == 1 and log.histories[entity_of(ASK)][0].n > 1


async def test_what_is_read_while_it_is_compacted_is_read_once_more() -> None:
    """It only seems to be corrupt, and nothing is buried for that."""
    site = Site()
    site.log.gap = 1
    message = asked(0)
    await site.take(message)
    assert message.said == ["ack"] and site.outbox.told["e0/a/1-1"] == 1


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


async def test_what_the_feed_has_not_told_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A history begins with a commit that holds all that was before it, and all of that has been told."""
    monkeypatch.setattr(limits, "commits_before_compaction", 3)
    site, numbers = Site(), iter(range(1000))

    def kept() -> list[Stored]:
        return site.log.histories[entity_of(ASK)]

    async def goes_on() -> None:
        for _ in range(12):
            await site.take(asked(next(numbers)))

    site.feed_at = 0
    await goes_on()
    assert kept()[0].n == 1
    site.feed_at = kept()[9].position
    await goes_on()
    assert kept()[0].n > 1 and kept()[0].position <= site.feed_at + 1
    assert isinstance(codec.decode(kept()[0].data).events[0], Compacted)
    another = Site(site.log)  # which reads what there is
    await another.take(asked(next(numbers)))
    assert another.outbox.told.total() == 1
    site.feed_at = kept()[-1].position + 1000
    await goes_on()
    assert len(kept()) <= 4


async def test_a_feed_that_is_far_behind_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to read a history without an end."""
    monkeypatch.setattr(limits, "commits_before_compaction", 3)
    monkeypatch.setattr(limits, "untold_positions", 10)
    site = Site()
    site.feed_at = 0
    for number in range(60):
        await site.take(asked(number))
    assert 10 <= len(site.log.histories[entity_of(ASK)]) < 20


async def test_a_log_that_was_replaced_is_not_cut_where_the_other_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is let go is before a commit that is still there."""
    monkeypatch.setattr(limits, "commits_before_compaction", 3)
    site = Site()
    site.feed_at = 0
    for number in range(8):
        await site.take(asked(number))
    box = site.desk._boxes[entity_of(ASK)]
    whole = box.shortening._whole = [one._replace(hash="of a commit of another log") for one in box.shortening._whole]
    site.feed_at = whole[0].position
    for number in range(8, 12):
        await site.take(asked(number))
    assert site.log.histories[entity_of(ASK)][0].n == 1
