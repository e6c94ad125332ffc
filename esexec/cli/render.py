"""An execution for people's eyes: what came of it, its steps, its timeline, and whether its history is intact."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from esexec.cli.progress import LOOKS
from esexec.cli.terminal import columns, text
from esexec.cli.text import counted
from esexec.client import Checkpoint
from esexec.domain import limits
from esexec.domain.errors import ErrorInfo
from esexec.domain.events import ExecutionCreated
from esexec.domain.rollback import Undo
from esexec.log.verify import Verification
from esexec.results import ExecutionResult, ExecutionStatus, TaskResult
from projections.difference import Change
from projections.timeline import TimelineEntry, duration, not_undone

_VALUE_LINES: Final = 40
_COMMANDS: Final = 5
_CELL_CHARS: Final = 300
_FRAME: Final = re.compile(r'^ *File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_DIM: Final = "bright_black"

_STARTS: Final = ("task_started", "recovery_started", "compensation_started")
_ATTEMPT_ENDS: Final = (
    "task_completed",
    "task_failed",
    "task_rejected",
    "task_timed_out",
    "task_cancelled",
    "recovery_completed",
    "compensation_completed",
    "compensation_failed",
)
_BAD: Final = (
    "task_failed",
    "task_rejected",
    "task_timed_out",
    "execution_failed",
    "compensation_failed",
    "execution_deadline_exceeded",
)
_ODD: Final = (
    "cancel",
    "retr",
    "paused",
    "recovery",
    "fallback",
    "restored",
    "rollback",
    "rolled_back",
    "compensation",
    "checkpoint_failed",
)
_UNDOING: Final = {
    "running": "is being undone",
    "completed": "undone",
    "failed": "not undone",
    "skipped": "nothing undoes it",
}
_NOT_BEGUN: Final = ("cancelled", "queue_timeout")
_ENDS: Final = {
    ExecutionStatus.COMPLETED: ("✓", "bold green"),
    ExecutionStatus.FAILED: ("✗", "bold red"),
    ExecutionStatus.CANCELLED: ("–", "bold yellow"),
    ExecutionStatus.ROLLED_BACK: ("↺", "bold yellow"),
    ExecutionStatus.PAUSED: ("‖", "bold yellow"),
}


_PHASES: Final = {
    "scheduled": "not due yet",
    "queued": "waits for its concurrency key",
    "failing": "failing",
    "cancelling": "cancelling",
    "recovering": "recovering",
    "rolling_back": "rolling back",
}


def outcome(result: ExecutionResult, *, stacks: bool = False) -> RenderableType:
    """How it stands or ended, and its output or error. `stacks`: with the handler's stack trace."""
    sign, style = _ENDS.get(result.status, ("◉", "bold cyan"))
    took = _took(result)
    steps = f", {result.completed_steps} of {result.total_steps} steps completed"
    retries = sum(task.retries for task in result.results)
    more = f", {counted(retries, 'retry', 'retries')}" if retries else ""
    undone = sum(task.compensation == "completed" for task in result.results)
    more += f", {undone} undone" if undone else ""
    words = str(result.status).replace("_", " ") + (f" ({_PHASES[phase]})" if (phase := result.current_phase) in _PHASES else "")
    parts: list[RenderableType] = [Text.assemble(text(f"{sign} {words}", style), text(f"{took}{steps}{more}"))]
    if result.pause_reason:
        parts.append(text(f"paused: {result.pause_reason}"))
    if result.rollback_status == "partial":
        parts.append(text(f"rolled back in part; not undone: {', '.join(result.not_undone)}"[:_CELL_CHARS], "red"))
    if result.ok and result.result is not None:
        parts += ["", text("result", "bold"), value(result.result)]
    if result.error is not None:
        parts += ["", failure(result.error), *(_stack(result.error) if stacks else ())]
    return Group(*parts)


def _took(result: ExecutionResult) -> str:
    """How long it took, since it was last set going: not the days between its end and somebody's retry."""
    if result.completed_at is None or result.started_at is None:
        return ""
    since = result.going_since or result.started_at
    run = f" of run {result.run}" if result.run > 1 and result.rollback_status is None else ""
    return f" in {duration((result.completed_at - since).total_seconds() * 1000)}{run}"


def failure(error: ErrorInfo) -> RenderableType:
    """An error: code, message, where, and the way out if one is known."""
    lines = [text(f"error [{error.code}]: {error.message}", "red")]
    if error.task_id:
        lines.append(text(f"in step {error.task_id}" + (f", attempt {error.attempt}" if error.attempt else "")))
    if raised := _FRAME.findall(error.stack or ""):
        file, line, function = raised[-1]
        lines.append(text(f"raised at {file}:{line} in {function}"))
    if error.hint:
        lines.append(text(f"hint: {error.hint}"))
    return Group(*lines)


