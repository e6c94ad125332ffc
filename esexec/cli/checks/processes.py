"""Who works: executors, workers, projections; and whether all are of one version."""

from collections.abc import AsyncIterator

from esexec.cli.checks import Check, Patient, ok, problem, warning
from esexec.cli.text import counted
from esexec.client.queries import Queries
from esexec.domain.errors import EsexecError
from esexec.nats.connection import ApiError
from esexec.nats.streams import pullers_of
from esexec.world import VERSION

_LATE_MS, _FAR_BEHIND_MS = 5_000, 60_000
_NAMED = 5


async def executors(patient: Patient) -> AsyncIterator[Check]:
    """Whether somebody decides, and for all partitions."""
    there, subjects = patient.there["executor"], patient.subjects
    try:
        pulled = await pullers_of(patient.connection, subjects.inbox_stream)
    except ApiError:  # the stream is not there, which was told
        pulled = {}
    silent = sorted(name for name, count in pulled.items() if not count)
    hint = f"{patient.advised} executor"
    if not there and (not pulled or len(silent) == len(pulled)):
        state = problem if await _waits(patient) else warning
        yield state("executors", "none: commands wait until one runs", hint)
    elif silent:
        said = f"nobody takes from {', '.join(silent[:_NAMED])} of {subjects.inbox_stream}"
        yield problem("executors", said, "an executor may be starting or ending; else restart one")
    else:
        yield ok(
            "executors", _named([one.name for one in there]) if there else "some take commands, but do not answer who they are"
        )


async def _waits(patient: Patient) -> bool:
    for stream in (patient.subjects.commands_stream, patient.subjects.inbox_stream):
        try:
            if (await patient.connection.api(f"STREAM.INFO.{stream}"))["state"]["messages"]:
                return True
        except EsexecError:
            continue
    return False


async def workers(patient: Patient) -> AsyncIterator[Check]:
    """Whether somebody runs tasks. What waits for them is looked at with the queues."""
    there = patient.workers
    if not there:
        try:
            patient.unnamed_workers = any((await pullers_of(patient.connection, patient.subjects.tasks_stream)).values())
        except ApiError:
            return
        if patient.unnamed_workers:
            yield ok("workers", "some take attempts, but do not answer who they are")
            return
        yield warning("workers", "none: no task can run", f"{patient.advised} worker --tasks MODULE")
        return
    queues = sorted({queue for one in there for queue in one.queues})
    tasks = sorted({task for one in there for task in one.tasks if ":" not in task})
    yield ok("workers", f"{_named([one.worker for one in there])}; queues {', '.join(queues)}; {counted(len(tasks), 'task')}")


async def projections(patient: Patient) -> AsyncIterator[Check]:
    """Whether read models are kept, and how far they are."""
    hint = f"{patient.advised} projections"
    try:
        found = (await Queries(patient.connection, patient.subjects).projections()).projections
    except EsexecError:
        yield warning(
            "projections", "none: `ls`, `stats` and `top` are not answered, nobody is alerted, the feed stands still", hint
        )
        return
    fine = True
    at_work = {one.name for one in found if one.state != "standby"}
    for one in found:
        if one.name not in at_work and one.lag and one.lag_ms > _LATE_MS:
            said = f"nobody works at {one.name}, which is {one.lag} commits behind, by {one.lag_ms / 1000:.0f} s"
            yield problem("projections", said, "who has its lock does not answer: end that process, and another goes on")
        elif one.state == "failed":
            said, way = f"{one.name} has failed: {one.error}", f"mend it, then {patient.advised} projection rebuild {one.name}"
            yield problem("projections", said, way)
        elif one.state == "retrying":
            yield problem("projections", f"{one.name} is kept from its work: {one.error}", "does its database answer?")
        elif one.state != "standby" and one.lag and one.lag_ms > _LATE_MS:
            said = f"{one.name} is {one.lag} commits behind, by {one.lag_ms / 1000:.0f} s"
            yield (problem if one.lag_ms > _FAR_BEHIND_MS else warning)(
                "projections", said, "more comes than it takes in, or it began late"
            )
        else:
            continue
        fine = False
    if fine:
        names = sorted({one.name for one in found})
        yield ok("projections", f"{', '.join(names)}: up to date")


async def versions(patient: Patient) -> AsyncIterator[Check]:
    """Of everybody who answers, and of this program."""
    said: dict[str, list[str]] = {VERSION: ["this program"]}
    for kind, there in patient.there.items():
        for one in there:
            said.setdefault(one.version, []).append(f"{kind} {one.name}")
    for worker in patient.workers:
        if worker.version:  # else it is none of ours, and has versions of its own
            said.setdefault(worker.version, []).append(f"worker {worker.worker}")
    if len(said) == 1:
        yield ok("versions", f"all {VERSION}")
        return
    told = "; ".join(f"{version}: {', '.join(who[:_NAMED])}" for version, who in sorted(said.items()))
    hint = "executors are updated first, then workers and projections"
    yield warning("versions", told, hint)


def _named(there: list[str]) -> str:
    names = ", ".join(there[:_NAMED])
    return f"{len(there)} ({names}{', …' if len(there) > _NAMED else ''})"
