"""Keeping plans, step by step: whatever dies between the document and the list, and whoever else is at it, nothing is lost."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from esexec.domain import commands as c
from esexec.domain.errors import CorruptHistory, ErrorInfo, Unavailable
from esexec.domain.kept_plans import PLANS_ENTITY, plan_entity
from esexec.domain.messages import Answer
from esexec.executor.plans import PlansDesk
from esexec.executor.settings import SettingsDesk
from esexec.log import codec
from esexec.log.memory import MemoryLog
from esexec.log.port import Appended, Stored
from esexec.log.verify import verify
from tests.unit.test_kept_plans import CYCLE, CYCLE_ID, GOOD, GOOD_ID, mark, put

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class Died(BaseException):
    """The process ends here: nothing handles it."""


class MortalLog(MemoryLog):
    """A log whose user dies before or after an append to an entity, once."""

    def __init__(self) -> None:
        super().__init__()
        self.death: tuple[str, str] | None = None
        self.reads = 0

    async def append(self, entity: str, n: int, data: bytes, after: int, done: Appended) -> None:
        await asyncio.sleep(0)
        death, at = self.death, (entity.split("-")[0])
        if death == ("before", at):
            self.death = None
            raise Died
        await super().append(entity, n, data, after, done)
        if death == ("after", at):
            self.death = None
            raise Died

    async def read(self, entity: str, n: int) -> Stored | None:
        self.reads += entity == PLANS_ENTITY
        await asyncio.sleep(0)
        return await super().read(entity, n)


class Hands:
    """A message as a desk holds it, and an outbox: both say what was done."""

    def __init__(self, content: c.Command, *, deliveries: int = 1, second: int = 0) -> None:
        self.content, self.deliveries, self.time = content, deliveries, T0 + timedelta(seconds=second)
        self.entity, self.verb = PLANS_ENTITY, "put_plan"
        self.said: list[str] = []

    async def ack(self) -> None:
        self.said.append("ack")

    async def nak(self, delay_s: float) -> None:
        self.said.append("nak")


class Outbox:
    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.buried: list[ErrorInfo] = []

    async def answer(self, answer: Answer) -> None:
        self.answers.append(answer)

    async def bury(self, envelope: Any, reason: ErrorInfo) -> None:
        self.buried.append(reason)


def desk(log: MemoryLog, name: str = "x") -> tuple[PlansDesk, Outbox]:
    outbox = Outbox()
    return PlansDesk(name, log, outbox), outbox  # type: ignore[arg-type]


async def told(log: MemoryLog, command: c.PutPlan, name: str = "x", **more: Any) -> tuple[list[str], list[Answer]]:
    """What a fresh executor does with a command: what became of the message, and its answers. Dead, it says nothing."""
    one, outbox = desk(log, name)
    hands = Hands(command, **more)
    await one.take(hands)  # type: ignore[arg-type]
    try:
        await asyncio.gather(*one._tasks)
    except Died:
        return [], outbox.answers
    return hands.said, outbox.answers


def kept(log: MemoryLog) -> dict[str, str]:
    """What the list says, and that all its histories are whole and everything listed is there."""
    for entity, history in log.histories.items():
        assert verify(entity, history).ok
    found: dict[str, str] = {}
    for stored in log.histories.get(PLANS_ENTITY, []):
        found |= {event.plan_id: event.status for event in codec.decode(stored.data).events}  # type: ignore[union-attr]
    assert all(len(log.histories[plan_entity(plan_id)]) == 1 for plan_id in found)
    return found


async def test_a_plan_is_kept_and_handed_out() -> None:
    """The document first, then the list; any executor then knows the plan by its id."""
    log = MemoryLog()
    said, answers = await told(log, put())
    assert (said, kept(log)) == (["ack"], {GOOD_ID: "ready"})
    assert answers == [
        Answer(command_id="c1", execution_id=PLANS_ENTITY, status="accepted", plan_id=GOOD_ID, plan_status="ready")
    ]
    assert list(log.histories) == [plan_entity(GOOD_ID), PLANS_ENTITY]
    found = await desk(log, "another")[0].plan_of(GOOD_ID)
    assert isinstance(found, bytes)
    assert msgspec.json.decode(found) == GOOD


@pytest.mark.parametrize("death", [(when, where) for where in ("_plan", "_plans") for when in ("before", "after")])
async def test_whenever_an_executor_dies_the_next_keeps_the_plan(death: tuple[str, str]) -> None:
    """Before or after either write: the command comes again, to another executor, and then all stands, once."""
    log = MortalLog()
    log.death = death
    said, answers = await told(log, put())
    assert (said, answers) == ([], [])
    said, answers = await told(log, put(), "another", deliveries=2)
    assert (said, kept(log)) == (["ack"], {GOOD_ID: "ready"})
    assert [(one.status, one.effective) for one in answers] == [("accepted", True)]
    assert len(log.histories[PLANS_ENTITY]) == 1


@pytest.mark.parametrize("commands", [("a", "b"), ("a", "a")], ids=["two commands", "one command twice"])
async def test_rivals_keep_a_plan_once(commands: tuple[str, str]) -> None:
    """Two executors at the same instant: one document, one line in the list, both answer."""
    log = MortalLog()
    await asyncio.gather(*(told(log, put(id=id), name) for id, name in zip(commands, ("x", "y"), strict=True)))
    assert kept(log) == {GOOD_ID: "ready"}
    assert len(log.histories[PLANS_ENTITY]) == 1


async def test_rivals_with_many_plans_lose_none() -> None:
    """Everything that was acknowledged is listed, in one gapless history."""
    log = MortalLog()
    plans = [{**GOOD, "name": f"p{number}"} for number in range(20)]
    said = await asyncio.gather(*(told(log, put(one, id=f"c{n}"), f"x{n % 3}", second=n) for n, one in enumerate(plans)))
    assert [one for one, _ in said] == [["ack"]] * 20
    assert len(kept(log)) == len(log.histories[PLANS_ENTITY]) == 20


async def test_what_is_not_ready_is_not_handed_out() -> None:
    """Unknown, draft, invalid and archived plans: each is said to be what it is, and so it is with every executor at once."""
    log = MemoryLog()
    one, _ = desk(log)
    unknown = await one.plan_of(GOOD_ID)
    assert isinstance(unknown, ErrorInfo) and unknown.code == "unknown_plan"
    for number, status in enumerate(("draft", "ready", "archived")):
        await told(log, put(status=status, id=f"c{number}"))
        found = await one.plan_of(GOOD_ID)
        assert isinstance(found, bytes) == (status == "ready")
        if isinstance(found, ErrorInfo):
            assert (found.code, found.context["status"]) == ("plan_not_ready", status)
    await told(log, put(CYCLE, id="c9"))
    found = await one.plan_of(CYCLE_ID)
    assert isinstance(found, ErrorInfo) and "wait for each other" in found.message


async def test_many_starts_at_once_share_a_look() -> None:
    """The list is read for those who came before the look began, not for each; and never is a look shared that began earlier."""
    log = MortalLog()
    await told(log, put())
    one, _ = desk(log)
    log.reads = 0
    found = await asyncio.gather(*(one.plan_of(GOOD_ID) for _ in range(50)))
    assert all(isinstance(plan, bytes) for plan in found)
    assert log.reads <= 2
    await told(log, mark("archived"))
    assert isinstance(await one.plan_of(GOOD_ID), ErrorInfo)


async def test_a_look_that_failed_is_nobodys_answer() -> None:
    """Who waited for a look that the server did not answer looks again."""
    log = MortalLog()
    await told(log, put())
    one, _ = desk(log)
    load: Callable[..., Any] = log.load
    failures = [Unavailable("away")]

    async def fails_once(entity: str, after: int = 0) -> list[Stored]:
        await asyncio.sleep(0)
        if failures:
            raise failures.pop()
        found: list[Stored] = await load(entity, after)
        return found

    log.load = fails_once  # type: ignore[method-assign]
    found = await asyncio.gather(*(one.plan_of(GOOD_ID) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in found] == [Unavailable, bytes, bytes]


async def test_a_document_that_was_replaced_is_noticed() -> None:
    """What stands in the place of another plan's document is not handed out."""
    log = MemoryLog()
    await told(log, put())
    await told(log, put({**GOOD, "name": "other"}, id="c2"))
    mine, *others = [entity for entity in log.histories if entity != PLANS_ENTITY]
    log.histories[mine] = log.histories[others[0]]
    with pytest.raises(CorruptHistory):
        await desk(log)[0].plan_of(GOOD_ID)


