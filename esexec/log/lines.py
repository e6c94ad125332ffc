"""A history as lines of JSON: a file that says all that the log says, so that it can be sent to somebody and looked at there.

    {"execution_id":"e1","n":1,"position":17,"sha256":"…","commit":{"v":1,"execution_id":"e1",…}}

One line per commit. What stands behind `commit` are the stored bytes, one for one; where these are no JSON on one line, they
stand in base64 behind `data` instead. `sha256` is theirs: whoever formats such a file anew has changed it, and is told.
"""

from collections.abc import Iterable

import msgspec

from esexec.domain.commit import hash_of
from esexec.domain.errors import CorruptHistory, ValidationError
from esexec.log.port import Stored


class Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One commit of `execution_id`, with its number and its position in the log that it is from."""

    execution_id: str
    n: int
    position: int
    sha256: str
    commit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: bytes | msgspec.UnsetType = msgspec.UNSET

    @property
    def stored(self) -> Stored:
        """The commit as it stood in the log."""
        data = self.data if isinstance(self.data, bytes) else bytes(self.commit or b"")
        return Stored(self.n, self.position, data)


_decode = msgspec.json.Decoder(Line).decode


def line_of(execution_id: str, stored: Stored) -> bytes:
    """A commit as a line, without its end."""
    line = Line(execution_id=execution_id, n=stored.n, position=stored.position, sha256=hash_of(stored.data))
    if _is_a_line(stored.data):
        line.commit = msgspec.Raw(stored.data)
    else:
        line.data = stored.data
    return msgspec.json.encode(line)


def _is_a_line(data: bytes) -> bool:
    """Whether these bytes come back as they are, from the middle of a line."""
    try:
        return b"\n" not in data and b"\r" not in data and bytes(msgspec.json.decode(data, type=msgspec.Raw)) == data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def histories_in(lines: Iterable[bytes]) -> dict[str, list[Stored]]:
    """The histories in a file, each in the order of its lines; empty lines mean nothing.

    Raises `ValidationError` (`bad_history_file`) for what is no such line, `CorruptHistory` for one that was changed.
    """
    found: dict[str, list[Stored]] = {}
    for number, text in enumerate(lines, 1):
        if text.strip():
            line = _line(text, number)
            found.setdefault(line.execution_id, []).append(line.stored)
    return found


def _line(text: bytes, number: int) -> Line:
    hint = "a file as `esexec history ID --export FILE` writes it"
    try:
        line = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationError(f"line {number} is no commit: {error}", code="bad_history_file", hint=hint) from None
    if (line.commit is msgspec.UNSET) == (line.data is msgspec.UNSET):
        raise ValidationError(f"line {number} has neither commit nor data, or both", code="bad_history_file", hint=hint)
    if hash_of(line.stored.data) != line.sha256:
        raise CorruptHistory(
            f"line {number}: commit {line.n} of {line.execution_id} is not what was exported", hint="was the file formatted anew?"
        )
    return line
