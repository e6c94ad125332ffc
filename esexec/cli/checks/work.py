"""What waits: commands for executors, attempts for workers, tasks that nobody has, what could not be decided."""

from collections.abc import AsyncIterator
from datetime import datetime

from esexec.cli.checks import Check, Patient, ok, problem, warning
from esexec.cli.text import counted
from esexec.client.workers import waiting_without
from esexec.domain import limits
from esexec.domain.errors import EsexecError
from esexec.domain.explain import did_you_mean
from esexec.nats.connection import ApiError
from esexec.nats.direct import DirectReader, waits_since
from esexec.nats.streams import LaneDepth, lane_depths, pullers_of, waiting_in
from esexec.world import now

_MANY = 10_000
_LONG_S = 60.0
_TOLD = 5


async def intake(patient: Patient) -> AsyncIterator[Check]:
    """What waits for executors."""
    try:
        commands = await waiting_in(patient.connection, patient.subjects.commands_stream)
        inbox = await waiting_in(patient.connection, patient.subjects.inbox_stream)
    except ApiError:
        return
    said = f"{commands} commands and {inbox} reports and timers wait for executors"
    hint = f"more executors: {patient.advised} executor"
    if commands >= limits.commands_waiting * 4 // 5:
        yield problem("intake", f"{said}; beyond {limits.commands_waiting} commands new ones are refused", hint)
    elif max(commands, inbox) > _MANY:
        yield warning("intake", said, hint)
    else:
        yield ok("intake", said)


async def queues(patient: Patient) -> AsyncIterator[Check]:
    """What waits for workers, and queues that nobody serves."""
    try:
        lanes = await lane_depths(patient.connection, patient.subjects)
    except ApiError:
        return
    served = {queue for one in patient.workers for queue in one.queues}
    waiting, unserved = [lane for lane in lanes if lane.waiting], False
    pulled = await pullers_of(patient.connection, patient.subjects.tasks_stream) if waiting else {}
    for lane in waiting:
        since = await waits_since(
            patient.connection, patient.subjects.tasks_stream, patient.subjects.lane(lane.queue, lane.priority)
        )
        said = f"{_place(lane)}: {_waiting(lane.waiting)}{_age(since)}"
        is_pulled = pulled.get(patient.subjects.lane_consumer(lane.queue, lane.priority))
        if lane.queue not in served and not is_pulled and not _is_strategy(lane):
            unserved = True
            hint = f"{patient.advised} worker --tasks MODULE --queue {lane.queue}"
            yield problem("queues", f"{said}, and no worker serves that queue", hint)
        elif since is not None and (now() - since).total_seconds() > _LONG_S:
            yield warning("queues", said, "more workers, or more slots: --concurrency, --queue Q=N")
        else:
            yield ok("queues", said)
    if not waiting:
        yield ok("queues", f"nothing waits for workers, {sum(lane.in_flight for lane in lanes)} attempts in hand")
    async for check in _tasks(patient, unserved):
        yield check


async def _tasks(patient: Patient, unserved: bool) -> AsyncIterator[Check]:
    there = patient.workers
    if patient.unnamed_workers:
        return
    reader = await DirectReader(patient.connection).start()
    try:
        wanted = await waiting_without(reader, patient.subjects, there)
    except EsexecError:
        wanted = {}
    known = [task for one in there for task in one.tasks if ":" not in task]
    found = sorted(wanted.items(), key=lambda one: -len(one[1]))
    for task, executions in found[:_TOLD]:
        hint = did_you_mean(task, known) if there else None
        hint = hint or f"start a worker that has it: {patient.advised} worker --tasks MODULE"
        said = f"no worker has the task `{task}`; {_waiting(len(executions))} for it, such as one of {executions[0]}"
        yield problem("tasks", said, hint)
    if len(found) > _TOLD:
        yield problem("tasks", f"and {counted(len(found) - _TOLD, 'more task')} that no worker has")
    if not found and there and not unserved:
        yield ok("tasks", "what waits is known to a worker")


async def dead_letters(patient: Patient) -> AsyncIterator[Check]:
    """What could not be decided, and waits for a person."""
    try:
        count = await waiting_in(patient.connection, patient.subjects.dead_stream)
    except ApiError:
        return
    if count:
        yield warning("dead letters", f"{count}: what could not be read or decided", f"{patient.advised} dlq ls")
    else:
        yield ok("dead letters", "none")


def _is_strategy(lane: LaneDepth) -> bool:
    return lane.queue.startswith("_")


def _place(lane: LaneDepth) -> str:
    return f"queue {lane.queue}, priority {lane.priority}"


def _age(since: datetime | None) -> str:
    from projections.timeline import duration

    return "" if since is None else f", for {duration(max(0, round((now() - since).total_seconds() * 1000)))}"


def _waiting(count: int) -> str:
    return f"{counted(count, 'attempt')} wait{'s' * (count == 1)}"
