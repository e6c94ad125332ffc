"""The terminal: how wide, how lively, and how anything gets there. Text is never markup, and always `clean`."""

import os
import sys
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from esexec.cli.text import clean

LIVE_COLUMNS: Final = 40
"""Below this many columns nothing is redrawn; there are plain lines."""
WIDE_COLUMNS: Final = 110
"""Below this many columns tables leave out what can be done without."""
_UNBOUNDED: Final = 10_000


def terminal() -> Console:
    """The console on stdout. Where nobody looks at it (a pipe, a file) lines are as long as they are."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED
    return console


def is_live(console: Console) -> bool:
    """Whether a picture may be redrawn in place."""
    plain = "NO_COLOR" in os.environ or console.is_dumb_terminal or console.width < LIVE_COLUMNS
    return console.is_terminal and not plain


def show(console: Console, *content: RenderableType) -> None:
    """Print; without the spaces that fill up tables where nobody sees them."""
    if console.is_terminal:
        for part in content:
            console.print(part)
        return
    with console.capture() as captured:
        for part in content:
            console.print(part)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    sys.stdout.flush()


def text(words: Any, style: str = "") -> Text:
    """Words from anywhere, as they can be shown."""
    return Text(clean(str(words)), style, overflow="fold")


def cut(words: Any, style: str = "") -> Text:
    """Words in the last column of a table that end where the line does."""
    return Text(clean(str(words)), style, no_wrap=True, overflow="ellipsis")


def columns(*rows: tuple[Text, ...], wrap_last: bool = True) -> Table:
    """Rows under each other, two spaces between columns; only the last may be wrapped, or is cut."""
    table = Table.grid(padding=(0, 2, 0, 0))
    count = max((len(row) for row in rows), default=0)
    for number in range(count):
        is_last = number == count - 1
        table.add_column(no_wrap=not (is_last and wrap_last), overflow="fold" if is_last and wrap_last else "ellipsis")
    for row in rows:
        table.add_row(*row)
    return table
