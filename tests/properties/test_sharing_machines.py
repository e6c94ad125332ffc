"""What holds of whatever executions share, whoever asks for what and when: limits and turns are kept, nobody is forgotten.

The machines drive the real decisions, with the executor's part done by `tests.sharing`; what they check is counted from the
events alone. Wake-ups come only where one was asked for; messages come twice, together, late; who decided may die before it
told anybody.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import product
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import given as forall
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.commit import Commit
from esexec.domain.flow import Resource, ResourcePool, ResourceRequirement
from esexec.domain.sharing import limiter
from esexec.domain.sharing.fold import next_due
from esexec.domain.sharing.requests import (
    POOLS_ENTITY,
    Acquire,
    AskForResources,
    AskForSlot,
    AskToBegin,
    Denied,
    Granted,
    Waiting,
    entity_of,
    waits,
)
from tests.given import at
from tests.sharing import Asks, Looks, Message, Outcome, Returns, Shared, begins, needs, slot, with_limits

LONG = bool(os.environ.get("ESEXEC_LONG"))
machines = settings(
    max_examples=1_000 if LONG else 80, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
many = settings(max_examples=2_000 if LONG else 60, deadline=None, suppress_health_check=list(HealthCheck))
priorities = st.sampled_from([5, 5, 5, 5, 9, 1])


class Machine(RuleBasedStateMachine):
    """Somebody asks, gives back, comes again; time goes on. `line`: who asked and has no answer but to wait, in order."""

    entity = ""

    def __init__(self) -> None:
        super().__init__()
        self.shared = Shared(self.entity)
        self.asked: dict[str, Asks] = {}
        self.line: dict[str, int] = {}
        self.queued: set[str] = set()
        self.held: dict[str, Asks] = {}
        self.granted: Counter[str] = Counter()
        self.turns = 0
        self.past: list[Message] = []

    @initialize(room=st.sampled_from([500, 500, 1, 2, 3, 5]), waiting=st.sampled_from([2_000, 2_000, 3]))
    def narrow(self, room: int, waiting: int) -> None:
        self.limits = with_limits(events_per_commit=room, requests_waiting=waiting)
        self.limits.__enter__()

    # What happens

    def come(self, *messages: Message, **how: Any) -> Outcome:
        self.past += messages
        before = len(self.shared.history)
        outcome = self.shared.happen(*messages, **how)
        self.note(outcome, messages, before)
        return outcome

    def note(self, outcome: Outcome, messages: Iterable[Message], before: int) -> None:
        for message, verdict in zip(messages, outcome.verdicts, strict=True):
            if verdict.kind == "done":
                self.took(message)
        for id in outcome.denied:
            self.line.pop(id, None)
        for commit in self.shared.history[before:]:
            for event in commit.events:
                self.saw(event, commit)

    def took(self, message: Message) -> None:
        match message:
            case Asks(id):
                self.turns += 1
                self.line[id] = self.turns
            case Returns(id):
                self.line.pop(id, None)

    def saw(self, event: e.Event, commit: Commit) -> None:
        match event:
            case e.RequestQueued(request_id=id):
                self.queued.add(id)
            case e.RequestGranted(request_id=id):
                assert id not in self.held, "it was granted twice"
                self.granted[id] += 1
                self.check_grant(self.asked[id], event, commit)
                self.line.pop(id)
                self.queued.discard(id)
                self.hold(self.asked[id], event)
            case e.RequestDropped(request_id=id):
                assert id in self.queued
                if event.error is not None:
                    self.line.pop(id)
                self.queued.discard(id)
            case e.GrantReleased(request_id=id, resources=()):
                self.held.pop(id)

    def hold(self, asks: Asks, event: e.RequestGranted) -> None:
        self.held[asks.id] = asks

    def check_grant(self, asks: Asks, event: e.RequestGranted, commit: Commit) -> None:
        raise NotImplementedError

    def before(self, asks: Asks) -> list[Asks]:
        """Who waits, and whose turn is before this one's."""
        return [
            other
            for id in self.line
            if (other := self.asked[id]).id != asks.id
            and (-other.asked.priority, self.line[id]) < (-asks.asked.priority, self.line[asks.id])
        ]

    def new(self, data: st.DataObject) -> Asks:
        """One that has not asked yet."""
        asks = data.draw(self.requests())._replace(id=f"e{len(self.asked)}/s/1-1")
        self.asked[asks.id] = asks
        return asks

    @rule(data=st.data(), count=st.integers(1, 5), crash=st.sampled_from([False, False, False, True]))
    def something_together(self, data: st.DataObject, count: int, crash: bool) -> None:
        """Some messages are decided together: new ones, old ones, what is given back, wake-ups."""
        messages: list[Message] = []
        for _ in range(count):
            kind = data.draw(st.sampled_from(["ask", "ask", "ask", "return", "again", "look"]))
            if kind == "ask" or not self.asked:
                messages.append(self.new(data))
            elif kind == "return":
                messages.append(Returns(data.draw(st.sampled_from(sorted(self.asked)))))
            elif kind == "look":
                messages.append(Looks())
            else:
                messages.append(data.draw(st.sampled_from(self.past)) if self.past else Looks())
        skew = 0 if Looks() in messages else data.draw(st.sampled_from([0, 0, 0, -3, 0.25]))  # wake-ups never come early
        self.come(*[one for one in messages if self.may_come(one)], skew=skew, crash=crash)

    def may_come(self, message: Message) -> bool:
        """Whoever gave back what it had does not ask again: it knows that it is done."""
        return not isinstance(message, Asks) or message.id not in self.granted or self.shared.state.knows(message.id)

    def requests(self) -> st.SearchStrategy[Asks]:
        raise NotImplementedError

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        """A single one asks."""
        self.come(self.new(data))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """Who holds something is done."""
        self.come(Returns(data.draw(st.sampled_from(sorted(self.held)))))

    @rule(seconds=st.sampled_from([0, 0.001, 0.5, 1, 2, 5, 12]))
    def elapse(self, seconds: float) -> None:
        """Time goes on, and what is due then comes."""
        until = self.shared.clock + seconds
        while self.shared.wakes and min(self.shared.wakes) <= at(until):
            self.wake()
        self.shared.clock = max(until, self.shared.clock)

    def wake(self) -> None:
        looks = self.shared.next_timer()
        assert looks is not None
        self.come(looks)

    @precondition(lambda self: self.shared.pending)
    @rule()
    def recover(self) -> None:
        """What was not let go comes again."""
        pending, self.shared.pending = self.shared.pending, []
        self.come(*[one for one in pending if self.may_come(one)])

    @rule()
    def compact(self) -> None:
        """Its whole state is written down; what was before is gone."""
        if self.shared.history:
            self.come(compact=True)

    # What holds

    @invariant()
    def everybody_was_told(self) -> None:
        """Whoever got what it asked for, waits, or cannot have it knows that."""
        if self.shared.crashed:
            return
        state, told = self.shared.state, self.shared.told
        to_come = {one.id for one in self.shared.pending if isinstance(one, Asks | c.AllocateResources)}
        assert all(isinstance(told[id], Granted) for id in [*state.held, *state.recent])
        assert all(isinstance(told[id], Waiting) for id in state.names - to_come)
        assert all(isinstance(told[id], Denied) for id in state.dropped)
        assert {one.id for one in state.waiting} == state.names == self.queued

    @invariant()
    def somebody_will_wake_it(self) -> None:
        """When something becomes possible by time alone, a timer has been asked for that comes by then."""
        if self.shared.crashed or (due := next_due(self.shared.state)) is None:
            return
        assert self.shared.wakes, f"at {due} something becomes possible, and nobody looks"
        assert min(self.shared.wakes) <= max(due, self.shared.now)

    @invariant()
    def nothing_is_withheld(self) -> None:
        """Who can be given what it waits for has it, or will at once."""
        state = self.shared.state
        due = next_due(state)
        if state.time is not None and (due is None or due > state.time):
            self.check_nothing_possible()

    def check_nothing_possible(self) -> None:
        raise NotImplementedError

    def teardown(self) -> None:
        """If everybody gives back what it has, and time goes on, all are served."""
        try:
            for _ in range(1_000):
                if self.shared.crashed or self.shared.pending:
                    self.recover()
                if self.shared.wakes:
                    self.wake()
                elif self.held:
                    self.come(Returns(next(iter(self.held))))
                elif not self.shared.pending:
                    break
            assert not self.shared.pending
            assert not self.held
            assert not self.line
            assert not self.shared.state.waiting, "it waits for ever"
            self.check_end()
        finally:
            if hasattr(self, "limits"):
                self.limits.__exit__(None, None, None)

    def check_end(self) -> None:
        pass


