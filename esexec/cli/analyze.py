"""`esexec analyze` and `timeline`: how an execution went in numbers, and where its time went. Also while it runs."""

import typer

from esexec.cli.call import Call
from esexec.cli.given import ExecutionIdArgument
from esexec.cli.verb import verb


def register(app: typer.Typer) -> None:
    for body in (analyze, timeline):
        verb(app)(body)


async def analyze(call: Call, execution_id: ExecutionIdArgument) -> None:
    """Tell how it went in numbers: duration, efficiency, cost, quality, throughput, errors, resources, timeline."""
    async with call.client() as (client, _):
        result = await client.get_or_raise(execution_id, full=True)
    if call.json:
        names = ("execution_id", "name", "plan_id", "status", "metrics", "resource_usage", "timeline")
        call.document({name: getattr(result, name) for name in names})
        return
    from esexec.cli.charts import analysis
    from esexec.cli.terminal import show, terminal

    show(terminal(), analysis(result))


async def timeline(call: Call, execution_id: ExecutionIdArgument) -> None:
    """Draw where its time went: for each attempt, when it waited, for what, and when it ran."""
    async with call.client() as (client, _):
        found = await client.monitor.gantt(execution_id)
    if call.json:
        call.document(found)
        return
    from esexec.cli.charts import chart
    from esexec.cli.terminal import show, terminal

    console = terminal()
    show(console, chart(found, console.width))
