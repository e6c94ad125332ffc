"""An entity that executions share, with few and rare commands: decided by every executor, one command at a time.

Small, so plain: each command is decided against the log as the leader knows it. What the commands mean is pure and stands in the
domain; here is only how they get into the log. An entity's commands are acknowledged last: one that a crash interrupted comes
again, and is recognised by its id.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain.commit import Cause, Commit, hash_of
from esexec.domain.errors import ErrorInfo, EsexecError
from esexec.domain.messages import Answer
from esexec.executor.envelope import DELIVERIES_OF_POISON, Envelope, backoff_s, undecidable
from esexec.executor.port import Outbox
from esexec.log import codec
from esexec.log.port import Log, Stored, append_and_wait

logger = logging.getLogger("esexec.executor")


class EntityState(Protocol):
    """What the state of any entity has: how far it was folded, and the commit of each command."""

    n: int
    version: int
    applied: dict[str, int]


S = TypeVar("S", bound=EntityState)


class EntityDesk(ABC, Generic[S]):
    """See the module. A kind of entity says what its state is, how it is folded, and what its commands decide."""

    entity: ClassVar[str]

    def __init__(self, name: str, log: Log, outbox: Outbox, state: S) -> None:
        self._name, self._log, self._outbox = name, log, outbox
        self._state = state
        self._last: Stored | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._handling: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether no command is under way."""
        return not self._handling

    @abstractmethod
    def _fold(self, commits: Iterable[Commit], state: S) -> S: ...

    @abstractmethod
    def _decide(self, state: S, command: Any) -> list[e.Event] | ErrorInfo: ...

    async def _store_first(self, events: list[e.Event], envelope: Envelope) -> list[e.Event]:
        """Whatever must stand elsewhere before these events may; what remains of them for the entity itself."""
        return events

    def _changed(self) -> None:
        """There is a new state."""

    def _answered(self, answer: Answer, command: Any) -> Answer:
        """The answer to a command that was accepted, with whatever else its sender should know."""
        return answer

    # Commands ------------------------------------------------------------------------------------------------------------

    async def take(self, envelope: Envelope) -> None:
        """A command on the entity."""
        task = self._run(self._handle(envelope))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def _run(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _handle(self, envelope: Envelope) -> None:
        command = envelope.content
        assert isinstance(command, c.Command)
        try:
            async with self._lock:
                outcome = await self._carry_out(command, envelope)
        except EsexecError as error:
            logger.warning("%s: %s", self.entity, error)
            await envelope.nak(backoff_s(envelope.deliveries))
        except Exception as error:
            logger.exception("a fault of ours")
            await self._fail(command, envelope, error)
        else:
            await self._answer(command, outcome)
            await envelope.ack()

    async def _carry_out(self, command: c.Command, envelope: Envelope) -> ErrorInfo | bool:
        """Why it is refused, or whether it changed anything. If somebody else was faster it is decided again."""
        while True:
            await self._catch_up()
            decided = self._decide(self._state, command)
            if isinstance(decided, ErrorInfo):
                return decided
            if not decided:
                return command.id in self._state.applied
            if await self._commit(command, await self._store_first(decided, envelope), envelope):
                return True

    async def _answer(self, command: c.Command, outcome: ErrorInfo | bool) -> None:
        if isinstance(outcome, ErrorInfo):
            answer = Answer(command_id=command.id, execution_id=self.entity, status="refused", effective=False, error=outcome)
        elif command.confirm or not outcome:
            answer = Answer(command_id=command.id, execution_id=self.entity, status="accepted", effective=outcome)
            answer = self._answered(answer, command)
        else:
            return
        await self._outbox.answer(answer)

    async def _fail(self, command: c.Command, envelope: Envelope, error: Exception) -> None:
        if envelope.deliveries < DELIVERIES_OF_POISON:
            await envelope.nak(backoff_s(envelope.deliveries))
            return
        reason = undecidable(envelope, "poison", error)
        await self._answer(command, reason)
        await self._outbox.bury(envelope, reason)

    # The log -------------------------------------------------------------------------------------------------------------

    async def _commit(self, command: c.Command, events: Sequence[e.Event], envelope: Envelope) -> bool:
        """Whether it stands; False: somebody else's commit does."""
        n, last = self._state.n + 1, self._last
        commit = Commit(
            v=codec.VERSION,
            execution_id=self.entity,
            n=n,
            version=self._state.version + 1,
            time=envelope.time,
            commands=(Cause(command.id, envelope.time),),
            actor=command.actor,
            executor=self._name,
            prev=hash_of(last.data) if last else "",
            events=tuple(events),
        )
        data = codec.encode(commit)
        position = await append_and_wait(self._log, self.entity, n, data, last.position if last else 0)
        if position is None:
            return False
        self._apply([Stored(n, position, data)])
        return True

    async def _catch_up(self) -> None:
        """Read what the leader knows beyond what is known here."""
        stored = await self._log.load(self.entity, after=self._state.n)
        while (more := await self._log.read(self.entity, self._state.n + len(stored) + 1)) is not None:
            stored.append(more)
        self._apply(stored)

    def _apply(self, stored: list[Stored]) -> None:
        if stored:
            self._state = self._fold((codec.decode(one.data) for one in stored), self._state)
            self._last = stored[-1]
            self._changed()