async def test_a_refusal_is_answered_also_to_who_wants_no_confirmation() -> None:
    """A success only if it was asked for."""
    log = MemoryLog()
    silent = msgspec.structs.replace(put(), confirm=False)
    assert await told(log, silent) == (["ack"], [])
    said, answers = await told(log, msgspec.structs.replace(mark("ready", "0" * 64), confirm=False))
    assert (said, [one.status for one in answers]) == (["ack"], ["refused"])
    assert answers[0].error is not None and answers[0].error.code == "unknown_plan"


async def test_what_changes_nothing_says_so() -> None:
    """`effective` is false for a second wish of the same meaning; a command that came twice gets the same answer twice."""
    log = MemoryLog()
    assert [(await told(log, put(id=id)))[1][0].effective for id in ("c1", "c2", "c1")] == [True, False, True]


@pytest.mark.parametrize(("deliveries", "said", "buried"), [(1, ["nak"], 0), (4, ["nak"], 0), (5, [], 1)])
async def test_a_fault_of_ours_stops_nobody(
    deliveries: int, said: list[str], buried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command at which the code fails comes again a few times and is then buried; who asked is told."""

    def fails(*_: Any) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("esexec.executor.plans.decide_plans", fails)
    one, outbox = desk(MemoryLog())
    hands = Hands(put(), deliveries=deliveries)
    await one.take(hands)  # type: ignore[arg-type]
    await asyncio.gather(*one._tasks)
    assert (hands.said, len(outbox.buried), len(outbox.answers)) == (said, buried, buried)
    assert all(answer.status == "refused" for answer in outbox.answers)


async def test_a_refused_strategy_is_answered() -> None:
    """Commands on `_settings` can be refused as well."""
    outbox, followed = Outbox(), []
    one = SettingsDesk("x", MemoryLog(), outbox, followed.append)  # type: ignore[arg-type]
    for command_id, strategy_id in (("c1", "good"), ("c2", "not good")):
        strategy = msgspec.convert({"id": strategy_id}, type=c.Strategy)
        await one.take(Hands(c.AddStrategy(id=command_id, strategy=strategy)))  # type: ignore[arg-type]
        await asyncio.gather(*one._tasks)
    assert [(answer.status, answer.effective) for answer in outbox.answers] == [("accepted", True), ("refused", False)]
    assert [strategy.id for strategy in followed[-1].strategies] == ["good"]
