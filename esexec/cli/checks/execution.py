"""One execution: what it waits for, step by step, and who could help. Read off its history, its dispatches, and who is there."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

from esexec.cli.checks import Check, Patient, State, ok, problem, warning
from esexec.client.errors import not_found
from esexec.client.workers import dispatch_in, is_known
from esexec.domain.errors import CorruptHistory
from esexec.domain.evolve import fold
from esexec.domain.explain import did_you_mean
from esexec.domain.messages import Dispatch
from esexec.log import codec
from esexec.log.jetstream import JetStreamLog
from esexec.nats.direct import DirectReader
from esexec.nats.publisher import Publisher
from esexec.results import ExecutionResult, TaskResult, result_of
from esexec.world import now

_TOLD: Final = 20
"""So many steps are told one by one."""
_STORM: Final = 5
"""Attempts of one step from which on it is told that it fails again and again."""


async def execution(patient: Patient, execution_id: str) -> AsyncIterator[Check]:
    """Raises NotFound."""
    reader = await DirectReader(patient.connection).start()
    log = JetStreamLog(patient.connection, patient.subjects, Publisher(patient.connection), reader)
    stored = await log.load(execution_id)
    if not stored:
        raise not_found(execution_id)
    try:
        result = result_of(fold(execution_id, [codec.decode(one.data) for one in stored]))
    except CorruptHistory as error:
        yield problem("execution", f"its history is not intact: {error.message}", f"{patient.advised} verify {execution_id}")
        return
    yield _as_a_whole(patient, result)
    if result.status.is_final:
        return
    messages = await reader.from_first(patient.subjects.tasks_stream, patient.subjects.tasks_of(execution_id), _TOLD * 5)
    waiting = {patient.subjects.parse_task(one.subject).step: dispatch_in(one.data) for one in messages}
    told = 0
    for task in result.results:
        found = _of_step(patient, result, task, waiting.get(task.task_id))
        if found is not None:
            told += 1
            if told <= _TOLD:
                yield found
    if told > _TOLD:
        yield ok("steps", f"and {told - _TOLD} more")
    if not told and not result.paused and result.status != "pending":
        hint = f"nobody decides what comes next: {patient.advised} executor"
        said = "no step is under way at this moment"
        yield ok("steps", said) if patient.there["executor"] else problem("steps", said, hint)


def _as_a_whole(patient: Patient, result: ExecutionResult) -> Check:
    done = f"{result.completed_steps} of {result.total_steps} steps completed"
    if result.status.is_final:
        why = f": [{result.error.code}] {result.error.message}" if result.error is not None else ""
        return ok("execution", f"it has ended: {result.status}, {done}{why}")
    if result.paused:
        why = f" ({result.pause_reason})" if result.pause_reason else ""
        return warning("execution", f"it is paused{why}, {done}", f"{patient.advised} resume {result.execution_id}")
    if result.start_at is not None and result.start_at > now():
        return ok("execution", f"it waits for its start at {_time(result.start_at)}")
    if result.status == "pending":
        return warning("execution", "it has not begun", "its concurrency key may be taken by others: esexec show, esexec ls")
    phase = "" if result.current_phase == "executing" else f", {result.current_phase}"
    return ok("execution", f"{result.status}{phase}, {done}")


def _of_step(patient: Patient, result: ExecutionResult, task: TaskResult, dispatch: Dispatch | None) -> Check | None:
    """What a step waits for; None: it is done, or waits for other steps."""
    if task.status in ("completed", "skipped", "cancelled", "failed"):
        return None
    failed = f"; before that [{task.error.code}] {task.error.message}"[:300] if task.error is not None else ""
    if task.status == "rate_limited":
        until = f" until {_time(task.next_retry_at)}" if task.next_retry_at is not None else ""
        return _step(task, "warning", f"waits for room in a limit, or for a key or resources{until}", "see esexec timeline")
    if task.next_retry_at is not None and dispatch is None:
        state: State = "warning" if task.attempt >= _STORM else "ok"
        said = f"attempt {task.attempt + 1} is due at {_time(task.next_retry_at)}{failed}"
        return _step(task, state, said, f"it has failed {task.attempt} times: is what it calls there?")
    if dispatch is None:
        return None if task.attempt == 0 else _step(task, "ok", f"attempt {task.attempt} is under way{_by(task)}{failed}")
    hint = f"{patient.advised} worker --tasks MODULE --queue {dispatch.queue}"
    if task.started_at is not None and task.status == "running":
        return _step(task, "ok", f"attempt {task.attempt} runs{_by(task)}, since {_time(task.started_at)}{failed}")
    if patient.unnamed_workers:
        return _step(task, "ok", f"attempt {task.attempt} waits for a worker{failed}")
    if dispatch.purpose != "recovery" and not is_known(dispatch.task, patient.workers):
        known = [name for one in patient.workers for name in one.tasks if ":" not in name]
        near = did_you_mean(dispatch.task, known) if known else None
        return _step(task, "problem", f"attempt {task.attempt} waits: no worker has the task `{dispatch.task}`", near or hint)
    if not any(dispatch.queue in one.queues for one in patient.workers):
        return _step(task, "problem", f"attempt {task.attempt} waits: no worker serves the queue {dispatch.queue}", hint)
    return _step(task, "ok", f"attempt {task.attempt} waits for a free slot, or has just begun{failed}")


def _step(task: TaskResult, state: State, message: str, hint: str | None = None) -> Check:
    return Check(name="step", state=state, message=f"{task.task_id}: {message}", hint=None if state == "ok" else hint)


def _by(task: TaskResult) -> str:
    return f" on {task.worker_id}" if task.worker_id else ""


def _time(time: datetime) -> str:
    return f"{time:%H:%M:%S} UTC" if abs((time - now()).total_seconds()) < 86_400 else f"{time:%Y-%m-%d %H:%M:%S} UTC"
