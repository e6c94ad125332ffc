"""Alerts on their way into the stream, by somebody who begins anew meanwhile."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from esexec.domain.alerts import Alert, AlertCondition
from esexec.nats.publisher import WRONG_SEQUENCE
from esexec.nats.subjects import Subjects
from projections import outbox
from projections.outbox import Outbox
from projections.projection import Outside
from tests.integration.engine import until


class Answer:
    def __init__(self, seq: int, err_code: int | None = None) -> None:
        self.seq = seq
        self.error = None if err_code is None else type("Error", (), {"err_code": err_code, "description": "no"})()


class Stream:
    """Takes what is published, once it is let; `answers`: what it says first."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.stored = list(answers), list[bytes]()
        self.asked, self.let = 0, asyncio.Event()

    async def store(self, subject: str, data: bytes, headers: bytes) -> Answer:
        self.asked += 1
        await self.let.wait()
        if self.answers:
            return self.answers.pop(0)
        self.stored.append(data)
        return Answer(len(self.stored))


ALERT = Alert(
    id="o1",
    alert_id="a",
    state="triggered",
    condition=AlertCondition("execution_failed", "gte", 1),
    triggered_at=datetime(2026, 11, 30, tzinfo=UTC),
    value=1.0,
    message="it failed",
)


async def test_all_begins_anew_while_one_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stream then answers to the one that was under way ends nobody's telling: all are told."""

    async def nothing(*_: Any) -> None:
        return None

    monkeypatch.setattr(outbox, "read_leader", nothing)
    monkeypatch.setattr(outbox, "now", lambda: ALERT.triggered_at)
    stream = Stream(Answer(0, next(iter(WRONG_SEQUENCE))))
    telling = Outbox(cast(Outside, type("Room", (), {"connection": None, "subjects": Subjects("x"), "publisher": stream})()))
    telling.start()
    telling.begin([(1, ALERT)])
    await until(lambda: stream.asked == 1)
    telling.begin([(2, ALERT)])
    stream.let.set()
    await until(lambda: telling.told == [2])
    assert stream.stored
    await telling.stop()
