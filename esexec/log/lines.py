"""A history as lines of JSON: a file that says all that the log says, so that it can be sent to somebody and looked at there.

    {"execution_id":"e1","n":1,"position":17,"sha256":"…","commit":{"v":1,"execution_id":"e1",…}}

One line per commit, and behind them one per object that they refer to (`{"object":"<sha256>","data":"<base64>"}`). What stands
behind `commit` are the stored bytes, one for one; where these are no JSON on one line, they stand in base64 behind `data`
instead. `sha256` is theirs: whoever formats such a file anew has changed it, and is told.
"""

from collections.abc import Iterable

import msgspec

from esexec.domain.commit import hash_of
from esexec.domain.errors import CorruptHistory, ValidationError
from esexec.log import codec
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


class ObjectLine(msgspec.Struct, kw_only=True):
    """An object: its name, which is the SHA-256 of its bytes, and these."""

    object: str
    data: bytes


_decode = msgspec.json.Decoder(Line).decode
_decode_object = msgspec.json.Decoder(ObjectLine).decode
_OBJECT = b'{"object":'


def line_of(execution_id: str, stored: Stored) -> bytes:
    """A commit as a line, without its end."""
    line = Line(execution_id=execution_id, n=stored.n, position=stored.position, sha256=hash_of(stored.data))
    if _is_a_line(stored.data):
        line.commit = msgspec.Raw(stored.data)
    else:
        line.data = stored.data
    return msgspec.json.encode(line)


def line_of_object(data: bytes) -> bytes:
    """An object as a line, without its end."""
    return msgspec.json.encode(ObjectLine(object=hash_of(data), data=data))


def is_object(line: bytes) -> bool:
    """Whether a line holds an object, and no commit."""
    return line.startswith(_OBJECT)


def _is_a_line(data: bytes) -> bool:
    """Whether these bytes come back as they are, from the middle of a line."""
    try:
        return b"\n" not in data and b"\r" not in data and bytes(msgspec.json.decode(data, type=msgspec.Raw)) == data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def histories_in(lines: Iterable[bytes]) -> tuple[dict[str, list[Stored]], dict[str, bytes]]:
    """The histories in a file, each in the order of its lines, and the objects by their names; empty lines mean nothing.

    Raises `ValidationError` (`bad_history_file`) for what is no such line, `CorruptHistory` for one that was changed.
    """
    found: dict[str, list[Stored]] = {}
    objects: dict[str, bytes] = {}
    for number, text in enumerate(lines, 1):
        if is_object(text):
            one = _object(text, number)
            objects[one.object] = one.data
        elif text.strip():
            line = _line(text, number)
            found.setdefault(line.execution_id, []).append(line.stored)
    for history in found.values():
        ref = codec.plan_object_of(history[0].data)
        if ref is not None:
            history[0] = history[0]._replace(plan=objects.get(ref.sha256, b""))
    return found, objects


def _object(text: bytes, number: int) -> ObjectLine:
    hint = "a file as `esexec history ID --export FILE` writes it"
    try:
        line = _decode_object(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationError(f"line {number} is no object: {error}", code="bad_history_file", hint=hint) from None
    if hash_of(line.data) != line.object:
        raise CorruptHistory(f"line {number}: the object is not what was exported", hint="was the file formatted anew?")
    return line


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
