"""`esexec checkpoint create | ls | show | restore`: states of an execution that have a name."""

from typing import Annotated

import typer

from esexec.cli.call import Call
from esexec.cli.control import nobody_works, see
from esexec.cli.exits import Exit
from esexec.cli.given import CheckpointArgument, ExecutionIdArgument, ReasonOption, WaitOption, read_metadata
from esexec.cli.verb import verb

checkpoints = typer.Typer(name="checkpoint", help="Name states of an execution, and go back to them.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    for body in (create, ls, show, restore):
        verb(checkpoints)(body)
    app.add_typer(checkpoints)


async def create(
    call: Call,
    execution_id: ExecutionIdArgument,
    meta: Annotated[list[str] | None, typer.Option("--meta", metavar="K=V", help="What is noted with it. Repeatable.")] = None,
) -> None:
    """Give the state of now a name, and print it. Refused (4) if the execution has ended."""
    metadata = read_metadata(meta)
    async with call.client(decides=True) as (client, _):
        made = await client.checkpoints.create(execution_id, metadata)
    if call.json:
        call.document(made)
    call.say(made.id)


async def ls(call: Call, execution_id: ExecutionIdArgument) -> None:
    """List the checkpoints of an execution, oldest first. With --json without their states."""
    async with call.client() as (client, _):
        found = await client.checkpoints.list(execution_id)
    if call.json:
        call.document(found)
        return
    from esexec.cli import render
    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal

    print_(terminal(), render.checkpoints(found))


async def show(call: Call, checkpoint_id: CheckpointArgument) -> None:
    """Show a checkpoint, with the state of every step and the variables."""
    async with call.client() as (client, _):
        found = await client.checkpoints.get(checkpoint_id)
    if call.json:
        call.document(found)
        return
    from esexec.cli import render
    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal

    print_(terminal(), render.checkpoint(found))


async def restore(
    call: Call, checkpoint_id: CheckpointArgument, reason: ReasonOption = "", wait: WaitOption = False
) -> Exit | None:
    """Go back to a checkpoint: what completed after it runs again, and is not undone before. Nothing is deleted."""
    async with call.client(decides=True) as (client, server):
        handle = await client.checkpoints.restore(checkpoint_id, reason)
        nobody_works(call, server)
        return await see(call, client, handle.id, wait=wait, words=handle.id, said={"restored": checkpoint_id})
