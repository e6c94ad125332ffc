"""The steps of a history: what may follow what in their lives, and what stands of what they did. The half of `tale`.

Of each step it knows its present life (a run that does not keep it begins a new one), and of the execution what stands: the
effects that nobody has undone, in the order in which they came to be. `name~` is what the step's fallback did in its stead.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

UNKNOWN_OUTCOME = frozenset({"WORKER_LOST"})
WORK = frozenset({"task", "fallback"})
WAITING = frozenset({"task_held", "task_overdue"})
"""What becomes of an attempt, of whatever purpose, that waits for a worker."""


class Completion(NamedTuple):
    """An outcome that was accepted as the output of a step."""

    step: str
    run: int
    attempt: int
    output: Any


@dataclass
class StepTale:
    """A life of a step. `open`: what the open attempt is for. `due`: the attempt that a timer will begin. `owed`: the event that
    must come next. `settled`: how it ended, `settled_at` which version. `held`: a pause took the open attempt back; nobody has
    it. `deed`: it completed by what it did itself."""

    needs: frozenset[str]
    attempt: int = 0
    open: str | None = None
    started: bool = False
    overdue: bool = False
    held: bool = False
    deed: bool = False
    fallback: bool = False
    undoing: bool = False
    due: int = 0
    owed: str | None = None
    settled: str | None = None
    settled_at: int = 0
    let_go: bool = False

    @property
    def done(self) -> bool:
        """Whether what depends on it may go on."""
        return self.settled == "completed" or self.let_go


@dataclass
class Rollback:
    """`order`: what stood when it began, the last first."""

    order: list[str]
    at: int = 0
    undone: int = 0
    failed: list[str] = field(default_factory=list)


class TaleOfSteps:
    """Each `_<type of event>` says what is wrong with the next event of a step, or None."""

    def __init__(self, entity: str) -> None:
        self.entity = entity
        self.version = 0
        self.run = 1
        self.steps: dict[str, StepTale] = {}
        self.created = self.began = False
        self.paused = self.cancel_requested = self.expired = self.failed = False
        self.end: str | None = None
        self.rollback: Rollback | None = None
        self.owed_restore = False
        self.checkpoints: dict[str, dict[str, StepTale]] = {}
        self.images: set[str] = set()
        self.undone: set[int] = set()
        """The versions of what was undone."""
        self.undone_at: dict[str, int] = {}
        self.standing: dict[str, int] = {}
        """What stands, by the version that did it."""
        self.uncertain: set[str] = set()
        """Of what stands: nobody knows whether it was done, or whether an undoing that failed undid it."""
        self.loose: set[str] = set()
        """Effects that a handler may still bring about after its attempt was closed."""
        self.completions: list[Completion] = []
        self.outcomes: Counter[tuple[str, int, int]] = Counter()
        self.commands: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.idempotency_key: str | None = None
        self.bound: tuple[str, str] | None = None

    # Steps ---------------------------------------------------------------------------------------------------------------

    def _of_step(self, kind: str, event: dict[str, Any]) -> str | None:
        step = self.steps.get(event["step"])
        attempt, run = event.get("attempt", 1), event.get("run", 1)
        where = f"{kind} of {event['step']} ({run}-{attempt})"
        if step is None:
            return f"{where}: there is no such step"
        if run != self.run:
            return f"{where}: this is run {self.run}"
        if step.owed is not None and kind != step.owed:
            return f"{where}: {step.owed} was promised"
        if not kind.startswith("compensation_") and kind not in WAITING and step.settled is not None:
            return f"{where}: the step has {step.settled}"
        if kind.startswith("compensation_") and (self.rollback is None or self._to_undo() != event["step"]):
            return f"{where}: to be undone next is {self._to_undo()}"
        tell = getattr(self, f"_{kind}", None)
        problem = tell(event["step"], step, attempt, event) if tell is not None else "a type that is not known"
        return f"{where}: {problem}" if problem else None

    def _key(self, name: str, step: StepTale) -> str:
        return f"{name}~" if step.fallback else name

    def _perhaps(self, key: str) -> None:
        self.loose.add(key)
        if key not in self.standing:
            self.standing[key] = self.version
            self.uncertain.add(key)

    def _settle(self, step: StepTale, how: str) -> None:
        step.settled, step.settled_at, step.due = how, self.version, 0
        self.failed = self.failed or how == "failed"

    def _open(self, step: StepTale, attempt: int, purpose: str) -> str | None:
        out_of_turn = bool(step.open) or attempt != step.attempt + 1
        step.attempt, step.open, step.started, step.overdue, step.owed = attempt, purpose, False, False, None
        step.held = False
        return "out of turn" if out_of_turn else "after the cancel request" if self.cancel_requested else None

    def _begin(self, step: StepTale, attempt: int, purposes: Iterable[str]) -> str | None:
        legal = step.open in purposes and attempt == step.attempt and not step.started
        step.started = True
        return None if legal else "not open, or started before"

    def _close(self, name: str, step: StepTale, attempt: int, purposes: Iterable[str]) -> str | None:
        """At most one outcome for each attempt."""
        if step.open not in purposes or attempt != step.attempt:
            return f"not open ({step.open} {step.attempt})"
        step.open = None
        self.outcomes[name, self.run, attempt] += 1
        return "a second outcome" if self.outcomes[name, self.run, attempt] > 1 else None

    def _task_scheduled(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        asked_for = step.owed is not None
        by_timer = bool(step.due) and attempt == step.due
        if not (asked_for or by_timer or step.attempt == 0):
            return "no retry is due"
        if self.paused and not asked_for:
            return "while it is paused"
        if self.expired or not self.began:
            return "before its start or after its deadline"
        if left := [need for need in step.needs if not self.steps[need].done]:
            return f"{left} have not completed"
        step.due = 0
        return self._open(step, attempt, "fallback" if step.fallback else "task")

    def _task_started(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        return self._begin(step, attempt, WORK)

    def _before_image_recorded(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        known = name in self.images
        self.images.add(name)
        return "it has an image" if known else None if step.open in WORK and attempt == step.attempt else "not open"

    def _task_completed(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        problem = self._close(name, step, attempt, WORK)
        key = self._key(name, step)
        self.standing.pop(key, None)
        self.standing[key] = self.version
        self.uncertain.discard(key)
        step.deed = True
        self.completions.append(Completion(name, self.run, attempt, event.get("output")))
        self._settle(step, "completed")
        return problem or (None if step.started else "never started")

    def _task_failed(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        problem = self._close(name, step, attempt, WORK)
        code = event["error"]["code"]
        if code in UNKNOWN_OUTCOME or (event["type"] == "task_timed_out" and code != "queue_timeout"):
            self._perhaps(self._key(name, step))
        if code == "queue_timeout" and (not step.overdue or step.started):
            return "it was not overdue, or somebody had begun it"
        if event.get("will_retry"):
            step.owed = "task_retry_scheduled"
        elif event.get("instead"):
            step.owed = {"recovery": "recovery_initiated", "fallback": "task_fallback_started"}[event["instead"]]
        else:
            self._settle(step, "failed")
        return problem

    _task_timed_out = _task_failed

    def _task_overdue(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        legal = step.open and attempt == step.attempt and not (step.started or step.overdue or self.paused)
        step.overdue = True
        return None if legal else "it does not wait"

    def _task_held(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        legal = step.open and attempt == step.attempt and not (step.started or step.held) and self.paused
        step.held = True
        return None if legal else "it does not wait, or there is no pause"

    def _task_retry_scheduled(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        promised, step.owed, step.due = step.owed is not None, None, attempt
        return None if promised and attempt == step.attempt + 1 else "not promised"

    _compensation_retry_scheduled = _task_retry_scheduled

    def _task_fallback_started(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        promised = step.owed is not None and not step.fallback and attempt == step.attempt + 1
        step.fallback, step.owed = True, "task_scheduled"
        return None if promised else "not promised"

    def _task_skipped(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        promised, step.owed = step.owed is not None, None
        step.let_go = event["reason"] == "recovery"
        self._settle(step, "skipped")
        if step.let_go:
            return None if promised else "no strategy asked for it"
        return f"it has had attempt {step.attempt}" if step.attempt else None if self.failed or self.expired else "nothing failed"

    def _task_cancelled(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        if attempt != step.attempt:
            return f"the last attempt is {step.attempt}"
        problem = None
        if step.open:
            if step.open in WORK and not step.held and (step.started or event.get("ended") == "abandoned"):
                self._perhaps(self._key(name, step))
            problem = self._close(name, step, attempt, {*WORK, "recovery"})
        self._settle(step, "cancelled")
        return problem or (None if self.cancel_requested or self.failed or self.expired else "nobody cancelled it")

    # Recovery --------------------------------------------------------------------------------------------------------------

    def _recovery_initiated(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        return self._open(step, attempt, "recovery") if step.owed is not None else "not promised"

    def _recovery_started(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        return self._begin(step, attempt, {"recovery"})

    def _recovery_completed(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        problem = self._close(name, step, attempt, {"recovery"})
        then = event["then"]
        if then == "fail":
            self._settle(step, "failed")
        elif then == "restore":
            self.owed_restore = True
        else:
            step.owed = {"retry": "task_scheduled", "skip": "task_skipped", "fallback": "task_fallback_started"}[then]
        return problem

    # Undoing ---------------------------------------------------------------------------------------------------------------

    def _to_undo(self) -> str | None:
        back = self.rollback
        return back.order[back.at].removesuffix("~") if back is not None and back.at < len(back.order) else None

    def _compensation_scheduled(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        if self.paused:
            return "while it is paused"
        if step.undoing and attempt != step.due:
            return "no retry is due"
        step.undoing, step.due = True, 0
        return self._open(step, attempt, "compensation")

    def _compensation_started(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        return self._begin(step, attempt, {"compensation"})

    def _compensation_completed(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        assert self.rollback is not None
        problem = self._close(name, step, attempt, {"compensation"})
        key = self.rollback.order[self.rollback.at]
        if key not in self.standing:
            return "it was undone before"
        self.undone.add(self.standing.pop(key))
        self.uncertain.discard(key)
        self.undone_at[name] = self.version
        if name not in self.standing and f"{name}~" not in self.standing:
            self.images.discard(name)
        self.rollback.undone += 1
        self._next_undo(step)
        return problem

    def _compensation_failed(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        assert self.rollback is not None
        problem = self._close(name, step, attempt, {"compensation"})
        self.uncertain.add(self.rollback.order[self.rollback.at])
        if event.get("will_retry"):
            step.owed = "compensation_retry_scheduled"
        else:
            self.rollback.failed.append(name)
            self._next_undo(step)
        return problem

    def _compensation_skipped(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        problem = "its undoing was begun" if step.undoing else None
        self._next_undo(step)
        return problem

    def _next_undo(self, step: StepTale) -> None:
        assert self.rollback is not None
        self.rollback.at += 1
        step.undoing = False
