"""What a handler may know of the attempt that it is, whether it is to stop, and what it can leave for others."""

from collections.abc import Coroutine, Mapping, MutableMapping
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from esexec.domain.errors import ExecutionError
from esexec.domain.flow import Resource
from esexec.domain.measures import Measured
from esexec.domain.messages import Dispatch, Purpose
from esexec.tasks.live import Outlet, Voice
from esexec.tasks.measuring import Measures
from esexec.tasks.outputs import IMAGE, encode_value
from esexec.tasks.resources import NO_RESOURCES, WorkerResources
from esexec.tasks.variables import Variables


class AttemptCancelled(BaseException):
    """Raised by `Context.check_cancelled` in an attempt that is to stop.

    Not an `Exception`, so that a handler's `except Exception` does not swallow it; handlers that clean up re-raise it.
    """


class ImageKeeper(Protocol):
    """Gets the before-image of an attempt, as JSON, into the history. Both ways give the image that stands there then."""

    def keep(self, data: bytes) -> Coroutine[Any, Any, Any]:
        """For code on an event loop, the worker's or another."""

    def keep_in_thread(self, data: bytes) -> Any:
        """For code in a thread: returns once it is done. Raises `AttemptCancelled` if the attempt is told to stop."""


_SUFFIXES: dict[Purpose, str] = {"task": "", "fallback": "/fallback", "compensation": "/undo", "recovery": "/recovery"}
_NOTHING: dict[str, Any] = {}
_ALONE = object()
"""What stands for the value of a metric that has none of its own."""


