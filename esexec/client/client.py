"""The client: publishes commands, follows executions, reads histories. It holds no truth of its own.

What a call waits for is said in one place each: `start` for the executor's commit, `wait` for the execution's end. Commands are
durable as soon as they are stored; a caller that gives up waiting takes nothing back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast, overload

import msgspec

from esexec.client.actor import actor_of
from esexec.client.alerts import Alerts
from esexec.client.chain import ChainResult, Interrupt, LinkLike, chained
from esexec.client.checkpoints import Checkpoints
from esexec.client.closures import AsyncClosure, Closure
from esexec.client.commands import MapOptions, Startable, StartOptions, checked_id, start_command
from esexec.client.dead_letters import DeadLetters
from esexec.client.durations import PastDurations
from esexec.client.errors import not_found, not_open, too_late
from esexec.client.events import EventReader, Since
from esexec.client.executions import Executions, TasksOfExecutions
from esexec.client.feed import Feed, Watch
from esexec.client.handle import Handle, Starting
from esexec.client.histories import Histories, not_yet
from esexec.client.instances import Instances
from esexec.client.large import fill, filled, verified
from esexec.client.live import Live, LiveOf
from esexec.client.many import checked_rows, gathered, outcomes_gathered, outcomes_of, outputs_of, plan_of_map
from esexec.client.monitor import Monitor
from esexec.client.monitoring import Monitorings
from esexec.client.plans import Planner, Plans
from esexec.client.queries import (
    Queries,
    StatisticsConditions,
    TaskStatisticsConditions,
    statistics_asked,
    task_statistics_asked,
)
from esexec.client.resources import Resources
from esexec.client.sending import Sender
from esexec.client.strategies import Strategies, namespace_of
from esexec.client.subscriptions import Callback, Subscription, Subscriptions
from esexec.client.times import patience
from esexec.client.workers import Workers
from esexec.cloudevents import CloudEvent
from esexec.domain import commands as c
from esexec.domain.announced import warnings_of
from esexec.domain.commit import Commit
from esexec.domain.errors import AwaitTimeout, Conflict, EsexecError, NotConfirmed, Unavailable
from esexec.domain.ids import namespace_named
from esexec.domain.messages import Answer
from esexec.domain.namespace import SETTINGS_ENTITY
from esexec.domain.objects import ObjectRef
from esexec.domain.past import as_of
from esexec.domain.reading import read_change
from esexec.domain.rollback import Undo, rollback_plan
from esexec.domain.settings import NamespaceConfig
from esexec.domain.state import ExecutionState
from esexec.log import codec
from esexec.log.jetstream import JetStreamLog
from esexec.log.verify import Verification
from esexec.nats.connection import Auth, Connection, Msg, connect
from esexec.nats.direct import DirectReader
from esexec.nats.publisher import Publisher
from esexec.nats.streams import ensure_streams
from esexec.nats.subjects import Subjects
from esexec.plans import Duration
from esexec.results import Err, ExecutionResult, ExecutionStatus, Ok, Pending, T, outcome_of, result_of
from esexec.tasks import Returns, Task
from esexec.tasks.reading import reader_of
from esexec.world import new_id as fresh_id
from projections.statistics_asks import ExecutionStatistics, TaskStatistics

if TYPE_CHECKING:
    from esexec.client.sync import SyncClient

_ONCE_OPEN = frozenset(
    {"_durations", "_feed", "_live_of", "_log", "_monitorings", "_publisher", "_reader", "_sender", "_subscriptions", "queries"}
)
CONFIRM_S = 5.0
"""How long a command may go unanswered before `NotConfirmed`."""


class Client:
    """A connection to a namespace (`instance` is another name for it). Use as `async with esexec.connect(url) as client:`.

    Without a `url` the environment, the project's file and contexts of the `nats` program say whatever is not given (see
    `esexec.connect`); with one nothing but the arguments holds, and the namespace is `default` unless named.

    `actor`: who gives the commands, for the history (`owner` is another name for it); else `$ESEXEC_ACTOR`, else the NATS user,
    else nobody is named. `planner`: makes plans from queries (`plans.create`).

    Raises `Unavailable` on entry if no server answers.
    """

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
        namespace = namespace_named(namespace, instance)
        if not url:
            from esexec.configuration import configuration  # reads files: not needed by whoever says where

            settled = configuration({"namespace": namespace, "actor": actor or owner, **auth})
            url, namespace, actor, auth = settled.url, settled["namespace"], settled["actor"], settled.auth
        self.url = url
        self.actor = actor_of(actor or owner, self.url, auth)
        self.executions, self.tasks, self.checkpoints = Executions(self), TasksOfExecutions(self), Checkpoints(self)
        self.plans, self.strategies, self.resources = Plans(self, planner), Strategies(self), Resources(self)
        self.alerts, self.monitor, self.histories = Alerts(self), Monitor(self), Histories(self)
        self.workers = Workers(self)
        self.dead_letters = DeadLetters(self)
        self._auth, self._patience, self._confirm_s = auth, patience, confirm_s
        self._subjects = Subjects("default" if namespace is None else namespace)
        self._instances = Instances(self._another)
        self._connection: Connection | None = None
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._closing is not None:  # it was cut off, and goes on
            await asyncio.shield(self._closing)
        connection = await connect(self.url, name="esexec-client", patience=self._patience, **self._auth)
        try:
            await ensure_streams(connection, self._subjects)
            self._publisher = await Publisher(connection).start()
            self._reader = await DirectReader(connection).start()
            self._log = JetStreamLog(connection, self._subjects, self._publisher, self._reader)
            self._stand_on(connection)
            await self._feed.start()
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return self

    def _stand_on(self, connection: Connection) -> None:
        """Make all that works with this connection, and with the log, the reader and the publisher that are there."""
        self._live_of: LiveOf = partial(Live, connection, self._reader, self._subjects)
        self._events = EventReader(connection, self._reader, self._subjects)
        self._feed = Feed(connection, self._subjects, self._log)
        self._durations = PastDurations(connection, self._subjects)
        self._subscriptions = Subscriptions(self.monitor._watch)
        self._monitorings = Monitorings(connection, self._subjects, self._subscriptions)
        self._sender = Sender(
            connection,
            self._subjects,
            self._publisher,
            self._feed,
            self._log.objects,
            confirm_s=self._confirm_s,
            handle_of=partial(Handle, self),
        )
        self.queries = Queries(connection, self._subjects)

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None and self._closing is None:
            self._closing = asyncio.create_task(self._close(self._connection, asyncio.current_task()))
        if self._closing is not None:
            await asyncio.shield(self._closing)  # cancelled, it goes on to its end

    async def _close(self, open_connection: Connection, by: "asyncio.Task[Any] | None") -> None:
        try:
            await self.alerts._close(by)
            await self._instances.close()
            self._connection = None
            await self._subscriptions.close(by)
            await self._feed.close()
            await self._publisher.close()
        finally:
            self._connection = None
            await open_connection.close()
            self._closing = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What is there only once it is open. Asked for nothing else."""
            if name in _ONCE_OPEN:
                raise not_open()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def _open_connection(self) -> Connection:
        if self._connection is None:
            raise not_open()
        return self._connection

    @property
    def namespace(self) -> str:
        return self._subjects.namespace

    def _another(self, namespace: str) -> "Client":
        """For `instance=`; raises `ValidationError` (`not_open`) if this one is not open."""
        if self._connection is None:
            raise not_open()
        return Client(
            self.url, namespace=namespace, actor=self.actor, confirm_s=self._confirm_s, patience=self._patience, **self._auth
        )

    @property
    def sync(self) -> "SyncClient":
        """This very client for other threads than that of its loop, as long as it is open: each call waits there for what this
        loop does, as for `connect_sync`. In the loop's own thread a call raises `ValidationError` (`own_loop`).
        """
        from esexec.client.sync import SyncClient  # is made of this module

        return SyncClient.of(self, self._feed.loop)

    @property
    def owner(self) -> str | None:
        """`actor`: of the executions that it starts it is the owner."""
        return self.actor

    # Starting --------------------------------------------------------------------------------------------------------------

    def start(self, what: Startable[T], input: Any = None, **options: Unpack[StartOptions]) -> Starting[T]:
        """Start a plan or a task: `handle = await client.start(…)` returns once the executor has committed it. With
        `async with client.start(…) as handle:` the execution is cancelled if the block is left before it has ended.

        Raises the typed refusal (`PlanInvalid`, `Conflict`, `Overloaded`, `ValidationError`), or `NotConfirmed`, carrying the
        handle, if nobody answers in time: the command stays durable and will be carried out (unless its code is `not_stored`:
        the server is away, and it is durable only once this client has reached it).
        """
        if options.get("execution_id") is not None or options.get("instance") is not None:
            return Starting(self, None, self._start(what, input, options))
        execution_id = fresh_id()
        return Starting(self, execution_id, self._start(what, input, options, execution_id))

    async def _start(self, what: Startable, input: Any, options: StartOptions, fresh: str | None = None) -> Handle[Any]:
        """`fresh`: the execution's id, where the caller has not said one."""
        if options and (instance := options.get("instance")) not in (None, self.namespace):
            other = await self._instances.of(instance)
            options["instance"] = None
            return await other._start(what, input, options)
        execution_id, command = start_command(what, input, options, self.owner, execution_id=fresh)
        watch = await self._feed.open(execution_id)
        try:
            handle = await self._started(watch, command)
        finally:
            await self._feed.release(watch)
        handle._read = reader_of(what) if isinstance(what, Task) else None
        handle._is_orphan = fresh is not None and not handle.duplicate and command.idempotency_key is None
        return handle

    async def _started(self, watch: Watch, command: c.StartExecution) -> Handle:
        execution_id = watch.state.execution_id
        answer = await self._sender.send(watch, "start", command)
        if answer is None or answer.status == "accepted":
            state = watch.state
            return Handle(self, execution_id, warnings=warnings_of(state.created.unannounced) if state.exists else ())
        return Handle(self, answer.original_id or execution_id, duplicate=True)

    async def execute(
        self, what: Startable, input: Any = None, *, wait_timeout: Duration | None = None, **options: Unpack[StartOptions]
    ) -> ExecutionResult:
        """Start, and wait for the end, whatever it is: a failed execution is a result, not an exception.

        Raises as `start` does; `AwaitTimeout` after `wait_timeout` (a number: seconds; None: never).
        """
        wait_s = patience(wait_timeout)
        if options and (instance := options.get("instance")) not in (None, self.namespace):
            other = await self._instances.of(instance)
            options["instance"] = None
            return await other.execute(what, input, wait_timeout=wait_timeout, **options)
        execution_id, command = start_command(what, input, options, self.owner, waits=True)
        watch = await self._feed.open(execution_id)
        try:
            # One wait instead of two: the start is confirmed or refused, or the execution has ended.
            patient = wait_s is None
            answer = await self._sender.send(watch, "start", command, until_end=patient)
            if answer is not None and answer.status == "duplicate":
                return await self.wait(answer.original_id or execution_id, wait_timeout=wait_s)
            state = await self._ended(watch, wait_s)
            return await self._result(state) if state.has_objects else result_of(state)
        finally:
            await self._feed.release(watch)

    async def _result(self, state: ExecutionState) -> ExecutionResult:
        """What came of it, with the values of its objects."""
        result = result_of(state)
        return await fill(self._log.objects, result) if state.has_objects else result

    async def run(
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
        given = params if input is None else input
        output = (await self.execute(what, given, wait_timeout=wait_timeout, **options)).unwrap()
        return read(output) if isinstance(what, Task) and (read := reader_of(what)) is not None else output  # type: ignore[no-any-return]

    async def try_run(
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
        given = params if input is None else input
        read = reader_of(what) if isinstance(what, Task) else None
        try:
            result = await self.execute(what, given, wait_timeout=wait_timeout, **options)
            return Ok(result.unwrap() if read is None else read(result.unwrap()), result.directive)
        except (AwaitTimeout, NotConfirmed, Unavailable):
            raise
        except EsexecError as error:
            return Err(error, getattr(error, "directive", None))

    # Many ------------------------------------------------------------------------------------------------------------------

    @overload
    async def map(
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
    async def map(
        self,
        task: Returns[T] | str,
        rows: Iterable[Any],
        *,
        concurrency: int | None = None,
        return_errors: Literal[True],
        wait_timeout: Duration | None = None,
        **options: Unpack[MapOptions],
    ) -> list[Ok[T] | Err]: ...
    async def map(
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
        rows = checked_rows(rows)
        if not rows:
            return []
        said = cast(StartOptions, {**options})
        if concurrency is not None:
            said["parallel_execution_limit"] = concurrency
        if return_errors:
            said["continue_on_error"] = True
        result = await self.execute(plan_of_map(task, len(rows)), rows, wait_timeout=wait_timeout, **said)
        read = reader_of(task) if isinstance(task, Task) else None
        return outcomes_of(result, read) if return_errors else outputs_of(result, read)

    @overload
    async def gather(
        self, handles: Iterable[Handle[T] | str], *, return_errors: Literal[False] = False, wait_timeout: Duration | None = None
    ) -> list[T]: ...
    @overload
    async def gather(
        self, handles: Iterable[Handle[T] | str], *, return_errors: Literal[True], wait_timeout: Duration | None = None
    ) -> list[Ok[T] | Err]: ...
    async def gather(
        self, handles: Iterable[Handle[T] | str], *, return_errors: bool = False, wait_timeout: Duration | None = None
    ) -> list[T] | list[Ok[T] | Err]:
        """Wait for executions (their handles, or ids): their outputs, in the order of the handles.

        Raises the first error that there is, and `AwaitTimeout` after `wait_timeout` (a number: seconds; None: never); the others
        go on, and nothing is cancelled. With `return_errors` each has its `Ok(value)` or `Err(error)`, which may be that.
        """
        if return_errors:
            return await outcomes_gathered(self, handles, wait_timeout)
        return await gathered(self, handles, wait_timeout)

    async def chain(
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
        return await chained(self, links, params, interrupt, wait_timeout, options)

    # Prepared --------------------------------------------------------------------------------------------------------------

    def closure(
        self, what: Startable[T], params: Any = None, *, wait_timeout: Duration | None = None, **options: Unpack[StartOptions]
    ) -> Closure[T]:
        """A function of the params: `process = client.closure("process", {"format": "json"})`, then `await process({"data": 1})`.

        The params of the call are laid over these `params`, its options over `options`. It gives what `run` gives.
        """
        return Closure(self, what, params, wait_timeout, options)

    def async_closure(self, what: Startable[T], params: Any = None, **options: Unpack[StartOptions]) -> AsyncClosure[T]:
        """As `closure`, but it gives what `start` gives: `handle = await process({"data": 1})`."""
        return AsyncClosure(self, what, params, options)

    # Following ---------------------------------------------------------------------------------------------------------------

    def handle(self, execution_id: str) -> Handle:
        """A handle for an execution that somebody started. Raises `ValidationError` for what is no id."""
        return Handle(self, checked_id(execution_id))

    async def wait(self, execution_id: str, *, wait_timeout: Duration | None = 5.0) -> ExecutionResult:
        """The result once it has ended; one that is not there yet is waited for. Raises `AwaitTimeout`, which touches nothing."""
        wait_s = patience(wait_timeout)
        watch = await self._feed.open(checked_id(execution_id))
        try:
            return await self._result(await self._ended(watch, wait_s))
        finally:
            await self._feed.release(watch)

    async def _ended(self, watch: Watch, wait_timeout: float | None) -> ExecutionState:
        if not watch.state.exists:
            await self._feed.catch_up(watch)
        if wait_timeout is None:
            await watch.ended()
        elif not watch.state.ended:
            try:
                async with asyncio.timeout(wait_timeout):
                    await watch.ended()
            except TimeoutError:
                await self._feed.catch_up(watch)
                if not watch.state.ended:
                    raise too_late(watch.state, wait_timeout) from None
        return watch.state

    async def subscribe(self, execution_id: str, callback: Callback) -> Subscription:
        """See `Monitor.subscribe`."""
        return await self.monitor.subscribe(execution_id, callback)

    async def unsubscribe(self, execution_id: str, callback: Callback) -> bool:
        """See `Monitor.unsubscribe`."""
        return await self.monitor.unsubscribe(execution_id, callback)

    def events(
        self,
        since: Since = None,
        *,
        after: CloudEvent | None = None,
        types: str | Iterable[str] = (),
        execution_id: str | None = None,
        follow: bool = True,
    ) -> AsyncIterator[CloudEvent]:
        """The events of the namespace, in the order of the log, as the feed tells them: those that come from the first step of
        the iteration on; or those since a time, or all that the feed still holds (`since="beginning"`), and those that come.

        `after`: those behind this one, to go on where one was. `types`: only these (`ExecutionEventType`). `execution_id`: only
        of this execution, or of what executions share. `follow=False`: ends with what is there now.

        There are events where a process of projections runs. Raises `ValidationError` (`unknown_event_type`, `naive_time`,
        `bad_execution_id`), `Unavailable`.
        """
        return self._events.events(since, after, types, execution_id, follow)

    # Reading -------------------------------------------------------------------------------------------------------------------

    async def get(
        self, execution_id: str, *, version: int | None = None, at: datetime | None = None, full: bool = False
    ) -> ExecutionResult | None:
        """Everything known of an execution; None if there is none of that id.

        With `version` as it was after that event, with `at` as it was at that time (None: it had not begun). Raises `NotFound`
        (`unknown_version`) for a version that it has not come to. `full`: with its `metrics`, `resource_usage` and `timeline` up
        to there, which are read from the history once more.
        """
        past = version is not None or at is not None
        state = await (self.histories.state(execution_id, version=version, at=at) if past else self._state(execution_id))
        if not state.exists:
            return None
        result = await self._result(state)
        if full:
            await self.monitor._fill(result, version=version, at=at)
        return result

    async def get_or_raise(
        self, execution_id: str, *, version: int | None = None, at: datetime | None = None, full: bool = False
    ) -> ExecutionResult:
        """As `get`; raises `NotFound`, with the code `not_yet` if it began after `at`."""
        found = await self.get(execution_id, version=version, at=at, full=full)
        if found is None:
            raise not_found(execution_id) if at is None else not_yet(execution_id, at)
        return found

    async def status(self, execution_id: str) -> ExecutionStatus:
        """The status of an execution. Raises `NotFound`."""
        return (await self.get_or_raise(execution_id)).status

    async def poll(self, execution_id: str) -> Pending | Ok | Err:
        """`Pending`, `Ok(value)` or `Err(error)`, without waiting. What nobody committed yet is pending."""
        state = await self._state(execution_id)
        if not state.exists:
            return Pending(ExecutionStatus.PENDING)
        outcome = outcome_of(state)
        return await filled(self._log.objects, outcome) if state.has_objects else outcome

    async def history(self, execution_id: str, *, version: int | None = None, at: datetime | None = None) -> list[Commit]:
        """Its commits from the first to the last; also of what executions share (`list_ids(shared=True)`).

        With `version` or `at` up to that event, or time, the last of them cut where it must be. Raises `NotFound`,
        `CorruptHistory`.
        """
        commits = await self._read_commits(checked_id(execution_id, ours=True))
        if not commits:
            raise not_found(execution_id)
        return list(as_of(commits, version=version, at=at))

    async def open_object(self, ref: ObjectRef) -> Any:
        """The value that is kept as an object, where an event or a result says only which (docs/how-to/large-data.md).

        Raises `CorruptHistory` (`object_missing`, `object_altered`), `Unavailable`.
        """
        return await self._log.objects.value(ref)

    async def verify(self, execution_id: str) -> Verification:
        """Whether its history is whole and lawful, and where it breaks if not; as `history`. Raises `NotFound`."""
        history = await self._log.load_raw(checked_id(execution_id, ours=True))
        if not history:
            raise not_found(execution_id)
        return await verified(self._log.objects, execution_id, history)

    async def list_ids(self, *, shared: bool = False) -> list[str]:
        """The ids of all executions, oldest id first; with `shared` those of what executions share as well."""
        return sorted([entity async for entity in self._log.entities() if shared or not entity.startswith("_")])

    async def stats(self, **conditions: Unpack[StatisticsConditions]) -> ExecutionStatistics:
        """How executions went, in figures: of all, or of those with this `name` (of the plan) or `plan_id`, and created from
        `since` on, before `until`, in full hours. `by`: also for each `name`, `plan_id`, `hour` or `day`. `after`: as of this
        position of the log, or later.

        Raises ValidationError, and Unavailable where no projections run (`no_projections`) or they are behind (`not_yet`).
        """
        return await self.queries.ask("stats", statistics_asked(conditions), ExecutionStatistics)

    async def task_stats(self, **conditions: Unpack[TaskStatisticsConditions]) -> TaskStatistics:
        """How steps went, in figures: of all, or of those of the task with this `name`; by `name`, `hour` or `day`. Otherwise
        as `stats`."""
        return await self.queries.ask("task_stats", task_statistics_asked(conditions), TaskStatistics)

    async def _state(self, execution_id: str) -> ExecutionState:
        watch = Watch(self._feed, checked_id(execution_id))
        return await self._feed.catch_up(watch)

    async def _read_commits(self, execution_id: str) -> list[Commit]:
        return [codec.commit_of(stored) for stored in await self._log.load(execution_id)]

    # Other commands ----------------------------------------------------------------------------------------------------------

    async def cancel(self, execution_id: str, *, reason: str = "") -> bool:
        """Ask for the end of an execution: True if that took effect, False if it had ended. Raises `NotFound`."""
        return await self._tell(execution_id, "cancel", c.CancelExecution(id=fresh_id(), reason=reason, actor=self.owner))

    async def pause(self, execution_id: str, reason: str = "") -> bool:
        """Hand out nothing new; what runs may end. True if that took effect, False if it was paused already.

        Raises `NotFound`, or `Refused` (`ended`, `ending`).
        """
        return await self._tell(execution_id, "pause", c.PauseExecution(id=fresh_id(), reason=reason, actor=self.owner))

    async def resume(self, execution_id: str) -> bool:
        """Go on after a pause. True if that took effect, False if it was not paused.

        Raises `NotFound`, or `Refused` (`ended`).
        """
        return await self._tell(execution_id, "resume", c.ResumeExecution(id=fresh_id(), actor=self.owner))

    async def retry(
        self, execution_id: str, *, step: str | None = None, as_new: bool = False, new_id: str | None = None
    ) -> Handle:
        """Run again what ended without completing: its completed steps keep their outputs, unless they were undone.

        `step`: of the failed steps only this one. `as_new`: as an execution of its own (called `new_id`, if that matters),
        which the handle then is of.

        Raises `NotFound`, or `Refused` (`not_ended`, `nothing_to_retry`, `unknown_step`, `fork_too_large`).
        """
        if new_id is not None:
            checked_id(new_id)
        as_new = as_new or new_id is not None
        command = c.RetryExecution(id=fresh_id(), step=step, as_new=as_new, new_id=new_id, actor=self.owner)
        await self._tell(execution_id, "retry", command)
        if not as_new:
            return Handle(self, execution_id)
        return await self._forked(execution_id, new_id or command.id)

    async def rollback(self, execution_id: str, reason: str = "") -> Handle:
        """Undo what an execution that has ended did; wait for the handle to see what came of it.

        Raises `NotFound`, or `Refused` (`not_ended`, `nothing_to_compensate`).
        """
        await self._tell(execution_id, "rollback", c.RollbackExecution(id=fresh_id(), reason=reason, actor=self.owner))
        return Handle(self, execution_id)

    async def rollback_plan(self, execution_id: str) -> list[Undo]:
        """What a rollback of it would do now, in its order, and why some steps would stay as they are. Raises `NotFound`."""
        state = await self._state(execution_id)
        if not state.exists:
            raise not_found(execution_id)
        return rollback_plan(state)

    async def _tell(self, execution_id: str, verb: str, command: c.ControlCommand) -> bool:
        """Give a command to an execution: whether it took effect. Raises what it was refused with, or `NotConfirmed`."""
        watch = await self._feed.open(checked_id(execution_id))
        try:
            answer = await self._sender.send(watch, verb, command)
            effective = answer is None or answer.effective
            if effective and command.id not in watch.state.applied:
                await self._feed.catch_up(watch)  # the answer overtook the commit: who waits next must not see the state before
            return effective
        finally:
            await self._feed.release(watch)

    async def _forked(self, execution_id: str, new_execution_id: str) -> Handle:
        """The handle of an execution that carries on from another, once it is there."""
        watch, begun = await self._feed.open(new_execution_id), asyncio.Event()

        def heard(_: Commit) -> None:
            begun.set()

        watch.heard.append(heard)
        try:
            await self._feed.catch_up(watch)
            if not watch.state.exists:
                async with asyncio.timeout(self._confirm_s):
                    await begun.wait()
        except TimeoutError:
            error = NotConfirmed(f"{new_execution_id} has not begun within {self._confirm_s:g} s; it will", hint="wait for it")
            error.handle = Handle(self, new_execution_id)
            raise error from None
        finally:
            watch.heard.remove(heard)
            await self._feed.release(watch)
        if watch.state.created.forked_from != execution_id:
            raise Conflict(f"execution {new_execution_id} exists with other content", hint="choose another id, or leave it out")
        return Handle(self, new_execution_id)

    async def configure(self, **settings: Any) -> None:
        """Set the namespace's level of the settings (`max_retries=5`, `timeout="1m"`, …); what is not given stays as it is.

        None takes back what was said. `queues={"background": {"timeout": "10m"}}`: for the attempts on that queue, above the
        other settings of the namespace. `rate_limit` and `concurrency` are said as a whole. Raises `ValidationError`,
        `NotConfirmed`.
        """
        command = c.ConfigureNamespace(id=fresh_id(), config=read_change(settings, in_seconds=True), actor=self.owner)
        await self._tell_shared(SETTINGS_ENTITY, "configure", command)

    async def configuration(self) -> NamespaceConfig:
        """The namespace's level of the settings; what was never said is None."""
        return (await namespace_of(self)).config

    async def add_recovery_strategy(self, strategy: Any) -> str:
        """See `Strategies.add`."""
        return await self.strategies.add(strategy)

    async def remove_recovery_strategy(self, strategy_id: str) -> bool:
        """See `Strategies.remove`."""
        return await self.strategies.remove(strategy_id)

    async def _tell_shared(self, entity: str, verb: str, command: c.SharedCommand) -> bool:
        """Give a command to what executions share: whether it changed anything. Raises as `_tell`."""
        watch = await self._feed.open(entity)
        try:
            answer = await self._sender.send(watch, verb, command)
            return answer is None or answer.effective
        finally:
            await self._feed.release(watch)

    @asynccontextmanager
    async def _answers_to(self, entity: str, command_id: str, hear: Callable[[Answer], None]) -> AsyncIterator[None]:
        """Hear every answer to a command, also those behind the first."""
        connection = self._connection
        if connection is None:
            raise not_open()

        async def heard(message: Msg) -> None:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                hear(_answer(message.data))

        subscription = await connection.subscribe(self._subjects.reply(entity, command_id), heard)
        try:
            yield
        finally:
            if not connection.is_closed:
                await subscription.unsubscribe()


_answer = msgspec.json.Decoder(Answer).decode
