"""The object store of a namespace: large values, each found by the SHA-256 of its bytes.

A bucket of JetStream's object store (ADR-20), so that any client and the `nats` command line can read and write it. An object's
name is its hash: storing one twice is storing it once, and what was read is believed only if its hash is its name. Nothing here
is ever deleted: a history that names an object needs it for as long as it is there.
"""

import asyncio
from collections import OrderedDict
from hashlib import sha256
from typing import Any

import msgspec
from nats import errors
from nats.js import api
from nats.js import errors as js_errors
from nats.js.object_store import ObjectStore

from esexec.domain import limits
from esexec.domain.errors import CorruptHistory, Unavailable, ValidationError
from esexec.domain.objects import ObjectRef, within
from esexec.nats.connection import Connection
from esexec.nats.direct import DirectReader, read_leader
from esexec.nats.subjects import Subjects

_CHUNK_BYTES = 128 * 1024
_PAGE = 64
"""Chunks that are read at once; somebody else may have made them larger."""
_PUTS_AT_ONCE = 8
_PUT_S = 60.0
_LOOKS = 5
"""A follower may not have heard of the last chunks yet."""


class _Info(msgspec.Struct):
    """As much of an object's description as is needed to read it."""

    nuid: str
    size: int = 0
    chunks: int = 0
    deleted: bool = False


_ROWS, _ROWS_BYTES = 100_000, 16 * 1024 * 1024
"""An object of more members, or more bytes, is read as a whole: each member would take far more memory than it has bytes."""
_info = msgspec.json.Decoder(_Info).decode
_members = msgspec.json.Decoder(list[msgspec.Raw] | dict[str, msgspec.Raw]).decode


def ref_of(data: bytes) -> ObjectRef:
    """What these bytes are called."""
    return ObjectRef(sha256(data).hexdigest(), len(data))


