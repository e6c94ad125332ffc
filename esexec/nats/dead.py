"""A message among the dead (stream DEAD): its body as it came, and beside it why it is there, since when, and where it had been
published.

`Esexec-Subject` is where to publish the body again once the cause is gone; `Esexec-Cut` says how many bytes it had, where that
was more than fits beside the reason.
"""

from datetime import datetime
from typing import Final, NamedTuple

from esexec.domain.ids import is_token
from esexec.nats.lean import header_block

REASON: Final = "Esexec-Reason"
MESSAGE: Final = "Esexec-Message"
SUBJECT: Final = "Esexec-Subject"
TIME: Final = "Esexec-Time"
CUT: Final = "Esexec-Cut"

_AS_PUBLISHED = {"commands": "cmd", "inbox": "in"}
_TEXT_CHARS = 1000


class Dead(NamedTuple):
    """What is published on `dead.…`."""

    data: bytes
    headers: bytes


def dead_letter(code: str, message: str, subject: str, time: datetime, data: bytes, bytes_max: int) -> Dead:
    """A message for DEAD. `subject`: where it was found. Text is cut and made ASCII, one line. `bytes_max`: body and headers."""
    said = {
        REASON: code,
        MESSAGE: _one_line(message)[:_TEXT_CHARS],
        SUBJECT: _one_line(published(subject))[:_TEXT_CHARS],
        TIME: time.isoformat(),
    }
    headers = header_block(said)
    if len(headers) + len(data) > bytes_max:
        headers = header_block({**said, CUT: str(len(data))})
        data = data[: bytes_max - len(headers)]
    return Dead(data, headers)


def published(subject: str) -> str:
    """The subject that a stored one was made from: without the partition that the server put in."""
    tokens = subject.split(".")
    kind = _AS_PUBLISHED.get(tokens[2]) if len(tokens) > 4 else None
    return subject if kind is None else ".".join([*tokens[:2], kind, *tokens[4:]])


def is_intake(subject: str, namespace: str) -> bool:
    """Whether a message may be put back there: a command or a message for INBOX of this namespace, and all of it ids. Whatever
    else a letter says of where it came from is believed by nobody."""
    prefix, _, rest = subject.partition(f"esexec.{namespace}.")
    tokens = rest.split(".")
    if prefix or not all(map(is_token, tokens)):
        return False
    return (tokens[0] == "cmd" and len(tokens) == 3) or (tokens[0] == "in" and 3 <= len(tokens) <= 6)


def _one_line(text: str) -> str:
    return " ".join(text.encode("ascii", "backslashreplace").decode().split())
