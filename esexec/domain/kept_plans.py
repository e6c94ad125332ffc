"""The plans that a namespace keeps: a list of them with a status each (entity `_plans`), and each one's document.

A document has an entity of its own (`_plan-<hash>`) with one commit, which is written before the plan is listed: what is
listed is there. It never changes; what can change is the status. A document that is no plan that could be carried out is kept
all the same, as `invalid`, so that its author can see what is wrong with it; its id is the SHA-256 of its RFC 8785 JSON.
"""

import hashlib
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import rfc8785

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commands import PlanStatus
from esexec.domain.commit import Commit
from esexec.domain.compiled import graph_of
from esexec.domain.errors import CorruptHistory, ErrorInfo, PlanInvalid, ValidationError
from esexec.domain.shape import check_shape

PLANS_ENTITY = "_plans"

_PLAN_ID_CHARS = 64
_PLAN_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LEVELS_ABOVE_PARAMS = 3
_DIGITS_OF_ENTITY = 48
_json = msgspec.json.Decoder().decode


def is_plan_id(text: str) -> bool:
    """Whether `text` is what plans are called by: 64 hexadecimal digits, in lower case."""
    return len(text) == _PLAN_ID_CHARS and _PLAN_ID.fullmatch(text) is not None


def plan_entity(plan_id: str) -> str:
    """The entity that holds the document of a plan."""
    return f"_plan-{plan_id[:_DIGITS_OF_ENTITY]}"


