"""`decide`: which facts follow from a wish or an observation, given what is fact already. The heart of esexec.

A `Decision` is one commit in the making. Messages are decided into it one after the other; each either adds events
(`emit` evolves the state at once, so that what follows sees them) or answers with a `Verdict` why it adds none. The state
given to a decision is consumed by it: if the commit is refused by the log, the state is thrown away with it.

Nothing here is an exception: a wish that cannot be granted is a `Verdict`. Nothing here reads a clock: a decision has one
time, the latest server time of its messages, never before the history's last. Chance comes in as a number.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple

import msgspec

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.admission import decide_grant
from esexec.domain.advance import advance, begin_run, exceed_deadline
from esexec.domain.attempts import abandon, decide_report
from esexec.domain.checkpoints import make_checkpoint
from esexec.domain.compiled import SMALL_BYTES, canonical, graph_of, graph_of_task
from esexec.domain.controls import decide_control
from esexec.domain.decision import APPLIED, NOWHERE, Decision, Surroundings, Verdict, invalid, refused
from esexec.domain.errors import ErrorInfo, PlanInvalid, ValidationError
from esexec.domain.flow_keys import render_key
from esexec.domain.flow_rules import settings_problem
from esexec.domain.graph import Graph
from esexec.domain.kept_plans import plan_too_large
from esexec.domain.rollback import with_inverse
from esexec.domain.settings import BUILT_IN, EMPTY_CONFIG, EMPTY_NAMESPACE, NamespaceConfig, TaskInfo, TaskSettings
from esexec.domain.sharing import requests as s
from esexec.domain.state import HELD_BY_A_PAUSE, ExecutionState, Timer

__all__ = ["Surroundings", "decide", "decide_continue", "decide_control", "decide_due", "decide_report", "decide_start"]

PLAN_OR_TASK = ErrorInfo(
    type="validation_error",
    code="plan_or_task",
    message="a start needs either a plan or a task",
    hint='give one of "plan", "plan_id" and "task"',
)

_ONLY_A_NAME = TaskInfo()
"""What was announced of a task that is not worth a place in the history."""


def decide_start(decision: Decision, command: c.StartExecution, time: datetime) -> Verdict:
    """Create the execution and schedule its first steps; or say that it exists, or why it cannot be."""
    state = decision.state
    if state.exists:
        return _start_again(state, command)
    graph = _graph_of_start(command)
    if isinstance(graph, ErrorInfo):
        return Verdict("invalid", error=graph)
    if command.config is not EMPTY_CONFIG and (problem := settings_problem(command.config, "config")) is not None:
        return Verdict("invalid", error=problem)
    kept = {**command.kept, **command.kept_objects} if command.kept_objects else command.kept
    if kept and (unknown := next((step for step in kept if step not in graph.index), None)) is not None:
        message = f"`kept` names {unknown[:80]!r}, which is no step of the plan"
        return invalid("unknown_step", message, "outputs are kept by step id")
    start_at = deadline = None
    if command.delay_ms or command.start_at is not None or command.deadline is not None:
        times = _times(command, time)
        if isinstance(times, Verdict):
            return times
        start_at, deadline = times
    if (problem := _key_problem(graph, command, decision.around.namespace)) is not None:
        return Verdict("invalid", error=problem)
    if decision.around.check is not None and (problem := decision.around.check(graph, command)) is not None:
        return refused(problem)
    tasks, unannounced = _announced(graph, decision.around)
    decision.emit(
        e.ExecutionCreated(
            plan=canonical(graph),
            plan_id=graph.plan_id,
            name=graph.plan.name,
            input=command.input,
            context=command.context,
            config=command.config,
            tasks=tasks,
            namespace=_in_force(graph, command, decision.around.namespace, tasks),
            metadata=command.metadata,
            idempotency_key=command.idempotency_key,
            owner=command.actor,
            start_at=start_at if start_at is not None and start_at > decision.time else None,
            deadline=deadline,
            parent=command.parent,
            forked_from=command.forked_from,
            kept=command.kept,
            unannounced=unannounced if decision.around.all_known else (),
            plan_object=command.plan_object,
            input_object=command.input_object,
            kept_objects=command.kept_objects,
        )
    )
    if decision.state.created.start_at is None:
        begin_run(decision)
    if decision.state.started_at is None and deadline is not None:
        decision.emit(e.DeadlineSet(deadline=deadline))
    decision.cause(command.id, time, command.actor)
    advance(decision)
    return APPLIED


def _times(command: c.StartExecution, time: datetime) -> tuple[datetime | None, datetime | None] | Verdict:
    """When it may begin at the earliest (a delay counts from when the command was stored), and its deadline."""
    latest = time + timedelta(milliseconds=limits.delay_ms)
    try:
        start_at = command.start_at.astimezone(UTC) if command.start_at is not None else None
        deadline = command.deadline.astimezone(UTC) if command.deadline is not None else None
    except OverflowError:
        return invalid("invalid_time", "a time that no calendar holds", "give times of this century")
    for name, named in (("start_at", start_at), ("deadline", deadline)):
        if named is not None and named > latest:
            message = f"{name} {named:%Y-%m-%dT%H:%M:%SZ} is too far away"
            return invalid("invalid_time", message, "at most a year from now (limits.delay_ms)")
    if command.delay_ms:
        start_at = max(start_at or time, time + timedelta(milliseconds=command.delay_ms))
    return start_at, deadline


def _key_problem(graph: Graph, command: c.StartExecution, namespace: NamespaceConfig) -> ErrorInfo | None:
    """Why the execution cannot ask for a slot of its concurrency key: that refers to nothing."""
    key = command.config.concurrency or graph.plan.config.concurrency or namespace.concurrency
    if key is None:
        return None
    try:
        render_key(key.key, input=command.given, context=command.context, params=dict, bare=True)
    except ValidationError as error:
        return error.info
    return None


def _in_force(graph: Graph, command: c.StartExecution, namespace: NamespaceConfig, tasks: dict[str, TaskInfo]) -> NamespaceConfig:
    """The settings of the namespace; of its queues those that an attempt may be on."""
    if not namespace.queues:
        return namespace
    levels: list[TaskSettings] = [namespace, *tasks.values(), graph.plan.config, *graph.steps, command.config]
    named = {BUILT_IN.queue} | {level.queue for level in levels}
    queues = {name: settings for name, settings in namespace.queues.items() if name in named}
    if len(queues) == len(namespace.queues):
        return namespace
    namespace = msgspec.structs.replace(namespace, queues=queues)
    return namespace if namespace != EMPTY_NAMESPACE else EMPTY_NAMESPACE


class _Calls(NamedTuple):
    """What workers announced of the tasks that a plan may call, and that is not nothing; and the tasks of which nothing was."""

    announced: dict[str, TaskInfo]
    unannounced: tuple[str, ...]


def _announced(graph: Graph, around: Surroundings) -> _Calls:
    """Remembered for small plans, until something else is announced."""
    known = around.tasks
    if len(graph.raw) > SMALL_BYTES:
        return _Calls(_used(graph, known), _unannounced(graph, known))
    if _remembered.known is not known or len(_remembered.calls) >= limits.cached_plans:
        _remembered.known, _remembered.calls = known, {}
    calls = _remembered.calls.get(graph)
    if calls is None:
        calls = _remembered.calls[graph] = _Calls(_used(graph, known), _unannounced(graph, known))
    return calls


class _Remembered:
    """What plans call of the tasks that were announced last."""

    known: Mapping[str, TaskInfo] = {}
    calls: dict[Graph, _Calls] = {}


_remembered = _Remembered()


def _used(graph: Graph, known: Mapping[str, TaskInfo]) -> dict[str, TaskInfo]:
    called = dict.fromkeys(task for step in graph.steps for task in (step.task, step.fallback) if task is not None)
    used = {task: said for task in called if (said := with_inverse(task, known)) is not None and said != _ONLY_A_NAME}
    undoing = [step.compensate for step in graph.steps] + [said.compensate or said.inverse for said in used.values()]
    for task in dict.fromkeys(undoing):  # one that is called as well (`update_x` undoes itself) has what undoes it, too
        if task is None or task in used or (said := known.get(task)) is None or said == _ONLY_A_NAME:
            continue
        used[task] = said
    return used


def _unannounced(graph: Graph, known: Mapping[str, TaskInfo]) -> tuple[str, ...]:
    """The tasks that the plan calls by name, and that no worker has announced; the first of them, where there are many."""
    called = dict.fromkeys(task for one in graph.steps for task in (one.task, one.fallback, one.compensate))
    return tuple(islice((task for task in called if task is not None and task not in known), limits.unannounced_tasks))


def _graph_of_start(command: c.StartExecution) -> Graph | ErrorInfo:
    plan = bytes(command.plan)
    if bool(plan) == (command.task is not None):  # a `plan_id` was made a plan by then
        return PLAN_OR_TASK
    try:
        graph = graph_of_task(command.task) if command.task is not None else graph_of(plan)
    except PlanInvalid as error:
        hint = error.hint or "a plan is an object with `name` and `steps`; see docs/reference/plan.md"
        return msgspec.structs.replace(error.info, hint=hint)
    if len(graph.raw) > limits.plan_bytes and command.plan_object is None:
        return plan_too_large(len(graph.raw))
    return graph


def _start_again(state: ExecutionState, command: c.StartExecution) -> Verdict:
    """The execution exists. The same command or the same content is the same start; anything else is a conflict."""
    if command.id in state.applied:
        return Verdict("repeated", n=state.applied[command.id])
    created = state.created
    graph = _graph_of_start(command)
    if (
        isinstance(graph, Graph)
        and graph.raw == created.document
        and command.given == created.given
        and command.context == created.context
        and command.config == created.config
        and command.metadata == created.metadata
        and command.idempotency_key == created.idempotency_key
        and command.kept == created.kept
        and command.kept_objects == created.kept_objects
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


def decide_due(decision: Decision, name: str, time: datetime) -> Verdict:
    """A timer fired. One that is open is believed, whatever the clock says; a closed one has had its effect."""
    state = decision.state
    if name == r.LOOK and state.exists:
        return Verdict("open")
    version = int(name) if name.isascii() and name.isdigit() and len(name) < 19 else 0
    timer = state.timers.get(version)
    if timer is None:
        return _closed_timer(state, version)
    before = len(decision.events)
    if not (state.paused and timer.kind in HELD_BY_A_PAUSE):  # else it is set again when the pause is over
        _fired(decision, timer)
    advance(decision)
    if len(decision.events) == before:
        return Verdict("ineffective")  # held by a pause, or the rest is decided elsewhere
    decision.cause(f"due/{name}", time)
    return APPLIED


def _fired(decision: Decision, timer: Timer) -> None:
    state = decision.state
    match timer.kind:
        case "start":
            if not state.stopping:
                begin_run(decision)
        case "retry":
            _try_again(decision, timer.step)
        case "queue":
            step = state.steps[timer.step]
            if step.open and not step.overdue:
                decision.emit(e.TaskOverdue(step=state.graph.steps[timer.step].id, attempt=step.attempt, run=state.run))
        case "deadline":
            if state.phase in ("queued", "executing", "failing") and not state.stopping:
                exceed_deadline(decision)
        case "checkpoint":
            if not state.cancel and state.phase != "rolling_back":
                make_checkpoint(decision, "interval")
        case "grace":
            for index in [index for index in state.in_flight if state.steps[index].open]:
                abandon(decision, index)


def _try_again(decision: Decision, index: int) -> None:
    """A retry is due: of the step's work, or of its undoing."""
    state, step = decision.state, decision.state.steps[index]
    step_id, attempt = state.graph.steps[index].id, step.attempt + 1
    if step.compensation == "running":
        if not state.cancel:
            task = step.compensator or ""
            decision.emit(e.CompensationScheduled(step=step_id, attempt=attempt, run=state.run, task=task))
    elif not state.ending:
        decision.emit(e.TaskScheduled(step=step_id, attempt=attempt, run=state.run))


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


Message = c.ExecutionCommand | tuple[r.Report | s.Answer, str, str] | r.Due | r.Continue
"""What is decided upon. A report, and an answer to what was asked, comes as (report, step, "run-attempt")."""


def decide_message(decision: Decision, message: Message, time: datetime) -> Verdict:
    """One message into a decision, by what it is."""
    match message:
        case c.StartExecution():
            return decide_start(decision, message, time)
        case r.Due():
            return decide_due(decision, message.name, time)
        case r.Continue():
            return decide_continue(decision, message.after, time)
        case (s.Answered() as answer, step, attempt):
            return decide_grant(decision, answer, step, attempt, time)
        case (report, step, attempt):
            return decide_report(decision, report, step, attempt, time)
        case _:
            return decide_control(decision, message, time)


def decide(
    state: ExecutionState,
    message: Message,
    now: datetime,
    *,
    chance: float = 0.0,
    around: Surroundings = NOWHERE,
) -> list[e.Event]:
    """The events that follow from one message: the pure core in one call.

    A message that is refused or changes nothing gives no events; who needs to know why calls `decide_message`.
    """
    decision = Decision(state, now, chance, around)
    decide_message(decision, message, now)
    return decision.events