# Rate limits -------------------------------------------------------------------------------------------------------------


class RateLimits(Machine):
    """Several rules upon one key."""

    entity = entity_of(AskToBegin(key="k", max_executions=1, window_ms=1))

    def __init__(self) -> None:
        super().__init__()
        self.grants: list[tuple[datetime, AskToBegin]] = []

    def requests(self) -> st.SearchStrategy[Asks]:
        rules = st.sampled_from([(1, 1), (2, 1), (2, 5), (4, 10), (3, 0.001)])
        return st.builds(
            lambda rule, priority, reject: begins("", *rule, priority=priority, reject=reject),
            rules,
            priorities,
            st.sampled_from([False, False, True]),
        )

    def hold(self, asks: Asks, event: e.RequestGranted) -> None:
        """What is used up by time alone is not given back."""

    def check_grant(self, asks: Asks, event: e.RequestGranted, commit: Commit) -> None:
        ask = asks.asked.ask
        assert isinstance(ask, AskToBegin)
        assert self.granted[asks.id] == 1, "it was granted twice"
        window = timedelta(milliseconds=ask.window_ms)
        within = 1 + sum(commit.time - time < window for time, _ in self.grants)
        assert within <= ask.max_executions, f"{within} within {window}"
        self.grants.append((commit.time, ask))
        assert not [one for one in self.before(asks) if waits(one.asked.ask)], "it was not its turn"

    def check_nothing_possible(self) -> None:
        waiting = self.shared.state.waiting
        if waiting and isinstance(first := waiting[0].ask, AskToBegin):
            window = timedelta(milliseconds=first.window_ms)
            time = self.shared.state.time
            assert time is not None
            known = max(limiter.KEPT, *(one.max_executions for _, one in self.grants), 0)
            if first.max_executions <= known:
                within = sum(time - one < window for one, _ in self.grants)
                assert within >= first.max_executions, "there is room, and somebody waits"


