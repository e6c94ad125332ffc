"""An execution for people's eyes: what came of it, its steps, its timeline, and whether its history is intact."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from esexec.cli.progress import LOOKS
from esexec.cli.terminal import columns, text
from esexec.domain.errors import ErrorInfo
from esexec.log.verify import Verification
from esexec.results import ExecutionResult, ExecutionStatus, TaskResult
from projections.timeline import TimelineEntry, duration

_VALUE_LINES: Final = 40
_CELL_CHARS: Final = 300
_FRAME: Final = re.compile(r'^ *File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_DIM: Final = "bright_black"

_ATTEMPT_ENDS: Final = ("task_completed", "task_failed", "task_timed_out", "task_cancelled")
_ENDS: Final = {
    ExecutionStatus.COMPLETED: ("✓", "bold green"),
    ExecutionStatus.FAILED: ("✗", "bold red"),
    ExecutionStatus.CANCELLED: ("–", "bold yellow"),
}


def outcome(result: ExecutionResult, *, stacks: bool = False) -> RenderableType:
    """How it stands or ended, and its output or error. `stacks`: with the handler's stack trace."""
    sign, style = _ENDS.get(result.status, ("◉", "bold cyan"))
    took = f" in {duration(result.duration_ms)}" if result.duration_ms is not None else ""
    steps = f", {result.completed_steps} of {result.total_steps} steps completed"
    retries = sum(task.retries for task in result.results)
    more = f", {retries} {'retry' if retries == 1 else 'retries'}" if retries else ""
    parts: list[RenderableType] = [Text.assemble(text(f"{sign} {result.status}", style), text(f"{took}{steps}{more}"))]
    if result.ok and result.result is not None:
        parts += ["", text("result", "bold"), value(result.result)]
    if result.error is not None:
        parts += ["", failure(result.error), *(_stack(result.error) if stacks else ())]
    return Group(*parts)


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


def execution(result: ExecutionResult) -> RenderableType:
    """What is known of an execution, and a line for each of its steps."""
    facts = {
        "execution": result.execution_id,
        "plan": f"{result.name} ({result.plan_id[:12]})",
        "created": _when(result.created_at),
        "ended": _when(result.completed_at),
        "owner": result.owner,
        "idempotency key": result.idempotency_key,
    }
    known = [(text(name, _DIM), text(fact)) for name, fact in facts.items() if fact]
    steps = columns(*(_step(task) for task in result.results))
    return Group(columns(*known), "", steps, "")


def _step(task: TaskResult) -> tuple[Text, ...]:
    sign, style = LOOKS[task.status]
    took = duration(task.duration_ms) if task.duration_ms is not None else ""
    more = [f"attempt {task.attempt}"] if task.attempt > 1 else []
    if task.next_retry_at is not None:
        more.append(f"again at {task.next_retry_at:%H:%M:%S}")
    if task.error is not None and task.status != "completed":
        more.append(f"[{task.error.code}] {task.error.message}"[:_CELL_CHARS])
    if task.skip_reason:
        more.append(task.skip_reason)
    return (text(sign, style), text(task.task_id), text(task.status, style), text(took, _DIM), text(", ".join(more)))


def _when(time: datetime | None) -> str | None:
    return None if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"


def story(entries: Iterable[TimelineEntry]) -> RenderableType:
    """A timeline in short: since when, what happened. Left out: what is merely scheduled, starts that were told with the end."""
    told = [entry for entry in entries if entry.type != "task_scheduled"]
    ends = {(entry.n, entry.step, entry.attempt) for entry in told if entry.type in _ATTEMPT_ENDS}
    told = [entry for entry in told if entry.type != "task_started" or (entry.n, entry.step, entry.attempt) not in ends]
    return columns(*((text(_offset(entry), _DIM), text(entry.description, _tone(entry))) for entry in told))


def history(entries: Iterable[TimelineEntry]) -> RenderableType:
    """A timeline in full: version, time, since when, what happened."""
    rows = (
        (
            text(f"{entry.version:>4}", _DIM),
            text(f"{entry.time:%H:%M:%S}", _DIM),
            text(_offset(entry), _DIM),
            text(entry.description, _tone(entry)),
        )
        for entry in entries
    )
    return columns(*rows)


def _offset(entry: TimelineEntry) -> str:
    return f"{entry.offset_ms / 1000:>8.3f} s"


def _tone(entry: TimelineEntry) -> str:
    if entry.type in ("task_failed", "task_timed_out", "execution_failed"):
        return "red"
    return "yellow" if entry.type == "task_retry_scheduled" or "cancel" in entry.type else ""


def verified(report: Verification) -> Text:
    """`history verified`, or where it breaks."""
    if report.ok:
        return text(f"history verified ({report.commits} commits, {report.events} events)", "green")
    return text(f"history not intact at commit {report.commit}: {report.problem}", "bold red")
