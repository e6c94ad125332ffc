"""What may follow what in one history, told a second time: a small model of executions that imports nothing of esexec."""

from dataclasses import dataclass, field
from typing import Any

OUTCOMES = frozenset({"task_completed", "task_failed", "task_timed_out", "task_cancelled"})
ENDS = frozenset({"execution_completed", "execution_failed", "execution_cancelled"})
SHARED = frozenset({"key_bound", "namespace_configured", "tasks_announced"})


@dataclass
class StepTale:
    """A step so far. `settled`: how it ended. `retry`: the attempt that is waited for. `owed`: a retry that must be scheduled."""

    needs: frozenset[str]
    attempt: int = 0
    run: int = 1
    open: bool = False
    started: bool = False
    retry: int = 0
    owed: int = 0
    settled: str | None = None
    output: Any = None
    outcomes: set[tuple[int, int]] = field(default_factory=set)


class Tale:
    """A history, event by event: `tell` says what is wrong with the next one, or None."""

    def __init__(self, entity: str) -> None:
        self.entity = entity
        self.steps: dict[str, StepTale] = {}
        self.created = False
        self.began = False
        self.cancel_requested = False
        self.failed = False
        self.end: str | None = None
        self.idempotency_key: str | None = None
        self.bound: tuple[str, str] | None = None

    @property
    def position(self) -> str:
        """Where it stands, in few words."""
        open_ = [f"{name}#{step.attempt}" for name, step in self.steps.items() if step.open]
        waiting = [f"{name}#{step.retry}" for name, step in self.steps.items() if step.retry]
        settled = sum(step.settled is not None for step in self.steps.values())
        told = f"{settled} of {len(self.steps)} steps settled, open {open_}, waiting for retries {waiting}"
        return told + (", cancel requested" if self.cancel_requested else "") + (", failed" if self.failed else "")

    def tell(self, event: dict[str, Any]) -> str | None:
        """The next event."""
        kind = event["type"]
        if self.entity.startswith("_"):
            return self._shared(kind, event)
        if self.end is not None:
            return f"{kind} after {self.end}"
        if kind == "execution_created":
            return self._create(event)
        if not self.created:
            return f"{kind} before execution_created"
        if kind.startswith("task_"):
            return self._task(kind, event)
        return self._execution(kind)

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
        return None

    def _execution(self, kind: str) -> str | None:
        if kind == "execution_started":
            began, self.began = self.began, True
            return "started twice" if began else None
        if kind == "execution_cancel_requested":
            asked, self.cancel_requested = self.cancel_requested, True
            return "cancel requested twice" if asked else None
        if kind not in ENDS:
            return f"an event of a type that is not known: {kind}"
        self.end = kind.removeprefix("execution_")
        left = [name for name, step in self.steps.items() if step.settled is None]
        if left:
            return f"{kind} while {left} have not ended"
        wanted = "cancelled" if self.cancel_requested else "failed" if self.failed else "completed"
        return None if self.end == wanted else f"{kind}, and should be {wanted}"

    def _task(self, kind: str, event: dict[str, Any]) -> str | None:
        step = self.steps.get(event["step"])
        attempt, run = event.get("attempt", 1), event.get("run", 1)
        where = f"{kind} of {event['step']} ({run}-{attempt})"
        if step is None:
            return f"{where}: there is no such step"
        if step.settled is not None:
            return f"{where}: the step has {step.settled}"
        if step.owed and kind != "task_retry_scheduled":
            return f"{where}: a retry was promised"
        problem = getattr(self, f"_{kind}")(step, attempt, event)
        if kind in OUTCOMES and problem is None:
            problem = self._outcome(step, run, attempt, kind)
        return f"{where}: {problem}" if problem else None

    def _outcome(self, step: StepTale, run: int, attempt: int, kind: str) -> str | None:
        """At most one outcome for each attempt. A step that is cancelled between two attempts ends without one."""
        if kind == "task_cancelled" and not step.open:
            return None
        step.open = False
        if (run, attempt) in step.outcomes:
            return "a second outcome"
        step.outcomes.add((run, attempt))
        return None

    def _task_scheduled(self, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        problem = None
        if step.open or attempt != step.attempt + 1 or (attempt > 1 and attempt != step.retry):
            problem = f"out of turn, after attempt {step.attempt} (open: {step.open}, retry: {step.retry})"
        elif self.cancel_requested:
            problem = "after the cancel request"
        elif left := [need for need in step.needs if self.steps[need].settled != "completed"]:
            problem = f"{left} have not completed"
        step.attempt, step.open, step.started, step.retry = attempt, True, False, 0
        return problem

    def _task_started(self, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        legal = step.open and attempt == step.attempt and not step.started
        step.started = True
        return None if legal else "not open, or started before"

    def _task_completed(self, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        if not step.open or attempt != step.attempt:
            return "not open"
        step.settled, step.output = "completed", event.get("output")
        return None if step.started else "never started"

    def _task_failed(self, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        if not step.open or attempt != step.attempt:
            return "not open"
        if event.get("will_retry"):
            step.owed = attempt + 1
        else:
            step.settled = "failed"
            self.failed = True
        return None

    _task_timed_out = _task_failed

    def _task_retry_scheduled(self, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        if step.open or attempt != step.owed:
            return f"promised was {step.owed}"
        step.owed, step.retry = 0, attempt
        return None

    def _task_skipped(self, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        if step.attempt:
            return f"it has had attempt {step.attempt}"
        step.settled = "skipped"
        return None if self.failed else "although nothing failed"

    def _task_cancelled(self, step: StepTale, attempt: int, event: dict[str, Any]) -> str | None:
        if attempt != step.attempt:
            return f"the last attempt is {step.attempt}"
        step.settled, step.retry = "cancelled", 0
        return None if self.cancel_requested or self.failed else "nobody cancelled it"
