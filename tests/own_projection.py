"""A projection as a user has it: what `--include tests.own_projection` names."""

from esexec import ValidationError
from projections import Ask, Listed, Projection, RecordedEvent, Table, Tracking, View, as_of, events

GREETED = Table("greeted", key=("name",), columns={"name": str, "times": int}, indexes=[("times",)])


class MostGreeted(Ask):
    """Who was greeted most."""

    limit: int = 10


def most_greeted(view: View, ask: MostGreeted) -> Listed[dict[str, str | int]]:
    if ask.limit < 1:
        raise ValidationError("a limit is at least 1", code="bad_limit")
    if ask.limit == 13:
        raise ZeroDivisionError("on purpose")
    with view.snapshot():
        rows = view.select(GREETED, order=["-times", "name"], limit=ask.limit)
        return Listed(items=[row._asdict() for row in rows], as_of=as_of(view))


class Greeted(Projection):
    """Counts how often each name was greeted."""

    name = "greeted"
    tables = (GREETED,)
    questions = {"greeted.most": (MostGreeted, most_greeted)}

    def process_event(self, domain_event: RecordedEvent, tracking: Tracking) -> None:
        match domain_event.event:
            case events.ExecutionCreated(input={"name": str(name)}):
                row = self.view.get(GREETED, name) or GREETED.row(name, 0)
                self.view.put(GREETED, [row._replace(times=row.times + 1)])
