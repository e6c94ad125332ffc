"""Leases, kept by a thread of its own: a handler that blocks the worker's loop must not cost the other attempts their lease.

The thread has its own loop and its own connection. Every quarter second it renews the leases that are due, and looks whether
the worker's loop still turns; while it does not, the thread also tells what the loop should have told: that long attempts
have started, and that late ones timed out. It answers who asks for an attempt that is in this worker's hands. A lease is not
renewed past its attempt's timeout and grace, so whatever hangs too deep even for this loses its lease, and the server hands
its attempt to somebody else.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.messages import WhoHas
from esexec.nats.connection import Connection, Msg, OutboundBufferLimitError, connect
from esexec.nats.publisher import Publisher
from esexec.nats.subjects import Subjects
from esexec.worker.attempt import Attempt, key_of
from esexec.world import now

logger = logging.getLogger("esexec.worker")

_who_has = msgspec.json.Decoder(WhoHas).decode
_TICK_S = 0.25
_BLOCKED_S = 1.0
"""A loop that has not turned for this long is blocked."""


class LeaseKeeper:
    """See the module. `attempts` gives those in hand; `pulse_mono` is when the worker's loop last turned.

    `given_up` hears, on the keeper's thread, of an attempt that was closed over the loop's head.
    """

    def __init__(
        self,
        url: str,
        auth: dict[str, Any],
        subjects: Subjects,
        worker: str,
        attempts: Callable[[], Iterable[Attempt]],
        pulse_mono: Callable[[], float],
        given_up: Callable[[Attempt], None],
    ) -> None:
        self._url, self._auth, self._subjects, self._worker = url, auth, subjects, worker
        self._attempts, self._pulse_mono, self._given_up = attempts, pulse_mono, given_up
        self._wake: Callable[[], object] | None = None
        self._ready, self._is_over = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="esexec-leases", daemon=True)

    async def start(self) -> None:
        """Begin; returns once the thread is connected. Raises `Unavailable` if it cannot, and whatever else ends it."""
        self._thread.start()
        await asyncio.to_thread(self._ready.wait)
        if self._error is not None:
            raise self._error

    async def stop(self) -> None:
        self._is_over.set()
        if self._wake is not None:
            with suppress(RuntimeError):  # its loop is closed already
                self._wake()
        await asyncio.to_thread(self._thread.join, 5.0)

    def _run(self) -> None:
        try:
            asyncio.run(self._keep())
        except BaseException as error:
            self._error = error
            if self._ready.is_set():
                logger.exception("leases are not looked after any more")
        finally:
            self._ready.set()  # who waits for it never waits in vain

    async def _keep(self) -> None:
        connection = await connect(self._url, name=f"esexec-leases-{self._worker}", **self._auth)
        woken = asyncio.Event()
        self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, woken.set)
        async with connection, Publisher(connection) as publisher:
            await connection.subscribe(self._subjects.live("*", "held"), self._on_asked)
            self._ready.set()
            while not self._is_over.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TICK_S):
                        await woken.wait()
                try:
                    await self._look(connection, publisher)
                except Exception:  # whatever it is, without this thread every attempt would lose its lease
                    logger.exception("leases could not be looked after")

    async def _on_asked(self, message: Msg) -> None:
        """An executor wants to know whether an attempt that has no lease any more is in somebody's hands."""
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OutboundBufferLimitError):
            about = _who_has(message.data)
            key = key_of(about.execution_id, about.step, f"{about.run}-{about.attempt}")
            if any(attempt.key == key for attempt in list(self._attempts())):
                await message.respond(b"+")

    async def _look(self, connection: Connection, publisher: Publisher) -> None:
        now_mono = time.monotonic()
        blocked = now_mono - self._pulse_mono() > _BLOCKED_S
        for attempt in list(self._attempts()):
            if not attempt.deserves_lease(now_mono):
                if blocked and not attempt.over:
                    await self._report_late(publisher, attempt)
                continue
            if blocked and attempt.started_at is not None and not attempt.started_told:
                attempt.started_told = True
                started = r.Started(worker=self._worker, started_at=attempt.started_at)
                await publisher.send(attempt.report_subject, msgspec.json.encode(started))
            if now_mono - attempt.beaten_mono >= limits.heartbeat_ms / 1000:
                attempt.beaten_mono = now_mono
                with suppress(OutboundBufferLimitError):  # disconnected; the next beat may come in time
                    connection.client.post(attempt.ack, b"+WPI")

    async def _report_late(self, publisher: Publisher, attempt: Attempt) -> None:
        """The worker's loop is blocked, likely by this very handler: it cannot be ended, but its attempt can be closed."""
        if attempt.started_at is None:
            return
        attempt.over = True
        logger.warning("%s blocks its worker's loop past its timeout: left to itself", attempt.key)
        report = r.TimedOut(
            worker=self._worker, started_at=attempt.started_at, ended_at=now(), ended="abandoned", measured=attempt.measured
        )
        ack = await publisher.store(attempt.report_subject, msgspec.json.encode(report))
        if ack.error is None:
            with suppress(OutboundBufferLimitError):  # it will be handed out again, in vain
                publisher.client.post(attempt.ack, b"")
        self._given_up(attempt)
