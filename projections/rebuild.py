"""Making a read model anew, beside the one that answers, and putting it in its place.

Both are compared by the hash of their content as of one position; where they differ somebody has to want the new one.
"""

import asyncio
from collections.abc import Callable, Iterable

import msgspec

from esexec.domain.errors import ValidationError
from esexec.log.port import Log
from projections.projection import Projection
from projections.runner import PAGE, apply, live_view
from projections.source import EVENTS_PER_POSITION, Source
from projections.tables import NAMES, is_name
from projections.view import Store, View

Progress = Callable[[int, int], None]
"""Told the position it has come to, and the one that it goes to."""


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: `view` is as the log says up to `position`. `equal`: the old one had the same content there; None: there
    was none. `swapped`: it answers from now on. The old one, `old`, is kept until it is made anew in its turn."""

    projection: str
    view: str
    old: str
    position: int
    events: int
    equal: bool | None
    swapped: bool


async def rebuild(
    kind: type[Projection],
    store: Store,
    source: Source,
    log: Log,
    *,
    into: str | None = None,
    swap: bool = False,
    others: Iterable[type[Projection]] = (),
    told: Progress = lambda position, goal: None,
) -> Rebuilt:
    """Make it from the log's first commit on. Without `into` the new one answers if it is equal to the old one, or in any case
    with `swap`; with `into` it is kept under that name, and answers only with `swap`. `others`: whose views stay what they are.

    Raises `ProjectionFailed`, `Unavailable`, and ValidationError if `into` is the one that answers, or another projection's, or
    somebody makes it just now (`name_taken`), or is no name (`bad_name`).
    """
    if into is not None and not is_name(into):
        raise ValidationError(f"{into[:80]!r} is no name for a view", code="bad_name", hint=NAMES)
    old_name = live_view(kind, store)
    name = into if into is not None else (kind.view_name() if old_name != kind.view_name() else f"{kind.view_name()}_b")
    if name == old_name:
        raise ValidationError(f"{name} is the one that answers", code="name_taken", hint="give another name, or none")
    for other in others:
        if other.view_name() != kind.view_name() and name in (other.view_name(), live_view(other, store)):
            raise ValidationError(f"{name} is a view of {other.name}", code="name_taken", hint="give another name, or none")
    making = f"{name}.made"  # no view is called so
    if not await asyncio.to_thread(store.lock, making):
        raise ValidationError(f"{name} is being made by somebody else", code="name_taken", hint="wait for that, or give a name")
    try:
        return await _made(kind, store, source, log, old_name, name, swap=swap, if_equal=into is None, told=told)
    finally:
        await asyncio.to_thread(store.unlock, making)


async def _made(
    kind: type[Projection],
    store: Store,
    source: Source,
    log: Log,
    old_name: str,
    name: str,
    *,
    swap: bool,
    if_equal: bool,
    told: Progress,
) -> Rebuilt:
    old = await asyncio.to_thread(store.view, old_name, kind.tables)
    new = await asyncio.to_thread(store.view, name, kind.tables)
    await asyncio.to_thread(new.clear)
    building = _Building(kind(new), source, log, told)

    await building.go_to(max(await asyncio.to_thread(_position, old), 0) or await source.head())
    goal, wanted = await asyncio.to_thread(_as_it_is, old)
    await building.go_to(goal)
    equal = (await asyncio.to_thread(new.content_hash)) == wanted if goal else None
    swapped = swap or (if_equal and equal is not False)
    if swapped:
        await asyncio.to_thread(store.swap, kind.view_name(), name)
    position = building.position
    return Rebuilt(
        projection=kind.name, view=name, old=old_name, position=position, events=building.events, equal=equal, swapped=swapped
    )


def _position(view: View) -> int:
    return view.position // EVENTS_PER_POSITION


def _as_it_is(view: View) -> tuple[int, str]:
    """Where it has come to, and the hash of what it has there, at one moment."""
    with view.snapshot():
        return _position(view), view.content_hash()


class _Building:
    def __init__(self, projection: Projection, source: Source, log: Log, told: Progress) -> None:
        self._projection, self._source, self._log, self._told = projection, source, log, told
        self.position = self.events = 0

    async def go_to(self, goal: int) -> None:
        """All commits up to a position, and none beyond."""
        while self.position < goal:
            page = await self._source.page(self.position, PAGE)
            commits = [one for one in page.commits if one.position <= goal]
            if commits:
                await self._projection.prepare(commits, self._log)
                await asyncio.to_thread(apply, self._projection, commits)
                self.events += sum(len(one.commit.events) for one in commits)
            self.position = min(page.end, goal)
            self._told(self.position, goal)
