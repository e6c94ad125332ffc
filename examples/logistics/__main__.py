"""`python -m examples.logistics`: runs the plan on an embedded server, shows how it goes, and checks the history.

Server, executor and worker live as long as this program; what they wrote stays in the store. `--fail-at-the-end`: the last step
fails and everything is undone. Exit code 1 if it came out otherwise than it should.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

import esexec
from esexec.cli.progress import follow
from esexec.cli.render import outcome, story, verified
from esexec.cli.terminal import show, terminal, text
from examples.logistics import database, tasks
from projections.timeline import timeline

HERE: Final = Path(__file__).parent


async def main(input: dict[str, Any], store: Path, *, fails: bool = False) -> int:
    """Run the plan once on `store`; the exit code. `fails`: the plan whose last step fails."""
    console = terminal()
    plan = esexec.Plan.from_file(HERE / ("plan-fails.yaml" if fails else "plan.yaml"))
    before = _rows(Path(input["store"]))
    async with esexec.local(tasks=tasks, store=store) as client:
        handle = await client.start(plan, input=input)
        show(console, text(f"{plan.name}, execution {handle.id}", "bold"))
        await follow(handle.monitor(), console)

        result = await handle.wait(wait_timeout=None)
        show(console, "", outcome(result))

        history = await client.history(handle.id)
        show(console, "", text("timeline", "bold"), story(timeline(history)))

        report = await client.verify(handle.id)
        show(console, "", verified(report))
    if fails:
        after = _rows(Path(input["store"]))
        show(console, "", f"rows before: {before}", f"rows after:  {after}")
        return 0 if result.status == "rolled_back" and after == before and report.ok else 1
    return 0 if result.ok and report.ok else 1


def _rows(store: Path) -> str:
    """What the database holds, in words."""
    found = {table: count for table, count in database.counts(store).items() if count}
    return ", ".join(f"{count} in {table}" for table, count in found.items()) or "none"


def read(input_file: Path, store: Path) -> dict[str, Any]:
    """The input; the shipped CSV is found from anywhere, and what is written goes below `store`. Exits if it cannot be read."""
    try:
        given: dict[str, Any] = json.loads(input_file.read_text(encoding="utf-8"))
        written = {key: str(store / "logistics" / Path(given[key]).name) for key in ("store", "report")}
        csv = Path(given["csv"])
    except KeyError as error:
        sys.exit(f"{input_file}: {error} is missing")
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"{input_file}: {error}")
    shipped = HERE / csv.name
    return {**given, **written, "csv": str(shipped if shipped.is_file() and not csv.exists() else csv)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.logistics", description="Run the logistics example.")
    parser.add_argument("--store", type=Path, default=Path(".esexec"), help="where the server and the tasks keep their files")
    parser.add_argument("--input", type=Path, default=HERE / "input.json", help="the input, JSON")
    parser.add_argument("--fail-at-the-end", action="store_true", help="run the plan whose last step fails, and undo it")
    options = parser.parse_args()
    try:
        given = read(options.input, options.store)
        sys.exit(asyncio.run(main(given, options.store, fails=options.fail_at_the_end)))
    except esexec.EsexecError as error:
        sys.exit(f"error {error}")
    except KeyboardInterrupt:
        print("interrupted; the execution goes on with the next run", file=sys.stderr)
        sys.exit(130)