class RateLimitsThatForget(RateLimits):
    """Few grants are remembered beyond what the rules so far needed."""

    @initialize()
    def forget(self) -> None:
        self.usual, limiter.KEPT = limiter.KEPT, 1

    def check_nothing_possible(self) -> None:
        """A rule that is larger than those before may have to wait for what is not known any more."""

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            limiter.KEPT = getattr(self, "usual", limiter.KEPT)


TestRateLimits = RateLimits.TestCase
TestRateLimits.settings = machines
TestRateLimitsThatForget = RateLimitsThatForget.TestCase
TestRateLimitsThatForget.settings = machines


@many
@forall(st.integers(1, 4), st.sampled_from([0.5, 3]), st.lists(st.sampled_from([0, 0, 0.1, 0.4, 1, 4]), min_size=1, max_size=25))
def test_each_begins_as_soon_as_the_rule_allows(most: int, window: float, gaps: list[float]) -> None:
    """Under a single rule each begins when it asked, or a window after the one `max_executions` before it, if that is later."""
    shared, expected, clock = Shared.of(begins("a", most, window)), list[float](), 0.0
    for number, gap in enumerate(gaps):
        clock = round(clock + gap, 3)
        shared.elapse(round(clock - shared.clock, 3))
        shared.happen(begins(f"e{number}/s/1-1", most, window))
        expected.append(max(clock, expected[-1] if expected else 0, expected[-most] + window if number >= most else 0))
    while shared.wake():
        pass
    found = [commit.time for commit in shared.history for event in commit.events if isinstance(event, e.RequestGranted)]
    assert found == [at(round(time, 3)) for time in expected]


@many
@forall(st.integers(1, 4), st.lists(st.sampled_from([0, 0, 0.1, 1, 4]), min_size=1, max_size=20))
def test_who_waits_is_told_when_its_turn_comes(most: int, gaps: list[float]) -> None:
    """If nobody goes away or ahead, the moment that somebody was told first is the moment at which it is granted."""
    shared, foretold = Shared.of(begins("a", most, 3)), dict[str, datetime | None]()
    for number, gap in enumerate(gaps):
        shared.elapse(gap)
        shared.happen(begins(id := f"e{number}/s/1-1", most, 3))
        answer = shared.told[id]
        foretold[id] = answer.until if isinstance(answer, Waiting) else shared.now
    while shared.wake():
        pass
    found = {
        event.request_id: commit.time
        for commit in shared.history
        for event in commit.events
        if isinstance(event, e.RequestGranted)
    }
    assert found == foretold


