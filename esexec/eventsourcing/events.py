"""An event of the log as the library has it: a `StoredEvent` with a topic, and a domain event with an originator and a version.

A topic is the event's type as it stands in the log (`task_completed`). What it means is said by a closed table: nothing is
imported because a stored topic names it.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, cast

import msgspec
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import (
    DataError,
    JSONTranscoder,
    Mapper,
    MapperDeserialisationError,
    ProgrammingError,
    StoredEvent,
    Transcoder,
)

from esexec.domain.commit import Cause, Commit
from esexec.domain.errors import CorruptHistory
from esexec.domain.events import TYPES, Event, type_of
from esexec.domain.evolve import begin, evolve, note_cause
from esexec.domain.state import ExecutionState
from esexec.eventsourcing.snapshots import TOPIC, Snapshot
from esexec.log.port import Stored

EVENTS_PER_COMMIT = 1000
"""A notification's id is its commit's position times this, plus the event's place in the commit (which has some 500 at most)."""


class Frame(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """What is stored of an event: itself, and what its commit says. `is_last`: of its commit, which is whole then."""

    n: int
    position: int
    time: datetime
    commands: tuple[Cause, ...] = ()
    actor: str | None = None
    executor: str = ""
    is_last: bool = False
    event: Event


class Recorded(Frame, frozen=True, kw_only=True):
    """An event as projections and projectors are given it. `event` is what happened, one of `esexec.domain.events`."""

    originator_id: str
    originator_version: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Frame).decode


def stored_events(commit: Commit, stored: Stored) -> Iterator[StoredEvent]:
    """The events of a commit. Raises `DataError` for more than can be numbered."""
    if len(commit.events) > EVENTS_PER_COMMIT:
        raise DataError(f"{commit.execution_id}: commit {commit.n} has {len(commit.events)} events")
    last = len(commit.events) - 1
    for index, event in enumerate(commit.events):
        frame = Frame(
            n=commit.n,
            position=stored.position,
            time=commit.time,
            commands=commit.commands,
            actor=commit.actor,
            executor=commit.executor,
            is_last=index == last,
            event=event,
        )
        yield StoredEvent(commit.execution_id, commit.version + index, type_of(event), _encode(frame))


class LogMapper(Mapper[str]):
    """From stored events to `Recorded` and back, and the same for snapshots. No encryption, no compression, as in the log."""

    def __init__(self, transcoder: Transcoder | None = None, compressor: Any = None, cipher: Any = None) -> None:
        if compressor is not None or cipher is not None:
            raise ProgrammingError("the log is read as it is: no compressor, no cipher")
        super().__init__(transcoder or JSONTranscoder())

    def to_stored_event(self, domain_event: DomainEventProtocol[str]) -> StoredEvent:
        if isinstance(domain_event, Snapshot):
            return domain_event.stored
        event = cast(Recorded, domain_event)
        frame = Frame(**{field: getattr(event, field) for field in Frame.__struct_fields__})
        return StoredEvent(event.originator_id, event.originator_version, type_of(event.event), _encode(frame))

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[str]:
        """Raises `MapperDeserialisationError`."""
        originator_id, version = str(stored_event.originator_id), stored_event.originator_version
        try:
            if stored_event.topic == TOPIC:
                return cast(DomainEventProtocol[str], Snapshot.of(stored_event))
            if stored_event.topic not in TYPES:
                raise CorruptHistory(f"{stored_event.topic[:80]!r} is no topic of the log")
            frame = _decode(stored_event.state)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, CorruptHistory) as error:
            raise MapperDeserialisationError(f"{originator_id}: version {version} cannot be read: {error}") from error
        fields = {field: getattr(frame, field) for field in Frame.__struct_fields__}
        return cast(DomainEventProtocol[str], Recorded(originator_id=originator_id, originator_version=version, **fields))


def project(state: ExecutionState | None, events: Iterable[Recorded | Snapshot]) -> ExecutionState | None:
    """The library's projector function of an execution: its state after these events; None if there is none.

    Raises `CorruptHistory` if they do not follow each other and the state, or tell what cannot have happened.
    """
    for event in events:
        if isinstance(event, Snapshot):
            state = event.state
            continue
        state = ExecutionState(event.originator_id) if state is None else state
        if event.originator_version != state.version + 1:
            message = f"{event.originator_id}: version {event.originator_version} follows {state.version}"
            raise CorruptHistory(message)
        try:
            if event.n != state.n:
                begin(state, event.n, event.time)
            evolve(state, event.event)
        except Exception as error:
            raise CorruptHistory(
                f"{event.originator_id}: version {event.originator_version} cannot have happened ({error!r})"
            ) from error
        state.position = event.position
        if event.is_last:
            for cause in event.commands:
                note_cause(state, cause.id, cause.time)
    return state
