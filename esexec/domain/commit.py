"""A commit: the events of one decision, stored as one message, and what it was decided upon.

`n` numbers the commits of an entity, `version` its events; both are gapless from 1. `version` here is that of the first
event. `prev` is the SHA-256 of the previous commit's stored bytes ("" for the first), so a history is a hash chain.
These names are a storage format.
"""

import hashlib
from datetime import datetime

import msgspec

from esexec.domain.events import Event


class Cause(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """A command or report that a commit was decided upon, and the server's time of its message.

    `id` is a command's id, or `<kind>/<step>/<run>-<attempt>` for a report, `due/<name>` for a timer.
    """

    id: str
    time: datetime


class Commit(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """The events of one decision. `executor` decided it upon `commands`; `actor` wished it, where one is known.

    `n`: its number. `version`: that of its first event. `prev`: the hash of the commit before. `v`: the format, 1.
    """

    v: int
    execution_id: str
    n: int
    version: int
    time: datetime
    commands: tuple[Cause, ...] = ()
    actor: str | None = None
    executor: str = ""
    prev: str = ""
    events: tuple[Event, ...]


def hash_of(data: bytes) -> str:
    """The hash that the next commit carries as `prev`."""
    return hashlib.sha256(data).hexdigest()
