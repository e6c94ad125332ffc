"""Which servers this process has lost: so that an outage is told once and its end once, however many connections suffer it."""

import threading
from weakref import WeakSet


class Outages:
    """Servers by address, and which connections are without them. Connections live on several threads' loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._without: dict[str, WeakSet[object]] = {}

    def lost(self, server: str, connection: object) -> bool:
        """Whether this connection is the first to lose the server."""
        with self._lock:
            without = self._without.setdefault(server, WeakSet())
            is_first = not len(without)
            without.add(connection)
            return is_first

    def over(self, server: str, connection: object) -> bool:
        """Whether this connection was the last that was without the server."""
        with self._lock:
            without = self._without.get(server, WeakSet())
            if connection not in without:
                return False
            without.remove(connection)
            is_last = not len(without)
            if is_last:
                del self._without[server]
            return is_last


outages = Outages()
