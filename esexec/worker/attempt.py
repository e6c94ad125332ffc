"""An attempt that a worker holds: what it is, how far it is, and who must be told when it ends."""

from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from esexec.domain import limits
from esexec.domain.measures import Measured
from esexec.domain.messages import Dispatch
from esexec.tasks import Context

if TYPE_CHECKING:
    from esexec.worker.images import Images
    from esexec.worker.processes import HandlerProcess
    from esexec.worker.results import ToKeep
    from esexec.worker.telling import Tale

Why = Literal["timeout", "cancelled", "draining"]


class Attempt:
    """One dispatch in hand. Times ending in `_mono` are seconds of the monotonic clock.

    `ack` is where the lease is kept and ended; a redelivery of the same attempt replaces it. `why`: it was told to stop.
    `over`: its outcome is decided here and on its way; whatever the handler still does changes nothing.
    """

    __slots__ = (
        "ack", "asking", "beaten_mono", "context", "dispatch", "end", "images", "key", "losses", "over", "process", "queue",
        "report_subject", "started_at", "started_mono", "started_told", "stopped_mono", "tale", "to_keep", "why",
    )  # fmt: skip

    def __init__(self, dispatch: Dispatch, key: str, queue: str, ack: str, report_subject: str) -> None:
        self.dispatch, self.key, self.queue, self.ack, self.report_subject = dispatch, key, queue, ack, report_subject
        self.context: Context | None = None
        self.started_at: datetime | None = None
        self.started_mono = 0.0
        self.beaten_mono = 0.0
        self.stopped_mono = 0.0
        self.started_told = False
        self.over = False
        self.losses = 0
        self.why: Why | None = None
        self.images: Images | None = None
        """Where before-images go; None: nowhere."""
        self.tale: Tale | None = None
        """What hooks are told of it, from its handler's beginning to its end; None: nobody listens."""
        self.to_keep: ToKeep | None = None
        """What its output is to be found by again; None: nobody looks for it."""
        self.process: HandlerProcess | None = None
        """What its handler runs in; None: this process."""
        self.asking: set[Future[Any]] | None = None
        """What threads of the handler wait for, and need not once it is told to stop."""
        self.end: Callable[[], object] | None = None
        """Ends the handler as far as that is possible: cancels its task; a thread has nothing but the context's flag."""

    @property
    def deadline_mono(self) -> float:
        """When it times out; infinity if never, or not begun."""
        if not self.dispatch.timeout_ms or not self.started_mono:
            return float("inf")
        return self.started_mono + self.dispatch.timeout_ms / 1000

    @property
    def is_last_chance(self) -> bool:
        """Whether one loss more ends it, if it is known to have begun: so that is said before its handler is called."""
        return self.losses >= limits.losses_per_attempt - 1

    @property
    def measured(self) -> Measured | None:
        """What its handler has measured so far."""
        if self.process is not None:
            return self.process.measured
        context = self.context
        return None if context is None else context.measured

    def stop(self, why: Why, now_mono: float) -> None:
        """Tell the handler to end. The first reason stands."""
        if self.why is not None or self.over:
            return
        self.why, self.stopped_mono = why, now_mono
        if self.context is not None:
            self.context.cancel()
        if self.end is not None:
            self.end()
        for waiting in tuple(self.asking or ()):
            waiting.cancel()

    async def keep(self, data: bytes) -> Any:
        """What its context knows of before-images (`tasks.context.ImageKeeper`), as is `keep_in_thread`."""
        assert self.images is not None
        return await self.images.keep(self, data)

    def keep_in_thread(self, data: bytes) -> Any:
        assert self.images is not None
        return self.images.keep_in_thread(self, data)

    def deserves_lease(self, now_mono: float) -> bool:
        """Whether its lease is still renewed: not past its timeout and grace, however the handler hangs."""
        return now_mono < self.deadline_mono + limits.timeout_grace_ms / 1000


def key_of(execution: str, step: str, attempt: str) -> str:
    return f"{execution}/{step}/{attempt}"
