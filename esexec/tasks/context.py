"""What a handler may know of the attempt that it is, and whether it is to stop."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from esexec.domain.messages import Dispatch


class AttemptCancelled(BaseException):
    """Raised by `Context.check_cancelled` in an attempt that is to stop.

    Not an `Exception`, so that a handler's `except Exception` does not swallow it; handlers that clean up re-raise it.
    """


class Context:
    """One attempt, as its handler sees it. Made by the worker; in tests of a handler: `Context(Dispatch(…))`.

    `started_at` (aware, UTC) is when the handler began; without it there is no deadline.
    """

    __slots__ = ("_cancelled", "_dispatch", "_started_at")

    def __init__(self, dispatch: Dispatch, started_at: datetime | None = None) -> None:
        self._dispatch = dispatch
        self._started_at = started_at
        self._cancelled = False

    @property
    def execution_id(self) -> str:
        return self._dispatch.execution_id

    @property
    def step(self) -> str:
        """The step's id within its plan."""
        return self._dispatch.step

    @property
    def task(self) -> str:
        return self._dispatch.task

    @property
    def attempt(self) -> int:
        """Which try of the step this is, from 1."""
        return self._dispatch.attempt

    @property
    def run(self) -> int:
        """How often the execution was begun: 1, and one more for each retry or restore of the whole."""
        return self._dispatch.run

    @property
    def max_attempts(self) -> int:
        return self._dispatch.max_attempts

    @property
    def is_last_attempt(self) -> bool:
        """Whether no retry can follow by policy."""
        return self._dispatch.attempt >= self._dispatch.max_attempts

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts of this step in this run: what to hand to systems that remove duplicates."""
        return f"{self._dispatch.execution_id}/{self._dispatch.step}/{self._dispatch.run}"

    @property
    def context(self) -> Mapping[str, Any]:
        """What the caller gave along with the execution, for all its steps."""
        return self._dispatch.context

    @property
    def queue(self) -> str:
        return self._dispatch.queue

    @property
    def priority(self) -> int:
        """0 to 10; higher is sooner."""
        return self._dispatch.priority

    @property
    def deadline(self) -> datetime | None:
        """When the attempt times out (UTC); None = never."""
        if self._started_at is None or self._dispatch.timeout_ms == 0:
            return None
        return self._started_at + timedelta(milliseconds=self._dispatch.timeout_ms)

    @property
    def cancelled(self) -> bool:
        """Whether the attempt is to stop: cancelled, timed out, or the worker drains. May be asked from any thread."""
        return self._cancelled

    def check_cancelled(self) -> None:
        """Raise `AttemptCancelled` if the attempt is to stop. For sync handlers: nothing else can end their thread."""
        if self._cancelled:
            raise AttemptCancelled(f"attempt {self.attempt} of step {self.step} is to stop")

    def cancel(self) -> None:
        """Tell the handler to stop. Called by the worker, from any thread; there is no way back."""
        self._cancelled = True

    def __repr__(self) -> str:
        return f"Context({self.execution_id}/{self.step}, task={self.task}, attempt={self.attempt}, run={self.run})"
