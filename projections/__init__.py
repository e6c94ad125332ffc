"""Read models: what is kept of the log. Always rebuildable from it.

A read model of one's own is a `Projection`, see docs/tutorial/own-projection.md:

    from projections import Projection, RecordedEvent, Table, Tracking, events
"""

from typing import TYPE_CHECKING, Any

import esexec as esexec  # first, whatever of this package is imported first: the client in it uses some of these modules

if TYPE_CHECKING:
    from eventsourcing.persistence import Tracking

    from esexec.domain import events
    from projections.asks import Ask, AsOf, Listed
    from projections.projection import Projection, RecordedEvent
    from projections.queries import as_of
    from projections.role import Projector, view_of
    from projections.tables import Table, Where
    from projections.view import View

__all__ = [
    "AsOf",
    "Ask",
    "Listed",
    "Projection",
    "Projector",
    "RecordedEvent",
    "Table",
    "Tracking",
    "View",
    "Where",
    "as_of",
    "events",
    "view_of",
]

_HOMES = {
    "AsOf": "projections.asks",
    "Ask": "projections.asks",
    "Listed": "projections.asks",
    "Projection": "projections.projection",
    "Projector": "projections.role",
    "RecordedEvent": "projections.projection",
    "Table": "projections.tables",
    "Tracking": "eventsourcing.persistence",
    "View": "projections.view",
    "Where": "projections.tables",
    "as_of": "projections.queries",
    "events": "esexec.domain",
    "view_of": "projections.role",
}


def __getattr__(name: str) -> Any:
    """Looked up when first used: whoever reads one history need not wait for all that read models need."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
