"""An entity that executions share as it is written down when it is compacted, and read from there again.

What many have in common stands there once: what was asked for, what was answered, what resources are like. Times are
microseconds since 1970. What was written before that is read as well: there it is the plain JSON of the state (`v` 1).
"""

from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import msgspec

from esexec.domain import events as e
from esexec.domain.flow import Resource, ResourcePool
from esexec.domain.sharing.requests import Ask, Denied
from esexec.domain.sharing.state import Grant, Request, SharedState, Wake

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Waiting(msgspec.Struct, array_like=True, gc=False):
    id: str
    since: int
    ask: int
    at: int
    priority: int


class _Given(msgspec.Struct, array_like=True, gc=False):
    id: str
    like: int
    amount: float


class _Held(msgspec.Struct, array_like=True, gc=False):
    id: str
    ask: int
    time: int
    at: int
    until: int | None
    resources: tuple[_Given, ...]


class _Written(msgspec.Struct, omit_defaults=True):
    """The fields of the state. `asks`, `answers`, `likes`: what the others mean by a number."""

    v: int
    entity: str
    n: int
    version: int
    time: datetime | None
    asks: list[Ask]
    answers: list[Denied]
    likes: list[Resource]
    waiting: list[_Waiting]
    held: list[_Held]
    dropped: list[tuple[str, int]]
    window: list[int] = []
    forgotten: int = 0
    most: int = 0
    recent: dict[str, int] = {}
    turns: dict[str, int] = {}
    pools: dict[str, ResourcePool] = {}
    applied: dict[str, int] = {}
    wake: Wake | None = None
    compacted: int = 0


class _Form(msgspec.Struct):
    """As much of it as says how it was written."""

    v: int = 1


_form = msgspec.json.Decoder(_Form).decode
_plain = msgspec.json.Decoder(SharedState).decode
_written = msgspec.json.Decoder(_Written).decode
_AS_IT_IS = ("window", "forgotten", "most", "recent", "turns", "pools", "applied", "wake", "compacted")


def snapshot(state: SharedState) -> e.Compacted:
    """All that it has become."""
    asks, answers, likes = _Once[Ask](), _Once[Denied](), _Once[Resource]()
    written = _Written(
        v=2,
        entity=state.entity,
        n=state.n,
        version=state.version,
        time=state.time,
        asks=asks.found,
        answers=answers.found,
        likes=likes.found,
        waiting=[_Waiting(one.id, one.since, asks[one.ask], _number(one.at), one.priority) for one in state.waiting],
        held=[
            _Held(
                one.id,
                asks[one.ask],
                _number(one.time),
                _number(one.at),
                None if one.until is None else _number(one.until),
                tuple(_Given(each.id, likes[_like(each)], each.amount) for each in one.resources),
            )
            for one in state.held.values()
        ],
        dropped=[(request_id, answers[answer]) for request_id, answer in state.dropped.items()],
        **{name: getattr(state, name) for name in _AS_IT_IS},
    )
    return e.Compacted(state=msgspec.Raw(msgspec.json.encode(written)))


def read_snapshot(compacted: e.Compacted) -> SharedState:
    """The state that was written down."""
    if _form(compacted.state).v == 1:
        state = _plain(compacted.state)
        state.names = _names(state.waiting)
        return state
    written = _written(compacted.state)
    waiting = [Request(one.id, one.since, written.asks[one.ask], _time(one.at), one.priority) for one in written.waiting]
    return SharedState(
        written.entity,
        n=written.n,
        version=written.version,
        time=written.time,
        waiting=waiting,
        names=_names(waiting),
        held={one.id: _grant(one, written) for one in written.held},
        dropped={request_id: written.answers[answer] for request_id, answer in written.dropped},
        **{name: getattr(written, name) for name in _AS_IT_IS},
    )


class _Once(Generic[T]):
    """Each thing that was looked up, once; its number is its place in `found`."""

    def __init__(self) -> None:
        self.found: list[T] = []
        self._places: dict[bytes, int] = {}

    def __getitem__(self, thing: T) -> int:
        key = msgspec.json.encode(thing)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self.found)
            self.found.append(thing)
        return place


def _like(resource: Resource) -> Resource:
    return msgspec.structs.replace(resource, id="", amount=0.0)


def _grant(one: _Held, written: _Written) -> Grant:
    like = written.likes
    resources = tuple(msgspec.structs.replace(like[each.like], id=each.id, amount=each.amount) for each in one.resources)
    until = None if one.until is None else _time(one.until)
    return Grant(one.id, written.asks[one.ask], _time(one.time), _time(one.at), resources, until)


def _names(waiting: list[Request]) -> set[str]:
    return {request.id for request in waiting}


def _number(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _time(number: int) -> datetime:
    return _EPOCH + timedelta(microseconds=number)
