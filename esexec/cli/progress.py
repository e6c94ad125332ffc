"""What the terminal shows while an execution runs: its steps and what each is doing; or a line per event in plain words.

Fed with events only: whoever has the history can show the same.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from esexec.cli.telling import Telling, progress_words
from esexec.cli.terminal import columns, is_live, show, text
from esexec.domain import events as e
from esexec.domain.evolve import begin, evolve
from esexec.domain.state import ExecutionState, StepState
from esexec.results import ExecutionUpdate, TaskProgress, progress_of
from projections.timeline import Teller, duration, not_undone

NARROW: Final = 84
"""Below this many columns the steps' descriptions are left out."""
_WORTH_TELLING_MS = 1_000
"""What takes less is over before it is read."""
_FRAME_LINES: Final = 6

LOOKS: Final = {
    "pending": ("·", "bright_black"),
    "queued": ("○", "cyan"),
    "running": ("◉", "cyan"),
    "retrying": ("↻", "yellow"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("–", "bright_black"),
    "cancelled": ("–", "yellow"),
    "rate_limited": ("↻", "yellow"),
    "recovering": ("↻", "magenta"),
    "undoing": ("↺", "yellow"),
    "undone": ("↺", "bright_black"),
    "not undone": ("✗", "red"),
    "kept": ("✓", "yellow"),
    "paused": ("‖", "yellow"),
    "rolled_back": ("↺", "yellow"),
}
"""Sign and style of a step, by what it is doing, and of an execution, by its status."""
_STARTS: Final = (e.TaskStarted, e.RecoveryStarted, e.CompensationStarted)
_SCHEDULED: Final = (e.TaskScheduled, e.CompensationScheduled)
_ATTEMPT_ENDS: Final = (
    e.TaskCompleted,
    e.TaskFailed,
    e.TaskTimedOut,
    e.TaskCancelled,
    e.RecoveryCompleted,
    e.CompensationCompleted,
    e.CompensationFailed,
)
_NEW_RUNS: Final = (e.ExecutionRetried, e.CheckpointRestored)
_ACTIVE: Final = ("running", "retrying", "queued", "recovering", "undoing")


async def follow(updates: AsyncIterator[ExecutionUpdate], console: Console, *, again: bool = False, debug: bool = False) -> None:
    """Show an execution until it has ended: a picture that is redrawn where that is possible, else a line for each event; and
    what its handlers tell (with `debug` also the lines of that level).

    `again`: it had ended or stood before; only lines for what follows the command that set it going again.
    """
    telling = Telling(debug=debug)
    if is_live(console):
        progress = Progress()
        with Live(progress, console=console, refresh_per_second=10, vertical_overflow="crop"):
            async for update in updates:
                show(console, *telling.messages(update))
                for event in update.events:
                    progress.apply(event)
                progress.told = update.task_progress
                progress.left(update)
        return
    teller, past, state = Teller(), again, ExecutionState("")
    async for update in updates:
        show(console, *telling.messages(update))
        skipped = _last_beginning(update.events) if past else 0
        past = False
        over = {(event.step, event.run, event.attempt) for event in update.events if isinstance(event, _ATTEMPT_ENDS)}
        for number, event in enumerate(update.events):
            take(state, event)
            if number < skipped:
                continue
            words = teller.describe(event)
            told_with_end = isinstance(event, _STARTS) and (event.step, event.run, event.attempt) in over
            if not isinstance(event, _SCHEDULED) and not told_with_end:
                left = _left(update.progress.estimated_time_remaining_ms) if number == len(update.events) - 1 else ""
                show(console, text(f"{progress_of(state).percentage:>3.0f} %  {words}{left}"))
        show(console, *telling.progress(update))


def take(state: ExecutionState, event: e.Event) -> None:
    """Evolve a state that is only shown. Its times are those of the looking: events do not have the log's."""
    begin(state, state.n + 1, datetime.now(UTC))
    evolve(state, event)


def _last_beginning(events: list[e.Event]) -> int:
    """Where in its past an execution was set going for the last time."""
    kinds = (*_NEW_RUNS, e.RollbackStarted)
    return max((number for number, event in enumerate(events) if isinstance(event, kinds)), default=0)


@dataclass
class StepLine:
    """One step as it stands."""

    id: str
    description: str
    state: str = "pending"
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
            case e.TaskCacheHit():
                self.state, self.began = "running", self.began or event.found_at
            case e.TaskCompleted():
                self.state, self.ended = "completed", event.ended_at
            case e.TaskFailed() | e.TaskTimedOut():
                self.state = "retrying" if event.will_retry else "recovering" if event.instead else "failed"
                self.trouble, self.ended = event.error.code, event.ended_at
            case e.TaskRetryScheduled() | e.CompensationRetryScheduled():
                self.due = event.due
            case e.TaskSkipped():
                because = event.because if event.reason != "condition" else None
                self.state, self.trouble = "skipped", f"{because} failed" if because else event.reason
            case e.TaskCancelled():
                self.state = "cancelled"
            case e.RecoveryInitiated():
                self.state = "recovering"
            case e.RecoveryCompleted():
                self.state = "failed" if event.then == "fail" else self.state
            case _:
                self._undo(event)

    def _undo(self, event: e.Event) -> None:
        match event:
            case e.CompensationScheduled():
                self.state, self.trouble, self.due = "undoing", event.task, None
            case e.CompensationFailed():
                self.state, self.trouble = "undoing" if event.will_retry else "not undone", event.error.code
            case e.CompensationCompleted():
                self.state = "undone"
            case e.CompensationSkipped():
                self.state, self.trouble = "kept", not_undone(event.reason)

    def give_up(self) -> None:
        """The execution was cancelled: an undoing that waited for its retry, or was held, is not tried any more."""
        if self.state == "undoing":
            self.state, self.trouble, self.due = "not undone", "the rollback was cancelled", None

    def begin_again(self, step: StepState) -> None:
        """A new run of the execution begins: with the step as it is kept, or as new."""
        self.state, self.attempt, self.trouble, self.due = step.status, step.attempt, "", None
        if step.error is not None:
            self.trouble = step.error.code
        self.began, self.ended = step.first_started_at, step.ended_at

    def words(self, now: datetime) -> str:
        """What it is doing, or how long it took."""
        tries = f", attempt {self.attempt}" if self.attempt > 1 else ""
        match self.state:
            case "retrying" | "undoing" if self.due is not None:
                return f"{self.trouble}, again in {max(0.0, (self.due - now).total_seconds()):.1f} s"
            case "undoing":
                return f"{self.trouble} undoes it"
            case "recovering" | "not undone" | "kept":
                return f"{self.state}: {self.trouble}"
            case "running" if self.began is not None:
                return f"running for {_since(self.began, now)}{tries}"
            case "completed" if self.began is not None and self.ended is not None:
                return f"{_since(self.began, self.ended)}{tries}"
            case "failed" | "skipped":
                return f"{self.state}: {self.trouble}"
        return f"{self.state}{tries}"


class Progress:
    """All steps of a plan. `apply` every event in order; rich asks for the picture whenever it draws."""

    def __init__(self) -> None:
        self._lines: dict[str, StepLine] = {}
        self._state = ExecutionState("")
        self.told: dict[str, TaskProgress] = {}
        """How far the steps that run say they are."""
        self._end: datetime | None = None
        """When it will probably have ended."""

    def left(self, update: ExecutionUpdate) -> None:
        """Take over how long it will probably take still."""
        remaining_ms = update.progress.estimated_time_remaining_ms
        self._end = None if remaining_ms is None else datetime.now(UTC) + timedelta(milliseconds=remaining_ms)

    def apply(self, event: e.Event) -> None:
        state = self._state
        take(state, event)
        if isinstance(event, e.ExecutionCreated):
            self._lines = {step.id: StepLine(step.id, step.description) for step in state.graph.steps}
        if isinstance(event, (e.ExecutionCreated, *_NEW_RUNS)):
            for spec, step in zip(state.graph.steps, state.steps, strict=True):
                self._lines[spec.id].begin_again(step)
        elif (step_id := getattr(event, "step", None)) is not None:
            self._lines[step_id].apply(event)
        elif isinstance(event, e.ExecutionCancelled):
            for line in self._lines.values():
                line.give_up()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        now = datetime.now(UTC)
        wide = options.max_width >= NARROW
        standstill = self._standstill()
        shown = self._that_fit((options.height or console.height) - _FRAME_LINES - bool(standstill))
        rows = []
        for line in shown:
            sign, style = LOOKS[line.state]
            cells = [text(sign, style), text(line.id, "bold" if line.state in ("running", "retrying") else "")]
            if wide:
                cells.append(text(line.description, "bright_black" if line.state == "pending" else ""))
            words = line.words(now)
            if line.state == "running" and (told := self.told.get(line.id)) is not None:
                words = f"{words}: {progress_words(told)}"
            rows.append((*cells, text(words, "bright_black" if line.state == "completed" else style)))
        yield ""
        yield columns(*rows, wrap_last=False)
        if hidden := len(self._lines) - len(shown):
            yield text(f"   and {hidden} more", "bright_black")
        yield ""
        yield self._bar(options.max_width)
        if standstill:
            yield text(standstill, "yellow")

    def _standstill(self) -> str:
        """Why nothing new begins, if nothing does."""
        state = self._state
        if state.paused:
            return "paused" + (f": {state.pause_reason}" if state.pause_reason else "")
        if state.exists and state.phase == "queued" and state.created.start_at is not None:
            return f"starts at {state.created.start_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        return {"rolling_back": "rolling back", "cancelling": "cancelling"}.get(state.phase, "")

    def _that_fit(self, lines_max: int) -> list[StepLine]:
        """All steps, in the plan's order, if they fit; else those that do something or failed, then the nearest to them."""
        lines = list(self._lines.values())
        room = max(3, lines_max)
        if len(lines) <= room:
            return lines
        active = [number for number, line in enumerate(lines) if line.state in _ACTIVE]
        front = active[0] if active else max((n for n, line in enumerate(lines) if line.state != "pending"), default=0)
        order = sorted(
            range(len(lines)), key=lambda n: (lines[n].state not in (*_ACTIVE, "failed", "not undone"), abs(n - front))
        )
        return [lines[number] for number in sorted(order[:room])]

    def _bar(self, width: int) -> Table:
        total = len(self._lines)
        done = sum(line.state not in ("pending", *_ACTIVE) for line in self._lines.values())
        style = "red" if any(line.state in ("failed", "not undone") for line in self._lines.values()) else "green"
        drawn = ProgressBar(max(1, total), done, width=max(4, min(40, width - 26)), complete_style=style, finished_style=style)
        table = Table.grid(padding=(0, 2, 0, 0))
        left = None if self._end is None else max(0.0, (self._end - datetime.now(UTC)).total_seconds() * 1000)
        table.add_row(drawn, text(f"{100 * done / max(1, total):.0f} %, {done} of {total} steps{_left(left)}"))
        return table


def _left(remaining_ms: float | None) -> str:
    """`, about 12.0 s left`; nothing where that is not known, or not worth telling."""
    return f", about {duration(remaining_ms)} left" if remaining_ms and remaining_ms >= _WORTH_TELLING_MS else ""


def _since(start: datetime, end: datetime) -> str:
    return duration((end - start).total_seconds() * 1000)
