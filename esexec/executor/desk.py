"""The desk: every mailbox of one executor, and what is rare: loading, doubting, binding keys, burying poison.

It knows the log and an `Outbox` only by their ports, so the simulation runs this very code over a log in memory. What a cache
may not conclude stands here in one place: `_doubt` reads the leader before "unknown", "not allowed" or "too late" is believed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import msgspec

from esexec.domain import commands as c
from esexec.domain import effects as fx
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.commit import hash_of
from esexec.domain.decider import Surroundings, decide
from esexec.domain.decision import APPLIED, Verdict
from esexec.domain.errors import CorruptHistory, ErrorInfo, EsexecError, InternalError, Unavailable, ValidationError
from esexec.domain.messages import Answer
from esexec.domain.state import ExecutionState, fold
from esexec.executor import keys
from esexec.executor.envelope import Envelope, backoff_s
from esexec.executor.mailbox import Batch, Mailbox
from esexec.log import codec
from esexec.log.port import Log
from esexec.world import now

logger = logging.getLogger("esexec.executor")

_DISPATCH = msgspec.json.Encoder()
_DELIVERIES_OF_UNKNOWN = 20
"""A report about an attempt that no history knows is looked for this often before it is parked."""
_DELIVERIES_OF_EARLY = 2
"""A verb for an execution that does not exist (yet) is delayed at least this often before it is refused."""

StartWaits = Callable[[str], Awaitable[bool]]
"""Whether a start of this execution is on its way: then it is too early to say that there is no such execution."""


async def _none_waits(entity: str) -> bool:
    return False


class Done(Protocol):
    """Called once, when an effect stands."""

    def __call__(self) -> Awaitable[None]: ...


class Outbox(Protocol):
    """Where effects go. Each method returns once the message is on its way; `done` is called when it stands."""

    async def dispatch(self, state: ExecutionState, index: int, attempt: int, data: bytes, done: Done) -> None: ...
    async def report(self, state: ExecutionState, index: int, attempt: int, report: r.Report, done: Done) -> None: ...
    async def set_timer(self, state: ExecutionState, timer: fx.SetTimer, done: Done) -> None: ...
    async def clear_timer(self, state: ExecutionState, timer: fx.ClearTimer, done: Done) -> None: ...
    async def withdraw(self, state: ExecutionState, index: int, attempt: int, done: Done) -> None: ...
    async def continue_later(self, state: ExecutionState, after: int, done: Done) -> None: ...
    async def answer(self, answer: Answer) -> None: ...
    async def stop_attempt(self, execution: str, step: str, attempt: str) -> None: ...
    async def bury(self, envelope: Envelope, reason: ErrorInfo) -> None: ...


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
    ) -> None:
        self.name, self.log, self.outbox, self.cache_size = name, log, outbox, cache_size
        self._start_waits = start_waits
        self.surroundings = Surroundings()
        self._mailboxes: dict[str, Mailbox] = {}
        self._weights: dict[str, int] = {}
        """What each mailbox weighed when it came to rest last; `_weight` is the sum."""
        self._weight = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # The usual way -----------------------------------------------------------------------------------------------------

    async def take(self, envelope: Envelope) -> None:
        """A message about an execution."""
        mailbox = self._mailboxes.get(envelope.entity)
        if mailbox is None:
            mailbox = self._mailboxes[envelope.entity] = Mailbox(self, envelope.entity)
        await mailbox.put(envelope)

    def settled(self, mailbox: Mailbox) -> None:
        """A mailbox came to rest: keep its state if it is worth it, and drop what was not used for longest."""
        mailboxes, entity, state = self._mailboxes, mailbox.entity, mailbox.state
        if not mailbox.idle or mailboxes.get(entity) is not mailbox:
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

    async def carry_out(self, mailbox: Mailbox, batch: Batch, effect: fx.Effect) -> None:
        """Send an effect on its way; `mailbox.one_done(batch)` is called when it stands."""
        state = batch.state
        done = partial(mailbox.one_done, batch)
        match effect:
            case fx.DispatchAttempt(index, attempt):
                await self._dispatch(state, index, attempt, done)
            case fx.SetTimer():
                await self.outbox.set_timer(state, effect, done)
            case fx.ClearTimer():
                await self.outbox.clear_timer(state, effect, done)
            case fx.Withdraw(index, attempt):
                await self.outbox.withdraw(state, index, attempt, done)
            case fx.ContinueLater(after):
                await self.outbox.continue_later(state, after, done)

    async def _dispatch(self, state: ExecutionState, index: int, attempt: int, done: Done) -> None:
        """An attempt that cannot be handed out (a reference to nothing, params too large) becomes its own failure."""
        try:
            data = _DISPATCH.encode(fx.dispatch_of(state, index, attempt))
            if len(data) > limits.params_bytes + limits.input_bytes:  # the context travels along
                raise ValidationError(
                    f"the params of {state.graph.steps[index].id} are {len(data)} bytes with references resolved",
                    code="params_too_large",
                    hint=f"at most {limits.params_bytes} bytes (limits.params_bytes); pass a key or a path instead",
                )
        except Exception as error:  # whatever it is, a dispatch that were given up would hold up its execution for ever
            told = error if isinstance(error, ValidationError) else InternalError(f"the params cannot be sent: {error!r}")
            info = msgspec.structs.replace(told.info, retryable=False, task_id=state.graph.steps[index].id, attempt=attempt)
            await self.outbox.report(state, index, attempt, r.Failed(error=info), done)
        else:
            await self.outbox.dispatch(state, index, attempt, data, done)

    async def conclude(self, mailbox: Mailbox, envelope: Envelope, verdict: Verdict, n: int) -> None:
        """Let a message go as its verdict says. `n`: the history it was judged by reached so far."""
        match verdict.kind:
            case "applied":
                await self._answer(envelope)
                await envelope.ack()
            case "duplicate" if type(envelope.content) is not c.CancelExecution:  # of which the end makes something else
                await self.let_go(envelope, verdict)  # the effects are owed to the first of its meaning, which is still held
            case "repeated" | "stale":
                if verdict.kind == "stale" and isinstance(envelope.content, r.Started | r.Lost):
                    await self.outbox.stop_attempt(envelope.entity, envelope.step, envelope.attempt)
                under_way = next((one for one in mailbox.carrying if one.commit is not None and one.commit.n == verdict.n), None)
                if under_way is not None and not under_way.done:
                    under_way.messages.append((envelope, verdict))  # what it asks for does not stand yet
                elif under_way is not None or not verdict.n:
                    await self.let_go(envelope, verdict)
                else:
                    self.spawn(self._doubt(envelope, verdict, n), envelope)
            case "refused" if verdict.error is not None and verdict.error.code not in ("not_found", "conflict"):
                await self.let_go(envelope, verdict)
            case _:
                self.spawn(self._doubt(envelope, verdict, n), envelope)

    async def let_go(self, envelope: Envelope, verdict: Verdict) -> None:
        """Answer as the verdict says, and acknowledge."""
        match verdict.kind:
            case "duplicate":
                await self._answer(envelope, "duplicate")
            case "ineffective":
                await self._answer(envelope, effective=False)
            case "superseded":
                await self._answer(envelope, "superseded", effective=False)
            case "refused":
                await self._answer(envelope, "refused", effective=False, error=verdict.error)
            case _:
                await self._answer(envelope)
        await envelope.ack()

    async def _answer(
        self,
        envelope: Envelope,
        status: Any = "accepted",
        *,
        effective: bool = True,
        error: ErrorInfo | None = None,
        execution_id: str | None = None,
    ) -> None:
        content = envelope.content
        if not isinstance(content, c.Command) or (status == "accepted" and effective and not content.confirm):
            return
        await self.outbox.answer(
            Answer(
                command_id=content.id,
                execution_id=envelope.entity,
                status=status,
                effective=effective,
                error=error,
                original_id=execution_id,
            )
        )

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
            if envelope is not None and envelope.deliveries >= _DELIVERIES_OF_UNKNOWN:
                await self.bury(envelope, "poison", error)
            elif envelope is not None:
                await envelope.nak(backoff_s(envelope.deliveries))

    def load(self, mailbox: Mailbox) -> None:
        """Fetch and fold the history, then decide what waits. `mailbox.busy` is set by the caller."""
        self.spawn(self._load(mailbox))

    async def _load(self, mailbox: Mailbox) -> None:
        try:
            mailbox.state = await self._fold(mailbox.entity, certain=mailbox.refusals > 0)
        except Unavailable:
            await self._give_back(mailbox)
            raise
        except CorruptHistory as error:
            # This execution is halted: its messages are parked. The others go on.
            mailbox.busy = False
            while mailbox.waiting:
                await self.bury(mailbox.waiting.popleft(), "corrupt_history", error)
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
            envelope = mailbox.waiting.popleft()
            await envelope.nak(backoff_s(envelope.deliveries))
        self.settled(mailbox)

    async def _fold(self, entity: str, *, certain: bool) -> ExecutionState:
        """The state as the log has it; `certain`: nothing that the leader knows is missing."""
        stored = await self.log.load(entity)
        while certain and (more := await self.log.read(entity, len(stored) + 1)) is not None:
            stored.append(more)
        commits, prev = [codec.decode(one.data) for one in stored], ""
        for commit, one in zip(commits, stored, strict=True):
            if commit.prev != prev:
                raise CorruptHistory(f"{entity}: commit {one.n} does not follow the one before: one of them was replaced")
            prev = hash_of(one.data)
        state = fold(entity, commits)
        if stored:
            state.position, state.prev = stored[-1].position, prev
            state.weight = sum(len(one.data) for one in stored)
        return state

    async def _doubt(self, envelope: Envelope, verdict: Verdict, n: int) -> None:
        """The verdict rests on what is absent or open now: believe it only if the leader knows no commit after `n`."""
        if await self.log.read(envelope.entity, n + 1) is not None:
            mailbox = self._mailboxes.get(envelope.entity)
            if mailbox is not None and mailbox.state is not None and mailbox.state.n <= n and mailbox.appending is None:
                mailbox.state, mailbox.refusals = None, mailbox.refusals + 1
            await self.take(envelope)
        elif verdict.kind in ("repeated", "stale", "open"):
            await self._repeat(envelope, verdict)
        elif verdict.kind == "unknown":
            if envelope.deliveries >= _DELIVERIES_OF_UNKNOWN:
                await self.bury(envelope, "unknown_attempt", None)
            else:
                await envelope.nak(backoff_s(envelope.deliveries))
        elif (
            verdict.error is not None
            and verdict.error.code == "not_found"
            and (envelope.deliveries <= _DELIVERIES_OF_EARLY or await self._start_waits(envelope.entity))
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
        mailbox = self._mailboxes.get(entity)
        if mailbox is None or mailbox.state is None:
            state = await self._fold(entity, certain=True)
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

    # Idempotency keys ------------------------------------------------------------------------------------------------------

    def bind_key(self, envelope: Envelope) -> None:
        """Bind a start's key to its execution (after it was found valid), or find out whose it is; then go on with it."""
        self.spawn(self._bind_key(envelope), envelope)

    async def _bind_key(self, envelope: Envelope) -> None:
        start = envelope.content
        assert isinstance(start, c.StartExecution) and start.idempotency_key is not None
        state = await self._fold(envelope.entity, certain=True)
        if not state.exists and not self._would_be_accepted(envelope, start):
            envelope.bound = True  # it will be refused; a refused start binds nothing
            await self.take(envelope)
            return
        if state.exists and state.created.idempotency_key != start.idempotency_key:
            envelope.bound = True  # it will be refused as a conflict
            await self.take(envelope)
            return
        owner = await keys.bind(self.log, start.idempotency_key, envelope.entity, envelope.time, self.name)
        if owner.execution_id == envelope.entity:
            envelope.bound = True
            await self.take(envelope)
        elif owner.exists or envelope.deliveries >= _DELIVERIES_OF_UNKNOWN:
            await self._answer(envelope, "duplicate", execution_id=owner.execution_id)
            await envelope.ack()
        else:
            await envelope.nak(backoff_s(envelope.deliveries))  # its start is on its way, and may yet be refused

    def _would_be_accepted(self, envelope: Envelope, start: c.StartExecution) -> bool:
        return bool(decide(ExecutionState(envelope.entity), start, envelope.time, around=self.surroundings))

    # Poison ------------------------------------------------------------------------------------------------------------------

    async def bury(self, envelope: Envelope, code: str, error: Exception | None) -> None:
        """Put a message among the dead, with the reason; whoever waits for an answer gets it."""
        reason = ErrorInfo(
            type="internal_error",
            code=code,
            message=f"{envelope.verb} for {envelope.entity} could not be decided" + (f": {error}" if error else ""),
            hint="it is kept in DEAD and can be redriven once the cause is gone",
            timestamp=now(),
        )
        logger.error("%s", reason.message, exc_info=error if code == "poison" else None)
        await self._answer(envelope, "refused", effective=False, error=reason)
        await self.outbox.bury(envelope, reason)
