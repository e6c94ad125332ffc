"""`client.plans`: the plans that the namespace keeps. Whoever knows a plan's id can start it; the id is the plan's own.

A plan that cannot be carried out is kept too, as `invalid`, with what is wrong with it: so a planner's failed work can be seen.
"""

import asyncio
import builtins
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from esexec.client.entities import news_of
from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain.commands import PlanStatus
from esexec.domain.errors import CorruptHistory, ExecutionError, PlanInvalid, ValidationError, to_exception
from esexec.domain.events import PlanStored
from esexec.domain.explain import quoted
from esexec.domain.kept_plans import PLANS_ENTITY, ListedPlan, PlansState, document_of, fold_plans, plan_entity, unknown_plan
from esexec.plans import Plan
from esexec.tasks.foreign import enc_hook
from esexec.world import new_id

if TYPE_CHECKING:
    from esexec.client.client import Client

Planned = Plan | Mapping[str, Any]
"""A plan, or what stands in a plan file."""
Planner = Callable[[str], Planned | Awaitable[Planned]]
"""Makes a plan from a query, in whatever way: a function, or an async one. The former runs in a thread."""
Wanted = Literal["draft", "ready", "archived"]
"""What somebody can say of a plan; `invalid` it is by itself. Only a `ready` one can be started."""


class KeptPlan(ListedPlan, omit_defaults=True, frozen=True, kw_only=True):
    """A plan that is kept: `plan_id`, `name`, `status`, `created_at`, `changed_at`, and its `document` as plain JSON values.

    An invalid one has its `problem`; one that was made from a query has that as `query`.
    """

    document: dict[str, Any]

    @property
    def plan(self) -> Plan | None:
        """The plan; None for one that is no plan because of its `problem`."""
        return Plan.from_dict(self.document) if self.problem is None else None

    @property
    def request_id(self) -> str:
        """The documents' name for `plan_id`."""
        return self.plan_id

    @property
    def plan_request_id(self) -> str:
        """The documents' other name for `plan_id`."""
        return self.plan_id


