"""given(what happened).when(a message comes).then(these events follow): how the tests of the core read.

What is given are messages, which are decided, or bare events, which are taken as facts (events in a row are one commit).
Every decision made on the way is held against the law: its events are legal, each moved the execution and its step as
`esexec.domain.life` says, the state it left is the fold of the history, and somebody or something will wake the execution.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from esexec.domain import commands as c
from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain import reports as r
from esexec.domain.cached import CachedFrom
from esexec.domain.commit import Cause, Commit, hash_of, signed
from esexec.domain.decider import Message as Decidable
from esexec.domain.decider import decide, decide_message
from esexec.domain.decision import NOWHERE, Decision, Surroundings, Verdict
from esexec.domain.effects import Effect, effects_of
from esexec.domain.errors import ErrorInfo
from esexec.domain.evolve import begin, evolve, fold, note_cause
from esexec.domain.flow import Resource
from esexec.domain.legality import objection
from esexec.domain.measures import Measured
from esexec.domain.sharing import requests as s
from esexec.domain.state import ExecutionState, TimerKind
from esexec.log import codec
from esexec.log.port import Stored
from tests.law import Handed, lives_of, stuck, unlike_its_life

T0 = datetime(2026, 1, 1, tzinfo=UTC)
EXECUTION = "e1"

Report = tuple[r.Report | s.Answer, str, str]
Message = Decidable

INDEXES = frozenset({"ready", "serial", "doomed", "cursor", "policies", "position", "prev"})
"""Fields of a state that may hold entries already dealt with, are filled when first asked for, or belong to the log."""


def at(seconds: float) -> datetime:
    """The moment `seconds` after the beginning of every test."""
    return T0 + timedelta(seconds=seconds)


def visible(state: ExecutionState) -> dict[str, Any]:
    """Every field of a state that its history determines."""
    return {name: getattr(state, name) for name in state.__struct_fields__ if name not in INDEXES}


# Messages --------------------------------------------------------------------------------------------------------------


def step(id: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """A step as it stands in a plan; its task is called as the step unless said otherwise."""
    return {"id": id, "task": id, "depends_on": list(depends_on), **fields}


def start(
    *steps: dict[str, Any] | str, id: str = "c1", config: Mapping[str, Any] | None = None, **fields: Any
) -> c.StartExecution:
    """A start of a plan of these steps. `plan_fields`, and the fields of the command, by name."""
    plan = {"name": "p", "steps": [step(one) if isinstance(one, str) else one for one in steps], **fields.pop("plan_fields", {})}
    settings = msgspec.convert(dict(config or {}), type(c.EMPTY_CONFIG)) if config else c.EMPTY_CONFIG
    return c.StartExecution(id=id, plan=msgspec.Raw(msgspec.json.encode(plan)), config=settings, **fields)


def cancel(id: str = "c2", reason: str = "") -> c.CancelExecution:
    return c.CancelExecution(id=id, reason=reason)


def pause(id: str = "pause", reason: str = "") -> c.PauseExecution:
    return c.PauseExecution(id=id, reason=reason)


def resume(id: str = "resume") -> c.ResumeExecution:
    return c.ResumeExecution(id=id)


def retry(step: str | None = None, *, id: str = "retry", as_new: bool = False, new_id: str | None = None) -> c.RetryExecution:
    return c.RetryExecution(id=id, step=step, as_new=as_new, new_id=new_id)


def rollback(id: str = "rollback", reason: str = "") -> c.RollbackExecution:
    return c.RollbackExecution(id=id, reason=reason)


def checkpoint(id: str = "checkpoint", **metadata: Any) -> c.CreateCheckpoint:
    return c.CreateCheckpoint(id=id, metadata=metadata)


def restore(checkpoint_id: str, *, id: str = "restore", reason: str = "") -> c.RestoreCheckpoint:
    return c.RestoreCheckpoint(id=id, checkpoint_id=checkpoint_id, reason=reason)


def started(step: str, attempt: int = 1, *, run: int = 1, began: float = 0, worker: str = "w") -> Report:
    return r.Started(started_at=at(began), worker=worker), step, f"{run}-{attempt}"


def completed(
    step: str,
    output: Any = None,
    attempt: int = 1,
    *,
    run: int = 1,
    began: float = 0,
    ended: float = 1,
    vars: Mapping[str, Any] | None = None,
    measured: Measured | None = None,
    worker: str = "w",
) -> Report:
    report = r.Completed(
        started_at=at(began), ended_at=at(ended), output=output, worker=worker, vars=dict(vars or {}), measured=measured
    )
    return report, step, f"{run}-{attempt}"


def found(step: str, output: Any = None, attempt: int = 1, *, run: int = 1, source: str = "e0/s0", since: float = -60) -> Report:
    """An output that was found in the cache; `source`: execution and step that returned it."""
    execution, _, of_step = source.partition("/")
    cached = CachedFrom(key="f00d", execution_id=execution, step=of_step, time=at(since))
    report = r.Completed(started_at=at(0), ended_at=at(0), output=output, worker="w", cached=cached)
    return report, step, f"{run}-{attempt}"


def failed(
    step: str,
    attempt: int = 1,
    *,
    run: int = 1,
    code: str = "BROKEN",
    retryable: bool | None = None,
    vars: Mapping[str, Any] | None = None,
    measured: Measured | None = None,
    **error: Any,
) -> Report:
    """A failure; `retryable=False` makes it the step's end."""
    told = failure(code, retryable=retryable, **error)
    report = r.Failed(error=told, started_at=at(0), ended_at=at(1), worker="w", vars=dict(vars or {}), measured=measured)
    return report, step, f"{run}-{attempt}"


