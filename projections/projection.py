"""What a projection is: user code that turns what happened, event by event, into rows of a view.

    class Cities(Projection):
        name = "cities"
        tables = (CITIES,)

        def process_event(self, event: RecordedEvent, tracking: Tracking) -> None:
            match event.event:
                case ExecutionCreated(input={"city": city}):
                    row = self.view.get(CITIES, city) or CITIES.row(city, 0)
                    self.view.put(CITIES, [row._replace(count=row.count + 1)])

It is one of the `eventsourcing` library, over a view that is one of its `TrackingRecorder`s. The runner calls it within one
transaction for a page of commits, in the order of the log; what it does is kept together with the position, exactly once.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from eventsourcing.persistence import Tracking
from eventsourcing.projection import Projection as _Projection

from esexec.domain.events import Event
from esexec.log.port import Log
from esexec.nats.connection import Connection
from esexec.nats.publisher import Publisher
from esexec.nats.subjects import Subjects
from projections.asks import Ask
from projections.source import EVENTS_PER_POSITION, Recorded
from projections.tables import Table
from projections.view import View


class RecordedEvent(NamedTuple):
    """An event, and where it stands: in the history of `entity` as `version`, in the log at `position`. `time` is its commit's;
    `actor`: who wished it, where that is known. Entities that executions share begin with `_`."""

    entity: str
    version: int
    event: Event
    time: datetime
    position: int
    actor: str | None

    @property
    def execution_id(self) -> str:
        return self.entity


class Outside(NamedTuple):
    """What a projection may need besides its view, to tell others something or to hear what is in no log.

    `lags`: by the name of a projection that this process works for, how many commits the log is ahead of it.
    """

    connection: Connection
    subjects: Subjects
    publisher: Publisher
    lags: Callable[[], Mapping[str, int]]


Questioned = Mapping[str, tuple[type[Ask], Callable[[View, Any], Any]]]
"""By the name of a question what is asked, and the function that answers it from the view, in a thread of its own."""


class Projection(_Projection[View]):
    """Turns what happened, event by event, into rows of `self.view`. Derive from it; `process_event` is all that must be there.

    Class attributes: `name`, of its tables, and on the command line. `tables`: what it keeps. `form`, 1: raised whenever it keeps
    other things than before, so that it is made anew from the log. `questions`: what it answers on
    `esexec.<ns>.query.<question>`, by the question's name a subclass of `Ask`, and the function of view and ask that answers.
    `tick_s`: so often `tick` is called; 0 = never. `outside`: None where rows are all that it makes, as beside another view that
    answers.
    """

    name: str = ""
    form: ClassVar[int] = 1
    tables: ClassVar[Sequence[Table]] = ()
    questions: ClassVar[Questioned] = {}
    tick_s: ClassVar[float] = 0
    outside: Outside | None = None

    @classmethod
    def view_name(cls) -> str:
        """The name of the view that answers for it as long as none was made in its stead."""
        return cls.name if cls.form == 1 else f"{cls.name}_{cls.form}"

    async def prepare(self, commits: Sequence[Recorded], log: Log) -> None:
        """Before a page, outside of the transaction: read what is needed besides. Raises `Unavailable`."""

    def process_commit(self, recorded: Recorded) -> None:
        """One commit, within the transaction."""
        commit = recorded.commit
        for index, event in enumerate(commit.events):
            told = RecordedEvent(recorded.entity, commit.version + index, event, commit.time, recorded.position, commit.actor)
            self.process_event(told, Tracking(self.view.name, recorded.position * EVENTS_PER_POSITION + index))

    @abstractmethod
    def process_event(self, domain_event: RecordedEvent, tracking: Tracking) -> None:
        """One event, within the transaction. `tracking`: its place in the log, as the library says it."""

    def finish(self) -> None:
        """After a page, or a tick, within the transaction: write what was gathered."""

    async def settled(self) -> None:
        """After a page, or a tick, once the transaction stands: what is to be told to others."""

    async def begin(self) -> None:
        """This process does the work from now on, upon the view as it is; perhaps it has done so before."""

    async def end(self) -> None:
        """This process does not do the work any more."""

    def tick(self, *, caught_up: bool) -> bool:
        """Time has passed, outside a transaction. Whether there is anything to write (`finish`). `caught_up`: with the log."""
        return False

    def forget(self) -> None:
        """Whatever is remembered besides the view may be wrong: a transaction failed, or somebody else went on meanwhile."""
