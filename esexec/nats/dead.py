"""What stands beside a message among the dead (stream DEAD): why it is there, since when, and where it had been published.

`Esexec-Subject` is where to publish the body again once the cause is gone (`nats pub` with that subject redrives it).
"""

from datetime import datetime

from esexec.nats.lean import header_block

_AS_PUBLISHED = {"commands": "cmd", "inbox": "in"}


def dead_headers(code: str, message: str, subject: str, time: datetime) -> bytes:
    """The headers of a buried message. `subject`: where it was found; text is cut and made ASCII, one line."""
    return header_block(
        {
            "Esexec-Reason": code,
            "Esexec-Message": _one_line(message)[:1000],
            "Esexec-Subject": _one_line(published(subject))[:1000],
            "Esexec-Time": time.isoformat(),
        }
    )


def published(subject: str) -> str:
    """The subject that a stored one was made from: without the partition that the server put in."""
    tokens = subject.split(".")
    kind = _AS_PUBLISHED.get(tokens[2]) if len(tokens) > 4 else None
    return subject if kind is None else ".".join([*tokens[:2], kind, *tokens[4:]])


def _one_line(text: str) -> str:
    return " ".join(text.encode("ascii", "backslashreplace").decode().split())