def fatal(step: str, attempt: int = 1, *, run: int = 1) -> Report:
    """A failure that is not retried."""
    return failed(step, attempt, run=run, code="FATAL", retryable=False)


def rejected(step: str, attempt: int = 1, *, run: int = 1) -> Report:
    """Its worker does not have the task."""
    error = ErrorInfo(type="validation_error", code="unknown_task", message="this worker has no such task")
    return r.Rejected(error=error, ended_at=at(1), worker="w"), step, f"{run}-{attempt}"


def timed_out(step: str, attempt: int = 1, *, run: int = 1) -> Report:
    return r.TimedOut(started_at=at(0), ended_at=at(30), ended="cancelled", worker="w"), step, f"{run}-{attempt}"


def stopped(step: str, attempt: int = 1, *, run: int = 1) -> Report:
    return r.Stopped(started_at=at(0), ended_at=at(1), ended="cancelled", worker="w"), step, f"{run}-{attempt}"


def lost(step: str, losses: int = 1, attempt: int = 1, *, run: int = 1) -> Report:
    return r.Lost(losses=losses), step, f"{run}-{attempt}"


def granted(step: str, attempt: int = 1, *, run: int = 1, by: s.Gate = "rate_limit", entity: str = "_limit-1") -> Report:
    """What an attempt asked for is its own now; of the execution as a whole with the step `_`."""
    resources = (Resource("r1", "pool", "gpu", 2.0, cost_per_unit_second=0.5),) if by == "resources" else ()
    return s.Granted(entity=entity, gate=by, resources=resources), step, f"{run}-{attempt}"


def waits(step: str, attempt: int = 1, *, run: int = 1, by: s.Gate = "rate_limit", until: float | None = None) -> Report:
    """It has to wait for it; `until`: seconds."""
    return s.Waiting(entity="_limit-1", gate=by, until=None if until is None else at(until), ahead=1), step, f"{run}-{attempt}"


def denied(step: str, attempt: int = 1, *, run: int = 1, by: s.Gate = "rate_limit", code: str = "rate_limited") -> Report:
    """It will not be granted."""
    return s.Denied(entity="_limit-1", gate=by, error=failure(code, retryable=False)), step, f"{run}-{attempt}"


def withdrawn(step: str, attempt: int = 1, *, run: int = 1, pause: int = 0) -> Report:
    """No worker had it; `pause`: the version of the pause that took it back."""
    return r.Withdrawn(pause=pause), step, f"{run}-{attempt}"


def before(step: str, image: Any, attempt: int = 1, *, run: int = 1) -> Report:
    """What the handler says that something was before it changes it."""
    return r.Before(image=image, worker="w"), step, f"{run}-{attempt}"


def undone(step: str, attempt: int = 2, *, run: int = 1) -> Report:
    """The compensation of a step that had one attempt has done its work."""
    return completed(step, None, attempt, run=run)


def advised(
    step: str,
    action: str,
    attempt: int = 2,
    *,
    run: int = 1,
    success: bool = True,
    message: str = "",
    vars: Mapping[str, Any] | None = None,
) -> Report:
    """What a recovery strategy that was asked by this attempt returned."""
    output: dict[str, Any] = {"success": success, "action": action, "message": message}
    return completed(step, output | ({"new_state": {"variables": dict(vars)}} if vars else {}), attempt, run=run)


