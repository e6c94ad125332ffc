"""What holds of every life that an execution can have: any plan, any command at any moment, any outcome of any attempt.

The harness (`tests.given`) holds each decision against the law: legal events, the tables of lives, fold = decision, never stuck.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esexec.domain import commands as c
from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.advance import has_more
from esexec.domain.decider import Surroundings, decide_message
from esexec.domain.decision import Decision
from esexec.domain.dispatches import dispatch_of
from esexec.domain.evolve import begin, evolve
from esexec.domain.settings import TaskInfo
from esexec.domain.state import HELD_BY_A_PAUSE, ExecutionState
from esexec.domain.strategies import Strategy
from esexec.log.verify import verify
from tests.given import (
    EXECUTION,
    History,
    Message,
    advised,
    at,
    before,
    cancel,
    checkpoint,
    completed,
    failed,
    fatal,
    in_words,
    lost,
    pause,
    restore,
    resume,
    retry,
    rollback,
    start,
    started,
    step,
    stopped,
    timed_out,
    visible,
    withdrawn,
)

LONG = bool(os.environ.get("ESEXEC_LONG"))
many = settings(max_examples=3_000 if LONG else 50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
orders = st.integers(0, 2**32).map(Random)

STRATEGIES = (
    Strategy(id="early", applicable_errors=("EARLY",), before_retries=True),
    Strategy(id="any", applicable_errors=("BROKEN", "task_timeout", "WORKER_LOST")),
)
ADVICE = ("retry", "skip", "fallback", "abort", "checkpoint_restore")


class World(NamedTuple):
    """An execution's plan and settings, and the namespace that it lives in."""

    command: c.StartExecution
    around: Surroundings
    room: int


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A small plan with every setting that steers a life; some steps can be undone, in one way or the other, and some cannot."""
    count = draw(st.integers(1, 5))
    steps, tasks = [], {}
    for index in range(count):
        id, depends_on = f"s{index}", draw(st.lists(st.sampled_from([f"s{n}" for n in range(index)] or [""]), max_size=2))
        task = draw(st.sampled_from([id, f"create_{id}", f"update_{id}"]))
        tasks |= {task: TaskInfo(compensate=draw(st.sampled_from([None, None, f"undo_{id}"]))), f"delete_{id}": TaskInfo()}
        tasks[f"undo_{id}"] = TaskInfo(queue_timeout_ms=draw(st.sampled_from([None, 5_000])), max_retries=draw(st.integers(0, 2)))
        fields: dict[str, Any] = {"max_retries": draw(st.integers(0, 1)), "parallel": draw(st.booleans())}
        if draw(st.booleans()):
            fields["fallback"] = f"fallback_{id}"
            tasks[f"fallback_{id}"] = TaskInfo(compensate=draw(st.sampled_from([None, f"undo_{id}"])))
        if draw(st.booleans()):
            fields["queue_timeout_ms"] = 5_000
        steps.append(step(id, *{one for one in depends_on if one}, **(fields | {"task": task})))
    flags = st.sampled_from([None, True, False])
    config = {
        "continue_on_error": draw(flags),
        "enable_rollback": draw(flags),
        "on_missing_compensation": draw(st.sampled_from([None, "fail"])),
        "checkpoint_every": draw(st.sampled_from([None, "task"])),
        "checkpoint_interval_ms": draw(st.sampled_from([None, 5_000])),
        "execution_timeout_ms": draw(st.sampled_from([None, None, 60_000])),
        "parallel_execution_limit": draw(st.integers(1, 4)),
    }
    command = start(*steps, config={name: value for name, value in config.items() if value is not None})
    if draw(st.integers(0, 4)) == 0:
        deadline = draw(st.sampled_from([None, at(0), at(20), at(40)]))
        command = c.StartExecution(**_fields(command) | {"start_at": at(30), "deadline": deadline})
    strategies = tuple(one for one in STRATEGIES if draw(st.booleans()))
    return World(command, Surroundings(tasks=tasks, strategies=strategies), draw(st.sampled_from([500, 500, 1, 2, 3])))


def _fields(command: c.StartExecution) -> dict[str, Any]:
    return {name: getattr(command, name) for name in command.__struct_fields__}


@contextmanager
def with_room(room: int) -> Iterator[None]:
    """Decisions of at most so many events (those that belong together are still together)."""
    usual = limits.events_per_commit
    limits.events_per_commit = room  # type: ignore[misc]
    try:
        yield
    finally:
        limits.events_per_commit = usual  # type: ignore[misc]


# What may come -----------------------------------------------------------------------------------------------------------


def an_outcome(order: Random, state: ExecutionState, index: int) -> Message:
    """Something that can be said of an open attempt."""
    spec, one, run = state.graph.steps[index].id, state.steps[index], state.run
    attempt = one.attempt
    if one.purpose == "recovery" and order.random() < 0.7:
        return advised(spec, order.choice(ADVICE), attempt, run=run, success=order.random() < 0.8, vars={"n": attempt})
    return order.choice(
        [
            completed(spec, {"n": attempt}, attempt, run=run, vars={spec: run}),
            completed(spec, None, attempt, run=run),
            completed(spec, None, attempt, run=run),
            failed(spec, attempt, run=run),
            failed(spec, attempt, run=run, code="EARLY"),
            fatal(spec, attempt, run=run),
            timed_out(spec, attempt, run=run),
            lost(spec, 10, attempt, run=run),
            stopped(spec, attempt, run=run),
            withdrawn(spec, attempt, run=run, pause=state.pause),
            withdrawn(spec, attempt, run=run, pause=order.choice([0, 3, 5])),
            started(spec, attempt, run=run),
            before(spec, {"was": run}, attempt, run=run),
        ]
    )


def a_command(order: Random, state: ExecutionState, turn: int) -> Message:
    """Anything that somebody may wish, sensible now or not."""
    steps = [spec.id for spec in state.graph.steps]
    id = f"w{turn}"
    return order.choice(
        [
            cancel(id),
            pause(id),
            resume(id),
            resume(id),
            retry(id=id),
            retry(order.choice(steps), id=id),
            retry(id=id, as_new=True, new_id="e2"),
            rollback(id),
            checkpoint(id),
            restore(order.choice([*state.checkpoints, "e1.1"]), id=id),
        ]
    )


def something(order: Random, state: ExecutionState, past: list[Message], turn: int) -> Message:
    """Any message that may come now: a wish, an outcome, a timer, what was left over; or what came before, once more."""
    kind = order.random()
    if kind < 0.2 or state.ended:
        return a_command(order, state, turn)
    if kind < 0.3:
        return order.choice(past)
    openings = [index for index, one in enumerate(state.steps) if one.open]
    now: list[Message] = [r.Due(str(version)) for version in state.timers]
    if has_more(state):
        now.append(r.Continue(state.n))
    now += [an_outcome(order, state, index) for index in openings for _ in range(2)]
    return order.choice(now) if now else resume(f"w{turn}")


def lived(order: Random, world: World, turns: int = 40) -> History:
    """A life of so many messages."""
    history = History(around=world.around)
    history.happen(world.command)
    past: list[Message] = [world.command]
    for turn in range(turns):
        message = something(order, history.state, past, turn)
        past.append(message)
        history.happen(message)
    return history


def brought_to_its_end(history: History) -> History:
    """What becomes of an execution if nobody wishes anything any more, but that it goes on, and every attempt does its work."""
    for turn in range(300):
        state = history.state
        openings = [index for index, one in enumerate(state.steps) if one.open]
        if state.ended:
            return history
        if state.paused:
            history.happen(resume(f"on{turn}"))
        elif has_more(state):
            history.happen(r.Continue(state.n))
        elif openings:
            one, id = state.steps[openings[0]], state.graph.steps[openings[0]].id
            answer = advised if one.purpose == "recovery" else completed
            history.happen(answer(id, "abort", one.attempt, run=state.run))
        else:
            waking = [version for version, timer in state.timers.items() if timer.kind in ("start", "retry", "grace")]
            assert waking, "nobody will ever wake it"
            history.happen(r.Due(str(waking[0])))
    raise AssertionError("it never ends")


# What holds ----------------------------------------------------------------------------------------------------------------


@many
@given(orders, worlds())
def test_every_life_is_lawful_and_can_be_brought_to_its_end(order: Random, world: World) -> None:
    """Whatever happened, the history verifies, and the execution ends once it is left alone; then nothing is open."""
    with with_room(world.room):
        history = brought_to_its_end(lived(order, world))
    found = verify(EXECUTION, history.stored)
    assert found.ok, found.problem
    state = history.state
    assert (state.timers, state.in_flight, state.unsettled) == ({}, {}, 0)
    assert not any(one.open for one in state.steps)
    assert not has_more(state)


Doer = tuple[str, str]
"""A step, and whether its task did it or its fallback."""


class Ledger:
    """What was done and not undone, told from the events alone: who did it, and by which event (its version)."""

    def __init__(self) -> None:
        self.version = 0
        self.done: dict[Doer, int] = {}
        self.line: dict[Doer, int] = {}
        self.snapshots: dict[str, dict[Doer, int]] = {}
        self.undone: set[tuple[Doer, int]] = set()
        self.fallbacks: set[str] = set()
        self.began: set[str] = set()
        self.asked: set[str] = set()
        self.held: set[str] = set()
        self.rollback: list[Doer] = []

    def note(self, event: e.Event) -> None:
        self.version += 1
        match event:
            case e.ExecutionRetried():
                self._new_run(self.line)
            case e.ExecutionResumed():
                self.held = set()
            case e.ExecutionRolledBack():
                self.line = {}
            case e.CheckpointCreated():
                self.snapshots[event.checkpoint_id] = dict(self.line)
            case e.CheckpointRestored():
                for one in event.abandoned:
                    if (step := one.split("/")[0]) not in self.held:
                        self._perhaps(step)
                self._new_run(self.snapshots[event.checkpoint_id])
                self.done |= self.line  # what it goes back to is done, as it was done then
            case e.TaskScheduled():
                self._opened(event.step)
                self.asked.discard(event.step)
            case e.TaskStarted():
                self.began.add(event.step)
                self.held.discard(event.step)
            case e.TaskHeld():
                self.held.add(event.step)
            case e.RecoveryInitiated():
                self._opened(event.step)
                self.asked.add(event.step)
            case e.TaskFailed() | e.TaskTimedOut() if (code := event.error.code) != "queue_timeout":
                self.began.discard(event.step)
                if isinstance(event, e.TaskTimedOut) or code == "WORKER_LOST":
                    self._perhaps(event.step)
            case e.TaskCancelled() if event.ended == "abandoned" or event.step in self.began:
                self._perhaps(event.step)
            case e.FallbackStarted():
                self.fallbacks.add(event.step)
            case e.TaskCompleted():
                self.done[self._who(event.step)] = self.line[self._who(event.step)] = self.version
            case e.RollbackStarted():
                self.rollback = [*reversed(sorted(self.done, key=lambda who: self.done[who]))]
            case e.CompensationScheduled() | e.CompensationSkipped():
                assert self.rollback, f"{event.step} was undone though nothing is left to undo"
                assert self.rollback[0][0] == event.step, f"{event.step} was undone out of turn"
                if isinstance(event, e.CompensationSkipped):
                    self.rollback.pop(0)
            case e.CompensationCompleted():
                who = self.rollback.pop(0)
                assert (who, self.done[who]) not in self.undone, f"{event.step} was undone twice"
                self.undone.add((who, self.done.pop(who)))
            case e.CompensationFailed() if not event.will_retry:
                self.rollback.pop(0)

    def _who(self, step: str) -> Doer:
        return step, "fallback" if step in self.fallbacks else "task"

    def _opened(self, step: str) -> None:
        self.began.discard(step)
        self.held.discard(step)

    def _perhaps(self, step: str) -> None:
        if step not in self.asked:  # advice does nothing that could be undone
            self.done.setdefault(self._who(step), self.version)

    def _new_run(self, kept: dict[Doer, int]) -> None:
        self.line = {who: since for who, since in kept.items() if (who, since) not in self.undone}
        self.fallbacks, self.began, self.asked, self.held = set(), set(), set(), set()


@many
@given(orders, worlds())
def test_nothing_is_undone_twice_and_all_in_reverse_order(order: Random, world: World) -> None:
    """Each undoing answers to something that was done and not undone since; the last thing done is undone first."""
    history = brought_to_its_end(lived(order, world, 60))
    ledger = Ledger()
    for event in history.events:
        ledger.note(event)


@many
@given(orders, worlds())
def test_each_deed_is_undone_under_a_key_of_its_own(order: Random, world: World) -> None:
    """All attempts to undo it share the key, in whichever run, and it succeeds under it once."""
    history = brought_to_its_end(lived(order, world, 60))
    state, succeeded, key = ExecutionState(EXECUTION), set(), ("", "")
    keys: dict[tuple[int, int], tuple[str, str]] = {}
    for commit in history.commits:
        begin(state, commit.n, commit.time)
        for event in commit.events:
            evolve(state, event)
            if isinstance(event, e.CompensationScheduled):
                dispatch = dispatch_of(state, state.graph.index[event.step])
                key = (dispatch.step, dispatch.undoes)
                assert state.rollback is not None
                deed = state.standing[state.rollback.order[state.rollback.cursor]]
                assert keys.setdefault((deed.since, deed.step), key) == key
            elif isinstance(event, e.CompensationCompleted):
                assert key not in succeeded, f"{key} was undone twice"
                succeeded.add(key)


@many
@given(orders, worlds())
def test_no_attempt_has_the_name_of_another(order: Random, world: World) -> None:
    """Run and attempt name it, whatever it is for; within a run a step's attempts are numbered without a gap."""
    history = lived(order, world, 60)
    last: dict[tuple[int, str], int] = {}
    seen = set()
    for event in history.events:
        if isinstance(event, e.TaskScheduled | e.RecoveryInitiated | e.CompensationScheduled):
            name = (event.run, event.step, event.attempt)
            assert name not in seen
            seen.add(name)
            before_it = last.get((event.run, event.step))
            assert before_it is None or event.attempt == before_it + 1
            last[event.run, event.step] = event.attempt


