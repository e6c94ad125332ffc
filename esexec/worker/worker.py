"""The worker process: takes attempts from its queues, runs the user's handlers, and reports what became of them.

The order that matters: the report is stored before the dispatch is acknowledged. Killed in between, the attempt is handed out
again, and its second outcome changes nothing.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from functools import cached_property, partial
from typing import Any, Unpack

import msgspec

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo, EsexecError, Unavailable, ValidationError
from esexec.domain.ids import is_user_id, namespace_named
from esexec.domain.messages import CancelSignal, Dispatch, WorkerPresence
from esexec.domain.namespace import SETTINGS_ENTITY, version_of
from esexec.domain.strategies import own_lane
from esexec.nats.connection import Auth, Connection, Msg, OutboundBufferLimitError, connect
from esexec.nats.dead import dead_letter
from esexec.nats.direct import DirectReader
from esexec.nats.objects import Objects
from esexec.nats.presence import be_present
from esexec.nats.publisher import Ack, Publisher
from esexec.nats.pull import Puller, delivery_of
from esexec.nats.streams import ensure_lane, ensure_streams, lane_names
from esexec.nats.subjects import Subjects
from esexec.role import Role
from esexec.tasks import (
    NetworkTimeoutRecovery,
    RecoveryStrategy,
    Task,
    Tasks,
    WorkerResource,
    collect,
    collect_resources,
    collect_strategies,
)
from esexec.tasks.handlers import ANY_TASK
from esexec.worker.attempt import Attempt, key_of
from esexec.worker.images import Images
from esexec.worker.lanes import Queue
from esexec.worker.leases import LeaseKeeper
from esexec.worker.outlet import LiveOutlet
from esexec.worker.pools import Pools
from esexec.worker.processes import Processes, place_of
from esexec.worker.results import CachedResults
from esexec.worker.running import Runner
from esexec.worker.sampling import Sampler
from esexec.world import VERSION, new_id, now

logger = logging.getLogger("esexec.worker")

_decode = msgspec.json.Decoder(Dispatch).decode
_signal = msgspec.json.Decoder(CancelSignal).decode
_TICK_S = 0.02
_LOOK_FOR_LANES_S = 2.0
_ANNOUNCE_S = 2.0
_TRY_AGAIN_S = 1.0
_USUAL_PRIORITY = 5
_LATER = b'-NAK {"delay": 1000000000}'
"""Hands a question back: in a second another worker may get it."""
_HANDED_BACK = limits.recovery_wait_ms // 1000
"""So often a question may have been handed back; deliveries beyond that are losses."""
_TOLD_S, _TOLD = 30.0, 10_000
"""How long, and how many, words to stop what is not here (yet) are remembered."""
_SLOTS_OF_A_STRATEGY = 4
"""So many questions a worker answers at a time, of each strategy that is asked in its own lane."""


class Worker(Role):
    """Runs `tasks` for the attempts that wait on `queues` (name → how many at a time) of a namespace (`instance`: the same).

    `tasks`: decorated functions, or the name of a module that holds them; with a task comes what undoes it. `strategies`:
    recovery strategies whose code this worker has, beside those of the modules and the built-in one; it is asked whatever its
    queues are, unless the strategy names one. `resources`: what its handlers take turns with, beside those of the modules:
    WorkerResources, or factories by name; see also `resource`. `processes`: so many handlers run at a time in processes of their
    own, where tasks want that (default: one for each processor). `sample_ms`: how often it tells how its process does (0: never).

    `async with` starts and drains it; `run()` keeps it up until cancelled. Raises `ValidationError` for queues, tasks, strategies
    or resources that cannot be, `Unavailable` if no server answers.
    """

    def __init__(
        self,
        url: str = "nats://127.0.0.1:4222",
        *,
        tasks: Tasks,
        strategies: Iterable[Any] = (),
        resources: Mapping[str, Any] | Iterable[WorkerResource] = (),
        queues: Mapping[str, int] | None = None,
        namespace: str = "default",
        instance: str | None = None,
        name: str | None = None,
        replicas: int = 1,
        patience: float = 0.0,
        lease_ms: int = limits.lease_ms,
        drain_s: float = 10.0,
        processes: int | None = None,
        sample_ms: int = limits.sample_interval_ms,
        **auth: Unpack[Auth],
    ) -> None:
        self.name = name or f"w{new_id()[-8:]}"
        tasks = list(tasks) if isinstance(tasks, Iterator) else tasks
        self.tasks = collect(tasks)
        """By name; under `*` what handles tasks of any other name. A step may also name a task by where its function is,
        `package.module:function`."""
        self.strategies = _with_built_in(collect_strategies(tasks, strategies))
        """By id."""
        self.resources = collect_resources(tasks, resources)
        """By name."""
        self._callable = self.tasks | {one.path: one for one in self.tasks.values() if one.path is not None}
        self._slots = _checked_queues({"default": 10} if queues is None else queues)
        self._own_lanes = frozenset(map(own_lane, self.strategies))
        self._url, self._auth, self._replicas, self._patience = url, auth, replicas, patience
        self._lease_ms, self._drain_s, self._sample_ms = lease_ms, drain_s, sample_ms
        self._process_count = _checked_processes(processes)
        for task in self.tasks.values():
            if task.run_in is not None:
                place_of(task)
        self._subjects = Subjects(namespace_named(namespace, instance))
        self._attempts: dict[str, Attempt] = {}
        self._queues: dict[str, Queue] = {}
        self._pullers: dict[str, Puller] = {}
        self._opening = asyncio.Lock()
        self._draining = False
        self._background: list[asyncio.Task[None]] = []
        self._pulse_mono = time.monotonic()
        self._rare: set[asyncio.Task[None]] = set()
        self._reader: DirectReader | None = None
        self._told: dict[str, float] = {}
        """Attempts that were told to stop and are not here, and when: one that comes all the same is not begun."""
        self._announced = asyncio.Event()

    def resource(self, name: str, /, *, size: int = 1) -> Callable[[Callable[[], Any]], WorkerResource]:
        """Give the worker a resource before it starts: `@worker.resource("db", size=10)` above what makes one item.

        Raises ValidationError (`invalid_resource`, `duplicate_resource`).
        """

        def decorate(factory: Callable[[], Any]) -> WorkerResource:
            made = WorkerResource(name, factory, size)
            self.resources = collect_resources((), [*self.resources.values(), made])
            return made

        return decorate

    def _check_uses(self) -> None:
        for task in self.tasks.values():
            for name in task.uses:
                if name not in self.resources:
                    raise ValidationError(
                        f"task `{task.name}` uses a resource `{name}`, which this worker does not have",
                        code="unknown_resource",
                        hint=f"it has: {', '.join(sorted(self.resources)) or 'none'}",
                    )

    # Beginning and end ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, announce the tasks, and take attempts from now on."""
        self._check_uses()
        await self._stopped()
        connection = await connect(self._url, name=f"esexec-worker-{self.name}", patience=self._patience, **self._auth)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(connection.close)
            await self._begin(connection, undo)
            undo.pop_all()
        self._connection = connection
        tasks, strategies = (", ".join(sorted(names)) or "none" for names in (self.tasks, self.strategies))
        logger.info("worker %s ready on %s: tasks %s; strategies %s", self.name, connection.shown_url, tasks, strategies)

    async def _begin(self, connection: Connection, undo: AsyncExitStack) -> None:
        await ensure_streams(connection, self._subjects, replicas=self._replicas)
        self._publisher = await Publisher(connection).start()
        self._images = Images(self.name, self._publisher.send)
        self._pools, self._reader = Pools(self.resources.values()), None
        undo.push_async_callback(self._pools.close)
        self._processes = Processes(self._process_count)
        undo.push_async_callback(self._processes.close)
        self._runner = Runner(
            self.name,
            self._callable,
            self._report,
            strategies=self.strategies,
            images=self._images,
            outlet=LiveOutlet(connection.client, self._subjects, self.name),
            pools=self._pools,
            results=await self._cached_results(connection),
            processes=self._processes,
            objects=Objects(connection, self._subjects, await self._direct_reader(connection)),
            say_begun=self._say_begun,
            hand_back=partial(self._ended_with_the_loop, connection),
        )
        self._leases = LeaseKeeper(
            self._url,
            dict(self._auth),
            self._subjects,
            self.name,
            lambda: self._attempts.values(),
            lambda: self._pulse_mono,
            partial(self._given_up, asyncio.get_running_loop()),
        )
        undo.push_async_callback(self._leases.stop)
        await self._leases.start()
        await connection.subscribe(self._subjects.live("*", "cancel"), self._on_cancel)
        await connection.subscribe(self._subjects.live("*", "before"), self._on_before)
        await connection.subscribe(self._subjects.who_is_there, partial(self._on_who_is_there, connection))
        await self._announce(connection)
        self._queues, self._pullers, self._draining = {}, {}, False
        for name, slots in self._slots.items():
            await self._open(connection, name, slots)
        advisories = f"$JS.EVENT.ADVISORY.CONSUMER.CREATED.{self._subjects.tasks_stream}.*"
        await connection.subscribe(advisories, partial(self._on_new_lane, connection))
        for name in self._slots:
            await ensure_lane(connection, self._subjects, name, _USUAL_PRIORITY, self._lease_ms)
        await self._find_lanes(connection)
        await be_present(connection, "worker", self._subjects.namespace, self.name)
        self._background = [asyncio.create_task(self._tick()), asyncio.create_task(self._look_for_lanes(connection))]
        if self._sample_ms > 0:
            sampler = Sampler(self.name, lambda: [attempt.dispatch.execution_id for attempt in self._attempts.values()])
            post = partial(connection.client.post, self._subjects.samples)
            self._background.append(asyncio.create_task(sampler.tell(post, self._sample_ms / 1000)))

    async def _drain(self, connection: Connection) -> None:
        """Take nothing new, let what runs end (at most `drain_s`), hand the rest back at once, and close."""
        async with self._opening:
            self._draining = True
        for queue in self._queues.values():
            await queue.stop()
        await asyncio.gather(*(puller.stop() for puller in self._pullers.values()))
        until = time.monotonic() + self._drain_s
        while self._attempts and not connection.is_closed and time.monotonic() < until:  # a server that is away comes back
            await asyncio.sleep(0.005)
        for attempt in list(self._attempts.values()):
            await self._hand_back(connection, attempt)
            self._runner.let_go(attempt, "draining")
        for task in self._background:
            task.cancel()
        await self._processes.close()
        await self._pools.close()
        await self._leases.stop()
        await self._publisher.close()
        await connection.close()

    async def _cached_results(self, connection: Connection) -> CachedResults | None:
        """None: no task of this worker has a cache."""
        if not any(task.cache is not None for task in self.tasks.values()):
            return None
        return CachedResults(connection, await self._direct_reader(connection), self._subjects, self.name)

    async def _direct_reader(self, connection: Connection) -> DirectReader:
        if self._reader is None:
            self._reader = await DirectReader(connection).start()
        return self._reader

    async def _hand_back(self, connection: Connection, attempt: Attempt) -> None:
        if attempt.over or not connection.is_connected:
            return  # reported, and only the acknowledgement is missing: the next holder's outcome will change nothing
        attempt.stop("draining", time.monotonic())
        logger.warning("%s handed back", attempt.key)
        connection.client.post(attempt.ack, b"-NAK")

    async def _ended_with_the_loop(self, connection: Connection, attempt: Attempt) -> bool:
        """Whoever ends the loop cancels all that runs on it, our own tasks as well: no handler is to blame, and others go on."""
        if not any(task.cancelling() for task in self._background):
            return False
        await self._hand_back(connection, attempt)
        self._attempts.pop(attempt.key, None)
        return True

    async def _announce(self, connection: Connection) -> None:
        """Tell the namespace which tasks there are, and their settings; a start that follows finds them."""
        tasks = {name: task.info for name, task in self._named.items()}
        command = c.AnnounceTasks(
            id=new_id(), tasks=tasks, worker=self.name, schemas=self._schemas, actor=self.name, any_task=self._any_task
        )
        subscription = await connection.subscribe(self._subjects.reply(SETTINGS_ENTITY, command.id), self._on_announced)
        await self._publisher.send(self._subjects.command(SETTINGS_ENTITY, "announce"), msgspec.json.encode(command))
        try:
            async with asyncio.timeout(_ANNOUNCE_S):
                await self._announced.wait()
        except TimeoutError:
            logger.info("no executor has answered yet; the announcement waits for one")
        await subscription.unsubscribe()

    @property
    def _named(self) -> dict[str, Task[..., Any]]:
        return {name: task for name, task in self._callable.items() if name != ANY_TASK}

    @property
    def _any_task(self) -> bool:
        return ANY_TASK in self._callable

    @cached_property
    def _schemas(self) -> dict[str, dict[str, Any]]:
        """What the tasks take, as far as there is room to say it."""
        found, room = {}, limits.schemas_bytes
        for name, task in self._named.items():
            schema = task.schema
            size = len(msgspec.json.encode(schema)) if schema is not None else 0
            if schema is not None and size <= min(limits.schema_bytes, room):
                found[name] = schema
                room -= size
        return found

    @cached_property
    def _presence(self) -> bytes:
        tasks = {name: version_of(self._schemas.get(name)).id for name in self._named}
        presence = WorkerPresence(worker=self.name, version=VERSION, tasks=tasks, queues=self._slots, any_task=self._any_task)
        return msgspec.json.encode(presence)

    async def _on_who_is_there(self, connection: Connection, message: Msg) -> None:
        if not self._draining:
            with suppress(OutboundBufferLimitError):  # disconnected
                connection.client.post(self._subjects.who_is_here, self._presence)

    async def _on_announced(self, message: Msg) -> None:
        self._announced.set()

    # Lanes -----------------------------------------------------------------------------------------------------------------

    async def _open(self, connection: Connection, name: str, slots: int) -> None:
        """Serve a queue, as soon as it has lanes."""
        puller = Puller(connection)
        await puller.start()
        self._pullers[name] = puller
        self._queues[name] = Queue(name, slots, self._subjects, puller, self._take)

    async def _add_lane(self, connection: Connection, name: str, priority: int) -> None:
        """Serve a lane that exists, if it is one of our queues or of our strategies."""
        if name not in self._queues and name not in self._own_lanes:
            return
        async with self._opening:
            if name not in self._queues and not self._draining:
                await self._open(connection, name, _SLOTS_OF_A_STRATEGY)
        if (queue := self._queues.get(name)) is not None:
            await queue.add_lane(priority)

    async def _find_lanes(self, connection: Connection) -> None:
        for name, priority in await lane_names(connection, self._subjects):
            await self._add_lane(connection, name, priority)
        for name, queue in list(self._queues.items()):
            for priority in queue.missing:  # somebody deleted its consumer: what waits there would wait for ever
                await ensure_lane(connection, self._subjects, name, priority, self._lease_ms)

    async def _on_new_lane(self, connection: Connection, message: Msg) -> None:
        lane = self._subjects.parse_lane(message.subject.rsplit(".", 1)[1])
        if lane is not None:
            await self._add_lane(connection, *lane)

    async def _look_for_lanes(self, connection: Connection) -> None:
        """New lanes are told by the server's advisory; one that was missed is found by looking."""
        while True:
            await asyncio.sleep(_LOOK_FOR_LANES_S)
            try:
                await self._find_lanes(connection)
            except EsexecError as error:
                logger.debug("lanes: %s", error)

    # Attempts ----------------------------------------------------------------------------------------------------------------

    async def _take(self, message: Msg, queue: Queue) -> None:
        try:
            about = self._subjects.parse_task(message.subject)
        except ValidationError as error:
            self._apart(self._meaningless(message, queue, error))
            return
        key = key_of(about.execution, about.step, f"{about.run}-{about.attempt}")
        running = self._attempts.get(key)
        if running is not None:
            running.ack = message.reply  # its lease was lost and came back to us: it is the same attempt still
            await queue.freed()
            return
        subject = self._subjects.report(about.execution, queue.name, about.step, about.run, about.attempt)
        try:
            dispatch = _decode(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._apart(self._unreadable(message, queue, subject, error))
            return
        if dispatch.purpose == "recovery" and dispatch.task not in self.strategies:
            logger.debug("%s handed back: strategy %s is not here", key, dispatch.task)
            await message.respond(_LATER)
            await queue.freed()
            return
        attempt = Attempt(dispatch, key, queue.name, message.reply, subject)
        now_mono = time.monotonic()
        attempt.beaten_mono = now_mono
        self._attempts[key] = attempt
        losses = attempt.losses = delivery_of(message.reply)[0] - 1
        if self._told and now_mono - self._told.pop(key, -_TOLD_S) < _TOLD_S:
            attempt.stop("cancelled", now_mono)  # the word overtook it
        if losses:
            self._apart(self._begin_again(attempt, losses))
        else:
            await self._runner.begin(attempt, now_mono)

    def _apart(self, work: Coroutine[Any, Any, None]) -> None:
        """What waits for the server's answer must not hold up the messages behind it, of which that answer is one."""
        task = asyncio.get_running_loop().create_task(_unless_closed(work))
        self._rare.add(task)
        task.add_done_callback(self._rare.discard)

    async def _begin_again(self, attempt: Attempt, losses: int) -> None:
        """Somebody had this attempt before, and was lost or gave it back. Say so durably first: it may be what kills workers."""
        passed_about = attempt.dispatch.purpose == "recovery" and attempt.queue not in self._own_lanes
        if passed_about:
            losses = max(0, losses - _HANDED_BACK)
        await self._publisher.store(attempt.report_subject, msgspec.json.encode(r.Lost(worker=self.name, losses=losses)))
        if losses < limits.losses_per_attempt:
            # If it is passed about, its deliveries are not all losses: it is the time since its start that ends it.
            soon = (passed_about or attempt.is_last_chance) and not self._runner.prepares(attempt.dispatch)
            if soon and attempt.why is None:
                await self._say_begun(attempt)
            await self._runner.begin(attempt, time.monotonic())
        else:
            attempt.over = True
            await self._let_go(attempt)

    async def _say_begun(self, attempt: Attempt) -> None:
        attempt.started_told = True
        started = r.Started(worker=self.name, started_at=now())
        await self._publisher.store(attempt.report_subject, msgspec.json.encode(started))

    async def _meaningless(self, message: Msg, queue: Queue, error: ValidationError) -> None:
        """No attempt of ours: nobody waits for it, so it is kept among the dead."""
        logger.warning("buried a dispatch: %s", error.message)
        letter = dead_letter(error.code, error.message, message.subject, now(), message.data, self._publisher.room())
        await self._publisher.store(self._subjects.dead("invalid", "dispatch"), letter.data, letter.headers)
        await message.respond(b"")
        await queue.freed()

    async def _unreadable(self, message: Msg, queue: Queue, subject: str, error: Exception) -> None:
        info = ErrorInfo(type="internal_error", code="bad_dispatch", message=str(error)[:500], retryable=False)
        ack = await self._publisher.store(subject, msgspec.json.encode(r.Failed(worker=self.name, error=info)))
        if ack.error is None:
            await message.respond(b"")
        await queue.freed()

    async def _report(self, attempt: Attempt, data: bytes) -> None:
        await self._queues[attempt.queue].freed()
        await self._store_report(attempt, data)

    async def _store_report(self, attempt: Attempt, data: bytes) -> None:
        """Until it is stored: an attempt that was acknowledged without its report would be open for ever."""

        async def stored(ack: Ack) -> None:
            if ack.error is None:
                await self._acknowledge(attempt)
                return
            logger.error("a report was refused, and will be sent again (%s): %s", ack.error.description, attempt.report_subject)
            loop = asyncio.get_running_loop()
            loop.call_later(_TRY_AGAIN_S, lambda: self._apart(self._store_report(attempt, data)))

        await self._publisher.send(attempt.report_subject, data, None, stored)

    def _given_up(self, loop: asyncio.AbstractEventLoop, attempt: Attempt) -> None:
        """From the lease keeper's thread: the attempt is closed. Its slot is free once the loop turns again."""
        with suppress(RuntimeError):  # the loop is closed
            asyncio.run_coroutine_threadsafe(self._forget(attempt), loop)

    async def _forget(self, attempt: Attempt) -> None:
        self._runner.let_go(attempt, "timeout")
        if self._attempts.pop(attempt.key, None) is not None:
            await self._queues[attempt.queue].freed()

    async def _let_go(self, attempt: Attempt) -> None:
        await self._queues[attempt.queue].freed()
        await self._acknowledge(attempt)

    async def _acknowledge(self, attempt: Attempt) -> None:
        self._attempts.pop(attempt.key, None)
        try:
            self._publisher.client.post(attempt.ack, b"")
        except OutboundBufferLimitError:
            logger.debug("%s will be handed out again, in vain", attempt.key)

    async def _on_cancel(self, message: Msg) -> None:
        try:
            signal = _signal(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        key, now_mono = key_of(signal.execution_id, signal.step, f"{signal.run}-{signal.attempt}"), time.monotonic()
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.stop("cancelled", now_mono)
            return
        self._told.pop(key, None)
        self._told[key] = now_mono
        while self._told and (now_mono - next(iter(self._told.values())) > _TOLD_S or len(self._told) > _TOLD):
            del self._told[next(iter(self._told))]

    async def _on_before(self, message: Msg) -> None:
        self._images.answered(message.data)

    async def _tick(self) -> None:
        """Looks after the attempts: long ones are told to have started, late ones are ended."""
        started_after_s = limits.started_report_after_ms / 1000
        while True:
            await asyncio.sleep(_TICK_S)
            now_mono = self._pulse_mono = time.monotonic()
            for attempt in list(self._attempts.values()):
                if attempt.over or attempt.started_at is None:
                    continue
                if not attempt.started_told and now_mono - attempt.started_mono >= started_after_s:
                    attempt.started_told = True
                    started = r.Started(worker=self.name, started_at=attempt.started_at)
                    await self._publisher.send(attempt.report_subject, msgspec.json.encode(started))
                await self._runner.look_after(attempt, now_mono)


async def _unless_closed(work: Coroutine[Any, Any, None]) -> None:
    with suppress(Unavailable):  # what was under way is handed out once more
        await work


def _with_built_in(strategies: dict[str, RecoveryStrategy]) -> dict[str, RecoveryStrategy]:
    built_in = NetworkTimeoutRecovery()
    return {built_in.id: built_in} | strategies


def _checked_processes(count: Any) -> int:
    if count is None:
        return os.cpu_count() or 1
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValidationError(f"{count!r} is no number of processes", code="bad_processes", hint="1 or more")
    return count


def _checked_queues(queues: Mapping[str, int]) -> dict[str, int]:
    for name, slots in queues.items():
        if not is_user_id(name):
            raise ValidationError(f"{name!r} is no queue name", code="bad_queue", hint="letters, digits, - and _; not _ first")
        if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
            raise ValidationError(f"queue {name}: {slots!r} is no number of slots", code="bad_queue", hint="1 or more")
    if not queues:
        raise ValidationError("a worker needs a queue", code="bad_queue", hint='queues={"default": 10}')
    return dict(queues)
