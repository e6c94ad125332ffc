"""How an attempt is handed out: its dispatch as bytes at once, or apart, where objects have to be waited for.

One that cannot be handed out (a reference to nothing, params too large) becomes its own failure.
"""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from esexec.domain import effects as fx
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.dispatches import Deferred
from esexec.domain.errors import ErrorInfo, EsexecError, InternalError, ValidationError
from esexec.domain.messages import Dispatch
from esexec.executor.mailbox import Batch
from esexec.executor.packing import ObjectStore, packed
from esexec.executor.port import Done, StillOpen

if TYPE_CHECKING:
    from esexec.executor.desk import Desk

logger = logging.getLogger("esexec.executor")

_DISPATCH = msgspec.json.Encoder()
_read_dispatch = msgspec.json.Decoder(Dispatch).decode
_LARGEST_DISPATCH = limits.params_bytes + limits.input_bytes + limits.vars_bytes + limits.image_bytes
"""Params with the context, the variables and the before-image that travel along."""
_LARGEST_UNDOING = limits.message_bytes - limits.headers_bytes
"""An undoing has the params and the output of what it undoes; a question to a strategy has the plan and the state."""
_TRY_AGAIN_S = 1.0
_PACKED_AT_ONCE = 4
"""Each may have `limits.object_bytes` of params in memory."""
_SLOW_S = 5.0
"""Objects that took so long to get: what waited for them may have been delivered to another executor meanwhile."""


async def _surely_open() -> bool:
    """Of an attempt that is handed out for the first time."""
    return True


class Dispatching:
    """See the module. `objects`: where large values are; None: there are none, and what is too large fails."""

    def __init__(self, desk: "Desk", objects: ObjectStore | None) -> None:
        self._desk, self._log, self._outbox, self._objects = desk, desk.log, desk.outbox, objects
        self._catching_up = asyncio.Lock()
        self._packing = asyncio.Semaphore(_PACKED_AT_ONCE)

    async def dispatch(self, entity: str, batch: Batch, effect: fx.DispatchAttempt, done: Done) -> None:
        """Hand an attempt out; `done` is called when that, or its failure, stands."""
        still_open = partial(self._still_open, entity, batch, effect) if effect.again else _surely_open
        message = effect.message
        if isinstance(message, Dispatch):
            data, error = _encoded(message, self._objects is not None)
            if error is not None:
                await self._cannot_go(entity, effect, error, done)
            elif len(data) > limits.params_bytes and self._objects is not None:
                self._desk.spawn(self._dispatch_apart(entity, batch, effect, done, still_open))
            else:
                await self._outbox.dispatch(entity, effect, data, done, still_open)
        elif isinstance(message, ErrorInfo):
            await self._cannot_go(entity, effect, message, done)
        else:
            self._desk.spawn(self._dispatch_apart(entity, batch, effect, done, still_open))

    async def take_back(self, entity: str, batch: Batch, effect: fx.TakeBack, done: Done) -> None:
        """Take one back, to be handed out again as `effect.again` says."""
        if effect.again is not None and self._objects is not None and _needs_objects(effect.again.message):
            self._desk.spawn(self._take_back_apart(entity, batch, effect, done))
        else:
            await self._outbox.take_back(entity, effect, done, partial(self._still_open, entity, batch, effect))

    async def _cannot_go(self, entity: str, effect: fx.DispatchAttempt, error: ErrorInfo, done: Done) -> None:
        info = msgspec.structs.replace(error, retryable=False, task_id=effect.step, attempt=effect.attempt)
        await self._outbox.report(entity, effect, r.Failed(error=info), done)

    async def _dispatch_apart(
        self, entity: str, batch: Batch, effect: fx.DispatchAttempt, done: Done, still_open: StillOpen
    ) -> None:
        """With objects, which are waited for. After a long wait another executor may have handed it out, and be done with it."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        found = await self._packed(effect)
        if loop.time() - begun >= _SLOW_S and not effect.again:
            effect, still_open = effect._replace(again=True, in_hand=True), partial(self._still_open, entity, batch, effect)
        if isinstance(found, ErrorInfo):
            await self._cannot_go(entity, effect, found, done)
        else:
            await self._outbox.dispatch(entity, effect, found, done, still_open)

    async def _take_back_apart(self, entity: str, batch: Batch, effect: fx.TakeBack, done: Done) -> None:
        assert effect.again is not None
        found = await self._packed(effect.again)
        message = found if isinstance(found, ErrorInfo) else _read_dispatch(found)
        effect = effect._replace(again=effect.again._replace(message=message))
        await self._outbox.take_back(entity, effect, done, partial(self._still_open, entity, batch, effect))

    async def _packed(self, effect: fx.DispatchAttempt) -> bytes | ErrorInfo:
        """The dispatch as it travels. Until the objects can be had: what were given up would hold up its execution for ever."""
        assert not isinstance(effect.message, ErrorInfo)
        if self._objects is None:
            error = "params are too large once references are resolved, and there is no object store here"
            return ValidationError(error, code="params_too_large").info
        while True:
            try:
                async with self._packing:
                    return await packed(self._objects, effect.message)
            except EsexecError as error:
                logger.warning("a dispatch will be tried again: %s", error)
                await asyncio.sleep(_TRY_AGAIN_S)
            except Exception as error:
                logger.exception("a fault of ours")
                return InternalError(f"the params cannot be sent: {error!r}").info

    async def _still_open(self, entity: str, batch: Batch, of: fx.DispatchAttempt | fx.TakeBack) -> bool:
        """Whether no other executor's commit closed the attempt since the batch's effects were worked out."""
        if await self._log.read(entity, batch.known + 1) is not None:
            async with self._catching_up:  # the next to come here has what this one folds
                if await self._log.read(entity, batch.known + 1) is not None:
                    batch.fresh = await self._desk.fold(entity, certain=True)
                    batch.known = batch.fresh.n
        state = batch.fresh
        if state is None:
            return True
        step = state.steps[state.graph.index[of.step]]
        return state.run == of.run and step.attempt == of.attempt and step.open


def _needs_objects(message: Dispatch | Deferred | ErrorInfo) -> bool:
    if isinstance(message, Dispatch):
        return len(_encoded(message, True)[0]) > limits.params_bytes
    return isinstance(message, Deferred)


def _encoded(dispatch: Dispatch, of_any_size: bool) -> tuple[bytes, ErrorInfo | None]:
    """The dispatch's bytes, or why they cannot be sent."""
    try:
        data = _DISPATCH.encode(dispatch)
        if of_any_size:
            return data, None
        if len(data) > _LARGEST_UNDOING and dispatch.purpose == "compensation":
            data = _DISPATCH.encode(msgspec.structs.replace(dispatch, output=None))  # its fields stand among the params
    except Exception as error:  # whatever it is, a dispatch that were given up would hold up its execution for ever
        return b"", InternalError(f"the params cannot be sent: {error!r}").info
    if len(data) <= (_LARGEST_DISPATCH if dispatch.purpose in ("task", "fallback") else _LARGEST_UNDOING):
        return data, None
    return data, ValidationError(
        f"the params of {dispatch.step} are {len(data)} bytes with references resolved",
        code="params_too_large",
        hint=f"at most {limits.params_bytes} bytes (limits.params_bytes); pass a key or a path instead",
    ).info
