"""What happened, as the public feed tells it: one CloudEvents 1.0 message per event, on `esexec.<ns>.event.<type>.<execution>`.

Structured mode: all of it is in the message's JSON. `id` is `<execution>/<version>` and never changes, so whoever hears an event
again knows it. Only the `compacted` of what executions share is not told: nothing happened then.
"""

from datetime import datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

import msgspec

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.errors import ValidationError

CONTENT_TYPE = "application/cloudevents+json"


class Position(msgspec.Struct, frozen=True):
    """What stands in EVENTS: the position in the log of the last commit whose events are all there, its hash and its time."""

    position: int
    hash: str
    time: datetime


class ExecutionEventType(StrEnum):
    """The `type` of a CloudEvent, by the name that the documents give it. In the subject stands the same name in lower case."""

    EXECUTION_CREATED = "execution.created"
    EXECUTION_STARTED = "execution.started"
    EXECUTION_COMPLETED = "execution.completed"
    EXECUTION_FAILED = "execution.failed"
    EXECUTION_CANCEL_REQUESTED = "execution.cancel_requested"
    EXECUTION_CANCELLED = "execution.cancelled"
    TASK_SCHEDULED = "task.scheduled"
    TASK_STARTED = "task.started"
    TASK_COMPLETED = "task.completed"
    TASK_FAILED = "task.failed"
    TASK_REJECTED = "task.rejected"
    TASK_TIMED_OUT = "task.timed_out"
    TASK_RETRY_SCHEDULED = "task.retry_scheduled"
    TASK_SKIPPED = "task.skipped"
    TASK_CANCELLED = "task.cancelled"
    EXECUTION_PAUSED = "execution.paused"
    EXECUTION_RESUMED = "execution.resumed"
    EXECUTION_RETRIED = "execution.retried"
    EXECUTION_FORKED = "execution.forked"
    EXECUTION_DEADLINE_SET = "execution.deadline_set"
    EXECUTION_DEADLINE_EXCEEDED = "execution.deadline_exceeded"
    CHECKPOINT_CREATED = "checkpoint.created"
    CHECKPOINT_FAILED = "checkpoint.failed"
    CHECKPOINT_RESTORED = "checkpoint.restored"
    ROLLBACK_STARTED = "rollback.started"
    EXECUTION_ROLLED_BACK = "execution.rolled_back"
    TASK_HELD = "task.held"
    TASK_OVERDUE = "task.overdue"
    TASK_FALLBACK_STARTED = "task.fallback_started"
    BEFORE_IMAGE_RECORDED = "before_image.recorded"
    RECOVERY_INITIATED = "recovery.initiated"
    RECOVERY_STARTED = "recovery.started"
    RECOVERY_COMPLETED = "recovery.completed"
    COMPENSATION_SCHEDULED = "compensation.scheduled"
    COMPENSATION_STARTED = "compensation.started"
    COMPENSATION_COMPLETED = "compensation.completed"
    COMPENSATION_FAILED = "compensation.failed"
    COMPENSATION_RETRY_SCHEDULED = "compensation.retry_scheduled"
    COMPENSATION_SKIPPED = "compensation.skipped"
    TASK_CACHE_HIT = "task.cache_hit"
    TASK_GRANTED = "task.granted"
    RESOURCE_ALLOCATED = "resource.allocated"
    RESOURCE_RELEASED = "resource.released"
    TASK_RATE_LIMITED = "task.rate_limited"
    TASK_WAITING = "task.waiting"
    EXECUTION_GRANTED = "execution.granted"
    EXECUTION_QUEUED = "execution.queued"
    KEY_BOUND = "key.bound"
    NAMESPACE_CONFIGURED = "namespace.configured"
    TASKS_ANNOUNCED = "tasks.announced"
    STRATEGY_ADDED = "strategy.added"
    STRATEGY_REMOVED = "strategy.removed"
    PLAN_STORED = "plan.stored"
    PLAN_LISTED = "plan.listed"
    REQUEST_QUEUED = "request.queued"
    REQUEST_GRANTED = "request.granted"
    REQUEST_DROPPED = "request.dropped"
    GRANT_RELEASED = "grant.released"
    LEASE_RENEWED = "lease.renewed"
    POOL_DECLARED = "pool.declared"
    POOL_REMOVED = "pool.removed"
    ALERT_SET = "alert.set"
    ALERT_REMOVED = "alert.removed"


