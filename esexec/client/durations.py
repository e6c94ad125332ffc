"""Asking how long a plan took in the past: a query to whoever keeps that. Where nobody does, nothing is known, nor waited for."""

import time
from contextlib import suppress

import msgspec

from esexec.domain.errors import Unavailable
from esexec.nats.connection import Connection
from esexec.nats.subjects import Subjects
from esexec.views import Durations

_PATIENCE_S = 0.3
_KEPT_S = 10.0
_PLANS_KEPT = 100
_decode = msgspec.json.Decoder(Durations).decode


class PastDurations:
    """Answers are kept for some seconds, of so many plans: of many executions of a plan that are watched, one asks."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self._connection, self._subject = connection, subjects.query("durations")
        self._kept: dict[str, tuple[float, Durations | None]] = {}

    async def of(self, plan_id: str) -> Durations | None:
        """None: nobody answers, soon enough and in words that can be read; or the plan never completed."""
        found, now_mono = self._kept.get(plan_id), time.monotonic()
        if found is not None and now_mono - found[0] < _KEPT_S:
            return found[1]
        durations = await self._ask(plan_id)
        if len(self._kept) >= _PLANS_KEPT:
            self._kept.clear()
        self._kept[plan_id] = now_mono, durations
        return durations

    async def _ask(self, plan_id: str) -> Durations | None:
        question = msgspec.json.encode({"plan_id": plan_id})
        with suppress(Unavailable, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            answer = await self._connection.request(self._subject, question, timeout=_PATIENCE_S)
            if "Nats-Service-Error-Code" not in (answer.headers or {}):
                return _decode(answer.data)
        return None
