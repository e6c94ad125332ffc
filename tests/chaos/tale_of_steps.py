"""The steps of a history: what may follow what in their lives, and what stands of what they did. The half of `tale`.

Of each step it knows its present life (a run that does not keep it begins a new one), and of the execution what stands: the
deeds that nobody has undone, in the order in which they were done. `name~` is what the step's fallback did in its stead.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

UNKNOWN_OUTCOME = frozenset({"WORKER_LOST", "PROCESS_CRASHED"})
WORK = frozenset({"task", "fallback"})
WAITING = frozenset({"task_held", "task_overdue"})
OF_GRANTS = frozenset({"task_granted", "resource_allocated", "task_rate_limited", "task_waiting"})
"""What becomes of an attempt, of whatever purpose, that waits for a worker."""


class Deed(NamedTuple):
    """What is undone at most once: an effect, `name` or `name~`, as far as it was brought about in a run."""

    effect: str
    run: int

    @property
    def step(self) -> str:
        return self.effect.removesuffix("~")


class Completion(NamedTuple):
    """An outcome that was accepted as the output of a step."""

    step: str
    run: int
    attempt: int
    output: Any


@dataclass
class StepTale:
    """A life of a step. `open`: what the open attempt is for. `due`: the attempt that a timer will begin. `owed`: the event that
    must come next. `settled`: how it ended, `settled_at` which version. `held`: nobody has the open attempt, and nobody gets it.
    `opened`: the commit that handed it out. `deed`: what it did itself and completed by. `before_retries`: of the strategy that
    is asked; `behind`: another one is to be, because that did not help."""

    needs: frozenset[str]
    attempt: int = 0
    open: str | None = None
    started: bool = False
    overdue: bool = False
    held: bool = False
    opened: int = 0
    before_retries: bool = False
    deed: Deed | None = None
    fallback: bool = False
    undoing: bool = False
    due: int = 0
    owed: str | None = None
    settled: str | None = None
    settled_at: int = 0
    let_go: bool = False
    behind: bool = False

    @property
    def done(self) -> bool:
        """Whether what depends on it may go on."""
        return self.settled == "completed" or self.let_go


@dataclass
class Rollback:
    """`order`: what stood when it began, the last first."""

    order: list[Deed]
    at: int = 0
    undone: int = 0
    failed: list[str] = field(default_factory=list)


class TaleOfSteps:
    """Each `_<type of event>` says what is wrong with the next event of a step, or None."""

    def __init__(self, entity: str) -> None:
        self.entity = entity
        self.version = 0
        self.commit = 1
        self.run = 1
        self.steps: dict[str, StepTale] = {}
        self.created = self.began = False
        self.asked_for_slot = 0
        self.known_of_attempts: set[tuple[str, str, int, int, str]] = set()
        self.paused = self.cancel_requested = self.expired = self.failed = False
        self.end: str | None = None
        self.rollback: Rollback | None = None
        self.owed_restore = False
        self.checkpoints: dict[str, dict[str, StepTale]] = {}
        self.images: set[str] = set()
        self.undone: set[int] = set()
        """The versions of what was undone."""
        self.undone_at: dict[str, int] = {}
        self.standing: dict[Deed, int] = {}
        """What stands, by the version that did it."""
        self.perhaps: set[Deed] = set()
        """Of what stands: no attempt that did it ever completed."""
        self.uncertain: set[Deed] = set()
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
        if kind == "resource_released":
            allocated = ("resource_allocated", event["step"], run, attempt, "") in self.known_of_attempts
            again = self._again(kind, event["step"], attempt, str(run))
            return None if allocated and not again else f"{where}: nothing is allocated"
        if run != self.run:
            return f"{where}: this is run {self.run}"
        if step.owed is not None and kind != step.owed:
            return f"{where}: {step.owed} was promised"
        if kind in OF_GRANTS:
            waits = step.open and attempt == step.attempt and not step.started
            again = kind != "task_rate_limited" and self._again(kind, event["step"], attempt, event.get("by", ""))
            return f"{where}: it waits for nothing" if again or not waits else None
        if not kind.startswith("compensation_") and kind not in WAITING and step.settled is not None:
            return f"{where}: the step has {step.settled}"
        if kind.startswith("compensation_") and (self.rollback is None or self._to_undo() != event["step"]):
            return f"{where}: to be undone next is {self._to_undo()}"
        tell = getattr(self, f"_{kind}", None)
        problem = tell(event["step"], step, attempt, event) if tell is not None else "a type that is not known"
        return f"{where}: {problem}" if problem else None

    def _again(self, kind: str, name: str, attempt: int, what: str) -> bool:
        """Whether this was told of the attempt before."""
        said = (kind, name, self.run, attempt, what)
        before, self.known_of_attempts = said in self.known_of_attempts, self.known_of_attempts | {said}
        return before

    def _deed(self, name: str, step: StepTale) -> Deed:
        return Deed(f"{name}~" if step.fallback else name, self.run)

    def _perhaps(self, deed: Deed) -> None:
        self.loose.add(deed.effect)
        if deed not in self.standing:
            self.standing[deed] = self.version
            self.uncertain.add(deed)
            self.perhaps.add(deed)

    def _stands(self, deed: Deed, since: int) -> None:
        """What completed takes the place of what completed before, and of what its own run perhaps did."""
        for other in [one for one in self.standing if one.effect == deed.effect]:
            if other.run == deed.run or other not in self.perhaps:
                del self.standing[other]
                self.uncertain.discard(other)
        self.perhaps.discard(deed)
        self.standing[deed] = since

    def last_of(self, effect: str) -> Deed | None:
        """The last deed that stands of an effect."""
        return next((deed for deed in reversed(self.standing) if deed.effect == effect), None)

    def _depends(self, name: str, other: str) -> bool:
        needs = self.steps[name].needs
        return other in needs or any(self._depends(need, other) for need in needs)

    def _order_of_undoing(self) -> list[Deed]:
        """The last first; once there were several runs, the last of what nothing depends on that still stands."""
        left, order = [*self.standing], list[Deed]()
        while left:
            free = [one for one in left if self.run == 1 or not any(self._depends(other.step, one.step) for other in left)]
            order.append(free[-1])
            left.remove(free[-1])
        return order

    def _hold_what_is_new(self) -> None:
        """What this commit has scheduled, or freed from a pause, was not handed out."""
        for step in self.steps.values():
            step.held = step.held or bool(step.open and step.opened == self.commit and not step.started)

    def _settle(self, step: StepTale, how: str) -> None:
        step.settled, step.settled_at, step.due = how, self.version, 0
        self.failed = self.failed or how == "failed"

    def _open(self, step: StepTale, attempt: int, purpose: str) -> str | None:
        out_of_turn = bool(step.open) or attempt != step.attempt + 1
        step.attempt, step.open, step.started, step.overdue, step.owed = attempt, purpose, False, False, None
        step.held, step.opened = self.paused, self.commit
        return "out of turn" if out_of_turn else "after the cancel request" if self.cancel_requested else None

    def _begin(self, step: StepTale, attempt: int, purposes: Iterable[str]) -> str | None:
        legal = step.open in purposes and attempt == step.attempt and not step.started
        step.started, step.held, step.overdue = True, False, False
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

    def _task_cache_hit(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        if self._again("task_cache_hit", name, attempt, ""):
            return "found twice"
        begun = step.started and step.open in WORK and attempt == step.attempt  # by a worker that was lost
        return None if begun else self._begin(step, attempt, WORK)

    def _before_image_recorded(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        known = name in self.images
        self.images.add(name)
        return "it has an image" if known else None if step.open in WORK and attempt == step.attempt else "not open"

    def _task_completed(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        problem = self._close(name, step, attempt, WORK)
        step.deed = self._deed(name, step)
        self._stands(step.deed, self.version)
        self.completions.append(Completion(name, self.run, attempt, event.get("output")))
        self._settle(step, "completed")
        return problem or (None if step.started else "never started")

    def _task_failed(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        problem = self._close(name, step, attempt, WORK)
        code = event["error"]["code"]
        if code in UNKNOWN_OUTCOME or (event["type"] == "task_timed_out" and code != "queue_timeout"):
            self._perhaps(self._deed(name, step))
        if code == "queue_timeout" and (not step.overdue or step.started):
            return "it was not overdue, or somebody had begun it"
        if event.get("will_retry"):
            step.owed = "task_retry_scheduled"
        elif event.get("instead"):
            step.owed = {"recovery": "recovery_initiated", "fallback": "task_fallback_started"}[event["instead"]]
        else:
            self._settle(step, "failed")
        return problem

    _task_timed_out = _task_rejected = _task_failed

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
        if step.attempt:
            return f"it has had attempt {step.attempt}"
        return None if event["reason"] == "condition" or self.failed or self.expired else "nothing failed"

    def _task_cancelled(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        if attempt != step.attempt:
            return f"the last attempt is {step.attempt}"
        problem = None
        if step.open:
            if step.open in WORK and not step.held and (step.started or event.get("ended") == "abandoned"):
                self._perhaps(self._deed(name, step))
            problem = self._close(name, step, attempt, {*WORK, "recovery"})
        self._settle(step, "cancelled")
        return problem or (None if self.cancel_requested or self.failed or self.expired else "nobody cancelled it")

    # Recovery --------------------------------------------------------------------------------------------------------------

    def _recovery_initiated(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        promised, behind = step.owed is not None, step.behind
        step.before_retries, step.behind = event.get("before_retries", False), False
        if behind and step.before_retries:
            return "one strategy before the retries upon the other"
        return self._open(step, attempt, "recovery") if promised else "not promised"

    def _recovery_started(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        return self._begin(step, attempt, {"recovery"})

    def _recovery_completed(self, name: str, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        problem = self._close(name, step, attempt, {"recovery"})
        then, helped = event["then"], event["success"]
        if then == "fail":
            self._settle(step, "failed")
        elif then == "restore":
            self.owed_restore = True
        else:
            step.owed = {
                "retry": "task_scheduled" if helped else "task_retry_scheduled",
                "recovery": "recovery_initiated",
                "skip": "task_skipped",
                "fallback": "task_fallback_started",
            }[then]
        step.behind = then == "recovery"
        behind = {"retry", "recovery", "fallback", "fail"} if step.before_retries else {"fallback", "fail"}
        wrong = then == "recovery" if helped else then not in behind
        return problem or (f"{then} does not follow from that advice" if wrong else None)

    # Undoing ---------------------------------------------------------------------------------------------------------------

    def _to_undo(self) -> str | None:
        back = self.rollback
        return back.order[back.at].step if back is not None and back.at < len(back.order) else None

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
        deed = self.rollback.order[self.rollback.at]
        if deed not in self.standing:
            return "it was undone before"
        self.undone.add(self.standing.pop(deed))
        self.uncertain.discard(deed)
        self.perhaps.discard(deed)
        self.uncertain |= {other for other in self.standing if other.effect == deed.effect}  # it has only one place in the world
        self.undone_at[name] = self.version
        if name not in {other.step for other in self.standing}:
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
