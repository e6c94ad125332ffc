"""Commits to bytes and back. The one place that will upcast old events.

Decoding is validation: bytes that are no commit of version 1 raise `CorruptHistory`, whatever is wrong with them.
"""

import msgspec

from esexec.domain.commit import Commit
from esexec.domain.errors import CorruptHistory
from esexec.domain.events import ExecutionCreated, ExecutionEvent
from esexec.domain.objects import ObjectRef
from esexec.log.port import Stored

VERSION = 1

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Commit)

encode = _encoder.encode

_PLAN_OBJECT = b'"plan_object":{'


def decode(data: bytes) -> Commit:
    """The commit that these bytes are. Raises `CorruptHistory`."""
    try:
        commit = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptHistory(f"these bytes are no commit: {error}", context={"bytes": len(data)}) from error
    if commit.v != VERSION:
        raise CorruptHistory(f"commit format {commit.v} is not known here", hint="a newer esexec wrote it; upgrade this one")
    return commit


def commit_of(stored: Stored) -> Commit:
    """The commit that is stored, with its plan where that is kept as an object and was fetched. Raises `CorruptHistory`."""
    commit = decode(stored.data)
    return with_plan(commit, stored.plan) if stored.plan else commit


def plan_object_of(data: bytes) -> ObjectRef | None:
    """The object that holds the plan of an execution, from the bytes of its first commit; None: the plan is in there."""
    if _PLAN_OBJECT not in data:
        return None
    try:
        return lacking(decode(data))
    except CorruptHistory:
        return None


def lacking(commit: Commit) -> ObjectRef | None:
    """The object that holds the commit's plan, where that is not there."""
    if commit.n != 1:
        return None
    created = commit.events[0] if commit.events else None
    if not isinstance(created, ExecutionCreated) or created.plan_object is None or created.document:
        return None
    return created.plan_object


def with_plan(commit: Commit, plan: bytes) -> Commit:
    """The commit with the plan that its first event leaves out."""
    return _replaced(commit, msgspec.Raw(plan))


def as_stored(commit: Commit) -> Commit:
    """The commit without the plan that is kept as an object: what is encoded."""
    return _replaced(commit, msgspec.UNSET)


def _replaced(commit: Commit, plan: msgspec.Raw | msgspec.UnsetType) -> Commit:
    created = commit.events[0]
    if not isinstance(created, ExecutionCreated) or created.plan_object is None:
        return commit
    first: ExecutionEvent = msgspec.structs.replace(created, plan=plan)
    return msgspec.structs.replace(commit, events=(first, *commit.events[1:]))
