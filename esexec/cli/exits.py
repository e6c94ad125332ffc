"""Exit codes, and how an error is told: one line and a hint on stderr, or one JSON object. Never a traceback, unless asked."""

import sys
import traceback
from enum import IntEnum
from typing import Any

import msgspec

from esexec.cli.text import clean, clean_lines
from esexec.domain.errors import (
    AwaitTimeout,
    CorruptHistory,
    EsexecError,
    NotConfirmed,
    NotFound,
    Refused,
    Unavailable,
    ValidationError,
)

_MESSAGE_CHARS = 2000


class Exit(IntEnum):
    """What a script can tell from the exit code."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNAVAILABLE = 5
    CORRUPT = 6
    FAULT = 70
    INTERRUPTED = 130


MEANING = {
    Exit.OK: "done; what was waited for completed",
    Exit.FAILED: "the execution failed, was cancelled or rolled back; doctor: there is a problem",
    Exit.USAGE: "wrong usage, plan, input, id or tasks",
    Exit.NOT_FOUND: "no such execution, checkpoint, step, plan, strategy, task or dead letter",
    Exit.REFUSED: "refused: conflict, overloaded, not in this state",
    Exit.UNAVAILABLE: "no server, no answer in time, or the wait timed out",
    Exit.CORRUPT: "a history is not intact",
    Exit.FAULT: "a fault of esexec itself",
    Exit.INTERRUPTED: "interrupted",
}

_BY_CODE = {
    "jetstream_error": Exit.UNAVAILABLE,
    "unknown_checkpoint": Exit.NOT_FOUND,
    "unknown_step": Exit.NOT_FOUND,
}
_BY_KIND: tuple[tuple[type[EsexecError], Exit], ...] = (
    (NotFound, Exit.NOT_FOUND),
    (Refused, Exit.REFUSED),
    (ValidationError, Exit.USAGE),
    (Unavailable, Exit.UNAVAILABLE),
    (NotConfirmed, Exit.UNAVAILABLE),
    (AwaitTimeout, Exit.UNAVAILABLE),
    (CorruptHistory, Exit.CORRUPT),
)


def exit_of(error: BaseException) -> Exit:
    """The exit code for an exception that ended a verb."""
    if isinstance(error, EsexecError):
        if error.code in _BY_CODE:
            return _BY_CODE[error.code]
        return next((code for kind, code in _BY_KIND if isinstance(error, kind)), Exit.FAULT)
    return Exit.FAULT


def tell(error: BaseException, *, as_json: bool, verbose: bool) -> Exit:
    """Print an error on stderr; its exit code."""
    code = exit_of(error)
    if isinstance(error, EsexecError):
        name, message, hint = error.code, error.message, error.hint
    else:
        name, message = "fault", f"{type(error).__name__}: {error}"
        hint = "this is a fault of esexec; --verbose shows where"
    if verbose:
        print(clean_lines("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    say_error(name, message, hint, code, as_json=as_json)
    return code


def say_error(name: str, message: str, hint: str | None, code: Exit, *, as_json: bool) -> None:
    """`error [code]: message`, and the hint below; with `as_json` one object."""
    if as_json:
        said: dict[str, Any] = {"code": name, "message": message, "hint": hint, "exit_code": int(code)}
        print(clean(msgspec.json.encode({"error": said}).decode()), file=sys.stderr)
        return
    print(f"error [{clean(name)}]: {clean(message[:_MESSAGE_CHARS])}", file=sys.stderr)
    if hint:
        print(f"hint: {clean(hint)}", file=sys.stderr)
