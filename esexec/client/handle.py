"""A handle: an execution that was started, from the side of whoever waits for it."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from esexec.client.errors import not_found
from esexec.domain.messages import Warned
from esexec.plans import Duration
from esexec.results import Err, ExecutionResult, ExecutionStatus, ExecutionUpdate, Ok, Pending, TaskRecord, record_of

if TYPE_CHECKING:
    from esexec.client.checkpoints import Checkpoint
    from esexec.client.client import Client


class Handle:
    """Follows one execution. `duplicate`: the start found it there already (idempotency key, or the same start again).
    `warnings`: what is probably not meant, such as a task that no worker has announced (`unannounced_task`): it waits for one.

    Nothing here touches the execution but `cancel`, `pause`, `resume`, `retry`, `rollback` and `checkpoint`. `wait_timeout` is
    how long the caller waits (a number: seconds; None: for ever).
    """

    __slots__ = ("_client", "duplicate", "id", "warnings")

    def __init__(
        self, client: "Client", execution_id: str, *, duplicate: bool = False, warnings: tuple[Warned, ...] = ()
    ) -> None:
        self._client = client
        self.id = execution_id
        self.duplicate, self.warnings = duplicate, warnings

    @property
    def execution_id(self) -> str:
        return self.id

    async def result(self, *, wait_timeout: Duration | None = 5.0) -> Any:
        """The execution's output, or its typed error raised. Raises `AwaitTimeout` when the caller's time is over."""
        return (await self.wait(wait_timeout=wait_timeout)).unwrap()

    async def wait(self, *, wait_timeout: Duration | None = 5.0) -> ExecutionResult:
        """What came of it, whatever that is. Raises `AwaitTimeout` when the caller's time is over."""
        return await self._client.wait(self.id, wait_timeout=wait_timeout)

    async def status(self) -> ExecutionStatus:
        """Its status now. Raises `NotFound` if nothing of it is in the log yet."""
        return await self._client.status(self.id)

    async def poll(self) -> Pending | Ok | Err:
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

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"
