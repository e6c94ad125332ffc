"""`esexec dlq ls | show | redrive | rm`: what could not be decided, and putting it back.

Everything in a letter comes from who knows whom: it reaches the terminal only as `terminal.text` or `clean` make it.
"""

import base64
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from esexec.cli.call import Call
from esexec.cli.exits import Exit
from esexec.cli.verb import verb
from esexec.client import Client
from esexec.client.dead_letters import DeadLetter, Redriven
from esexec.domain.errors import ValidationError

if TYPE_CHECKING:
    from rich.console import RenderableType

dlq = typer.Typer(name="dlq", help="Dead letters: look at what could not be decided, and put it back.", no_args_is_help=True)

LetterArgument = Annotated[int, typer.Argument(metavar="LETTER", help="Its number, as ls shows it.", show_default=False)]
LettersArgument = Annotated[list[int], typer.Argument(metavar="LETTER...", help="Their numbers.", show_default=False)]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="CODE", help="Only those with this reason.")]
ExecutionOption = Annotated[
    str | None, typer.Option("--execution", metavar="ID", help="Only of this execution, or of what executions share.")
]

_BODY_BYTES = 64 * 1024
_TEXT_CHARS = 4_000
_ROW_BYTES = 32
_LOOKS = {"accepted": "green", "done": "green", "duplicate": "green", "waiting": "yellow", "superseded": "yellow"}


def register(app: typer.Typer) -> None:
    for body in (ls, show, redrive, rm):
        verb(dlq)(body)
    app.add_typer(dlq)


async def ls(
    call: Call,
    reason: ReasonOption = None,
    execution: ExecutionOption = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1_000, help="So many; the rest by the cursor.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", metavar="CURSOR", help="What follows upon an earlier answer.")] = None,
) -> None:
    """List dead letters, the oldest first."""
    async with call.client() as (client, _):
        page = await client.dead_letters.list(reason=reason, execution_id=execution, limit=limit, cursor=cursor)
    if call.json:
        call.document({"items": [_told(one, whole=False) for one in page], "cursor": page.cursor})
        return
    from esexec.cli.terminal import columns, terminal, text
    from esexec.cli.terminal import show as print_

    if not page.items:
        print_(terminal(), text("no dead letters"))
        return
    print_(terminal(), columns(*(_row(one) for one in page)))
    if page.cursor is not None:
        print_(terminal(), text(f"more with --cursor {page.cursor}", "bright_black"))


def _row(letter: DeadLetter) -> tuple[Any, ...]:
    from esexec.cli.terminal import text

    return (
        text(str(letter.id)),
        text(f"{letter.time.astimezone():%Y-%m-%d %H:%M:%S}", "bright_black"),
        text(letter.execution_id),
        text(letter.verb),
        text(letter.reason, "red"),
        text(letter.message[:200]),
    )


async def show(call: Call, letter: LetterArgument) -> None:
    """Show a dead letter: why it is there, where it came from, its headers, and what it says."""
    async with call.client() as (client, _):
        found = await client.dead_letters.get(letter)
    if call.json:
        call.document(_told(found, whole=True))
        return
    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal

    print_(terminal(), _picture(found))


def _told(letter: DeadLetter, *, whole: bool) -> dict[str, Any]:
    """For programs. The body as far as it can be read: `content` as JSON, else as `text`, else as `base64`."""
    told: dict[str, Any] = {
        name: getattr(letter, name)
        for name in ("id", "time", "reason", "message", "execution_id", "verb", "subject", "command_id", "hint", "whole_bytes")
    }
    told |= {"bytes": len(letter.data)}
    return told | {"headers": letter.headers} | _body(letter.data) if whole else told


