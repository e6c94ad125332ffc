"""`python -m examples.logistics`: runs the plan on an embedded server, shows how it goes, and checks the history.

Server, executor and worker live as long as this program; what they wrote stays in the store. Exit code 1 if it failed.
"""

import argparse
import asyncio
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

import esexec
from examples.logistics import tasks
from examples.logistics.progress import Progress, describe

HERE: Final = Path(__file__).parent
console: Final = Console(highlight=False)


async def main(store: Path) -> int:
    """Run the plan once on `store`; the exit code."""
    plan = esexec.Plan.from_file(HERE / "plan.yaml")
    async with esexec.local(tasks=tasks, store=store) as client:
        handle = await client.start(plan, input=input_for(store))
        console.print(f"[bold]{plan.name}[/] [bright_black]{handle.id}")
        await follow(client, handle.id, plan)
        result = await handle.wait(wait_timeout=None)
        show_result(result)
        await show_timeline(client, handle.id)
        report = await client.verify(handle.id)
        console.print("[green]history verified" if report.ok else "[red]history is not intact")
    return 0 if result.status == "completed" and report.ok else 1


def input_for(store: Path) -> dict[str, Any]:
    """`input.json`, with this package's CSV and everything that is written below `store`."""
    given: dict[str, Any] = json.loads((HERE / "input.json").read_text(encoding="utf-8"))
    written = {key: str(store / "logistics" / Path(given[key]).name) for key in ("store", "report")}
    return {**given, **written, "csv": str(HERE / "shipments.csv")}


async def follow(client: esexec.Client, execution: str, plan: esexec.Plan) -> None:
    """Show the steps until the execution has ended: a live table on a terminal, else a line for each event."""
    progress = Progress(plan)
    live = Live(progress, console=console, refresh_per_second=12) if console.is_terminal else nullcontext()
    with live:
        async for update in client.monitor(execution):
            for event in update.events:
                progress.apply(event)
                if not console.is_terminal and (words := describe(event)):
                    console.print(f"{update.progress.percentage:>4.0f} %  {words}", markup=False, soft_wrap=True)


def show_result(result: esexec.ExecutionResult) -> None:
    """What came of it: the report's figures, or the error."""
    console.print()
    if result.status != "completed":
        console.print(f"[red]{result.status}[/] {result.error}")
        return
    figures: dict[str, Any] = next(step.output for step in result.results if step.step == "report")
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in figures.items():
        shown = f"{value:,}" if isinstance(value, int | float) else str(value)
        table.add_row(Text(name, "bright_black"), Text(shown, overflow="fold"))
    console.print(table)


async def show_timeline(client: esexec.Client, execution: str) -> None:
    """The history in words, each line with its time since the first."""
    history = await client.history(execution)
    console.print("\n[bold]timeline")
    for commit in history:
        offset = (commit.time - history[0].time).total_seconds()
        for event in commit.events:
            if words := describe(event):
                console.print(Text.assemble((f"{offset:8.3f} s  ", "bright_black"), words), soft_wrap=True)
    console.print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.logistics", description="Run the logistics example.")
    parser.add_argument("--store", type=Path, default=Path(".esexec"), help="where the server and the tasks keep their files")
    try:
        sys.exit(asyncio.run(main(parser.parse_args().store)))
    except KeyboardInterrupt:
        sys.exit(130)
