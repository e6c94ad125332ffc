"""What the blocking client is made of: things of the asynchronous one, each with the loop that they run on.

`esexec.client.sync` has a class for each of these, which `tools/generate_sync.py` writes from the signatures.
"""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from esexec.client.client import Client
from esexec.client.handle import Handle
from esexec.client.loop import Loop, LoopThread
from esexec.domain.errors import ValidationError

A = TypeVar("A")


class Wrapped(Generic[A]):
    """Something of the asynchronous client, for callers who wait."""

    __slots__ = ("_its", "_loop")

    def __init__(self, its: A, loop: Loop) -> None:
        self._its, self._loop = its, loop

    def __repr__(self) -> str:
        return f"Sync{self._its!r}" if isinstance(self._its, Handle) else f"<{type(self).__name__}>"


class BlockingClient(Wrapped[Client]):
    """Opening and closing. `of` is a client that is open already, for other threads than that of its loop."""

    __slots__ = ("_thread",)

    _thread: LoopThread | None

    def __init__(self, client: Client) -> None:
        self._thread = LoopThread(self.close)
        super().__init__(client, self._thread)

    @classmethod
    def of(cls, client: Client, loop: asyncio.AbstractEventLoop) -> Self:
        """See `Client.sync`."""
        found = cls.__new__(cls)
        found._its, found._loop, found._thread = client, Loop.around(loop), None
        return found

    def open(self) -> Self:
        """Connect, where no block is: what is opened is to be closed, and is, at the latest, at the end of the program.

        Raises `Unavailable` if no server answers, `ValidationError` (`is_open`).
        """
        if self._thread is None:
            raise ValidationError("the client is open already", code="is_open", hint="it is another's, who closes it")
        self._thread.start()
        try:
            self._loop.call(self._its.__aenter__())
        except BaseException:
            self._thread.stop()
            raise
        return self

    def close(self) -> None:
        """Disconnect, and end the loop. What other threads still wait for raises `Unavailable` (`closed`). Twice is as once."""
        if self._thread is None or not self._thread.is_running:
            return
        try:
            self._loop.call(self._its.__aexit__())
        finally:
            self._thread.stop()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def unwrapped(handles: Iterable[Any]) -> list[Any]:
    """The asynchronous handles of these; ids stay what they are."""
    return [one._its if isinstance(one, Wrapped) else one for one in handles]