class TimerOf(msgspec.Struct, frozen=True):
    """The timer of this kind that is open at that moment, of a step or of the execution."""

    step: str = ""
    kind: TimerKind = "grace"


def due(step: str = "", kind: TimerKind | None = None) -> TimerOf:
    """The retry of a step is due, or with `kind` its `queue` time is over; without a step, a stop's grace or what `kind` says."""
    return TimerOf(step, kind or ("retry" if step else "grace"))


def failure(code: str = "BROKEN", **fields: Any) -> ErrorInfo:
    return ErrorInfo(type="execution_error", code=code, message=f"it is {code}", **fields)


# Histories ---------------------------------------------------------------------------------------------------------------


class History:
    """What happened so far, as a log would hold it. `state` is the fold of it."""

    def __init__(self, *, around: Surroundings | None = None, execution: str = EXECUTION) -> None:
        self.execution, self.around = execution, around or NOWHERE
        self.stored: list[Stored] = []
        self.commits: list[Commit] = []
        self.handed = Handed()
        self.clock = 0.0

    @property
    def events(self) -> list[e.Event]:
        return [event for commit in self.commits for event in commit.events]

    @property
    def state(self) -> ExecutionState:
        return fold(self.execution, self.commits)

    def happen(self, message: Message | TimerOf, *, when: float | None = None, chance: float = 0.0) -> "Outcome":
        """Decide a message and commit what follows. Without `when`, a second after the message before."""
        self.clock = self.clock + 1 if when is None else when
        before = self.state
        message = _timer_message(before, message) if isinstance(message, TimerOf) else message
        decision = Decision(self.state, at(self.clock), chance, self.around)
        verdict = decide_message(decision, message, at(self.clock))
        again = decide(self.state, message, at(self.clock), chance=chance, around=self.around)
        assert decision.events == again, "decide is not what its parts are"
        if decision.events:
            self.commit(decision.events, decision.time, tuple(decision.causes))
            assert visible(decision.state) == visible(self.state), "the state of a decision is not the fold of its history"
        return Outcome(self, before, decision, verdict)

    def commit(self, events: list[e.Event], time: datetime | None = None, causes: tuple[Cause, ...] = ()) -> None:
        """Store these events as the next commit, if they may follow."""
        state = self.state
        n, version = state.n + 1, state.version + 1
        time = time or at(self.clock)
        begin(state, n, time)
        for event in events:
            assert (problem := objection(state, event)) is None, problem
            was = lives_of(state, event)
            evolve(state, event)
            assert (problem := unlike_its_life(state, event, was)) is None, problem
        for cause in causes:
            note_cause(state, cause.id, cause.time)
        self.handed.note(effects_of(events, version, state, n))
        self.handed.prove(state)
        assert (problem := stuck(state, self.handed)) is None, f"{problem} after {events}"
        actor, signed_causes = signed(causes)
        commit = Commit(
            v=codec.VERSION,
            execution_id=self.execution,
            n=n,
            version=version,
            time=time,
            commands=signed_causes,
            actor=actor,
            executor="x",
            prev=hash_of(self.stored[-1].data) if self.stored else "",
            events=tuple(events),
        )
        self.stored.append(Stored(n, n, codec.encode(commit)))
        self.commits.append(codec.decode(self.stored[-1].data))

    def happen_together(self, *messages: Message | TimerOf) -> "Outcome":
        """Decide these into one commit, as an executor does with what has gathered. A timer is one of those open before it."""
        self.clock += 1
        before = self.state
        decision = Decision(self.state, at(self.clock), around=self.around)
        found = [_timer_message(before, message) if isinstance(message, TimerOf) else message for message in messages]
        verdicts = [decide_message(decision, message, at(self.clock)) for message in found]
        assert decision.events, f"these led to nothing: {messages}"
        self.commit(decision.events, decision.time, tuple(decision.causes))
        assert visible(decision.state) == visible(self.state), "the state of a decision is not the fold of its history"
        return Outcome(self, before, decision, verdicts[-1])

    def when(self, message: Message | TimerOf, *, at: float | None = None, chance: float = 0.0) -> "Outcome":
        return self.happen(message, when=at, chance=chance)