class Context:
    """One attempt, as its handler sees it. Made by the worker; in tests of a handler: `Context(Dispatch(…))`.

    `started_at` (aware, UTC) is when the handler began; without it there is no deadline of the attempt's own. Without `keeper`
    a before-image is only kept here; without `outlet` nothing is told live. `resources`: what the handler is to have, by name.
    """

    __slots__ = (
        "_cancelled", "_dispatch", "_image", "_keeper", "_measures", "_outlet", "_resources", "_started_at", "_variables",
        "_voice",
    )  # fmt: skip

    def __init__(
        self,
        dispatch: Dispatch,
        started_at: datetime | None = None,
        keeper: ImageKeeper | None = None,
        outlet: Outlet | None = None,
        resources: Mapping[str, Any] | None = None,
    ) -> None:
        self._dispatch = dispatch
        self._started_at = started_at
        self._keeper, self._outlet = keeper, outlet
        self._resources = resources
        self._measures: Measures | None = None
        self._voice: Voice | None = None
        self._image: Any = dispatch.before
        self._variables: Variables | None = None
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
    def purpose(self) -> Purpose:
        """What the attempt is for: `task`, `fallback` (in the task's stead), `compensation` (to undo it) or `recovery`."""
        return self._dispatch.purpose

    @property
    def attempt(self) -> int:
        """Which attempt of the step this is, from 1. All attempts of a step in a run are counted, whatever they are for."""
        return self._dispatch.attempt

    @property
    def run(self) -> int:
        """How often the execution was begun: 1, and one more for each retry or restore of the whole."""
        return self._dispatch.run

    @property
    def max_attempts(self) -> int:
        """The number of the last attempt that policy allows."""
        return self._dispatch.max_attempts

    @property
    def is_last_attempt(self) -> bool:
        """Whether no retry can follow by policy."""
        return self._dispatch.attempt >= self._dispatch.max_attempts

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts of this step in this run: what to hand to systems that remove duplicates.

        What does it in the task's stead has another (`…/fallback`), and so has what undoes it (`…/undo`): the same whenever
        and however often what was done in that run is undone.
        """
        dispatch = self._dispatch
        if dispatch.purpose == "compensation" and dispatch.undoes:
            return f"{dispatch.execution_id}/{dispatch.step}/{dispatch.undoes}/undo"
        return f"{dispatch.execution_id}/{dispatch.step}/{dispatch.run}{_SUFFIXES[dispatch.purpose]}"

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
        """When the attempt times out or the execution must have ended, whichever is earlier (UTC); None = never."""
        whole = self._dispatch.deadline
        if self._started_at is None or self._dispatch.timeout_ms == 0:
            return whole
        own = self._started_at + timedelta(milliseconds=self._dispatch.timeout_ms)
        return own if whole is None else min(own, whole)

    @property
    def execution_deadline(self) -> datetime | None:
        """When the execution must have ended (UTC); None = never."""
        return self._dispatch.deadline

    @property
    def output(self) -> Any:
        """What the step that is undone returned; None where nothing is undone."""
        return self._dispatch.output

    # Variables -----------------------------------------------------------------------------------------------------------

    @property
    def vars(self) -> MutableMapping[str, Any]:
        """The variables of the execution, as they were when the attempt was handed out. What is set here, other steps see once
        this attempt has ended, be it with an error. Values are what JSON can hold; nothing can be removed.

        Of steps that overlap, the one that ends last wins. Raises ExecutionError for what cannot be kept: `vars_too_large`, ….
        """
        if self._variables is None:
            self._variables = Variables(self._dispatch.vars)
        return self._variables

    def changed_vars(self) -> dict[str, Any]:
        """What the attempt's report says of the variables, as JSON. Called by the worker. Raises ExecutionError as `vars`."""
        return _NOTHING if self._variables is None else self._variables.changes()

    # Before-images -------------------------------------------------------------------------------------------------------

    async def before(self, image: Any) -> Any:
        """Record what something was before this step changes it, so that it can be put back. Returns once it is stored.

        Gives the image that stands: the first one of this step, also if an earlier attempt or run recorded it. Change nothing
        before this has returned. Raises ExecutionError for what cannot be kept: `image_too_large`, `image_not_serializable`, ….

        In a compensation nothing is recorded, for there is nothing to put back: a task that undoes another (`delete_x` what
        `create_x` did) may call this all the same.
        """
        if self._image is msgspec.UNSET:
            data = self._encoded(image)
            keeper = self._keeper_of_step
            self._image = msgspec.json.decode(data) if keeper is None else await keeper.keep(data)
        return self._image

    def before_sync(self, image: Any) -> Any:
        """`before`, for a handler that is no coroutine."""
        if self._image is msgspec.UNSET:
            data = self._encoded(image)
            keeper = self._keeper_of_step
            self._image = msgspec.json.decode(data) if keeper is None else keeper.keep_in_thread(data)
        return self._image

    @property
    def _keeper_of_step(self) -> ImageKeeper | None:
        return None if self._dispatch.purpose == "compensation" else self._keeper

    def _encoded(self, image: Any) -> bytes:
        if self._dispatch.purpose == "recovery":
            raise ExecutionError(
                "a recovery strategy has nothing before it that is to be put back", code="before_not_here", retry=False
            )
        return encode_value(image, IMAGE)

    @property
    def before_image(self) -> Any:
        """The before-image of the step that stands; None if there is none. A compensation puts it back."""
        return None if self._image is msgspec.UNSET else self._image

    @property
    def has_before_image(self) -> bool:
        """Whether there is a before-image: one that is None is one, too."""
        return self._image is not msgspec.UNSET

    # What is told while it runs, and what was measured -----------------------------------------------------------------------

    def progress(self, fraction: float, text: str = "") -> None:
        """Tell how far the handler is, from 0 to 1, and perhaps at what. Watchers see it; it is not part of the history.

        May be called as often as one likes, from any thread: at most every `limits.progress_interval_ms` something is sent.
        """
        (self._voice or self._speak()).progress(fraction, text)

    @property
    def log(self) -> Voice:
        """Tell watchers a line: `ctx.log.info("loaded", rows=12)`; also `debug`, `warning`, `error`. Not part of the history.

        Never raises. Bounds: `limits.live_text_chars`, `live_fields_bytes`, `log_lines_per_second`.
        """
        return self._voice or self._speak()

    def _speak(self) -> Voice:
        self._voice = Voice(self._dispatch, self._outlet)
        return self._voice

    @property
    def voice(self) -> Voice | None:
        """What the handler has told through, for the worker; None: it has told nothing."""
        return self._voice

    def metric(self, name: str, value: Any = _ALONE, /, *, tags: Mapping[str, Any] | None = None, **values: Any) -> None:
        """Record a number under a name, or several: `ctx.metric("rows", 12)`, `ctx.metric("io", ms=1.2, bytes=3)`.

        `tags`: what it is to be told apart by. All stand in the event that ends the attempt. Raises ExecutionError
        (`invalid_metric`, `metrics_too_large`).
        """
        self._measure().metric(name, values if value is _ALONE else {"value": value, **values}, tags or _NOTHING)

    def quality(self, score: float) -> None:
        """Say how good the output is, from 0 to 1; the last one counts. Raises ExecutionError (`invalid_quality`)."""
        self._measure().quality(score)

    def cost(self, amount: float) -> None:
        """Add to what the step has cost, in a unit of your choice. Raises ExecutionError (`invalid_cost`)."""
        self._measure().cost(amount)

    def _measure(self) -> Measures:
        if self._measures is None:
            self._measures = Measures()
        return self._measures

    @property
    def measured(self) -> Measured | None:
        """What the handler has measured so far; None: nothing. Goes into the attempt's report."""
        return None if self._measures is None else self._measures.result()

    # Resources -----------------------------------------------------------------------------------------------------------

    @property
    def allocated(self) -> list[Resource]:
        """The resources of the namespace's pools that this attempt was granted, as its step requires them."""
        return [*self._dispatch.allocated]

    @property
    def resources(self) -> WorkerResources:
        """What the handler has of its worker's resources, by name: one of each that its task uses, for itself until it ends.

        `discard("db")` says that the item is broken. Raises ExecutionError (`resource_not_used`) for one that it does not use.
        """
        found, allocated = self._resources, self._dispatch.allocated
        if found is None and not allocated:
            return NO_RESOURCES
        resources = found if isinstance(found, WorkerResources) else WorkerResources(found or {})
        return resources.beside(one.type for one in allocated) if allocated else resources

    # Its end ---------------------------------------------------------------------------------------------------------------

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


_current: ContextVar[Context | None] = ContextVar("esexec_context", default=None)


def current_context() -> Context | None:
    """The context of the attempt whose handler this code runs in, on the loop or in a thread; None outside of handlers."""
    return _current.get()


def make_current(context: Context | None) -> None:
    """Let this task, or thread, and what it starts run as the handler of `context`. Called by the worker."""
    _current.set(context)
