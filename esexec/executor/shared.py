"""The entities that executions share, as an executor keeps them: what gathers while a commit is under way is decided in the next.

    take → (load) → decide what has gathered → append one commit → tell → ack

One task per entity that has something to do. Any executor may decide any message; who was not first finds that out when it
appends, and decides again upon what stands. A message that is delivered again, and leaves nothing to do, may have been decided by
somebody who died before telling: then what follows from the entity's state is told once more. A nudge has all of it told.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple, Protocol

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.commit import Cause, Commit, hash_of, signed
from esexec.domain.effects import SetTimer
from esexec.domain.errors import CorruptHistory, ErrorInfo, EsexecError
from esexec.domain.messages import Answer
from esexec.domain.sharing import requests as s
from esexec.domain.sharing.decide import SharedDecision, Verdict
from esexec.domain.sharing.fold import end
from esexec.domain.sharing.follow import Follow, MakeRoom, SetWake, Tell, everything, follow, look_again, told_again
from esexec.domain.sharing.snapshot import snapshot
from esexec.domain.sharing.state import SharedState, remember
from esexec.executor.envelope import DELIVERIES_OF_POISON, Asked, Envelope, GivenBack, backoff_s, undecidable
from esexec.executor.known import Known, caught_up, read_known
from esexec.executor.port import Done
from esexec.executor.shared_answers import answer_of, answer_to, answer_to_client, misdirected
from esexec.executor.shortening import FeedIsAt, Shortening
from esexec.log import codec
from esexec.log.port import Log, Stored, append_and_wait
from esexec.nats.streams import ACK_WAIT_MS
from esexec.world import chance

logger = logging.getLogger("esexec.executor")

_GATHERED = 200
"""So many messages are decided in one commit at most."""
_KEPT = 1_000
"""So many entities are kept in memory."""
_MISSED_AFTER_S = ACK_WAIT_MS / 1000 * 0.9
"""What somebody who died had in hand comes again no sooner."""
_RIVAL_S = 0.02
"""Who was overtaken by another executor lets it go on for up to so long."""

_SPARED = timedelta(seconds=1)
"""A lease that has ended, but for a word that was not read, is looked at again after so long."""

Clock = Callable[[], datetime]
"""The server's time, as nearly as it is known here."""
UnreadSince = Callable[[], Awaitable[datetime | None]]
"""Since when a client's word that renews a lease has been waiting to be read; None: there is none."""


async def _all_is_read() -> datetime | None:
    return None


class SharedOutbox(Protocol):
    """Where that goes which an entity has to say. `done` is called when it stands; an answer to a client is not stored."""

    async def grant(self, to: s.Requester, answer: s.Answer, done: Done) -> None: ...
    async def set_timer(self, entity: str, timer: SetTimer, done: Done) -> None: ...
    async def make_room(self, execution: str, by: str, done: Done) -> None: ...
    async def answer(self, answer: Answer) -> None: ...
    async def bury(self, envelope: Envelope, reason: ErrorInfo) -> None: ...


async def _no_feed() -> int | None:
    return None


class _Told(NamedTuple):
    """When everything that was granted `since` then was told."""

    mono: float
    since: datetime


class _Box:
    """What waits for an entity, what is known of it, and what was told for a death. `too_large`: the commit at which its state
    did not fit into a message."""

    __slots__ = ("at_work", "known", "shortening", "told", "too_large", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Envelope] = []
        self.known: Known | None = None
        self.told: _Told | None = None
        self.too_large = 0
        self.shortening = Shortening()
        self.at_work = False

    def forget(self) -> None:
        """Something went wrong: what is known may not hold, and what was decided may not have been told."""
        self.known = self.told = None


