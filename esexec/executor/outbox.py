"""Effects on NATS: dispatches into TASKS, timers into TIMERS, reports of ours into INBOX, answers and signals to whoever hears.

Each method returns once the message is on its way. A dispatch is published with expected sequence 0 on its subject, so that
one that still waits is not doubled; a refusal therefore means that it stands. What else goes wrong is tried again until it
is right: an effect that was given up would hold up all that follows it in its execution.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import msgspec

from esexec.domain import commands as c
from esexec.domain import effects as fx
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo, Unavailable
from esexec.domain.ids import is_token
from esexec.domain.messages import Answer, CancelSignal, Dispatch, ImageSignal, WhoHas
from esexec.domain.sharing import requests as s
from esexec.domain.strategies import own_lane
from esexec.executor.envelope import Envelope, backoff_s
from esexec.executor.port import Done, StillOpen
from esexec.nats.connection import ApiError, Connection, OutboundBufferLimitError
from esexec.nats.dead import dead_letter
from esexec.nats.direct import read_leader
from esexec.nats.lean import header_block
from esexec.nats.publisher import WRONG_SEQUENCE, Ack, ErrorDetail, Publisher
from esexec.nats.streams import ensure_lane
from esexec.nats.subjects import Subjects
from esexec.world import now

logger = logging.getLogger("esexec.executor")

_encode = msgspec.json.encode
_MUST_NOT_EXIST = header_block({"Nats-Expected-Last-Subject-Sequence": "0"})
_CONSUMER_NOT_FOUND = 10014
_TRY_AGAIN_S = 1.0
_ANSWER_S = 2.0
"""How long workers may take to answer who has an attempt."""
_LOOK_AGAIN_S = 2 * limits.lease_ms / 1000
_NO_OUTCOMES = frozenset({"started", "lost", "before"})
"""The types of reports that leave their attempt open."""

Work = Callable[[], Coroutine[Any, Any, None]]


class _Typed(msgspec.Struct):
    """As much of a report as says whether it is an outcome. `pause`: withdrawn for a pause, to be handed out again after it."""

    type: str
    pause: int = 0


_type_of = msgspec.json.Decoder(_Typed).decode


async def _nothing() -> None:
    """What follows from an effect that nothing waits for."""


class _Delivered(NamedTuple):
    """The highest stream sequence that a lane delivered, and the number of its deliveries."""

    up_to: int
    times: int


def _is_shared_question(what: fx.TakeBack) -> bool:
    """Whether it is a question in a queue of many: workers without its strategy had it and handed it back, so that its lane's
    deliveries do not tell whether somebody has it."""
    message = what.again.message if what.again is not None else None
    return isinstance(message, Dispatch) and message.purpose == "recovery" and what.queue != own_lane(message.task)


class NatsOutbox:
    """See the module and `desk.Outbox`."""

    def __init__(self, connection: Connection, subjects: Subjects, publisher: Publisher) -> None:
        self._connection, self._subjects, self._publisher = connection, subjects, publisher
        self._lanes: set[tuple[str, int]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}

    async def close(self) -> None:
        """Forget short timers; the durable ones stand behind them."""
        for handle in self._timers.values():
            handle.cancel()
        for task in list(self._tasks):
            task.cancel()

    def forget_lanes(self) -> None:
        """The server may have been another one: make sure of each lane again with its next dispatch."""
        self._lanes.clear()

    async def dispatch(self, entity: str, to: fx.DispatchAttempt, data: bytes, done: Done, still_open: StillOpen) -> None:
        subject = self._subjects.task(to.queue, to.priority, entity, to.step, to.run, to.attempt)
        if to.again:
            self._insist(partial(self._dispatch_again, entity, to, subject, data, done, still_open))
        else:
            lane = to.queue, to.priority
            await self._publisher.send(subject, data, _MUST_NOT_EXIST, partial(self._dispatched, subject, data, lane, done))

    async def _dispatch_again(
        self, entity: str, to: fx.DispatchAttempt, subject: str, data: bytes, done: Done, still_open: StillOpen
    ) -> None:
        """A worker stores its report before it lets the dispatch go: who finds neither, nor an end in the log, nor a worker that
        has it all the same, hands it out."""
        if await read_leader(self._connection, self._subjects.tasks_stream, subject) is not None:
            await self._stands((to.queue, to.priority), done)
            return
        match await self._whereabouts(entity, to, still_open, in_hand=to.in_hand):
            case "over":
                await done()
            case "in hand":
                await self.look_later(entity, done)
            case "nowhere":
                await self._dispatch(subject, data, (to.queue, to.priority), done)

    async def _whereabouts(
        self, entity: str, what: fx.DispatchAttempt | fx.TakeBack, still_open: StillOpen, *, in_hand: bool
    ) -> Literal["over", "in hand", "nowhere"]:
        """Where an attempt is of which there is no dispatch; `in_hand`: a worker may have it all the same."""

        async def over() -> bool:
            return await self._is_reported(entity, what) or not await still_open()

        if await over():
            return "over"
        if not in_hand:
            return "nowhere"
        if await self._somebody_has(entity, what):
            return "in hand"
        return "over" if await over() else "nowhere"  # who had it may have reported it just before the question

    async def _is_reported(self, entity: str, what: fx.DispatchAttempt | fx.TakeBack) -> bool:
        """Whether an outcome of the attempt waits in INBOX."""
        subject = self._subjects.report_stored(entity, what.queue, what.step, what.run, what.attempt)
        found = await read_leader(self._connection, self._subjects.inbox_stream, subject)
        if found is None:
            return False
        try:
            report = _type_of(found.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return True  # what cannot be read becomes the attempt's failure
        return report.type not in _NO_OUTCOMES and not report.pause

    async def _somebody_has(self, entity: str, what: fx.DispatchAttempt | fx.TakeBack) -> bool:
        """Whether a worker says that it has the attempt."""
        question = WhoHas(execution_id=entity, step=what.step, run=what.run, attempt=what.attempt)
        try:
            await self._connection.request(self._subjects.live(entity, "held"), _encode(question), _ANSWER_S)
        except Unavailable:
            if not self._connection.is_connected:
                raise
            return False
        return True

    async def look_later(self, entity: str, done: Done) -> None:
        """The dispatch of an open attempt is gone, or goes: if no worker has it, or that one is lost, nothing else would tell."""
        at = now() + timedelta(seconds=_LOOK_AGAIN_S)
        await self._schedule(entity, r.LOOK, at, done)

    async def _dispatch(self, subject: str, data: bytes, lane: tuple[str, int], done: Done) -> None:
        # No closure that names itself: that would be a cycle per dispatch for the collector.
        await self._publisher.send(subject, data, _MUST_NOT_EXIST, partial(self._dispatched, subject, data, lane, done))

    async def _dispatched(self, subject: str, data: bytes, lane: tuple[str, int], done: Done, ack: Ack) -> None:
        if ack.error is not None and ack.error.err_code not in WRONG_SEQUENCE:
            self._refused(subject, ack.error, partial(self._dispatch, subject, data, lane, done))
        else:
            await self._stands(lane, done)

    async def _stands(self, lane: tuple[str, int], done: Done) -> None:
        """There is a dispatch; its lane must deliver it."""
        if lane not in self._lanes:
            self._insist(partial(self._make_lane, lane, done))
        else:
            await done()

    async def _make_lane(self, lane: tuple[str, int], done: Done) -> None:
        await ensure_lane(self._connection, self._subjects, *lane)
        self._lanes.add(lane)
        await done()

    async def ask(self, requester: s.Requester, acquire: s.Acquire, done: Done) -> None:
        entity = s.entity_of(acquire.ask)
        await self._store(self._subjects.acquire(entity, *requester.parts), _encode(acquire), None, done)

    async def give_back(self, entity: str, requester: s.Requester, done: Done) -> None:
        await self._store(self._subjects.release(entity, *requester.parts), b"", None, done)

    async def grant(self, to: s.Requester, answer: s.Answer, done: Done) -> None:
        await self._store(self._subjects.grant(*to.parts), _encode(answer), None, done)

    async def make_room(self, execution: str, by: str, done: Done) -> None:
        """The same wish each time: it is applied once."""
        other = by.split("/")[0]
        wish = c.CancelExecution(
            id=f"room-{sha256(by.encode()).hexdigest()[:40]}",
            confirm=False,
            reason=f"{other} takes its place",
            code="replaced",
        )
        await self._store(self._subjects.command(execution, "cancel"), _encode(wish), None, done)

    async def report(self, entity: str, about: fx.DispatchAttempt | fx.TakeBack | fx.Ask, report: r.Report, done: Done) -> None:
        subject = self._subjects.report(entity, about.queue, about.step, about.run, about.attempt)
        await self._store(subject, _encode(report), None, done)

    async def set_timer(self, entity: str, timer: fx.SetTimer, done: Done) -> None:
        name = str(timer.name)
        await self._schedule(entity, name, timer.due, done)
        if timer.wait_s * 1000 < limits.backstop_timer_ms:
            self._soon(max(timer.wait_s, 0.0), entity, name)

    async def _schedule(self, entity: str, name: str, at: datetime, done: Done) -> None:
        headers = {
            "Nats-Schedule": f"@at {at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z",
            "Nats-Schedule-Target": self._subjects.due(entity, name),
        }
        await self._store(self._subjects.timer(entity, name), b"", header_block(headers), done)

    def _soon(self, wait: float, execution: str, name: str) -> None:
        """A timer that the server fires too coarsely runs here too; the first to fire is believed. Set twice it fires once."""
        timer = execution, name
        if (known := self._timers.pop(timer, None)) is not None:
            known.cancel()

        def fire() -> None:
            del self._timers[timer]
            self._insist(partial(self._publisher.send, self._subjects.due_in(execution, name), b""))

        self._timers[timer] = asyncio.get_running_loop().call_later(wait, fire)

    async def clear_timer(self, entity: str, timer: fx.ClearTimer, done: Done) -> None:
        subject = self._subjects.timer(entity, str(timer.name))
        self._insist(partial(self._purge, self._subjects.timers_stream, subject, done))

    async def _purge(self, stream: str, subject: str, done: Done) -> None:
        await self._connection.api(f"STREAM.PURGE.{stream}", {"filter": subject})
        await done()

    async def take_back(self, entity: str, what: fx.TakeBack, done: Done, still_open: StillOpen) -> None:
        if what.why in ("stop", "over"):
            await self._signal(entity, what.step, what.run, what.attempt, what.reason)
        self._insist(partial(self._take_back, entity, what, done, still_open))

    async def _take_back(self, entity: str, what: fx.TakeBack, done: Done, still_open: StillOpen) -> None:
        """Take the dispatch back; if its lane never delivered it, nobody has it, and that is reported. See `effects.TakeBack`.

        That it is not there proves nothing. Deleted by its sequence, because a purge by subject moves the lane on past what it
        never delivered.
        """
        subject = self._subjects.task(what.queue, what.priority, entity, what.step, what.run, what.attempt)
        waiting = await read_leader(self._connection, self._subjects.tasks_stream, subject)
        if waiting is None:
            await self._not_there(entity, what, subject, done, still_open)
            return
        if what.why == "overdue" and _is_shared_question(what):
            await self._take_away(entity, what, waiting.sequence, done, still_open)
            return
        before = await self._delivered(what.queue, what.priority)
        somebody_has_it = before.up_to >= waiting.sequence
        if somebody_has_it and what.why in ("overdue", "pause"):
            await done()
            return
        deleted = await self._delete_dispatch(waiting.sequence)
        after = await self._delivered(what.queue, what.priority)
        untouched = before.times == after.times and not somebody_has_it
        if deleted and (untouched or after.up_to < waiting.sequence):
            await self._nobody_had_it(entity, what, done)
        elif what.why in ("stop", "over"):
            # It may have been handed out after the first signal; from here on it is not handed out any more. On a busy lane that
            # is not known: so it is asked for, in the background, for the grace is the limit in any case.
            await self._signal(entity, what.step, what.run, what.attempt, what.reason)
            await done()
            if deleted and not somebody_has_it and what.why == "stop":
                self._insist(partial(self._ask_for_stopped, entity, what, still_open))
        elif not deleted:
            # Its worker is done with it, or it was taken back elsewhere: it must not be handed out once more.
            await self._not_there(entity, what, subject, done, still_open)
        else:
            # It was handed out in between, and its lease went with it. Put back, it would be handed out a second time at once.
            await self.look_later(entity, done)

    async def _ask_for_stopped(self, entity: str, what: fx.TakeBack, still_open: StillOpen) -> None:
        """If no worker has it, nobody gets it any more: whose socket it may lie in was told to stop it, and does not begin it."""
        if await self._whereabouts(entity, what, still_open, in_hand=True) == "nowhere":
            await self.report(entity, what, r.Withdrawn(), _nothing)

    async def _take_away(self, entity: str, what: fx.TakeBack, sequence: int, done: Done, still_open: StillOpen) -> None:
        """Whoever may have it: advice that comes after this is not heard."""
        if await self._delete_dispatch(sequence):
            await self._nobody_had_it(entity, what, done)
        else:  # its holder let it go just now, having reported; or the server did not answer
            self._insist(partial(self._take_back, entity, what, done, still_open), _TRY_AGAIN_S)

    async def _nobody_had_it(self, entity: str, what: fx.TakeBack, done: Done) -> None:
        if what.why == "over":
            await done()
        else:
            await self.report(entity, what, r.Withdrawn(pause=what.pause), done)

    async def _not_there(self, entity: str, what: fx.TakeBack, subject: str, done: Done, still_open: StillOpen) -> None:
        """Reported, or not handed out yet, or taken back by an executor that died before it could tell. What is overdue is put
        there, unless it is reported, and taken back once more: so it is either proven or begun, and a question taken away."""
        again = what.again.message if what.again is not None else None
        if again is None or isinstance(again, ErrorInfo):
            await done()
            return
        where = await self._whereabouts(entity, what, still_open, in_hand=not _is_shared_question(what))
        if where == "over":
            await done()
            return
        if where == "in hand":
            await self.look_later(entity, done)
            return
        lane = (what.queue, what.priority)
        what = what if _is_shared_question(what) else what._replace(again=None)
        take_back = partial(self._take_back, entity, what, done, still_open)

        async def stands() -> None:
            self._insist(take_back)

        await self._dispatch(subject, _encode(again), lane, stands)

    async def _delete_dispatch(self, sequence: int) -> bool:
        """False: it was gone already."""
        try:
            await self._connection.api(f"STREAM.MSG.DELETE.{self._subjects.tasks_stream}", {"seq": sequence, "no_erase": True})
        except ApiError:
            return False
        return True

    async def _delivered(self, queue: str, priority: int) -> _Delivered:
        """How far a lane has delivered, and how often."""
        consumer = self._subjects.lane_consumer(queue, priority)
        try:
            info = await self._connection.api(f"CONSUMER.INFO.{self._subjects.tasks_stream}.{consumer}")
        except ApiError as error:
            if error.err_code == _CONSUMER_NOT_FOUND:
                return _Delivered(0, 0)
            raise
        return _Delivered(int(info["delivered"]["stream_seq"]), int(info["delivered"]["consumer_seq"]))

    async def continue_later(self, entity: str, after: int, done: Done) -> None:
        await self._store(self._subjects.continue_in(entity, after), b"", None, done)

    async def start(self, entity: str, command: c.StartExecution, done: Done) -> None:
        await self._store(self._subjects.command(entity, "start"), _encode(command), None, done)

    async def tell_image(self, signal: ImageSignal) -> None:
        await self._tell(self._subjects.live(signal.execution_id, "before"), _encode(signal))

    async def answer(self, answer: Answer) -> None:
        data = _encode(answer)
        if len(data) > limits.message_bytes:  # the server would hang up on who sends more; the history tells it all
            data = _encode(msgspec.structs.replace(answer, warnings=(), record=None))
        await self._tell(self._subjects.reply(answer.execution_id, answer.command_id), data)

    async def stop_attempt(self, execution: str, step: str, attempt: str) -> None:
        run, _, number = attempt.partition("-")
        await self._signal(execution, step, int(run), int(number), "the attempt is closed")

    async def _signal(self, execution: str, step: str, run: int, attempt: int, reason: str) -> None:
        signal = CancelSignal(execution_id=execution, step=step, run=run, attempt=attempt, reason=reason)
        await self._tell(self._subjects.live(execution, "cancel"), _encode(signal))

    async def _tell(self, subject: str, data: bytes) -> None:
        """Say something that is not stored: if nobody can hear it now, it is lost, and the history tells it all the same.

        Posted, not published: who publishes over a socket that dies may be left waiting, and with it what follows in a mailbox.
        """
        try:
            self._connection.client.post(subject, data)
        except OutboundBufferLimitError:
            logger.debug("not told, no server: %s", subject)

    async def bury(self, envelope: Envelope, reason: ErrorInfo) -> None:
        room = self._publisher.room()
        letter = dead_letter(reason.code, reason.message, envelope.subject, datetime.now(UTC), envelope.data, room)

        async def stored(ack: Ack) -> None:
            if ack.error is None:
                await envelope.ack()
            else:
                logger.error("a message could not be buried (%s): %s", ack.error.description, envelope.entity)
                await envelope.nak(backoff_s(envelope.deliveries))

        entity, verb = (token if is_token(token) else "invalid" for token in (envelope.entity, envelope.verb))
        await self._publisher.send(self._subjects.dead(entity, verb), letter.data, letter.headers, stored)

    async def _store(self, subject: str, data: bytes, headers: bytes | None, done: Done) -> None:
        await self._publisher.send(subject, data, headers, partial(self._stored, subject, data, headers, done))

    async def _stored(self, subject: str, data: bytes, headers: bytes | None, done: Done, ack: Ack) -> None:
        if ack.error is None:
            await done()
        else:
            self._refused(subject, ack.error, partial(self._store, subject, data, headers, done))

    def _refused(self, subject: str, error: ErrorDetail, again: Work) -> None:
        """The server has no room, or somebody changed a stream: an operator must act, and then it goes on."""
        logger.error("refused, and will be tried again (%s): %s", error.description, subject)
        self._insist(again, _TRY_AGAIN_S)

    def _insist(self, work: Work, delay_s: float = 0.0) -> None:
        task = asyncio.create_task(self._until_done(work, delay_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_done(self, work: Work, delay_s: float) -> None:
        while True:
            if delay_s:
                await asyncio.sleep(delay_s)
            try:
                return await work()
            except (Unavailable, ApiError) as error:
                logger.warning("an effect will be tried again: %s", error)
                delay_s = _TRY_AGAIN_S
