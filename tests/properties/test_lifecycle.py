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
    due,
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
    if state.paused and one.started_at is None and order.random() < 0.4:
        return withdrawn(spec, attempt, run=run, pause=state.pause)
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


def something(order: Random, state: ExecutionState, past: list[Message], turn: int, wishes: float = 0.2) -> Message:
    """Any message that may come now: a wish, an outcome, a timer, what was left over; or what came before, once more."""
    kind = order.random()
    if kind < wishes or state.ended:
        return a_command(order, state, turn)
    if kind < wishes + 0.1:
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


class Gulp(NamedTuple):
    """A decision over several messages, and the history up to it. `in_vain`: the timers that fired without an effect."""

    history: History
    decision: Decision
    in_vain: set[str]


def lived_in_gulps(order: Random, world: World, turns: int = 20) -> Iterator[Gulp]:
    """A life of so many decisions, each over some messages, as an executor takes what has gathered."""
    history = History(around=world.around)
    past: list[Message] = []
    for turn in range(turns):
        history.clock = 3.0 * turn
        decision, in_vain = Decision(history.state, at(history.clock), 0.0, world.around), set()
        for part in range(order.randint(1, 3)):
            wishes = 0.5 if part else 0.2  # which come in quick succession more often than alone
            message = something(order, decision.state, past, 3 * turn + part, wishes) if past else world.command
            past.append(message)
            if decide_message(decision, message, at(history.clock)).kind == "ineffective" and isinstance(message, r.Due):
                in_vain.add(message.name)
        if decision.events:
            history.commit(decision.events, decision.time, tuple(decision.causes))
            assert visible(decision.state) == visible(history.state)
        yield Gulp(history, decision, in_vain)


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


@many
@given(orders, worlds())
def test_a_life_of_decisions_over_several_messages_is_lawful_as_well(order: Random, world: World) -> None:
    """Whatever is opened and stopped in one commit, the history verifies, ends, and tells what was done and not undone."""
    with with_room(world.room):
        *_, (history, _, _) = lived_in_gulps(order, world)
        brought_to_its_end(history)
    found = verify(EXECUTION, history.stored)
    assert found.ok, found.problem
    assert standing_of(history) == told_by(ledger_of(history), history)


class Done(NamedTuple):
    """What a step's task (or its fallback) did in a run: by which event (its version), and whether it completed."""

    step: str
    by: str
    run: int
    since: int
    certain: bool


class Ledger:
    """What was done and not undone, told from the events alone."""

    def __init__(self, dependencies: dict[str, set[str]]) -> None:
        self.behind = {step: _all_behind(step, dependencies) for step in dependencies}
        self.version = self.n = 0
        self.run = 1
        self.done: set[Done] = set()
        self.line: dict[str, Done] = {}
        self.snapshots: dict[str, dict[str, Done]] = {}
        self.undone: set[Done] = set()
        self.paused = False
        self.fallbacks: set[str] = set()
        self.opened: dict[str, int] = {}
        self.began: set[str] = set()
        self.asked: set[str] = set()
        self.held: set[str] = set()
        self.rollback: list[Done] = []

    def note(self, n: int, event: e.Event) -> None:
        """The next event, of commit `n`."""
        self.n, self.version = n, self.version + 1
        match event:
            case e.ExecutionRetried():
                self._new_run(self.line)
            case e.ExecutionPaused():
                self.paused = True
                self._stopped()
            case e.ExecutionCancelRequested():
                self.paused = False
                self._stopped()
            case e.DeadlineExceeded():
                self._stopped()
            case e.ExecutionResumed():
                self.opened |= dict.fromkeys(self.held, n)
                self.paused, self.held = False, set()
            case e.ExecutionCompleted() | e.ExecutionFailed() | e.ExecutionCancelled():
                self.paused = False
            case e.ExecutionRolledBack():
                self.paused, self.line = False, {}
            case e.CheckpointCreated():
                self.snapshots[event.checkpoint_id] = dict(self.line)
            case e.CheckpointRestored():
                self._stopped()
                for one in event.abandoned:
                    if (step := one.split("/")[0]) not in self.held:
                        self._perhaps(step)
                self._new_run(self.snapshots[event.checkpoint_id])
                for done in self.line.values():  # what it goes back to is done, as it was done then
                    self._certainly(done)
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
                self.line[event.step] = self._now(event.step, certain=True)
                self._certainly(self.line[event.step])
            case e.RollbackStarted():
                self.rollback = sorted(self.done, key=lambda done: -done.since)
            case e.CompensationScheduled() | e.CompensationSkipped():
                self._in_turn(event.step)
                if isinstance(event, e.CompensationSkipped):
                    self.rollback.remove(self._next_of(event.step))
            case e.CompensationCompleted():
                done = self._next_of(event.step)
                assert done not in self.undone, f"{event.step} was undone twice"
                self.undone.add(done)
                self.done.remove(done)
                self.rollback.remove(done)
            case e.CompensationFailed() if not event.will_retry:
                self.rollback.remove(self._next_of(event.step))

    def _next_of(self, step: str) -> Done:
        """Of several things that a step did, the last is undone first."""
        return next(done for done in self.rollback if done.step == step)

    def _in_turn(self, step: str) -> None:
        """Of what nothing that is left depends on, the last thing done is undone first."""
        assert step in {done.step for done in self.rollback}, f"{step} was undone though nothing of it is left to undo"
        left = {done.step for done in self.rollback}
        assert not left & self.behind[step], f"{step} was undone before {left & self.behind[step]}, which depend on it"
        last = max(done.since for done in self.rollback if not left & self.behind[done.step])
        assert self._next_of(step).since == last, f"{step} was undone out of turn"
        assert self.run > 1 or last == self.rollback[0].since, "within one run that is the order of completion"

    def _now(self, step: str, *, certain: bool) -> Done:
        return Done(step, "fallback" if step in self.fallbacks else "task", self.run, self.version, certain)

    def _opened(self, step: str) -> None:
        self.opened[step] = self.n
        self.began.discard(step)
        self.held.discard(step)
        if self.paused:
            self.held.add(step)

    def _stopped(self) -> None:
        """What the same commit opened was never handed out."""
        self.held |= {step for step, n in self.opened.items() if n == self.n and step not in self.began}

    def _perhaps(self, step: str) -> None:
        news = self._now(step, certain=False)
        if step not in self.asked and not any(one[:3] == news[:3] for one in self.done):  # advice does nothing to be undone
            self.done.add(news)

    def _certainly(self, done: Done) -> None:
        """It takes the place of what is certain of other runs, and of anything of its own."""
        self.done = {one for one in self.done if one[:2] != done[:2] or (one.run != done.run and not one.certain)} | {done}

    def _new_run(self, kept: dict[str, Done]) -> None:
        self.line = {step: done for step, done in kept.items() if done not in self.undone}
        self.run += 1
        self.fallbacks, self.opened, self.began, self.asked, self.held = set(), {}, set(), set(), set()