def _stack(error: ErrorInfo) -> list[RenderableType]:
    return [text(line, _DIM) for line in (error.stack or "").splitlines()]


def value(content: Any) -> RenderableType:
    """A value: names and values under each other where it is that simple, else JSON."""
    if isinstance(content, dict) and content and all(_is_simple(part) for part in content.values()):
        return columns(*((text(name, _DIM), text(_simple(part))) for name, part in content.items()))
    if _is_simple(content):
        return text(_simple(content))
    lines = msgspec.json.format(msgspec.json.encode(content), indent=2).decode().splitlines()
    shown = [text(line) for line in lines[:_VALUE_LINES]]
    if len(lines) > _VALUE_LINES:
        shown.append(text(f"… {len(lines) - _VALUE_LINES} more lines; --json has all", _DIM))
    return Group(*shown)


def _is_simple(content: Any) -> bool:
    return content is None or isinstance(content, str | int | float | bool)


def _simple(content: Any) -> str:
    if isinstance(content, str):
        return content if len(content) <= _CELL_CHARS else f"{content[:_CELL_CHARS]}…"
    if isinstance(content, bool) or content is None:
        return {True: "yes", False: "no", None: "–"}[content]
    return f"{content:,}"


def execution(result: ExecutionResult, commands: Iterable[TimelineEntry] = ()) -> RenderableType:
    """What is known of an execution, the last `commands` that it was given, and a line for each of its steps."""
    facts = {
        "execution": result.execution_id,
        "plan": f"{result.name} ({result.plan_id[:12]})",
        "run": str(result.run) if result.run > 1 else None,
        "created": _when(result.created_at),
        "not before": _when(result.start_at),
        "deadline": _when(result.deadline),
        "ended": _when(result.completed_at),
        "owner": result.owner,
        "idempotency key": result.idempotency_key,
        "started by": result.parent,
        "carries on from": result.forked_from,
        "checkpoints": f"{len(result.checkpoints)}, last {result.checkpoints[-1]}" if result.checkpoints else None,
        "variables": msgspec.json.encode(result.variables).decode()[:_CELL_CHARS] if result.variables else None,
    }
    known = [(text(name, _DIM), text(fact)) for name, fact in facts.items() if fact]
    told = [entry for entry in commands if not isinstance(entry.event, ExecutionCreated)][-_COMMANDS:]
    known += [(text("" if row else "commands", _DIM), _with_actor(entry, _when(entry.time))) for row, entry in enumerate(told)]
    steps = columns(*(_step(task, left=task.task_id in result.not_undone) for task in result.results))
    return Group(columns(*known), "", steps, "")


def _with_actor(entry: TimelineEntry, when: str | None = None) -> Text:
    """What happened, and who wished it; of a creation the words say so themselves."""
    words = Text.assemble(*([text(f"{when}  ")] if when else []), text(entry.description, _tone(entry)))
    if entry.actor is not None and not isinstance(entry.event, ExecutionCreated):
        words.append_text(text(f" (by {entry.actor})", _DIM))
    return words


def _step(task: TaskResult, *, left: bool) -> tuple[Text, ...]:
    """`left`: a rollback that is over left it as it is."""
    sign, style = LOOKS[task.status]
    took = duration(task.duration_ms) if task.duration_ms is not None else ""
    more = [counted(task.retries, "retry", "retries")] if task.retries else []
    if task.fallback:
        more.append(f"by its fallback {task.fallback}")
    if task.recoveries:
        all_there_are = task.recoveries >= limits.recoveries_per_step
        more.append(counted(task.recoveries, "recovery", "recoveries") + (" (no more are tried)" if all_there_are else ""))
    if task.compensation or left:
        more.append(_undoing(task))
    if task.next_retry_at is not None:
        more.append(f"again at {task.next_retry_at:%H:%M:%S}")
    if task.error is not None and task.status != "completed":
        more.append(f"[{task.error.code}] {task.error.message}"[:_CELL_CHARS])
    if task.skip_reason:
        more.append(task.skip_reason)
    return (text(sign, style), text(task.task_id), text(task.status, style), text(took, _DIM), text(", ".join(more)))


def _undoing(task: TaskResult) -> str:
    """How its undoing stands, and why it is not done. One that was never begun, or was given up, has not failed."""
    words, error = _UNDOING[task.compensation or "failed"], task.compensation_error
    if task.compensation != "failed" or error is None:
        return words
    if error.code not in _NOT_BEGUN:
        words = f"could not be undone by {task.undone_by}"
    return f"{words}: [{error.code}] {error.message}"[:_CELL_CHARS]


