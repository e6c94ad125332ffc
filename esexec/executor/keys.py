"""Idempotency keys: whose execution a key stands for, decided by compare-and-set in the key's own history.

A key belongs to the execution that its last commit names. Binding comes before the execution's own first commit, so a binding
can turn out void: a rival with another key, or with none, took that execution's id in between. Then the next start with the key
binds it again, by a further commit.
"""

from datetime import datetime
from typing import NamedTuple

from esexec.domain import events as e
from esexec.domain.commit import Commit, hash_of
from esexec.domain.errors import CorruptHistory
from esexec.domain.namespace import key_entity
from esexec.log import codec
from esexec.log.port import Log, append_and_wait


class Owner(NamedTuple):
    """`exists`: its first commit stands; else its start is on its way."""

    execution_id: str
    exists: bool


async def bind(log: Log, key: str, execution_id: str, time: datetime, executor: str, actor: str | None) -> Owner:
    """Bind the key to this execution if it is free, for `actor` who starts it; whose it is then."""
    entity = key_entity(key)
    n, position, prev = 1, 0, ""
    while True:
        commit = Commit(
            v=codec.VERSION,
            execution_id=entity,
            n=n,
            version=n,
            time=time,
            actor=actor,
            executor=executor,
            prev=prev,
            events=(e.KeyBound(key=key, execution_id=execution_id),),
        )
        if await append_and_wait(log, entity, n, codec.encode(commit), position) is not None:
            return Owner(execution_id, False)
        stored = await log.read(entity, n)
        bound = codec.decode(stored.data).events[0] if stored is not None else None
        if stored is None or not isinstance(bound, e.KeyBound):
            raise CorruptHistory(f"{entity}: commit {n} does not bind the key")
        if bound.execution_id == execution_id:
            return Owner(execution_id, False)
        first = await log.read(bound.execution_id, 1)
        if first is None:
            return Owner(bound.execution_id, False)
        if _key_of(first.data) == key:
            return Owner(bound.execution_id, True)
        n, position, prev = n + 1, stored.position, hash_of(stored.data)


async def owner_of(log: Log, key: str) -> str | None:
    """The execution that the key was bound to last, if it ever was; nothing is bound."""
    entity, n, owner = key_entity(key), 1, None
    while (stored := await log.read(entity, n)) is not None:
        bound = codec.decode(stored.data).events[0]
        owner, n = bound.execution_id if isinstance(bound, e.KeyBound) else owner, n + 1
    return owner


def _key_of(first_commit: bytes) -> str | None:
    created = codec.decode(first_commit).events[0]
    return created.idempotency_key if isinstance(created, e.ExecutionCreated) else None
