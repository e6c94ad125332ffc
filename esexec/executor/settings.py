"""The namespace's settings, kept by every executor: commands on `_settings` are decided here, what others commit is followed."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.errors import CorruptHistory, ErrorInfo, EsexecError
from esexec.domain.namespace import SETTINGS_ENTITY, NamespaceState, decide_namespace, fold_namespace
from esexec.executor.entity import EntityDesk
from esexec.executor.port import Outbox
from esexec.log.port import Log
from esexec.nats.connection import Msg

logger = logging.getLogger("esexec.executor")

_LOOK_AGAIN_S = 2.0


class SettingsDesk(EntityDesk[NamespaceState]):
    """See the module. `follow` hears of every new state."""

    entity = SETTINGS_ENTITY

    def __init__(self, name: str, log: Log, outbox: Outbox, follow: Callable[[NamespaceState], None]) -> None:
        super().__init__(name, log, outbox, NamespaceState())
        self._follow = follow
        self._news = asyncio.Event()

    def _fold(self, commits: Iterable[Commit], state: NamespaceState) -> NamespaceState:
        return fold_namespace(commits, state)

    def _decide(self, state: NamespaceState, command: c.SettingsCommand) -> list[e.Event] | ErrorInfo:
        return decide_namespace(state, command)

    def _changed(self) -> None:
        self._follow(self._state)

    async def start(self) -> None:
        """Read what the log holds, and look for news from now on. A broken history halts `_settings`, not the engine."""
        try:
            await self._catch_up()
        except CorruptHistory as error:
            logger.error("the namespace's settings cannot be read, and what was announced is not known: %s", error.message)
        else:
            self._changed()  # that nothing was announced is known as well
        self._run(self._look_again())

    async def look_around(self) -> bool:
        """Read what the leader knows now; whether that was news."""
        async with self._lock:
            known = self._state.n
            await self._catch_up()
            return self._state.n > known

    async def on_commit(self, message: Msg) -> None:
        """Somebody committed to `_settings`."""
        self._news.set()

    async def _look_again(self) -> None:
        """News by message at once, and by looking every few seconds, for a message can be lost."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                async with self._lock:
                    await self._catch_up()
            except EsexecError as error:
                logger.debug("settings: %s", error)
