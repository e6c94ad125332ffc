"""Executors that crash, messages that come twice, late or out of order, rivals that want all at once: each execution ends, once.

The real desks and mailboxes run over fakes that do nothing until told to. `ESEXEC_LONG=1` runs many more examples; `-s` shows
which commands met which situations.
"""

import os
from collections import Counter
from random import Random
from typing import get_args

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import reports as r
from tests.simulation import checker, coverage
from tests.simulation.dramas import DRAMAS, Drama
from tests.simulation.plans import PLANS, STRATEGIES
from tests.simulation.story import FAULTS, HARMLESS, Story, small_world
from tests.simulation.telling import CONTROLS, tell
from tests.simulation.world import World

LONG = bool(os.environ.get("ESEXEC_LONG"))
STORIES_COUNTED = 360

executions = st.sampled_from(["e0", "e1", "e2"])
plans = st.integers(0, len(PLANS) - 1)
keys = st.sampled_from([None, None, "k0", "k1"])
sizes = st.lists(st.sampled_from([0, 1, 10]), min_size=1, max_size=3)
seeds = st.integers(0, 2**16)


class Executors(RuleBasedStateMachine):
    """See the module. Choices among what may happen come from one number each, so that a story stays short."""

    @initialize(sizes=sizes, seed=seeds, room=st.sampled_from([1, 3, 500]), strategies=st.integers(0, len(STRATEGIES)))
    def begin(self, sizes: list[int], seed: int, room: int, strategies: int) -> None:
        self.room = small_world(room)
        self.room.__enter__()
        self.world = World(sizes, seed)
        self.story = Story(self.world)
        self.story.prepare(strategies)

    @rule(execution=executions, plan=plans, key=keys)
    def start(self, execution: str, plan: int, key: str | None) -> None:
        self.story.start(execution, plan, key)

    @rule(execution=executions, plan=plans, seed=seeds)
    def start_in_time(self, execution: str, plan: int, seed: int) -> None:
        self.story.start_in_time(execution, plan, Random(seed))

    @rule(execution=executions, plan=st.integers(0, 2))
    def start_badly(self, execution: str, plan: int) -> None:
        self.story.start_badly(execution)
        self.story.put_plan(plan)
        self.story.start_kept(execution, plan)

    @rule(execution=executions, verb=st.sampled_from(sorted(set(CONTROLS))), seed=seeds, calm=st.booleans())
    def control(self, execution: str, verb: str, seed: int, calm: bool) -> None:
        if calm:
            self.world.rest()
        self.story.some_control(execution, verb, Random(seed))

    @rule(value=st.integers(0, 2), task=st.sampled_from("ab"), strategy=st.integers(0, 2 * len(STRATEGIES) - 1))
    def configure(self, value: int, task: str, strategy: int) -> None:
        self.story.configure(value)
        self.story.announce(task)
        self.story.strategy(strategy)

    @rule(kind=st.sampled_from(sorted({*FAULTS, *HARMLESS})), seed=seeds)
    def misfortune(self, kind: str, seed: int) -> None:
        self.story.misfortune(kind, Random(seed))

    @rule(drama=st.sampled_from(DRAMAS), seed=seeds)
    def act(self, drama: Drama, seed: int) -> None:
        drama(self.story, Random(seed))

    @rule(steps=st.integers(1, 12))
    def go_on(self, steps: int) -> None:
        self.world.go_on(steps)

    @invariant()
    def nothing_is_broken(self) -> None:
        if hasattr(self, "story"):
            self.story.check()

    def teardown(self) -> None:
        if hasattr(self, "story"):
            try:
                self.story.end()
            finally:
                self.world.close()
                self.room.__exit__(None, None, None)


TestExecutors = Executors.TestCase
TestExecutors.settings = settings(
    max_examples=3_000 if LONG else 150,
    stateful_step_count=60 if LONG else 40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize("room", [1, 3, 500])
@pytest.mark.parametrize("sizes", [[0], [10], [0, 0], [10, 10], [0, 1, 10]], ids=str)
def test_stories_full_of_faults_end_well(sizes: list[int], room: int) -> None:
    """Any number of executors, any cache, any room for a decision: what was accepted is carried to its end."""
    for seed in range(400 if LONG else 12):
        tell(seed, sizes=sizes, faults=True, room=room)


@pytest.mark.parametrize("sizes", [[0], [10], [0, 0], [10, 10], [0, 1, 10]], ids=str)
def test_without_faults_nothing_is_dispatched_twice(sizes: list[int]) -> None:
    """At least once is for crashes: with live executors each attempt is handed out exactly once, in any order of events."""
    for seed in range(1_000 if LONG else 25):
        tell(seed, sizes=sizes, faults=False)


_IN_NO_STORY = {
    "request_queued", "request_granted", "request_dropped", "grant_released", "lease_renewed", "pool_declared", "pool_removed",
    "compacted", "alert_set", "alert_removed",
    "task_granted", "resource_allocated", "resource_released", "task_rate_limited", "task_waiting", "execution_queued",
    "execution_granted",
}  # fmt: skip
"""What no story plays: see `properties/test_sharing`, `unit/test_admission`, `integration/test_flow_control`, and
`unit/test_kept_alerts`."""


@pytest.mark.slow
def test_the_stories_tell_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command met every situation, every event type, kind of report and answer occurs in them: no test here is idle."""
    events: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    with coverage.counted(monkeypatch) as (met, applied):
        for seed in range(STORIES_COUNTED):
            story = tell(seed, sizes=[[0, 10], [10]][seed % 2], faults=True, room=[500, 2][seed % 2], length=80)
            for commits in story.world.histories().values():
                events.update(event["type"] for event in checker.events_of(commits))
            sent.update(story.world.sent)
            answers.update(answer.status for told in story.world.answers.values() for answer in told)
    print(f"\n{coverage.table(met, applied)}\n\n{coverage.counts(events)}")
    assert coverage.missing(met) == []
    assert set(e.TYPES) - set(events) == _IN_NO_STORY
    commands = set(get_args(c.Command)) - set(get_args(c.PoolsCommand)) - set(get_args(c.AlertsCommand))
    kinds = {kind.__name__ for kind in (*commands, *get_args(r.Report), r.Due, r.Continue, r.Nudge)}
    assert kinds - set(sent) == set()
    assert {"accepted", "duplicate", "superseded", "refused"} - set(answers) == set()
