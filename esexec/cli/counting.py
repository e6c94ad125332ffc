"""A bar that tells how far a long verb is: on stderr, and only where somebody looks at it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from esexec.cli.terminal import is_live


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """While the block lasts; it is given what counts. `total` may grow meanwhile."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if not is_live(console):
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
