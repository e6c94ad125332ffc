"""`Then`: what became of an execution, and assertions about it that say what was there instead.

They raise AssertionError themselves: pytest would add words of its own to an `assert`.
"""

import difflib
import pprint
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import msgspec

from esexec.client.large import fill
from esexec.domain.commit import Commit
from esexec.domain.durations import milliseconds
from esexec.domain.events import TYPES, Event, TaskRetryScheduled, type_of
from esexec.results import ExecutionResult, ExecutionStatus, TaskResult, result_of
from esexec.tasks import Task
from esexec.tasks.foreign import enc_hook
from esexec.tasks.options import Duration

if TYPE_CHECKING:
    from esexec.testing.engine import VirtualEngine


class _Any:
    def __repr__(self) -> str:
        return "anything"


ANY: Any = _Any()


class Then:
    """One execution of a virtual engine, as it is now. Each assertion gives the object again, so that they can be put in a
    row, and raises AssertionError with what is different and all that happened."""

    def __init__(self, engine: "VirtualEngine", execution_id: str) -> None:
        self._engine = engine
        self.id = execution_id

    # What is there -----------------------------------------------------------------------------------------------------------

    @property
    def result(self) -> ExecutionResult:
        """As `client.get` gives it."""
        state = self._engine._log.states[self.id]
        result = result_of(state)
        return self._engine.run(fill(self._engine._log.objects, result)) if state.has_objects else result

    @property
    def history(self) -> list[Commit]:
        """As `client.history` gives it."""
        return self._engine._log.commits(self.id)

    @property
    def happened(self) -> list[str]:
        """Its events in order, each as `type`, `type step` or `type step attempt`."""
        return [" ".join(_words(event)) for commit in self.history for event in commit.events]

    @property
    def took(self) -> timedelta:
        """From its first start to its last end, or until now."""
        result = self.result
        begun = result.started_at or self._engine.now
        return (result.completed_at or self._engine.now) - begun

    def step(self, step: str) -> TaskResult:
        """What became of a step. AssertionError if there is none of that id."""
        __tracebackhide__ = True
        found = {one.task_id: one for one in self.result.results}
        if step not in found:
            raise AssertionError(f"there is no step {step!r}; there are: {', '.join(found)}")
        return found[step]

    # How it ended --------------------------------------------------------------------------------------------------------------

    def completed(self, output: Any = ANY) -> Self:
        """It has completed, with this output."""
        __tracebackhide__ = True
        self._is(ExecutionStatus.COMPLETED)
        return self if output is ANY else self._same("the output", output, self.result.result)

    def failed(self, code: str | None = None, *, step: str | None = None) -> Self:
        """It has failed and was not rolled back: with an error of this code, of this step."""
        __tracebackhide__ = True
        return self._is(ExecutionStatus.FAILED)._error(code, step)

    def rolled_back(self, *steps: str, code: str | None = None) -> Self:
        """All that it did is undone: of these steps, in the order in which that was done. `code`: of the error before it."""
        __tracebackhide__ = True
        self._is(ExecutionStatus.ROLLED_BACK)._error(code, None)
        return self.undone(*steps) if steps else self

    def cancelled(self) -> Self:
        """It was cancelled."""
        __tracebackhide__ = True
        return self._is(ExecutionStatus.CANCELLED)

    def has_status(self, status: ExecutionStatus | str) -> Self:
        """It is `running`, `paused`, …"""
        __tracebackhide__ = True
        return self._is(ExecutionStatus(status))

    # What happened ---------------------------------------------------------------------------------------------------------

    def events(self, *events: str) -> Self:
        """Of the types that are named, exactly these events happened, in this order: `task_failed`, `task_failed charge`,
        `task_failed charge 2` (an attempt). `happened` has all of them."""
        __tracebackhide__ = True
        parts: dict[str, int] = {}
        for event in events:
            kind, *rest = event.split(" ")
            if kind not in TYPES:
                raise AssertionError(f"there is no type of event {kind!r}; see docs/reference/events.md")
            parts[kind] = max(parts.get(kind, 0), 1 + len(rest))
        words = [_words(event) for commit in self.history for event in commit.events]
        found = [" ".join(one[: parts[one[0]]]) for one in words if one[0] in parts]
        return self._same("the events", list(events), found)

    def attempts(self, *steps: str) -> Self:
        """Exactly these attempts were begun, in this order, each called as its step: `charge`, `fallback charge`, `undo charge`,
        `recover charge`."""
        __tracebackhide__ = True
        handed = self._engine._worker.handed
        found = [one.words for one in handed if one.execution_id == self.id and not one.again]
        return self._same("the attempts", list(steps), found)

    def undone(self, *steps: str) -> Self:
        """Exactly these steps were undone, in this order."""
        __tracebackhide__ = True
        found = [words[1] for words in map(str.split, self.happened) if words[0] == "compensation_completed"]
        return self._same("the steps that were undone", list(steps), found)

    def retried(self, step: str, *delays: Duration) -> Self:
        """The step was tried again after exactly these delays."""
        __tracebackhide__ = True
        events = (event for commit in self.history for event in commit.events)
        found = [one.delay_ms for one in events if isinstance(one, TaskRetryScheduled) and one.step == step]
        wanted = [milliseconds(one, name="delay") for one in delays]
        return self._same(f"the delays of {step} in milliseconds", wanted, found)

    def called(self, task: Task[..., Any] | str, *params: Any) -> Self:
        """The task was called exactly so often, with these params in this order; without any, never. An attempt whose worker
        was lost is called once more."""
        __tracebackhide__ = True
        name = task.name if isinstance(task, Task) else task
        found = [one.params for one in self._engine._worker.handed if one.execution_id == self.id and one.task == name]
        return self._same(f"the params of {name}", list(params), found)

    def outputs(self, **outputs: Any) -> Self:
        """These steps returned this."""
        __tracebackhide__ = True
        return self._same("the outputs", outputs, {step: self.step(step).output for step in outputs})

    # Saying so -------------------------------------------------------------------------------------------------------------

    def _is(self, status: ExecutionStatus) -> Self:
        __tracebackhide__ = True
        result = self.result
        error = f" of [{result.error.code}] {result.error.message}" if result.error is not None else ""
        if result.status is not status:
            raise AssertionError(f"it is {result.status.value}{error}, not {status.value}\n{self._tale}")
        return self

    def _error(self, code: str | None, step: str | None) -> Self:
        __tracebackhide__ = True
        error = self.result.error
        found = (error.code, error.task_id) if error is not None else (None, None)
        if code not in (None, found[0]):
            raise AssertionError(f"its error is {found[0]!r}, not {code!r}\n{self._tale}")
        if step not in (None, found[1]):
            raise AssertionError(f"its error is of step {found[1]!r}, not of {step!r}\n{self._tale}")
        return self

    def _same(self, what: str, wanted: Any, found: Any) -> Self:
        __tracebackhide__ = True
        wanted = _plain(wanted)
        if wanted != found:
            raise AssertionError(f"{what}, - as wanted, + as found:\n{_difference(wanted, found)}\n{self._tale}")
        return self

    @property
    def _tale(self) -> str:
        history = self.history
        lines = [f"what happened to {self.id}:"]
        for commit in history:
            after_s = (commit.time - history[0].time).total_seconds()
            lines += [f"  {after_s:>9.3f} s  {' '.join(_words(event))}{_why(event)}" for event in commit.events]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Then({self.id}: {self.result.status.value})"


def _words(event: Event) -> list[str]:
    step, attempt = getattr(event, "step", None), getattr(event, "attempt", 0)
    return [type_of(event), *([step] if step else []), *([str(attempt)] if attempt else [])]


def _why(event: Event) -> str:
    error = getattr(event, "error", None)
    return f": [{error.code}] {error.message}" if error is not None else ""


def _plain(value: Any) -> Any:
    """As it stands in the log: a tuple is a list there, a dataclass an object."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=enc_hook))


def _difference(wanted: Any, found: Any) -> str:
    lines = difflib.ndiff(_lines(wanted), _lines(found))
    return "\n".join(f"  {line}" for line in lines if line[0] != "?")


def _lines(value: Any) -> list[str]:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    return pprint.pformat(value, width=100).splitlines()
