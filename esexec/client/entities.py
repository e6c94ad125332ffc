"""What executions share, as a client reads it: whole, and as the leader knows it, so that what was just confirmed is there."""

from esexec.domain.commit import Commit
from esexec.log import codec
from esexec.log.port import Log


async def news_of(log: Log, entity: str, after: int = 0) -> list[Commit]:
    """The commits of an entity behind commit `after`."""
    stored = await log.load(entity, after=after)
    while (more := await log.read(entity, after + len(stored) + 1)) is not None:
        stored.append(more)
    return [codec.decode(one.data) for one in stored]
