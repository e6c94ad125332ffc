"""Read models: what is kept of the log. Always rebuildable from it.

A read model of one's own is a `Projection`, see docs/tutorial/own-projection.md:

    from projections import Projection, RecordedEvent, Table, Tracking
"""

from typing import TYPE_CHECKING, Any

import esexec as esexec  # first, whatever of this package is imported first: the client in it uses some of these modules

if TYPE_CHECKING:
    from eventsourcing.persistence import Tracking

    from projections.projection import Projection, RecordedEvent
    from projections.tables import Table, Where
    from projections.view import View

__all__ = ["Projection", "RecordedEvent", "Table", "Tracking", "View", "Where"]

_HOMES = {
    "Projection": "projections.projection",
    "RecordedEvent": "projections.projection",
    "Table": "projections.tables",
    "Where": "projections.tables",
    "View": "projections.view",
    "Tracking": "eventsourcing.persistence",
}


def __getattr__(name: str) -> Any:
    """Looked up when first used: whoever reads one history need not wait for all that read models need."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
