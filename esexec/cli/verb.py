"""What all verbs share: the options that say where and how, the loop, errors and exit codes.

A verb is an async function that takes a `Call` and its own options, and returns an exit code or None (0). The shared options
may stand before the verb or behind it.
"""

import inspect
import logging
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from esexec.cli.call import Call
from esexec.cli.completing import context_names, namespace_names
from esexec.cli.exits import Exit, tell
from esexec.cli.signals import run
from esexec.cli.text import clean_lines
from esexec.configuration import FILE, configuration
from esexec.domain.errors import EsexecError, Unavailable

P = ParamSpec("P")
Body = Callable[Concatenate[Call, P], Coroutine[Any, Any, Exit | None]]

_PANEL = "Where and how"

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="NATS server; else what `esexec config show` tells, else the embedded one on the store.",
        rich_help_panel=_PANEL,
    ),
]
ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        autocompletion=context_names,
        help="Context of the nats program: server and credentials.",
        rich_help_panel=_PANEL,
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace", metavar="NAME", autocompletion=namespace_names, help="Namespace; else “default”.", rich_help_panel=_PANEL
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", metavar="DIR", help="Files of the embedded server; else .esexec", rich_help_panel=_PANEL),
]
ActorOption = Annotated[
    str | None,
    typer.Option(
        "--actor",
        metavar="NAME",
        help="Who gives the command, for the history; else $ESEXEC_ACTOR, the NATS user, or you.",
        rich_help_panel=_PANEL,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.", rich_help_panel=_PANEL)]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Say more; errors with their traceback.", rich_help_panel=_PANEL)]

_SHARED: dict[str, tuple[Any, Any]] = {
    "server": (ServerOption, None),
    "context": (ContextOption, None),
    "namespace": (NamespaceOption, None),
    "store": (StoreOption, None),
    "actor": (ActorOption, None),
    "json": (JsonOption, False),
    "verbose": (VerboseOption, False),
}


class _Lines(logging.Handler):
    """Log records as plain lines on whatever stderr is at that moment: a live display takes it over while it draws. They may
    quote anybody."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(clean_lines(self.format(record)), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def verb(
    app: typer.Typer, *, name: str | None = None, interrupted: Exit = Exit.INTERRUPTED, drains: bool = False
) -> Callable[[Body[P]], Body[P]]:
    """Makes a verb of `app`. `drains`: it says so when told to end. `interrupted`: its exit code then."""

    def register(body: Body[P]) -> Body[P]:
        def command(ctx: typer.Context, **given: Any) -> None:
            shared = {name: given.pop(name) for name in _SHARED}
            call = _called(ctx.obj or {}, shared)
            _log(call.verbose)
            told = (lambda: call.note("draining… (once more ends it at once)")) if drains else (lambda: None)
            raise typer.Exit(_ended(call, partial(body, call, **given), told, interrupted))

        hints = get_type_hints(body, include_extras=True)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
            for parameter in list(inspect.signature(body).parameters.values())[1:]
        ]
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [context, *own, *shared_parameters()]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name or body.__name__, help=body.__doc__)(command)
        return body

    return register


def shared_parameters() -> list[inspect.Parameter]:
    """The shared options, as parameters of a function."""
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in _SHARED.items()
    ]


def _called(before: dict[str, Any], behind: dict[str, Any]) -> Call:
    """What stands behind the verb wins over what stands before it."""
    said = {name: behind[name] or before.get(name) for name in _SHARED}
    as_json, verbose = bool(said.pop("json")), bool(said.pop("verbose"))
    try:
        return Call(configuration(said), as_json, verbose)
    except EsexecError as error:
        raise typer.Exit(tell(error, as_json=as_json, verbose=verbose)) from None


def _log(verbose: bool) -> None:
    lines = _Lines()
    lines.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    logging.getLogger("esexec").setLevel(logging.DEBUG if verbose else logging.WARNING)


def _ended(call: Call, body: Callable[[], Coroutine[Any, Any, Exit | None]], told: Callable[[], None], interrupted: Exit) -> Exit:
    async def to_the_end() -> int:
        return await body() or Exit.OK

    try:
        return Exit(run(to_the_end, told=told, interrupted=interrupted))
    except BrokenPipeError:
        raise
    except Exception as error:
        code = tell(error, as_json=call.json, verbose=call.verbose)
        said = call.configuration.settings["server"]
        if isinstance(error, Unavailable) and call.server is not None and said.level >= FILE and not call.json:
            call.note(f"note: that server is named by {said.origin}")
        return code
