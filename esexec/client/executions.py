"""`client.executions` and `client.tasks`: the client's verbs once more, by the documents' names."""

from typing import TYPE_CHECKING, Any

from esexec.domain.rollback import Undo
from esexec.results import ExecutionResult, ExecutionStatus

if TYPE_CHECKING:
    from esexec.client.checkpoints import Checkpoint
    from esexec.client.client import Client
    from esexec.client.handle import Handle


class Executions:
    """`client.executions`: the same answers, by the documents' names."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    async def get(self, execution_id: str) -> ExecutionResult | None:
        """See `Client.get`."""
        return await self._client.get(execution_id)

    async def status(self, execution_id: str) -> ExecutionStatus:
        """See `Client.status`."""
        return await self._client.status(execution_id)

    async def result(self, execution_id: str, *, wait_timeout: float | None = 5.0) -> Any:
        """See `Handle.result`."""
        return await self._client.handle(execution_id).result(wait_timeout=wait_timeout)

    async def cancel(self, execution_id: str, *, reason: str = "") -> bool:
        """See `Client.cancel`."""
        return await self._client.cancel(execution_id, reason=reason)

    async def pause(self, execution_id: str, reason: str = "") -> bool:
        """See `Client.pause`."""
        return await self._client.pause(execution_id, reason)

    async def resume(self, execution_id: str) -> bool:
        """See `Client.resume`."""
        return await self._client.resume(execution_id)

    async def retry(
        self, execution_id: str, *, step: str | None = None, as_new: bool = False, new_id: str | None = None
    ) -> "Handle":
        """See `Client.retry`."""
        return await self._client.retry(execution_id, step=step, as_new=as_new, new_id=new_id)

    async def rollback(self, execution_id: str, reason: str = "") -> "Handle":
        """See `Client.rollback`."""
        return await self._client.rollback(execution_id, reason)

    async def rollback_plan(self, execution_id: str) -> list[Undo]:
        """See `Client.rollback_plan`."""
        return await self._client.rollback_plan(execution_id)

    async def checkpoint(self, execution_id: str, metadata: dict[str, Any] | None = None) -> "Checkpoint":
        """See `Checkpoints.create`."""
        return await self._client.checkpoints.create(execution_id, metadata)

    async def restore(self, checkpoint_id: str, reason: str = "") -> "Handle":
        """See `Checkpoints.restore`."""
        return await self._client.checkpoints.restore(checkpoint_id, reason)


class TasksOfExecutions:
    """`client.tasks`: what concerns one task of an execution."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    async def retry(self, execution_id: str, step: str | None = None) -> "Handle":
        """Run one failed step again; without `step`, all that failed. See `Client.retry`."""
        return await self._client.retry(execution_id, step=step)
