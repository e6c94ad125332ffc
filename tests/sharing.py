"""An entity that executions share, as an executor carries it: the log, the timers, who was told what.

`happen` decides some messages into one commit, stores it, and does what follows. Every commit goes through its stored form, and
the state that a decision left is held against the fold of the history, whole and from the last compaction on.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple, get_args

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Commit
from esexec.domain.errors import ErrorInfo
from esexec.domain.flow import ResourcePool, ResourceRequirement
from esexec.domain.sharing.decide import SharedDecision, Verdict
from esexec.domain.sharing.fold import end, fold_shared, has_more
from esexec.domain.sharing.follow import Follow, MakeRoom, SetWake, Tell, everything, follow, look_again, told_again
from esexec.domain.sharing.requests import (
    Acquire,
    Answer,
    AskForResources,
    AskForSlot,
    AskToBegin,
    Denied,
    Granted,
    Waiting,
    entity_of,
    gate_of,
)
from esexec.domain.sharing.snapshot import snapshot
from esexec.domain.sharing.state import SharedState, remember
from esexec.log import codec
from tests.given import at


class Asks(NamedTuple):
    """Somebody asks."""

    id: str
    asked: Acquire


class Returns(NamedTuple):
    """Somebody has no need of what it asked for."""

    id: str


class Looks(NamedTuple):
    """A wake-up came; `name`: the commit that set its timer."""

    name: int = 0


Message = Asks | Returns | Looks | c.PoolsCommand


def begins(
    id: str,
    max_executions: int = 1,
    window_s: float = 10,
    *,
    priority: int = 5,
    reject: bool = False,
    key: str = "k",
) -> Asks:
    """Asks to begin under a rate limit."""
    ask = AskToBegin(
        key=key, max_executions=max_executions, window_ms=round(window_s * 1000), on_limit="reject" if reject else "wait"
    )
    return Asks(id, Acquire(ask=ask, priority=priority))


def slot(
    id: str,
    key: str = "k",
    limit: int = 1,
    total: int | None = None,
    policy: Any = "queue",
    *,
    priority: int = 5,
    scope: str = "s",
    asked_s: float | None = None,
) -> Asks:
    """Asks for a slot of a concurrency key; `asked_s`: and did so at that time."""
    ask = AskForSlot(scope=scope, key=key, limit=limit, total=total, policy=policy)
    return Asks(id, Acquire(ask=ask, priority=priority, at=None if asked_s is None else at(asked_s)))


def needs(id: str, *requirements: ResourceRequirement | tuple[str, float], priority: int = 5, lease_s: float = 0) -> Asks:
    """Asks for resources, `("gpu", 2)` for two of them."""
    ask = AskForResources(requirements=required(requirements), lease_ms=round(lease_s * 1000))
    return Asks(id, Acquire(ask=ask, priority=priority))


def allocates(
    id: str, *requirements: ResourceRequirement | tuple[str, float], lease_s: float = 30, wait: bool = True
) -> c.AllocateResources:
    """A client allocates resources."""
    return c.AllocateResources(id=id, requirements=required(requirements), lease_ms=round(lease_s * 1000), wait=wait)


def required(requirements: Iterable[ResourceRequirement | tuple[str, float]]) -> tuple[ResourceRequirement, ...]:
    return tuple(
        one if isinstance(one, ResourceRequirement) else ResourceRequirement(type=one[0], amount=one[1]) for one in requirements
    )


def pool(id: str, capacity: float = 1, type: str = "gpu", **fields: Any) -> c.DeclarePool:
    """There is such a pool."""
    return c.DeclarePool(id=f"pool-{id}-{capacity:g}", pool=ResourcePool(id=id, type=type, capacity=capacity, **fields))


def visible(state: SharedState) -> dict[str, Any]:
    """Every field of a state; of what is remembered the order as well."""
    found_out = ("fitting", "none_in_vain")  # of what is there, and not written down
    fields = {name: getattr(state, name) for name in state.__struct_fields__ if name not in found_out}
    return {name: list(value.items()) if isinstance(value, dict) else value for name, value in fields.items()}


@contextmanager
def with_limits(**values: int) -> Iterator[None]:
    """Other limits than usual."""
    usual = {name: getattr(limits, name) for name in values}
    for name, value in values.items():
        setattr(limits, name, value)
    try:
        yield
    finally:
        for name, value in usual.items():
            setattr(limits, name, value)


class Outcome:
    """What some messages led to."""

    def __init__(self, shared: "Shared", decision: SharedDecision, verdicts: list[Verdict], follows: list[Follow]) -> None:
        self.shared, self.events, self.verdicts, self.denied = shared, decision.events, verdicts, decision.denied
        self.decision, self.follows = decision, follows

    def then(self, *events: str) -> "Outcome":
        """Exactly these events, in words: `granted a`, `queued b`, `dropped c`, `released a`."""
        assert in_words(self.events) == list(events), f"{in_words(self.events)} instead of {list(events)}"
        return self

    def then_told(self, *told: str) -> "Outcome":
        """Exactly these answers, in words: `a granted`, `b waiting behind 2 until 10`, `c denied rate_limited`."""
        found = [told_in_words(one.request_id, one.answer) for one in self.follows if isinstance(one, Tell)]
        assert found == list(told), f"{found} instead of {list(told)}"
        return self

    def then_refused(self, code: str) -> ErrorInfo:
        """The last message is refused so; with a hint."""
        verdict = self.verdicts[-1]
        assert verdict.error is not None and (verdict.kind, verdict.error.code) == ("refused", code), verdict
        assert verdict.error.hint and not verdict.effective
        return verdict.error

    @property
    def wakes(self) -> list[datetime]:
        return [one.due for one in self.follows if isinstance(one, SetWake)]


def in_words(events: Iterable[e.Event]) -> list[str]:
    return [_event_in_words(event) for event in events]


def _event_in_words(event: e.Event) -> str:
    match event:
        case e.RequestGranted():
            given = " + ".join(f"{one.amount:g} {one.pool}" for one in event.resources)
            return f"granted {event.request_id}" + (f": {given}" if given else "")
        case e.RequestQueued():
            return f"queued {event.request_id}"
        case e.RequestDropped():
            return f"dropped {event.request_id}" + (f": {event.error.code}" if event.error else "")
        case e.GrantReleased():
            ids = f": {', '.join(event.resources)}" if event.resources else ""
            return f"{'expired' if event.expired else 'released'} {event.request_id}{ids}"
        case e.LeaseRenewed():
            return f"renewed {event.request_id} until {(event.until - at(0)).total_seconds():g}"
        case e.PoolDeclared():
            return f"declared {event.pool.id}"
        case e.PoolRemoved():
            return f"removed {event.pool_id}"
        case _:
            return e.type_of(event)


def told_in_words(request_id: str, answer: Answer) -> str:
    match answer:
        case Granted():
            return f"{request_id} granted"
        case Waiting():
            until = f" until {(answer.until - at(0)).total_seconds():g}" if answer.until else ""
            return f"{request_id} waiting behind {answer.ahead}{until}"
        case Denied():
            return f"{request_id} {'skipped' if answer.skipped else 'denied'} {answer.error.code}"


class Shared:
    """An entity, and whoever carries it. `told`: the last answer to each; `timers`: those that are set, by their names.

    `state`: the fold of the log, not to be changed. `pending`: messages that were not let go, and come again. `commits`: what is
    left of `history` after compactions.
    """

    def __init__(self, entity: str) -> None:
        self.entity = entity
        self.commits: list[Commit] = []
        self.history: list[Commit] = []
        self.told: dict[str, Answer] = {}
        self.timers: dict[int, datetime] = {}
        self.pending: list[Message] = []
        self.asked_to_go: list[MakeRoom] = []
        self.crashed: datetime | None = None
        """Since when nobody was told of what was decided."""
        self.clock = 0.0
        self.state = SharedState(entity)

    @classmethod
    def of(cls, asks: Asks) -> "Shared":
        """The entity that decides upon this."""
        return cls(entity_of(asks.asked.ask))

    def fold(self) -> SharedState:
        """The state as whoever has no other than the log sees it."""
        return fold_shared(self.entity, self.commits)

    @property
    def now(self) -> datetime:
        return at(self.clock)

    @property
    def events(self) -> list[e.Event]:
        return [event for commit in self.history for event in commit.events]

    def happen(
        self, *messages: Message, when: float | None = None, skew: float = 0, compact: bool = False, crash: bool = False
    ) -> Outcome:
        """Decide these together, at the clock's time (`when` sets it) or `skew` off; `crash`: nobody does what follows."""
        self.clock = self.clock if when is None else when
        decision = SharedDecision(self.fold(), at(self.clock + skew))
        if compact:
            decision.emit(snapshot(decision.state))
        verdicts = [self._decide(decision, message) for message in messages]
        decision.settle()
        assert decision.full or not has_more(decision.state), "there was room, and something was left"
        for message, verdict in zip(messages, verdicts, strict=True):
            done = verdict.kind == "done" and verdict.effective
            if done and isinstance(message, get_args(c.PoolsCommand)) and message.id not in decision.denied:
                decision.cause(message.id, at(self.clock))
        follows: list[Follow] = []
        if decision.events:
            self._store(decision, compact)
            follows = follow(decision.events, self.state, decision.state.n)
        if crash:
            self.pending += messages
            self.crashed = self.crashed or decision.time
            return Outcome(self, decision, verdicts, [])
        if self.crashed:
            follows += everything(self.state, self.crashed)
            self.crashed = None
        follows += [Tell(id, denied) for id, denied in decision.denied.items()]
        for message, verdict in zip(messages, verdicts, strict=True):
            match verdict.kind, message:
                case "known", Asks(id=id) | c.AllocateResources(id=id):
                    follows += told_again(self.state, id)
                case "denied", Asks(id, asked):
                    assert verdict.error is not None
                    follows.append(Tell(id, Denied(entity=self.entity, gate=gate_of(asked.ask), error=verdict.error)))
                case "later", _:
                    self.pending.append(message)
                case _, Looks(name):
                    again = look_again(self.state, str(name), decision.time)
                    assert decision.events or not has_more(self.state), "it finds nothing to do, and says that there is something"
                    follows += again
        self._follow(follows)
        return Outcome(self, decision, verdicts, follows)

    def _decide(self, decision: SharedDecision, message: Message) -> Verdict:
        match message:
            case Asks(id, asked):
                return decision.acquire(id, asked)
            case Returns(id):
                return decision.release(id)
            case Looks():
                return decision.due()
            case _:
                return decision.command(message)

    def _store(self, decision: SharedDecision, compacted: bool) -> None:
        commit = Commit(
            v=codec.VERSION,
            execution_id=self.entity,
            n=decision.state.n,
            version=decision.first_version,
            time=decision.time,
            commands=tuple(decision.causes),
            executor="x",
            events=tuple(decision.events),
        )
        assert len(commit.events) <= limits.events_per_commit
        for cause in decision.causes:
            remember(decision.state.applied, cause.id, commit.n)
        end(decision.state, len(decision.events))
        stored = codec.encode(commit)
        assert len(stored) <= limits.message_bytes - limits.headers_bytes
        assert codec.decode(stored) == commit
        commit = codec.decode(stored)
        self.history.append(commit)
        self.commits = [commit] if compacted else [*self.commits, commit]
        self.state = self.fold()
        assert visible(decision.state) == visible(self.state), "the state of a decision is not the fold of its history"
        if len(self.commits) < len(self.history):
            whole = fold_shared(self.entity, self.history, SharedState(self.entity))
            assert visible(whole) == visible(self.state), "what was compacted is not what it was"

    def _follow(self, follows: Sequence[Follow]) -> None:
        for one in follows:
            match one:
                case Tell():
                    self.told[one.request_id] = one.answer
                case SetWake():
                    self.timers[one.name] = one.due
                case MakeRoom():
                    self.asked_to_go.append(one)

    def recover(self) -> None:
        """What was not let go comes again."""
        pending, self.pending = self.pending, []
        if pending or self.crashed:
            self.happen(*pending)

    def wake(self) -> Outcome | None:
        """The first timer fires, as soon as it may; None: no timer is set."""
        looks = self.next_timer()
        return None if looks is None else self.happen(looks)

    def next_timer(self) -> Looks | None:
        """The first timer fires: it is as late as that at least."""
        if not self.timers:
            return None
        due, name = min((due, name) for name, due in self.timers.items())
        del self.timers[name]
        self.clock = max(self.clock, (due - at(0)).total_seconds())
        return Looks(name)

    @property
    def wakes(self) -> list[datetime]:
        """When the timers fire."""
        return list(self.timers.values())

    def elapse(self, seconds: float) -> None:
        """Time goes on; timers fire when they are due."""
        until = self.clock + seconds
        while self.wakes and min(self.wakes) <= at(until):
            self.wake()
        self.clock = max(self.clock, until)


def given(*items: Message | Sequence[Message], entity: str | None = None) -> Shared:
    """What happened: messages a second apart, each a commit of its own; those in a list together."""
    shared: Shared | None = Shared(entity) if entity else None
    for item in items:
        messages = item if isinstance(item, list) else [item]
        first = messages[0]
        if shared is None:
            shared = Shared(entity_of(first.asked.ask) if isinstance(first, Asks) else "_pools")
        assert shared.happen(*messages, when=shared.clock + 1).events, f"this was given, but led to nothing: {messages}"
    assert shared is not None
    return shared
