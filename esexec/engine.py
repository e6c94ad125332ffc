"""`Engine`: one object with all that can be asked of an engine, by the names of an ExecutionEngine.

Every verb is one line onto the client, which does the work: an engine keeps nothing, decides nothing, runs nothing. A verb that
wants more belongs there. Executors and workers are processes of their own, or `esexec.local`.
"""

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any, Self, Unpack

from esexec.client import (
    Callback,
    Checkpoint,
    Client,
    Handle,
    Monitoring,
    Planner,
    Startable,
    Starting,
    StartOptions,
    Subscription,
)
from esexec.client.alerts import AlertCallback
from esexec.domain.alert_reading import SaidCondition
from esexec.domain.errors import ValidationError
from esexec.domain.flow import Resource, ResourceUsage
from esexec.domain.flow_reading import SaidResources
from esexec.domain.rollback import Undo
from esexec.nats.connection import Auth
from esexec.results import ExecutionResult, ExecutionStatus, ExecutionUpdate, T
from esexec.tasks.options import Duration
from esexec.views import ExecutionMetrics, TimelineEntry


class ClientOptions(Auth, total=False):
    """What an engine's client can be given, as `Client`."""

    namespace: str
    actor: str | None
    owner: str | None
    confirm_s: float
    patience: float
    planner: Planner | None


