"""What executions share, over random lives: no window overfull, no key over its limit, no pool oversold, nobody forgotten."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.flow import ResourcePool, ResourceRequirement
from esexec.domain.sharing.decide import SharedDecision
from esexec.domain.sharing.fold import end, fold_shared, next_due
from esexec.domain.sharing.requests import Acquire, Ask, AskForResources, AskForSlot, AskToBegin, entity_of
from esexec.domain.sharing.snapshot import snapshot
from esexec.domain.sharing.state import SharedState

T0 = datetime(2026, 1, 1, tzinfo=UTC)
Deed = tuple[str, int]
"""`ask` so many at once, `free` the oldest holder, withdraw (`drop`) the oldest who waits, let so many milliseconds pass."""

deeds = st.lists(
    st.tuples(st.sampled_from(["ask", "free", "drop", "pass"]), st.integers(1, 700)).map(
        lambda deed: (deed[0], deed[1] % 5 + 1 if deed[0] == "ask" else deed[1])
    ),
    max_size=40,
)
quick = settings(max_examples=60, deadline=None)


class Life:
    """An entity, the commits that it made, and who asked."""

    def __init__(self, first: Ask) -> None:
        self.state, self.commits, self.now, self.asked = SharedState(entity_of(first)), list[Commit](), T0, 0

    def decide(self, *deeds: Any) -> None:
        decision = SharedDecision(self.state, self.now)
        for deed in deeds:
            deed(decision)
        decision.settle()
        self.store(decision)

    def store(self, decision: SharedDecision) -> None:
        if decision.events:
            end(self.state, len(decision.events))
            commit = Commit(
                v=1,
                execution_id=self.state.entity,
                n=self.state.n,
                version=decision.first_version,
                time=decision.time,
                events=tuple(decision.events),
            )
            self.commits.append(commit)

    def ask(self, asks: list[Ask]) -> None:
        numbered = [(f"e{self.asked + number}/s/1-1", Acquire(ask=ask)) for number, ask in enumerate(asks)]
        self.asked += len(asks)
        self.decide(*[lambda decision, one=one: decision.acquire(*one) for one in numbered])

    def live(self, story: list[Deed], ask: Any) -> None:
        for kind, number in story:
            if kind == "ask":
                self.ask([ask(self.asked + one) for one in range(number)])
            elif kind == "free" and self.state.held:
                oldest = next(iter(self.state.held))
                self.decide(lambda decision, oldest=oldest: decision.release(oldest))
            elif kind == "drop" and self.state.waiting:
                first = self.state.waiting[0].id
                self.decide(lambda decision, first=first: decision.release(first))
            elif kind == "pass":
                self.now += timedelta(milliseconds=number)
                self.decide(lambda decision: decision.due())

    @property
    def grants(self) -> list[datetime]:
        return [commit.time for commit in self.commits for event in commit.events if isinstance(event, e.RequestGranted)]

    def check_told_again(self) -> None:
        """A fold of what was stored is what the decisions left; and so is one that begins where all was written down."""
        folded = fold_shared(self.state.entity, self.commits)
        assert snapshot(folded).state == snapshot(self.state).state
        decision = SharedDecision(self.state, self.now)
        decision.emit(snapshot(self.state))
        self.store(decision)
        assert snapshot(fold_shared(self.state.entity, self.commits[-1:])).state == snapshot(self.state).state


@quick
@given(deeds, st.lists(st.tuples(st.integers(1, 4), st.sampled_from([100, 500, 900])), min_size=1, max_size=3))
def test_no_window_is_overfull_and_all_who_wait_begin(story: list[Deed], rules: list[tuple[int, int]]) -> None:
    """By the rule of each grant; and with time alone, woken when the entity says so, everybody has its turn."""
    life = Life(AskToBegin(key="k", max_executions=1, window_ms=1))
    life.live(story, lambda n: AskToBegin(key="k", max_executions=rules[n % len(rules)][0], window_ms=rules[n % len(rules)][1]))
    while life.state.waiting:
        due = next_due(life.state)
        assert due is not None, "somebody waits, and nothing will wake it"
        assert life.state.wake is not None
        life.now, before = max(life.now, due), len(life.state.waiting)
        life.decide(lambda decision: decision.due())
        assert len(life.state.waiting) < before, "it was woken for nothing"
    asked: dict[str, AskToBegin] = {}
    given_at: list[datetime] = []
    for commit in life.commits:
        for event in commit.events:
            if isinstance(event, e.RequestQueued | e.RequestGranted) and isinstance(event.ask, AskToBegin):
                asked[event.request_id] = event.ask
            if isinstance(event, e.RequestGranted):
                rule = asked[event.request_id]
                given_at.append(commit.time)
                within = [one for one in given_at if commit.time - one < timedelta(milliseconds=rule.window_ms)]
                assert len(within) <= rule.max_executions
    life.check_told_again()


@quick
@given(deeds, st.integers(1, 3), st.none() | st.integers(1, 4))
def test_no_key_is_over_its_limit_and_no_slot_is_idle(story: list[Deed], limit: int, total: int | None) -> None:
    """At every moment; and whoever waits, waits because there is no room for its key."""
    asks = [AskForSlot(scope="s", key=key, limit=limit, total=total) for key in ("a", "b", "c")]
    life = Life(asks[0])
    for deed in story:
        life.live([deed], lambda n: asks[n % 3 if total is not None else 0])
        by_key = [[one for one in life.state.held.values() if one.ask == ask] for ask in asks]
        assert all(len(holders) <= limit for holders in by_key)
        assert total is None or len(life.state.held) <= total
        full = total is not None and len(life.state.held) == total
        assert full or all(len(by_key[asks.index(one.ask)]) == limit for one in life.state.waiting)  # type: ignore[arg-type]
    life.check_told_again()


@quick
@given(deeds, st.lists(st.integers(1, 6), min_size=1, max_size=3), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_no_pool_is_oversold_and_the_first_in_line_is_not_passed_over(
    story: list[Deed], capacities: list[int], amounts: list[int]
) -> None:
    """At every moment; all requirements of a request or none; and what the first in line needs is not all free."""
    ask = [AskForResources(requirements=tuple(ResourceRequirement("gpu", float(one)) for one in amounts[: number + 1]))
           for number in range(len(amounts))]  # fmt: skip
    life = Life(ask[0])
    life.state.pools = {f"p{n}": ResourcePool(f"p{n}", "gpu", float(one)) for n, one in enumerate(capacities)}
    pools = dict(life.state.pools)
    declared = [lambda decision, pool=pool: decision.emit(e.PoolDeclared(pool=pool)) for pool in pools.values()]
    life.state.pools = {}
    life.decide(*declared)
    for deed in story:
        life.live([deed], lambda n: ask[n % len(ask)])
        used = dict.fromkeys(pools, 0.0)
        for grant in life.state.held.values():
            assert isinstance(grant.ask, AskForResources)
            assert len(grant.resources) == len(grant.ask.requirements)
            for resource in grant.resources:
                used[resource.pool] += resource.amount
        assert all(used[name] <= pool.capacity for name, pool in pools.items())
        if life.state.waiting:
            (needs,) = [one.amount for one in life.state.waiting[0].ask.requirements[:1]]  # type: ignore[union-attr]
            single = len(life.state.waiting[0].ask.requirements) == 1  # type: ignore[union-attr]
            assert not single or all(pool.capacity - used[name] < needs for name, pool in pools.items())
    life.check_told_again()
