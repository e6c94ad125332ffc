"""What may follow what in one history, told a second time: a small model of executions that imports nothing of esexec.

Of each step it knows its present life (a run that does not keep it begins a new one), and of the execution what stands: the
effects that nobody has undone, in the order in which they came to be. `name~` is what the step's fallback did in its stead.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ENDS = frozenset({"execution_completed", "execution_failed", "execution_cancelled", "execution_rolled_back"})
REVIVE = frozenset({"execution_retried", "checkpoint_restored", "rollback_started", "execution_forked"})
SHARED = frozenset(
    {
        "key_bound",
        "namespace_configured",
        "tasks_announced",
        "strategy_added",
        "strategy_removed",
        "plan_stored",
        "plan_listed",
    }
)
UNKNOWN_OUTCOME = frozenset({"WORKER_LOST"})
WORK = frozenset({"task", "fallback"})


class Completion(NamedTuple):
    """An outcome that was accepted as the output of a step."""

    step: str
    run: int
    attempt: int
    output: Any


@dataclass
class StepTale:
    """A life of a step. `open`: what the open attempt is for. `due`: the attempt that a timer will begin. `owed`: the event that
    must come next. `settled`: how it ended, `settled_at` which version."""

    needs: frozenset[str]
    attempt: int = 0
    open: str | None = None
    started: bool = False
    overdue: bool = False
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


class Tale:
    """A history, event by event: `tell` says what is wrong with the next one, or None."""

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
        self.undone_at: dict[str, int] = {}
        self.standing: dict[str, None] = {}
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

    @property
    def position(self) -> str:
        """Where it stands, in few words."""
        shown = {name: step for name, step in self.steps.items() if step.open or step.due or step.owed}
        told = [f"{name}#{step.attempt} {step.open or ''} due {step.due} owed {step.owed}" for name, step in shown.items()]
        settled = sum(step.settled is not None for step in self.steps.values())
        flags = [name for name in ("paused", "cancel_requested", "expired", "failed", "rollback") if getattr(self, name)]
        return f"run {self.run}: {settled} of {len(self.steps)} steps settled, {told} {flags}"

    def caused_by(self, commands: Iterable[str]) -> str | None:
        """A commit was decided upon these."""
        for command in commands:
            self.commands[command] += 1
            if self.commands[command] > 1 and "/" not in command:
                return f"the command {command} was carried out twice"
        return None

    def tell(self, event: dict[str, Any]) -> str | None:
        """The next event."""
        self.version += 1
        kind = event["type"]
        self.told[kind] += 1
        if self.entity.startswith("_"):
            return self._shared(kind, event)
        if self.end is not None and kind not in REVIVE:
            return f"{kind} after {self.end}"
        if kind == "execution_created":
            return self._create(event)
        if not self.created:
            return f"{kind} before execution_created"
        if self.owed_restore and kind != "checkpoint_restored":
            return f"{kind} where a restore was promised"
        if "step" in event and kind != "execution_retried":
            return self._of_step(kind, event)
        tell = getattr(self, f"_{kind}", None)
        return tell(event) if tell is not None else f"an event of a type that is not known: {kind}"

    def _shared(self, kind: str, event: dict[str, Any]) -> str | None:
        if kind == "key_bound":
            if self.bound is not None:
                return "a key was bound twice"
            self.bound = (event["key"], event["execution_id"])
        return None if kind in SHARED else f"{kind} in the history of {self.entity}"

    def _create(self, event: dict[str, Any]) -> str | None:
        if self.created:
            return "created twice"
        self.created = True
        self.idempotency_key = event.get("idempotency_key")
        ids = [step["id"] for step in event["plan"]["steps"]]
        for step in event["plan"]["steps"]:
            needs = (ids[need] if isinstance(need, int) else need for need in step.get("depends_on", ()))
            self.steps[step["id"]] = StepTale(frozenset(needs))
        for name in event.get("kept", {}):
            self._settle(self.steps[name], "completed")
        return None

    # The execution -------------------------------------------------------------------------------------------------------

    def _execution_started(self, event: dict[str, Any]) -> str | None:
        began, self.began = self.began, True
        return "started twice" if began else "started while it is paused" if self.paused else None

    def _execution_deadline_set(self, event: dict[str, Any]) -> str | None:
        return None if self.began else "a deadline before the start"

    def _execution_deadline_exceeded(self, event: dict[str, Any]) -> str | None:
        if self.cancel_requested or self.expired or self.rollback is not None:
            return "a deadline passed that did not count any more"
        self.expired = True
        return None

    def _execution_paused(self, event: dict[str, Any]) -> str | None:
        was, self.paused = self.paused, True
        return "paused twice" if was else "paused while it is cancelled" if self.cancel_requested else None

    def _execution_resumed(self, event: dict[str, Any]) -> str | None:
        was, self.paused = self.paused, False
        return None if was else "resumed without a pause"

    def _execution_cancel_requested(self, event: dict[str, Any]) -> str | None:
        asked, self.cancel_requested, self.paused = self.cancel_requested, True, False
        return "cancel requested twice" if asked else None

    def _execution_forked(self, event: dict[str, Any]) -> str | None:
        return None if self.end not in (None, "completed") else f"forked while it is {self.end}"

    def _execution_completed(self, event: dict[str, Any]) -> str | None:
        wrong = self.failed or self.cancel_requested or self.expired or self.rollback is not None
        return self._ended("completed", wrong)

    def _execution_failed(self, event: dict[str, Any]) -> str | None:
        wrong = self.cancel_requested or not (self.failed or self.expired or self.rollback is not None)
        partial = event.get("rollback_status") == "partial"
        return self._ended("failed", wrong or partial != (self.rollback is not None))

    def _execution_cancelled(self, event: dict[str, Any]) -> str | None:
        partial = event.get("rollback_status") == "partial"
        return self._ended("cancelled", not self.cancel_requested or partial != (self.rollback is not None))

    def _execution_rolled_back(self, event: dict[str, Any]) -> str | None:
        back = self.rollback
        wrong = back is None or bool(back.failed) or not back.undone or back.undone != event["undone"]
        return self._ended("rolled_back", wrong or self.cancel_requested)

    def _ended(self, end: str, wrong: bool) -> str | None:
        self.end, self.paused = end, False
        left = [name for name, step in self.steps.items() if step.settled is None or step.open or step.owed]
        if left:
            return f"{end} while {left} have not ended"
        if self.rollback is not None and not self.cancel_requested and self.rollback.at < len(self.rollback.order):
            return f"{end} while {self.rollback.order[self.rollback.at :]} are to be undone"
        return f"{end}, which it should not: {self.position}" if wrong else None

    # Runs ----------------------------------------------------------------------------------------------------------------

    def _execution_retried(self, event: dict[str, Any]) -> str | None:
        if self.end in (None, "completed"):
            return f"retried while it is {self.end}"
        keep = {} if self.end == "rolled_back" else {name: step for name, step in self.steps.items() if self._is_kept(name, step)}
        only = event.get("step")
        if only is not None and self.end != "rolled_back":
            out = [name for name, step in self.steps.items() if step.settled == "failed" and name != only]
            while out:
                name = out.pop()
                if name not in keep and name != only:
                    keep[name] = self.steps[name]
                    out += [other for other, step in self.steps.items() if name in step.needs]
        return self._begin_run(event["run"], keep)

    def _checkpoint_created(self, event: dict[str, Any]) -> str | None:
        if self.cancel_requested or self.rollback is not None:
            return "a checkpoint of an execution that is cancelled or rolled back"
        self.checkpoints[event["checkpoint_id"]] = {name: step for name, step in self.steps.items() if step.done}
        return None if event["checkpoint_id"] == f"{self.entity}.{self.version}" else "a checkpoint with the wrong id"

    def _checkpoint_failed(self, event: dict[str, Any]) -> str | None:
        return None

    def _checkpoint_restored(self, event: dict[str, Any]) -> str | None:
        if self.end is None and (self.cancel_requested or self.rollback is not None):
            return "restored while it is cancelled or rolled back"
        kept = self.checkpoints.get(event["checkpoint_id"])
        if kept is None:
            return f"there is no checkpoint {event['checkpoint_id']}"
        if (event.get("by") == "recovery") != self.owed_restore:
            return "restored by a strategy that did not ask for it, or not by the one that did"
        open_ = {f"{name}/{step.attempt}" for name, step in self.steps.items() if step.open}
        for abandoned in event.get("abandoned", ()):
            name = abandoned.rpartition("/")[0]
            if name in self.steps and self.steps[name].open in WORK:
                self._perhaps(self._key(name, self.steps[name]))
        self.owed_restore = False
        problem = self._begin_run(event["run"], {name: step for name, step in kept.items() if self._is_kept(name, step)})
        return problem or (None if open_ == set(event.get("abandoned", ())) else f"open were {open_}")

    def _is_kept(self, name: str, step: StepTale) -> bool:
        return step.done and self.undone_at.get(name, 0) < step.settled_at

    def _begin_run(self, run: int, keep: dict[str, StepTale]) -> str | None:
        before, self.run = self.run, run
        self.steps = {name: keep.get(name) or StepTale(step.needs) for name, step in self.steps.items()}
        for step in keep.values():
            step.undoing = False
        self.began, self.end, self.rollback = True, None, None
        self.cancel_requested = self.expired = False
        self.failed = any(step.settled == "failed" for step in self.steps.values())
        return None if run == before + 1 else f"run {run} after run {before}"

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
        if not kind.startswith("compensation_") and step.settled is not None:
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
            self.standing[key] = None
            self.uncertain.add(key)

    def _settle(self, step: StepTale, how: str) -> None:
        step.settled, step.settled_at, step.due = how, self.version, 0
        self.failed = self.failed or how == "failed"

    def _open(self, step: StepTale, attempt: int, purpose: str) -> str | None:
        out_of_turn = bool(step.open) or attempt != step.attempt + 1
        step.attempt, step.open, step.started, step.overdue, step.owed = attempt, purpose, False, False, None
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
        self.standing[key] = None
        self.uncertain.discard(key)
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
        legal = step.open in WORK and attempt == step.attempt and not (step.started or step.overdue or self.paused)
        step.overdue = True
        return None if legal else "it does not wait"

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
            if step.open in WORK and (step.started or event.get("ended") == "abandoned"):
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

    def _rollback_started(self, event: dict[str, Any]) -> str | None:
        left = [name for name, step in self.steps.items() if step.settled is None or step.open]
        by_command = event.get("by") == "command"
        wrong = by_command != (self.end is not None) or bool(left) or not self.standing
        if not by_command:
            wrong = wrong or self.cancel_requested or self.rollback is not None or not (self.failed or self.expired)
        self.end, self.cancel_requested, self.expired = None, False, False
        self.rollback = Rollback([*reversed(self.standing)])
        for step in self.steps.values():
            step.undoing, step.due = False, 0
        return f"rolled back too early, or for nothing: {left}" if wrong else None

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
        del self.standing[key]
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