# Concurrency keys --------------------------------------------------------------------------------------------------------


class Slots(Machine):
    """Several keys of a scope, of which so many in all."""

    total: int | None = 3
    keys: tuple[str, ...] = ("a", "b", "c", "d")
    limits_of_keys: tuple[int, ...] = (1, 2)
    entity = entity_of(AskForSlot(scope="s", key="a", limit=1, total=3))

    def __init__(self) -> None:
        super().__init__()
        self.passed: dict[str, Counter[str]] = defaultdict(Counter)
        self.in_line: dict[str, tuple[int, int]] = {}

    def requests(self) -> st.SearchStrategy[Asks]:
        policies = st.sampled_from(["queue", "queue", "queue", "queue", "skip", "replace"])
        return st.builds(
            lambda key, limit, policy, priority: slot("", key, limit, self.total, policy, priority=priority),
            st.sampled_from(self.keys),
            st.sampled_from(self.limits_of_keys),
            policies,
            priorities,
        )

    def running(self, key: str) -> int:
        return sum(self.ask_of(one).key == key for one in self.held.values())

    @staticmethod
    def ask_of(asks: Asks) -> AskForSlot:
        assert isinstance(asks.asked.ask, AskForSlot)
        return asks.asked.ask

    def check_grant(self, asks: Asks, event: e.RequestGranted, commit: Commit) -> None:
        ask = self.ask_of(asks)
        assert self.running(ask.key) < ask.limit
        assert self.total is None or len(self.held) < self.total
        same_key = [one for one in self.before(asks) if self.ask_of(one).key == ask.key]
        assert not [one for one in same_key if self.ask_of(one).policy != "skip"], "it was not its turn"
        for key in {self.ask_of(self.asked[id]).key for id in self.queued if self.ask_of(self.asked[id]).policy != "skip"}:
            first = self.asked[min(self.waiting_of(key), key=lambda id: self.in_line[id])]
            if key != ask.key and self.running(key) < self.ask_of(first).limit:
                self.passed[key][ask.key] += 1
                assert self.passed[key][ask.key] <= 1, f"{ask.key} had two turns while {key} waited"
        self.passed[ask.key].clear()

    def waiting_of(self, key: str) -> list[str]:
        """Who waits with this key, from the events seen."""
        return [id for id in self.queued if self.ask_of(self.asked[id]).key == key]

    def saw(self, event: e.Event, commit: Commit) -> None:
        if isinstance(event, e.RequestQueued):
            self.in_line[event.request_id] = (-event.priority, len(self.in_line))
        super().saw(event, commit)
        if isinstance(event, e.RequestDropped | e.RequestGranted):
            for key in self.keys:
                if not self.waiting_of(key):
                    self.passed[key].clear()

    def check_nothing_possible(self) -> None:
        state = self.shared.state
        for key in self.keys:
            line = [one for one in state.waiting if isinstance(one.ask, AskForSlot) and one.ask.key == key]
            if line and isinstance(first := line[0].ask, AskForSlot):
                full = self.total is not None and len(self.held) >= self.total
                assert full or self.running(key) >= first.limit, "there is room, and somebody waits"
            replacing = [one for one in line if isinstance(one.ask, AskForSlot) and one.ask.policy == "replace"]
            last = max((one.since for one in replacing), default=0)
            assert not [one for one in line if one.since < last], "its place was taken, and it waits"

    def note(self, outcome: Outcome, messages: Iterable[Message], before: int) -> None:
        super().note(outcome, messages, before)
        for id, denied in outcome.denied.items():
            assert (denied.skipped, denied.error.code) == (True, "skipped"), id


class SlotsOfOneKey(Slots):
    """A single key, of which only its own limit is known."""

    total = None
    keys = ("a",)
    entity = entity_of(AskForSlot(scope="s", key="a", limit=1))


TestSlots = Slots.TestCase
TestSlots.settings = machines
TestSlotsOfOneKey = SlotsOfOneKey.TestCase
TestSlotsOfOneKey.settings = machines


# Pools -------------------------------------------------------------------------------------------------------------------


