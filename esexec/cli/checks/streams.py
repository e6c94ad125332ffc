"""The streams and consumers of the namespace: whether they are there, and as they should be."""

from collections.abc import AsyncIterator

from esexec.cli.checks import Check, Patient, ok, problem, warning
from esexec.domain.errors import EsexecError
from esexec.domain.explain import did_you_mean
from esexec.nats.connection import ApiError
from esexec.nats.streams import drift, namespaces

_TOLD = 10
_DRIFT_HINT = "`nats stream edit` or `nats consumer edit` sets it; what cannot be edited is made anew by an executor once deleted"


async def streams(patient: Patient) -> AsyncIterator[Check]:
    """Empty namespaces, what is missing, what somebody changed."""
    connection, subjects = patient.connection, patient.subjects
    try:
        found = await connection.api(f"STREAM.INFO.{subjects.log_stream}")
    except ApiError:
        there = await namespaces(connection)
        if subjects.namespace not in there:
            near = did_you_mean(subjects.namespace, there) if there else None
            hint = f"--namespace: {near}" if near else f"an executor makes it: {patient.advised} executor"
            yield warning("streams", f"there is no namespace {subjects.namespace} on this server yet", hint)
            return
        found = {"config": {}}
    replicas = found["config"].get("num_replicas", 1)
    lines = await drift(connection, subjects, replicas=replicas)
    executors = bool(patient.there.get("executor"))
    in_memory = ("consumer ", f"stream {subjects.live_stream} ")
    at_rest = [line for line in lines if line.startswith(in_memory) and line.endswith("is missing") and not executors]
    others = [line for line in lines if line not in at_rest]
    for line in others[:_TOLD]:
        hint = f"an executor makes it: {patient.advised} executor" if line.endswith("is missing") else _DRIFT_HINT
        yield problem("streams", line, hint)
    if len(others) > _TOLD:
        yield problem("streams", f"and {len(others) - _TOLD} more")
    if at_rest:
        yield ok("streams", f"{len(at_rest)} that live in the server's memory are not there: an executor makes them")
    if not others:
        yield ok("streams", f"as they should be, replicas {replicas}")
    try:
        state = found["state"]
        yield ok("log", f"{state['messages']} commits, {state['bytes'] / 1e6:.1f} MB")
    except (KeyError, EsexecError):
        return
