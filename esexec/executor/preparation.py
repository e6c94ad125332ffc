"""What some commands need before they can be decided: a start the plan that it names by its id or that is kept as an object, or
an idempotency key of its own; every other command its turn.
"""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain.compiled import canonical, graph_of
from esexec.domain.decider import PLAN_OR_TASK, decide
from esexec.domain.decision import Verdict, invalid
from esexec.domain.errors import CorruptHistory, ErrorInfo, PlanInvalid
from esexec.domain.ids import is_user_id
from esexec.domain.objects import ObjectRef
from esexec.domain.state import ExecutionState
from esexec.executor import keys
from esexec.executor.envelope import DELIVERIES_OF_UNKNOWN, Envelope, backoff_s
from esexec.executor.turns import FirstCommand, Turns

if TYPE_CHECKING:
    from esexec.executor.desk import Desk

PlanOf = Callable[[str], Awaitable[bytes | ErrorInfo]]
"""The document of a plan that the namespace keeps, or why no execution can be started by that id."""


async def no_plans(plan_id: str) -> bytes | ErrorInfo:
    """Where no plans are kept."""
    return ErrorInfo(type="validation_error", code="unknown_plan", message="no plans are kept here")


class Preparation:
    """See the module."""

    def __init__(self, desk: "Desk", plan_of: PlanOf, first_command: FirstCommand | None) -> None:
        self._desk, self._plan_of = desk, plan_of
        self._turns = Turns(first_command, desk.commands_in_hand, self._in_turn) if first_command is not None else None

    def is_due(self, envelope: Envelope) -> bool:
        """Whether there is something to be done first."""
        content = envelope.content
        if type(content) is c.StartExecution:
            if content.plan_id is not None or (content.plan_object is not None and not content.plan):
                return True
            return not envelope.ready and (content.idempotency_key is not None or content.input_object is not None)
        if envelope.ready or not isinstance(content, c.ControlCommand):
            return False
        return self._turns is not None or (type(content) is c.RetryExecution and content.as_new)

    def prepare(self, envelope: Envelope) -> None:
        """Do it; then go on with the command."""
        content = envelope.content
        if not isinstance(content, c.StartExecution):
            self._queue_up(envelope)
        elif content.plan_id is not None:
            self._desk.spawn(self._fetch_plan(envelope, content), envelope)
        elif content.plan_object is not None and not content.plan:
            self._desk.spawn(self._open_plan(envelope, content, content.plan_object), envelope)
        elif content.idempotency_key is not None:
            self._desk.spawn(self._bind_key(envelope), envelope)
        else:
            self._desk.spawn(self._look_for_input(envelope, content), envelope)

    def _queue_up(self, envelope: Envelope) -> None:
        if self._turns is None:
            self._desk.spawn(self._in_turn(envelope), envelope)
        elif (line := self._turns.stand_in_line(envelope)) is not None:
            self._desk.spawn(self._turns.serve(envelope.entity, line))

    async def _in_turn(self, envelope: Envelope) -> None:
        content = envelope.content
        if isinstance(content, c.RetryExecution) and content.as_new:
            self._desk.spawn(self._look_for_fork(envelope, content), envelope)
        else:
            envelope.ready = True
            await self._desk.take(envelope)

    async def _fetch_plan(self, envelope: Envelope, start: c.StartExecution) -> None:
        alone = not (start.plan or start.plan_object or start.task)
        found = await self._plan_of(start.plan_id or "") if alone else PLAN_OR_TASK
        if isinstance(found, ErrorInfo):
            found = await self._plan_of_original(envelope, start) or found
        if isinstance(found, ErrorInfo):
            await self._desk.let_go(envelope, Verdict("invalid", error=found))
        else:
            objects, is_large = self._desk.objects, len(found) > limits.plan_bytes
            ref = await objects.put(found) if is_large and objects is not None else None
            envelope.content = msgspec.structs.replace(start, plan=msgspec.Raw(found), plan_id=None, plan_object=ref)
            await self._desk.take(envelope)

    async def _open_plan(self, envelope: Envelope, start: c.StartExecution, ref: ObjectRef) -> None:
        """A plan that is kept as an object: what is written into the history is the object of its canonical form."""
        objects = self._desk.objects
        if start.task is not None or objects is None:
            await self._desk.let_go(envelope, Verdict("invalid", error=PLAN_OR_TASK))
            return
        if ref.bytes > limits.large_plan_bytes:
            hint = f"at most {limits.large_plan_bytes} bytes (limits.large_plan_bytes)"
            await self._desk.let_go(envelope, invalid("plan_too_large", f"the plan is {ref.bytes} bytes long", hint))
            return
        try:
            graph = graph_of(await objects.get(ref))
        except CorruptHistory as error:
            await self._desk.let_go(envelope, invalid("unknown_object", error.message, "put the object there, then start"))
        except PlanInvalid as error:
            await self._desk.let_go(envelope, Verdict("invalid", error=error.info))
        else:
            is_large = len(graph.raw) > limits.plan_bytes
            ref = await objects.put(graph.raw) if is_large and sha256(graph.raw).hexdigest() != ref.sha256 else ref
            plan = canonical(graph)
            envelope.content = msgspec.structs.replace(start, plan=plan, plan_object=ref if is_large else None)
            await self._desk.take(envelope)

    async def _look_for_input(self, envelope: Envelope, start: c.StartExecution) -> None:
        """An input that is kept as an object must be there."""
        ref, objects = start.input_object, self._desk.objects
        assert ref is not None
        if start.input is not None or objects is None or not await objects.has(ref):
            message = f"there is no object {ref.sha256} of {ref.bytes} bytes" if start.input is None else "there are two inputs"
            await self._desk.let_go(envelope, invalid("unknown_object", message, "put the object there, then start"))
            return
        envelope.ready = True
        await self._desk.take(envelope)

    async def _plan_of_original(self, envelope: Envelope, start: c.StartExecution) -> bytes | None:
        """The plan that this start, or an earlier one of its key, was given when it was ready: what was started stays started."""
        owner = await keys.owner_of(self._desk.log, start.idempotency_key) if start.idempotency_key is not None else None
        state = await self._desk.fold(owner or envelope.entity, certain=True)
        return state.created.document if state.exists and state.created.plan_id == start.plan_id else None

    async def _bind_key(self, envelope: Envelope) -> None:
        start = envelope.content
        assert isinstance(start, c.StartExecution) and start.idempotency_key is not None
        state = await self._desk.fold(envelope.entity, certain=True)
        if not state.exists and not self._would_be_accepted(envelope, start):
            envelope.ready = True  # it will be refused; a refused start binds nothing
            await self._desk.take(envelope)
            return
        if state.exists and state.created.idempotency_key != start.idempotency_key:
            envelope.ready = True  # it will be refused as a conflict
            await self._desk.take(envelope)
            return
        key, name = start.idempotency_key, self._desk.name
        owner = await keys.bind(self._desk.log, key, envelope.entity, envelope.time, name, start.actor)
        if owner.execution_id == envelope.entity:
            envelope.ready = True
            await self._desk.take(envelope)
        elif owner.exists or envelope.deliveries >= DELIVERIES_OF_UNKNOWN:
            await self._desk.answer(envelope, "duplicate", execution_id=owner.execution_id)
            await envelope.ack()
        else:
            await envelope.nak(backoff_s(envelope.deliveries))  # its start is on its way, and may yet be refused

    def _would_be_accepted(self, envelope: Envelope, start: c.StartExecution) -> bool:
        return bool(decide(ExecutionState(envelope.entity), start, envelope.time, around=self._desk.surroundings))

    async def _look_for_fork(self, envelope: Envelope, retry: c.RetryExecution) -> None:
        new_id = retry.new_id or retry.id
        there = await self._desk.fold(new_id, certain=True) if is_user_id(new_id) else None
        if there is None or not there.exists:
            envelope.ready = True
            await self._desk.take(envelope)
        elif there.created.forked_from == envelope.entity:
            await self._desk.answer(envelope, "duplicate", execution_id=new_id)
            await envelope.ack()
        else:
            message = f"execution {new_id} exists with other content"
            await self._desk.let_go(envelope, invalid("conflict", message, "choose another new_id, or leave it out"))