ATTRIBUTES: dict[str, dict[str, Any]] = {
    "small": {"zone": "a", "memory": 8},
    "large": {"zone": "b", "memory": 16},
    "cores": {},
}
TYPES = {"small": "gpu", "large": "gpu", "cores": "cpu"}


def may_use(requirement: ResourceRequirement, pool: ResourcePool) -> bool:
    """Whether this pool is one that the requirement accepts; told without the engine's own reading of constraints."""
    wanted, found = requirement.constraints, pool.attributes
    return (
        pool.type == requirement.type
        and ("zone" not in wanted or found.get("zone") == wanted["zone"])
        and ("min_memory" not in wanted or found.get("memory", 0) >= wanted["min_memory"])
    )


def fits(ask: AskForResources, pools: dict[str, ResourcePool], used: Counter[str] | dict[str, float]) -> bool:
    """Whether all of this can be given at once."""
    for chosen in product(pools.values(), repeat=len(ask.requirements)):
        asked: dict[str, float] = defaultdict(float)
        for requirement, pool in zip(ask.requirements, chosen, strict=True):
            asked[pool.id] += requirement.amount
        if all(may_use(*pair) for pair in zip(ask.requirements, chosen, strict=True)) and all(
            used.get(id, 0.0) + amount <= pools[id].capacity + 1e-12 for id, amount in asked.items()
        ):
            return True
    return False


requirement = st.sampled_from(
    [
        ResourceRequirement(type="gpu"),
        ResourceRequirement(type="gpu", amount=2),
        ResourceRequirement(type="gpu", amount=3),
        ResourceRequirement(type="gpu", constraints={"zone": "a"}),
        ResourceRequirement(type="gpu", amount=2, constraints={"min_memory": 16}),
        ResourceRequirement(type="cpu", amount=0.1),
        ResourceRequirement(type="cpu", amount=0.3),
        ResourceRequirement(type="cpu", amount=0.7),
        ResourceRequirement(type="disk"),
    ]
)
requirements = st.lists(requirement, min_size=1, max_size=3).map(tuple)


