"""nats-py's client with two faults mended that only show when a network goes bad. Nothing else belongs here.

Both live in methods that nats-py calls on itself, so they are overridden; `test_connection.py` fails if a new version of nats-py
no longer calls them.
"""

import asyncio

from nats import errors
from nats.aio.client import Client


class PatientClient(Client):
    """Reconnects also when bytes are stuck in a dead socket, and never says CONNECT in plain text when TLS is wanted."""

    async def _attempt_reconnect(self) -> None:
        # nats-py closes the old socket and waits until its buffer is empty, which a blackholed peer never allows.
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        await super()._attempt_reconnect()

    def _connect_command(self) -> bytes:
        # A server (or whoever sits between) that does not offer TLS would otherwise be sent our credentials in the clear.
        assert self._current_server is not None
        scheme = self._current_server.uri.scheme
        wanted = "tls" in self.options or scheme == "tls"
        if wanted and scheme not in ("ws", "wss") and not self._server_info.get("tls_required"):
            raise errors.Error("the server offers no TLS, and plaintext was not asked for")
        return super()._connect_command()
