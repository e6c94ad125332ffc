"""A handle: an execution that was started, from the side of whoever waits for it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self
from warnings import warn

from esexec.client.errors import not_found
from esexec.domain import commands as c
from esexec.domain.errors import EsexecError, NotConfirmed
from esexec.domain.messages import Warned
from esexec.plans import Duration
from esexec.results import Err, ExecutionResult, ExecutionStatus, ExecutionUpdate, Ok, Pending, T, TaskRecord, record_of
from esexec.world import new_id

if TYPE_CHECKING:
    from esexec.client.checkpoints import Checkpoint
    from esexec.client.client import Client

logger = logging.getLogger("esexec.client")

_LEFT = "the block that it was started for was left"


class Handle(Generic[T]):
    """Follows one execution. `duplicate`: the start found it there already (idempotency key, or the same start again).
    `warnings`: what is probably not meant, such as a task that no worker has announced (`unannounced_task`): it waits for one.

    Nothing here touches the execution but `cancel`, `pause`, `resume`, `retry`, `rollback` and `checkpoint`, and the end of a
    block: `async with handle:` cancels what has not ended when the block is left, unless it is a `duplicate`, or `detach` was
    called. `wait_timeout` is how long the caller waits (a number: seconds; None: for ever).

    One that `start` gave, and that is dropped without any use of it, is an orphan: nobody knows the execution's id. That is told
    by a `ResourceWarning` (to be seen with `python -X dev`, and in tests), unless `detach` says that it is meant so.
    """

    __slots__ = ("_client", "_has_ended", "_id", "_is_detached", "_is_orphan", "_read", "duplicate", "warnings")

    def __init__(
        self,
        client: "Client",
        execution_id: str,
        *,
        duplicate: bool = False,
        read: Callable[[Any], Any] | None = None,
        is_orphan: bool = False,
        warnings: tuple[Warned, ...] = (),
    ) -> None:
        """`read`: what makes the output what the task is annotated to return. `is_orphan`: until it is used."""
        self._client = client
        self._id = execution_id
        self.duplicate, self.warnings = duplicate, warnings
        self._read, self._is_orphan = read, is_orphan
        self._has_ended = self._is_detached = False

    @property
    def id(self) -> str:
        """The execution's id."""
        self._is_orphan = False
        return self._id

    @property
    def execution_id(self) -> str:
        return self.id

    async def result(self, *, wait_timeout: Duration | None = 5.0) -> T:
        """The execution's output, or its typed error raised; of a task that the start was given (not its name), as the type that
        it is annotated to return. Raises `AwaitTimeout` when the caller's time is over."""
        output = (await self.wait(wait_timeout=wait_timeout)).unwrap()
        return output if self._read is None else self._read(output)  # type: ignore[no-any-return]

    async def wait(self, *, wait_timeout: Duration | None = 5.0) -> ExecutionResult:
        """What came of it, whatever that is. Raises `AwaitTimeout` when the caller's time is over."""
        result = await self._client.wait(self.id, wait_timeout=wait_timeout)
        self._has_ended = True
        return result

    async def status(self) -> ExecutionStatus:
        """Its status now. Raises `NotFound` if nothing of it is in the log yet."""
        return await self._client.status(self.id)

    async def poll(self) -> Pending | Ok[Any] | Err:
        """Three-way view, without waiting: `Pending`, `Ok(value)` or `Err(error)`."""
        return await self._client.poll(self.id)

    async def snapshot(self) -> ExecutionResult:
        """Everything known of it now."""
        return await self._client.get_or_raise(self.id)

    async def record(self) -> TaskRecord:
        """The record of its task as of now, as lists have it (of a plan: of its first step). It has a JSON form."""
        state = await self._client._state(self.id)
        if not state.exists:
            raise not_found(self.id)
        return record_of(state, 0)

    async def worker_id(self) -> str | None:
        """Who runs it: the worker of a step that runs, else of the last that ran; None while it is queued."""
        tasks = (await self.snapshot()).results
        running = [task.worker_id for task in tasks if task.status == "running"]
        return next(iter(running), None) or next((task.worker_id for task in reversed(tasks) if task.worker_id), None)

    async def owner(self) -> str | None:
        """Who submitted it, if that was told."""
        return (await self.snapshot()).owner

    async def cancel(self, reason: str = "") -> bool:
        """Ask for its end: True if that took effect, False if it had ended before."""
        return await self._client.cancel(self.id, reason=reason)

    async def pause(self, reason: str = "") -> bool:
        """Hand out nothing new: True if that took effect, False if it was paused already. See `Client.pause`."""
        return await self._client.pause(self.id, reason)

    async def resume(self) -> bool:
        """Go on after a pause: True if that took effect, False if it was not paused. See `Client.resume`."""
        return await self._client.resume(self.id)

    async def retry(self, *, step: str | None = None, as_new: bool = False, new_id: str | None = None) -> "Handle":
        """Run again what ended without completing. See `Client.retry`."""
        self._has_ended = False
        return await self._client.retry(self.id, step=step, as_new=as_new, new_id=new_id)

    async def rollback(self, reason: str = "") -> "Handle":
        """Undo what it did, once it has ended. See `Client.rollback`."""
        return await self._client.rollback(self.id, reason)

    async def checkpoint(self, metadata: dict[str, Any] | None = None) -> "Checkpoint":
        """Give its state of now a name. See `Checkpoints.create`."""
        return await self._client.checkpoints.create(self.id, metadata)

    def monitor(self) -> AsyncIterator[ExecutionUpdate]:
        """Its updates from the beginning to the end."""
        return self._client.monitor(self.id)

    # Whose it is -----------------------------------------------------------------------------------------------------------

    def detach(self) -> Self:
        """It is meant to go on by itself: the end of a block does not cancel it, and nobody warns that the handle is not used."""
        self._is_orphan, self._is_detached = False, True
        return self

    async def __aenter__(self) -> Self:
        self._is_orphan = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._has_ended or self._is_detached or self.duplicate:
            return
        try:
            await asyncio.shield(self._client.cancel(self._id, reason=_LEFT))
        except EsexecError as problem:
            if error is None:
                raise
            logger.warning("%s could not be cancelled: %s", self._id, problem)

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    def __del__(self, _warn: Callable[..., None] = warn) -> None:
        if getattr(self, "_is_orphan", False):
            text = f"execution {self._id} was started, and its handle is gone unused: wait for it, keep its id, or .detach() it"
            _warn(text, ResourceWarning, source=self, stacklevel=2)


