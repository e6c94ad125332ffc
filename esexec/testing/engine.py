"""`VirtualEngine`: an engine in memory, without a server, whose time passes at once and only when it is told to.

The executor's desks, the core, the codec, the worker's runner and the client are the engine's own; what takes the place of NATS
is in `wire`, `outbox` and `log`. Nothing here knows a rule of execution.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from contextvars import copy_context
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar, Unpack

from esexec.client import Client, Startable, StartOptions
from esexec.client.times import checked_time
from esexec.domain.commit import Commit
from esexec.domain.durations import milliseconds
from esexec.domain.errors import ErrorInfo, InternalError, NotFound, ValidationError
from esexec.domain.events import TYPES, type_of
from esexec.executor.envelope import Envelope
from esexec.nats.subjects import Subjects
from esexec.tasks import RecoveryStrategy, Task, Tasks, WorkerResource, collect, collect_resources, collect_strategies
from esexec.tasks.options import Duration
from esexec.testing.client import VirtualClient
from esexec.testing.clock import BEGINNING, VirtualWorld
from esexec.testing.faults import Failure, Fault, Stub
from esexec.testing.log import SharedLog
from esexec.testing.loop import FOR_EVER, VirtualLoop
from esexec.testing.node import Node
from esexec.testing.then import Then
from esexec.testing.wire import Parcel, Wire
from esexec.testing.worker import VirtualWorker
from esexec.worker import Worker
from esexec.world import inside

T = TypeVar("T")


class VirtualEngine:
    """An engine for tests, in this thread: `with VirtualEngine() as engine:`, or the fixture `esexec_engine`.

    `now`: when it begins. `seed`: delays have their jitter, the same for the same seed; without it they have none. `actor`: who
    gives the commands. `patience`: how long, in real time, sync handlers may take before the test fails. At the end of the block
    all histories are verified, and every fault must have hit something. Not from within a running event loop.
    """

    def __init__(
        self, *, now: datetime = BEGINNING, seed: int | None = None, actor: str = "test", patience: Duration = "20s"
    ) -> None:
        _check_no_loop()
        patience_s, now = _seconds(patience, "patience"), checked_time("now", now)
        self._loop = VirtualLoop(lambda: self._worker.busy, patience_s)
        self._world = VirtualWorld(self._loop, now, seed)
        self._subjects = Subjects("test")
        self._wire = Wire(self._loop, self._world, self._subjects)
        self._log = SharedLog(self._wire)
        self._worker = VirtualWorker(self._loop, self._wire, self._subjects, self._log.objects)
        self._client = VirtualClient(self._wire, self._log, actor)
        self._tasks: dict[str, Task[..., Any]] = {}
        self._strategies: dict[str, RecoveryStrategy] = {}
        self._resources: dict[str, WorkerResource] = {}
        self._stubs: dict[str, Stub] = {}
        self._deaths: list[str | None] = []
        self._executors = 0
        self.dead: list[ErrorInfo] = []
        """Why messages could not be decided, if any could not."""
        self._wire.deliver = self._deliver
        self._loop.set_exception_handler(self._went_wrong)
        with inside(self._world):
            self._loop.home = copy_context()
        self.run(self._open())

    async def _open(self) -> None:
        self._node = self._new_node()
        await self._worker.open()
        await self._client.open()

    def _went_wrong(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something that nobody waits for has failed: an engine or a handler that is at fault is not to hang the test."""
        self._wire.failures.append(context.get("exception") or InternalError(str(context["message"])))

    async def _deliver(self, parcel: Parcel) -> None:
        await self._node.take(parcel)

    # The end -----------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(check=kind is None)

    def close(self, *, check: bool = True) -> None:
        """End it. `check`: raise AssertionError for a history that does not verify, or a fault that hit nothing."""
        __tracebackhide__ = True
        if self._loop.is_closed():
            return
        try:
            if check:
                self.verify()
                self._check_faults()
        finally:
            self._shut()

    def verify(self) -> None:
        """Every history is whole and lawful, of executions and of what they share; else AssertionError."""
        __tracebackhide__ = True
        problems = self._log.problems()
        if problems:
            raise AssertionError("histories that do not verify:\n" + "\n".join(problems))

    def _check_faults(self) -> None:
        __tracebackhide__ = True
        idle = [repr(fault) for fault in self._worker.faults if not fault.hits]
        if idle:
            raise AssertionError(f"{', '.join(idle)} hit nothing: is there such a step, and was it reached?")

    def _shut(self) -> None:
        self._node.die()
        with inside(self._world):
            end = self._loop.create_task(self._shut_down())
            self._loop.go_on(FOR_EVER, end.done)
        self._loop.close()

    async def _shut_down(self) -> None:
        await self._client.close()
        await self._worker.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    # Given -----------------------------------------------------------------------------------------------------------------

    def given(
        self,
        tasks: Tasks = (),
        *,
        strategies: Iterable[Any] = (),
        resources: Mapping[str, Any] | Iterable[WorkerResource] = (),
        **settings: Any,
    ) -> Self:
        """The worker has these, beside what it was given before: as `Worker` takes them. Recovery strategies are made known to
        the namespace, too; `settings` are its level of the settings (`max_retries=5`). Raises as `Worker` and `configure` do."""
        self._tasks |= collect(tasks)
        new = collect_strategies(tasks, strategies)
        self._strategies |= new
        self._resources |= collect_resources(tasks, resources)
        self.run(self._equip())
        for strategy in new.values():
            self.run(self._client.strategies.add(strategy))
        if settings:
            self.run(self._client.configure(**settings))
        return self

    def stub(
        self, task: Task[..., Any] | str, *, returns: Any = None, raises: Failure | None = None, takes: Duration = 0
    ) -> Stub:
        """The task does this from now on, instead of what it does: it returns a value (or what a function makes of its params),
        or raises an error (a text is its code), after so long. Its settings, compensation and params stay what they are."""
        name = task.name if isinstance(task, Task) else task
        stub = Stub(name, returns, raises, _seconds(takes, "takes"), self._tasks.get(name))
        self._stubs[name] = stub
        self.run(self._equip())
        return stub

    def fail_step(
        self,
        step: str,
        failure: Failure = "INJECTED",
        *,
        times: int | None = 1,
        lasting: Duration | None = None,
        after: Duration = 0,
        retry: bool | None = None,
        undoing: bool = False,
        hangs: bool = False,
    ) -> None:
        """The next attempts of this step fail, `times` of them (None: all), or all for so long from now (`lasting`); those to
        undo it, if `undoing`. A fallback does not.

        `failure`: an error, its class, or the code of one. `after`: how long an attempt takes to fail. `retry`: whether it may
        be tried again; None: as such an error is classified. `hangs`: it does not fail but never ends, and so times out. A fault
        that hits nothing fails the test at its end.
        """
        until = None if lasting is None else self._loop.time() + _seconds(lasting, "lasting")
        fault = Fault(
            step,
            failure,
            times=times if lasting is None else None,
            until_s=until,
            after_s=_seconds(after, "after"),
            retry=retry,
            undoing=undoing,
            hangs=hangs,
        )
        self._worker.faults.append(fault)

    def lose_worker(self, step: str, *, times: int | None = 1) -> None:
        """The worker that has the next attempt of this step is lost once its handler has done its work, and before it says so:
        when its lease is over the attempt is handed out again, and the handler called once more. `times`: so often (None:
        always)."""
        self._worker.faults.append(Fault(step, "", times=times, lost=True))

    async def _equip(self) -> None:
        worker = Worker(
            tasks=self._tasks.values(),
            strategies=self._strategies.values(),
            resources=self._resources.values(),
            namespace=self._subjects.namespace,
            name=self._worker.name,
        )
        stubs = {name: stub.task for name, stub in self._stubs.items()}
        placed = {one.path: stubs[name] for name, one in self._tasks.items() if one.path is not None and name in stubs}
        await self._worker.equip(worker, stubs | placed)

    # When ------------------------------------------------------------------------------------------------------------------

    def start(self, what: Startable, input: Any = None, **options: Unpack[StartOptions]) -> Then:
        """Start a plan or a task, and let happen what happens at this moment. Raises as `Client.start`."""

        async def begin() -> str:
            return (await self._client.start(what, input, **options)).id

        execution_id = self.run(begin())
        self._settle()
        return Then(self, execution_id)

    def when(self, what: Startable, input: Any = None, **options: Unpack[StartOptions]) -> Then:
        """Start it, and let time pass until it has ended, or nothing will happen any more (it is paused)."""
        return self.finish(self.start(what, input, **options))

    def then(self, execution_id: str) -> Then:
        """What became of an execution that a program started. Raises `NotFound`."""
        if execution_id not in self._log.states:
            raise NotFound(f"no execution {execution_id} is known", hint="`start` and `when` give what they started")
        return Then(self, execution_id)

    def finish(self, then: Then) -> Then:
        """Let time pass until this execution has ended, or nothing will happen any more."""
        self._go(FOR_EVER, lambda: self._has_ended(then.id) or not self._under_way)
        return then

    def pause(self, then: Then, reason: str = "") -> bool:
        """See `Client.pause`."""
        return self._command(self._client.pause(then.id, reason))

    def resume(self, then: Then) -> bool:
        """See `Client.resume`."""
        return self._command(self._client.resume(then.id))

    def cancel(self, then: Then, reason: str = "") -> bool:
        """See `Client.cancel`."""
        return self._command(self._client.cancel(then.id, reason=reason))

    def retry(self, then: Then, *, step: str | None = None, as_new: bool = False) -> Then:
        """See `Client.retry`; gives the execution that runs again."""
        return Then(self, self._command(self._client.retry(then.id, step=step, as_new=as_new)).id)

    def rollback(self, then: Then, reason: str = "") -> Then:
        """See `Client.rollback`."""
        return Then(self, self._command(self._client.rollback(then.id, reason)).id)

    def _command(self, work: Awaitable[T]) -> T:
        answer = self.run(work)
        self._settle()
        return answer

    @property
    def client(self) -> Client:
        """A client of this engine, for `run`: `engine.run(engine.client.checkpoints.list(then.id))`."""
        return self._client

    def run(self, work: Awaitable[T]) -> T:
        """Run a coroutine, or whatever can be awaited, to its end, with as much time as it takes: of the client, or of a program
        that has the client."""
        try:
            _check_no_loop()
        except ValidationError:
            if isinstance(work, Coroutine):
                work.close()
            raise
        with inside(self._world):
            task = self._loop.create_task(_awaited(work))
            self._go(FOR_EVER, task.done)
        if not task.done():
            task.cancel()
            self._settle()
            raise InternalError(f"nothing will happen any more, and {work} waits still")
        return task.result()

    # Time ------------------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The virtual time."""
        return self._world.now()

    def tick(self) -> timedelta:
        """Let time go on to when the next thing is due, and let that happen. How long it took; nothing, if nothing is due."""
        before, jumps = self._loop.moment, self._loop.jumps
        self._go(FOR_EVER, lambda: self._loop.jumps > jumps or not self._under_way)
        return timedelta(seconds=self._loop.moment - before)

    def advance(self, duration: Duration) -> None:
        """Let so much time pass, with all that happens in it: `engine.advance("5m")`."""
        self._go(self._loop.moment + _seconds(duration, "duration"), lambda: False)

    def _settle(self) -> None:
        self._go(self._loop.moment, lambda: False)

    def _go(self, until: float, enough: Any) -> None:
        _check_no_loop()
        with inside(self._world):
            self._loop.go_on(until, lambda: self._wire.failures or enough())
        if self._wire.failures:
            raise self._wire.failures.pop()

    @property
    def _under_way(self) -> bool:
        return bool(self._wire.kept or self._wire.timers or self._worker.at_work)

    def _has_ended(self, execution_id: str) -> bool:
        state = self._log.states.get(execution_id)
        return state is not None and state.ended

    # Crashes -----------------------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """Kill the executor. Another takes its place, and knows what the log holds and nothing else."""
        self._replace()
        self._settle()

    def crash_after(self, event: str | None = None) -> None:
        """Kill the executor as soon as the next commit with an event of this type stands, before anything follows from it;
        without a type after each commit from now on. Raises ValidationError (`unknown_event_type`)."""
        if event is not None and event not in TYPES:
            raise ValidationError(f"there is no event {event!r}", code="unknown_event_type", hint="see docs/reference/events.md")
        self._deaths.append(event)

    def _killed_by(self, commit: Commit) -> bool:
        types = {type_of(event) for event in commit.events}
        death = next((one for one in self._deaths if one is None or one in types), "")
        if death == "":
            return False
        if death is not None:
            self._deaths.remove(death)
        self._replace()
        return True

    def _replace(self) -> None:
        with inside(self._world):
            self._node.die()
            self._node = self._new_node()
            self._wire.deliver_again()

    def _new_node(self) -> Node:
        self._executors += 1
        name = f"executor-{self._executors}"
        return Node(name, self._log, self._wire, self._subjects, self._worker, self._killed_by, self._bury)

    def _bury(self, envelope: Envelope, reason: ErrorInfo) -> None:
        self.dead.append(reason)


def _seconds(duration: Duration, name: str) -> float:
    return milliseconds(duration, name=name) / 1000


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def _check_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ValidationError(
        "a virtual engine has a loop of its own, and another one is running here",
        code="loop_running",
        hint="write the test as a plain `def`; coroutines are run by `engine.run(…)`",
    )
