"""Resource pools: what is free, and who can be given what. No pool ever gives out more than it has.

A requirement is met from one pool, the least loaded that fits; several requirements all together or not at all. Who cannot be
given what it asks for keeps those who come behind from the pools that it could use, so that nobody starves.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from esexec.domain.errors import ErrorInfo
from esexec.domain.flow import Resource, ResourcePool
from esexec.domain.sharing.fitting import Fitting, Free, Kind, kind_of
from esexec.domain.sharing.requests import AskForResources
from esexec.domain.sharing.state import Request, SharedState


def in_turn(
    state: SharedState, requests: list[Request], stays: Callable[[Request], bool]
) -> Iterator[tuple[Request, tuple[Resource, ...] | ErrorInfo]]:
    """Who can be granted now, and what, or never, and why; the state knows of each before the next is asked for.

    `stays`: whether one stays in line for whom there is no room; only for those anything is kept.
    """
    fitting, room = fitting_of(state), _Room(state)
    for request in requests:
        if not room.pools:
            return
        ask = _rule(request)
        chosen = fitting.chosen(ask, room.left) if room.may_be_for(ask) else None
        if chosen is not None:
            for requirement, pool in zip(ask.requirements, chosen, strict=True):
                room.take(pool, requirement.amount)
            yield request, _resources(state, ask, chosen)
        elif (why := _why_never(state, request, ask)) is not None:
            yield request, why
        elif stays(request):
            room.keep(ask, fitting)


def in_vain(state: SharedState) -> Iterator[tuple[Request, ErrorInfo]]:
    """Who waits for what no pools have any more, and why that is so; each is dealt with before the next is asked for.

    Whoever has waited since the pools were what they are was looked at before, and nobody is looked at twice.
    """
    if state.none_in_vain:
        return
    for request in list(state.waiting):
        if (why := impossible(state, _rule(request))) is not None:
            yield request, why
    state.none_in_vain = True


def impossible(state: SharedState, ask: AskForResources) -> ErrorInfo | None:
    """Why this could not be granted even if nobody had anything; None: it could."""
    return fitting_of(state).impossible(ask)


def fitting_of(state: SharedState) -> Fitting:
    """What the pools can serve, as they are now."""
    if state.fitting is None:
        state.fitting = Fitting(state.pools.values())
    return state.fitting


def changed(state: SharedState) -> None:
    """The pools are not what they were: what was found out about them does not hold any more."""
    state.fitting, state.none_in_vain = None, False


def free_of(state: SharedState) -> Free:
    """What is free of each pool; nothing where more is given out than it has since it was made smaller."""
    free = {pool.id: pool.capacity for pool in state.pools.values()}
    for grant in state.held.values():
        for resource in grant.resources:
            free[resource.pool] = free.get(resource.pool, 0.0) - resource.amount
    return {pool: max(0.0, left) for pool, left in free.items()}


class _Room:
    """What is left for those whose turn it is. `pools`: in how many pools there is anything."""

    def __init__(self, state: SharedState) -> None:
        self.left = free_of(state)
        with_any = [pool.type for pool in state.pools.values() if self.left[pool.id] > 0.0]
        self.pools, self._of_type = len(with_any), Counter(with_any)
        self._kept: set[Kind] = set()
        """Nothing is left for requirements of these kinds."""

    def may_be_for(self, ask: AskForResources) -> bool:
        """Whether something is left for each requirement; whether it is enough is not known."""
        requirements = ask.requirements
        return all(self._of_type[one.type] and (not self._kept or kind_of(one) not in self._kept) for one in requirements)

    def take(self, pool: ResourcePool, amount: float) -> None:
        before = self.left[pool.id]
        self.left[pool.id] = after = before - amount
        if before > 0.0 >= after:
            self.pools -= 1
            self._of_type[pool.type] -= 1

    def keep(self, ask: AskForResources, fitting: Fitting) -> None:
        """For one that waits: nobody behind it gets anything of the pools that it could use."""
        for requirement in ask.requirements:
            if self._of_type[requirement.type] and (kind := kind_of(requirement)) not in self._kept:
                self._kept.add(kind)
                for pool in fitting.candidates(requirement):
                    self.take(pool, max(0.0, self.left[pool.id]))


def _why_never(state: SharedState, request: Request, ask: AskForResources) -> ErrorInfo | None:
    looked_at = state.none_in_vain and request.id in state.names
    return None if looked_at else impossible(state, ask)


def _resources(state: SharedState, ask: AskForResources, chosen: list[ResourcePool]) -> tuple[Resource, ...]:
    """What it is given, under ids that nothing else has."""
    version = state.version + 1
    return tuple(
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


def _rule(request: Request) -> AskForResources:
    assert isinstance(request.ask, AskForResources)
    return request.ask