@many
@given(orders, worlds())
def test_repeated_effects_are_among_those_that_are_open(order: Random, world: World) -> None:
    """Whenever a commit's effects are repeated, what is handed out or set is open; what is taken back or cleared harms nobody."""
    with with_room(world.room):
        history = lived(order, world, 30)
    state = history.state
    still_open = in_words(fx.open_effects(state))
    for commit in history.commits:
        for effect in fx.effects_of(commit.events, commit.version, state, commit.n):
            if isinstance(effect, fx.DispatchAttempt | fx.SetTimer | fx.ContinueLater):
                assert in_words([effect])[0] in still_open, f"{effect} is repeated, but not open"
            if isinstance(effect, fx.ClearTimer):
                assert effect.name not in state.timers, "an open timer is cleared"


@many
@given(orders, worlds())
def test_nothing_that_opens_is_lost(order: Random, world: World) -> None:
    """Several messages in one decision, as an executor takes them: whatever is open was asked for by some commit's effects.

    What a pause holds, and a timer that fired in vain during it, has to be asked for anew.
    """
    history = History(around=world.around)
    past: list[Message] = []
    asked: set[str] = set()
    for turn in range(0, 60, 3):
        decision = Decision(history.state, at(turn), 0.0, world.around)
        for part in range(order.randint(1, 3)):
            message = something(order, decision.state, past, turn + part) if past else world.command
            past.append(message)
            if decide_message(decision, message, at(turn)).kind == "ineffective" and isinstance(message, r.Due):
                asked = {one for one in asked if not one.startswith(f"timer {message.name} ")}
        if not decision.events:
            continue
        history.commit(decision.events, decision.time, tuple(decision.causes))
        state = history.state
        assert visible(decision.state) == visible(state)
        for effect in fx.effects_of(decision.events, decision.first_version, state, state.n, unfinished=decision.unfinished):
            asked.add(unmoved(effect))
            if isinstance(effect, fx.TakeBack) and effect.why == "pause":
                asked.discard(f"dispatch {effect.step}/{effect.run}-{effect.attempt}")
        lost_now = {unmoved(effect) for effect in fx.open_effects(state) if not idle(state, effect)} - asked
        assert not lost_now, f"{lost_now} is open, and nobody is told"


