"""A mailbox: what one entity's messages go through, one after the other, inside one executor.

    put → (load) → decide what has gathered → append one commit → effects, in commit order → reply, ack

While an append is under way messages gather; they are decided in a row into the next commit. Nothing here waits: an
append and an effect report back by callback, so that thousands of executions run side by side without a task each. What
is rare (loading, doubting an absence, binding a key) runs in a task of its own and puts the message back.
"""

from typing import TYPE_CHECKING

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.admission import decide_grant
from esexec.domain.attempts import decide_report
from esexec.domain.commit import Commit, hash_of, signed
from esexec.domain.decider import decide_continue, decide_control, decide_due, decide_start
from esexec.domain.decision import Decision, Verdict
from esexec.domain.effects import DispatchAttempt, Effect, effects_of, open_effects
from esexec.domain.sharing import requests as s
from esexec.domain.state import ExecutionState
from esexec.executor.envelope import Envelope
from esexec.log import codec
from esexec.world import chance

if TYPE_CHECKING:
    from esexec.executor.desk import Desk


class Batch:
    """One commit under way (or, without one, effects that are repeated): its messages with their verdicts, and how many
    effects are still open before the messages may be let go. The effects were worked out from commit `known`; `fresh`: the state
    there, if that was folded since."""

    __slots__ = ("commit", "data", "done", "effects", "fresh", "known", "messages", "open", "state", "unfinished")

    def __init__(self, state: ExecutionState, messages: list[tuple[Envelope, Verdict]]) -> None:
        self.state, self.messages = state, messages
        self.commit: Commit | None = None
        self.data = b""
        self.effects: list[Effect] = []
        self.open = 0
        self.known = state.n
        self.fresh: ExecutionState | None = None
        self.done = False
        self.unfinished = False


