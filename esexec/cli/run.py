"""`esexec run`: a plan file from start to verified history, with everything it needs in this process."""

import asyncio
import shlex
from contextlib import AsyncExitStack
from pathlib import Path

import typer

from esexec.cli.call import Call
from esexec.cli.exits import Exit
from esexec.cli.following import exit_of_result, fields_of, follow_to_end
from esexec.cli.given import (
    CheckpointEveryOption,
    CheckpointIntervalOption,
    ConcurrencyOption,
    DeadlineOption,
    DelayOption,
    ExecutionIdOption,
    ExecutionTimeoutOption,
    InputOption,
    PlanArgument,
    PresetOption,
    StartAtOption,
    TasksOption,
    check_tasks,
    load_tasks,
    needed,
    queues_of,
    read_input,
    time_options,
)
from esexec.cli.notes import say_warnings, started
from esexec.cli.verb import verb
from esexec.client import Client
from esexec.plans import Plan
from esexec.tasks import collect_resources, collect_strategies


def register(app: typer.Typer) -> None:
    verb(app, drains=True)(run)


async def run(
    call: Call,
    plan: PlanArgument,
    tasks: TasksOption = None,
    input: InputOption = None,
    execution_id: ExecutionIdOption = None,
    concurrency: ConcurrencyOption = 10,
    start_at: StartAtOption = None,
    delay: DelayOption = None,
    deadline: DeadlineOption = None,
    execution_timeout: ExecutionTimeoutOption = None,
    checkpoint_interval: CheckpointIntervalOption = None,
    checkpoint_every: CheckpointEveryOption = None,
    preset: PresetOption = None,
) -> Exit:
    """Run a plan: show how it goes, its result and its timeline, and verify its history.

    Server, executor and worker live as long as this command; with --server only the executor and the worker do.
    """
    from esexec.local import local

    tasks = needed(tasks, call.tasks)
    what, found, given = Plan.from_file(plan), load_tasks(tasks), read_input(input)
    check_tasks(what, found)
    say_warnings(call, what.lint(found.values()))
    settings = {
        "execution_timeout": execution_timeout,
        "checkpoint_interval": checkpoint_interval,
        "checkpoint_every": checkpoint_every,
        "preset": preset,
    }
    options = time_options(start_at, deadline, delay=delay, **settings)
    strategies = collect_strategies(tasks).values()
    slots = dict.fromkeys(queues_of(what, found) | {one.queue for one in strategies if one.queue}, concurrency)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(call.reach())
        opened = local(
            tasks=found.values(),
            strategies=strategies,
            resources=collect_resources(tasks).values(),
            queues=slots,
            namespace=call.namespace,
            url=server.url,
            actor=call.actor_at(server),
            **server.auth,
        )
        client = await stack.enter_async_context(opened)
        handle = await started(client.start(what, given, execution_id=execution_id, **options), plan)
        try:
            return await _see_through(call, client, handle.id)
        except asyncio.CancelledError:
            call.note(f"not ended; to go on with it: {_again(call, plan, tasks, input, settings, handle.id)}")
            raise


def _again(
    call: Call, plan: Path, tasks: list[str], input: str | None, settings: dict[str, str | None], execution_id: str
) -> str:
    """The same start once more: with the same content, else it would be a conflict. Times are no part of that."""
    words = ["run", str(plan)]
    for place in tasks:
        words += ["--tasks", place]
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", value] if value is not None else []
    given = f" --input {input if input.startswith('@') else '…'}" if input else ""
    return f"{call.esexec} {shlex.join(words)}{given} --execution-id {execution_id}"


async def _see_through(call: Call, client: Client, execution_id: str) -> Exit:
    call.say(f"execution {execution_id}")
    result = await follow_to_end(call, client, execution_id)
    report = await client.verify(execution_id)
    if call.json:
        call.document({**fields_of(result), "verification": report})
    else:
        from esexec.cli.render import story, verified
        from esexec.cli.terminal import show, terminal, text
        from projections.timeline import timeline

        entries = timeline(await client.history(execution_id))
        show(terminal(), "", text("timeline", "bold"), story(entries), "", verified(report))
    return exit_of_result(result) if report.ok else Exit.CORRUPT
