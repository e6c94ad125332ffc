"""A projection as a user writes it: it counts events by type and by execution. One that came twice, or not at all, shows."""

from eventsourcing.persistence import Tracking

from esexec.domain.events import type_of
from projections.projection import Projection, RecordedEvent
from projections.tables import Table

COUNTS = Table("counts", key=("entity", "type"), columns={"entity": str, "type": str, "count": int})


class Counting(Projection):
    """See the module."""

    name = "counting"
    tables = (COUNTS,)

    def process_event(self, domain_event: RecordedEvent, tracking: Tracking) -> None:
        key = domain_event.entity, type_of(domain_event.event)
        row = self.view.get(COUNTS, *key) or COUNTS.row(*key, 0)
        self.view.put(COUNTS, [row._replace(count=row.count + 1)])
