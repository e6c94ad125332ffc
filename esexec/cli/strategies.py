"""`esexec strategies add | rm | ls`: which recovery strategies are asked when a step has failed. Their code is on workers."""

from typing import Annotated

import msgspec
import typer

from esexec.cli.call import Call
from esexec.cli.verb import verb
from esexec.domain.errors import EsexecError, NotFound, ValidationError
from esexec.tasks.recovery import RecoveryStrategy
from esexec.tasks.registry import collect_strategies

strategies = typer.Typer(name="strategies", help="Say what is asked when a step has failed.", no_args_is_help=True)

PlaceArgument = Annotated[
    str,
    typer.Argument(metavar="MODULE[:NAME]", help="The strategy, or all of a module: pkg.mod:name, file.py.", show_default=False),
]
StrategyIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The strategy's id.", show_default=False)]


def register(app: typer.Typer) -> None:
    for body in (add, rm, ls):
        verb(strategies)(body)
    app.add_typer(strategies)


async def add(call: Call, place: PlaceArgument) -> None:
    """Add a recovery strategy to the namespace, and print its id. Workers need its code as well (esexec worker --tasks)."""
    found = _load(place)
    async with call.client(new_store=True, decides=True) as (client, _):
        ids = [await client.strategies.add(strategy) for strategy in found]
    if call.json:
        call.document({"added": ids})
    for strategy_id in ids:
        call.say(strategy_id)


def _load(place: str) -> list[RecoveryStrategy]:
    try:
        found = list(collect_strategies(place).values())
    except EsexecError:
        raise
    except Exception as error:
        message = f"{place} cannot be imported: {type(error).__name__}: {error}"
        raise ValidationError(message, code="tasks_broken", hint="--verbose shows the traceback") from error
    if not found:
        hint = "derive a class from esexec.RecoveryStrategy, or decorate a function with @esexec.recovery"
        raise ValidationError(f"{place} has no recovery strategy", code="strategies_not_found", hint=hint)
    return found


async def rm(call: Call, strategy_id: StrategyIdArgument) -> None:
    """Remove a recovery strategy from the namespace: it is not asked any more."""
    async with call.client(decides=True) as (client, _):
        removed = await client.strategies.remove(strategy_id)
    if not removed:
        hint = "esexec strategies ls"
        raise NotFound(f"the namespace has no recovery strategy {strategy_id[:128]}", code="unknown_strategy", hint=hint)
    if call.json:
        call.document({"removed": strategy_id})
    call.say("removed")


async def ls(call: Call) -> None:
    """List the recovery strategies, in the order in which they are asked."""
    async with call.client() as (client, _):
        found = await client.strategies.list()
    if call.json:
        call.document([msgspec.structs.asdict(one) for one in found])
        return
    if not found:
        call.say("no strategies")
        return
    from esexec.cli.terminal import columns, show, terminal, text
    from projections.timeline import duration

    rows = []
    for one in found:
        asked = "after every failure" if one.before_retries else "after the last retry"
        limit = f"at most {duration(one.timeout_ms)}" if one.timeout_ms else "no timeout"
        where = f"queue {one.queue}" if one.queue else "wherever its code is"
        rows.append((text(one.id), text(f"{where}, {limit}, {asked}"), text(", ".join(one.applicable_errors), "bright_black")))
    show(terminal(), columns(*rows))
