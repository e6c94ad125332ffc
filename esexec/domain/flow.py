"""Flow control, as people say it: rate limits, concurrency keys, resource pools and what is required of them.

Only what is said stands here. What follows from it is decided by the entities that executions share (`sharing`), and by the
execution that asks them (`admission`). These names are a storage format: they stand in plans, settings and events.
"""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from esexec.domain import limits
from esexec.domain.explain import shown

Text = Annotated[str, Meta(min_length=1, max_length=limits.key_chars)]
_NAME = r"^[A-Za-z0-9_.:/-]+\Z"
Name = Annotated[str, Meta(min_length=1, max_length=limits.id_chars, pattern=_NAME)]
Amount = Annotated[float, Meta(gt=0, le=1e15)]
Price = Annotated[float, Meta(ge=0, le=1e15)]


class RateLimit(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """At most `max_executions` attempts may begin within any `window_ms` milliseconds; 0 executions = no limit.

    They are counted by `key`, in the whole namespace: by default the task's name. `${input…}`, `${context…}` and `${params…}`
    in it stand for values. `on_limit`: an attempt for which there is no room waits for its turn, or fails at once
    (`rate_limited`, not retried).
    """

    max_executions: Annotated[int, Meta(ge=0, le=limits.grants_per_window)]
    window_ms: Annotated[int, Meta(ge=1, le=limits.window_ms)]
    key: Text | None = None
    on_limit: Literal["wait", "reject"] = "wait"


OnConflict = Literal["queue", "skip", "replace"]


class Key(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """At most `limit` at once of those whose key has the same value: executions, where a plan or a call says it; else steps.

    `key`: where the value stands, `input.customer` (or `context…`; of a step also `params…`), or a text with `${…}` in it.
    `total`: at most so many at once, whatever their keys; what becomes free goes to the keys in turn. `scope`: what is counted
    together; by default the executions of plans of one name, or the steps of one task.
    `policy`, of executions, where there is no room: `queue` = it waits its turn; `skip` = it ends as cancelled without having
    run; `replace` = what runs and waits is cancelled in its favour.
    """

    key: Text
    limit: Annotated[int, Meta(ge=1, le=limits.concurrency_limit)] = 1
    total: Annotated[int, Meta(ge=1, le=limits.concurrency_limit)] | None = None
    scope: Text | None = None
    policy: OnConflict = "queue"

    @classmethod
    def singleton(cls, key: str, policy: OnConflict = "queue", *, scope: str | None = None) -> "Key":
        """One at a time, of those whose key has the same value."""
        return cls(key, limit=1, policy=policy, scope=scope)


class ResourceRequirement(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """`amount` of a resource of this `type`, from one pool whose attributes satisfy `constraints`.

    `duration_ms`: how long it is expected to be used. `priority`: 0 to 10, higher first. A constraint `min_x` (or `minX`) wants
    the attribute `x` to be at least that, `max_x` at most, `x_required: true` that it is there and not false; any other name
    that it is equal, or one of a list.
    """

    type: Name
    amount: Amount = 1.0
    duration_ms: Annotated[int, Meta(ge=0, le=limits.delay_ms)] | None = None
    priority: Annotated[int, Meta(ge=0, le=limits.priority_max)] = 5
    constraints: dict[str, Any] = {}


def in_words(requirement: ResourceRequirement) -> str:
    """What is required, for people: `2 gpu with {'region': 'us'}`."""
    constraints = f" with {shown(str(requirement.constraints))}" if requirement.constraints else ""
    return f"{requirement.amount:g} {requirement.type}{constraints}"


class ResourcePool(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """A pool of a namespace: `capacity` units of a resource of this `type`.

    A unit costs `cost_per_unit` each time it is allocated, and `cost_per_unit_second` for each second that it is held.
    """

    id: Name
    type: Name
    capacity: Amount
    cost_per_unit: Price = 0.0
    cost_per_unit_second: Price = 0.0
    attributes: dict[str, Any] = {}


class Resource(msgspec.Struct, omit_defaults=True, frozen=True):
    """An allocated resource: `amount` of `pool`. With its `id` it is released."""

    id: str
    pool: str
    type: str
    amount: float
    cost_per_unit: float = 0.0
    cost_per_unit_second: float = 0.0
    attributes: dict[str, Any] = {}


class ResourceUsage(msgspec.Struct, omit_defaults=True, frozen=True):
    """How an allocated resource was used, and what that cost. `end_time` None: it is still held, and all is as of now.

    `cost`: `amount_used` × (`cost_per_unit` + `cost_per_unit_second` × seconds held). `efficiency`: the part of that time, 0 to
    1, in which the work itself went on; 0 if it never began.
    """

    resource_id: str
    resource_type: str
    amount_used: float
    cost: float
    start_time: datetime
    end_time: datetime | None = None
    efficiency: float = 0.0


def usage_of(resource: Resource, start: datetime, end: datetime, *, busy_s: float, ongoing: bool = False) -> ResourceUsage:
    """The use of a resource from `start` to `end`, `busy_s` seconds of which the work took."""
    held_s = max(0.0, (end - start).total_seconds())
    return ResourceUsage(
        resource_id=resource.id,
        resource_type=resource.type,
        amount_used=resource.amount,
        cost=resource.amount * (resource.cost_per_unit + resource.cost_per_unit_second * held_s),
        start_time=start,
        end_time=None if ongoing else end,
        efficiency=min(1.0, max(0.0, busy_s / held_s)) if held_s else float(busy_s > 0),
    )


def is_pool_name(text: str) -> bool:
    """Whether a pool, or a type of resource, may be called so."""
    return len(text) <= limits.id_chars and re.match(_NAME, text) is not None


# Constraints -------------------------------------------------------------------------------------------------------------


_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")


def satisfies(attributes: dict[str, Any], constraints: dict[str, Any]) -> bool:
    """Whether a pool with these attributes is one that a requirement accepts. See `ResourceRequirement`."""
    known = {_snake(name): value for name, value in attributes.items()}
    return all(_fulfilled(known, _snake(name), wanted) for name, wanted in constraints.items())


def _fulfilled(attributes: dict[str, Any], name: str, wanted: Any) -> bool:
    if name in attributes:
        found = attributes[name]
        return bool(found == wanted or (isinstance(wanted, list) and found in wanted))
    if name.startswith("min_"):
        return _in_order(wanted, attributes.get(name[4:]))
    if name.startswith("max_"):
        return _in_order(attributes.get(name[4:]), wanted)
    if name.endswith("_required"):
        return not wanted or bool(attributes.get(name.removesuffix("_required")))
    return False


def _in_order(less: Any, more: Any) -> bool:
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (less, more))
    return numbers and less <= more


def _snake(name: str) -> str:
    return _HUMP.sub(r"_\1", name).lower()
