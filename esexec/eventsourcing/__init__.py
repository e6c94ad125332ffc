"""The log as an application of the `eventsourcing` library: histories, versions, notifications, projections, as one knows them.

    from esexec.eventsourcing import Executions

    with Executions() as executions:
        state = executions.repository.get("order-1", version=7)

Read in this order: `bridge` (from threads to the loop) → `events` (what an event is here) → `recorder` (the log) → `stored` (a
stream of its own, for snapshots) → `application`. With `PERSISTENCE_MODULE=esexec.eventsourcing` any application of the library
has its factory. What is decided here and why: docs/adr/019.
"""

from esexec.eventsourcing.application import ExecutionRepository, Executions, LogFactory
from esexec.eventsourcing.events import EVENTS_PER_COMMIT, LogMapper, Recorded, project
from esexec.eventsourcing.recorder import LogRecorder, LogSubscription
from esexec.eventsourcing.snapshots import Snapshot
from esexec.eventsourcing.stored import StreamRecorder

__all__ = [
    "EVENTS_PER_COMMIT",
    "ExecutionRepository",
    "Executions",
    "LogFactory",
    "LogMapper",
    "LogRecorder",
    "LogSubscription",
    "Recorded",
    "Snapshot",
    "StreamRecorder",
    "project",
]