def _when(time: datetime | None) -> str | None:
    return None if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def rollback_plan(undos: Iterable[tuple[Undo, datetime | None]]) -> RenderableType:
    """What a rollback would do, in its order: step, since when it is completed, what undoes it, with which params."""
    head = tuple(text(word, _DIM) for word in ("", "step", "completed", "undone by", "params"))
    rows = [
        (
            text(f"{order:>4}", _DIM),
            text(undo.step),
            text(_when(completed_at) or "not known", _DIM),
            text(undo.task or "–", "" if undo.task else "yellow"),
            text(_undo_words(undo)),
        )
        for order, (undo, completed_at) in enumerate(undos, 1)
    ]
    return columns(head, *rows) if rows else text("nothing to undo")


def _undo_words(undo: Undo) -> str:
    if undo.params is not None:
        return msgspec.json.encode(undo.params).decode()[:_CELL_CHARS]
    return not_undone(undo.reason or "")


def checkpoints(found: Iterable[Checkpoint]) -> RenderableType:
    """A line for each checkpoint: id, time, what made it, metadata."""
    rows = [
        (
            text(one.id),
            text(_when(one.timestamp), _DIM),
            text(one.by),
            text(msgspec.json.encode(one.metadata).decode()[:_CELL_CHARS] if one.metadata else ""),
        )
        for one in found
    ]
    return columns(*rows) if rows else text("no checkpoints")


def checkpoint(found: Checkpoint) -> RenderableType:
    """A checkpoint and the state it stands for."""
    facts = {
        "checkpoint": found.id,
        "made": f"{_when(found.timestamp)} by {found.by}",
        "commit": f"{found.n} at {found.position}, {found.hash}",
        "metadata": msgspec.json.encode(found.metadata).decode()[:_CELL_CHARS] if found.metadata else None,
    }
    parts: list[RenderableType] = [columns(*((text(name, _DIM), text(fact)) for name, fact in facts.items() if fact)), ""]
    if found.state is not None:
        parts.append(columns(*(_task(step, view.status) for step, view in found.state.task_states.items())))
        if found.state.variables:
            parts += ["", text("variables", "bold"), value(found.state.variables)]
    return Group(*parts)


def _task(step: str, status: str) -> tuple[Text, ...]:
    sign, style = LOOKS[status]
    return text(sign, style), text(step), text(status, style)


def story(entries: Iterable[TimelineEntry]) -> RenderableType:
    """A timeline in short: since when, what happened. Left out: what is merely scheduled, starts that were told with the end."""
    told = [entry for entry in entries if entry.type not in ("task_scheduled", "compensation_scheduled")]
    ends = {(entry.n, entry.step, entry.attempt) for entry in told if entry.type in _ATTEMPT_ENDS}
    told = [entry for entry in told if entry.type not in _STARTS or (entry.n, entry.step, entry.attempt) not in ends]
    return columns(*((text(_offset(entry), _DIM), _with_actor(entry)) for entry in told))


def history(entries: Iterable[TimelineEntry]) -> RenderableType:
    """A timeline in full: version, time, since when, what happened."""
    rows = (
        (
            text(f"{entry.version:>4}", _DIM),
            text(f"{entry.time:%H:%M:%S}", _DIM),
            text(_offset(entry), _DIM),
            _with_actor(entry),
        )
        for entry in entries
    )
    return columns(*rows)


def _offset(entry: TimelineEntry) -> str:
    return f"{entry.offset_ms / 1000:>8.3f} s"


def _tone(entry: TimelineEntry) -> str:
    if entry.type in _BAD:
        return "red"
    return "yellow" if any(part in entry.type for part in _ODD) else ""


def verified(report: Verification) -> Text:
    """`history verified`, or where it breaks."""
    if report.ok:
        return text(f"history verified ({report.commits} commits, {report.events} events)", "green")
    return text(f"history not intact at commit {report.commit}: {report.problem}", "bold red")


def changes(found: Iterable[Change], before: int, after: int) -> RenderableType:
    """What is different between two versions: a line for each change."""
    rows = [(text(change.what), text(_side(change.before)), text(_side(change.after))) for change in found]
    head = (text("", _DIM), text(f"version {before}", _DIM), text(f"version {after}", _DIM))
    return columns(head, *rows) if rows else text("nothing is different")


def _side(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content[:_CELL_CHARS] if content else "–"
    return msgspec.json.encode(content).decode()[:_CELL_CHARS]
