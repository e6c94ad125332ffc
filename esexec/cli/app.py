"""The verbs, put together; and the outermost layer, that ends every call with an exit code."""

import os
import sys
from types import ModuleType
from typing import Annotated, Any, Final, Never

import typer
from typer.models import CommandInfo, TyperInfo

from esexec.cli import (
    alerts,
    analyze,
    checkpoint,
    config,
    configure,
    control,
    dlq,
    doctor,
    events,
    histories,
    listing,
    lists,
    look,
    plan,
    plans,
    projection,
    protocol,
    roles,
    run,
    start,
    stats,
    strategies,
    tasks,
    top,
)
from esexec.cli.exits import MEANING, Exit, say_error
from esexec.cli.verb import ActorOption, ContextOption, JsonOption, NamespaceOption, ServerOption, StoreOption, VerboseOption

_EPILOG = "\b\nExit codes\n" + "\n".join(f"{code:>5}  {meaning}" for code, meaning in MEANING.items())

app = typer.Typer(
    name="esexec",
    help="esexec runs plans so that nothing is lost and everything can be told afterwards.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_PANELS: Final[dict[str, tuple[ModuleType, ...]]] = {
    "Run": (run, start, control, checkpoint),
    "Look": (look, histories, analyze, events, lists, stats, top),
    "Plans and tasks": (listing, plan, plans, tasks, strategies),
    "Processes": (roles,),
    "Operate": (doctor, config, configure, alerts, dlq, projection, protocol),
}
"""How the verbs stand in the help."""
for _panel, _modules in _PANELS.items():
    for _verbs in _modules:
        _verbs.register(app)
    _registered: list[CommandInfo | TyperInfo] = [*app.registered_commands, *app.registered_groups]
    for _one in _registered:
        if not isinstance(_one.rich_help_panel, str):
            _one.rich_help_panel = _panel


def _version(wanted: bool) -> None:
    if wanted:
        from esexec import __version__

        print(f"esexec {__version__}")
        raise typer.Exit


@app.callback()
def _shared(
    ctx: typer.Context,
    server: ServerOption = None,
    context: ContextOption = None,
    namespace: NamespaceOption = None,
    store: StoreOption = None,
    actor: ActorOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    ctx.obj = {
        "server": server,
        "context": context,
        "namespace": namespace,
        "store": store,
        "actor": actor,
        "json": json,
        "verbose": verbose,
    }


def main() -> Never:
    """See `esexec.cli.main`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter must not end the program
    try:
        code = app(prog_name="esexec", standalone_mode=False) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output went away (`| head`): the end of it is no error, but nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except SystemExit as ended:
        # The same, noticed by a library first, which calls it a failure.
        code = 0 if isinstance(ended.__context__, BrokenPipeError) else ended.code
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except Exception as error:
        code = _usage(error)
    sys.exit(code)


def _usage(error: Any) -> Exit:
    """typer's own refusals, of wrong options and arguments, in our words."""
    if not hasattr(error, "format_message"):
        raise error
    context: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        if text := error.format_message().strip():  # empty: it was printed while the error was made
            print(text)
        return Exit.USAGE
    hint = f"{context.command_path} --help" if context is not None else "esexec --help"
    say_error("usage", error.format_message(), hint, Exit.USAGE, as_json="--json" in sys.argv)
    return Exit.USAGE