class SharedDesk:
    """See the module."""

    def __init__(
        self,
        name: str,
        log: Log,
        outbox: SharedOutbox,
        clock: Clock,
        unread_since: UnreadSince = _all_is_read,
        feed_is_at: FeedIsAt = _no_feed,
    ) -> None:
        self._name, self._log, self._outbox, self._clock = name, log, outbox, clock
        self._unread_since, self._feed_is_at = unread_since, feed_is_at
        self._boxes: OrderedDict[str, _Box] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        return not self._tasks

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def take(self, envelope: Envelope) -> None:
        """A message for an entity."""
        box = self._boxes.setdefault(envelope.entity, _Box())
        box.waiting.append(envelope)
        if not box.at_work:
            box.at_work = True
            self._run(self._serve(envelope.entity, box))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, entity: str, box: _Box) -> None:
        try:
            while box.waiting:
                batch, box.waiting = box.waiting[:_GATHERED], box.waiting[_GATHERED:]
                await self._guarded(entity, box, batch)
                await self._compact(entity, box)
        finally:
            box.at_work = False
            self._boxes.move_to_end(entity)
            if (more := len(self._boxes) - _KEPT) > 0:
                idle = (name for name, other in self._boxes.items() if not other.at_work)
                for name in list(islice(idle, more)):
                    del self._boxes[name]

    async def _guarded(self, entity: str, box: _Box, batch: list[Envelope]) -> None:
        """Whatever goes wrong, these messages come again, or are buried, and the others go on."""
        try:
            await self._decide(entity, box, batch)
        except CorruptHistory as error:
            box.forget()
            for envelope in batch:
                await self._bury(envelope, "corrupt_history", error)
        except EsexecError as error:
            logger.warning("%s: %s", entity, error)
            box.forget()
            for envelope in batch:
                await envelope.nak(backoff_s(envelope.deliveries))
        except Exception as error:
            logger.exception("a fault of ours")
            box.forget()
            if len(batch) > 1:  # one of them is to blame: each on its own
                for envelope in batch:
                    await self._guarded(entity, box, [envelope])
            elif batch[0].deliveries < DELIVERIES_OF_POISON:
                await batch[0].nak(backoff_s(batch[0].deliveries))
            else:
                await self._bury(batch[0], "poison", error)

    async def _decide(self, entity: str, box: _Box, batch: list[Envelope]) -> None:
        batch.sort(key=_is_due)  # what renews a lease is heard before it ends
        unread = await self._unread_since() if entity == s.POOLS_ENTITY and _is_due(batch[-1]) else None
        while True:
            known = box.known = box.known or await read_known(self._log, entity)
            decision = SharedDecision(known.state.copy(), max([self._clock(), *(envelope.time for envelope in batch)]))
            verdicts = [_decide_one(decision, envelope, unread) for envelope in batch]
            decision.settle()
            if decision.events:
                stands = await self._append(entity, known, decision, batch, verdicts)
                if stands is not None:
                    box.known = stands
                    break
                await asyncio.sleep(chance() * _RIVAL_S)
            last = await self._log.last(entity)
            if not decision.events and known.is_last(last):  # else there are news, and all may be different
                break
            box.known = await caught_up(self._log, entity, known, last)
        await self._go_on(entity, box, box.known.state, decision, batch, verdicts)

    # The commit ----------------------------------------------------------------------------------------------------------

    async def _append(
        self, entity: str, known: Known, decision: SharedDecision, batch: list[Envelope], verdicts: list[Verdict]
    ) -> Known | None:
        """The entity once the commit stands; None: somebody else's does."""
        state = decision.state
        for envelope, verdict in zip(batch, verdicts, strict=True):
            content = envelope.content
            if isinstance(content, c.AnyCommand) and verdict.kind == "done" and content.id not in decision.denied:
                decision.cause(content.id, envelope.time, content.actor)
                remember(state.applied, content.id, state.n)
        end(state, len(decision.events))
        return await self._store(known, state, decision.first_version, decision.events, decision.causes)

    async def _store(
        self,
        known: Known,
        state: SharedState,
        version: int,
        events: list[Any],
        causes: Sequence[Cause],
    ) -> Known | None:
        assert state.time is not None
        actor, signed_causes = signed(causes)
        commit = Commit(
            v=codec.VERSION,
            execution_id=state.entity,
            n=state.n,
            version=version,
            time=state.time,
            commands=signed_causes,
            actor=actor,
            executor=self._name,
            prev=hash_of(known.last.data) if known.last is not None else "",
            events=tuple(events),
        )
        data = codec.encode(commit)
        position = await append_and_wait(self._log, state.entity, state.n, data, known.last.position if known.last else 0)
        return None if position is None else Known(state, Stored(state.n, position, data))

    async def _compact(self, entity: str, box: _Box) -> None:
        """Now and then the whole state is written down, and what was before it is forgotten. Nobody waits for that."""
        known = box.known
        if known is None or known.state.n - max(known.state.compacted, box.too_large) < limits.commits_before_compaction:
            return
        written = snapshot(known.state)
        if len(bytes(written.state)) > limits.message_bytes - 2 * limits.headers_bytes:  # with what a commit has beside it
            logger.warning("%s: its state of %d bytes cannot be written down", entity, len(bytes(written.state)))
            box.too_large = known.state.n
            return
        decision = SharedDecision(known.state.copy(), self._clock())
        decision.emit(written)
        end(decision.state, 1)
        try:
            stands = await self._store(known, decision.state, decision.first_version, decision.events, ())
            if stands is not None and stands.last is not None:
                box.known = stands
                box.shortening.written(stands.last)
                await box.shortening.shorten(self._log, self._feed_is_at, entity, stands.last)
        except EsexecError as error:  # what is left is harmless, and goes with the next
            logger.warning("%s: %s", entity, error)

    # What follows --------------------------------------------------------------------------------------------------------

    async def _go_on(
        self,
        entity: str,
        box: _Box,
        state: SharedState,
        decision: SharedDecision,
        batch: list[Envelope],
        verdicts: list[Verdict],
    ) -> None:
        """Tell who is to be told; once all of that stands, let the messages go."""
        todo = self._missed(box, state, [one for one in zip(batch, verdicts, strict=True) if _leaves_nothing(*one)])
        if any(isinstance(envelope.content, r.Nudge) for envelope in batch):
            todo = everything(state)
        todo += follow(decision.events, state, state.n) if decision.events else []
        not_before = decision.time + _SPARED if decision.spared else decision.time
        for envelope, verdict in zip(batch, verdicts, strict=True):
            if verdict.kind == "known":
                todo += told_again(state, _asker_of(envelope))
            if isinstance(envelope.content, r.Due):
                todo += look_again(state, envelope.content.name, not_before)
        todo += [Tell(name, denied) for name, denied in decision.denied.items()]
        todo += [Tell(asked, denied) for asked, denied in misdirected(zip(batch, verdicts, strict=True))]
        distinct = _distinct(todo)
        standing = _Standing(len(distinct))
        for one in distinct:
            await self._say(entity, one, standing.one_more)
        await standing.all
        for envelope, verdict in zip(batch, verdicts, strict=True):
            await self._let_go(envelope, verdict, state)

    def _missed(self, box: _Box, state: SharedState, again: list[tuple[Envelope, Verdict]]) -> list[Follow]:
        """What somebody should have told who decided these messages and died; once for all messages that a death brings back."""
        if not again:
            return []
        now_mono, since = monotonic(), min(envelope.time for envelope, _ in again)
        if box.told is not None and now_mono - box.told.mono < _MISSED_AFTER_S and box.told.since <= since:
            return []
        box.told = _Told(now_mono, since)
        return everything(state, since)

    async def _say(self, entity: str, one: Follow, done: Done) -> None:
        match one:
            case Tell(request_id, answer, until):
                if (requester := s.requester_of(request_id)) is not None:
                    await self._outbox.grant(requester, answer, done)
                else:
                    await self._outbox.answer(answer_to_client(entity, request_id, answer, until))
                    await done()
            case SetWake(name, due):
                await self._outbox.set_timer(entity, SetTimer(name, due, (due - self._clock()).total_seconds()), done)
            case MakeRoom(request_id, by):
                holder = s.requester_of(request_id)
                if holder is not None and holder.step == s.WHOLE:
                    await self._outbox.make_room(holder.execution, by, done)
                else:
                    await done()

    async def _let_go(self, envelope: Envelope, verdict: Verdict, state: SharedState) -> None:
        content = envelope.content
        if verdict.kind == "later":
            await envelope.nak(backoff_s(envelope.deliveries))
            return
        if isinstance(content, c.AnyCommand) and (answer := answer_of(content, envelope, verdict, state)) is not None:
            await self._outbox.answer(answer)
        await envelope.ack()

    async def _bury(self, envelope: Envelope, code: str, error: Exception) -> None:
        reason = undecidable(envelope, code, error)
        logger.error("%s", reason.message)
        if isinstance(content := envelope.content, c.AnyCommand):
            await self._outbox.answer(answer_to(content, envelope, status="refused", effective=False, error=reason))
        await self._outbox.bury(envelope, reason)


