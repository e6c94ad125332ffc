"""What the terminal shows while the example runs: the steps and what each is doing, or one line per event without a TTY.

Fed with events only: whoever has the history can show the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from esexec.domain import events as e
from esexec.plans import Plan

NARROW: Final = 84
"""Below this many columns the steps' descriptions are left out."""

_LOOKS: Final = {
    "waiting": ("·", "bright_black"),
    "queued": ("○", "cyan"),
    "running": ("◉", "cyan"),
    "retrying": ("↻", "yellow"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("–", "bright_black"),
    "cancelled": ("–", "yellow"),
}


@dataclass
class StepLine:
    """One step as it stands."""

    id: str
    description: str
    state: str = "waiting"
    attempt: int = 0
    trouble: str = ""
    due: datetime | None = None
    began: datetime | None = None
    ended: datetime | None = None

    def apply(self, event: e.Event) -> None:
        match event:
            case e.TaskScheduled():
                self.state, self.attempt, self.due = "queued", event.attempt, None
            case e.TaskStarted():
                self.state, self.began = "running", self.began or event.started_at
            case e.TaskCompleted():
                self.state, self.ended = "completed", event.ended_at
            case e.TaskFailed() | e.TaskTimedOut():
                self.state = "retrying" if event.will_retry else "failed"
                self.trouble, self.ended = event.error.code, event.ended_at
            case e.TaskRetryScheduled():
                self.due = event.due
            case e.TaskSkipped():
                self.state = "skipped"
            case e.TaskCancelled():
                self.state = "cancelled"

    def words(self, now: datetime) -> str:
        """What it is doing, or how long it took."""
        if self.state == "retrying" and self.due is not None:
            return f"{self.trouble}, again in {_seconds(now, self.due):.1f} s"
        if self.began is None or self.state not in ("running", "completed"):
            return self.trouble if self.state == "failed" else self.state
        tries = f", attempt {self.attempt}" if self.attempt > 1 else ""
        if self.state == "completed" and self.ended is not None:
            return f"{_seconds(self.began, self.ended):.2f} s{tries}"
        return f"running for {_seconds(self.began, now):.1f} s{tries}"


class Progress:
    """All steps of a plan. `apply` every event in order; rich asks for the picture whenever it draws."""

    def __init__(self, plan: Plan) -> None:
        self._lines = {step.id: StepLine(step.id, step.description) for step in plan.spec.steps}

    def apply(self, event: e.Event) -> None:
        step = getattr(event, "step", None)
        if step is not None:
            self._lines[step].apply(event)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        now = datetime.now(UTC)
        wide = options.max_width >= NARROW
        table = Table.grid(padding=(0, 2, 0, 0))
        for line in self._lines.values():
            sign, style = _LOOKS[line.state]
            cells = [Text(sign, style), Text(line.id, "bold" if line.state in ("running", "retrying") else "")]
            if wide:
                cells.append(Text(line.description, "bright_black" if line.state == "waiting" else ""))
            table.add_row(*cells, Text(line.words(now), "bright_black" if line.state == "completed" else style))
        done = sum(line.state == "completed" for line in self._lines.values())
        bar = Table.grid(padding=(0, 2, 0, 0))
        width = max(4, min(40, options.max_width - 20))
        drawn = ProgressBar(len(self._lines), done, width=width, complete_style="green", finished_style="green")
        bar.add_row(drawn, f"{done} of {len(self._lines)} steps")
        yield from ("", table, "", bar)


def describe(event: e.Event) -> str | None:
    """An event in words, for the timeline; None for those that only matter to the engine."""
    match event:
        case e.ExecutionCreated():
            return f"execution created: plan {event.name}"
        case e.ExecutionStarted():
            return "execution started"
        case e.ExecutionCompleted():
            return "execution completed"
        case e.ExecutionFailed():
            return f"execution failed: {event.error}"
        case e.ExecutionCancelled():
            return "execution cancelled"
        case e.TaskStarted():
            return f"{event.step} started{_which(event.attempt)}"
        case e.TaskCompleted():
            return f"{event.step} completed"
        case e.TaskFailed() | e.TaskTimedOut():
            return f"{event.step} failed{_which(event.attempt)}: {event.error}"
        case e.TaskRetryScheduled():
            return f"{event.step} is tried again in {event.delay_ms / 1000:.1f} s"
        case e.TaskSkipped():
            return f"{event.step} skipped: {event.because or event.reason}"
        case _:
            return None


def _which(attempt: int) -> str:
    return f" (attempt {attempt})" if attempt > 1 else ""


def _seconds(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds())
