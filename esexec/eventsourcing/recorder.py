"""The log as the library's `ApplicationRecorder`: all that executors have decided, to be read. Nothing is written here.

A notification's id is its commit's position × 1000 + the event's place in it: ascending, with gaps.
"""

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    ApplicationRecorder,
    ListenNotifySubscription,
    Notification,
    NotSupportedError,
    OperationalError,
    StoredEvent,
)

from esexec.domain.ids import is_token
from esexec.eventsourcing.bridge import Bridge, as_errors_of_the_library
from esexec.eventsourcing.events import EVENTS_PER_COMMIT, stored_events
from esexec.log import codec
from esexec.log.port import Stored, load_certain

logger = logging.getLogger("esexec.eventsourcing")

_PAGE = 500
"""Commits that are read at once, at most."""
_AGAIN_S = 0.5
"""How long a subscription waits before it asks again a server that is away."""


class LogRecorder(ApplicationRecorder):
    """See the module. Raises the library's `OperationalError` while the log cannot be reached, `DataError` where it is broken."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Raises `NotSupportedError`: events of executions are decided by executors, upon commands."""
        if stored_events:
            raise NotSupportedError("executions are changed by commands (esexec.Client), not by events that somebody saves")
        return None

    # Of one execution ------------------------------------------------------------------------------------------------------

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """As the leader knows them. Of what executions share, those since it was last compacted."""
        entity = str(originator_id)
        history = self._bridge.call(load_certain(self._bridge.log, entity)) if is_token(entity) else []
        with as_errors_of_the_library():
            return list(_window(history, gt, lte, desc, limit))

    # Of all ----------------------------------------------------------------------------------------------------------------

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Also of what executions share: their originator ids begin with `_`."""
        first = (start or 0) + (0 if inclusive_of_start or start is None else 1)
        found: list[Notification] = []
        for notification in self._notifications(max(first, 0), min(max(limit, 1), _PAGE)):
            if len(found) >= limit or (stop is not None and notification.id > stop):
                break
            if not topics or notification.topic in topics:
                found.append(notification)
        return found

    def _notifications(self, first: int, page_size: int) -> Iterator[Notification]:
        after = max(0, first // EVENTS_PER_COMMIT - 1)
        while page := self._bridge.call(self._bridge.log.page(after, page_size)):
            for _, stored in page:
                with as_errors_of_the_library():
                    events = list(stored_events(codec.commit_of(stored), stored))
                for id_, event in enumerate(events, stored.position * EVENTS_PER_COMMIT):
                    if id_ >= first:
                        yield Notification(event.originator_id, event.originator_version, event.topic, event.state, id=id_)
            after = page[-1][1].position

    def max_notification_id(self) -> int | None:
        stored = self._bridge.call(self._bridge.log.newest())
        if stored is None:
            return None
        with as_errors_of_the_library():
            return stored.position * EVENTS_PER_COMMIT + len(codec.decode(stored.data).events) - 1

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> "LogSubscription":
        """Goes on over outages of the server. It ends with `stop`, when the application is closed, or at a broken commit."""
        return LogSubscription(self, gt, topics)

    def listen(self, subscription: "LogSubscription") -> Callable[[], None]:
        """Wakes it whenever there may be more. Returns what ends that."""
        return self._bridge.listen(subscription.news)


class LogSubscription(ListenNotifySubscription[LogRecorder]):
    """Notifications as they come. Iterate, and `stop` (from another thread, if need be)."""

    def __init__(self, recorder: LogRecorder, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._unlisten = recorder.listen(self)

    @property
    def news(self) -> Any:
        """What is set when there may be more."""
        return self._has_been_notified

    def stop(self) -> None:
        super().stop()
        if hasattr(self, "_unlisten"):
            self._unlisten()

    def _pull(self) -> None:
        while not self._has_been_stopped:
            try:
                super()._pull()
                return
            except OperationalError as error:
                logger.info("a subscription waits for the log: %s", error)
                self._has_been_notified.wait(_AGAIN_S)


def _window(history: list[Stored], gt: int | None, lte: int | None, desc: bool, limit: int | None) -> Iterator[StoredEvent]:
    """The events of a history within these bounds, in that order. Few commits are read that have none of them."""
    begin, end = 0, len(history)
    if gt is not None:
        begin = max(0, bisect_right(history, gt + 1, key=_first_version) - 1)
    if lte is not None:
        end = bisect_right(history, lte, key=_first_version)
    commits = history[begin:end]
    count = 0
    for stored in reversed(commits) if desc else commits:
        events = list(stored_events(codec.commit_of(stored), stored))
        for event in reversed(events) if desc else events:
            if (gt is not None and event.originator_version <= gt) or (lte is not None and event.originator_version > lte):
                continue
            if limit is not None and count >= limit:
                return
            count += 1
            yield event


def _first_version(stored: Stored) -> int:
    return codec.decode(stored.data).version
