"""The executor process: carries commands, reports and timers from NATS to the desk, for as long as it runs.

Stateless: kill it at any instruction, start it again anywhere, run as many as you like.
"""

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from typing import Unpack

import msgspec

from esexec.cloudevents import Position
from esexec.domain import limits
from esexec.domain.decider import Surroundings
from esexec.domain.errors import EsexecError, ValidationError
from esexec.domain.ids import namespace_named
from esexec.domain.kept_alerts import ALERTS_ENTITY
from esexec.domain.kept_plans import PLANS_ENTITY
from esexec.domain.namespace import SETTINGS_ENTITY, NamespaceState
from esexec.domain.sharing.requests import POOLS_ENTITY
from esexec.executor.alerts import AlertsDesk
from esexec.executor.desk import Desk
from esexec.executor.intake import Intake
from esexec.executor.outbox import NatsOutbox
from esexec.executor.params import Checks, Versions
from esexec.executor.plans import PlansDesk
from esexec.executor.presence import Presence
from esexec.executor.settings import SettingsDesk
from esexec.executor.shared import SharedDesk
from esexec.log.jetstream import JetStreamLog
from esexec.nats.clock import ServerClock
from esexec.nats.connection import ApiError, Auth, Connection, Msg, connect
from esexec.nats.dead import dead_letter
from esexec.nats.direct import DirectReader, first_from, read_leader, waits_since
from esexec.nats.presence import be_present
from esexec.nats.publisher import Ack, Publisher
from esexec.nats.pull import Puller, Tap
from esexec.nats.streams import STREAM_NOT_FOUND, ensure_streams
from esexec.nats.subjects import STRAY_CONSUMER, TIMER_CONSUMER, Subjects
from esexec.role import Role
from esexec.world import new_id, now

logger = logging.getLogger("esexec.executor")

_IN_HAND = 500
"""Messages of one partition that are held or asked for."""
_WATCH_S = 1.0


