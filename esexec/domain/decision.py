"""One commit in the making, and what can become of a message that is decided into it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from esexec.domain import limits
from esexec.domain.commands import StartExecution
from esexec.domain.commit import Cause
from esexec.domain.errors import ErrorInfo
from esexec.domain.events import Event
from esexec.domain.evolve import EVOLVE, begin, note_cause
from esexec.domain.graph import Graph
from esexec.domain.settings import EMPTY_NAMESPACE, NamespaceConfig, TaskInfo
from esexec.domain.state import ExecutionState
from esexec.domain.strategies import Strategy

EVENT_BYTES = 200
"""What an event takes in a commit beside what it has from its message: its type, its step, times."""

EVENTS_PER_MESSAGE = 8
"""As many events as a message leads to by itself, before it is looked whether there is room for more."""

VerdictKind = Literal[
    "applied", "repeated", "duplicate", "stale", "ineffective", "superseded", "open", "unknown", "refused", "invalid"
]


class Verdict(NamedTuple):
    """What became of a message.

    applied: it is in this commit (which may hold no event for it). repeated: the same message is in commit `n` already.
    duplicate: another message of the same meaning is (commit `n`). stale: it is about something that is closed, for
    good, by commit `n`. ineffective: allowed, but there is nothing left to change. superseded: a later wish was applied.
    open: it asks that everything open be repeated. unknown: it speaks of something that this history does not hold; only a
    fresh read can tell whether that is true. refused: it is not allowed now, `error` says why; a fresh read must confirm it.
    invalid: it is not allowed whatever the history says.
    """

    kind: VerdictKind
    n: int = 0
    error: ErrorInfo | None = None


APPLIED = Verdict("applied")


def refused(error: ErrorInfo) -> Verdict:
    return Verdict("refused", error=error)


def not_now(code: str, message: str, hint: str) -> Verdict:
    """The refusal of a wish that this state of the execution does not allow."""
    return refused(ErrorInfo(type="validation_error", code=code, message=message, hint=hint))


def invalid(code: str, message: str, hint: str) -> Verdict:
    """The refusal of a wish that nothing in the history could allow."""
    return Verdict("invalid", error=ErrorInfo(type="validation_error", code=code, message=message, hint=hint))


class Surroundings(NamedTuple):
    """What an execution takes from its namespace: the settings, what workers announced of their tasks, recovery strategies.

    None of it is changed once it is here: news come as new objects. `check`: says why what a start gives to tasks is nothing that
    they take, where that is known. `all_known`: whether `tasks` are all that were announced: the others wait for a worker.
    """

    namespace: NamespaceConfig = EMPTY_NAMESPACE
    tasks: Mapping[str, TaskInfo] = {}
    strategies: tuple[Strategy, ...] = ()
    check: "Callable[[Graph, StartExecution], ErrorInfo | None] | None" = None
    all_known: bool = False


NOWHERE = Surroundings()
"""A namespace that says nothing."""


class Decision:
    """The events of a commit that is being decided, on top of `state`, which they change as they are emitted.

    `time` is the commit's. `around`: the namespace as it is now. `unfinished`: there is more to decide than fits; a `continue`
    must follow.
    """

    __slots__ = ("around", "bytes", "causes", "chance", "events", "first_version", "state", "time", "unfinished", "wished")

    def __init__(self, state: ExecutionState, time: datetime, chance: float = 0.0, around: Surroundings = NOWHERE) -> None:
        self.state = state
        self.around = around
        self.time = time if state.time is None or time > state.time else state.time
        self.chance = chance
        self.events: list[Event] = []
        self.causes: list[Cause] = []
        self.wished: datetime | None = None
        self.first_version = state.version + 1
        self.bytes = 0
        self.unfinished = False

    @property
    def full(self) -> bool:
        """Whether no further event should be added."""
        count = len(self.events)
        return count >= limits.events_per_commit or self.bytes + count * EVENT_BYTES > limits.commit_bytes

    def has_room(self, size: int) -> bool:
        """Whether a further message of so many bytes should be decided into it. The first always is."""
        count = len(self.events) + EVENTS_PER_MESSAGE
        return count <= limits.events_per_commit and self.bytes + size + count * EVENT_BYTES <= limits.commit_bytes

    def emit(self, event: Event) -> None:
        """This is now a fact (as soon as the commit is stored)."""
        if not self.events:
            begin(self.state, self.state.n + 1, self.time)
        self.events.append(event)
        self.state.version += 1  # as `evolve`, without its call
        EVOLVE[type(event)](self.state, event)

    def cause(self, cause_id: str, time: datetime, actor: str | None = None) -> None:
        """This message is part of why the commit exists; `actor` gave the command. Called after its events were emitted."""
        self.causes.append(Cause(cause_id, time, actor))
        if "/" not in cause_id:  # which of a commit's wishes set the course is not told to whoever reads it
            self.wished = time = max(time, self.wished or time)
        note_cause(self.state, cause_id, time)
