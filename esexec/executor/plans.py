"""The plans that the namespace keeps: commands on `_plans` are decided here; a start that names a plan by its id is given it."""

import logging
from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Cause, Commit
from esexec.domain.errors import CorruptHistory, ErrorInfo, EsexecError, PlanInvalid
from esexec.domain.kept_plans import (
    PLANS_ENTITY,
    PlansState,
    decide_plans,
    document_of,
    fold_plans,
    not_ready,
    plan_entity,
    unknown_plan,
)
from esexec.domain.messages import Answer
from esexec.domain.objects import ObjectRef
from esexec.executor.entity import EntityDesk
from esexec.executor.envelope import Envelope, backoff_s
from esexec.executor.packing import ObjectStore
from esexec.executor.port import Outbox
from esexec.log import codec
from esexec.log.port import Log, append_and_wait

logger = logging.getLogger("esexec.executor")


class PlansDesk(EntityDesk[PlansState]):
    """See the module. Documents never change, so a few are remembered; what the list says is looked up each time."""

    entity = PLANS_ENTITY

    def __init__(self, name: str, log: Log, outbox: Outbox, objects: ObjectStore | None = None) -> None:
        super().__init__(name, log, outbox, PlansState())
        self._objects = objects
        self._documents: OrderedDict[str, bytes] = OrderedDict()
        self._begun = self._done = 0
        """Looks at the list that have begun, and the last one that succeeded."""

    def _fold(self, commits: Iterable[Commit], state: PlansState) -> PlansState:
        return fold_plans(commits, state)

    def _decide(self, state: PlansState, command: c.PutPlan) -> list[e.Event] | ErrorInfo:
        return decide_plans(state, command)

    def _answered(self, answer: Answer, command: c.PutPlan) -> Answer:
        try:
            listed = self._state.plans.get(command.plan_id or document_of(bytes(command.plan)).plan_id)
        except PlanInvalid:  # an id that was used before, with other content
            listed = None
        return answer if listed is None else msgspec.structs.replace(answer, plan_id=listed.plan_id, plan_status=listed.status)

    async def _handle(self, envelope: Envelope) -> None:
        command = envelope.content
        if isinstance(command, c.PutPlan) and command.plan_object is not None and self._objects is not None:
            try:
                plan = msgspec.Raw(await self._fetched(self._objects, command.plan_object))
            except (CorruptHistory, PlanInvalid) as error:
                code, hint = "unknown_object", "put the object there, then the plan"
                if isinstance(error, PlanInvalid):
                    code, hint = error.code, error.hint or ""
                info = ErrorInfo(type="validation_error", code=code, message=error.message, hint=hint)
                await self._answer(command, info)
                await envelope.ack()
                return
            except EsexecError as error:
                logger.warning("%s: %s", self.entity, error)
                await envelope.nak(backoff_s(envelope.deliveries))
                return
            envelope.content = msgspec.structs.replace(command, plan=plan)
        await super()._handle(envelope)

    async def _fetched(self, objects: ObjectStore, ref: ObjectRef) -> bytes:
        if ref.bytes > limits.large_plan_bytes:
            hint = f"at most {limits.large_plan_bytes} bytes (limits.large_plan_bytes)"
            raise PlanInvalid(f"the plan is {ref.bytes} bytes long", code="plan_too_large", hint=hint)
        return await objects.get(ref)

    # Keeping a plan ------------------------------------------------------------------------------------------------------

    async def _store_first(self, events: list[e.Event], envelope: Envelope) -> list[e.Event]:
        """The document comes first. One that nothing lists (somebody died in between) does no harm: the next finds it."""
        for event in events:
            if isinstance(event, e.PlanStored):
                await self._store(event, envelope)
        return [event for event in events if not isinstance(event, e.PlanStored)]

    async def _store(self, event: e.PlanStored, envelope: Envelope) -> None:
        entity, command = plan_entity(event.plan_id), envelope.content
        assert isinstance(command, c.PutPlan)
        if len(document := event.document) > limits.plan_bytes and self._objects is not None:
            ref = await self._objects.put(document)
            event = e.PlanStored(plan_id=event.plan_id, plan_object=ref)
        commit = Commit(
            v=codec.VERSION,
            execution_id=entity,
            n=1,
            version=1,
            time=envelope.time,
            commands=(Cause(command.id, envelope.time),),
            actor=command.actor,
            executor=self._name,
            events=(event,),
        )
        if await append_and_wait(self._log, entity, 1, codec.encode(commit), 0) is None:
            await self._document(event.plan_id)  # somebody else's stands: it is the same plan, or the log is broken

    # Handing it out ------------------------------------------------------------------------------------------------------

    async def plan_of(self, plan_id: str) -> bytes | ErrorInfo:
        """The plan that is kept under this id, for a start; or why there is none: `unknown_plan`, `plan_not_ready`.

        As the leader knows it now: whoever was told that a plan is ready, or archived, finds it so with every executor.
        """
        await self._look()
        listed = self._state.plans.get(plan_id)
        if listed is None:
            return unknown_plan(plan_id)
        return await self._document(plan_id) if listed.status == "ready" else not_ready(listed)

    async def _look(self) -> None:
        """Catch up. Who comes while others wait for a look that has not begun shares it with them."""
        wanted = self._begun + 1
        async with self._lock:
            if self._done < wanted:
                self._begun += 1
                number = self._begun
                await self._catch_up()
                self._done = number

    async def _document(self, plan_id: str) -> bytes:
        documents = self._documents
        if plan_id not in documents:
            entity = plan_entity(plan_id)
            stored = await self._log.read(entity, 1)
            event = codec.decode(stored.data).events[0] if stored is not None else None
            if not isinstance(event, e.PlanStored) or event.plan_id != plan_id:
                raise CorruptHistory(f"{entity}: commit 1 does not hold the plan {plan_id}")
            if event.plan_object is not None and self._objects is not None:
                documents[plan_id] = await self._objects.get(event.plan_object)
            else:
                documents[plan_id] = event.document
            if len(documents) > limits.cached_large_plans:
                documents.popitem(last=False)
        documents.move_to_end(plan_id)
        return documents[plan_id]
