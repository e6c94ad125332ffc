"""A message on its way through the executor: what it says, where it came from, and how it is let go.

An envelope is acknowledged only when all that it caused stands; until then a crash makes the server deliver it again.
"""

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from esexec.domain import commands as c
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo
from esexec.domain.sharing import requests as s
from esexec.nats.connection import Connection, Msg, OutboundBufferLimitError
from esexec.nats.pull import Tap, delivery_of, sequence_of
from esexec.world import now

DELIVERIES_OF_UNKNOWN = 20
"""What speaks of something that no history knows is looked for this often before it is parked."""
DELIVERIES_OF_POISON = 5
"""A message to an entity that executions share, at which the code fails this often, is buried."""


class Asked(NamedTuple):
    """Somebody asks an entity that executions share, under this id."""

    request_id: str
    acquire: s.Acquire


class GivenBack(NamedTuple):
    """Who asked under this id is done."""

    request_id: str


Content = c.Command | r.Report | r.Due | r.Continue | r.Nudge | s.Granted | s.Waiting | s.Denied | Asked | GivenBack


class Envelope:
    """`entity` and `verb` stand in the subject (`verb`: a command's verb, `report`, `due`, `continue`, `nudge`, `grant`); `step`
    and `attempt` only in a report's and a grant's. `deliveries` counts from 1. `ready`: what had to be done before it could be
    decided is done (a start's key is ours; it is a command's turn). `in_line_mono`: since when it stood in line for its turn."""

    __slots__ = (
        "_ack", "_client", "_tap", "attempt", "content", "data", "deliveries", "entity", "in_line_mono", "queue", "ready",
        "step", "subject", "time", "verb",
    )  # fmt: skip

    def __init__(self, connection: Connection, tap: Tap, message: Msg, entity: str, verb: str) -> None:
        self._client, self._tap, self._ack = connection.client, tap, message.reply
        self.entity, self.verb, self.data, self.subject = entity, verb, message.data, message.subject
        self.deliveries, nanoseconds = delivery_of(message.reply)
        self.time = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
        self.content: Content = _NOTHING
        self.queue = self.step = self.attempt = ""
        self.ready = False
        self.in_line_mono = 0.0

    @property
    def sequence(self) -> int:
        """Its place in the stream that it came from."""
        return sequence_of(self._ack)

    async def ack(self) -> None:
        """It is dealt with, for good."""
        try:
            self._client.post(self._ack, b"")
        except OutboundBufferLimitError:
            pass  # disconnected: it will be delivered again, and be recognised
        if self._tap.release():
            await self._tap.refill()

    async def nak(self, delay_s: float) -> None:
        """Deliver it again, not before `delay_s` seconds."""
        try:
            self._client.post(self._ack, b"-NAK " + msgspec.json.encode({"delay": int(delay_s * 1e9)}))
        except OutboundBufferLimitError:
            pass
        if self._tap.release():
            await self._tap.refill()


_NOTHING = r.Nudge()


def undecidable(envelope: Envelope, code: str, error: Exception | None) -> ErrorInfo:
    """Why a message is put among the dead."""
    return ErrorInfo(
        type="internal_error",
        code=code,
        message=f"{envelope.verb} for {envelope.entity} could not be decided" + (f": {error}" if error else ""),
        hint="it is kept in DEAD and can be redriven once the cause is gone",
        timestamp=now(),
    )


def backoff_s(deliveries: int) -> float:
    """How long to leave a message that cannot be dealt with now: 0.25 s doubling up to 30 s."""
    return float(min(0.25 * 2 ** min(deliveries - 1, 10), 30.0))
