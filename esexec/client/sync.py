"""The blocking client: what the asynchronous one has, for callers without a loop.

Written by tools/generate_sync.py from the signatures; change those, and run it.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Literal, Self, Unpack, overload

from esexec.client.alerts import AlertCallback, Alerts
from esexec.client.blocking import BlockingClient, Wrapped, unwrapped
from esexec.client.chain import ChainResult, Interrupt, LinkLike
from esexec.client.checkpoints import Checkpoint, Checkpoints
from esexec.client.client import CONFIRM_S, Client
from esexec.client.closures import AsyncClosure, Closure
from esexec.client.commands import MapOptions, Startable, StartOptions
from esexec.client.dead_letters import DeadLetter, DeadLetters, DeadLettersPage, Redriven
from esexec.client.events import Since
from esexec.client.executions import Entries, Executions, TasksOfExecutions, Undos
from esexec.client.handle import Handle
from esexec.client.histories import _AT_ONCE, Histories, Imported
from esexec.client.loop import in_thread
from esexec.client.monitor import Monitor
from esexec.client.monitoring import Monitoring
from esexec.client.plans import KeptPlan, Planned, Planner, Plans, Wanted
from esexec.client.queries import (
    ASK_S,
    AlertConditions,
    Conditions,
    Queries,
    StatisticsConditions,
    TaskConditions,
    TaskStatisticsConditions,
)
from esexec.client.resources import PoolUse, Resources
from esexec.client.strategies import Strategies
from esexec.client.subscriptions import Callback, Subscription
from esexec.client.workers import AnnouncedTask, MissingTask, Workers
from esexec.cloudevents import CloudEvent
from esexec.domain.alert_reading import SaidCondition
from esexec.domain.commands import PlanStatus
from esexec.domain.commit import Commit
from esexec.domain.flow import Resource, ResourcePool, ResourceUsage
from esexec.domain.flow_reading import SaidResources
from esexec.domain.kept_alerts import KeptAlert
from esexec.domain.kept_plans import ListedPlan
from esexec.domain.messages import Warned, WorkerPresence
from esexec.domain.objects import ObjectRef
from esexec.domain.rollback import Undo
from esexec.domain.settings import NamespaceConfig
from esexec.domain.state import ExecutionState
from esexec.domain.strategies import Strategy
from esexec.log.verify import Verification
from esexec.nats.connection import Auth
from esexec.nats.presence import ANSWERS_S
from esexec.plans import Duration
from esexec.results import Err, ExecutionResult, ExecutionStatus, ExecutionUpdate, Ok, Pending, T, TaskRecord, TaskResult
from esexec.tasks import Returns
from esexec.views import ExecutionMetrics, Gantt, TimelineEntry
from projections.asks import AlertsPage, Ask, ExecutionsPage, Projections, TasksPage
from projections.difference import Change
from projections.statistics_asks import ExecutionStatistics, TaskStatistics


class SyncHandle(Wrapped[Handle[T]], Generic[T]):
    """`Handle`, for callers who wait."""

    __slots__ = ()

    @property
    def duplicate(self) -> bool:
        return self._its.duplicate

    @property
    def warnings(self) -> tuple[Warned, ...]:
        return self._its.warnings

    @property
    def id(self) -> str:
        """The execution's id."""
        return self._its.id

    @property
    def execution_id(self) -> str:
        return self._its.execution_id

    def result(self, *, wait_timeout: Duration | None = 5.0) -> T:
        """The execution's output, or its typed error raised; of a task that the start was given (not its name), as the type that
        it is annotated to return. Raises `AwaitTimeout` when the caller's time is over."""
        return self._loop.call(self._its.result(wait_timeout=wait_timeout))

    def wait(self, *, wait_timeout: Duration | None = 5.0) -> ExecutionResult:
        """What came of it, whatever that is. Raises `AwaitTimeout` when the caller's time is over."""
        return self._loop.call(self._its.wait(wait_timeout=wait_timeout))

    def status(self) -> ExecutionStatus:
        """Its status now. Raises `NotFound` if nothing of it is in the log yet."""
        return self._loop.call(self._its.status())

    def poll(self) -> Pending | Ok[Any] | Err:
        """Three-way view, without waiting: `Pending`, `Ok(value)` or `Err(error)`."""
        return self._loop.call(self._its.poll())

    def snapshot(self) -> ExecutionResult:
        """Everything known of it now."""
        return self._loop.call(self._its.snapshot())

    def record(self) -> TaskRecord:
        """The record of its task as of now, as lists have it (of a plan: of its first step). It has a JSON form."""
        return self._loop.call(self._its.record())

    def worker_id(self) -> str | None:
        """Who runs it: the worker of a step that runs, else of the last that ran; None while it is queued."""
        return self._loop.call(self._its.worker_id())

    def owner(self) -> str | None:
        """Who submitted it, if that was told."""
        return self._loop.call(self._its.owner())

    def cancel(self, reason: str = "") -> bool:
        """Ask for its end: True if that took effect, False if it had ended before."""
        return self._loop.call(self._its.cancel(reason))

    def pause(self, reason: str = "") -> bool:
        """Hand out nothing new: True if that took effect, False if it was paused already. See `Client.pause`."""
        return self._loop.call(self._its.pause(reason))

    def resume(self) -> bool:
        """Go on after a pause: True if that took effect, False if it was not paused. See `Client.resume`."""
        return self._loop.call(self._its.resume())

    def retry(self, *, step: str | None = None, as_new: bool = False, new_id: str | None = None) -> SyncHandle:
        """Run again what ended without completing. See `Client.retry`."""
        return SyncHandle(self._loop.call(self._its.retry(step=step, as_new=as_new, new_id=new_id)), self._loop)

    def rollback(self, reason: str = "") -> SyncHandle:
        """Undo what it did, once it has ended. See `Client.rollback`."""
        return SyncHandle(self._loop.call(self._its.rollback(reason)), self._loop)

    def checkpoint(self, metadata: dict[str, Any] | None = None) -> Checkpoint:
        """Give its state of now a name. See `Checkpoints.create`."""
        return self._loop.call(self._its.checkpoint(metadata))

    def monitor(self) -> Iterator[ExecutionUpdate]:
        """Its updates from the beginning to the end."""
        return self._loop.iterate(self._its.monitor())

    def detach(self) -> Self:
        """It is meant to go on by itself: the end of a block does not cancel it, and nobody warns that the handle is not used."""
        self._its.detach()
        return self

    def __enter__(self) -> Self:
        self._loop.call(self._its.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._loop.call(self._its.__aexit__(kind, error, traceback))


class SyncClosure(Wrapped[Closure[T]], Generic[T]):
    """`Closure`, for callers who wait."""

    __slots__ = ()

    def __call__(self, params: Any = None, **options: Unpack[StartOptions]) -> T:
        """Call it with these params over those that it has, and these options over those. Raises as `Client.run`."""
        return self._loop.call(self._its(params, **options))


class SyncAsyncClosure(Wrapped[AsyncClosure[T]], Generic[T]):
    """`AsyncClosure`, for callers who wait."""

    __slots__ = ()

    def __call__(self, params: Any = None, **options: Unpack[StartOptions]) -> SyncHandle[T]:
        """Start it with these params over those that it has, and these options over those. See `Client.start`."""
        return SyncHandle(self._loop.call(self._its(params, **options)), self._loop)


class SyncSubscription(Wrapped[Subscription]):
    """`Subscription`, for callers who wait."""

    __slots__ = ()

    @property
    def execution_id(self) -> str:
        return self._its.execution_id

    @property
    def active(self) -> bool:
        """Whether it will be told of more."""
        return self._its.active

    def unsubscribe(self) -> bool:
        """It is told nothing any more from now on: True if that ended it, False if it was over."""
        return self._loop.call(self._its.unsubscribe())

    def ended(self) -> None:
        """Returns when it is over: unsubscribed, or told all there is to be told."""
        self._loop.call(self._its.ended())


class SyncAlerts(Wrapped[Alerts]):
    """`Alerts`, for callers who wait."""

    __slots__ = ()

    def set(
        self,
        condition: SaidCondition,
        callback: AlertCallback | None = None,
        webhook: str | None = None,
        *,
        id: str | None = None,
    ) -> str:
        """From now on be told when `condition` holds; the alert's id.

        `condition`: an `AlertCondition`, or a mapping (`{"metric": "execution_duration", "operator": ">", "threshold": "2h"}`).
        `callback`: called here with each `Alert`, when it is triggered and when it is over, as long as this client is open.
        `webhook`: a URL to which each is posted. `id`: one of the same id takes the place of the one before.
        Raises `ValidationError`, `Refused` (`too_many_alerts`), `NotConfirmed`.
        """
        return self._loop.call(self._its.set(condition, callback, webhook, id=id))

    def remove(self, alert_id: str) -> bool:
        """It is not watched any more: True if that took effect, False if there was none of this id.

        What is open of it is told to be over. Raises `ValidationError` (`bad_alert_id`), `NotConfirmed`.
        """
        return self._loop.call(self._its.remove(alert_id))

    def list(self) -> builtins.list[KeptAlert]:
        """The alerts that are set, in the order in which they were set first."""
        return self._loop.call(self._its.list())

    def history(self, **conditions: Unpack[AlertConditions]) -> AlertsPage:
        """What was triggered, the last first, that meets all conditions; see `ListAlerts`. `state="triggered"`: what is open now.

        Raises ValidationError, and Unavailable where no projections run (`no_projections`) or they are behind (`not_yet`).
        """
        return self._loop.call(self._its.history(**conditions))

    def listen(self, alert_id: str, callback: AlertCallback) -> None:
        """Call this for an alert that somebody set, in place of what was called for it here before.

        Raises `ValidationError` (`bad_alert_id`).
        """
        self._loop.call(self._its.listen(alert_id, callback))

    def unlisten(self, alert_id: str) -> None:
        """Call nothing for it any more; it is watched all the same."""
        self._loop.call(self._its.unlisten(alert_id))


class SyncCheckpoints(Wrapped[Checkpoints]):
    """`Checkpoints`, for callers who wait."""

    __slots__ = ()

    def create(self, execution_id: str, metadata: dict[str, Any] | None = None) -> Checkpoint:
        """Give the state of now a name.

        Raises `NotFound`, or `Refused` (`ended`, `ending`, `rolling_back`, `too_many_checkpoints`, `checkpoint_failed`).
        """
        return self._loop.call(self._its.create(execution_id, metadata))

    def list(self, execution_id: str) -> builtins.list[Checkpoint]:
        """All checkpoints of an execution, oldest first, without their states. Raises `NotFound`."""
        return self._loop.call(self._its.list(execution_id))

    def get(self, checkpoint_id: str) -> Checkpoint:
        """A checkpoint with its state. Raises `NotFound` (`unknown_checkpoint`)."""
        return self._loop.call(self._its.get(checkpoint_id))

    def restore(self, checkpoint_id: str, reason: str = "") -> SyncHandle:
        """Go back to a checkpoint: what completed after it runs again, and is not undone before. Nothing is deleted.

        Raises `NotFound`, or `Refused` (`unknown_checkpoint`, `not_started`, `ending`, `rolling_back`).
        """
        return SyncHandle(self._loop.call(self._its.restore(checkpoint_id, reason)), self._loop)


class SyncDeadLetters(Wrapped[DeadLetters]):
    """`DeadLetters`, for callers who wait."""

    __slots__ = ()

    def list(
        self, *, reason: str | None = None, execution_id: str | None = None, limit: int = 20, cursor: str | None = None
    ) -> DeadLettersPage:
        """Dead letters, the oldest first: those with this `reason`, of this execution (or of what executions share). `limit`: 1
        to 1,000; a page may hold fewer, and go on with `cursor=page.cursor`, where letters are large.

        Raises `ValidationError` (`bad_execution_id`, `bad_cursor`, `bad_limit`), `Unavailable`.
        """
        return self._loop.call(self._its.list(reason=reason, execution_id=execution_id, limit=limit, cursor=cursor))

    def get(self, letter_id: int) -> DeadLetter:
        """One of them. Raises `NotFound` (`unknown_letter`), `Unavailable`."""
        return self._loop.call(self._its.get(letter_id))

    def redrive(self, letter_id: int, *, delete: bool = False) -> Redriven:
        """Put a letter back to where it came from, as what it was, and tell what became of it. `delete`: the letter is deleted
        once the server has stored it there (for which one needs the right).

        Raises `NotFound` (`unknown_letter`), `Refused` (`not_redrivable`), `Overloaded`, `NotConfirmed` (`not_stored`),
        `Unavailable`.
        """
        return self._loop.call(self._its.redrive(letter_id, delete=delete))

    def redrive_all(
        self, *, reason: str | None = None, execution_id: str | None = None, delete: bool = False
    ) -> Iterator[Redriven]:
        """The same with all that there are now, with this `reason`, of this execution, in their order. What cannot be put back is
        `left`. Raises as `redrive`."""
        return self._loop.iterate(self._its.redrive_all(reason=reason, execution_id=execution_id, delete=delete))

    def delete(self, letter_id: int) -> None:
        """Delete a letter, for good. Raises `NotFound` (`unknown_letter`), `Unavailable` (also without the right to it)."""
        self._loop.call(self._its.delete(letter_id))


class SyncExecutions(Wrapped[Executions]):
    """`Executions`, for callers who wait."""

    __slots__ = ()

    def get(
        self, execution_id: str, *, version: int | None = None, at: datetime | None = None, full: bool = False
    ) -> ExecutionResult | None:
        """See `Client.get`."""
        return self._loop.call(self._its.get(execution_id, version=version, at=at, full=full))

    def status(self, execution_id: str) -> ExecutionStatus:
        """See `Client.status`."""
        return self._loop.call(self._its.status(execution_id))

    def result(self, execution_id: str, *, wait_timeout: Duration | None = 5.0) -> Any:
        """See `Handle.result`."""
        return self._loop.call(self._its.result(execution_id, wait_timeout=wait_timeout))

    def list(self, **conditions: Unpack[Conditions]) -> ExecutionsPage:
        """Executions, the last created first, that meet all conditions; see `ListExecutions`. Iterate over it, and go on with
        `cursor=page.cursor`.

        Raises ValidationError, and Unavailable where no projections run (`no_projections`) or they are behind (`not_yet`).
        """
        return self._loop.call(self._its.list(**conditions))

    def recent(self, limit: int = 20) -> ExecutionsPage:
        """The executions that were created last. Raises as `list` does."""
        return self._loop.call(self._its.recent(limit))

    def by_plan(self, plan_id: str, limit: int = 20) -> ExecutionsPage:
        """The last executions of a plan. Raises as `list` does."""
        return self._loop.call(self._its.by_plan(plan_id, limit))

    def counts(self, *, after: int = 0) -> dict[str, int]:
        """How many executions there are, by status. Raises Unavailable as `list` does."""
        return self._loop.call(self._its.counts(after=after))

    def cancel(self, execution_id: str, *, reason: str = "") -> bool:
        """See `Client.cancel`."""
        return self._loop.call(self._its.cancel(execution_id, reason=reason))

    def pause(self, execution_id: str, reason: str = "") -> bool:
        """See `Client.pause`."""
        return self._loop.call(self._its.pause(execution_id, reason))

    def resume(self, execution_id: str) -> bool:
        """See `Client.resume`."""
        return self._loop.call(self._its.resume(execution_id))

    def retry(self, execution_id: str, *, step: str | None = None, as_new: bool = False, new_id: str | None = None) -> SyncHandle:
        """See `Client.retry`."""
        return SyncHandle(self._loop.call(self._its.retry(execution_id, step=step, as_new=as_new, new_id=new_id)), self._loop)

    def rollback(self, execution_id: str, reason: str = "") -> SyncHandle:
        """See `Client.rollback`."""
        return SyncHandle(self._loop.call(self._its.rollback(execution_id, reason)), self._loop)

    def rollback_plan(self, execution_id: str) -> Undos:
        """See `Client.rollback_plan`."""
        return self._loop.call(self._its.rollback_plan(execution_id))

    def checkpoint(self, execution_id: str, metadata: dict[str, Any] | None = None) -> Checkpoint:
        """See `Checkpoints.create`."""
        return self._loop.call(self._its.checkpoint(execution_id, metadata))

    def restore(self, checkpoint_id: str, reason: str = "") -> SyncHandle:
        """See `Checkpoints.restore`."""
        return SyncHandle(self._loop.call(self._its.restore(checkpoint_id, reason)), self._loop)


class SyncTasksOfExecutions(Wrapped[TasksOfExecutions]):
    """`TasksOfExecutions`, for callers who wait."""

    __slots__ = ()

    def get(self, task_id: str) -> TaskResult | None:
        """What came of a step, with its output; None if there is none. `task_id`: `execution/step`, or an execution with one
        step only."""
        return self._loop.call(self._its.get(task_id))

    def list(self, **conditions: Unpack[TaskConditions]) -> TasksPage:
        """Steps, those of the last created executions first, that meet all conditions; see `ListTasks`.

        Raises ValidationError, and Unavailable where no projections run (`no_projections`) or they are behind (`not_yet`).
        """
        return self._loop.call(self._its.list(**conditions))

    def history(self, task_id: str) -> Entries:
        """All that happened to a step (`execution/step`), from the log, in order. Raises NotFound."""
        return self._loop.call(self._its.history(task_id))

    def retry(self, execution_id: str, step: str | None = None) -> SyncHandle:
        """Run one failed step again; without `step`, all that failed. See `Client.retry`."""
        return SyncHandle(self._loop.call(self._its.retry(execution_id, step)), self._loop)


class SyncHistories(Wrapped[Histories]):
    """`Histories`, for callers who wait."""

    __slots__ = ()

    def state(self, execution_id: str, *, version: int | None = None, at: datetime | None = None) -> ExecutionState:
        """The folded state after the event of this version, and as of this time: of what had not begun, it does not exist.

        Raises `NotFound` (`not_found`, `unknown_version`), `ValidationError` (`bad_version`, `naive_time`), `CorruptHistory`.
        """
        return self._loop.call(self._its.state(execution_id, version=version, at=at))

    def diff(self, execution_id: str, before: int, after: int) -> list[Change]:
        """What is different after the event of version `after`, compared to after that of `before`. Raises as `state`."""
        return self._loop.call(self._its.diff(execution_id, before, after))

    def export(self, execution_id: str) -> list[bytes]:
        """The history as lines of JSON, byte for byte as it is stored, whole or not, and behind it the objects that it refers to;
        also of what executions share.

        Raises `NotFound`.
        """
        return self._loop.call(self._its.export(execution_id))

    def import_(self, lines: Iterable[bytes]) -> list[Imported]:
        """Store the histories that these lines hold in this namespace. Nothing is written unless all of them are whole and
        lawful, and none contradicts what is there. The same again writes nothing; what was interrupted is gone on with.

        An imported execution is looked at, not carried on: nobody is told of it, and what runs elsewhere is not here. Raises
        `ValidationError` (`bad_history_file`, `shared_history`), `CorruptHistory`, `Conflict` if an execution has another history
        here, `Unavailable` if this client may not write to the log.
        """
        return self._loop.call(self._its.import_(lines))

    def size(self) -> int:
        """How many commits the namespace has, in all histories together."""
        return self._loop.call(self._its.size())

    def verify_all(self, *, shared: bool = True, at_once: int = _AT_ONCE) -> Iterator[Verification]:
        """The finding for every history of the namespace, in no particular order; so many are read at once, and none is kept.

        `shared`: also what executions share. What begins or is compacted meanwhile may be left out.
        """
        return self._loop.iterate(self._its.verify_all(shared=shared, at_once=at_once))


class SyncMonitor(Wrapped[Monitor]):
    """`Monitor`, for callers who wait."""

    __slots__ = ()

    def __call__(self, execution_id: str) -> Iterator[ExecutionUpdate]:
        """Its updates: first one for all that has happened, then one per commit, and when a handler tells something (`ctx.log`,
        `ctx.progress`); ends when the execution has ended.

        Raises `NotFound` if there is no such execution.
        """
        return self._loop.iterate(self._its(execution_id))

    def subscribe(self, execution_id: str, callback: Callback) -> SyncSubscription:
        """Call `callback` with each update, as `monitor` gives them: the first tells all that has happened. It may be a coroutine
        function, which is awaited before the next. What it raises is logged once, and changes nothing.

        Raises `NotFound` if there is no such execution.
        """
        return SyncSubscription(self._loop.call(self._its.subscribe(execution_id, in_thread(callback))), self._loop)

    def unsubscribe(self, execution_id: str, callback: Callback) -> bool:
        """Call it no more: True if that ended a subscription, False if there was none."""
        return self._loop.call(self._its.unsubscribe(execution_id, in_thread(callback)))

    def start(self, execution_id: str) -> bool:
        """Collect its updates and samples of its workers (CPU, memory) from now on, until `stop`: True if that began, False if
        this client does so already. Workers tell how they do every 5 s, so what is short has no samples.

        Raises `NotFound` if there is no such execution.
        """
        return self._loop.call(self._its.start(execution_id))

    def stop(self, execution_id: str) -> Monitoring | None:
        """What was collected since `start`; None if this client did not monitor it."""
        return self._loop.call(self._its.stop(execution_id))

    def metrics(self, execution_id: str) -> ExecutionMetrics:
        """How it went in numbers, or goes as of now. Raises `NotFound`."""
        return self._loop.call(self._its.metrics(execution_id))

    def timeline(self, execution_id: str) -> list[TimelineEntry]:
        """Everything that happened, in words, one entry per event. Raises `NotFound`."""
        return self._loop.call(self._its.timeline(execution_id))

    def gantt(self, execution_id: str) -> Gantt:
        """Where its time went, or goes as of now: per attempt, what it spent its time with. Raises `NotFound`."""
        return self._loop.call(self._its.gantt(execution_id))

    def resource_usage(self, execution_id: str) -> list[ResourceUsage]:
        """What its steps used, and what that cost. See `Resources.usage`. Raises `NotFound`."""
        return self._loop.call(self._its.resource_usage(execution_id))


class SyncPlans(Wrapped[Plans]):
    """`Plans`, for callers who wait."""

    __slots__ = ()

    def put(self, plan: Planned, status: Wanted = "ready") -> KeptPlan:
        """Keep a plan, or change the status of one that is kept. The same plan again is the same: the first document stands.

        What cannot be carried out is kept as `invalid`. Raises PlanInvalid for what is not even a JSON object of a plan's size,
        `ValidationError` (`bad_plan_status`), `Refused` (`too_many_plans`), `NotConfirmed`.
        """
        return self._loop.call(self._its.put(plan, status))

    def create(self, query: str, planner: Planner | None = None, *, status: Wanted = "ready") -> KeptPlan:
        """Have a plan made from a query, and keep it.

        Raises `ExecutionError` with the code `planner_failed` if the planner does not give one; then nothing is kept.
        """
        return self._loop.call(self._its.create(query, planner, status=status))

    def get(self, plan_id: str) -> KeptPlan:
        """A plan that is kept, whatever its status. Raises `ValidationError` (`bad_plan_id`), `NotFound` (`unknown_plan`)."""
        return self._loop.call(self._its.get(plan_id))

    def list(self, status: PlanStatus | None = None) -> builtins.list[ListedPlan]:
        """What is kept, oldest first, without the documents; all, or those of one status.

        Raises `ValidationError` (`bad_plan_status`).
        """
        return self._loop.call(self._its.list(status))

    def mark(self, plan_id: str, status: Wanted) -> bool:
        """Change the status of a plan that is kept: True if that took effect, False if it was so already.

        Raises `ValidationError` (`bad_plan_id`, `bad_plan_status`), `NotFound` (`unknown_plan`), or `Refused` (`plan_not_ready`)
        for one that is invalid.
        """
        return self._loop.call(self._its.mark(plan_id, status))

    def archive(self, plan_id: str) -> bool:
        """From now on nothing can be started by this id. See `mark`."""
        return self._loop.call(self._its.archive(plan_id))


class SyncQueries(Wrapped[Queries]):
    """`Queries`, for callers who wait."""

    __slots__ = ()

    def ask(self, question: str, ask: Ask, answer: type[T], *, timeout: float = ASK_S) -> T:
        """Ask, and wait for the answer. Raises what that says is wrong, and Unavailable (`no_projections`)."""
        return self._loop.call(self._its.ask(question, ask, answer, timeout=timeout))

    def projections(self) -> Projections:
        """How the projections are, by each process that keeps them, of each projection the one that works first.

        Raises Unavailable (`no_projections`)."""
        return self._loop.call(self._its.projections())


class SyncResources(Wrapped[Resources]):
    """`Resources`, for callers who wait."""

    __slots__ = ()

    def declare(self, pool: ResourcePool | dict[str, Any]) -> bool:
        """From now on there is such a pool, or it is changed: True if that took effect, False if it was so already.

        Raises `ValidationError` for what is no pool, `Refused` (`too_many_pools`), `NotConfirmed`.
        """
        return self._loop.call(self._its.declare(pool))

    def remove(self, pool_id: str) -> bool:
        """There is no such pool any more: True if that took effect.

        Raises `ValidationError` (`invalid_value`) for what can be the id of none, `Refused` (`pool_in_use`), `NotConfirmed`.
        """
        return self._loop.call(self._its.remove(pool_id))

    def pools(self) -> list[PoolUse]:
        """The pools, by id, and what of each is free."""
        return self._loop.call(self._its.pools())

    def allocate(
        self, requirements: SaidResources, *, wait_timeout: Duration | None = 5.0, lease: Duration = "30s"
    ) -> list[Resource]:
        """Allocate all of these, or nothing; waits up to `wait_timeout` (a number: seconds; 0: not at all; None: for ever).

        What is not released comes back by itself once its `lease` is over. Raises `ResourceUnavailable` if there are no such
        resources or they were not free in time, `ValidationError`, `NotConfirmed`.
        """
        return self._loop.call(self._its.allocate(requirements, wait_timeout=wait_timeout, lease=lease))

    def release(self, resource_ids: str | Resource | Iterable[str | Resource]) -> bool:
        """Give resources back, whoever holds them, also a step that runs: True if any of them was held.

        One id or resource, or several. Raises `ValidationError` (`invalid_value`) for what is none, `NotConfirmed`.
        """
        return self._loop.call(self._its.release(resource_ids))

    def hold(
        self, requirements: SaidResources, *, wait_timeout: Duration | None = 5.0, lease: Duration = "30s"
    ) -> AbstractContextManager[list[Resource]]:
        """Allocate for the length of a block; the lease is renewed meanwhile, and ends soon if this process dies.

        A lease that ended all the same (nobody answered for so long, or somebody released it) is logged as a warning.
        Raises as `allocate`.
        """
        return self._loop.entered(self._its.hold(requirements, wait_timeout=wait_timeout, lease=lease))

    def usage(self, execution_id: str) -> builtins.list[ResourceUsage]:
        """What the steps of an execution used, and what that cost, in order; of what is held, as of now. Raises `NotFound`."""
        return self._loop.call(self._its.usage(execution_id))


class SyncStrategies(Wrapped[Strategies]):
    """`Strategies`, for callers who wait."""

    __slots__ = ()

    def add(self, strategy: Any) -> str:
        """From now on failures in the namespace are offered to this strategy; its id.

        `strategy`: a `RecoveryStrategy` (an instance, or a class that needs no arguments), an object that has what one needs, or
        only the description (`Strategy`). One of the same id takes the place of the one before.
        Raises `ValidationError` (`invalid_strategy`), `Refused` (`too_many_strategies`), `NotConfirmed`.
        """
        return self._loop.call(self._its.add(strategy))

    def remove(self, strategy_id: str) -> bool:
        """Failures are not offered to it any more: True if that took effect, False if there was none of this id.

        Raises `ValidationError` (`bad_strategy_id`) for what can be the id of none, `NotConfirmed`.
        """
        return self._loop.call(self._its.remove(strategy_id))

    def list(self) -> builtins.list[Strategy]:
        """The strategies, in the order in which they are asked."""
        return self._loop.call(self._its.list())


class SyncWorkers(Wrapped[Workers]):
    """`Workers`, for callers who wait."""

    __slots__ = ()

    def present(self, *, wait: float = ANSWERS_S) -> list[WorkerPresence]:
        """The workers that answer within `wait` seconds, by name; 1,000 at most. Raises `Unavailable` when disconnected."""
        return self._loop.call(self._its.present(wait=wait))

    def tasks(self) -> list[AnnouncedTask]:
        """All tasks that were ever announced, by name, and who has them now."""
        return self._loop.call(self._its.tasks())

    def missing(self) -> list[MissingTask]:
        """The tasks that waiting attempts or kept plans need and that no worker has now, by name."""
        return self._loop.call(self._its.missing())


class SyncClient(BlockingClient):
    """What `Client` has, for callers who wait: `with esexec.connect_sync(url) as client:`, or `open` and `close`.

    It runs on a loop of its own, in a thread of its own; any number of threads may call it, and callbacks are called in
    threads as well. Raises `ValidationError`: `forked` in another process than the one that opened it, `own_loop` for a call
    on its own loop.
    """

    __slots__ = ()

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        instance: str | None = None,
        actor: str | None = None,
        owner: str | None = None,
        confirm_s: float = CONFIRM_S,
        patience: float = 0.0,
        planner: Planner | None = None,
        **auth: Unpack[Auth],
    ) -> None:
        super().__init__(
            Client(
                url,
                namespace=namespace,
                instance=instance,
                actor=actor,
                owner=owner,
                confirm_s=confirm_s,
                patience=patience,
                planner=planner,
                **auth,
            )
        )

    @property
    def alerts(self) -> SyncAlerts:
        return SyncAlerts(self._its.alerts, self._loop)

    @property
    def checkpoints(self) -> SyncCheckpoints:
        return SyncCheckpoints(self._its.checkpoints, self._loop)

    @property
    def dead_letters(self) -> SyncDeadLetters:
        return SyncDeadLetters(self._its.dead_letters, self._loop)

    @property
    def executions(self) -> SyncExecutions:
        return SyncExecutions(self._its.executions, self._loop)

    @property
    def histories(self) -> SyncHistories:
        return SyncHistories(self._its.histories, self._loop)

    @property
    def monitor(self) -> SyncMonitor:
        return SyncMonitor(self._its.monitor, self._loop)

    @property
    def plans(self) -> SyncPlans:
        return SyncPlans(self._its.plans, self._loop)

    @property
    def queries(self) -> SyncQueries:
        return SyncQueries(self._its.queries, self._loop)

    @property
    def resources(self) -> SyncResources:
        return SyncResources(self._its.resources, self._loop)

    @property
    def strategies(self) -> SyncStrategies:
        return SyncStrategies(self._its.strategies, self._loop)

    @property
    def tasks(self) -> SyncTasksOfExecutions:
        return SyncTasksOfExecutions(self._its.tasks, self._loop)

    @property
    def workers(self) -> SyncWorkers:
        return SyncWorkers(self._its.workers, self._loop)

    @property
    def url(self) -> str:
        return self._its.url

    @property
    def actor(self) -> str | None:
        return self._its.actor

    @property
    def namespace(self) -> str:
        return self._its.namespace

    @property
    def owner(self) -> str | None:
        """`actor`: of the executions that it starts it is the owner."""
        return self._its.owner

    def start(self, what: Startable[T], input: Any = None, **options: Unpack[StartOptions]) -> SyncHandle[T]:
        """Start a plan or a task: `handle = client.start(…)` returns once the executor has committed it. With
        `with client.start(…) as handle:` the execution is cancelled if the block is left before it has ended.

        Raises the typed refusal (`PlanInvalid`, `Conflict`, `Overloaded`, `ValidationError`), or `NotConfirmed`, carrying the
        handle, if nobody answers in time: the command stays durable and will be carried out (unless its code is `not_stored`:
        the server is away, and it is durable only once this client has reached it).
        """
        return SyncHandle(self._loop.call(self._its.start(what, input, **options)), self._loop)

    def execute(
        self, what: Startable, input: Any = None, *, wait_timeout: Duration | None = None, **options: Unpack[StartOptions]
    ) -> ExecutionResult:
        """Start, and wait for the end, whatever it is: a failed execution is a result, not an exception.

        Raises as `start` does; `AwaitTimeout` after `wait_timeout` (a number: seconds; None: never).
        """
        return self._loop.call(self._its.execute(what, input, wait_timeout=wait_timeout, **options))

    def run(
        self,
        what: Startable[T],
        params: Any = None,
        *,
        input: Any = None,
        wait_timeout: Duration | None = None,
        **options: Unpack[StartOptions],
    ) -> T:
        """Start, wait for the end, and give the output; anything but completion is raised as its typed error.

        `input` is another name for `params`: of a plan one says the first, of a task the second. The output of a task that is
        given itself (not its name) has the type that it is annotated to return.
        """
        return self._loop.call(self._its.run(what, params, input=input, wait_timeout=wait_timeout, **options))

    def try_run(
        self,
        what: Startable[T],
        params: Any = None,
        *,
        input: Any = None,
        wait_timeout: Duration | None = None,
        **options: Unpack[StartOptions],
    ) -> Ok[T] | Err:
        """As `run`, with the outcome as a value to match on: `Ok(value)`, or `Err(error)`, also of a start that was refused.

        Raises `AwaitTimeout`, `NotConfirmed` and `Unavailable`: then there is no outcome as yet.
        """
        return self._loop.call(self._its.try_run(what, params, input=input, wait_timeout=wait_timeout, **options))

    @overload
    def map(
        self,
        task: Returns[T] | str,
        rows: Iterable[Any],
        *,
        concurrency: int | None = None,
        return_errors: Literal[False] = False,
        wait_timeout: Duration | None = None,
        **options: Unpack[MapOptions],
    ) -> list[T]: ...

    @overload
    def map(
        self,
        task: Returns[T] | str,
        rows: Iterable[Any],
        *,
        concurrency: int | None = None,
        return_errors: Literal[True],
        wait_timeout: Duration | None = None,
        **options: Unpack[MapOptions],
    ) -> list[Ok[T] | Err]: ...

    def map(
        self,
        task: Returns[T] | str,
        rows: Iterable[Any],
        *,
        concurrency: int | None = None,
        return_errors: bool = False,
        wait_timeout: Duration | None = None,
        **options: Unpack[MapOptions],
    ) -> list[T] | list[Ok[T] | Err]:
        """Call a task for every row, and give the outputs in the order of the rows. All of it is one execution, with a step
        `row-0`, `row-1`, … for each; without any row there is none, and the answer is `[]`.

        `rows`: the params of each call, by name. `concurrency`: how many of them may run at once (else the setting
        `parallel_execution_limit`: 5). Unless `return_errors`, the first row that fails for good ends it: what runs may end,
        nothing else begins, and its error is raised. With `return_errors` all the others go on, and each row has its `Ok(value)`
        or `Err(error)`.

        Raises as `execute`; `ValidationError` (`bad_row`, `bad_task_name`, `too_many_rows`).
        """
        its: Any = self._its
        answer: list[T] | list[Ok[T] | Err] = self._loop.call(
            its.map(task, rows, concurrency=concurrency, return_errors=return_errors, wait_timeout=wait_timeout, **options)
        )
        return answer

    @overload
    def gather(
        self,
        handles: Iterable[SyncHandle[T] | str],
        *,
        return_errors: Literal[False] = False,
        wait_timeout: Duration | None = None,
    ) -> list[T]: ...

    @overload
    def gather(
        self, handles: Iterable[SyncHandle[T] | str], *, return_errors: Literal[True], wait_timeout: Duration | None = None
    ) -> list[Ok[T] | Err]: ...

    def gather(
        self, handles: Iterable[SyncHandle[T] | str], *, return_errors: bool = False, wait_timeout: Duration | None = None
    ) -> list[T] | list[Ok[T] | Err]:
        """Wait for executions (their handles, or ids): their outputs, in the order of the handles.

        Raises the first error that there is, and `AwaitTimeout` after `wait_timeout` (a number: seconds; None: never); the others
        go on, and nothing is cancelled. With `return_errors` each has its `Ok(value)` or `Err(error)`, which may be that.
        """
        its: Any = self._its
        answer: list[T] | list[Ok[T] | Err] = self._loop.call(
            its.gather(unwrapped(handles), return_errors=return_errors, wait_timeout=wait_timeout)
        )
        return answer

    def chain(
        self,
        links: Sequence[LinkLike],
        params: Any = None,
        *,
        interrupt: Interrupt | None = None,
        wait_timeout: Duration | None = None,
        **options: Unpack[StartOptions],
    ) -> ChainResult:
        """Tasks one after the other, in one execution: the first gets `params`, each further one what the one before gave. All
        have the same context.

        `links`: tasks or their names; with params of their own, which win over those that flow, as `("process", {"format":
        "json"})` or `link("process", format="json")`. These may hold references, as in plans.

        `interrupt` is asked behind each link but the last whether to go on. The name of a task: that runs with the param
        `result`, and returns `Halt(value)` or `Continue(value)`. A condition: `"${result.blocked}"` halts where the result has
        that. Both are part of the execution, and go on without this program. A function of this program: it is called with the
        result and the context, and returns `Halt`, `Continue`, or whether to halt; then every link is an execution of its own.

        Raises `ChainError` if a link fails, or it is halted with an error; `ValidationError` (`empty_chain`, `bad_link`,
        `bad_interrupt`); and as `execute`.
        """
        return self._loop.call(self._its.chain(links, params, interrupt=interrupt, wait_timeout=wait_timeout, **options))

    def closure(
        self, what: Startable[T], params: Any = None, *, wait_timeout: Duration | None = None, **options: Unpack[StartOptions]
    ) -> SyncClosure[T]:
        """A function of the params: `process = client.closure("process", {"format": "json"})`, then `process({"data": 1})`.

        The params of the call are laid over these `params`, its options over `options`. It gives what `run` gives.
        """
        return SyncClosure(self._its.closure(what, params, wait_timeout=wait_timeout, **options), self._loop)

    def async_closure(self, what: Startable[T], params: Any = None, **options: Unpack[StartOptions]) -> SyncAsyncClosure[T]:
        """As `closure`, but it gives what `start` gives: `handle = process({"data": 1})`."""
        return SyncAsyncClosure(self._its.async_closure(what, params, **options), self._loop)

    def handle(self, execution_id: str) -> SyncHandle:
        """A handle for an execution that somebody started. Raises `ValidationError` for what is no id."""
        return SyncHandle(self._its.handle(execution_id), self._loop)

    def wait(self, execution_id: str, *, wait_timeout: Duration | None = 5.0) -> ExecutionResult:
        """The result once it has ended; one that is not there yet is waited for. Raises `AwaitTimeout`, which touches nothing."""
        return self._loop.call(self._its.wait(execution_id, wait_timeout=wait_timeout))

    def subscribe(self, execution_id: str, callback: Callback) -> SyncSubscription:
        """See `Monitor.subscribe`."""
        return SyncSubscription(self._loop.call(self._its.subscribe(execution_id, in_thread(callback))), self._loop)

    def unsubscribe(self, execution_id: str, callback: Callback) -> bool:
        """See `Monitor.unsubscribe`."""
        return self._loop.call(self._its.unsubscribe(execution_id, in_thread(callback)))

    def events(
        self,
        since: Since = None,
        *,
        after: CloudEvent | None = None,
        types: str | Iterable[str] = (),
        execution_id: str | None = None,
        follow: bool = True,
    ) -> Iterator[CloudEvent]:
        """The events of the namespace, in the order of the log, as the feed tells them: those that come from the first step of
        the iteration on; or those since a time, or all that the feed still holds (`since="beginning"`), and those that come.

        `after`: those behind this one, to go on where one was. `types`: only these (`ExecutionEventType`). `execution_id`: only
        of this execution, or of what executions share. `follow=False`: ends with what is there now.

        There are events where a process of projections runs. Raises `ValidationError` (`unknown_event_type`, `naive_time`,
        `bad_execution_id`), `Unavailable`.
        """
        return self._loop.iterate(self._its.events(since, after=after, types=types, execution_id=execution_id, follow=follow))

    def get(
        self, execution_id: str, *, version: int | None = None, at: datetime | None = None, full: bool = False
    ) -> ExecutionResult | None:
        """Everything known of an execution; None if there is none of that id.

        With `version` as it was after that event, with `at` as it was at that time (None: it had not begun). Raises `NotFound`
        (`unknown_version`) for a version that it has not come to. `full`: with its `metrics`, `resource_usage` and `timeline` up
        to there, which are read from the history once more.
        """
        return self._loop.call(self._its.get(execution_id, version=version, at=at, full=full))

    def get_or_raise(
        self, execution_id: str, *, version: int | None = None, at: datetime | None = None, full: bool = False
    ) -> ExecutionResult:
        """As `get`; raises `NotFound`, with the code `not_yet` if it began after `at`."""
        return self._loop.call(self._its.get_or_raise(execution_id, version=version, at=at, full=full))

    def status(self, execution_id: str) -> ExecutionStatus:
        """The status of an execution. Raises `NotFound`."""
        return self._loop.call(self._its.status(execution_id))

    def poll(self, execution_id: str) -> Pending | Ok | Err:
        """`Pending`, `Ok(value)` or `Err(error)`, without waiting. What nobody committed yet is pending."""
        return self._loop.call(self._its.poll(execution_id))

    def history(self, execution_id: str, *, version: int | None = None, at: datetime | None = None) -> list[Commit]:
        """Its commits from the first to the last; also of what executions share (`list_ids(shared=True)`).

        With `version` or `at` up to that event, or time, the last of them cut where it must be. Raises `NotFound`,
        `CorruptHistory`.
        """
        return self._loop.call(self._its.history(execution_id, version=version, at=at))

    def open_object(self, ref: ObjectRef) -> Any:
        """The value that is kept as an object, where an event or a result says only which (docs/how-to/large-data.md).

        Raises `CorruptHistory` (`object_missing`, `object_altered`), `Unavailable`.
        """
        return self._loop.call(self._its.open_object(ref))

    def verify(self, execution_id: str) -> Verification:
        """Whether its history is whole and lawful, and where it breaks if not; as `history`. Raises `NotFound`."""
        return self._loop.call(self._its.verify(execution_id))

    def list_ids(self, *, shared: bool = False) -> list[str]:
        """The ids of all executions, oldest id first; with `shared` those of what executions share as well."""
        return self._loop.call(self._its.list_ids(shared=shared))

    def stats(self, **conditions: Unpack[StatisticsConditions]) -> ExecutionStatistics:
        """How executions went, in figures: of all, or of those with this `name` (of the plan) or `plan_id`, and created from
        `since` on, before `until`, in full hours. `by`: also for each `name`, `plan_id`, `hour` or `day`. `after`: as of this
        position of the log, or later.

        Raises ValidationError, and Unavailable where no projections run (`no_projections`) or they are behind (`not_yet`).
        """
        return self._loop.call(self._its.stats(**conditions))

    def task_stats(self, **conditions: Unpack[TaskStatisticsConditions]) -> TaskStatistics:
        """How steps went, in figures: of all, or of those of the task with this `name`; by `name`, `hour` or `day`. Otherwise
        as `stats`."""
        return self._loop.call(self._its.task_stats(**conditions))

    def cancel(self, execution_id: str, *, reason: str = "") -> bool:
        """Ask for the end of an execution: True if that took effect, False if it had ended. Raises `NotFound`."""
        return self._loop.call(self._its.cancel(execution_id, reason=reason))

    def pause(self, execution_id: str, reason: str = "") -> bool:
        """Hand out nothing new; what runs may end. True if that took effect, False if it was paused already.

        Raises `NotFound`, or `Refused` (`ended`, `ending`).
        """
        return self._loop.call(self._its.pause(execution_id, reason))

    def resume(self, execution_id: str) -> bool:
        """Go on after a pause. True if that took effect, False if it was not paused.

        Raises `NotFound`, or `Refused` (`ended`).
        """
        return self._loop.call(self._its.resume(execution_id))

    def retry(self, execution_id: str, *, step: str | None = None, as_new: bool = False, new_id: str | None = None) -> SyncHandle:
        """Run again what ended without completing: its completed steps keep their outputs, unless they were undone.

        `step`: of the failed steps only this one. `as_new`: as an execution of its own (called `new_id`, if that matters),
        which the handle then is of.

        Raises `NotFound`, or `Refused` (`not_ended`, `nothing_to_retry`, `unknown_step`, `fork_too_large`).
        """
        return SyncHandle(self._loop.call(self._its.retry(execution_id, step=step, as_new=as_new, new_id=new_id)), self._loop)

    def rollback(self, execution_id: str, reason: str = "") -> SyncHandle:
        """Undo what an execution that has ended did; wait for the handle to see what came of it.

        Raises `NotFound`, or `Refused` (`not_ended`, `nothing_to_compensate`).
        """
        return SyncHandle(self._loop.call(self._its.rollback(execution_id, reason)), self._loop)

    def rollback_plan(self, execution_id: str) -> list[Undo]:
        """What a rollback of it would do now, in its order, and why some steps would stay as they are. Raises `NotFound`."""
        return self._loop.call(self._its.rollback_plan(execution_id))

    def configure(self, **settings: Any) -> None:
        """Set the namespace's level of the settings (`max_retries=5`, `timeout="1m"`, …); what is not given stays as it is.

        None takes back what was said. `queues={"background": {"timeout": "10m"}}`: for the attempts on that queue, above the
        other settings of the namespace. `rate_limit` and `concurrency` are said as a whole. Raises `ValidationError`,
        `NotConfirmed`.
        """
        self._loop.call(self._its.configure(**settings))

    def configuration(self) -> NamespaceConfig:
        """The namespace's level of the settings; what was never said is None."""
        return self._loop.call(self._its.configuration())

    def add_recovery_strategy(self, strategy: Any) -> str:
        """See `Strategies.add`."""
        return self._loop.call(self._its.add_recovery_strategy(strategy))

    def remove_recovery_strategy(self, strategy_id: str) -> bool:
        """See `Strategies.remove`."""
        return self._loop.call(self._its.remove_recovery_strategy(strategy_id))
