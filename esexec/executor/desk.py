"""The desk: every mailbox of one executor, and what is rare: loading, doubting, binding keys, burying poison.

It knows the log and an `Outbox` only by their ports, so the simulation runs this very code over a log in memory. What a cache
may not conclude stands here in one place: `_doubt` reads the leader before "unknown", "not allowed" or "too late" is believed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from esexec.domain import admission, limits
from esexec.domain import commands as c
from esexec.domain import effects as fx
from esexec.domain import reports as r
from esexec.domain.announced import warnings_of
from esexec.domain.attempts import parse_attempt
from esexec.domain.commit import hash_of
from esexec.domain.decider import Surroundings
from esexec.domain.decision import APPLIED, Verdict
from esexec.domain.errors import CorruptHistory, ErrorInfo, EsexecError, Unavailable
from esexec.domain.evolve import fold
from esexec.domain.messages import Answer, ImageSignal, Warned
from esexec.domain.sharing import requests as s
from esexec.domain.state import ExecutionState
from esexec.executor.dispatching import Dispatching
from esexec.executor.envelope import DELIVERIES_OF_UNKNOWN, Envelope, backoff_s, undecidable
from esexec.executor.mailbox import Batch, Mailbox
from esexec.executor.packing import ObjectStore
from esexec.executor.port import Done, Outbox
from esexec.executor.preparation import PlanOf, Preparation, no_plans
from esexec.executor.turns import FirstCommand
from esexec.log import codec
from esexec.log.port import Log
from esexec.results import TaskRecord, record_of

logger = logging.getLogger("esexec.executor")

_DELIVERIES_OF_EARLY = 2
"""A verb for an execution that does not exist (yet) is delayed at least this often before it is refused."""
_EARLY_S = 0.75
"""That takes so long; one that stood in line as long is not delayed."""

StartWaits = Callable[[str], Awaitable[bool]]
"""Whether a start of this execution is on its way: then it is too early to say that there is no such execution."""


async def _none_waits(entity: str) -> bool:
    return False


async def _nothing_new() -> bool:
    """Whether there are news of the surroundings, which the leader is asked for."""
    return False


class Desk:
    """See the module. `cache_size`: how many idle entities are kept in memory; any number is correct, 0 too."""

    def __init__(
        self,
        name: str,
        log: Log,
        outbox: Outbox,
        *,
        cache_size: int = limits.cached_entities,
        start_waits: StartWaits = _none_waits,
        plan_of: PlanOf = no_plans,
        first_command: FirstCommand | None = None,
        look_around: Callable[[], Awaitable[bool]] = _nothing_new,
        objects: ObjectStore | None = None,
    ) -> None:
        self.name, self.log, self.outbox, self.cache_size = name, log, outbox, cache_size
        self.objects = objects
        """Where large values are; None: there are none, and what is too large fails."""
        self._start_waits, self._look_around = start_waits, look_around
        self.preparation = Preparation(self, plan_of, first_command)
        """What some commands need before they can be decided."""
        self.surroundings = Surroundings()
        self._mailboxes: dict[str, Mailbox] = {}
        self._weights: dict[str, int] = {}
        """What each mailbox weighed when it came to rest last; `_weight` is the sum."""
        self._weight = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatching = Dispatching(self, objects)

    # The usual way -----------------------------------------------------------------------------------------------------

    async def take(self, envelope: Envelope) -> None:
        """A message about an execution."""
        mailbox = self._mailboxes.get(envelope.entity)
        if mailbox is None:
            mailbox = self._mailboxes[envelope.entity] = Mailbox(self, envelope.entity)
        await mailbox.put(envelope)

    def settled(self, mailbox: Mailbox) -> None:
        """A mailbox has come to rest: keep its state if it is worth it, and drop what was not used for longest."""
        mailboxes, entity, state = self._mailboxes, mailbox.entity, mailbox.state
        if mailboxes.get(entity) is not mailbox:
            return
        del mailboxes[entity]
        self._weight -= self._weights.pop(entity, 0)
        if state is None or not state.n or not self.cache_size or state.ended:
            return
        mailboxes[entity] = mailbox  # now the youngest
        self._weights[entity] = state.weight
        self._weight += state.weight
        while len(mailboxes) > self.cache_size or self._weight > limits.cached_bytes:
            oldest = next((entity for entity, other in mailboxes.items() if other.idle), None)
            if oldest is None:
                return
            del mailboxes[oldest]
            self._weight -= self._weights.pop(oldest, 0)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._tasks and all(mailbox.idle for mailbox in self._mailboxes.values())

    async def close(self) -> None:
        """Give up what is under way: its messages are delivered again."""
        for task in list(self._tasks):
            task.cancel()

    async def carry_out(self, mailbox: Mailbox, batch: Batch, effect: fx.Effect) -> None:
        """Send an effect on its way; `mailbox.one_done(batch)` is called when it stands."""
        entity, done = mailbox.entity, partial(mailbox.one_done, batch)
        match effect:
            case fx.DispatchAttempt():
                await self._dispatching.dispatch(entity, batch, effect, done)
            case fx.SetTimer():
                await self.outbox.set_timer(entity, effect, done)
            case fx.ClearTimer():
                await self.outbox.clear_timer(entity, effect, done)
            case fx.TakeBack():
                await self._dispatching.take_back(entity, batch, effect, done)
            case fx.LookLater():
                await self.outbox.look_later(entity, done)
            case fx.Ask():
                await self._ask(entity, effect, done)
            case fx.GiveBack():
                await self.outbox.give_back(effect.entity, s.Requester(entity, effect.step, effect.attempt), done)
            case fx.ContinueLater(after):
                await self.outbox.continue_later(entity, after, done)
            case fx.StartFork(new_id, command):
                await self.outbox.start(new_id, command, done)

    async def _ask(self, entity: str, effect: fx.Ask, done: Done) -> None:
        """An attempt of which it cannot be told what it asks for (a reference to nothing) has failed."""
        message = effect.message
        if isinstance(message, ErrorInfo):
            info = msgspec.structs.replace(message, retryable=False, task_id=effect.step, attempt=effect.attempt)
            await self.outbox.report(entity, effect, r.Failed(error=info), done)
        else:
            await self.outbox.ask(s.Requester(entity, effect.step, f"{effect.run}-{effect.attempt}"), message, done)

    async def conclude(self, mailbox: Mailbox, envelope: Envelope, verdict: Verdict, n: int, *, within: bool = False) -> None:
        """Let a message go as its verdict says. `n`: the history it was judged by reached so far; `within`: it was judged within
        commit `n`, so that nothing was missing."""
        match verdict.kind:
            case "applied" if type(envelope.content) is c.PauseExecution:  # another executor may have resumed it by now
                self.spawn(self._doubt(envelope, verdict, n), envelope)
            case "applied":
                content = envelope.content
                if isinstance(content, c.AnyCommand):
                    if content.confirm:
                        warnings, record = _told_of_start(mailbox, content)
                        await self.answer(envelope, warnings=warnings, record=record)
                elif type(content) is r.Before:
                    await self._tell_image(mailbox, envelope)
                await envelope.ack()
            case "ineffective" if isinstance(envelope.content, r.Before):  # there is one already, and that is for good
                await self._tell_image(mailbox, envelope)
                await envelope.ack()
            case "ineffective" | "superseded" | "refused" | "duplicate" if within:
                await self.let_go(envelope, verdict)
            case "duplicate" if type(envelope.content) is not c.CancelExecution:  # of which the end makes something else
                await self.let_go(envelope, verdict)  # the effects are owed to the first of its meaning, which is still held
            case "stale" if isinstance(envelope.content, s.Answered):
                if isinstance(envelope.content, s.Granted):  # nobody waits for it any more
                    requester = s.Requester(envelope.entity, envelope.step, envelope.attempt)
                    await self.outbox.give_back(envelope.content.entity, requester, envelope.ack)
                else:
                    await envelope.ack()
            case "open" if isinstance(envelope.content, r.Lost):  # its dispatch is acknowledged behind this report: not there yet
                await self.outbox.look_later(envelope.entity, envelope.ack)
            case "repeated" | "stale":
                if verdict.kind == "stale" and isinstance(envelope.content, r.Started | r.Lost | r.Before):
                    await self.outbox.stop_attempt(envelope.entity, envelope.step, envelope.attempt)
                under_way = next((one for one in mailbox.carrying if one.commit is not None and one.commit.n == verdict.n), None)
                if under_way is not None and not under_way.done:
                    under_way.messages.append((envelope, verdict))  # what it asks for does not stand yet
                elif under_way is not None or not verdict.n:
                    await self.let_go(envelope, verdict)
                else:
                    self.spawn(self._doubt(envelope, verdict, n), envelope)
            case "invalid":
                await self.let_go(envelope, verdict)
            case _:
                self.spawn(self._doubt(envelope, verdict, n), envelope)

    async def let_go(self, envelope: Envelope, verdict: Verdict) -> None:
        """Answer as the verdict says, and acknowledge."""
        match verdict.kind:
            case "duplicate":
                await self.answer(envelope, "duplicate")
            case "ineffective":
                await self.answer(envelope, effective=False)
            case "superseded":
                await self.answer(envelope, "superseded", effective=False)
            case "refused" | "invalid":
                await self.answer(envelope, "refused", effective=False, error=verdict.error)
            case _:
                await self.answer(envelope)
        await envelope.ack()

    async def answer(
        self,
        envelope: Envelope,
        status: Any = "accepted",
        *,
        effective: bool = True,
        error: ErrorInfo | None = None,
        execution_id: str | None = None,
        warnings: tuple[Warned, ...] = (),
        record: TaskRecord | None = None,
    ) -> None:
        content = envelope.content
        if not isinstance(content, c.AnyCommand) or (status == "accepted" and effective and not content.confirm):
            return
        await self.outbox.answer(
            Answer(
                command_id=content.id,
                execution_id=envelope.entity,
                status=status,
                effective=effective,
                error=error,
                original_id=execution_id,
                warnings=warnings,
                record=record,
            )
        )

    async def _tell_image(self, mailbox: Mailbox, envelope: Envelope) -> None:
        """The handler that asked to keep what was before waits for this; it asks again if it is lost."""
        state = mailbox.state
        if state is None or not state.exists:
            return
        index = state.graph.index.get(envelope.step)
        if index is not None and index in state.images:
            run, attempt = parse_attempt(envelope.attempt)
            await self.outbox.tell_image(
                ImageSignal(execution_id=envelope.entity, step=envelope.step, attempt=attempt, run=run, image=state.images[index])
            )

    def commands_in_hand(self, entity: str) -> list[Envelope]:
        """Those that this executor's mailbox has, and decides in the order they came (a start may need its plan first)."""
        mailbox = self._mailboxes.get(entity)
        if mailbox is None:
            return []
        under_way = [batch for batch in (*mailbox.carrying, mailbox.appending) if batch is not None]
        envelopes = [*mailbox.waiting, *(envelope for batch in under_way for envelope, _ in batch.messages)]
        return [one for one in envelopes if one.ready or type(one.content) is c.StartExecution]

    # What is rare --------------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None], envelope: Envelope | None = None) -> None:
        """Do something rare in a task of its own. If the log does not answer, its message is left for later."""
        task = asyncio.create_task(self._guarded(work, envelope))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None], envelope: Envelope | None) -> None:
        try:
            await work
        except Unavailable as error:
            logger.warning("%s; %s", error.message, "will be tried again")
            if envelope is not None:
                await envelope.nak(backoff_s(envelope.deliveries))
        except CorruptHistory as error:
            if envelope is not None:
                await self.bury(envelope, "corrupt_history", error)
        except EsexecError as error:
            logger.warning("will be tried again: %s", error)
            if envelope is not None:
                await envelope.nak(backoff_s(envelope.deliveries))
        except Exception as error:
            logger.exception("a fault of ours")
            if envelope is not None and envelope.deliveries >= DELIVERIES_OF_UNKNOWN:
                await self.bury(envelope, "poison", error)
            elif envelope is not None:
                await envelope.nak(backoff_s(envelope.deliveries))

    def load(self, mailbox: Mailbox) -> None:
        """Fetch and fold the history, then decide what waits. `mailbox.busy` is set by the caller."""
        self.spawn(self._load(mailbox))

    async def _load(self, mailbox: Mailbox) -> None:
        try:
            mailbox.state = await self.fold(mailbox.entity, certain=mailbox.refusals > 0)
        except Unavailable:
            await self._give_back(mailbox)
            raise
        except CorruptHistory as error:
            # This execution is halted: its messages are parked. The others go on.
            mailbox.busy = False
            while mailbox.waiting:
                await self.bury(mailbox.waiting.pop(0), "corrupt_history", error)
            if mailbox.idle:
                self.settled(mailbox)
        except Exception:
            await self._give_back(mailbox)
            raise
        else:
            mailbox.busy = False
            await mailbox.decide()

    async def _give_back(self, mailbox: Mailbox) -> None:
        mailbox.busy = False
        while mailbox.waiting:
            envelope = mailbox.waiting.pop(0)
            await envelope.nak(backoff_s(envelope.deliveries))
        if mailbox.idle:
            self.settled(mailbox)

    async def fold(self, entity: str, *, certain: bool) -> ExecutionState:
        """The state as the log has it; `certain`: nothing that the leader knows is missing."""
        stored = await self.log.load(entity)
        while certain and (more := await self.log.read(entity, len(stored) + 1)) is not None:
            stored.append(more)
        commits, prev = [codec.commit_of(one) for one in stored], ""
        for commit, one in zip(commits, stored, strict=True):
            if commit.prev != prev:
                raise CorruptHistory(f"{entity}: commit {one.n} does not follow the one before: one of them was replaced")
            prev = hash_of(one.data)
        state = fold(entity, commits)
        if stored:
            state.position, state.prev = stored[-1].position, prev
            state.weight = sum(len(one.data) + len(one.plan) for one in stored)
        return state

    async def _doubt(self, envelope: Envelope, verdict: Verdict, n: int) -> None:
        """The verdict rests on what is absent or open now: believe it only if the leader knows no commit after `n`."""
        if await self.log.read(envelope.entity, n + 1) is not None:
            mailbox = self._mailboxes.get(envelope.entity)
            if mailbox is not None and mailbox.state is not None and mailbox.state.n <= n and mailbox.appending is None:
                mailbox.state, mailbox.refusals = None, mailbox.refusals + 1
            await self.take(envelope)
        elif type(envelope.content) is c.StartExecution and verdict.error is not None and await self._look_around():
            await self.take(envelope)  # another version of a task may have been announced by now
        elif verdict.kind in ("repeated", "stale", "open"):
            await self._repeat(envelope, verdict)
        elif verdict.kind == "unknown":
            if envelope.deliveries >= DELIVERIES_OF_UNKNOWN:
                await self.bury(envelope, "unknown_attempt", None)
            else:
                await envelope.nak(backoff_s(envelope.deliveries))
        elif (
            verdict.error is not None
            and verdict.error.code == "not_found"
            and (_is_early(envelope) or await self._start_waits(envelope.entity))
        ):
            await envelope.nak(backoff_s(envelope.deliveries))
        else:
            await self.let_go(envelope, verdict)

    async def _repeat(self, envelope: Envelope, verdict: Verdict) -> None:
        """The message was dealt with in commit `verdict.n`; its effects may not have been: repeat those that are open.

        Without a commit, everything that is open.
        """
        entity, commit = envelope.entity, None
        if verdict.n:
            stored = await self.log.read(entity, verdict.n)
            if stored is None:
                raise CorruptHistory(f"{entity}: commit {verdict.n} is missing")
            commit = codec.decode(stored.data)
            if _cause_of(envelope) not in {cause.id for cause in commit.commands}:
                await self.let_go(envelope, verdict)  # it came too late, and led to nothing: no effect is owed to it
                return
        mailbox = self._mailboxes.get(entity)
        if mailbox is None or mailbox.state is None:
            state = await self.fold(entity, certain=True)
            mailbox = self._mailboxes.setdefault(entity, Mailbox(self, entity))
            if mailbox.state is None and mailbox.appending is None and not mailbox.busy:
                mailbox.state = state
        if mailbox.state is None or mailbox.appending is not None or mailbox.deciding:
            await envelope.nak(backoff_s(envelope.deliveries))  # what is open now is not certain
        elif mailbox.state.exists:
            # Once this is repeated the message has had its effect: it is let go, and not judged again.
            await mailbox.repeat(envelope, APPLIED if verdict.kind == "open" else Verdict(verdict.kind), commit)
        else:
            await self.let_go(envelope, verdict)

    # Poison ------------------------------------------------------------------------------------------------------------------

    async def bury(self, envelope: Envelope, code: str, error: Exception | None) -> None:
        """Put a message among the dead, with the reason; whoever waits for an answer gets it."""
        reason = undecidable(envelope, code, error)
        logger.error("%s", reason.message, exc_info=error if code == "poison" else None)
        await self.answer(envelope, "refused", effective=False, error=reason)
        await self.outbox.bury(envelope, reason)


def _told_of_start(mailbox: Mailbox, command: c.AnyCommand) -> tuple[tuple[Warned, ...], TaskRecord | None]:
    """What the answer to a start says besides: what may not be meant, and the record of a single task."""
    state = mailbox.state
    if type(command) is not c.StartExecution or state is None or not state.exists:
        return (), None
    return warnings_of(state.created.unannounced), record_of(state, 0) if command.record else None


def _is_early(envelope: Envelope) -> bool:
    stood_in_line = envelope.in_line_mono and asyncio.get_running_loop().time() - envelope.in_line_mono >= _EARLY_S
    return envelope.deliveries <= _DELIVERIES_OF_EARLY and not stood_in_line


def _cause_of(envelope: Envelope) -> str:
    """What a commit that was decided upon this message says of it."""
    content = envelope.content
    if isinstance(content, r.AnyReport):
        return f"{content.__struct_config__.tag}/{envelope.step}/{envelope.attempt}"
    if isinstance(content, s.Answered):
        return admission.cause_of(content, envelope.step, envelope.attempt)
    if isinstance(content, r.Due):
        return f"due/{content.name}"
    if isinstance(content, r.Continue):
        return f"continue/{content.after}"
    return content.id if isinstance(content, c.AnyCommand) else ""
