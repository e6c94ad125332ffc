"""What the desk does when something goes wrong that is nobody's message's fault: nothing is kept in hand for ever."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from esexec.domain import effects as fx
from esexec.domain import reports as r
from esexec.domain.decision import Verdict
from esexec.domain.dispatches import Deferred
from esexec.domain.errors import EsexecError
from esexec.domain.objects import ObjectRef
from esexec.executor.desk import Desk
from esexec.executor.mailbox import Batch, Mailbox
from esexec.log.memory import MemoryLog
from esexec.testing.objects import MemoryObjects
from tests.given import asked_about, given, pause, resume, start, step, withdrawn


class Hands:
    """A message as the desk holds it, and an outbox: both say what was done."""

    def __init__(self, content: Any = None, *, deliveries: int = 1) -> None:
        self.said: list[str] = []
        self.entity, self.verb, self.data, self.subject = "e1", "nudge", b"", ""
        self.content, self.deliveries, self.time = content or r.Nudge(), deliveries, datetime(2026, 1, 1, tzinfo=UTC)
        self.step = self.attempt = self.queue = ""
        self.ready, self.in_line_mono = False, 0.0

    async def ack(self) -> None:
        self.said.append("ack")

    async def nak(self, delay_s: float) -> None:
        self.said.append("nak")

    def __getattr__(self, effect: str) -> Any:
        async def note(*arguments: Any) -> None:
            self.said.append(effect)
            if callable(arguments[-1]):
                await arguments[-1]()

        return note


async def settled(desk: Desk) -> None:
    while desk._tasks:
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("fault", "deliveries", "said"),
    [
        (EsexecError("the stream is gone"), 1, ["nak"]),
        (EsexecError("the stream is gone"), 99, ["nak"]),
        (ZeroDivisionError("a fault of ours"), 1, ["nak"]),
        (ZeroDivisionError("a fault of ours"), 99, ["bury"]),
    ],
)
async def test_whatever_goes_wrong_with_something_rare_its_message_is_let_go(
    fault: Exception, deliveries: int, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that nobody acknowledges or gives back would count as held for ever, and in the end its partition would stand."""
    hands, log = Hands(deliveries=deliveries), MemoryLog()

    async def fails(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(log, "read", fails)
    desk = Desk("x", log, hands)  # type: ignore[arg-type]
    await desk.take(hands)  # type: ignore[arg-type]
    await settled(desk)
    assert hands.said == said


class Caught(Mailbox):
    """A mailbox that carries nothing out."""

    async def carry(self, batch: Batch) -> None:
        self.batch = batch


@pytest.mark.parametrize("n", [1, 2, 4])
async def test_who_repeats_a_commit_asks_for_all_that_it_hands_out(n: int) -> None:
    """Also for what a pause provably took back before the resume: the one who carried that out may have handed it out again."""
    history = given(start("a"), pause())
    history.happen(withdrawn("a", pause=history.state.pause))
    outcome = history.when(resume())
    assert asked_about(outcome.effects) == []
    hands = Hands()
    mailbox = Caught(Desk("x", MemoryLog(), hands), "e1")  # type: ignore[arg-type]
    mailbox.state = history.state
    await mailbox.repeat(hands, Verdict("repeated", n=n), history.commits[n - 1])  # type: ignore[arg-type]
    assert asked_about(mailbox.batch.effects) == ["a/1-1"]


async def test_an_attempt_that_cannot_be_made_a_dispatch_of_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while its params are resolved is the attempt's failure: the effects behind it are not held up."""

    def fails(*_: Any) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(fx, "dispatch_of", fails)
    hands = Hands(start("a"))
    desk = Desk("x", MemoryLog(), hands)  # type: ignore[arg-type]
    await desk.take(hands)  # type: ignore[arg-type]
    await settled(desk)
    assert [one for one in hands.said if one != "answer"] == ["report", "ack"]
    assert desk.idle


class Far(MemoryObjects):
    """Objects that are had only after something has happened; or not at all, for a reason that nobody thought of."""

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__()
        self.fault = fault

    async def value(self, ref: ObjectRef) -> Any:
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return {"name": "x"}


def needs_an_object() -> fx.DispatchAttempt:
    """A dispatch whose params are told only with an object."""
    asked = given(start(step("a", params={"title": "for ${input.name}"}), input_object=ObjectRef("a" * 64, 300_000)))
    return next(one for one in fx.open_effects(asked.state) if isinstance(one, fx.DispatchAttempt))._replace(again=False)


@pytest.mark.parametrize(
    ("fault", "slow_s", "said"),
    [(None, 5.0, ["dispatch", False]), (None, 0.0, ["dispatch", True]), (ZeroDivisionError("ours"), 5.0, ["report", None])],
)
async def test_what_waits_for_an_object_ends_however_that_ends(
    fault: Exception | None, slow_s: float, said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long wait another executor may have handed it out, which is asked first. A fault fails the attempt alone."""
    monkeypatch.setattr("esexec.executor.dispatching._SLOW_S", slow_s)
    effect, told = needs_an_object(), list[Any]()
    assert isinstance(effect.message, Deferred)

    class Told(Hands):
        async def dispatch(self, entity: str, to: fx.DispatchAttempt, *arguments: Any) -> None:
            told.extend(["dispatch", to.again and to.in_hand])

        async def report(self, *arguments: Any) -> None:
            told.extend(["report", None])

    desk = Desk("x", MemoryLog(), Told(), objects=Far(fault))  # type: ignore[arg-type]
    mailbox = Mailbox(desk, "e1")
    await desk.carry_out(mailbox, Batch(given(start("a")).state, []), effect)
    await settled(desk)
    assert told == said


async def test_few_large_dispatches_are_made_ready_at_a_time() -> None:
    """Each may have as much in memory as an object; a fan-out has hundreds."""
    most = at_once = 0

    class Counting(Far):
        async def value(self, ref: ObjectRef) -> Any:
            nonlocal most, at_once
            at_once += 1
            most = max(most, at_once)
            for _ in range(5):
                await asyncio.sleep(0)
            at_once -= 1
            return {"name": "x"}

    hands = Hands()
    desk = Desk("x", MemoryLog(), hands, objects=Counting())  # type: ignore[arg-type]
    mailbox, batch = Mailbox(desk, "e1"), Batch(given(start("a")).state, [])
    batch.open = 100
    for _ in range(30):
        await desk.carry_out(mailbox, batch, needs_an_object())
    await settled(desk)
    assert (hands.said, most) == (["dispatch"] * 30, 4)
