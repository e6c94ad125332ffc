"""Several messages stored in one stream at once, or none of them: JetStream's atomic batches (`allow_atomic`).

About 2 ms each on one server with files, whatever the size: for what is gathered anyway, not for the hot path.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from esexec.domain.errors import Unavailable
from esexec.nats.connection import Connection, Msg, OutboundBufferLimitError
from esexec.nats.lean import header_block
from esexec.nats.publisher import Ack
from esexec.world import new_id

MOST: Final = 1000
"""The server takes so many messages in one batch."""
INCOMPLETE: Final = 10176
"""The server does not have all messages of a batch, and has dropped the others."""
_ANSWER_S: Final = 10.0
_FIRST_LINE: Final = "NATS/1.0\r\n"

_decode = msgspec.json.Decoder(Ack).decode


class Part(NamedTuple):
    """One message. `headers`: besides those of the batch."""

    subject: str
    data: bytes
    headers: dict[str, str]


async def store_batch(connection: Connection, parts: Sequence[Part]) -> Ack:
    """Store them in order, one behind the other. What is expected of the stream (`Nats-Expected-…` on any of them) is checked by
    the server when it stores them; one refused part refuses all.

    Raises `Unavailable` if nobody answers, or the server is lost meanwhile: then the outcome is unknown, and may become either.
    """
    batch, last = new_id(), parts[-1]
    try:
        post, head = connection.client.post, f"{_FIRST_LINE}Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: ".encode()
        headers, rest = last.headers, b""
        for sequence, part in enumerate(parts[:-1], 1):
            if not rest or part.headers is not headers:  # those of many parts are the same
                headers, rest = part.headers, header_block(part.headers).removeprefix(_FIRST_LINE.encode())
            post(part.subject, part.data, "", b"%b%d\r\n%b" % (head, sequence, rest))
    except OutboundBufferLimitError:
        raise Unavailable(f"the NATS server at {connection.shown_url} is away") from None
    headers = _headers(batch, len(parts)) | {"Nats-Batch-Commit": "1"} | last.headers
    return _ack(last, await _answer(connection, last, headers))


async def store_one(connection: Connection, part: Part) -> Ack:
    """The same for one message, without a batch: 0.2 ms. Raises as `store_batch`."""
    return _ack(part, await _answer(connection, part, part.headers))


def _ack(part: Part, answer: Msg) -> Ack:
    try:
        return _decode(answer.data)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the answer to a batch for {part.subject} cannot be read: {error}") from error


async def _answer(connection: Connection, last: Part, headers: dict[str, str]) -> Msg:
    lost = asyncio.Event()
    undo = connection.on_disconnect(lost.set)
    asking = asyncio.ensure_future(connection.request(last.subject, last.data, timeout=_ANSWER_S, headers=headers))
    losing = asyncio.ensure_future(lost.wait())
    try:
        await asyncio.wait({asking, losing}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return asking.result()
        raise Unavailable(f"the NATS server at {connection.shown_url} was lost while it stored a batch")
    finally:
        undo()
        asking.cancel()
        losing.cancel()


def _headers(batch: str, sequence: int) -> dict[str, str]:
    return {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(sequence)}
