"""The server's clock, as nearly as it is known here: what it says of the time, carried on by this machine's monotonic clock.

Executors whose own clocks differ agree by it to within a round trip. Where it is used, being a little off costs nothing but being
a little early or late: the times of a history never go backwards, whatever this says.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from esexec.nats.connection import Connection
from esexec.world import now


class ServerClock:
    """See the module. Until the first look it is this machine's clock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._zero = now() - timedelta(seconds=time.monotonic())

    def now(self) -> datetime:
        """The server's time."""
        return self._zero + timedelta(seconds=time.monotonic())

    async def look(self, stream: str) -> dict[str, Any]:
        """What the server says of a stream; and what time it is there. Raises `Unavailable`, `ApiError`."""
        before = time.monotonic()
        info = await self._connection.api(f"STREAM.INFO.{stream}")
        said = info.get("ts")
        if isinstance(said, str):
            try:
                there = datetime.fromisoformat(said).astimezone(UTC)
            except ValueError:
                return info
            self._zero = there - timedelta(seconds=(before + time.monotonic()) / 2)
        return info