def _body(data: bytes) -> dict[str, Any]:
    try:
        return {"content": msgspec.json.decode(data)}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _picture(letter: DeadLetter) -> "RenderableType":
    from rich.console import Group

    from esexec.cli.terminal import columns, text

    cut = f", of {letter.whole_bytes:,} that it had" if letter.whole_bytes is not None else ""
    facts = {
        "letter": str(letter.id),
        "buried": f"{letter.time.astimezone():%Y-%m-%d %H:%M:%S}",
        "reason": f"{letter.reason}: {letter.message}" if letter.message else letter.reason,
        "came on": letter.subject or "not known",
        "command": letter.command_id,
        "body": f"{len(letter.data):,} bytes{cut}",
        "hint": letter.hint,
    }
    rows = [(text(name, "bright_black"), text(fact)) for name, fact in facts.items() if fact]
    others = {name: value for name, value in letter.headers.items() if not name.startswith("Esexec-")}
    rows += [(text(f"header {name}", "bright_black"), text(value)) for name, value in others.items()]
    return Group(columns(*rows), "", *(text(line) for line in _readable(letter.data)))


def _readable(data: bytes) -> list[str]:
    """The body in lines: JSON set out, else text, else bytes; its beginning, if it is long."""
    if not data:
        return ["(empty)"]
    try:
        lines = msgspec.json.format(msgspec.json.encode(msgspec.json.decode(data[:_BODY_BYTES])), indent=2).decode().splitlines()
        return lines[:200] + ([f"… {len(lines) - 200} more lines; --json has all"] if len(lines) > 200 else [])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    said = data.decode("utf-8", "backslashreplace")
    more = [f"… {len(data):,} bytes in all; --json has them"] if len(said) > _TEXT_CHARS else []
    if sum(not char.isprintable() and not char.isspace() for char in said[:_TEXT_CHARS]) * 4 < min(len(said), _TEXT_CHARS):
        return said[:_TEXT_CHARS].splitlines() + more
    rows = [data[start : start + _ROW_BYTES].hex(" ") for start in range(0, min(len(data), 16 * _ROW_BYTES), _ROW_BYTES)]
    return rows + ([f"… {len(data):,} bytes in all; --json has them"] if len(data) > 16 * _ROW_BYTES else [])


async def redrive(
    call: Call,
    letters: Annotated[
        list[int] | None, typer.Argument(metavar="[LETTER...]", help="Their numbers; or --all, --reason, --execution.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All there are now.")] = False,
    reason: ReasonOption = None,
    execution: ExecutionOption = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete each letter once it is stored where it came from.")] = False,
) -> Exit:
    """Put dead letters back to where they came from, as what they were, and tell what became of each.

    A command keeps its id, so it is carried out once, however often it is put back. Exit 1 if one was refused, buried or left.
    """
    if bool(letters) == (all_ or reason is not None or execution is not None):
        hint = "esexec dlq redrive --help"
        raise ValidationError("say which letters, or --all, --reason or --execution", code="usage", hint=hint)
    code = Exit.OK
    async with call.client(decides=True) as (client, _):
        async for one in _redriven(client, letters, reason, execution, delete):
            code = Exit.FAILED if one.outcome in ("refused", "buried", "left") else code
            if call.json:
                call.line(one)
            else:
                _tell(one)
    return code


async def _redriven(client: Client, letters: list[int] | None, reason: str | None, execution: str | None, delete: bool) -> Any:
    if letters:
        for letter in letters:
            yield await client.dead_letters.redrive(letter, delete=delete)
        return
    async for one in client.dead_letters.redrive_all(reason=reason, execution_id=execution, delete=delete):
        yield one


def _tell(one: Redriven) -> None:
    from rich.text import Text

    from esexec.cli.terminal import show as print_
    from esexec.cli.terminal import terminal, text

    why = f": [{one.error.code}] {one.error.message}" if one.error is not None else ""
    words = f"buried again as {one.buried_as}" if one.outcome == "buried" else one.outcome
    gone = " (letter deleted)" if one.deleted else ""
    outcome = text(words, _LOOKS.get(one.outcome, "red"))
    print_(terminal(), Text.assemble(text(f"{one.id} {one.execution_id} {one.verb}: "), outcome, text(f"{why}{gone}")))


async def rm(call: Call, letters: LettersArgument) -> None:
    """Delete dead letters, for good."""
    async with call.client() as (client, _):
        for letter in letters:
            await client.dead_letters.delete(letter)
    if call.json:
        call.document({"deleted": letters})
    call.say("deleted")
