"""nats-py's client with three faults mended that only show when a network goes bad, and a faster reading of headers.

They live in methods that nats-py calls on itself, so these are overridden; `test_connection.py` fails if a new version of nats-py
no longer calls them.
"""

import asyncio

from nats import errors
from nats.aio.client import Client
from nats.protocol.parser import PERMISSIONS_ERR, STALE_CONNECTION


class PatientClient(Client):
    """Reconnects also when bytes are stuck in a dead socket or the server throws us out; never says CONNECT in plain text when
    TLS is wanted."""

    async def _attempt_reconnect(self) -> None:
        # nats-py closes the old socket and waits until its buffer is empty, which a blackholed peer never allows.
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        await super()._attempt_reconnect()

    async def _process_err(self, err_msg: str) -> None:
        # nats-py ends the connection for ever on most errors that a server sends, or reconnects if it sees the end of the
        # connection first. Rights may come back and limits be raised: we always reconnect, and tell why we have to.
        if self.is_connecting or STALE_CONNECTION in err_msg or PERMISSIONS_ERR in err_msg:
            await super()._process_err(err_msg)
            return
        error = errors.Error(f"nats: {err_msg}")
        await self._error_cb(error)
        await self._process_op_err(error)

    def _connect_command(self) -> bytes:
        # A server (or whoever sits between) that does not offer TLS would otherwise be sent our credentials in the clear.
        assert self._current_server is not None
        scheme = self._current_server.uri.scheme
        wanted = "tls" in self.options or scheme == "tls"
        if wanted and scheme not in ("ws", "wss") and not self._server_info.get("tls_required"):
            raise errors.Error("the server offers no TLS, and plaintext was not asked for")
        return super()._connect_command()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        # Every commit that a watcher hears carries half a dozen headers; nats-py looks at each character of their names.
        headers = {}
        for line in raw.decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            name = name.strip()
            if colon and name and " " not in name and name.isascii():
                headers[name] = value.strip()
        return headers