def idle(state: ExecutionState, effect: fx.Effect) -> bool:
    """Whether it need not be asked for: an attempt that somebody has begun, a timer held by a pause or outrun by a stop."""
    if isinstance(effect, fx.DispatchAttempt):
        return state.steps[state.graph.index[effect.step]].started_at is not None
    if not isinstance(effect, fx.SetTimer):
        return False
    kind = state.timers[effect.name].kind
    return (state.paused and kind in HELD_BY_A_PAUSE) or (state.stopping and kind != "grace")


def unmoved(effect: fx.Effect) -> str:
    """An effect in words, a timer without the time until it is due, which shrinks as time goes by."""
    return f"timer {effect.name} at {effect.due}" if isinstance(effect, fx.SetTimer) else in_words([effect])[0]


@many
@given(orders, worlds())
def test_every_message_again_changes_nothing(order: Random, world: World) -> None:
    """What was decided once is recognised: the same command, and the same outcome of an attempt that is closed, add no event."""
    history = History(around=world.around)
    history.happen(world.command)
    past: list[Message] = [world.command]
    for turn in range(30):
        message = something(order, history.state, past, turn)
        outcome = history.happen(message)
        if outcome.verdict.kind == "applied" and outcome.events:
            past.append(message)
            length = len(history.stored)
            again = history.happen(message)
            if not isinstance(message, tuple) or not isinstance(message[0], r.Started | r.Before):
                assert again.verdict.kind in ("repeated", "stale", "duplicate", "ineffective"), again.verdict
            assert len(history.stored) == length, f"{message} was decided twice"
