"""The namespace's settings, kept by every executor: commands on `_settings` are decided here, what others commit is followed.

Rare and small, so plain: one command at a time, each against the log as the leader knows it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from esexec.domain import commands as c
from esexec.domain.commit import Cause, Commit, hash_of
from esexec.domain.decider import Surroundings
from esexec.domain.errors import CorruptHistory, EsexecError
from esexec.domain.messages import Answer
from esexec.domain.namespace import SETTINGS_ENTITY, NamespaceState, decide_namespace, fold_namespace
from esexec.executor.desk import Outbox
from esexec.executor.envelope import Envelope, backoff_s
from esexec.log import codec
from esexec.log.port import Log, Stored, append_and_wait
from esexec.nats.connection import Msg

logger = logging.getLogger("esexec.executor")

_LOOK_AGAIN_S = 2.0


class SettingsDesk:
    """See the module. `follow` hears of every new state."""

    def __init__(self, name: str, log: Log, outbox: Outbox, follow: Callable[[Surroundings], None]) -> None:
        self._name, self._log, self._outbox, self._follow = name, log, outbox, follow
        self._state = NamespaceState()
        self._last: Stored | None = None
        self._lock = asyncio.Lock()
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Read what the log holds, and look for news from now on. A broken history halts `_settings`, not the engine."""
        try:
            await self._catch_up()
        except CorruptHistory as error:
            logger.error("the namespace's settings cannot be read, and what was announced is not known: %s", error.message)
        self._run(self._look_again())

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def on_commit(self, message: Msg) -> None:
        """Somebody committed to `_settings`."""
        self._news.set()

    async def take(self, envelope: Envelope) -> None:
        """A command on `_settings`."""
        self._run(self._decide(envelope))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide(self, envelope: Envelope) -> None:
        command = envelope.content
        assert isinstance(command, c.ConfigureNamespace | c.AnnounceTasks)
        try:
            async with self._lock:
                while not await self._commit(command, envelope):
                    await self._catch_up()
        except EsexecError as error:
            logger.warning("settings: %s", error)
            await envelope.nak(backoff_s(envelope.deliveries))
            return
        if command.confirm:
            await self._outbox.answer(Answer(command_id=command.id, execution_id=SETTINGS_ENTITY, status="accepted"))
        await envelope.ack()

    async def _commit(self, command: c.ConfigureNamespace | c.AnnounceTasks, envelope: Envelope) -> bool:
        """Whether the command stands; False: somebody else was faster, look again."""
        await self._catch_up()
        events = decide_namespace(self._state, command)
        if not events:
            return True
        commit = Commit(
            v=codec.VERSION,
            execution_id=SETTINGS_ENTITY,
            n=self._state.n + 1,
            version=self._state.version + 1,
            time=envelope.time,
            commands=(Cause(command.id, envelope.time),),
            actor=command.actor,
            executor=self._name,
            prev=hash_of(self._last.data) if self._last else "",
            events=tuple(events),
        )
        data = codec.encode(commit)
        position = await append_and_wait(self._log, SETTINGS_ENTITY, commit.n, data, self._last.position if self._last else 0)
        if position is None:
            return False
        self._apply([Stored(commit.n, position, data)])
        return True

    async def _catch_up(self) -> None:
        stored = await self._log.load(SETTINGS_ENTITY, after=self._state.n)
        while (more := await self._log.read(SETTINGS_ENTITY, self._state.n + len(stored) + 1)) is not None:
            stored.append(more)
        self._apply(stored)

    def _apply(self, stored: list[Stored]) -> None:
        if stored:
            self._state = fold_namespace((codec.decode(one.data) for one in stored), self._state)
            self._last = stored[-1]
            self._follow(self._state.surroundings)

    async def _look_again(self) -> None:
        """News by message at once, and by looking every few seconds, for a message can be lost."""
        while True:
            try:
                await asyncio.wait_for(self._news.wait(), _LOOK_AGAIN_S)
            except TimeoutError:
                pass
            self._news.clear()
            try:
                async with self._lock:
                    await self._catch_up()
            except EsexecError as error:
                logger.debug("settings: %s", error)