class Objects:
    """See the module. Remembers the bytes of the objects that were read last (`limits.opened_bytes`)."""

    def __init__(self, connection: Connection, subjects: Subjects, reader: DirectReader) -> None:
        self._connection, self._subjects, self._reader = connection, subjects, reader
        self._known: OrderedDict[str, bytes] = OrderedDict()
        self._known_bytes = 0
        self._rows: dict[str, Any] = {}
        """The members of those, of which somebody wanted one."""
        self._reading: dict[str, asyncio.Task[bytes]] = {}
        self._puts = asyncio.Semaphore(_PUTS_AT_ONCE)
        self._store: ObjectStore | None = None

    # Storing -------------------------------------------------------------------------------------------------------------

    async def put(self, data: bytes) -> ObjectRef:
        """Store an object; returns once it is there. The same again does nothing. Raises `Unavailable` if that is not known."""
        ref = ref_of(data)
        async with self._puts:
            try:
                async with asyncio.timeout(_PUT_S):
                    if not await self._is_whole(ref):
                        chunk = api.ObjectMetaOptions(max_chunk_size=min(_CHUNK_BYTES, self._connection.max_payload))
                        await self._bucket().put(ref.sha256, data, api.ObjectMeta(name=ref.sha256, options=chunk))
            except (errors.Error, js_errors.Error, TimeoutError) as error:
                hint = "is the object store there, and has the server room for it? (nats object ls)"
                raise Unavailable(f"object {ref.sha256[:12]}… was not stored: {error!r}", code="not_stored", hint=hint) from None
        return ref

    def _bucket(self) -> ObjectStore:
        if self._store is None:
            stream = self._subjects.objects_stream
            self._store = ObjectStore(self._subjects.objects_bucket, stream, self._connection.client.jetstream())
        return self._store

    async def _is_whole(self, ref: ObjectRef) -> bool:
        """Whether there is an object of that name that is what its name says; one that somebody broke is stored anew."""
        try:
            return bool(await self._read(ref))
        except CorruptHistory:
            return False

    async def has(self, ref: ObjectRef) -> bool:
        """Whether there is an object of that name and size. Raises `Unavailable`."""
        info = await self._info(ref)
        return info is not None and info.size == ref.bytes

    # Reading -------------------------------------------------------------------------------------------------------------

    async def get(self, ref: ObjectRef) -> bytes:
        """The object's bytes. Raises `CorruptHistory` (`object_missing`, `object_altered`), `Unavailable`."""
        found = self._known.get(ref.sha256)
        if found is not None:
            self._known.move_to_end(ref.sha256)
            return found
        reading = self._reading.get(ref.sha256)
        if reading is None:
            reading = self._reading[ref.sha256] = asyncio.create_task(self._read(ref))
            reading.add_done_callback(lambda _: self._reading.pop(ref.sha256, None))
        data = await asyncio.shield(reading)
        self._remember(ref.sha256, data)
        return data

    async def value(self, ref: ObjectRef) -> Any:
        """What the object's JSON says, a copy of one's own. Raises as `get`."""
        return value_of(ref, await self.get(ref))

    async def part(self, ref: ObjectRef, path: tuple[str | int, ...]) -> Any:
        """What stands in the object along a path, a copy of one's own. Of many that each want a row the rest is not read again
        and again. Raises as `get`, and `ValidationError` (`reference_unresolved`)."""
        data = await self.get(ref)
        if path and (rows := self._rows_of(ref.sha256, data)) is not None:
            try:
                return within(msgspec.json.decode(rows[path[0]]), path[1:])
            except (LookupError, TypeError, ValidationError):
                pass  # is told below, as what it is
        return within(value_of(ref, data), path)

    def _rows_of(self, name: str, data: bytes) -> Any:
        """The members of an object, as yet unread; None where that would not help."""
        if name not in self._rows and len(data) <= _ROWS_BYTES:
            try:
                rows: Any = _members(data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return None
            if name not in self._known or len(rows) > _ROWS:
                return rows
            self._rows[name] = rows
        return self._rows.get(name)

    async def read(self, ref: ObjectRef) -> bytes:
        """As `get`, as it is there now."""
        return await self._read(ref)

    def _remember(self, name: str, data: bytes) -> None:
        if name in self._known:
            return
        self._known[name] = data
        self._known_bytes += len(data)
        while self._known_bytes > limits.opened_bytes:
            one, dropped = self._known.popitem(last=False)
            self._rows.pop(one, None)
            self._known_bytes -= len(dropped)

    async def _read(self, ref: ObjectRef) -> bytes:
        info = await self._info(ref)
        if info is None:
            raise CorruptHistory(
                f"object {ref.sha256} is missing",
                code="object_missing",
                hint=f"it belongs into the bucket {self._subjects.objects_bucket}; was it deleted, or never stored?",
            )
        if info.size != ref.bytes:
            raise _altered(ref, f"has {info.size} bytes, not {ref.bytes}")
        data = await self._chunks(info)
        if sha256(data).hexdigest() != ref.sha256:
            raise _altered(ref, "holds other bytes than its name says")
        return data

    async def _info(self, ref: ObjectRef) -> _Info | None:
        subject, stream = self._subjects.object_info(ref.sha256), self._subjects.objects_stream
        found = await self._reader.last_of_each(stream, [subject])
        last = found[0] if found else await read_leader(self._connection, stream, subject)
        try:
            info = _info(last.data) if last is not None else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise _altered(ref, "is described by what cannot be read") from None
        return None if info is None or info.deleted else info

    async def _chunks(self, info: _Info) -> bytes:
        """The chunks in their order, as many as there are said to be, or as are there."""
        subject, parts, first = self._subjects.object_chunks(info.nuid), list[bytes](), 1
        size, looks = 0, 0
        while len(parts) < info.chunks and size < info.size and looks < _LOOKS:
            found = await self._reader.from_first(self._subjects.objects_stream, subject, _PAGE, first=first)
            if not found:
                looks += 1
                await asyncio.sleep(0.02 * looks)
                continue
            parts += [one.data for one in found]
            size += sum(len(one.data) for one in found)
            first = found[-1].sequence + 1
        return b"".join(parts)


def value_of(ref: ObjectRef, data: bytes) -> Any:
    """What an object's bytes say. Raises `CorruptHistory` (`object_altered`)."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _altered(ref, "is not JSON") from None


def _altered(ref: ObjectRef, why: str) -> CorruptHistory:
    return CorruptHistory(f"object {ref.sha256} {why}", code="object_altered", hint="somebody stored another under its name")
