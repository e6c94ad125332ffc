"""Streams whose directory the server takes away in the very moment in which they are made."""

from typing import Any, cast

import pytest

from esexec.nats import streams
from esexec.nats.connection import ApiError, Connection


class Server:
    """Refuses so many times."""

    def __init__(self, refuses: int, err_code: int = 10049) -> None:
        self.refuses, self.err_code, self.asked = refuses, err_code, 0

    async def api(self, subject: str, body: Any) -> dict[str, Any]:
        self.asked += 1
        if self.asked <= self.refuses:
            raise ApiError(500, self.err_code, "error creating store for stream")
        return {}


@pytest.mark.parametrize(("server", "asked", "made"), [
    (Server(0), 1, True),
    (Server(3), 4, True),
    (Server(9), 5, False),
    (Server(1, err_code=10047), 1, False),
])  # fmt: skip
async def test_it_is_asked_again_for_a_moment(monkeypatch: pytest.MonkeyPatch, server: Server, asked: int, made: bool) -> None:
    """The server may be about to remove the directory of an account that had no streams left; nothing else is asked twice."""
    monkeypatch.setattr(streams, "_STORE_AGAIN_S", 0.001)
    creating = streams._create_stream(cast(Connection, server), {"name": "ESEXEC_x_LOG"})
    if made:
        assert await creating
    else:
        with pytest.raises(ApiError):
            await creating
    assert server.asked == asked
