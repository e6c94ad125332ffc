"""`decide`: which facts follow from a wish or an observation, given what is fact already. The heart of esexec.

A `Decision` is one commit in the making. Messages are decided into it one after the other; each either adds events
(`emit` evolves the state at once, so that what follows sees them) or answers with a `Verdict` why it adds none. The state
given to a decision is consumed by it: if the commit is refused by the log, the state is thrown away with it.

Nothing here is an exception: a wish that cannot be granted is a `Verdict`. Nothing here reads a clock: a decision has one
time, the latest server time of its messages, never before the history's last. Chance comes in as a number.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.advance import advance
from esexec.domain.attempts import decide_report
from esexec.domain.compiled import canonical, graph_of, graph_of_task
from esexec.domain.decision import APPLIED, Decision, Verdict, refused
from esexec.domain.errors import ErrorInfo, PlanInvalid
from esexec.domain.graph import Graph
from esexec.domain.settings import EMPTY_CONFIG, ExecutionConfig, TaskSettings
from esexec.domain.state import ExecutionState

Kind = Literal["report", "due", "continue", "nudge"]


_SAYS_NOTHING = (None, TaskSettings())
"""What was announced of a task that is not worth a place in the history: it is not known, or only its name is."""


class Surroundings(NamedTuple):
    """What a start takes from the namespace: its settings, and what workers announced of their tasks."""

    namespace: ExecutionConfig = EMPTY_CONFIG
    tasks: Mapping[str, TaskSettings] = {}


def decide_start(decision: Decision, command: c.StartExecution, time: datetime, around: Surroundings) -> Verdict:
    """Create the execution and schedule its first steps; or say that it exists, or why it cannot be."""
    state = decision.state
    if state.exists:
        return _start_again(state, command)
    graph = _graph_of_start(command)
    if isinstance(graph, ErrorInfo):
        return refused(graph)
    known = around.tasks
    used = {step.task: said for step in graph.steps if (said := known.get(step.task)) not in _SAYS_NOTHING} if known else {}
    decision.emit(
        e.ExecutionCreated(
            plan=canonical(graph),
            plan_id=graph.plan_id,
            name=graph.plan.name,
            input=command.input,
            context=command.context,
            config=command.config,
            tasks=used,
            namespace=around.namespace,
            metadata=command.metadata,
            idempotency_key=command.idempotency_key,
            owner=command.actor,
        )
    )
    decision.emit(e.ExecutionStarted())
    decision.cause(command.id, time)
    advance(decision)
    return APPLIED


def _graph_of_start(command: c.StartExecution) -> Graph | ErrorInfo:
    plan = bytes(command.plan)
    if bool(plan) == (command.task is not None):
        return ErrorInfo(
            type="validation_error",
            code="plan_or_task",
            message="a start needs either a plan or a task",
            hint='give one of "plan" and "task"',
        )
    try:
        return graph_of_task(command.task) if command.task is not None else graph_of(plan)
    except PlanInvalid as error:
        hint = error.hint or "a plan is an object with `name` and `steps`; see docs/reference/plans.md"
        return msgspec.structs.replace(error.info, hint=hint)


def _start_again(state: ExecutionState, command: c.StartExecution) -> Verdict:
    """The execution exists. The same command or the same content is the same start; anything else is a conflict."""
    if command.id in state.applied:
        return Verdict("repeated", n=state.applied[command.id])
    created = state.created
    graph = _graph_of_start(command)
    if (
        isinstance(graph, Graph)
        and graph.raw == bytes(created.plan)
        and command.input == created.input
        and command.context == created.context
        and command.config == created.config
        and command.metadata == created.metadata
        and command.idempotency_key == created.idempotency_key
    ):
        return Verdict("duplicate", n=1)
    return refused(
        ErrorInfo(
            type="validation_error",
            code="conflict",
            message=f"execution {state.execution_id} exists with other content",
            hint="choose another execution_id, or leave it out; use idempotency_key to repeat a start safely",
        )
    )


def decide_cancel(decision: Decision, command: c.CancelExecution, time: datetime) -> Verdict:
    """Ask for the end of the execution. An ended one stays as it is (`effective` is then false)."""
    state = decision.state
    if not state.exists:
        return refused(unknown_execution(state.execution_id))
    if command.id in state.applied:
        return Verdict("repeated", n=state.applied[command.id])
    if state.ended:
        return Verdict("ineffective")
    if state.cancel:
        return Verdict("duplicate", n=state.n)
    if state.last_control is not None and time < state.last_control:
        return Verdict("superseded")
    decision.emit(e.ExecutionCancelRequested(grace_ms=limits.cancel_grace_ms, reason=command.reason))
    decision.cause(command.id, time)
    advance(decision)
    return APPLIED


def unknown_execution(execution_id: str) -> ErrorInfo:
    return ErrorInfo(
        type="validation_error",
        code="not_found",
        message=f"no execution {execution_id} is known",
        hint="check the id and the namespace",
    )


def decide_due(decision: Decision, name: str, time: datetime) -> Verdict:
    """A timer fired. One that is open is believed, whatever the clock says; a closed one has had its effect."""
    state = decision.state
    version = int(name) if name.isascii() and name.isdigit() and len(name) < 19 else 0
    timer = state.timers.get(version)
    if timer is None:
        return _closed_timer(state, version)
    before = len(decision.events)
    if timer.kind == "cancel_grace":
        for index in [index for index in state.in_flight if state.steps[index].open]:
            step_id, attempt = state.graph.steps[index].id, state.steps[index].attempt
            decision.emit(e.TaskCancelled(step=step_id, attempt=attempt, run=state.run, ended="abandoned"))
    elif not state.ending:
        step = state.steps[timer.step]
        decision.emit(e.TaskScheduled(step=state.graph.steps[timer.step].id, attempt=step.attempt + 1, run=state.run))
    advance(decision)
    if len(decision.events) == before:
        return Verdict("ineffective")  # it ends early, and the rest of that is decided elsewhere
    decision.cause(f"due/{name}", time)
    return APPLIED


def _closed_timer(state: ExecutionState, version: int) -> Verdict:
    """A timer that is not open: closed by the commit that scheduled or gave up its retry, or not known (yet)."""
    if not 0 < version <= state.version:
        return Verdict("unknown")
    return Verdict("stale", n=state.closed_timers.get(version, 0))


def decide_continue(decision: Decision, after: int, time: datetime) -> Verdict:
    """Go on with what the decision of commit `after` had to leave for want of room; nothing, if nothing was left."""
    state, before = decision.state, len(decision.events)
    cause_id = f"continue/{after}"
    if after and cause_id in state.applied:
        return Verdict("repeated", n=state.applied[cause_id])
    if state.exists:
        advance(decision)
    if len(decision.events) == before:
        return Verdict("ineffective")
    decision.cause(cause_id, time)
    return APPLIED


def decide(
    state: ExecutionState,
    message: c.StartExecution | c.CancelExecution | tuple[r.Report, str, str] | r.Due | r.Continue,
    now: datetime,
    *,
    chance: float = 0.0,
    around: Surroundings | None = None,
) -> list[e.Event]:
    """The events that follow from one message: the pure core in one call. A report comes as (report, step, "run-attempt").

    A message that is refused or changes nothing gives no events; who needs to know why calls the functions above.
    """
    decision = Decision(state, now, chance)
    match message:
        case c.StartExecution():
            decide_start(decision, message, now, around or Surroundings())
        case c.CancelExecution():
            decide_cancel(decision, message, now)
        case r.Due():
            decide_due(decision, message.name, now)
        case r.Continue():
            decide_continue(decision, message.after, now)
        case (report, step, attempt):
            decide_report(decision, report, step, attempt, now)
    return decision.events
