"""Dispatches that are too large for a message, or that hold what is in objects: made ready apart from the usual way, since the
objects that are needed, and those that are made, must be waited for.
"""

from typing import Any, Protocol

import msgspec

from esexec.domain import limits
from esexec.domain.dispatches import Deferred
from esexec.domain.errors import CorruptHistory, ErrorInfo, InternalError, ValidationError
from esexec.domain.messages import Dispatch
from esexec.domain.objects import ObjectNeeded, ObjectPart, ObjectRef

_encode = msgspec.json.encode
_ROOM = limits.message_bytes - limits.headers_bytes
_EMPTY: dict[str, Any] = {"params": {}, "output": None, "recovery": None}
"""What can travel as an object, and what stands there instead."""


class ObjectStore(Protocol):
    """Where objects are. All methods raise `Unavailable`."""

    async def put(self, data: bytes) -> ObjectRef: ...
    async def get(self, ref: ObjectRef) -> bytes: ...
    async def value(self, ref: ObjectRef) -> Any: ...
    async def has(self, ref: ObjectRef) -> bool: ...


async def packed(objects: ObjectStore, message: Dispatch | Deferred) -> bytes | ErrorInfo:
    """The bytes of a dispatch, with what is large as objects; or why it cannot be handed out. Raises `Unavailable`."""
    try:
        dispatch = await _with_objects(objects, message) if isinstance(message, Deferred) else message
        return await _small_enough(objects, dispatch)
    except (ValidationError, CorruptHistory) as error:
        return error.info
    except (TypeError, ValueError, RecursionError) as error:
        return InternalError(f"the params cannot be sent: {error!r}").info


async def _with_objects(objects: ObjectStore, deferred: Deferred) -> Dispatch:
    """The dispatch with the objects that it needs. Raises ValidationError, CorruptHistory."""
    opened: dict[str, Any] = {}
    size = 0
    while True:
        try:
            return deferred.with_objects(opened)
        except ObjectNeeded as needed:
            size += needed.ref.bytes
            if size > limits.object_bytes:
                raise _too_large("what the params refer to", size) from None
            opened[needed.ref.sha256] = await objects.value(needed.ref)


async def _small_enough(objects: ObjectStore, dispatch: Dispatch) -> bytes:
    data = _encode(dispatch)
    for field, empty in _EMPTY.items():
        if len(data) <= limits.params_bytes:
            break
        value = getattr(dispatch, field)
        if value == empty or len(part := _encode(value)) <= (limits.params_bytes if field != "recovery" else 0):
            continue
        if len(part) > limits.object_bytes:
            raise _too_large(f"the {field} of {dispatch.step}", len(part))
        ref = await objects.put(part)
        whole = ObjectPart(at=(field,), sha256=ref.sha256, bytes=ref.bytes)
        # What else is missing belongs into what this object holds: it comes first.
        dispatch = msgspec.structs.replace(dispatch, **{field: empty}, objects=(whole, *dispatch.objects))
        data = _encode(dispatch)
    if len(data) > _ROOM:
        raise _too_large(f"the dispatch of {dispatch.step}", len(data))
    return data


def _too_large(what: str, size: int) -> ValidationError:
    hint = f"at most {limits.object_bytes} bytes (limits.object_bytes); pass a key or a path instead"
    return ValidationError(f"{what} has {size} bytes", code="params_too_large", hint=hint)
