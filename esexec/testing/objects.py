"""The object store in memory."""

from typing import Any

from esexec.domain.errors import CorruptHistory
from esexec.domain.objects import ObjectRef, within
from esexec.nats.objects import Objects, ref_of, value_of


class MemoryObjects(Objects):
    """See the module."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    async def put(self, data: bytes) -> ObjectRef:
        ref = ref_of(data)
        self._kept[ref.sha256] = data
        return ref

    async def has(self, ref: ObjectRef) -> bool:
        return len(self._kept.get(ref.sha256, b"")) == ref.bytes

    async def get(self, ref: ObjectRef) -> bytes:
        return self.found(ref)

    async def part(self, ref: ObjectRef, path: tuple[str | int, ...]) -> Any:
        return within(value_of(ref, self.found(ref)), path)

    async def read(self, ref: ObjectRef) -> bytes:
        return self.found(ref)

    def found(self, ref: ObjectRef) -> bytes:
        if ref.sha256 not in self._kept:
            raise CorruptHistory(f"object {ref.sha256} is not there", code="object_missing")
        return self._kept[ref.sha256]