class Executor(Role):
    """Decides what comes next for every execution of a namespace (`instance` is another name for it).

    `cache_size`: idle executions kept in memory (0 is correct, and slower). `async with` starts and drains it; `run()` keeps
    it up until cancelled. Raises `Unavailable` if no server answers.
    """

    def __init__(
        self,
        url: str = "nats://127.0.0.1:4222",
        *,
        namespace: str = "default",
        instance: str | None = None,
        name: str | None = None,
        cache_size: int = limits.cached_entities,
        replicas: int = 1,
        patience: float = 0.0,
        **auth: Unpack[Auth],
    ) -> None:
        self.name = name or f"x{new_id()[-8:]}"
        self._url, self._auth, self._replicas, self._patience = url, auth, replicas, patience
        self._cache_size = cache_size
        self._subjects = Subjects(namespace_named(namespace, instance))
        self._command_taps: list[Tap] = []
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, make sure of the streams, and begin."""
        await self._stopped()
        connection = await connect(self._url, name=f"esexec-executor-{self.name}", patience=self._patience, **self._auth)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(connection.close)
            await self._begin(connection, undo)
            undo.pop_all()
        self._connection = connection
        self._watch = asyncio.create_task(self._watch_depth(), name="esexec-executor-watch")
        logger.info("executor %s ready on %s, namespace %s", self.name, connection.shown_url, self._subjects.namespace)

    async def _begin(self, connection: Connection, undo: AsyncExitStack) -> None:
        if connection.max_payload < limits.message_bytes:
            logger.warning("the server's max_payload is %d; esexec needs %d", connection.max_payload, limits.message_bytes)
        subjects = self._subjects
        await ensure_streams(connection, subjects, replicas=self._replicas)
        self._publisher = await Publisher(connection).start()
        reader = await DirectReader(connection).start()
        log = JetStreamLog(connection, subjects, self._publisher, reader)
        self._outbox = NatsOutbox(connection, subjects, self._publisher)
        self._plans = PlansDesk(self.name, log, self._outbox, log.objects)
        self._alerts = AlertsDesk(self.name, log, self._outbox)
        self._desk = Desk(
            self.name,
            log,
            self._outbox,
            cache_size=self._cache_size,
            start_waits=partial(_start_waits, connection, subjects),
            plan_of=self._plans.plan_of,
            first_command=partial(_first_command, connection, subjects),
            look_around=self._look_around,
            objects=log.objects,
        )
        self._clock = ServerClock(connection)
        await self._clock.look(subjects.tasks_stream)
        self._sharing = SharedDesk(
            self.name,
            log,
            self._outbox,
            self._clock.now,
            unread_since=partial(_unread_since, connection, subjects),
            feed_is_at=partial(_feed_is_at, connection, subjects),
        )
        self._around = Surroundings()
        self._check = self._around.check
        self._presence = Presence(connection, subjects, self._check_by)
        undo.push_async_callback(self._presence.close)
        self._settings = SettingsDesk(self.name, log, self._outbox, self._follow)
        await connection.subscribe(subjects.commits_of(SETTINGS_ENTITY), self._settings.on_commit)
        undo.push_async_callback(self._settings.close)
        undo.push_async_callback(self._plans.close)
        undo.push_async_callback(self._alerts.close)
        undo.push_async_callback(self._sharing.close)
        await self._settings.start()
        await self._open_taps(connection)
        await be_present(connection, "executor", subjects.namespace, self.name)

    async def _open_taps(self, connection: Connection) -> None:
        subjects = self._subjects
        shared = {SETTINGS_ENTITY: self._settings.take, PLANS_ENTITY: self._plans.take, ALERTS_ENTITY: self._alerts.take}
        intake = Intake(connection, subjects, self._desk, {**shared, POOLS_ENTITY: self._sharing.take}, self._sharing.take)
        self._puller = Puller(connection)
        self._command_taps = []
        for partition in range(limits.partitions):
            name = subjects.partition_consumer(partition)
            self._command_taps.append(self._puller.tap(subjects.commands_stream, name, _IN_HAND, intake.on_command))
            self._puller.tap(subjects.inbox_stream, name, _IN_HAND, intake.on_inbox)
        for stream in (subjects.commands_stream, subjects.inbox_stream):
            self._puller.tap(stream, STRAY_CONSUMER, _IN_HAND, intake.on_stray)
        self._puller.tap(subjects.timers_stream, TIMER_CONSUMER, _IN_HAND, self._forward)
        await self._puller.start()
        connection.on_reconnect(self._make_sure)

    async def _make_sure(self) -> None:
        """After a restart of the server the partitions' consumers are gone, for they live in its memory: make them again."""
        connection = self._connection
        if connection is None:
            return
        try:
            await ensure_streams(connection, self._subjects, replicas=self._replicas)
            self._outbox.forget_lanes()
            await self._puller.ask_again()
        except EsexecError as error:
            logger.debug("will be made sure of again: %s", error)

    def _follow(self, state: NamespaceState) -> None:
        """There is a new state of the namespace."""
        self._around = state.surroundings._replace(all_known=not state.any_task)
        self._presence.announced(state.versions)
        self._desk.surroundings = self._around._replace(check=self._check)

    async def _look_around(self) -> bool:
        return await self._settings.look_around()

    def _check_by(self, versions: Versions) -> None:
        checks = Checks(versions)
        self._check = checks.problem if checks else None
        self._desk.surroundings = self._around._replace(check=self._check)

    async def _forward(self, message: Msg, tap: Tap) -> None:
        """A timer fired: into INBOX with it, where its execution's messages are in order, and only then let it go."""

        async def stored(ack: Ack) -> None:
            if ack.error is None:
                await message.respond(b"")
            if tap.release():
                await tap.refill()

        try:
            execution, name = self._subjects.parse_due(message.subject)
        except ValidationError as error:
            logger.warning("buried what came due: %s", error.message)
            letter = dead_letter(error.code, error.message, message.subject, now(), message.data, self._publisher.room())
            await self._publisher.send(self._subjects.dead("invalid", "due"), letter.data, letter.headers, stored)
        else:
            await self._publisher.send(self._subjects.due_in(execution, name), b"", None, stored)

    async def _watch_depth(self) -> None:
        """While too many dispatches wait for workers, take no new commands; reports are taken always."""
        while self._connection is not None:
            await asyncio.sleep(_WATCH_S)
            if self._puller.missing and self._connection.is_connected:
                await self._make_sure()
            try:
                info = await self._clock.look(self._subjects.tasks_stream)
            except EsexecError:
                continue
            deep = info["state"]["messages"] > limits.tasks_waiting
            for tap in self._command_taps:
                if tap.paused != deep:
                    tap.paused = deep
                    await tap.refill()

    async def stop(self, deadline_s: float = 10.0) -> None:
        """Take nothing new, let what is in hand come to rest (at most `deadline_s`), and close. The rest is redelivered."""
        self._deadline_s = deadline_s
        await super().stop()

    async def _drain(self, connection: Connection) -> None:
        if self._watch is not None:
            self._watch.cancel()
        until = time.monotonic() + self._deadline_s
        await self._puller.stop()
        desks = (self._desk, self._sharing, self._settings, self._plans, self._alerts)
        while (
            connection.is_connected
            and time.monotonic() < until
            and not (all(desk.idle for desk in desks) and not self._publisher.in_flight)
        ):
            await asyncio.sleep(0.005)
        await self._presence.close()
        for desk in desks:
            await desk.close()
        await self._outbox.close()
        await self._publisher.close()
        await connection.close()


async def _first_command(connection: Connection, subjects: Subjects, execution: str, sequence: int) -> int | None:
    return await first_from(connection, subjects.commands_stream, subjects.command_stored(execution, "*"), sequence)


async def _unread_since(connection: Connection, subjects: Subjects) -> datetime | None:
    """While too many dispatches wait, commands do; the leases that some of them renew end by themselves all the same."""
    return await waits_since(connection, subjects.commands_stream, subjects.command_stored(POOLS_ENTITY, "renew"))


async def _feed_is_at(connection: Connection, subjects: Subjects) -> int | None:
    """A feed that was never there, or whose stream is gone, keeps nothing from being let go."""
    try:
        found = await read_leader(connection, subjects.events_stream, subjects.event_position)
    except ApiError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return None
        raise
    try:
        return None if found is None else msgspec.json.decode(found.data, type=Position).position
    except msgspec.MsgspecError:
        return 0


async def _start_waits(connection: Connection, subjects: Subjects, execution: str) -> bool:
    """A start that is in the hands of an executor that died lies in COMMANDS until its ack wait is over."""
    return await read_leader(connection, subjects.commands_stream, subjects.command_stored(execution, "start")) is not None
