"""A dead letter on a terminal: all that is known of it, and nothing of it acts there."""

import io
import json
import logging
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esexec.cli import dlq
from esexec.cli.call import Call
from esexec.cli.exits import tell
from esexec.cli.terminal import show, terminal
from esexec.cli.verb import _Lines
from esexec.client.dead_letters import DeadLetter, Redriven
from esexec.configuration import configuration
from esexec.domain.errors import ErrorInfo, ValidationError

EVIL = "\x1b[2J\x1b]0;title\x07 \u202egnp.exe\u2066 \x00\x9b31m \r\b\u200b\ufeff"
BODIES = {
    "json": json.dumps({"id": "c", "evil": EVIL}, ensure_ascii=False).encode(),
    "text": f"please {EVIL} do".encode(),
    "bytes": bytes(range(256)) * 4,
    "nothing": b"",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "long": b"x" * 1_000_000,
    "many lines": json.dumps(list(range(10_000))).encode(),
}


def letter(data: bytes, evil: str = EVIL) -> DeadLetter:
    return DeadLetter(
        id=7, time=datetime(2026, 1, 1, tzinfo=UTC), reason=evil, message=evil, execution_id=evil, verb=evil, subject=evil,
        data=data, headers={"Esexec-Reason": evil, evil: evil},
    )  # fmt: skip


def shown(picture: Any) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        show(terminal(), picture)
    return out.getvalue()


def is_safe(said: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in said)


def call(*, json: bool) -> Call:
    return Call(configuration({}, environ={}, directory=Path("/nowhere")), json=json, verbose=False)


@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES.keys())
def test_nothing_of_a_letter_acts_on_the_terminal(data: bytes) -> None:
    """No control characters, no change of direction, nothing invisible: in the list, in the picture, as JSON, in what became."""
    from esexec.cli.terminal import columns

    said = shown(columns(dlq._row(letter(data)))) + shown(dlq._picture(letter(data)))
    out = io.StringIO()
    with redirect_stdout(out):
        call(json=True).document(dlq._told(letter(data), whole=True))
        call(json=True).line(dlq._told(letter(data), whole=False))
        error = ErrorInfo(type="internal_error", code=EVIL, message=EVIL)
        dlq._tell(Redriven(id=7, execution_id=EVIL, verb=EVIL, outcome="refused", error=error))
    assert is_safe(said + out.getvalue())
    assert len(said) < 100_000
    assert "\\u202e" in said


def test_json_of_a_letter_has_all_of_it() -> None:
    """What is printed for programs is JSON, and leads back to the very bytes and words."""
    out = io.StringIO()
    with redirect_stdout(out):
        call(json=True).line(dlq._told(letter(BODIES["json"]), whole=True))
    told = json.loads(out.getvalue())
    assert (told["content"], told["reason"], told["command_id"]) == ({"id": "c", "evil": EVIL}, EVIL, "c")
    assert "text" in dlq._told(letter(BODIES["text"]), whole=True)
    assert "base64" in dlq._told(letter(BODIES["bytes"]), whole=True)


@given(st.binary(max_size=200), st.text(max_size=40))
def test_any_letter_can_be_shown(data: bytes, evil: str) -> None:
    """Whatever it holds."""
    assert is_safe(shown(dlq._picture(letter(data, evil))))


@pytest.mark.parametrize("as_json", [True, False])
def test_nothing_of_an_error_or_a_log_line_acts_on_the_terminal(as_json: bool) -> None:
    """Errors, tracebacks and log lines quote what was sent; lines stay lines."""
    err = io.StringIO()
    with redirect_stderr(err):
        try:
            raise ValidationError(EVIL, code=EVIL, hint=EVIL)
        except ValidationError as error:
            tell(error, as_json=as_json, verbose=True)
        _Lines().emit(logging.LogRecord("esexec", logging.WARNING, "", 0, "buried %s\nand %s", (EVIL, EVIL), None))
    with redirect_stdout(err):
        call(json=False).say(f"first {EVIL}\nsecond")
    assert is_safe(err.getvalue())
    assert err.getvalue().splitlines()[-1] == "second"