class Outcome:
    """What a message led to. `history` goes on from there."""

    def __init__(self, history: History, before: ExecutionState, decision: Decision, verdict: Verdict) -> None:
        self.history, self.before, self.decision, self.verdict = history, before, decision, verdict

    @property
    def events(self) -> list[e.Event]:
        return self.decision.events

    @property
    def state(self) -> ExecutionState:
        return self.history.state

    @property
    def effects(self) -> list[Effect]:
        """What must happen after the commit."""
        return effects_of(self.events, self.decision.first_version, self.state, self.decision.state.n)

    def then(self, *events: e.Event) -> "Outcome":
        """Exactly these events."""
        assert self.events == list(events), f"{self.events} instead of {list(events)}"
        return self

    def then_types(self, *types: str) -> "Outcome":
        """Events of exactly these types; a step's event may be written `task_failed a`."""
        asked = [" " in kind for kind in types] + [False] * len(self.events)
        found = [told(event, with_step) for event, with_step in zip(self.events, asked, strict=False)]
        assert found == list(types), f"{found} instead of {list(types)}"
        return self

    def then_nothing(self, verdict: str | None = None) -> "Outcome":
        """No event, and this verdict."""
        assert self.events == []
        assert verdict is None or self.verdict.kind == verdict
        return self

    def when(self, message: Message | TimerOf, *, at: float | None = None, chance: float = 0.0) -> "Outcome":
        return self.history.happen(message, when=at, chance=chance)


def told(event: e.Event, with_step: bool) -> str:
    """An event's type, with its step where that is asked for."""
    return f"{e.type_of(event)} {getattr(event, 'step', '')}".strip() if with_step else e.type_of(event)


def given(*items: Message | TimerOf | e.Event, around: Surroundings | None = None) -> History:
    """A history: messages are decided a second apart, events are facts."""
    history = History(around=around)
    facts: list[e.Event] = []
    for item in items:
        if isinstance(item, e.Event):
            facts.append(item)
            continue
        if facts:
            history.commit(facts)
            facts = []
        assert history.happen(item).events, f"this was given, but led to nothing: {item}"
    if facts:
        history.commit(facts)
    return history


def timer_of(state: ExecutionState, timer: TimerOf) -> int | None:
    """The name of the youngest open timer that is meant."""
    index = state.graph.index[timer.step] if timer.step else -1
    return max((version for version, one in state.timers.items() if (one.kind, one.step) == (timer.kind, index)), default=None)


def _timer_message(state: ExecutionState, timer: TimerOf) -> r.Due:
    version = timer_of(state, timer)
    assert version is not None, f"no {timer.kind} timer of {timer.step or 'the execution'} is open"
    return r.Due(str(version))


def exactly(effects: Iterable[Effect]) -> list[tuple[type, Effect]]:
    """Effects with their types: a `ClearTimer` of 7 equals a `ContinueLater` after 7, for both are tuples."""
    return [(type(effect), effect) for effect in effects]


def asked_about(effects: Iterable[Effect]) -> list[str]:
    """The attempts that are handed out again only if no worker says that it has them."""
    return [f"{one.step}/{one.run}-{one.attempt}" for one in effects if isinstance(one, fx.DispatchAttempt) and one.in_hand]


def on_attempts(effects: Iterable[Effect]) -> list[str]:
    """The effects on attempts, in words: no timers."""
    return [_in_words(one) for one in effects if isinstance(one, fx.DispatchAttempt | fx.TakeBack)]


def repeated(history: "History", n: int) -> list[Effect]:
    """The effects of commit `n`, repeated now."""
    commit = history.commits[n - 1]
    return effects_of(commit.events, commit.version, history.state, n)


def in_words(effects: Iterable[Effect]) -> list[str]:
    """Effects as a test reads them: `dispatch a/1-1`, `timer 7 in 2.5 s`, `stop a/1-1: enough`, `hold a/1-1 for 9`, `fork e2`."""
    return [_in_words(effect) for effect in effects]


def _in_words(effect: Effect) -> str:
    match effect:
        case fx.DispatchAttempt():
            error = f": {effect.message.code}" if isinstance(effect.message, ErrorInfo) else ""
            return f"dispatch {effect.step}/{effect.run}-{effect.attempt}{error}"
        case fx.SetTimer():
            return f"timer {effect.name} in {effect.wait_s:g} s"
        case fx.ClearTimer():
            return f"clear {effect.name}"
        case fx.TakeBack():
            verb = {"stop": "stop", "over": "give up", "overdue": "withdraw", "pause": "hold"}[effect.why]
            reason = f": {effect.reason}" if effect.reason else f" for {effect.pause}" if effect.pause else ""
            return f"{verb} {effect.step}/{effect.run}-{effect.attempt}{reason}"
        case fx.LookLater():
            return "look later"
        case fx.ContinueLater():
            return f"continue after {effect.after}"
        case fx.StartFork():
            return f"fork {effect.new_id}"
