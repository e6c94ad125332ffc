"""Text for a terminal. What comes from anywhere is made safe: nothing in it moves the cursor, changes colours or reverses its
direction.
"""

_SURROGATES_FROM = 0x10000


def clean(text: str) -> str:
    """`text` on one line; whatever cannot be printed stands there as JSON would escape it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else _escaped(char) for char in text)


def clean_lines(text: str) -> str:
    """The same for text of several lines, which stay so."""
    return text if text.isprintable() else "\n".join(map(clean, text.split("\n")))


def counted(count: int, one: str, many: str = "") -> str:
    """`1 step`, `2 steps`; `many` where that is more than an s behind `one`."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def _escaped(char: str) -> str:
    if ord(char) < _SURROGATES_FROM:
        return f"\\u{ord(char):04x}"
    pair = char.encode("utf-16-be")
    return f"\\u{pair[:2].hex()}\\u{pair[2:].hex()}"
