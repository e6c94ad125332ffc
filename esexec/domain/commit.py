"""A commit: the events of one decision, stored as one message, and what it was decided upon.

`n` numbers the commits of an entity, `version` its events; both are gapless from 1. `version` here is that of the first
event. `prev` is the SHA-256 of the previous commit's stored bytes ("" for the first), so a history is a hash chain.
These names are a storage format.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from esexec.domain.events import Event


class Cause(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """A command or report that a commit was decided upon, and the server's time of its message.

    `id` is a command's id, or `<kind>/<step>/<run>-<attempt>` for a report, `due/<name>` for a timer. `actor`: who gave the
    command, in a commit whose commands were not all given by the same; else that is the commit's `actor`.
    """

    id: str
    time: datetime
    actor: str | None = None

    @property
    def is_command(self) -> bool:
        """Whether somebody wished it."""
        return "/" not in self.id


class Commit(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """The events of one decision. `executor` decided it upon `commands`; `actor` gave them, where one is known.

    Several commands may have been given by several: then each of `commands` has its own `actor`, and the first is this one.
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


def signed(causes: Iterable[Cause]) -> tuple[str | None, tuple[Cause, ...]]:
    """What a commit says of its causes, each of which has its own actor: the commit's `actor`, and its `commands`."""
    causes = tuple(causes)
    for cause in causes:
        if (actor := cause.actor) is not None:
            break
    else:
        return None, causes
    if any(cause.actor != actor and cause.is_command for cause in causes):
        return actor, causes
    return actor, tuple([Cause(cause.id, cause.time) for cause in causes])


def actors_of(commit: Commit) -> Sequence[str | None]:
    """Who gave each of the commit's commands, in their order; None where that is not known. Reports and timers are none."""
    commands = [cause for cause in commit.commands if cause.is_command]
    if any(cause.actor is not None for cause in commands):
        return [cause.actor for cause in commands]
    return [commit.actor] * len(commands)
