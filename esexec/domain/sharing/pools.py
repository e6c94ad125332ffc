"""Resource pools: what is free, and who can be given what. No pool ever gives out more than it has.

A requirement is met from one pool, the least loaded that fits; several requirements all together or not at all. Who cannot be
given what it asks for keeps those who come behind from the pools that it could use, so that nobody starves.
"""

from collections.abc import Callable, Iterator

import msgspec

from esexec.domain.errors import ErrorInfo
from esexec.domain.explain import shown
from esexec.domain.flow import Resource, ResourcePool, ResourceRequirement, in_words, satisfies
from esexec.domain.sharing.requests import AskForResources
from esexec.domain.sharing.state import Request, SharedState

_TRIES = 2_000
"""So many ways of sharing out several requirements are tried."""
_ROUNDED = 1e-9
"""Amounts are numbers with fractions: by this part of it an amount may seem to be missing by rounding alone."""

Free = dict[str, float]


def in_turn(
    state: SharedState, requests: list[Request], stays: Callable[[Request], bool]
) -> Iterator[tuple[Request, tuple[Resource, ...] | ErrorInfo]]:
    """Who can be granted now, and what, or never, and why; the state knows of each before the next is asked for.

    `stays`: whether one stays in line for whom there is no room; only for those anything is kept.
    """
    free = free_of(state)
    kept: set[bytes] = set()
    for request in requests:
        if not any(left > 0.0 for left in free.values()):
            return
        ask = _rule(request)
        if kept and msgspec.json.encode(ask.requirements) in kept:
            continue  # nothing has become free since another asked for the same
        chosen = _chosen(state, ask, free)
        if chosen is None:
            if (why := impossible(state, ask)) is not None:
                yield request, why
            elif stays(request):
                kept.add(msgspec.json.encode(ask.requirements))
                for requirement in ask.requirements:
                    for pool in _candidates(state, requirement):
                        free[pool.id] = 0.0  # kept for it
            continue
        for requirement, pool in zip(ask.requirements, chosen, strict=True):
            free[pool.id] -= requirement.amount
        version = state.version + 1
        resources = tuple(
            Resource(
                id=f"r{version}-{number}",
                pool=pool.id,
                type=pool.type,
                amount=requirement.amount,
                cost_per_unit=pool.cost_per_unit,
                cost_per_unit_second=pool.cost_per_unit_second,
                attributes=pool.attributes,
            )
            for number, (requirement, pool) in enumerate(zip(ask.requirements, chosen, strict=True), 1)
        )
        yield request, resources


def free_of(state: SharedState) -> Free:
    """What is free of each pool; nothing where more is given out than it has since it was made smaller."""
    free = {pool.id: pool.capacity for pool in state.pools.values()}
    for grant in state.held.values():
        for resource in grant.resources:
            free[resource.pool] = free.get(resource.pool, 0.0) - resource.amount
    return {pool: max(0.0, left) for pool, left in free.items()}


def impossible(state: SharedState, ask: AskForResources) -> ErrorInfo | None:
    """Why this could not be granted even if nobody had anything; None: it could."""
    for requirement in ask.requirements:
        of_type = [pool for pool in state.pools.values() if pool.type == requirement.type]
        if not of_type:
            known = sorted({pool.type for pool in state.pools.values()})
            message = f"there is no pool of {shown(requirement.type)}"
            return unavailable(message, f"there are: {', '.join(known)}" if known else "declare one: client.resources.declare")
        if not _candidates(state, requirement):
            message = f"no pool of {requirement.type} satisfies {shown(str(requirement.constraints))}"
            return unavailable(message, "see client.resources.pools() for their attributes")
    if _chosen(state, ask, {pool.id: pool.capacity for pool in state.pools.values()}) is None:
        asked = ", ".join(map(in_words, ask.requirements))
        return unavailable(f"{asked}: no pools have so much", "see client.resources.pools() for their capacities")
    return None


def unavailable(message: str, hint: str) -> ErrorInfo:
    """The resources that are asked for do not exist, or are not free."""
    return ErrorInfo(type="execution_error", code="resource_unavailable", message=message, hint=hint, retryable=False)


def _candidates(state: SharedState, requirement: ResourceRequirement) -> list[ResourcePool]:
    pools = (pool for pool in state.pools.values() if pool.type == requirement.type)
    return [pool for pool in pools if satisfies(pool.attributes, requirement.constraints)]


def _chosen(state: SharedState, ask: AskForResources, free: Free) -> list[ResourcePool] | None:
    """A pool for each requirement, with room for all of them together; None: there is none, or none was found."""
    candidates = [_candidates(state, requirement) for requirement in ask.requirements]
    order = sorted(
        range(len(candidates)), key=lambda index: (len(candidates[index]), -ask.requirements[index].amount)
    )  # the hardest to please first
    chosen: list[ResourcePool | None] = [None] * len(candidates)
    left = dict(free)
    tries = _TRIES

    def place(at: int) -> bool:
        nonlocal tries
        if at == len(order):
            return True
        index = order[at]
        amount = ask.requirements[index].amount
        for pool in sorted(candidates[index], key=lambda pool: (-(left[pool.id] - amount) / pool.capacity, pool.id)):
            if left[pool.id] < amount * (1 - _ROUNDED):
                continue
            tries -= 1
            if tries < 0:
                return False
            left[pool.id] -= amount
            chosen[index] = pool
            if place(at + 1):
                return True
            left[pool.id] += amount
        return False

    return [pool for pool in chosen if pool is not None] if place(0) else None


def _rule(request: Request) -> AskForResources:
    assert isinstance(request.ask, AskForResources)
    return request.ask
