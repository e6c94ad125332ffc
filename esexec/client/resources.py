"""`client.resources`: the resource pools of the namespace. Declaring them, allocating from them, and what their use cost."""

import asyncio
import builtins
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from esexec.client.commands import checked_id
from esexec.client.times import patience
from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain.durations import milliseconds
from esexec.domain.errors import EsexecError, NotFound, Refused, ResourceUnavailable, ValidationError
from esexec.domain.explain import quoted
from esexec.domain.flow import Resource, ResourcePool, ResourceRequirement, ResourceUsage, is_pool_name
from esexec.domain.flow_reading import SaidResources, read_pool, read_requirements
from esexec.domain.ids import is_token
from esexec.domain.messages import Answer
from esexec.domain.sharing.fold import fold_shared
from esexec.domain.sharing.pools import free_of
from esexec.domain.sharing.requests import POOLS_ENTITY
from esexec.domain.sharing.state import SharedState
from esexec.log import codec
from esexec.log.port import load_certain
from esexec.tasks.options import Duration
from esexec.world import new_id, now
from projections.usage import usage_in

if TYPE_CHECKING:
    from esexec.client.client import Client

logger = logging.getLogger("esexec.client")

_LOOK_AGAIN_S = 1.0
_RENEWALS_PER_LEASE = 3


class PoolUse(msgspec.Struct, frozen=True):
    """A pool, and what of it is free now."""

    pool: ResourcePool
    free: float


