"""`esexec doctor`: what is wrong with the server and the namespace, and the way out. It looks, and changes nothing."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Final

import typer

from esexec.cli.call import Call, Server
from esexec.cli.checks import Check, Patient, outcomes, problem, processes, server, streams, work
from esexec.cli.checks.execution import execution
from esexec.cli.completing import execution_ids
from esexec.cli.exits import Exit
from esexec.cli.text import counted
from esexec.cli.verb import verb
from esexec.client.commands import checked_id
from esexec.domain.errors import EsexecError, Unavailable
from esexec.nats.connection import ApiError, connect
from esexec.nats.presence import Kind, who_is_there, workers_there
from esexec.nats.subjects import Subjects

_Checking = Callable[[Patient], AsyncIterator[Check]]
_OF_SERVER: Final[tuple[_Checking, ...]] = (server.version, server.payload, server.jetstream)
_OF_NAMESPACE: Final[tuple[_Checking, ...]] = (
    server.sync,
    streams.streams,
    server.clock,
    processes.executors,
    processes.workers,
    processes.projections,
    processes.versions,
    work.intake,
    work.queues,
    work.dead_letters,
    outcomes.outcomes,
)
_TOLD_BY_SERVICE: Final[tuple[Kind, ...]] = ("executor", "projections")
_SIGNS: Final = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}


def register(app: typer.Typer) -> None:
    verb(app)(doctor)


async def doctor(
    call: Call,
    execution_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", autocompletion=execution_ids, help="Also what this execution waits for.", show_default=False
        ),
    ] = None,
    monitoring: Annotated[
        str | None,
        typer.Option("--monitoring", metavar="URL", help="The server's monitoring port, as http://host:8222: tells its sync."),
    ] = None,
) -> Exit:
    """Look for what is wrong: server, streams, processes, what waits. Exit code 1 if there is a problem, 0 with warnings only."""
    found: list[Check] = []
    async with call.reach(new_store=False) as place:
        try:
            async for check in checks(call, place, monitoring, execution_id):
                found.append(check)
                if not call.json:
                    _show(check)
        except Unavailable as error:
            found.append(problem("server", error.message, error.hint))
            if not call.json:
                _show(found[-1])
            _sum_up(call, found)
            return Exit.UNAVAILABLE
    _sum_up(call, found)
    return Exit.FAILED if any(one.state == "problem" for one in found) else Exit.OK


async def checks(
    call: Call, place: Server, monitoring: str | None = None, execution_id: str | None = None
) -> AsyncIterator[Check]:
    """Everything that is looked at, in this order. Raises `Unavailable` if no server answers."""
    subjects = Subjects(call.namespace)
    async with await connect(place.url, name="esexec-doctor", **place.auth) as connection:
        patient = Patient(connection, subjects, place, call.esexec, monitoring)
        has_jetstream = True
        for check in _OF_SERVER:
            async for one in _looked(check, patient):
                has_jetstream = has_jetstream and not (one.name == "jetstream" and one.state == "problem")
                yield one
        if not has_jetstream:
            return
        patient.workers = await workers_there(connection, subjects)
        for kind in _TOLD_BY_SERVICE:
            patient.there[kind] = await who_is_there(connection, call.namespace, kind)
        for check in _OF_NAMESPACE:
            async for one in _looked(check, patient):
                yield one
        if execution_id is not None:
            async for one in execution(patient, checked_id(execution_id)):
                yield one


async def _looked(check: _Checking, patient: Patient) -> AsyncIterator[Check]:
    """One check; what keeps it from being made is a finding of its own."""
    try:
        async for one in check(patient):
            yield one
    except ApiError as error:
        yield problem(check.__name__.replace("_", " "), f"JetStream refused to tell: {error.description}")
    except EsexecError as error:
        if not patient.connection.is_connected:
            raise
        yield problem(check.__name__.replace("_", " "), error.message, error.hint)


def _show(check: Check) -> None:
    from esexec.cli.terminal import columns, show, terminal, text

    sign, style = _SIGNS[check.state]
    line = text(check.message, "" if check.state == "ok" else style)
    rows = [(text(sign, style), text(f"{check.name:<12}"), line)]
    if check.hint and check.state != "ok":
        rows.append((text(""), text(""), text(f"→ {check.hint}", "bright_black")))
    show(terminal(), columns(*rows))


def _sum_up(call: Call, found: list[Check]) -> None:
    counts = {state: sum(one.state == state for one in found) for state in _SIGNS}
    if call.json:
        call.document({"ok": not counts["problem"], "counts": counts, "checks": found})
        return
    said = ", ".join(counted(counts[state], state) for state in ("problem", "warning"))
    call.say(f"\n{said}, {counts['ok']} in order")