def _all_behind(step: str, dependencies: dict[str, set[str]]) -> set[str]:
    """The steps that depend on this one, directly or not."""
    behind: set[str] = set()
    while more := {other for other, needs in dependencies.items() if needs & (behind | {step})} - behind:
        behind |= more
    return behind


def standing_of(history: History) -> set[tuple[int, int, int, bool]]:
    """What the core takes as done: by which step in which run, by which event, and whether that is certain."""
    return {(deed.step, deed.run, deed.since, deed.certain) for deed in history.state.standing.values()}


def told_by(ledger: Ledger, history: History) -> set[tuple[int, int, int, bool]]:
    """The same as the ledger has it."""
    index = history.state.graph.index
    return {(index[done.step], done.run, done.since, done.certain) for done in ledger.done}


def ledger_of(history: History) -> Ledger:
    """The ledger of a history, every undoing of which is held against it."""
    graph = history.state.graph
    named = [spec.id for spec in graph.steps]
    ledger = Ledger({named[index]: {named[other] for other in needs} for index, needs in enumerate(graph.dependencies)})
    for commit in history.commits:
        for event in commit.events:
            ledger.note(commit.n, event)
    return ledger


@many
@given(orders, worlds())
def test_nothing_is_undone_twice_and_all_in_its_turn(order: Random, world: World) -> None:
    """Each undoing answers to something that was done and not undone since, and what is left at the end is what stands."""
    history = brought_to_its_end(lived(order, world, 60))
    assert standing_of(history) == told_by(ledger_of(history), history)


@st.composite
def undoable(draw: st.DrawFn) -> World:
    """A plan of steps that depend on each other, each of which can be undone; nothing is rolled back by itself."""
    steps = []
    for index in range(draw(st.integers(2, 5))):
        earlier = [f"s{other}" for other in range(index)]
        depends_on = draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True)) if earlier else []
        steps.append(step(f"s{index}", *depends_on, max_retries=0, parallel=draw(st.booleans())))
    config = {"enable_rollback": False, "continue_on_error": draw(st.booleans()), "parallel_execution_limit": 3}
    around = Surroundings(tasks={one["id"]: TaskInfo(compensate=f"undo_{one['id']}") for one in steps})
    return World(start(*steps, config=config), around, 500)


@many
@given(orders, undoable())
def test_no_step_is_undone_before_something_that_depends_on_it(order: Random, world: World) -> None:
    """Whatever ran again, and later than what depends on it, after retries and restores; everything that stood is undone."""
    history = History(around=world.around)
    history.happen(world.command)
    history.happen(checkpoint("first"))
    for turn in range(40):
        state = history.state
        openings = [index for index, one in enumerate(state.steps) if one.open]
        if not state.ended and openings and order.random() < 0.75:
            index = order.choice(openings)
            spec, attempt = state.graph.steps[index].id, state.steps[index].attempt
            outcome = order.choice([completed, completed, completed, timed_out, fatal])
            history.happen(outcome(spec, attempt=attempt, run=state.run))
        else:
            again = [restore(order.choice([*state.checkpoints]), id=f"w{turn}"), retry(id=f"w{turn}")]
            history.happen(order.choice([*again, checkpoint(f"w{turn}")]))
    if not history.state.ended:
        history.happen(cancel())
        history.happen(due()) if not history.state.ended else None
    history.happen(rollback())
    ledger = ledger_of(brought_to_its_end(history))
    assert history.state.status == "rolled_back" or not history.state.undone
    assert not ledger.done


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
                deed = state.rollback.order[state.rollback.cursor]
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
    asked: set[str] = set()
    for history, decision, in_vain in lived_in_gulps(order, world):
        state = history.state
        asked = {one for one in asked if not (one.startswith("timer ") and one.split()[1] in in_vain)}
        if not decision.events:
            continue
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