class ListedPlan(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """What the list says of a plan. `problem`: why it cannot be carried out. `query`: what it was made from."""

    plan_id: str
    name: str
    status: PlanStatus
    created_at: datetime
    changed_at: datetime
    problem: ErrorInfo | None = None
    query: str = ""


class PlansState(msgspec.Struct):
    """The folded `_plans`: what is kept, in the order in which it was listed first."""

    n: int = 0
    version: int = 0
    plans: dict[str, ListedPlan] = {}
    applied: dict[str, int] = {}


def fold_plans(commits: Iterable[Commit], state: PlansState | None = None) -> PlansState:
    """The state after these commits. Raises `CorruptHistory` on a gap."""
    state = state or PlansState()
    for commit in commits:
        if commit.n != state.n + 1:
            raise CorruptHistory(f"{PLANS_ENTITY}: expected commit {state.n + 1}, found {commit.n}")
        state.n = commit.n
        for event in commit.events:
            state.version += 1
            if isinstance(event, e.PlanListed):
                known = state.plans.get(event.plan_id)
                state.plans[event.plan_id] = ListedPlan(
                    plan_id=event.plan_id,
                    name=event.name,
                    status=event.status,
                    created_at=known.created_at if known is not None else commit.time,
                    changed_at=commit.time,
                    problem=event.problem,
                    query=event.query,
                )
        for cause in commit.commands:
            state.applied[cause.id] = commit.n
    return state


def decide_plans(state: PlansState, command: c.PutPlan) -> list[e.Event] | ErrorInfo:
    """The events of a command on `_plans`, none if it changes nothing or was applied before; or why it is refused.

    A `PlanStored` among them is for the plan's own entity, and comes first.
    """
    if command.id in state.applied:
        return []
    raw = bytes(command.plan)
    if bool(raw) == (command.plan_id is not None):
        return ErrorInfo(
            type="validation_error",
            code="plan_or_plan_id",
            message="either a plan is put, or the status of one that is kept is changed",
            hint='give one of "plan" and "plan_id"',
        )
    return _mark(state, command.plan_id, command.status) if command.plan_id is not None else _put(state, raw, command)


def _put(state: PlansState, raw: bytes, command: c.PutPlan) -> list[e.Event] | ErrorInfo:
    try:
        document = document_of(raw)
    except PlanInvalid as error:
        return msgspec.structs.replace(error.info, hint=error.hint or "a plan is a JSON object; see docs/reference/plan.md")
    if len(document.raw) > limits.plan_bytes and command.plan_object is None:
        return plan_too_large(len(document.raw))
    status: PlanStatus = "invalid" if document.problem is not None else command.status
    known = state.plans.get(document.plan_id)
    if known is not None:
        return [] if known.status == status else [_listed(known, status, document.problem)]
    if len(state.plans) >= limits.plans_stored:
        return ErrorInfo(
            type="validation_error",
            code="too_many_plans",
            message=f"the namespace keeps {len(state.plans)} plans",
            hint=f"at most {limits.plans_stored} (limits.plans_stored), archived ones included; a start can bring its plan along",
        )
    return [
        e.PlanStored(plan_id=document.plan_id, plan=msgspec.Raw(document.raw)),
        e.PlanListed(plan_id=document.plan_id, name=document.name, status=status, problem=document.problem, query=command.query),
    ]


def _mark(state: PlansState, plan_id: str, status: PlanStatus) -> list[e.Event] | ErrorInfo:
    known = state.plans.get(plan_id)
    if known is None:
        return unknown_plan(plan_id)
    if known.problem is not None and status != "archived":
        return not_ready(known)
    return [] if known.status == status else [_listed(known, status, known.problem)]


def _listed(known: ListedPlan, status: PlanStatus, problem: ErrorInfo | None) -> e.PlanListed:
    """A plan that is listed already, with another status."""
    return e.PlanListed(plan_id=known.plan_id, name=known.name, status=status, problem=problem, query=known.query)


# Documents -------------------------------------------------------------------------------------------------------------


class Document(NamedTuple):
    """A plan as it is kept. `problem`: why it is none that could be carried out."""

    plan_id: str
    name: str
    raw: bytes
    problem: ErrorInfo | None = None


def document_of(raw: bytes) -> Document:
    """What is kept of a plan's JSON. Raises PlanInvalid for what is not even kept as an invalid plan.

    That is what is no JSON object, is nested too deeply, is too large, or holds numbers that RFC 8785 cannot.
    """
    try:
        graph = graph_of(raw)
    except PlanInvalid as error:
        return _invalid(raw, error)
    return Document(graph.plan_id, graph.plan.name, graph.raw)


def _invalid(raw: bytes, problem: PlanInvalid) -> Document:
    try:
        document = _json(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise problem from None
    if not isinstance(document, dict):
        raise problem
    try:
        check_shape(document, path="plan", depth_max=limits.nesting_depth + _LEVELS_ABOVE_PARAMS)
        canonical = rfc8785.dumps(document)
    except ValidationError as error:
        raise PlanInvalid(error.message, code=error.code, hint=error.hint, **error.context) from None
    except ValueError:
        raise problem from None
    if len(data := msgspec.json.encode(document)) > limits.plan_bytes:
        raise problem
    name = document.get("name")
    return Document(
        plan_id=hashlib.sha256(canonical).hexdigest(),
        name=name[: limits.name_chars] if isinstance(name, str) else "",
        raw=data,
        problem=_bounded(problem.info),
    )


def _bounded(problem: ErrorInfo) -> ErrorInfo:
    """As much of a problem as the list keeps: its context names every step of a cycle, here the place is enough."""
    path: Any = problem.context.get("path")
    return msgspec.structs.replace(
        problem,
        message=problem.message[: limits.text_chars],
        hint=problem.hint and problem.hint[: limits.text_chars],
        context={"path": path[: limits.name_chars]} if isinstance(path, str) else {},
    )


def plan_too_large(size: int) -> ErrorInfo:
    """What to say of a plan that is not to stand in a message."""
    return ErrorInfo(
        type="validation_error",
        code="plan_too_large",
        message=f"a plan of {size} bytes is too large for a message",
        hint=f"from {limits.plan_bytes} bytes on put it into the object store, and name it as `plan_object` (limits.plan_bytes)",
    )


# Refusals --------------------------------------------------------------------------------------------------------------


def unknown_plan(plan_id: str) -> ErrorInfo:
    return ErrorInfo(
        type="validation_error",
        code="unknown_plan",
        message=f"no plan {plan_id[: 2 * limits.id_chars]} is kept",
        hint="a plan's id has 64 hexadecimal digits; check it and the namespace (esexec plans ls)",
    )


def not_ready(plan: ListedPlan) -> ErrorInfo:
    """Why a plan that is kept cannot be carried out, or be made ready for that."""
    problem = plan.problem
    return ErrorInfo(
        type="validation_error",
        code="plan_not_ready",
        message=f"the plan {plan.plan_id} is {plan.status}" + (f": {problem.message[:1000]}" if problem is not None else ""),
        hint="put a corrected one; it gets an id of its own" if problem is not None else "put it again with the status ready",
        context={"plan_id": plan.plan_id, "status": plan.status},
    )
