"""What is asked of an entity that executions share, and what it answers. These names travel on the wire.

`acquire` and `release` go to `in.<entity>.<kind>.<execution>.<step>.<run>-<attempt>`: who asks stands in the subject. The answer
comes back on `in.<execution>.grant.<step>.<run>-<attempt>`. An execution as a whole asks with the step `_`, and its run.
"""

import hashlib
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from esexec.domain import limits
from esexec.domain.errors import ErrorInfo
from esexec.domain.flow import OnConflict, Resource, ResourceRequirement

POOLS_ENTITY = "_pools"
LIMIT_PREFIX, SLOTS_PREFIX = "_limit-", "_slots-"
WHOLE = "_"
"""Stands for the step where an execution asks for itself."""
_DIGITS = 48

Gate = Literal["concurrency", "resources", "rate_limit"]
"""What an attempt must be granted before it is handed out, in this order: what is used up by time alone comes last."""


class _Ask(msgspec.Struct, tag_field="type", omit_defaults=True, frozen=True, kw_only=True):
    pass


class AskToBegin(_Ask, tag="rate_limit", frozen=True, kw_only=True):
    """To be one of `max_executions` within `window_ms`."""

    key: str
    max_executions: Annotated[int, Meta(ge=1, le=limits.grants_per_window)]
    window_ms: Annotated[int, Meta(ge=1, le=limits.window_ms)]
    on_limit: Literal["wait", "reject"] = "wait"


class AskForSlot(_Ask, tag="concurrency", frozen=True, kw_only=True):
    """To be one of `limit` with this key, and one of `total` in all."""

    scope: str
    key: str
    limit: Annotated[int, Meta(ge=1, le=limits.concurrency_limit)]
    total: Annotated[int, Meta(ge=1, le=limits.concurrency_limit)] | None = None
    policy: OnConflict = "queue"


class AskForResources(_Ask, tag="resources", frozen=True, kw_only=True):
    """For all of these, or nothing. `lease_ms`: they come back by themselves after so long without a word; 0 = never."""

    requirements: Annotated[tuple[ResourceRequirement, ...], Meta(min_length=1, max_length=limits.requirements)]
    lease_ms: Annotated[int, Meta(ge=0, le=limits.resource_lease_max_ms)] = 0


Ask = AskToBegin | AskForSlot | AskForResources


class Acquire(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """Somebody asks. `priority`: 0 to 10, higher first; then whoever asked first.

    `at`: when that was, as its own history tells it: executors may come to decide in another order. None: now.
    """

    ask: Ask
    priority: Annotated[int, Meta(ge=0, le=limits.priority_max)] = 5
    at: Annotated[datetime, Meta(tz=True)] | None = None


class Answered(msgspec.Struct, tag_field="type", omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """What all answers have: the entity that gives it, and what was asked for."""

    entity: str
    gate: Gate


class Granted(Answered, tag="granted", frozen=True, kw_only=True):
    """It may begin. `resources`: what it was given."""

    resources: tuple[Resource, ...] = ()


class Waiting(Answered, tag="waiting", frozen=True, kw_only=True):
    """It has to wait; `granted` follows. `until`: not before then, where that is known. `ahead`: who waits before it."""

    until: datetime | None = None
    ahead: int = 0


class Denied(Answered, tag="denied", frozen=True, kw_only=True):
    """It will not be granted. `skipped`: because another has what it asked for, as its policy wants it."""

    error: ErrorInfo
    skipped: bool = False


Answer = Granted | Waiting | Denied


class Requester(msgspec.Struct, frozen=True, gc=False):
    """Who asks: an attempt of a step, or an execution as a whole (step `_`)."""

    execution: str
    step: str
    attempt: str

    @property
    def parts(self) -> tuple[str, str, str]:
        return self.execution, self.step, self.attempt


def requester_of(request_id: str) -> Requester | None:
    """Who asked under this id; None for a client's command."""
    parts = request_id.split("/")
    return Requester(*parts) if len(parts) == 3 else None


def entity_of(ask: Ask) -> str:
    """Which entity decides upon this."""
    match ask:
        case AskToBegin():
            return f"{LIMIT_PREFIX}{_hash(ask.key)}"
        case AskForSlot():  # where there is a total, all keys of the scope are counted together
            return f"{SLOTS_PREFIX}{_hash(ask.scope) if ask.total is not None else _hash(ask.scope, ask.key)}"
        case AskForResources():
            return POOLS_ENTITY


def is_shared(entity: str) -> bool:
    """Whether it is an entity of this package."""
    return entity == POOLS_ENTITY or entity.startswith((LIMIT_PREFIX, SLOTS_PREFIX))


def gate_of(ask: Ask) -> Gate:
    match ask:
        case AskToBegin():
            return "rate_limit"
        case AskForSlot():
            return "concurrency"
        case AskForResources():
            return "resources"


def denied(entity: str, error: ErrorInfo, *, skipped: bool = False) -> Denied:
    """This entity's word that it does not grant what it was asked for."""
    gate: Gate = "rate_limit" if entity.startswith(LIMIT_PREFIX) else "resources" if entity == POOLS_ENTITY else "concurrency"
    return Denied(entity=entity, gate=gate, error=error, skipped=skipped)


def waits(ask: Ask) -> bool:
    """Whether who asks so stays in line where there is no room; else it is told so, and goes."""
    match ask:
        case AskToBegin():
            return ask.on_limit == "wait"
        case AskForSlot():
            return ask.policy != "skip"
        case AskForResources():
            return True


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:_DIGITS]
