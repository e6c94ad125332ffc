"""An event loop whose time is virtual: it stands still while anything runs, and goes on to what is due next when nothing does.

Threads take real time, which is no time here: while one works, the clock stands.
"""

import asyncio
import selectors
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

_SLICE_S = 0.05
FOR_EVER = float("inf")


class _Selector(selectors.DefaultSelector):
    """What the loop asks how long it may sleep."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        return self.loop.nothing_to_do(super().select, timeout)


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module. `busy`: whether something works in real time. `patience_s`: for how many real seconds that may go on."""

    def __init__(self, busy: Callable[[], object], patience_s: float) -> None:
        self.home = Context()
        """Of whatever comes from outside."""
        self.moment, self.jumps = 0.0, 0
        """The seconds since it was made, and how often its time went on."""
        self._busy, self._patience_s = busy, patience_s
        self._until = 0.0
        self._enough: Callable[[], object] = _never
        self._outside = 0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.moment

    def go_on(self, until: float, enough: Callable[[], object]) -> None:
        """Run what can be run, then let time go on, and so on: to `until` at most, or as long as there is anything, or until it
        is `enough` when nothing runs. Raises TimeoutError if a thread works for longer than the loop is patient."""
        self._until, self._enough = until, enough
        self.run_forever()

    def nothing_to_do(self, select: Callable[[float], list[Any]], timeout: float | None) -> list[Any]:
        """Nothing is to be run for `timeout` seconds (None: for ever)."""
        if self._outside or self._busy():
            return self._wait(select)
        if self._enough():
            self.stop()
        elif timeout is None or self.moment + timeout > self._until:
            if self._until != FOR_EVER:
                self.moment = max(self.moment, self._until)
            self.stop()
        else:
            self.moment += timeout
            self.jumps += 1
        return select(0)

    def _wait(self, select: Callable[[float], list[Any]]) -> list[Any]:
        give_up = time.monotonic() + self._patience_s
        while self._outside or self._busy():
            if found := select(_SLICE_S):
                return found
            if time.monotonic() > give_up:
                self.stop()
                raise TimeoutError(f"a thread has been working for {self._patience_s:g} s of real time")
        return []

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """What a thread has to say is said in this loop's world."""
        return super().call_soon_threadsafe(callback, *args, context=context or self.home.copy())

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Also `asyncio.to_thread` comes here: time stands until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._outside += 1
        future.add_done_callback(self._is_back)
        return future

    def _is_back(self, _: Any) -> None:
        self._outside -= 1


def _never() -> bool:
    return False
