"""A history as it was: at a version, or at a time. Pure.

The last commit is cut where it must be. Its commands stay with it: who gave them is true of what is left as well.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from esexec.domain.commit import Commit


def as_of(commits: Iterable[Commit], *, version: int | None = None, at: datetime | None = None) -> Iterator[Commit]:
    """The commits up to the event of this version, and those that were stored no later than `at` (by the commits' own times).

    None: however far it goes. Nothing, if the history began later.
    """
    for commit in commits:
        if (at is not None and commit.time > at) or (version is not None and commit.version > version):
            return
        if version is not None and commit.version + len(commit.events) - 1 > version:
            yield msgspec.structs.replace(commit, events=commit.events[: version - commit.version + 1])
            return
        yield commit
