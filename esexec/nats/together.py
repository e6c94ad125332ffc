"""Messages that are stored together or not at all, each as the first on its subject: JetStream's atomic batch.

Rare, and slow for one file-backed server (2 ms a batch, docs/adr/018): nothing of the engine's goes this way.
"""

from collections.abc import Sequence

import msgspec

from esexec.nats.connection import Connection
from esexec.nats.publisher import Ack
from esexec.world import new_id

MOST = 1000
"""Messages of one batch."""
INCOMPLETE = 10176
"""The server has not all messages of a batch, and drops the others."""
_TIMEOUT_S = 5.0
_FIRST = {"Nats-Expected-Last-Subject-Sequence": "0"}

_decode = msgspec.json.Decoder(Ack).decode


async def store_together(connection: Connection, messages: Sequence[tuple[str, bytes]]) -> Ack:
    """Store these, by subject, unless there is a message on one of these subjects: the acknowledgement of the last, or why not.

    Raises `Unavailable`: whether they were stored is not known then, but it is all of them or none.
    """
    batch, (last_subject, last) = new_id(), messages[-1]
    for number, (subject, data) in enumerate(messages[:-1], 1):
        headers = _FIRST | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        if number == 1:  # it is answered, by nothing: then the server has room for a batch
            answer = await connection.request(subject, data, timeout=_TIMEOUT_S, headers=headers)
            if answer.data:
                return _decode(answer.data)
        else:
            await connection.publish(subject, data, headers)
    headers = dict(_FIRST)
    if len(messages) > 1:
        headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(len(messages)), "Nats-Batch-Commit": "1"}
    return _decode((await connection.request(last_subject, last, timeout=_TIMEOUT_S, headers=headers)).data)
