"""An entity that executions share as of its last commit: read from the log, and caught up with what others committed since."""

from typing import NamedTuple

from esexec.domain.commit import hash_of
from esexec.domain.errors import CorruptHistory
from esexec.domain.sharing.fold import fold_shared
from esexec.domain.sharing.state import SharedState
from esexec.log import codec
from esexec.log.port import Log, Stored, load_certain


class Known(NamedTuple):
    """The state, which nobody changes, and the commit that made it; None: it has none."""

    state: SharedState
    last: Stored | None

    def is_last(self, last: Stored | None) -> bool:
        """Whether this is the entity's last commit."""
        return (last.n if last is not None else 0) == self.state.n


async def read_known(log: Log, entity: str) -> Known:
    """As the leader knows it now. Raises `CorruptHistory`, `Unavailable`.

    What seems to be corrupt is read once more: while it is read, what was before a compaction may be let go.
    """
    try:
        return _folded(entity, await load_certain(log, entity))
    except CorruptHistory:
        return _folded(entity, await load_certain(log, entity))


async def caught_up(log: Log, entity: str, known: Known, last: Stored | None) -> Known:
    """With what was committed up to `last`, of which only what is new is read. Where that is not all there any more, all is read.

    `known` is consumed. Raises as `read_known`.
    """
    if known.last is not None and last is not None and last.n > known.last.n:
        try:
            news = [last] if last.n == known.last.n + 1 else await log.load(entity, known.last.n)
            if news and news[-1].n >= last.n:
                return _folded(entity, news, known)
        except CorruptHistory:
            pass  # a compaction has let some of it go; if it was something else, that shows again
    return await read_known(log, entity)


def _folded(entity: str, stored: list[Stored], known: Known | None = None) -> Known:
    last = known.last if known is not None else None
    commits = [codec.decode(one.data) for one in stored]
    for commit, one in zip(commits, stored, strict=True):
        if last is not None and commit.prev != hash_of(last.data):
            raise CorruptHistory(f"{entity}: commit {commit.n} does not follow the one before: one of them was replaced")
        last = one
    return Known(fold_shared(entity, commits, known.state if known is not None else None), last)