class Pools(Machine):
    """Three pools of two types that come, go, grow and shrink; executions and clients."""

    entity = POOLS_ENTITY

    def __init__(self) -> None:
        super().__init__()
        self.pools: dict[str, ResourcePool] = {}
        self.given: dict[str, dict[str, Resource]] = {}
        self.until: dict[str, datetime | None] = {}
        self.commands = 0
        self.impatient: set[str] = set()

    @initialize()
    def declare_all(self) -> None:
        for id, capacity in (("small", 2.0), ("large", 4.0), ("cores", 1.0)):
            self.declare(id, capacity)

    def command_id(self) -> str:
        self.commands += 1
        return f"c{self.commands}"

    @rule(id=st.sampled_from(sorted(TYPES)), capacity=st.sampled_from([1.0, 2.0, 4.0]))
    def declare(self, id: str, capacity: float) -> None:
        """A pool comes, or changes its size."""
        pool = ResourcePool(id=id, type=TYPES[id], capacity=capacity, attributes=ATTRIBUTES[id])
        self.come(c.DeclarePool(id=self.command_id(), pool=pool))

    @rule(id=st.sampled_from(sorted(TYPES)))
    def remove(self, id: str) -> None:
        """A pool goes, unless something of it is used."""
        in_use = any(one.pool == id for resources in self.given.values() for one in resources.values())
        outcome = self.come(c.RemovePool(id=self.command_id(), pool_id=id))
        assert outcome.verdicts[0].kind == ("refused" if in_use and id in self.pools else "done")

    @rule(requirements=requirements, wait=st.booleans(), lease_s=st.sampled_from([1, 5]), crash=st.booleans())
    def allocate(self, requirements: tuple[ResourceRequirement, ...], wait: bool, lease_s: int, crash: bool) -> None:
        """A client wants resources."""
        command = c.AllocateResources(id=self.command_id(), requirements=requirements, lease_ms=lease_s * 1000, wait=wait)
        ask = AskForResources(requirements=requirements, lease_ms=lease_s * 1000)
        self.asked[command.id] = Asks(command.id, Acquire(ask=ask, priority=max(one.priority for one in requirements)))
        if not wait:
            self.impatient.add(command.id)
        self.come(command, crash=crash)
        assert wait or command.id not in self.queued or limits.events_per_commit < 500

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        """A client goes on holding what it has."""
        id = data.draw(st.sampled_from(sorted(self.given)))
        self.come(c.RenewResources(id=self.command_id(), allocation=id))

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def release_some(self, data: st.DataObject) -> None:
        """Resources are given back one by one, or all that a command allocated."""
        ids = sorted(one for resources in self.given.values() for one in resources)
        some = data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=4))
        self.come(c.ReleaseResources(id=self.command_id(), resource_ids=tuple(some)))

    def requests(self) -> st.SearchStrategy[Asks]:
        return st.builds(
            lambda requirements, priority, lease_s: needs("", *requirements, priority=priority, lease_s=lease_s),
            requirements,
            priorities,
            st.sampled_from([0, 0, 2]),
        )

    def took(self, message: Message) -> None:
        if isinstance(message, c.AllocateResources):
            message = self.asked[message.id]
        super().took(message)

    def saw(self, event: e.Event, commit: Commit) -> None:
        super().saw(event, commit)
        match event:
            case e.PoolDeclared(pool=pool):
                self.pools[pool.id] = pool
            case e.PoolRemoved(pool_id=pool_id):
                assert not any(one.pool == pool_id for resources in self.given.values() for one in resources.values())
                del self.pools[pool_id]
            case e.GrantReleased(request_id=id):
                until = self.until[id]
                assert not event.expired or (until is not None and until <= commit.time)
                for one in event.resources or tuple(self.given[id]):
                    del self.given[id][one]
                if not self.given[id]:
                    del self.given[id]
                    assert not event.resources
            case e.LeaseRenewed(request_id=id):
                assert id in self.given
                self.until[id] = event.until

    def used(self) -> dict[str, float]:
        used: dict[str, float] = defaultdict(float)
        for resources in self.given.values():
            for one in resources.values():
                used[one.pool] += one.amount
        return used

    @staticmethod
    def ask_of(asks: Asks) -> AskForResources:
        assert isinstance(asks.asked.ask, AskForResources)
        return asks.asked.ask

    def check_grant(self, asks: Asks, event: e.RequestGranted, commit: Commit) -> None:
        ask = self.ask_of(asks)
        assert len(event.resources) == len(ask.requirements), "all or nothing"
        for wanted, given in zip(ask.requirements, event.resources, strict=True):
            assert (given.type, given.amount) == (wanted.type, wanted.amount)
            assert may_use(wanted, self.pools[given.pool])
        assert not {one.id for one in event.resources} & {id for resources in self.given.values() for id in resources}
        self.given[asks.id] = {one.id: one for one in event.resources}
        assert event.until == (commit.time + timedelta(milliseconds=ask.lease_ms) if ask.lease_ms else None)
        self.until[asks.id] = event.until
        used = self.used()
        for id in {one.pool for one in event.resources}:
            assert used[id] <= self.pools[id].capacity + 1e-9, f"{id} is oversold"
        for other in self.before(asks):
            if other.id not in self.impatient and fits(self.ask_of(other), self.pools, {}):
                wanted_by_other = {
                    pool.id for pool in self.pools.values() for one in self.ask_of(other).requirements if may_use(one, pool)
                }
                assert not wanted_by_other & {one.pool for one in event.resources}, f"{other.id} was overtaken"

    def check_nothing_possible(self) -> None:
        kept: set[str] = set()
        for request in self.shared.state.waiting:
            assert isinstance(request.ask, AskForResources)
            useful = {id for id, pool in self.pools.items() for one in request.ask.requirements if may_use(one, pool)}
            if not useful & kept:
                assert not fits(request.ask, self.pools, self.used()), "it is free, and somebody waits for it"
            kept |= useful

    @invariant()
    def leases_end(self) -> None:
        """Nobody holds anything longer than its lease."""
        state = self.shared.state
        for id, until in self.until.items():
            if id in state.held and until is not None and not self.shared.crashed and until <= self.shared.now:
                assert min(self.shared.wakes) <= self.shared.now

    def note(self, outcome: Outcome, messages: Iterable[Message], before: int) -> None:
        super().note(outcome, messages, before)
        for id, denied in outcome.denied.items():
            impossible = not fits(self.ask_of(self.asked[id]), self.pools, {})
            assert denied.error.code == "resource_unavailable" and denied.error.hint
            assert impossible or id in self.impatient

    def check_end(self) -> None:
        assert not self.given


TestPools = Pools.TestCase
TestPools.settings = machines
