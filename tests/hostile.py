"""Messages that nobody should send: every example of the documents, spoiled by chance. The same seed gives the same messages."""

import json
import random
from collections.abc import Iterator
from typing import Any

from tests.docs.pages import ROOT, blocks

_MARK = "\ufdd0spoiled\ufdd0"

VALUES: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "zero": b"0",
    "minus one": b"-1",
    "minus zero": b"-0.0",
    "largest int": b"9223372036854775807",
    "beyond int": b"9223372036854775808",
    "beyond uint": b"18446744073709551616",
    "30 digits": b"9" * 30,
    "5000 digits": b"9" * 5_000,
    "huge": b"1e308",
    "infinite": b"1e999",
    "swelling": b"1e15",
    "tiny": b"5e-324",
    "nan": b"NaN",
    "infinity": b"-Infinity",
    "empty text": b'""',
    "nul": b'"\\u0000"',
    "crlf": b'"a\\r\\nNats-Rollup: all"',
    "rtl": '"\u202etxt.exe"'.encode(),
    "escape": b'"\\u001b[2J"',
    "bad utf-8": b'"\xff\xfe"',
    "surrogate": b'"\\ud800"',
    "nfd": '"e\u0301"'.encode(),
    "wildcard": b'">"',
    "star": b'"*"',
    "dots": b'"a.b.c"',
    "ours": b'"_settings"',
    "65 letters": b'"' + b"x" * 65 + b'"',
    "5 kB": b'"' + b"x" * 5_000 + b'"',
    "100 kB": b'"' + b"x" * 100_000 + b'"',
    "path": b'"../../../etc/passwd"',
    "reference": b'"${steps.a.output.b[0]}"',
    "half reference": b'"${steps."',
    "nested reference": b'"${input.${input.a}}"',
    "last moment": b'"9999-12-31T23:59:59-14:00"',
    "first moment": b'"0001-01-01T00:00:00+14:00"',
    "leap second": b'"2016-12-31T23:59:60Z"',
    "naive": b'"2024-01-01T00:00:00"',
    "list": b"[]",
    "object": b"{}",
    "mixed": b'[1,"a",null,{"b":[]}]',
    "deep": b"[" * 101 + b"]" * 101,
    "very deep": b"[" * 100_000 + b"]" * 100_000,
    "twice": b'{"id":1,"id":2}',
    "odd name": b'{"a\\r\\n\\u0000b":1}',
    "many": b"[" + b"0," * 20_000 + b"0]",
    "true as text": b'"true"',
}
"""What stands in place of a value."""


def examples(page: str) -> dict[str, list[Any]]:
    """The JSON examples of a page of the reference, by their titles."""
    found: dict[str, list[Any]] = {}
    for block in blocks(ROOT / "docs/reference" / page):
        if block.language == "json" and block.title is not None:
            found.setdefault(block.title, []).append(json.loads(block.text))
    return found


def spoiled(example: Any, chance: random.Random) -> bytes:
    """The example with something wrong: mostly one value replaced, left out or added; sometimes the bytes themselves."""
    kind = chance.random()
    if kind < 0.1:
        return _of_bytes(json.dumps(example).encode(), chance)
    if kind < 0.12:
        return chance.randbytes(chance.randrange(2_000))
    places = list(_places(example, ()))
    text, value = example, b"null"
    for _ in range(1 if kind < 0.8 else 2):
        place = chance.choice(places)
        text = _replaced(text, place, chance)
        value = chance.choice(list(VALUES.values()))
    return json.dumps(text, ensure_ascii=False).encode().replace(json.dumps(_MARK, ensure_ascii=False).encode(), value)


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from _places(one, (*path, key))


def _replaced(value: Any, path: tuple[Any, ...], chance: random.Random) -> Any:
    if not path:
        return {**value, chance.choice(["extra", "id", "plan", "queue"]): _MARK} if isinstance(value, dict) else _MARK
    key, *rest = path
    try:
        copied = value.copy()
        if rest:
            copied[key] = _replaced(value[key], tuple(rest), chance)
        elif chance.random() < 0.15:
            del copied[key]
        else:
            copied[key] = _MARK
    except (AttributeError, KeyError, IndexError, TypeError):
        return value  # what stood there was replaced before
    return copied


def _of_bytes(data: bytes, chance: random.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(spoilt))
        match chance.randrange(4):
            case 0:
                spoilt[at] = chance.randrange(256)
            case 1:
                del spoilt[at:]
            case 2:
                spoilt[at:at] = chance.randbytes(3)
            case _:
                spoilt[at:at] = spoilt[at : at + 20]
        if not spoilt:
            break
    return bytes(spoilt)
