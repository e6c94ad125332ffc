"""`esexec alerts ls | set | rm | history`: what somebody wants to be told of, and what was told."""

from typing import Annotated, Any

import msgspec
import typer

from esexec.cli.call import Call
from esexec.cli.lists import WatchOption, read_since, watched
from esexec.cli.verb import verb
from esexec.client import Client
from esexec.domain.alerts import METRICS, Alert
from esexec.domain.errors import NotFound, Unavailable
from esexec.domain.kept_alerts import KeptAlert

alerts = typer.Typer(name="alerts", help="Be told when something takes too long, fails, or is too much.", no_args_is_help=True)

AlertIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The alert's id.", show_default=False)]


def register(app: typer.Typer) -> None:
    for body in (ls, set, rm, history):
        verb(alerts)(body)
    app.add_typer(alerts)


class Shown(msgspec.Struct):
    """What is set, and what is open of it; None: no projections run, so nobody knows."""

    alerts: list[KeptAlert]
    open: list[Alert] | None


# Setting ---------------------------------------------------------------------------------------------------------------


async def set(
    call: Call,
    metric: Annotated[
        str, typer.Argument(metavar="METRIC", help=f"{', '.join(METRICS)}, or what handlers report.", show_default=False)
    ],
    operator: Annotated[str, typer.Argument(metavar="OP", help="gt, gte, lt, lte or eq.", show_default=False)],
    threshold: Annotated[
        str, typer.Argument(metavar="THRESHOLD", help="A number; of execution_duration also 2h.", show_default=False)
    ],
    held: Annotated[str | None, typer.Option("--duration", metavar="DURATION", help="It must hold so long: 30s, 5m.")] = None,
    execution: Annotated[str | None, typer.Option("--execution", metavar="ID", help="Of this execution only.")] = None,
    plan: Annotated[str | None, typer.Option("--plan", metavar="NAME|ID", help="Of the executions of this plan only.")] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="Of this worker, queue or projection only.")
    ] = None,
    each: Annotated[bool, typer.Option("--each", help="Of each execution for itself, not of all together.")] = False,
    window: Annotated[str | None, typer.Option("--window", metavar="DURATION", help="Count so far back; else 5m.")] = None,
    webhook: Annotated[str | None, typer.Option("--webhook", metavar="URL", help="Post each alert there.")] = None,
    alert_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Its id; one of the same id is replaced.")] = None,
) -> None:
    """Set an alert, and print its id: esexec alerts set execution_duration gt 2h"""
    said = {"duration": held, "execution_id": execution, "plan": plan, "source": source, "window": window}
    condition: dict[str, Any] = {"metric": metric, "operator": operator, "threshold": _number(threshold)}
    condition |= {name: value for name, value in said.items() if value is not None} | ({"each_execution": True} if each else {})
    async with call.client(new_store=True, decides=True) as (client, _):
        found = await client.alerts.set(condition, webhook=webhook, id=alert_id)
    if call.json:
        call.document({"alert_id": found})
    call.say(found)


def _number(given: str) -> float | str:
    try:
        return float(given)
    except ValueError:
        return given


async def rm(call: Call, alert_id: AlertIdArgument) -> None:
    """Remove an alert; what is open of it is over."""
    async with call.client(decides=True) as (client, _):
        removed = await client.alerts.remove(alert_id)
    if not removed:
        raise NotFound(f"the namespace has no alert {alert_id[:64]}", code="unknown_alert", hint="esexec alerts ls")
    if call.json:
        call.document({"removed": alert_id})
    call.say("removed")


# Looking ---------------------------------------------------------------------------------------------------------------


async def ls(call: Call, watch: WatchOption = False) -> None:
    """List the alerts that are set, and what is open of each."""
    from esexec.cli.alert_tables import of_set

    async with call.client(asks=True) as (client, _):
        await watched(call, lambda: _looked(call, client), of_set, watch)


async def _looked(call: Call, client: Client) -> Shown:
    kept = await client.alerts.list()
    try:
        page = await client.alerts.history(state="triggered", limit=1_000)
    except Unavailable as error:
        if kept:
            call.note(f"nobody watches: {error.message} ({call.esexec} projections)")
        return Shown(kept, None)
    return Shown(kept, page.items)


async def history(
    call: Call,
    is_open: Annotated[bool, typer.Option("--open", help="Only what holds now.")] = False,
    alert: Annotated[str | None, typer.Option("--alert", metavar="ID", help="Only of this alert.")] = None,
    execution: Annotated[str | None, typer.Option("--execution", metavar="ID", help="Only of this execution.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME|AGE", help="Triggered since then, or so long ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME|AGE", help="Triggered before.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="So many; the rest by the cursor.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", metavar="CURSOR", help="What follows upon an earlier answer.")] = None,
    watch: WatchOption = False,
) -> None:
    """Tell what was triggered, the last first. Needs running projections."""
    said: dict[str, Any] = {
        "alert_id": alert,
        "execution_id": execution,
        "state": "triggered" if is_open else None,
        "cursor": cursor,
    }
    said |= {"since": read_since(since, "--since"), "until": read_since(until, "--until")}
    conditions: dict[str, Any] = {name: value for name, value in said.items() if value is not None} | {"limit": limit}

    from esexec.cli.alert_tables import of_told

    async with call.client(asks=True) as (client, _):
        await watched(call, lambda: client.alerts.history(**conditions), of_told, watch)