class Starting(Coroutine[Any, Any, Handle[T]]):
    """A start under way: `handle = await client.start(…)`, or `async with client.start(…) as handle:`, which cancels the
    execution if the block is left before its end, in whatever way.

    A start that was given up, or that nobody confirmed, before the block began is cancelled as well; unless it named the
    execution itself, which may then be another's.
    """

    __slots__ = ("_client", "_coroutine", "_execution_id", "_handle")

    def __init__(self, client: "Client", execution_id: str | None, coroutine: Coroutine[Any, Any, Handle[T]]) -> None:
        """`execution_id`: if it is of nobody else, whatever becomes of the start."""
        self._client, self._execution_id, self._coroutine = client, execution_id, coroutine

    def __await__(self) -> Generator[Any, Any, Handle[T]]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """As any coroutine has it."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """As any coroutine has it."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """As any coroutine has it."""
        self._coroutine.close()

    async def __aenter__(self) -> Handle[T]:
        try:
            handle = await self._coroutine
        except (NotConfirmed, asyncio.CancelledError):
            if self._execution_id is not None:
                command = c.CancelExecution(id=new_id(), reason=_LEFT, actor=self._client.owner)
                await asyncio.shield(self._client._sender.post(self._execution_id, "cancel", command))
            raise
        self._handle = handle
        return await handle.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._handle.__aexit__(kind, error, traceback)
