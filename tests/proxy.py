"""A TCP proxy that a test stands before a server, to do to the connections what networks do."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Forwards to `url`, listening on `self.url`. `dark`: bytes of both directions vanish. `deaf`: those of the server do.

    `watch` sees each chunk of the server before it is forwarded; it may set `deaf`, and then that chunk vanishes already.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self.url = ""
        self.dark = False
        self.deaf = False
        self.watch: Callable[[bytes], None] | None = None
        self.connections = 0
        """How many there have been."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()

    def reset(self) -> None:
        """Break every connection, now; new ones are welcome."""
        self.dark = self.deaf = False
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection(self._host, self._port)
        ends = {writer, upstream}
        self._writers |= ends
        self.connections += 1
        # CancelledError: the test is over, and its loop ends what is left.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._pump(reader, upstream, False), self._pump(upstream_reader, writer, True))
        self._writers -= ends
        for end in ends:
            end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, from_server: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if from_server and self.watch is not None:
                    self.watch(data)
                if not self.dark and not (from_server and self.deaf):
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()
