"""What some commands need before they can be decided: a start the plan that it names by its id, or an idempotency key of its own;
every other command its turn.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from esexec.domain import commands as c
from esexec.domain.decider import PLAN_OR_TASK, decide
from esexec.domain.decision import Verdict, invalid
from esexec.domain.errors import ErrorInfo
from esexec.domain.ids import is_user_id
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
            return content.plan_id is not None or (content.idempotency_key is not None and not envelope.ready)
        if envelope.ready or not isinstance(content, c.ControlCommand):
            return False
        return self._turns is not None or (type(content) is c.RetryExecution and content.as_new)

    def prepare(self, envelope: Envelope) -> None:
        """Do it; then go on with the command."""
        content = envelope.content
        if not isinstance(content, c.StartExecution):
            self._queue_up(envelope)
        elif content.plan_id is None:
            self._desk.spawn(self._bind_key(envelope), envelope)
        else:
            self._desk.spawn(self._fetch_plan(envelope, content), envelope)

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
        found = await self._plan_of(start.plan_id or "") if not (start.plan or start.task) else PLAN_OR_TASK
        if isinstance(found, ErrorInfo):
            found = await self._plan_of_original(envelope, start) or found
        if isinstance(found, ErrorInfo):
            await self._desk.let_go(envelope, Verdict("invalid", error=found))
        else:
            envelope.content = msgspec.structs.replace(start, plan=msgspec.Raw(found), plan_id=None)
            await self._desk.take(envelope)

    async def _plan_of_original(self, envelope: Envelope, start: c.StartExecution) -> bytes | None:
        """The plan that this start, or an earlier one of its key, was given when it was ready: what was started stays started."""
        owner = await keys.owner_of(self._desk.log, start.idempotency_key) if start.idempotency_key is not None else None
        state = await self._desk.fold(owner or envelope.entity, certain=True)
        return bytes(state.created.plan) if state.exists and state.created.plan_id == start.plan_id else None

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
