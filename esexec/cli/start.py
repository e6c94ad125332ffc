"""`esexec start`, `esexec cancel`: commands to executions that others carry out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from esexec.cli.call import Call, Server
from esexec.cli.completing import plan_ids, task_names
from esexec.cli.exits import Exit
from esexec.cli.following import exit_of_result, fields_of, follow_to_end
from esexec.cli.given import (
    CheckpointEveryOption,
    CheckpointIntervalOption,
    DeadlineOption,
    DelayOption,
    ExecutionIdArgument,
    ExecutionIdOption,
    ExecutionTimeoutOption,
    InputOption,
    PresetOption,
    PriorityOption,
    ReasonOption,
    StartAtOption,
    WaitOption,
    read_input,
    read_metadata,
    time_options,
)
from esexec.cli.notes import note_warnings, started
from esexec.cli.verb import verb
from esexec.client import Handle
from esexec.domain.errors import AwaitTimeout, NotConfirmed, Refused, ValidationError
from esexec.domain.kept_plans import is_plan_id
from esexec.plans import Plan


def register(app: typer.Typer) -> None:
    verb(app)(start)
    verb(app)(cancel)


async def start(
    call: Call,
    plan: Annotated[
        Path | None, typer.Argument(metavar="[PLAN.yaml]", help="The plan, YAML or JSON.", show_default=False)
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="NAME", autocompletion=task_names, help="A single task instead of a plan.")
    ] = None,
    input: InputOption = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", metavar="KEY", help="The same key gives the same execution, for ever.")
    ] = None,
    priority: PriorityOption = None,
    execution_id: ExecutionIdOption = None,
    plan_id: Annotated[
        str | None, typer.Option("--plan-id", metavar="ID", autocompletion=plan_ids, help="A plan that the namespace keeps.")
    ] = None,
    start_at: StartAtOption = None,
    delay: DelayOption = None,
    deadline: DeadlineOption = None,
    execution_timeout: ExecutionTimeoutOption = None,
    checkpoint_interval: CheckpointIntervalOption = None,
    checkpoint_every: CheckpointEveryOption = None,
    preset: PresetOption = None,
    meta: Annotated[
        list[str] | None,
        typer.Option("--meta", metavar="KEY=VALUE", help="Noted with it, to be found by: JSON, or text. Repeatable."),
    ] = None,
    wait: WaitOption = False,
    wait_timeout: Annotated[
        float | None, typer.Option("--wait-timeout", metavar="SECONDS", min=0, help="How long to --wait; it goes on after that.")
    ] = None,
) -> Exit | None:
    """Start a plan or a task, and print the execution's id once that is committed.

    Executors and workers elsewhere carry it out (esexec dev, esexec executor, esexec worker).
    """
    what = _what(plan, task, plan_id)
    given = read_input(input)
    options: dict[str, Any] = {"idempotency_key": idempotency_key, "priority": priority, "execution_id": execution_id}
    options["metadata"] = read_metadata(meta)
    options |= time_options(
        start_at,
        deadline,
        delay=delay,
        execution_timeout=execution_timeout,
        checkpoint_interval=checkpoint_interval,
        checkpoint_every=checkpoint_every,
        preset=preset,
    )
    async with call.client(new_store=True, decides=True) as (client, server):
        if isinstance(what, Plan):
            await note_warnings(call, client, what)
        try:
            handle = await started(client.start(what, given, **options), plan)
        except NotConfirmed as error:
            error.message = f"{error.handle.id}: {error.message}"
            raise
        _hint(call, server, handle)
        if not (wait or wait_timeout is not None):
            if call.json:
                warnings = {"warnings": handle.warnings} if handle.warnings else {}
                call.document({"execution_id": handle.id, "duplicate": handle.duplicate, **warnings})
            call.say(handle.id)
            return None
        call.say(f"execution {handle.id}")
        try:
            result = await follow_to_end(call, client, handle.id, wait_timeout=wait_timeout)
        except AwaitTimeout as error:
            error.hint = f"it goes on: {call.esexec} watch {handle.id}"
            raise
        if call.json:
            call.document(fields_of(result))
        return exit_of_result(result)


def _what(plan: Path | None, task: str | None, plan_id: str | None) -> Plan | str:
    if sum(one is not None for one in (plan, task, plan_id)) != 1:
        raise ValidationError("give either a plan file, --task NAME or --plan-id ID", code="usage", hint="esexec start --help")
    if plan_id is not None and not is_plan_id(plan_id):
        raise ValidationError(f"{plan_id[:80]!r} is no plan's id", code="bad_plan_id", hint="64 hexadecimal digits")
    return plan_id or task or Plan.from_file(plan or "")


def _hint(call: Call, server: Server, handle: Handle) -> None:
    if handle.duplicate:
        call.note("it was started before; nothing was started now")
    for one in handle.warnings if not (call.json or server.is_ours) else ():
        call.note(f"warning [{one.code}]: {one.message}")
        call.note(f"hint: {one.hint}")
    if server.is_ours:
        call.note(f"nothing runs on {server.store}; `{call.esexec} dev --tasks MODULE` carries it out")


async def cancel(
    call: Call,
    execution_id: ExecutionIdArgument,
    reason: ReasonOption = "",
) -> None:
    """Cancel an execution: what waits is withdrawn, what runs is told to stop. Refused (4) if it ended otherwise before."""
    async with call.client(decides=True) as (client, _):
        effective = await client.cancel(execution_id, reason=reason)
        status = await client.status(execution_id)
        if not effective and status != "cancelled":
            raise Refused(f"{execution_id} had ended before: it is {status.value}", code="already_ended")
        if call.json:
            call.document({"execution_id": execution_id, "cancelled": effective, "status": status})
        call.say("cancel requested" if effective else "it was cancelled before")
