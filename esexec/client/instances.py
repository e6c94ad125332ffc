"""One client, several namespaces: `instance=` of a start leads to a client of that namespace, opened when first asked for."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from esexec.domain.errors import EsexecError

if TYPE_CHECKING:
    from esexec.client.client import Client


class Instances:
    """The other clients of a client, by namespace. `make`: one that is not open yet."""

    def __init__(self, make: "Callable[[str], Client]") -> None:
        self._make = make
        self._opened: dict[str, asyncio.Task[Client]] = {}

    async def of(self, namespace: str) -> "Client":
        """The client of a namespace. Raises `ValidationError` (`namespace_invalid`), `Unavailable`."""
        opening = self._opened.get(namespace)
        if opening is None:
            opening = self._opened[namespace] = asyncio.create_task(self._make(namespace).__aenter__())
        try:
            return await asyncio.shield(opening)
        except EsexecError:
            self._opened.pop(namespace, None)
            raise

    async def close(self) -> None:
        opened, self._opened = self._opened, {}
        for opening in opened.values():
            if not opening.done():
                opening.cancel()
                await asyncio.wait({opening})
            elif not opening.cancelled() and opening.exception() is None:
                await opening.result().__aexit__()
