"""An object store that a test holds up."""

import asyncio

from esexec.domain.objects import ObjectRef
from esexec.nats.objects import ref_of


class SlowObjects:
    """A store that has taken in nothing until `stored` is set."""

    def __init__(self) -> None:
        self.asked, self.stored = asyncio.Event(), asyncio.Event()

    async def put(self, data: bytes) -> ObjectRef:
        self.asked.set()
        await self.stored.wait()
        return ref_of(data)
