"""`client.executions` and `client.tasks`: the client's verbs once more, by the documents' names."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack

from esexec.client.queries import Conditions, TaskConditions, executions_asked, tasks_asked
from esexec.domain.rollback import Undo
from esexec.plans import Duration
from esexec.results import ExecutionResult, ExecutionStatus, TaskResult
from projections.asks import Counted, CountExecutions, ExecutionsPage, TasksPage
from projections.timeline import TimelineEntry, timeline

if TYPE_CHECKING:
    from esexec.client.checkpoints import Checkpoint
    from esexec.client.client import Client
    from esexec.client.handle import Handle


# Below, `list` is a method.
Undos = list[Undo]
Entries = list[TimelineEntry]


class Executions:
    """`client.executions`: the same answers, by the documents' names."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    async def get(
        self, execution_id: str, *, version: int | None = None, at: datetime | None = None, full: bool = False
    ) -> ExecutionResult | None:
        """See `Client.get`."""
        return await self._client.get(execution_id, version=version, at=at, full=full)

    async def status(self, execution_id: str) -> ExecutionStatus:
        """See `Client.status`."""
        return await self._client.status(execution_id)

    async def result(self, execution_id: str, *, wait_timeout: Duration | None = 5.0) -> Any:
        """See `Handle.result`."""
        return await self._client.handle(execution_id).result(wait_timeout=wait_timeout)

    async def list(self, **conditions: Unpack[Conditions]) -> ExecutionsPage:
        """Executions, the last created first, that meet all conditions; see `ListExecutions`. Iterate over it, and go on with
        `cursor=page.cursor`.

        Raises ValidationError, and Unavailable where no projections run (`no_projections`) or they are behind (`not_yet`).
        """
        return await self._client.queries.ask("executions.list", executions_asked(conditions), ExecutionsPage)

    async def recent(self, limit: int = 20) -> ExecutionsPage:
        """The executions that were created last. Raises as `list` does."""
        return await self.list(limit=limit)

    async def by_plan(self, plan_id: str, limit: int = 20) -> ExecutionsPage:
        """The last executions of a plan. Raises as `list` does."""
        return await self.list(plan_id=plan_id, limit=limit)

    async def counts(self, *, after: int = 0) -> dict[str, int]:
        """How many executions there are, by status. Raises Unavailable as `list` does."""
        return (await self._client.queries.ask("executions.count", CountExecutions(after=after), Counted)).counts

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

    async def rollback_plan(self, execution_id: str) -> Undos:
        """See `Client.rollback_plan`."""
        return await self._client.rollback_plan(execution_id)

    async def checkpoint(self, execution_id: str, metadata: dict[str, Any] | None = None) -> "Checkpoint":
        """See `Checkpoints.create`."""
        return await self._client.checkpoints.create(execution_id, metadata)

    async def restore(self, checkpoint_id: str, reason: str = "") -> "Handle":
        """See `Checkpoints.restore`."""
        return await self._client.checkpoints.restore(checkpoint_id, reason)


class TasksOfExecutions:
    """`client.tasks`: the steps of executions, each one a task that was carried out. An id is `execution/step`."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    async def get(self, task_id: str) -> TaskResult | None:
        """What came of a step, with its output; None if there is none. `task_id`: `execution/step`, or an execution with one
        step only."""
        execution_id, _, step = task_id.partition("/")
        result = await self._client.get(execution_id)
        if result is None or (not step and len(result.results) != 1):
            return None
        return next((task for task in result.results if not step or task.task_id == step), None)

    async def list(self, **conditions: Unpack[TaskConditions]) -> TasksPage:
        """Steps, those of the last created executions first, that meet all conditions; see `ListTasks`.

        Raises ValidationError, and Unavailable where no projections run (`no_projections`) or they are behind (`not_yet`).
        """
        return await self._client.queries.ask("tasks.list", tasks_asked(conditions), TasksPage)

    async def history(self, task_id: str) -> Entries:
        """All that happened to a step (`execution/step`), from the log, in order. Raises NotFound."""
        execution_id, _, step = task_id.partition("/")
        entries = timeline(await self._client.history(execution_id))
        return [entry for entry in entries if not step or entry.step == step]

    async def retry(self, execution_id: str, step: str | None = None) -> "Handle":
        """Run one failed step again; without `step`, all that failed. See `Client.retry`."""
        return await self._client.retry(execution_id, step=step)
