"""A state of an execution as bytes, so that a long history need not be folded from its beginning.

A snapshot is no truth: without it, the history says the same. It is written in a form that belongs to this version of esexec
alone (`FORM` stands for it): another version does not read it, and takes its own.
"""

import hashlib
from collections import deque
from typing import Any, get_type_hints

import msgspec
from eventsourcing.persistence import IntegrityError, StoredEvent

from esexec.domain import state
from esexec.domain.compiled import graph_of
from esexec.domain.errors import CorruptHistory
from esexec.domain.state import Deed, ExecutionState

TOPIC = "execution_state"

_DERIVED = frozenset({"graph", "policies", "standing", "doomed"})
"""What can be had from the rest, or is written in another form."""
_FIELDS = [(name, kind) for name, kind in get_type_hints(ExecutionState).items() if name not in _DERIVED]

_Written = msgspec.defstruct("_Written", [*_FIELDS, ("standing", list[Deed]), ("doomed", list[tuple[int, str]])])

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Written).decode


def _form() -> str:
    """A name for the form: of all fields, also of what stands in them, and of what makes a state of events."""
    told = msgspec.json.encode(msgspec.json.schema(_Written), order="sorted")
    return hashlib.sha256(told).hexdigest()[:12]


FORM = _form()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an execution after the event of a version, as the library's snapshots are."""

    originator_id: str
    originator_version: int
    written: bytes

    @classmethod
    def take(cls, aggregate: ExecutionState) -> "Snapshot":
        """Of this state, which may change afterwards. Raises the library's `IntegrityError` for one with values in objects: in
        bytes a reference would be a value like any other."""
        if aggregate.has_objects:
            raise IntegrityError(f"{aggregate.execution_id} has values in objects: no snapshot is taken of it")
        written = state_to_bytes(aggregate)
        return cls(originator_id=aggregate.execution_id, originator_version=aggregate.version, written=written)

    @classmethod
    def of(cls, stored: StoredEvent) -> "Snapshot":
        """As it was stored."""
        return cls(originator_id=str(stored.originator_id), originator_version=stored.originator_version, written=stored.state)

    @property
    def state(self) -> ExecutionState:
        """A state of its own for whoever asks. Raises `CorruptHistory` for what is none."""
        return state_of_bytes(self.written)

    @property
    def stored(self) -> StoredEvent:
        return StoredEvent(self.originator_id, self.originator_version, TOPIC, self.written)


def state_to_bytes(found: ExecutionState) -> bytes:
    """The state, all of it, as JSON."""
    values: dict[str, Any] = {name: _plain(getattr(found, name)) for name, _ in _FIELDS}
    return _encode(_Written(**values, standing=list(found.standing.values()), doomed=list(found.doomed)))


def _plain(value: Any) -> Any:
    return dict(value) if value is state.NOTHING else value


def state_of_bytes(data: bytes) -> ExecutionState:
    """The state that these bytes are. Raises `CorruptHistory`."""
    try:
        written: Any = _decode(data)
        found = ExecutionState(**{name: getattr(written, name) for name, _ in _FIELDS})
        found.graph = graph_of(found.created.document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptHistory(f"these bytes are no state of an execution: {error}") from error
    found.standing = {deed.key: deed for deed in written.standing}
    found.doomed = deque(written.doomed)
    return found