class Plans:
    """See the module. `planner`: who makes plans from queries, where `create` is not told otherwise."""

    def __init__(self, client: "Client", planner: Planner | None = None) -> None:
        self._client, self._planner = client, planner
        self._state = PlansState()
        self._lock = asyncio.Lock()

    async def put(self, plan: Planned, status: Wanted = "ready") -> KeptPlan:
        """Keep a plan, or change the status of one that is kept. The same plan again is the same: the first document stands.

        What cannot be carried out is kept as `invalid`. Raises PlanInvalid for what is not even a JSON object of a plan's size,
        `ValidationError` (`bad_plan_status`), `Refused` (`too_many_plans`), `NotConfirmed`.
        """
        _check_status(status, Wanted)
        return await self._put(plan, status, "")

    async def create(self, query: str, planner: Planner | None = None, *, status: Wanted = "ready") -> KeptPlan:
        """Have a plan made from a query, and keep it.

        Raises `ExecutionError` with the code `planner_failed` if the planner does not give one; then nothing is kept.
        """
        _check_status(status, Wanted)
        planner = planner or self._planner
        if planner is None:
            hint = "create(query, planner=fn), or Client(…, planner=fn)"
            raise ValidationError("there is no planner to ask", code="no_planner", hint=hint)
        if not isinstance(query, str):
            raise ValidationError(f"{quoted(query)} is no query", code="invalid_value", hint="give it as text")
        if len(query) > limits.text_chars:
            hint = f"at most {limits.text_chars} (limits.text_chars)"
            raise ValidationError(f"a query of {len(query)} characters", code="too_large", hint=hint)
        return await self._put(await _made(planner, query), status, query)

    async def get(self, plan_id: str) -> KeptPlan:
        """A plan that is kept, whatever its status. Raises `ValidationError` (`bad_plan_id`), `NotFound` (`unknown_plan`)."""
        _check_id(plan_id)
        listed = (await self._look()).plans.get(plan_id)
        if listed is None:
            raise to_exception(unknown_plan(plan_id))
        for commit in await news_of(self._client._log, plan_entity(plan_id)):
            event = commit.events[0]
            if isinstance(event, PlanStored) and event.plan_id == plan_id:
                objects, ref = self._client._log.objects, event.plan_object
                document = msgspec.json.decode(event.document) if ref is None else await objects.value(ref)
                return KeptPlan(**msgspec.structs.asdict(listed), document=document)
        raise CorruptHistory(f"{plan_entity(plan_id)} does not hold the plan {plan_id}")

    async def list(self, status: PlanStatus | None = None) -> builtins.list[ListedPlan]:
        """What is kept, oldest first, without the documents; all, or those of one status.

        Raises `ValidationError` (`bad_plan_status`).
        """
        if status is not None:
            _check_status(status, PlanStatus)
        plans = (await self._look()).plans.values()
        return [plan for plan in plans if status is None or plan.status == status]

    async def mark(self, plan_id: str, status: Wanted) -> bool:
        """Change the status of a plan that is kept: True if that took effect, False if it was so already.

        Raises `ValidationError` (`bad_plan_id`, `bad_plan_status`), `NotFound` (`unknown_plan`), or `Refused` (`plan_not_ready`)
        for one that is invalid.
        """
        _check_id(plan_id)
        _check_status(status, Wanted)
        command = c.PutPlan(id=new_id(), plan_id=plan_id, status=status, actor=self._client.owner)
        return await self._client._tell_shared(PLANS_ENTITY, "put_plan", command)

    async def archive(self, plan_id: str) -> bool:
        """From now on nothing can be started by this id. See `mark`."""
        return await self.mark(plan_id, "archived")

    async def _put(self, plan: Planned, status: Wanted, query: str) -> KeptPlan:
        raw = _raw(plan)
        plan_id = document_of(raw).plan_id
        command = c.PutPlan(id=new_id(), status=status, query=query, actor=self._client.owner)
        if len(raw) > limits.plan_bytes:
            ref = await self._client._log.objects.put(raw)
            command = msgspec.structs.replace(command, plan_object=ref)
        else:
            command = msgspec.structs.replace(command, plan=msgspec.Raw(raw))
        await self._client._tell_shared(PLANS_ENTITY, "put_plan", command)
        return await self.get(plan_id)

    async def _look(self) -> PlansState:
        async with self._lock:
            self._state = fold_plans(await news_of(self._client._log, PLANS_ENTITY, self._state.n), self._state)
            return self._state


def _check_id(plan_id: object) -> None:
    """Any text may be asked for, and is not found; anything else is a mistake."""
    if not isinstance(plan_id, str):
        raise ValidationError(f"{quoted(plan_id)} is no plan's id", code="bad_plan_id", hint="64 hexadecimal digits")


def _check_status(status: object, known: Any) -> None:
    if status not in get_args(known):
        hint = f"one of {', '.join(get_args(known))}"
        raise ValidationError(f"{quoted(status)} is no status for a plan here", code="bad_plan_status", hint=hint)


def _raw(plan: Planned) -> bytes:
    """The plan's bytes: canonical, if it is one."""
    if isinstance(plan, Plan):
        return plan.graph.raw
    if not isinstance(plan, Mapping):
        hint = "give a Plan, or a mapping as in a plan file"
        raise ValidationError(f"{type(plan).__name__} is no plan", code="invalid_value", hint=hint)
    try:
        return Plan.from_dict(plan).graph.raw
    except PlanInvalid:
        pass
    try:
        return msgspec.json.encode(plan, enc_hook=enc_hook)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ValidationError(f"the plan cannot be sent as JSON: {error}", code="not_serializable") from error


async def _made(planner: Planner, query: str) -> Planned:
    try:
        made = planner(query) if inspect.iscoroutinefunction(planner) else await asyncio.to_thread(planner, query)
        if inspect.isawaitable(made):
            made = await made
    except Exception as error:
        message = f"the planner failed: {type(error).__name__}: {error}"[: limits.text_chars]
        raise ExecutionError(message, code="planner_failed", hint="nothing was kept") from error
    if not isinstance(made, Plan | Mapping):
        message = f"the planner gave {type(made).__name__}, which is no plan"
        raise ExecutionError(message, code="planner_failed", hint="give a Plan, or a mapping as in a plan file; nothing was kept")
    return made