class Resources:
    """See the module."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    # Pools -----------------------------------------------------------------------------------------------------------------

    async def declare(self, pool: ResourcePool | dict[str, Any]) -> bool:
        """From now on there is such a pool, or it is changed: True if that took effect, False if it was so already.

        Raises `ValidationError` for what is no pool, `Refused` (`too_many_pools`), `NotConfirmed`.
        """
        command = c.DeclarePool(id=new_id(), pool=read_pool(pool), actor=self._client.owner)
        return await self._client._tell_shared(POOLS_ENTITY, "declare_pool", command)

    async def remove(self, pool_id: str) -> bool:
        """There is no such pool any more: True if that took effect.

        Raises `ValidationError` (`invalid_value`) for what can be the id of none, `Refused` (`pool_in_use`), `NotConfirmed`.
        """
        if not isinstance(pool_id, str) or not is_pool_name(pool_id):
            hint = f"1 to {limits.id_chars} of A-Z a-z 0-9 _ . : / -"
            raise ValidationError(f"{quoted(pool_id)} cannot be a pool's id", code="invalid_value", hint=hint)
        command = c.RemovePool(id=new_id(), pool_id=pool_id, actor=self._client.owner)
        return await self._client._tell_shared(POOLS_ENTITY, "remove_pool", command)

    async def pools(self) -> list[PoolUse]:
        """The pools, by id, and what of each is free."""
        state = await self._state()
        free = free_of(state)
        return [PoolUse(pool, free[pool.id]) for _, pool in sorted(state.pools.items())]

    # Allocating ------------------------------------------------------------------------------------------------------------

    async def allocate(
        self, requirements: SaidResources, *, wait_timeout: Duration | None = 5.0, lease: Duration = "30s"
    ) -> list[Resource]:
        """Allocate all of these, or nothing; waits up to `wait_timeout` (a number: seconds; 0: not at all; None: for ever).

        What is not released comes back by itself once its `lease` is over. Raises `ResourceUnavailable` if there are no such
        resources or they were not free in time, `ValidationError`, `NotConfirmed`.
        """
        _, resources = await self._allocate(requirements, wait_timeout, lease)
        return resources

    async def release(self, resource_ids: str | Resource | Iterable[str | Resource]) -> bool:
        """Give resources back, whoever holds them, also a step that runs: True if any of them was held.

        One id or resource, or several. Raises `ValidationError` (`invalid_value`) for what is none, `NotConfirmed`.
        """
        ids = _ids_of(resource_ids)
        if not ids:
            return False
        command = c.ReleaseResources(id=new_id(), resource_ids=ids, actor=self._client.owner)
        return await self._client._tell_shared(POOLS_ENTITY, "release", command)

    @asynccontextmanager
    async def hold(
        self, requirements: SaidResources, *, wait_timeout: Duration | None = 5.0, lease: Duration = "30s"
    ) -> AsyncIterator[list[Resource]]:
        """Allocate for the length of a block; the lease is renewed meanwhile, and ends soon if this process dies.

        A lease that ended all the same (nobody answered for so long, or somebody released it) is logged as a warning.
        Raises as `allocate`.
        """
        allocation, resources = await self._allocate(requirements, wait_timeout, lease)
        keeping = asyncio.create_task(self._keep(allocation, _lease_ms(lease) / 1000 / _RENEWALS_PER_LEASE))
        try:
            yield resources
        finally:
            keeping.cancel()
            await asyncio.shield(self._release(allocation))

    async def _allocate(
        self, requirements: SaidResources, wait_timeout: Duration | None, lease: Duration
    ) -> tuple[str, list[Resource]]:
        needs = _needs(requirements)
        wait_s, lease_ms = patience(wait_timeout), _lease_ms(lease)
        command = c.AllocateResources(
            id=new_id(), requirements=needs, lease_ms=lease_ms, wait=wait_s != 0, actor=self._client.owner
        )
        answers: asyncio.Queue[Answer] = asyncio.Queue()
        async with self._client._answers_to(POOLS_ENTITY, command.id, answers.put_nowait):
            try:
                await self._client._tell_shared(POOLS_ENTITY, "allocate", command)
                return command.id, await self._in_time(command.id, answers, wait_s)
            except (Refused, ResourceUnavailable, ValidationError):  # nothing is held, nothing waits
                raise
            except asyncio.CancelledError:  # nobody waits for it any more
                await asyncio.shield(self._release(command.id))
                raise
            except BaseException:  # whether it is held is not known: it is not to be
                await self._client._sender.post(POOLS_ENTITY, "release", self._back(command.id))
                raise

    async def _in_time(self, allocation: str, answers: "asyncio.Queue[Answer]", wait_s: float | None) -> list[Resource]:
        try:
            async with asyncio.timeout(wait_s or None):
                return await self._granted(allocation, answers)
        except TimeoutError:
            await self._release(allocation)
            message = "what was asked for was not free" + (f" within {wait_s:g} s" if wait_s else "")
            raise ResourceUnavailable(message, retry=False, hint="wait longer, or ask for less") from None

    async def _granted(self, allocation: str, answers: "asyncio.Queue[Answer]") -> list[Resource]:
        """The resources, once the answer says so; or the log, for an answer can be lost."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    answer = await answers.get()
            except TimeoutError:
                state = await self._state()
                if (grant := state.held.get(allocation)) is not None:
                    return [*grant.resources]
                if allocation not in state.names:
                    dropped = state.dropped.get(allocation)
                    raise ResourceUnavailable(dropped.error.message if dropped else "it was released", retry=False) from None
                continue
            if answer.error is not None:
                raise ResourceUnavailable(answer.error.message, retry=False, hint=answer.error.hint)
            if answer.resources:
                return [*answer.resources]

    async def _keep(self, allocation: str, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            command = c.RenewResources(id=new_id(), allocation=allocation, actor=self._client.owner)
            try:
                await self._client._tell_shared(POOLS_ENTITY, "renew", command)
            except NotFound as error:
                logger.warning("what was held is lost: %s", error.message)
                return
            except EsexecError as error:
                logger.debug("will be renewed again: %s", error)

    async def _release(self, allocation: str) -> None:
        with suppress(EsexecError):  # its lease ends by itself
            await self._client._tell_shared(POOLS_ENTITY, "release", self._back(allocation))

    def _back(self, allocation: str) -> c.ReleaseResources:
        return c.ReleaseResources(id=new_id(), allocation=allocation, actor=self._client.owner)

    # Usage -----------------------------------------------------------------------------------------------------------------

    async def usage(self, execution_id: str) -> builtins.list[ResourceUsage]:
        """What the steps of an execution used, and what that cost, in order; of what is held, as of now. Raises `NotFound`."""
        return usage_in(await self._client.history(checked_id(execution_id)), now())

    async def _state(self) -> SharedState:
        stored = await load_certain(self._client._log, POOLS_ENTITY)
        return fold_shared(POOLS_ENTITY, [codec.decode(one.data) for one in stored])


def _needs(requirements: SaidResources) -> tuple[ResourceRequirement, ...]:
    needs = read_requirements(requirements, "requirements", in_seconds=True)
    if not needs:
        raise ValidationError(
            "requirements: nothing is asked for", code="missing", hint='such as {"gpu": 1}', path="requirements"
        )
    return needs


def _ids_of(said: str | Resource | Iterable[str | Resource]) -> tuple[str, ...]:
    several = [said] if isinstance(said, str | Resource) or not isinstance(said, Iterable) else [*said]
    ids = tuple(one.id if isinstance(one, Resource) else one for one in several)
    for one in ids:
        if not isinstance(one, str) or not is_token(one):
            hint = "what allocate gave, or its ids"
            raise ValidationError(f"{quoted(one)} is no resource, nor the id of one", code="invalid_value", hint=hint)
    if len(ids) > limits.resources_released:
        hint = f"at most {limits.resources_released} at once (limits.resources_released)"
        raise ValidationError(f"{len(ids)} resources", code="invalid_value", hint=hint)
    return ids


def _lease_ms(lease: Duration) -> int:
    lease_ms = milliseconds(lease, name="lease", can_be_0=False)
    if not 1_000 <= lease_ms <= limits.resource_lease_max_ms:
        hint = f"1 s to {limits.resource_lease_max_ms // 3_600_000} h (limits.resource_lease_max_ms)"
        raise ValidationError(f"a lease of {lease_ms} ms", code="bad_lease", hint=hint)
    return lease_ms
