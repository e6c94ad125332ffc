"""Which pools can serve what is asked for, and whether they ever can. Found out once, and known until the pools change."""

from collections.abc import Iterable

import msgspec

from esexec.domain.errors import ErrorInfo
from esexec.domain.explain import shown
from esexec.domain.flow import ResourcePool, ResourceRequirement, in_words, satisfies
from esexec.domain.sharing.requests import AskForResources

_TRIES = 2_000
"""So many ways of sharing out several requirements are tried."""
_ROUNDED = 1e-9
"""Amounts are numbers with fractions: by this part of it an amount may seem to be missing by rounding alone."""

Free = dict[str, float]
"""What is free of each pool."""
Kind = tuple[str, bytes]
"""The type and the constraints of a requirement: which pools it can be met from depends on nothing else."""


def kind_of(requirement: ResourceRequirement) -> Kind:
    return requirement.type, msgspec.json.encode(requirement.constraints) if requirement.constraints else b""


class Fitting:
    """See the module. `pools`: all that there are."""

    def __init__(self, pools: Iterable[ResourcePool]) -> None:
        self._by_type: dict[str, dict[bytes, list[ResourcePool]]] = {}
        """By their type and their attributes."""
        for pool in pools:
            alike = self._by_type.setdefault(pool.type, {})
            alike.setdefault(msgspec.json.encode(pool.attributes), []).append(pool)
        self._candidates: dict[Kind, list[ResourcePool]] = {}
        self._largest: dict[Kind, float] = {}
        self._fit_together: dict[tuple[tuple[Kind, float], ...], bool] = {}

    def candidates(self, requirement: ResourceRequirement) -> list[ResourcePool]:
        """The pools that it can be met from, if they are large enough."""
        kind = kind_of(requirement)
        found = self._candidates.get(kind)
        if found is None:
            of_type = self._by_type.get(requirement.type, {}).values()
            found = [pool for pools in of_type if satisfies(pools[0].attributes, requirement.constraints) for pool in pools]
            self._candidates[kind] = found
            self._largest[kind] = max((pool.capacity for pool in found), default=0.0)
        return found

    def impossible(self, ask: AskForResources) -> ErrorInfo | None:
        """Why this could not be granted even if nobody had anything; None: it could."""
        for requirement in ask.requirements:
            if requirement.type not in self._by_type:
                hint = (
                    f"there are: {', '.join(sorted(self._by_type))}" if self._by_type else "declare one: client.resources.declare"
                )
                return unavailable(f"there is no pool of {shown(requirement.type)}", hint)
            if not self.candidates(requirement):
                message = f"no pool of {requirement.type} satisfies {shown(str(requirement.constraints))}"
                return unavailable(message, "see client.resources.pools() for their attributes")
        if self._fits(ask.requirements):
            return None
        asked = ", ".join(map(in_words, ask.requirements))
        return unavailable(f"{asked}: no pools have so much", "see client.resources.pools() for their capacities")

    def _fits(self, requirements: tuple[ResourceRequirement, ...]) -> bool:
        """Whether the pools have so much together."""
        amounts = tuple((kind_of(requirement), requirement.amount) for requirement in requirements)
        if len(amounts) == 1:
            return _has_room(self._largest[amounts[0][0]], amounts[0][1])
        fits = self._fit_together.get(amounts)
        if fits is None:
            candidates = [self.candidates(requirement) for requirement in requirements]
            free = {pool.id: pool.capacity for pools in candidates for pool in pools}
            fits = self._fit_together[amounts] = _shared_out(requirements, candidates, free) is not None
        return fits

    def chosen(self, ask: AskForResources, free: Free) -> list[ResourcePool] | None:
        """A pool for each requirement, with room for all of them together; None: there is none, or none was found."""
        if len(ask.requirements) == 1:
            amount = ask.requirements[0].amount
            with_room = [pool for pool in self.candidates(ask.requirements[0]) if _has_room(free[pool.id], amount)]
            return [min(with_room, key=lambda pool: _load(pool, free[pool.id], amount))] if with_room else None
        return _shared_out(ask.requirements, [self.candidates(requirement) for requirement in ask.requirements], free)


def unavailable(message: str, hint: str) -> ErrorInfo:
    """The resources that are asked for do not exist, or are not free."""
    return ErrorInfo(type="execution_error", code="resource_unavailable", message=message, hint=hint, retryable=False)


def _has_room(left: float, amount: float) -> bool:
    return left >= amount * (1 - _ROUNDED)


def _load(pool: ResourcePool, left: float, amount: float) -> tuple[float, str]:
    """The least loaded, once it has given this, is the first."""
    return -(left - amount) / pool.capacity, pool.id


def _shared_out(
    requirements: tuple[ResourceRequirement, ...], candidates: list[list[ResourcePool]], free: Free
) -> list[ResourcePool] | None:
    order = sorted(
        range(len(candidates)), key=lambda index: (len(candidates[index]), -requirements[index].amount)
    )  # the hardest to please first
    chosen: list[ResourcePool | None] = [None] * len(candidates)
    left = {pool.id: free[pool.id] for pools in candidates for pool in pools}
    tries = _TRIES

    def place(at: int) -> bool:
        nonlocal tries
        if at == len(order):
            return True
        index = order[at]
        amount = requirements[index].amount
        with_room = [pool for pool in candidates[index] if _has_room(left[pool.id], amount)]
        for pool in sorted(with_room, key=lambda pool: _load(pool, left[pool.id], amount)):
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