class _Standing:
    """How many of the things that were sent on their way do not stand yet; `all` is done when every one does."""

    def __init__(self, count: int) -> None:
        self._open = count
        self.all: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not count:
            self.all.set_result(None)

    async def one_more(self) -> None:
        self._open -= 1
        if not self._open and not self.all.done():
            self.all.set_result(None)


def _distinct(todo: list[Follow]) -> list[Follow]:
    """Each thing is said once, the last time that it would have been."""
    last = {(type(one), one[0]): one for one in todo}
    return list(last.values())


def _leaves_nothing(envelope: Envelope, verdict: Verdict) -> bool:
    """Whether it was delivered before, and was dealt with: what was only handed back is decided now."""
    dealt_with = verdict.kind == "known" or (verdict.kind == "done" and not verdict.effective) or _is_due(envelope)
    return envelope.deliveries > 1 and dealt_with


def _is_due(envelope: Envelope) -> bool:
    return isinstance(envelope.content, r.Due)


def _decide_one(decision: SharedDecision, envelope: Envelope, unread: datetime | None) -> Verdict:
    content: Any = envelope.content
    match content:
        case Asked(request_id, acquire):
            return decision.acquire(request_id, acquire)
        case GivenBack(request_id):
            return decision.release(request_id)
        case r.Due():
            return decision.due(unread)
        case r.Nudge():
            return Verdict("done")
    return decision.command(content)


def _asker_of(envelope: Envelope) -> str:
    content: Any = envelope.content
    return content.request_id if isinstance(content, Asked) else content.id
