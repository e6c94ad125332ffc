"""What is too large for a message, on the worker's side: what a dispatch left out is put into its place, and large outputs are
stored before they are reported.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.errors import CorruptHistory, Unavailable
from esexec.domain.messages import Dispatch, RecoveryRequest
from esexec.domain.objects import put_in
from esexec.nats.objects import Objects
from esexec.tasks.outputs import OUTPUT, encode_value
from esexec.worker.attempt import Attempt

_question = msgspec.json.Decoder(RecoveryRequest).decode
logger = logging.getLogger("esexec.worker")

T = TypeVar("T")
_TRY_AGAIN_S = 1.0


async def with_objects(objects: Objects, dispatch: Dispatch) -> Dispatch:
    """The dispatch with all that it says is in objects. Raises `CorruptHistory`, `ValidationError`; else it goes on trying."""
    fields: dict[str, Any] = {"params": dispatch.params, "output": dispatch.output}
    for part in dispatch.objects:
        field, *rest = part.at
        if field == "recovery":
            fields["recovery"] = _question(await _fetched(partial(objects.get, part.ref)))
            continue
        value = await _fetched(partial(objects.part, part.ref, part.path))
        try:
            fields[str(field)] = put_in(fields[str(field)], tuple(rest), value)
        except (LookupError, TypeError, ValueError):
            where = ".".join(map(str, part.at))
            raise CorruptHistory(f"the dispatch has no place {where} for the object {part.sha256}", code="bad_dispatch") from None
    return msgspec.structs.replace(dispatch, objects=(), **fields)


async def _fetched(ask: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await ask()
        except Unavailable as error:
            logger.warning("an object will be asked for again: %s", error)
            await asyncio.sleep(_TRY_AGAIN_S)


async def encoded(objects: Objects, attempt: Attempt, report: r.Completed, output: Any, data: bytes) -> bytes:
    """The report, with its output as an object if that is too large for it. Returns once that is stored, or it is over."""
    part = encode_value(output, OUTPUT)
    if len(part) <= limits.output_bytes:
        return data
    while True:
        try:
            ref = await objects.put(part)
            break
        except Unavailable as error:
            logger.warning("the output of %s will be stored again: %s", attempt.key, error)
            if attempt.over:
                return data
            await asyncio.sleep(_TRY_AGAIN_S)
    return msgspec.json.encode(msgspec.structs.replace(report, output=None, output_object=ref))
