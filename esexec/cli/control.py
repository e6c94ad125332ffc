"""`esexec pause`, `resume`, `retry`, `rollback`: what can be done with an execution while it lives, and after."""

from typing import Annotated, Any

import typer

from esexec.cli.call import Call, Server
from esexec.cli.exits import Exit
from esexec.cli.following import exit_of_result, fields_of, follow_to_end
from esexec.cli.given import ExecutionIdArgument, ReasonOption, WaitOption
from esexec.cli.verb import verb
from esexec.client import Client


def register(app: typer.Typer) -> None:
    for body in (pause, resume, retry, rollback):
        verb(app)(body)


async def pause(call: Call, execution_id: ExecutionIdArgument, reason: ReasonOption = "") -> None:
    """Pause an execution: nothing new is handed out, what runs may end. Refused (4) if it has ended or is ending."""
    async with call.client(decides=True) as (client, _):
        effective = await client.pause(execution_id, reason)
        status = await client.status(execution_id)
    if call.json:
        call.document({"execution_id": execution_id, "paused": effective, "status": status})
    call.say("paused" if effective else "it was paused before")


async def resume(call: Call, execution_id: ExecutionIdArgument) -> None:
    """Go on with an execution that was paused. Refused (4) if it has ended."""
    async with call.client(decides=True) as (client, server):
        effective = await client.resume(execution_id)
        status = await client.status(execution_id)
        nobody_works(call, server)
    if call.json:
        call.document({"execution_id": execution_id, "resumed": effective, "status": status})
    call.say("resumed" if effective else "it was not paused")


async def retry(
    call: Call,
    execution_id: ExecutionIdArgument,
    step: Annotated[str | None, typer.Option("--step", metavar="STEP", help="Of the failed steps only this one.")] = None,
    as_new: Annotated[bool, typer.Option("--as-new", help="As an execution of its own; this one stays as it is.")] = False,
    new_id: Annotated[str | None, typer.Option("--new-id", metavar="ID", help="The same, with this id.")] = None,
    wait: WaitOption = False,
) -> Exit | None:
    """Run again what ended without completing, and print the execution's id. What had completed is kept, unless undone."""
    async with call.client(decides=True) as (client, server):
        handle = await client.retry(execution_id, step=step, as_new=as_new, new_id=new_id)
        nobody_works(call, server)
        return await see(call, client, handle.id, wait=wait, words=handle.id, said={"retried": execution_id})


async def rollback(
    call: Call,
    execution_id: ExecutionIdArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be undone, in which order.")] = False,
    wait: WaitOption = False,
    reason: ReasonOption = "",
) -> Exit | None:
    """Undo what an execution that has ended did, step by step, the last that completed first."""
    if dry_run:
        await _show_plan(call, execution_id)
        return None
    async with call.client(decides=True) as (client, server):
        await client.rollback(execution_id, reason)
        nobody_works(call, server)
        code = await see(call, client, execution_id, wait=wait, words="rollback started", said={})
        if code is None:
            return None
        return Exit.OK if await client.status(execution_id) == "rolled_back" else code


async def _show_plan(call: Call, execution_id: str) -> None:
    async with call.client() as (client, _):
        result = await client.get_or_raise(execution_id)
        undos = await client.rollback_plan(execution_id)
    ended = {task.task_id: task.completed_at for task in result.results}
    if call.json:
        steps = [
            {"order": order, **undo._asdict(), "completed_at": ended[undo.step] if undo.certain else None}
            for order, undo in enumerate(undos, 1)
        ]
        call.document({"execution_id": execution_id, "undo": steps})
        return
    from esexec.cli import render
    from esexec.cli.terminal import show, terminal

    show(terminal(), render.rollback_plan([(undo, ended[undo.step] if undo.certain else None) for undo in undos]))


async def see(call: Call, client: Client, execution_id: str, *, wait: bool, words: str, said: dict[str, Any]) -> Exit | None:
    """What a verb that sets an execution going ends with: `words` at once, or with `wait` what comes of it."""
    if wait:
        result = await follow_to_end(call, client, execution_id, again=True)
        if call.json:
            call.document(fields_of(result))
        return exit_of_result(result)
    if call.json:
        now = await client.get_or_raise(execution_id)
        call.document({"execution_id": execution_id, **said, "run": now.run, "status": now.status})
    call.say(words)
    return None


def nobody_works(call: Call, server: Server) -> None:
    """Say so, if this server runs for this verb alone."""
    if server.is_ours:
        call.note(f"nothing runs on {server.store}; `{call.esexec} dev --tasks MODULE` carries it out")