class Mailbox:
    """See the module. `state` None: not known, to be loaded."""

    __slots__ = ("appending", "busy", "carrying", "deciding", "desk", "entity", "one_by_one", "refusals", "state", "waiting")

    def __init__(self, desk: "Desk", entity: str) -> None:
        self.desk, self.entity = desk, entity
        self.state: ExecutionState | None = None
        self.waiting: list[Envelope] = []
        self.appending: Batch | None = None
        self.carrying: list[Batch] = []
        """Batches that are stored, in order; the effects of the first are under way."""
        self.busy = False
        """A task of its own is loading."""
        self.deciding = False
        """`decide` is at work, and will see what is put meanwhile."""
        self.refusals = 0
        self.one_by_one = 0
        """So many decisions take one message each: together they were too large for a commit."""

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.appending or self.carrying or self.busy or self.deciding)

    async def put(self, envelope: Envelope) -> None:
        """A message for this entity."""
        self.waiting.append(envelope)
        if self.appending is None and not self.busy:
            await self.decide()

    async def decide(self) -> None:
        """Decide what has gathered, and send the commit on its way."""
        if self.deciding:
            return
        self.deciding = True
        try:
            while self.waiting and self.appending is None and not self.busy:
                if self.waiting[0].verb != "report" and self.desk.preparation.is_due(self.waiting[0]):
                    self.desk.preparation.prepare(self.waiting.pop(0))
                elif self.state is not None:
                    await self._decide_gathered(self.state)
                elif type(self.waiting[0].content) is c.StartExecution and not self.refusals:
                    # A start is decided as if nothing existed: the append finds out.
                    self.state = ExecutionState(self.entity)
                    await self._decide_gathered(self.state)
                else:
                    self.busy = True
                    self.desk.load(self)
        finally:
            self.deciding = False
        if self.idle:
            self.desk.settled(self)

    async def _decide_gathered(self, state: ExecutionState) -> None:
        """One decision over what has gathered, of which the first can be decided; after a poisonous message the state is gone and
        the rest still waits."""
        waiting = self.waiting
        time = waiting[0].time if len(waiting) == 1 else max([envelope.time for envelope in waiting])
        decision = Decision(state, time, chance(), self.desk.surroundings)
        decided: list[tuple[Envelope, Verdict]] = []
        while True:
            envelope = waiting.pop(0)
            decision.bytes += len(envelope.data)
            try:
                verdict = self._decide_one(decision, envelope)
            except Exception as error:  # the core does not throw; whatever this is, only this message is to blame
                # The state may be half changed: drop it, put the innocent back, and decide again without the culprit.
                self._void([one for one, _ in decided])
                await self.desk.bury(envelope, "poison", error)
                return
            if decision.events:
                decided.append((envelope, verdict))  # whatever it is, it holds only once this commit stands
            else:
                await self.desk.conclude(self, envelope, verdict, state.n)
                if envelope.ready:
                    self._back_into_line()
            if not waiting or not decision.has_room(len(waiting[0].data)):
                break
            if (decided and self.one_by_one) or self.desk.preparation.is_due(waiting[0]):
                break
        if self.one_by_one:
            self.one_by_one -= 1
        if decision.events:
            await self._append(state, decision, decided)

    def _back_into_line(self) -> None:
        """A command was judged on its own, which may be doubted: those behind it wait until it is dealt with."""
        for envelope in self.waiting:
            if isinstance(envelope.content, c.ControlCommand):
                envelope.ready = False

    def _void(self, envelopes: list[Envelope]) -> None:
        """What was decided of these does not hold, nor does the state: begin again from the log."""
        self.state = None
        self.refusals += 1
        self.waiting[:0] = envelopes

    def _decide_one(self, decision: Decision, envelope: Envelope) -> Verdict:
        content = envelope.content
        match content:
            case c.StartExecution():
                return decide_start(decision, content, envelope.time)
            case r.AnyReport():
                return decide_report(decision, content, envelope.step, envelope.attempt, envelope.time)
            case r.Due():
                return decide_due(decision, content.name, envelope.time)
            case r.Continue():
                return decide_continue(decision, content.after, envelope.time)
            case r.Nudge():
                return Verdict("open")
            case s.Answered():
                return decide_grant(decision, content, envelope.step, envelope.attempt, envelope.time)
        if isinstance(content, c.ControlCommand):
            return decide_control(decision, content, envelope.time)
        raise TypeError("not a command of an execution")

    async def _append(self, state: ExecutionState, decision: Decision, decided: list[tuple[Envelope, Verdict]]) -> None:
        batch = self.appending = Batch(state, decided)
        actor, causes = signed(decision.causes)
        batch.commit = Commit(
            v=codec.VERSION,
            execution_id=self.entity,
            n=state.n,
            version=decision.first_version,
            time=decision.time,
            commands=causes,
            actor=actor,
            executor=self.desk.name,
            prev=state.prev,
            events=tuple(decision.events),
        )
        batch.unfinished = decision.unfinished
        whole = state.n > 1 or state.created.plan_object is None
        batch.data = codec.encode(batch.commit if whole else codec.as_stored(batch.commit))
        if len(batch.data) > limits.message_bytes - limits.headers_bytes:
            self.appending = None
            await self._too_large([envelope for envelope, _ in decided])
            return
        await self.desk.log.append(self.entity, state.n, batch.data, state.position, self._stored)

    async def _too_large(self, envelopes: list[Envelope]) -> None:
        """Numbers may take more room as we write them than as they came. Decide one by one; what is too large alone is buried."""
        if len(envelopes) > 1:
            self.one_by_one = len(envelopes)
            self._void(envelopes)
        else:
            self._void([])
            await self.desk.bury(envelopes[0], "too_large", None)

    async def _stored(self, position: int | None) -> None:
        batch, self.appending = self.appending, None
        assert batch is not None and batch.commit is not None
        if position is None:  # somebody else's commit stands there
            self._void([envelope for envelope, _ in batch.messages])
        else:
            state = batch.state
            state.position, state.prev = position, hash_of(batch.data)
            state.weight += len(batch.data) if state.n > 1 else len(batch.data) + len(state.graph.raw)
            self.refusals = 0
            batch.effects = effects_of(
                batch.commit.events, batch.commit.version, state, batch.commit.n, unfinished=batch.unfinished
            )
            await self.carry(batch)
        if self.waiting:
            await self.decide()

    async def carry(self, batch: Batch) -> None:
        """Carry out a batch's effects once those before it are done."""
        self.carrying.append(batch)
        if len(self.carrying) == 1:
            await self._carry_first()

    async def _carry_first(self) -> None:
        batch = self.carrying[0]
        batch.open = len(batch.effects) + 1
        for effect in batch.effects:
            await self.desk.carry_out(self, batch, effect)
        await self.one_done(batch)

    async def one_done(self, batch: Batch) -> None:
        """One of the batch's effects stands. After the last its messages are let go, and the next batch has its turn."""
        batch.open -= 1
        if batch.open:
            return
        batch.done = True
        n = batch.commit.n if batch.commit is not None else 0
        for envelope, verdict in batch.messages:
            await self.desk.conclude(self, envelope, verdict, n, within=batch.commit is not None)
        del self.carrying[0]
        if self.carrying:
            await self._carry_first()
        elif self.idle:
            self.desk.settled(self)

    async def repeat(self, envelope: Envelope, verdict: Verdict, commit: Commit | None) -> None:
        """Repeat what is still open of a commit (None: of the whole execution) for a message, then let it go.

        Whoever carried it out before may have handed out anything: what nobody had then, somebody may have by now.
        """
        assert self.state is not None
        batch = Batch(self.state, [(envelope, verdict)])
        state = self.state
        effects = open_effects(state) if commit is None else effects_of(commit.events, commit.version, state, commit.n)
        batch.effects = [one._replace(again=True, in_hand=True) if isinstance(one, DispatchAttempt) else one for one in effects]
        await self.carry(batch)
