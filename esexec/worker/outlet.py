"""Where what handlers tell leaves the worker: plain messages, without an acknowledgement, from whatever thread.

While the server is away they are lost, and nobody waits for them.
"""

import asyncio
import threading
from contextlib import suppress

from esexec.nats.connection import OutboundBufferLimitError
from esexec.nats.lean import LeanClient
from esexec.nats.subjects import Subjects


class LiveOutlet:
    """`tasks.live.Outlet` over a connection. Made on the worker's loop."""

    __slots__ = ("_client", "_loop", "_subjects", "_thread", "worker")

    def __init__(self, client: LeanClient, subjects: Subjects, worker: str) -> None:
        self._client, self._subjects, self.worker = client, subjects, worker
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()

    def send(self, execution_id: str, kind: str, data: bytes) -> None:
        subject = self._subjects.live(execution_id, kind)
        if threading.get_ident() == self._thread:
            self._post(subject, data)
            return
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._post, subject, data)

    def _post(self, subject: str, data: bytes) -> None:
        with suppress(OutboundBufferLimitError):  # disconnected
            self._client.post(subject, data)
