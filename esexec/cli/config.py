"""`esexec config show`: where esexec connects and who it is there, and who said so. What the namespace holds is `configure`."""

import os
from typing import Annotated

import typer

from esexec.cli.call import Call
from esexec.cli.verb import verb
from esexec.configuration import KEYS, mistaken

config = typer.Typer(
    name="config",
    help="See where esexec connects and who it is there. (Retries, timeouts and the like are the namespace's: esexec configure.)",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    verb(config, name="show")(show_config)
    app.add_typer(config)


async def show_config(
    call: Call,
    origin: Annotated[bool, typer.Option("--origin", help="Also who says so: a variable, a line of a file.")] = False,
) -> None:
    """Show every setting and its value: arguments, ESEXEC_*, the nats program's variables, the project's file, contexts."""
    settings = call.configuration.settings
    for variable, meant in mistaken(os.environ):
        call.note(f"note [unknown_variable]: ${variable} is no setting; did you mean ${meant}?")
    if call.json:
        shown = {one.key: [*one.value] if one.key == "tasks" else one.shown for one in settings.values()}
        call.document([{"key": one.key, "value": shown[one.key], "origin": one.origin} for one in settings.values()])
        return
    from esexec.cli.terminal import columns, show, terminal, text

    rows = []
    for key, one in settings.items():
        value = one.shown
        if key == "server" and call.server is None:
            value = f"the embedded one on {call.store}"
            one = settings["store"] if one.value is not None else one
        said = text("–" if value is None else value, "bright_black" if value is None else "")
        where = one.origin if value is not None else f"({KEYS[key].variable})"
        rows.append((text(key), said, text(where, "bright_black")) if origin else (text(key), said))
    show(terminal(), columns(*rows))