class Engine:
    """All verbs on one object: `async with esexec.Engine(url, namespace=…) as engine:`, or `Engine.of(client)`.

    Options and errors are those of `Client`, of which it makes one of its own, open as long as the block. A `client` that it is
    given is used, and neither opened nor closed. `engine.client` has what has no verb here. A subclass gets verbs of your own.
    """

    def __init__(self, url: str | None = None, *, client: Client | None = None, **options: Unpack[ClientOptions]) -> None:
        """Raises ValidationError (`client_or_url`) for a client together with what would make another."""
        if client is not None and (url is not None or options):
            given = ", ".join(["url"] * (url is not None) + sorted(options))
            hint = "an engine has one client: give it, or what makes one"
            raise ValidationError(f"an engine was given a client, and {given}", code="client_or_url", hint=hint)
        self.client = Client(url, **options) if client is None else client
        self._owns_client = client is None

    @classmethod
    def of(cls, client: Client) -> Self:
        """An engine on a client that is open. For a subclass whose constructor wants more: `Mine(…, client=client)`."""
        return cls(client=client)

    async def __aenter__(self) -> Self:
        if self._owns_client:
            await self.client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._owns_client:
            await self.client.__aexit__()

    # Starting --------------------------------------------------------------------------------------------------------------

    async def execute(
        self, what: Startable, input: Any = None, *, wait_timeout: Duration | None = None, **options: Unpack[StartOptions]
    ) -> ExecutionResult:
        """Start, and wait for the end: a failed execution is a result. See `Client.execute`."""
        return await self.client.execute(what, input, wait_timeout=wait_timeout, **options)

    async def run(
        self,
        what: Startable[T],
        params: Any = None,
        *,
        input: Any = None,
        wait_timeout: Duration | None = None,
        **options: Unpack[StartOptions],
    ) -> T:
        """Start, and give the output, or raise the typed error. See `Client.run`."""
        return await self.client.run(what, params, input=input, wait_timeout=wait_timeout, **options)

    def start(self, what: Startable[T], input: Any = None, **options: Unpack[StartOptions]) -> Starting[T]:
        """Start; the handle follows it. See `Client.start`."""
        return self.client.start(what, input, **options)

    def run_async(self, what: Startable[T], input: Any = None, **options: Unpack[StartOptions]) -> Starting[T]:
        """`start`, by another name."""
        return self.client.start(what, input, **options)

    # Following -------------------------------------------------------------------------------------------------------------

    async def get_status(self, execution_id: str) -> ExecutionStatus:
        """Its status now. See `Client.status`."""
        return await self.client.status(execution_id)

    async def get_result(
        self, execution_id: str, *, version: int | None = None, at: datetime | None = None, full: bool = False
    ) -> ExecutionResult | None:
        """Everything known of it, now or as it was, without waiting; None if there is none of that id. See `Client.get`."""
        return await self.client.get(execution_id, version=version, at=at, full=full)

    def monitor(self, execution_id: str) -> AsyncIterator[ExecutionUpdate]:
        """Its updates from the beginning to the end. See `Monitor`."""
        return self.client.monitor(execution_id)

    async def subscribe(self, execution_id: str, callback: Callback) -> Subscription:
        """Call `callback` with each update. See `Monitor.subscribe`."""
        return await self.client.monitor.subscribe(execution_id, callback)

    async def unsubscribe(self, execution_id: str, callback: Callback) -> bool:
        """Call it no more. See `Monitor.unsubscribe`."""
        return await self.client.monitor.unsubscribe(execution_id, callback)

    async def start_monitoring(self, execution_id: str) -> bool:
        """Collect its updates, and samples of its workers. See `Monitor.start`."""
        return await self.client.monitor.start(execution_id)

    async def stop_monitoring(self, execution_id: str) -> Monitoring | None:
        """What was collected. See `Monitor.stop`."""
        return await self.client.monitor.stop(execution_id)

    async def get_metrics(self, execution_id: str) -> ExecutionMetrics:
        """How it went in numbers. See `Monitor.metrics`."""
        return await self.client.monitor.metrics(execution_id)

    async def get_timeline(self, execution_id: str) -> list[TimelineEntry]:
        """Everything that happened, in words. See `Monitor.timeline`."""
        return await self.client.monitor.timeline(execution_id)

    async def get_resource_usage(self, execution_id: str) -> list[ResourceUsage]:
        """What its steps used, and what that cost. See `Monitor.resource_usage`."""
        return await self.client.monitor.resource_usage(execution_id)

    # Controlling -----------------------------------------------------------------------------------------------------------

    async def pause(self, execution_id: str, reason: str = "") -> bool:
        """Hand out nothing new. See `Client.pause`."""
        return await self.client.pause(execution_id, reason)

    async def resume(self, execution_id: str) -> bool:
        """Go on after a pause. See `Client.resume`."""
        return await self.client.resume(execution_id)

    async def cancel(self, execution_id: str, *, reason: str = "") -> bool:
        """Ask for its end. See `Client.cancel`."""
        return await self.client.cancel(execution_id, reason=reason)

    async def retry(
        self, execution_id: str, *, step: str | None = None, as_new: bool = False, new_id: str | None = None
    ) -> Handle:
        """Run again what ended without completing. See `Client.retry`."""
        return await self.client.retry(execution_id, step=step, as_new=as_new, new_id=new_id)

    async def rollback(self, execution_id: str, reason: str = "") -> Handle:
        """Undo what it did, once it has ended. See `Client.rollback`."""
        return await self.client.rollback(execution_id, reason)

    async def rollback_plan(self, execution_id: str) -> list[Undo]:
        """What a rollback would do now. See `Client.rollback_plan`."""
        return await self.client.rollback_plan(execution_id)

    async def create_checkpoint(self, execution_id: str, metadata: dict[str, Any] | None = None) -> Checkpoint:
        """Give its state of now a name. See `Checkpoints.create`."""
        return await self.client.checkpoints.create(execution_id, metadata)

    async def restore_from_checkpoint(self, checkpoint_id: str, reason: str = "") -> Handle:
        """Go back to a checkpoint. See `Checkpoints.restore`."""
        return await self.client.checkpoints.restore(checkpoint_id, reason)

    # The namespace ---------------------------------------------------------------------------------------------------------

    async def add_recovery_strategy(self, strategy: Any) -> str:
        """Offer failures to this strategy from now on; its id. See `Strategies.add`."""
        return await self.client.strategies.add(strategy)

    async def remove_recovery_strategy(self, strategy_id: str) -> bool:
        """Offer it none any more. See `Strategies.remove`."""
        return await self.client.strategies.remove(strategy_id)

    async def set_alert(
        self,
        condition: SaidCondition,
        callback: AlertCallback | None = None,
        webhook: str | None = None,
        *,
        id: str | None = None,
    ) -> str:
        """Be told when a condition holds; the alert's id. See `Alerts.set`."""
        return await self.client.alerts.set(condition, callback, webhook, id=id)

    async def remove_alert(self, alert_id: str) -> bool:
        """Be told no more. See `Alerts.remove`."""
        return await self.client.alerts.remove(alert_id)

    async def configure(self, **settings: Any) -> None:
        """Set the namespace's level of the settings. See `Client.configure`."""
        await self.client.configure(**settings)

    # Resources -------------------------------------------------------------------------------------------------------------

    async def allocate_resources(
        self, requirements: SaidResources, *, wait_timeout: Duration | None = 5.0, lease: Duration = "30s"
    ) -> list[Resource]:
        """Allocate all of these, or nothing. See `Resources.allocate`."""
        return await self.client.resources.allocate(requirements, wait_timeout=wait_timeout, lease=lease)

    async def release_resources(self, resource_ids: str | Resource | Iterable[str | Resource]) -> bool:
        """Give them back. See `Resources.release`."""
        return await self.client.resources.release(resource_ids)