UNTOLD = frozenset({"compacted"})
"""Types of events that are not told."""
_BY_TYPE = {one.name.lower(): one.value for one in ExecutionEventType}


class EventData(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """What is in a CloudEvent. `description`: in words, for people, and may change. `task_id`: the step that it concerns, and its
    `attempt` and `run`. `data`: the event's own fields, as in its history; `left_out`: they are only there, being too large here.
    """

    description: str
    task_id: str | None = None
    attempt: int | None = None
    run: int | None = None
    data: dict[str, Any]
    left_out: bool = False


class _Attributes(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    n: int
    version: int
    actor: str | None = None


class CloudEvent(_Attributes, omit_defaults=True, frozen=True, kw_only=True):
    """One event of the feed. `id`: `<execution>/<version>`. `source`: `esexec/<namespace>`. `type`: an `ExecutionEventType`, or
    one that a newer esexec knows. `subject`: the execution, or (with `_` first) what executions share. `time`: its commit's.

    `n`, `version`: the numbers of its commit and of itself in the history; `position`: of the commit in the log. `actor`: who
    wished it, where that is known.
    """

    position: int
    datacontenttype: str
    data: EventData

    @property
    def execution_id(self) -> str:
        return self.subject


class _StoredData(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    description: str
    task_id: str | None = None
    attempt: int | None = None
    run: int | None = None
    data: msgspec.Raw
    left_out: bool = False


class _Stored(_Attributes, frozen=True, kw_only=True, gc=False):
    """`position` is text on the wire: CloudEvents' numbers end at 2^31."""

    position: str
    datacontenttype: str
    data: _StoredData


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(CloudEvent, strict=False)


def type_of(event_type: str) -> str:
    """The CloudEvent's type for an event's: `task.failed` for `task_failed`."""
    return _BY_TYPE.get(event_type) or event_type.replace("_", ".", 1)


def encode(source: str, entity: str, position: int, commit: Commit, index: int, description: str, room: int) -> bytes:
    """The CloudEvent of a commit's event, of at most `room` bytes."""
    event, version = commit.events[index], commit.version + index
    event_type = e.type_of(event)
    about = _StoredData(
        description=description,
        task_id=getattr(event, "step", None),
        attempt=getattr(event, "attempt", None),
        run=getattr(event, "run", None),
        data=_fields(event, event_type),
    )
    told = _Stored(
        specversion="1.0",
        id=f"{entity}/{version}",
        source=source,
        type=type_of(event_type),
        subject=entity,
        time=commit.time,
        n=commit.n,
        version=version,
        position=str(position),
        actor=commit.actor,
        datacontenttype="application/json",
        data=about,
    )
    data = _encode(told)
    if len(data) <= room:
        return data
    about = msgspec.structs.replace(about, data=msgspec.Raw(b"{}"), left_out=True)
    return _encode(msgspec.structs.replace(told, data=about))


def _fields(event: e.Event, event_type: str) -> msgspec.Raw:
    """As it is stored, without its type."""
    if isinstance(event, e.ExecutionCreated) and event.plan_object is not None:
        event = msgspec.structs.replace(event, plan=msgspec.UNSET)
    rest = _encode(event)[len(event_type) + len('{"type":""') :]
    return msgspec.Raw(b"{" + rest.removeprefix(b","))


def token_of(wanted: str) -> str:
    """How a type is named in subjects, from either of its names. Raises ValidationError (`unknown_event_type`)."""
    found = wanted.lower().replace(".", "_")
    if found not in _BY_TYPE:
        near = get_close_matches(found, _BY_TYPE, 3, 0.5)
        hint = f"perhaps {', '.join(_BY_TYPE[one] for one in near)}" if near else "see ExecutionEventType"
        raise ValidationError(f"no event has the type {wanted[:80]!r}", code="unknown_event_type", hint=hint)
    return found


def document(event: CloudEvent) -> dict[str, Any]:
    """The JSON object that it is on the wire."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    return fields | {"position": str(event.position)}


def decode(data: bytes) -> CloudEvent:
    """The event that these bytes are. Raises ValidationError (`undecodable`)."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationError(f"this is no event of the feed: {error}", code="undecodable") from error
