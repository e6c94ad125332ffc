"""`esexec protocol export [DIR]`: what travels on which subject, as JSON Schemas and as an AsyncAPI document."""

from pathlib import Path
from typing import Annotated

import typer

from esexec.cli.call import Call
from esexec.cli.verb import verb
from esexec.domain.errors import ValidationError

protocol = typer.Typer(name="protocol", help="The protocol, for programs in any language.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    verb(protocol)(export)
    app.add_typer(protocol)


async def export(
    call: Call,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to; it is made if need be.", show_default=True)
    ] = Path(),
) -> None:
    """Write esexec.schema.json (JSON Schema 2020-12: all messages) and asyncapi.json (AsyncAPI 3: all subjects)."""
    from esexec import __version__
    from esexec import protocol as documents

    try:
        paths = documents.export(directory, __version__)
    except OSError as error:
        raise ValidationError(
            f"{directory} cannot be written to: {error.strerror}", code="bad_file", hint="name a directory"
        ) from error
    if call.json:
        call.document([str(path) for path in paths])
        return
    for path in paths:
        call.say(str(path))
