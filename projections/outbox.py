"""Tells alerts: into the stream, in order, each once.

What is told stands in a table until it is known to be in the stream. Whether it is there after a crash the stream says: the last
message of each alert's subject is looked at before the first is sent, and each is sent only behind the one that was last.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from esexec.domain.alerts import Alert
from esexec.domain.errors import EsexecError
from esexec.nats.direct import read_leader
from esexec.nats.lean import header_block
from esexec.nats.publisher import WRONG_SEQUENCE
from esexec.nats.streams import EVENTS_KEPT_MS
from esexec.world import now
from projections.projection import Outside

logger = logging.getLogger("esexec.projections")

_AGAIN_S = 1.0
_KEPT = timedelta(milliseconds=EVENTS_KEPT_MS)
_alert = msgspec.json.Decoder(Alert).decode
_encode = msgspec.json.Encoder().encode


def told_at(alert: Alert) -> datetime:
    """The time of what is told: when it was triggered, or over."""
    return alert.triggered_at if alert.resolved_at is None else alert.resolved_at


class Last(NamedTuple):
    """The last message on an alert's subject: 0 and None if there is none. `ours`: we have sent it ourselves, just now."""

    sequence: int
    alert: Alert | None
    ours: bool = False


class Outbox:
    """See the module. `told`: the numbers of those that are in the stream; their rows may go."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._waiting: deque[tuple[int, Alert]] = deque()
        self._last: dict[str, Last] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.told: list[int] = []

    def start(self) -> None:
        self._task = asyncio.create_task(self._tell_all(), name="esexec-alerts-outbox")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def begin(self, rows: Iterable[tuple[int, Alert]]) -> None:
        """These are all that there are; some of them may be in the stream."""
        self.told = []
        self._waiting = deque(rows)
        self._last.clear()
        self._wake.set()

    def offer(self, rows: Iterable[tuple[int, Alert]]) -> None:
        """These as well."""
        self._waiting += rows
        self._wake.set()

    def take_told(self) -> list[int]:
        told, self.told = self.told, []
        return told

    async def _tell_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                row = self._waiting[0]
                try:
                    stands = await self._tell(row[1])
                except EsexecError as error:
                    logger.warning("alert %s will be told again: %s", row[1].alert_id, error)
                    stands = False
                if not stands:
                    await asyncio.sleep(_AGAIN_S)
                elif self._waiting and self._waiting[0] is row:  # else all began anew meanwhile
                    self._waiting.popleft()
                    self.told.append(row[0])

    async def _tell(self, alert: Alert) -> bool:
        """Whether it stands in the stream by now, or need not."""
        last = self._last.get(alert.alert_id)
        if last is None:
            last = self._last[alert.alert_id] = await self._look(alert.alert_id)
        if not last.ours and self._is_old(alert, last):
            return True
        headers = header_block(
            {"Nats-Msg-Id": f"{alert.id}.{alert.state}", "Nats-Expected-Last-Subject-Sequence": str(last.sequence)}
        )
        subject = self._outside.subjects.alert(alert.alert_id)
        ack = await self._outside.publisher.store(subject, _encode(alert), headers)
        is_last = self._last.pop(alert.alert_id, None) is last  # else all began anew meanwhile: then it is looked at again
        if ack.error is None:
            if is_last:
                self._last[alert.alert_id] = Last(ack.seq, alert, ours=True)
            return True
        if ack.error.err_code in WRONG_SEQUENCE:  # somebody was here, perhaps this very process
            return await self._tell(alert)
        logger.warning("alert %s cannot be told: %s", alert.alert_id, ack.error.description)
        return False

    async def _look(self, alert_id: str) -> Last:
        outside = self._outside
        found = await read_leader(outside.connection, outside.subjects.events_stream, outside.subjects.alert(alert_id))
        if found is None:
            return Last(0, None)
        try:
            return Last(found.sequence, _alert(found.data))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Last(found.sequence, None)  # somebody else's

    def _is_old(self, alert: Alert, last: Last) -> bool:
        """Whether it was told before: by a view that this one was made in place of, or by a process that died upon it."""
        if last.alert is None:
            return told_at(alert) < now() - _KEPT
        if told_at(alert) != told_at(last.alert):
            return told_at(alert) < told_at(last.alert)
        known = [(one.id, one.state) for _, one in self._waiting if one.alert_id == alert.alert_id]
        # Of the same moment: those up to the last one were told, in this order.
        return (last.alert.id, last.alert.state) in known
