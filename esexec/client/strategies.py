"""`client.strategies`: the recovery strategies of the namespace. Here they are made known; their code runs on workers."""

import builtins
from typing import TYPE_CHECKING, Any

from esexec.client.entities import news_of
from esexec.domain import commands as c
from esexec.domain.errors import to_exception
from esexec.domain.namespace import SETTINGS_ENTITY, NamespaceState, fold_namespace, id_problem
from esexec.domain.strategies import Strategy
from esexec.tasks.recovery import as_strategy
from esexec.world import new_id

if TYPE_CHECKING:
    from esexec.client.client import Client


class Strategies:
    """See the module."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    async def add(self, strategy: Any) -> str:
        """From now on failures in the namespace are offered to this strategy; its id.

        `strategy`: a `RecoveryStrategy` (an instance, or a class that needs no arguments), an object that has what one needs, or
        only the description (`Strategy`). One of the same id takes the place of the one before.
        Raises `ValidationError` (`invalid_strategy`), `Refused` (`too_many_strategies`), `NotConfirmed`.
        """
        info = strategy if isinstance(strategy, Strategy) else as_strategy(strategy).info
        command = c.AddStrategy(id=new_id(), strategy=info, actor=self._client.owner)
        await self._client._tell_shared(SETTINGS_ENTITY, "add_strategy", command)
        return info.id

    async def remove(self, strategy_id: str) -> bool:
        """Failures are not offered to it any more: True if that took effect, False if there was none of this id.

        Raises `ValidationError` (`bad_strategy_id`) for what can be the id of none, `NotConfirmed`.
        """
        if (problem := id_problem(strategy_id)) is not None:
            raise to_exception(problem)
        command = c.RemoveStrategy(id=new_id(), strategy_id=strategy_id, actor=self._client.owner)
        return await self._client._tell_shared(SETTINGS_ENTITY, "remove_strategy", command)

    async def list(self) -> builtins.list[Strategy]:
        """The strategies, in the order in which they are asked."""
        return [*(await namespace_of(self._client)).strategies]


async def namespace_of(client: "Client") -> NamespaceState:
    """What the namespace holds in common, now."""
    return fold_namespace(await news_of(client._log, SETTINGS_ENTITY))
