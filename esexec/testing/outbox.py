"""Effects in memory: dispatches to the worker, timers, what goes to INBOX, answers and signals. See `executor.port.Outbox`."""

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256

import msgspec

from esexec.domain import commands as c
from esexec.domain import effects as fx
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo
from esexec.domain.messages import Answer, CancelSignal, ImageSignal
from esexec.domain.sharing import requests as s
from esexec.executor.envelope import Envelope
from esexec.executor.port import Done, StillOpen
from esexec.nats.subjects import Subjects
from esexec.testing.wire import Wire
from esexec.testing.worker import VirtualWorker

_encode = msgspec.json.encode
_LOOK_AGAIN_S = 2 * limits.lease_ms / 1000

Bury = Callable[[Envelope, ErrorInfo], None]


class MemoryOutbox:
    """See the module. It may be used as `executor.shared.SharedOutbox` too."""

    def __init__(self, wire: Wire, subjects: Subjects, worker: VirtualWorker, bury: Bury) -> None:
        self._wire, self._subjects, self._worker, self._bury = wire, subjects, worker, bury

    # Attempts --------------------------------------------------------------------------------------------------------------

    async def dispatch(self, entity: str, to: fx.DispatchAttempt, data: bytes, done: Done, still_open: StillOpen) -> None:
        subject = self._subjects.task(to.queue, to.priority, entity, to.step, to.run, to.attempt)
        if to.again and (self._worker.has(subject) or self._is_reported(entity, to) or not await still_open()):
            await done()
            return
        self._worker.put(subject, data)
        await done()

    def _is_reported(self, entity: str, what: fx.DispatchAttempt | fx.TakeBack) -> bool:
        """Whether an outcome of the attempt waits in INBOX."""
        token = f".{entity}.report.{what.queue}.{what.step}.{what.run}-{what.attempt}"
        waiting = [one for one in self._wire.kept.values() if one.subject.endswith(token)]
        return any(msgspec.json.decode(one.data).get("type") not in ("started", "lost", "before") for one in waiting)

    async def take_back(self, entity: str, what: fx.TakeBack, done: Done, still_open: StillOpen) -> None:
        """What no worker has is taken back, and reported; whoever has it is told to stop, if it is to."""
        subject = self._subjects.task(what.queue, what.priority, entity, what.step, what.run, what.attempt)
        if what.why in ("stop", "over"):
            self._stop(entity, what.step, what.run, what.attempt)
        if self._worker.withdraw(subject):
            if what.why == "over":
                await done()
            else:
                await self.report(entity, what, r.Withdrawn(pause=what.pause), done)
            return
        again = what.again.message if what.again is not None else None
        missing = not (self._worker.has(subject) or again is None or isinstance(again, ErrorInfo))
        if missing and not self._is_reported(entity, what) and await still_open():
            self._worker.put(subject, _encode(again))
        await done()

    async def report(self, entity: str, about: fx.DispatchAttempt | fx.TakeBack | fx.Ask, report: r.Report, done: Done) -> None:
        await self._keep(self._subjects.report(entity, about.queue, about.step, about.run, about.attempt), _encode(report), done)

    async def stop_attempt(self, execution: str, step: str, attempt: str) -> None:
        run, _, number = attempt.partition("-")
        self._stop(execution, step, int(run), int(number))

    def _stop(self, execution: str, step: str, run: int, attempt: int) -> None:
        self._worker.stop_attempt(CancelSignal(execution_id=execution, step=step, run=run, attempt=attempt))

    async def tell_image(self, signal: ImageSignal) -> None:
        self._wire.post(self._subjects.live(signal.execution_id, "before"), _encode(signal))

    # Timers, and what goes to INBOX or COMMANDS ------------------------------------------------------------------------------

    async def set_timer(self, entity: str, timer: fx.SetTimer, done: Done) -> None:
        self._wire.set_timer(entity, str(timer.name), self._wire.world.seconds(timer.due))
        await done()

    async def clear_timer(self, entity: str, timer: fx.ClearTimer, done: Done) -> None:
        self._wire.clear_timer(entity, str(timer.name))
        await done()

    async def look_later(self, entity: str, done: Done) -> None:
        at = self._wire.world.now() + timedelta(seconds=_LOOK_AGAIN_S)
        self._wire.set_timer(entity, r.LOOK, self._wire.world.seconds(at))
        await done()

    async def continue_later(self, entity: str, after: int, done: Done) -> None:
        await self._keep(self._subjects.continue_in(entity, after), b"", done)

    async def start(self, entity: str, command: c.StartExecution, done: Done) -> None:
        await self._keep(self._subjects.command(entity, "start"), _encode(command), done)

    async def ask(self, requester: s.Requester, acquire: s.Acquire, done: Done) -> None:
        entity = s.entity_of(acquire.ask)
        await self._keep(self._subjects.acquire(entity, *requester.parts), _encode(acquire), done)

    async def give_back(self, entity: str, requester: s.Requester, done: Done) -> None:
        await self._keep(self._subjects.release(entity, *requester.parts), b"", done)

    async def grant(self, to: s.Requester, answer: s.Answer, done: Done) -> None:
        await self._keep(self._subjects.grant(*to.parts), _encode(answer), done)

    async def make_room(self, execution: str, by: str, done: Done) -> None:
        wish = c.CancelExecution(
            id=f"room-{sha256(by.encode()).hexdigest()[:40]}",
            confirm=False,
            reason=f"{by.split('/')[0]} takes its place",
            code="replaced",
        )
        await self._keep(self._subjects.command(execution, "cancel"), _encode(wish), done)

    async def _keep(self, subject: str, data: bytes, done: Done) -> None:
        self._wire.keep(subject, data)
        await done()

    # Told --------------------------------------------------------------------------------------------------------------------

    async def answer(self, answer: Answer) -> None:
        self._wire.post(self._subjects.reply(answer.execution_id, answer.command_id), _encode(answer))

    async def bury(self, envelope: Envelope, reason: ErrorInfo) -> None:
        self._bury(envelope, reason)
        await envelope.ack()
