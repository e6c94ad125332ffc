"""`esexec configure`: the namespace's level of the settings, which every later start takes along."""

import json
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import typer

from esexec.cli.call import Call
from esexec.cli.given import PresetOption
from esexec.cli.verb import verb
from esexec.domain.errors import ValidationError


def register(app: typer.Typer) -> None:
    verb(app)(configure)


async def configure(
    call: Call,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]…",
            help="max_retries=5, timeout=30s, queues.slow.timeout=10m, …; nothing behind = takes it back.",
            show_default=False,
        ),
    ] = None,
    preset: PresetOption = None,
    show: Annotated[bool, typer.Option("--show", help="Print what holds now.")] = False,
) -> None:
    """Set the namespace's settings: for all executions that are started from now on. What is not given stays as it is.

    queues.NAME.KEY=VALUE sets what holds for the attempts on one queue. With nothing behind = a setting is taken back.
    """
    said = read_settings(settings or ())
    if preset is not None:
        said["preset"] = preset
    if not (said or show):
        raise ValidationError("give settings, --preset or --show", code="usage", hint="esexec configure --help")
    async with call.client(new_store=bool(said), decides=bool(said)) as (client, _):
        if said:
            await client.configure(**said)
        config = msgspec.to_builtins(await client.configuration())
    if call.json:
        call.document({"config": config})
    elif show:
        from esexec.cli.render import value
        from esexec.cli.terminal import show as print_
        from esexec.cli.terminal import terminal

        print_(terminal(), value(config or "nothing is configured: the built-in settings hold"))
    else:
        call.say("configured")


def read_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """`KEY=VALUE` → settings; a value that is JSON is that, none is null, anything else is text. Dots lead into objects."""
    said: dict[str, Any] = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found or not key:
            raise ValidationError(
                f"{pair[:80]!r} is no setting", code="usage", hint="KEY=VALUE, such as max_retries=5 or timeout=30s"
            )
        *above, last = key.split(".")
        place: Any = said
        for name in above:
            place = place.setdefault(name, {}) if isinstance(place, dict) else place
        if not isinstance(place, dict) or last in place:
            raise ValidationError(f"{key[:80]} is given twice", code="usage", hint="keep one of the two")
        place[last] = _value(value)
    return said


def _value(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return text
